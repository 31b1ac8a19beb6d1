/// One `RUN --mount` (docs.docker.com/reference/dockerfile, "RUN --mount"): what a step sees that is no part of its layer.
public struct RunMount: Hashable, Sendable {
  public enum Kind: String, Hashable, Sendable {
    /// Files of the context, a stage or an image; what is written to them is lost.
    case bind
    /// A folder of the host that builds keep, by its id.
    case cache
    case tmpfs
    /// A file that the client sends along, by its id; in memory alone.
    case secret
  }
  public enum Sharing: String, Hashable, Sendable { case shared, `private`, locked }

  public var kind: Kind
  /// Not expanded before `BuildStage.step`; absolute after it. Empty: a secret that is a variable alone.
  public var target = ""
  /// Of a bind: in the context, stage or image.
  public var source = ""
  /// Of a bind; nil: the context.
  public var from: String?
  public var isReadOnly: Bool
  public var id = ""
  public var sharing = Sharing.shared
  /// Bytes of a tmpfs; nil: half of memory.
  public var size: Int64?
  public var mode: UInt32?
  public var uid: UInt32 = 0
  public var gid: UInt32 = 0
  /// A secret that the client does not send ends the build; otherwise it is left out.
  public var isRequired = false
  /// Variable that holds the secret.
  public var variable: String?

  /// What is wrong with it.
  struct Problem: Error { var message: String }

  /// `type=cache,target=/root/.cache`, as after `--mount=`.
  init(_ text: String) throws(Problem) {
    var pairs: [(key: String, value: String?)] = text.split(separator: ",").map { item in
      let parts = item.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      return (parts[0].lowercased(), parts.count == 2 ? String(parts[1]) : nil)
    }
    var name = "bind"
    if let index = pairs.firstIndex(where: { $0.key == "type" }) { name = pairs.remove(at: index).value ?? "" }
    guard let kind = Kind(rawValue: name) else {
      throw Problem(message: "type=\(name) is not supported: bind, cache, tmpfs and secret are" + (name == "ssh" ? "; send a key as a secret" : ""))
    }
    self.kind = kind
    isReadOnly = kind == .bind
    for (key, value) in pairs { try take(key, value) }
    switch kind {
    case .secret:
      if id.isEmpty { id = target.split(separator: "/").last.map(String.init) ?? "" }
      if id.isEmpty { throw Problem(message: "a secret needs an id") }
      if target.isEmpty, variable == nil { target = "/run/secrets/" + id }
    default: if target.isEmpty { throw Problem(message: "it needs a target") }
    }
  }

  private mutating func take(_ key: String, _ value: String?) throws(Problem) {
    func flag() throws(Problem) -> Bool {
      switch value ?? "true" {
      case "true", "1": return true
      case "false", "0": return false
      default: throw Problem(message: "\(key)=\(value ?? "") is neither true nor false")
      }
    }
    func number(_ radix: Int) throws(Problem) -> UInt32 {
      guard let number = UInt32(value ?? "", radix: radix), number <= (radix == 8 ? 0o7777 : 0x7fff_ffff) else {
        throw Problem(message: "\(key)=\(value ?? "") is no \(radix == 8 ? "mode" : "number")")
      }
      return number
    }
    func text() throws(Problem) -> String {
      guard let value, !value.isEmpty else { throw Problem(message: "\(key) needs a value") }
      return value
    }
    switch (kind, key) {
    case (_, "target"), (_, "dst"), (_, "destination"): target = try text()
    case (.bind, "source"), (.bind, "src"): source = try text()
    case (.bind, "from"): from = try text()
    case (.bind, "rw"), (.bind, "readwrite"), (.cache, "rw"), (.cache, "readwrite"): isReadOnly = try !flag()
    case (.bind, "ro"), (.bind, "readonly"), (.cache, "ro"), (.cache, "readonly"): isReadOnly = try flag()
    case (.cache, "id"), (.secret, "id"): id = try text()
    case (.cache, "sharing"):
      guard let sharing = Sharing(rawValue: value ?? "") else { throw Problem(message: "sharing is shared, private or locked") }
      self.sharing = sharing
    case (.tmpfs, "size"):
      guard let size = Self.bytes(value ?? "") else { throw Problem(message: "size=\(value ?? "") is no number of bytes: write 64m") }
      self.size = size
    case (.cache, "mode"), (.secret, "mode"): mode = try number(8)
    case (.cache, "uid"), (.secret, "uid"): uid = try number(10)
    case (.cache, "gid"), (.secret, "gid"): gid = try number(10)
    case (.secret, "required"): isRequired = try flag()
    case (.secret, "env"): variable = try text()
    default: throw Problem(message: "type=\(kind.rawValue) knows no '\(key)'")
    }
  }

  private static func bytes(_ text: String) -> Int64? {
    let digits = text.prefix { $0.isASCII && $0.isNumber }
    guard let number = Int64(digits) else { return nil }
    let unit = ["": 0, "b": 0, "k": 10, "kb": 10, "m": 20, "mb": 20, "g": 30, "gb": 30][text.dropFirst(digits.count).lowercased()]
    guard let unit, number > 0, number < 1 << 40 else { return nil }
    return number << Int64(unit)
  }

  /// What of it decides a step's result beside its content.
  var fingerprint: [String] {
    [kind.rawValue, target, source, from ?? "", "\(isReadOnly)", id, variable ?? ""]
  }
}

extension RunMount {
  /// What a bind shows, as a COPY to the root would take it.
  public var copied: BuildStage.CopyAction {
    .init(sources: [source.isEmpty ? "." : source], target: "/", from: from, files: [], unpacks: false)
  }
}

extension Instruction {
  /// Stages and images that it takes files from.
  var sources: [String] {
    switch kind {
    case .copy(let copy): copy.from.map { [$0] } ?? []
    case .run(let run): run.mounts.compactMap(\.from)
    default: []
    }
  }
}
