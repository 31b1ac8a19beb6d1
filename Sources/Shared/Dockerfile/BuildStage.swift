/// One stage while it is built: instructions in, steps out. What a step needs beside its own is what all before it have set.
public struct BuildStage: Sendable {
  public private(set) var settings: ImageSettings
  /// Shared by all stages of a build: hand it on.
  public private(set) var arguments: BuildArguments
  private var values: [String: String]
  private var hasCommand = false
  private let words: Words

  /// What a step does, and what decides its result beside the step before it (and the digests of what is copied).
  public struct Step: Hashable, Sendable {
    public enum Action: Hashable, Sendable {
      /// Nothing but settings change.
      case none
      case run(RunAction)
      case copy(CopyAction)
      /// WORKDIR: is made when it is missing, as this user's; empty: root's.
      case folder(String, user: String)
    }
    public var action: Action
    /// Empty: it decides nothing by itself (ARG).
    public var fingerprint: String
  }
  public struct RunAction: Hashable, Sendable {
    public var arguments: [String]
    public var env: [String]
    public var workingDir: String
    public var user: String
    public var network: Instruction.Run.Network
    public var mounts: [RunMount]
    /// A heredoc that names its own interpreter: it is to be `scriptFolder` + its name, executable.
    public var script: CopyAction.File?
    public static let scriptFolder = "/dev/pipes"
  }
  public struct CopyAction: Hashable, Sendable {
    /// As written: names and patterns, and of ADD `urls`, too.
    public var sources: [String]
    /// Absolute; a trailing slash says that it is a folder.
    public var target: String
    public var from: String?
    public var owner: String?
    public var mode: UInt32?
    /// Names and contents of heredocs.
    public var files: [File]
    public var unpacks: Bool
    /// Those of the sources that are http:// or https://.
    public var urls: Set<String> = []
    public var excludes: [String] = []
    public var parents = false
    /// Hexadecimal SHA-256 that the one URL's content must have.
    public var checksum: String?
    public struct File: Hashable, Sendable {
      public var name: String
      public var content: String
    }
  }

  /// - Parameters:
  ///   - base: of the image or stage below.
  ///   - parent: the stage below, whose arguments go on.
  public init(_ base: ImageSettings, arguments: BuildArguments, parent: BuildStage? = nil, escape: Character) {
    settings = base
    settings.onbuild = []
    self.arguments = arguments
    values = parent?.values ?? [:]
    words = Words(escape: escape)
  }

  /// Variables as they are now.
  private func variable(_ name: String) -> String? { settings.variable(name) ?? values[name] }

  public mutating func step(_ instruction: Instruction) throws(DockerfileError) -> Step {
    do throws(Words.Problem) { return try carry(instruction) } catch {
      throw DockerfileError(instruction.line, "\(instruction.text.prefix { !$0.isWhitespace }): \(error.message)")
    }
  }

  private func expand(_ text: String) throws(Words.Problem) -> String { try words.expand(text, variable) }
  private func expandWords(_ text: String) throws(Words.Problem) -> [String] { try words.expandWords(text, variable) }

  private mutating func carry(_ instruction: Instruction) throws(Words.Problem) -> Step {
    switch instruction.kind {
    case .from, .maintainer: break
    case .run(let run): return try runStep(run)
    case .copy(let copy): return try copyStep(copy)
    case .workdir(let text):
      let path = try expand(text)
      if path.isEmpty { throw .init(message: "the path is empty") }
      settings.workingDir = absolute(path)
      return Step(
        action: .folder(settings.workingDir, user: settings.user), fingerprint: fingerprint("WORKDIR", [settings.workingDir, settings.user]))
    case .env(let pairs):
      // All of one instruction see what was before it.
      var changes: [(String, String)] = []
      for pair in pairs { changes.append((try expand(pair.name), try expand(pair.value))) }
      for (name, value) in changes { settings.set(name, value) }
      return Step(action: .none, fingerprint: fingerprint("ENV", changes.map { "\($0)=\($1)" }))
    case .label(let pairs):
      var shown: [String] = []
      for pair in pairs {
        let (name, value) = (try expand(pair.name), try expand(pair.value))
        settings.labels[name] = value
        shown.append("\(name)=\(value)")
      }
      return Step(action: .none, fingerprint: fingerprint("LABEL", shown))
    case .arg(let list):
      for argument in list {
        let value: String? = if let text = argument.value { try expand(text) } else { nil }
        values[argument.name] = arguments.value(of: argument.name, default: value)
      }
      return Step(action: .none, fingerprint: "")
    case .user(let text):
      settings.user = try expand(text)
      return Step(action: .none, fingerprint: fingerprint("USER", [settings.user]))
    case .expose(let ports):
      var all = Set(settings.exposedPorts)
      for port in ports {
        for word in try expandWords(port) { all.formUnion(try Self.ports(word)) }
      }
      settings.exposedPorts = all.sorted()
      return Step(action: .none, fingerprint: fingerprint("EXPOSE", settings.exposedPorts))
    case .volume(let paths):
      var all = Set(settings.volumes)
      for path in paths { all.insert(try expand(path)) }
      settings.volumes = all.sorted()
      return Step(action: .none, fingerprint: fingerprint("VOLUME", settings.volumes))
    case .cmd(let command):
      settings.cmd = list(command)
      hasCommand = true
      return Step(action: .none, fingerprint: fingerprint("CMD", settings.cmd))
    case .entrypoint(let command):
      settings.entrypoint = list(command)
      // The image's below was meant for another program.
      if !hasCommand { settings.cmd = [] }
      return Step(action: .none, fingerprint: fingerprint("ENTRYPOINT", settings.entrypoint))
    case .healthcheck(let health):
      var result = ImageSettings.Health(test: ["NONE"])
      if let health {
        switch health.command {
        case .shell(let line): result.test = ["CMD-SHELL", line]
        case .exec(let words): result.test = ["CMD"] + words
        }
        (result.interval, result.timeout, result.retries) = (health.interval, health.timeout, health.retries)
        (result.startPeriod, result.startInterval) = (health.startPeriod, health.startInterval)
      }
      settings.health = result
      return Step(action: .none, fingerprint: fingerprint("HEALTHCHECK", ["\(result)"]))
    case .shell(let shell):
      settings.shell = shell
      return Step(action: .none, fingerprint: fingerprint("SHELL", shell))
    case .stopSignal(let text):
      settings.stopSignal = try expand(text)
      return Step(action: .none, fingerprint: fingerprint("STOPSIGNAL", [settings.stopSignal ?? ""]))
    case .onbuild(let text):
      settings.onbuild.append(text)
      return Step(action: .none, fingerprint: fingerprint("ONBUILD", [text]))
    }
    if case .maintainer(let author) = instruction.kind { settings.author = author }
    return Step(action: .none, fingerprint: fingerprint("MAINTAINER", [settings.author ?? ""]))
  }

  // MARK: - RUN and COPY

  private func runStep(_ run: Instruction.Run) throws(Words.Problem) -> Step {
    var arguments: [String]
    var ownScript: CopyAction.File?
    switch run.command {
    case .exec(let words): arguments = words
    case .shell(let line):
      var script = line
      if let first = run.heredocs.first, run.heredocs.count == 1, LogicalLines.markers(line).count == 1, Words.isMarkerAlone(line) {
        script = first.content
        if script.hasPrefix("#!") {
          // As BuildKit: a file at this very place, run by the shell and so by whom it names.
          guard first.name != ".", first.name != ".." else { throw .init(message: "the heredoc '\(first.name)' cannot name a file") }
          ownScript = .init(name: first.name, content: script)
          script = "\(RunAction.scriptFolder)/\(first.name)"
        }
      } else {
        for heredoc in run.heredocs { script += "\n\(heredoc.content)\(heredoc.name)" }
        if !run.heredocs.isEmpty { script += "\n" }
      }
      arguments = shell + [script]
    }
    // ENV stands over ARG of the same name.
    let own = values.filter { settings.variable($0.key) == nil }.map { "\($0.key)=\($0.value)" }.sorted()
    let proxies = self.arguments.proxies.filter { settings.variable($0.key) == nil && values[$0.key] == nil }
    var mounts = run.mounts
    for index in mounts.indices {
      let target = try expand(mounts[index].target)
      if target.isEmpty, mounts[index].variable == nil { throw .init(message: "--mount: the target is empty") }
      mounts[index].target = target.isEmpty ? "" : absolute(target)
      if mounts[index].target == "/" { throw .init(message: "--mount: the target is the root") }
      mounts[index].source = try expand(mounts[index].source)
      mounts[index].id = try expand(mounts[index].id)
      if mounts[index].kind == .cache, mounts[index].id.isEmpty { mounts[index].id = mounts[index].target }
    }
    var action = RunAction(
      arguments: arguments, env: settings.env + own + proxies.map { "\($0.key)=\($0.value)" }.sorted(),
      workingDir: settings.workingDir.isEmpty ? "/" : settings.workingDir, user: settings.user, network: run.network,
      mounts: mounts)
    action.script = ownScript
    let decisive = own.filter { entry in !BuildArguments.predefined.contains(String(entry.prefix { $0 != "=" })) }
    let mounted = mounts.isEmpty ? [] : ["mounts"] + mounts.flatMap(\.fingerprint)
    let scripted = ownScript.map { ["script", $0.content] } ?? []
    return Step(
      action: .run(action), fingerprint: fingerprint("RUN", [run.network.rawValue, "\(decisive.count)"] + decisive + arguments + scripted + mounted))
  }

  private func copyStep(_ copy: Instruction.Copy) throws(Words.Problem) -> Step {
    var action = CopyAction(sources: [], target: "", from: copy.from, files: [], unpacks: copy.unpacks)
    for source in copy.sources {
      let source = try expand(source)
      if try Self.isURL(source, of: copy) { action.urls.insert(source) }
      action.sources.append(source)
    }
    action.excludes = try copy.excludes.map { (text) throws(Words.Problem) in try expand(text) }
    action.parents = copy.parents
    if let text = copy.checksum {
      let checksum = try expand(text)
      let hex = checksum.dropFirst(7)
      guard checksum.hasPrefix("sha256:"), hex.utf8.count == 64, hex.utf8.allSatisfy({ (48...57).contains($0) || (97...102).contains($0) }) else {
        throw .init(message: "--checksum=\(checksum): expected sha256: and 64 digits")
      }
      guard action.urls.count == 1, action.sources.count == 1, copy.heredocs.isEmpty else {
        throw .init(message: "--checksum is for one source that is a URL")
      }
      action.checksum = String(hex)
    }
    let target = try expand(copy.target)
    if target.isEmpty { throw .init(message: "the target is empty") }
    action.target = absolute(target)
    let isFolder = target.hasSuffix("/") || target == "." || target.hasSuffix("/.") || target == ".." || target.hasSuffix("/..")
    if isFolder || copy.parents, !action.target.hasSuffix("/") { action.target += "/" }
    if action.sources.count + copy.heredocs.count > 1, !isFolder, !copy.parents {
      throw .init(message: "with several sources the target is a folder: write \(target)/")
    }
    action.owner = try copy.owner.map { (text) throws(Words.Problem) in try expand(text) }
    if let text = copy.mode {
      let digits = try expand(text)
      guard let mode = UInt32(digits, radix: 8), mode <= 0o7777 else { throw .init(message: "--chmod=\(digits): expected an octal mode such as 755") }
      action.mode = mode
    }
    for heredoc in copy.heredocs {
      let content = heredoc.expands ? try words.expandVariables(heredoc.content, variable) : heredoc.content
      action.files.append(.init(name: heredoc.name, content: content))
    }
    let mode = action.mode.map { String($0, radix: 8) } ?? ""
    return Step(
      action: .copy(action),
      fingerprint: fingerprint(
        (copy.unpacks ? "ADD" : "COPY") + (copy.parents ? " --parents" : "") + (action.excludes.isEmpty ? "" : " --exclude=\(action.excludes.count)"),
        action.excludes + [action.target, action.owner ?? "", mode] + action.files.flatMap { [$0.name, $0.content] }))
  }

  private static func isURL(_ source: String, of copy: Instruction.Copy) throws(Words.Problem) -> Bool {
    if ["git@", "git://", "ssh://"].contains(where: { source.hasPrefix($0) }) {
      throw .init(message: "\(source): git repositories are not supported; RUN git clone, or put it into the context")
    }
    guard ["http://", "https://"].contains(where: { source.hasPrefix($0) }) else { return false }
    guard copy.unpacks else { throw .init(message: "\(source): COPY takes no URL, ADD does") }
    // As docker tells them from files.
    if source.prefix(while: { $0 != "#" && $0 != "?" }).hasSuffix(".git") {
      throw .init(message: "\(source): git repositories are not supported; RUN git clone, or put it into the context")
    }
    return true
  }

  private var shell: [String] { settings.shell.isEmpty ? ["/bin/sh", "-c"] : settings.shell }

  private func list(_ command: Instruction.Command) -> [String] {
    switch command {
    case .exec(let words): words
    case .shell(let line): shell + [line]
    }
  }

  /// Lengths part the fields: no two lists look alike.
  private func fingerprint(_ keyword: String, _ fields: [String]) -> String {
    keyword + fields.map { " \($0.utf8.count):\($0)" }.joined()
  }

  private func absolute(_ path: String) -> String {
    let whole = path.hasPrefix("/") ? path : "\(settings.workingDir.isEmpty ? "/" : settings.workingDir)/\(path)"
    var parts: [Substring] = []
    for part in whole.split(separator: "/") where part != "." {
      if part == ".." { _ = parts.popLast() } else { parts.append(part) }
    }
    return "/" + parts.joined(separator: "/")
  }

  /// "80", "53/udp", "8000-8002/tcp". What stands before the container's own ports, as for `docker run -p` ("8080:80", "127.0.0.1:8080:80"), is
  /// read and means nothing (BuildKit, convert_expose.go).
  private static func ports(_ text: String) throws(Words.Problem) -> [String] {
    let refused = Words.Problem(message: "'\(text)' is no port: write 80, 53/udp or 8000-8002")
    func range(_ text: Substring) throws(Words.Problem) -> ClosedRange<UInt16> {
      let ends = text.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false).map { UInt16($0) }
      guard let first = ends[0], let last = ends[ends.count - 1], first <= last else { throw refused }
      return first...last
    }
    var parts = text.split(separator: ":", omittingEmptySubsequences: false)
    let own = parts.removeLast().split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    let protocolName = own.count == 2 && !own[1].isEmpty ? own[1].lowercased() : "tcp"
    guard ["tcp", "udp", "sctp"].contains(protocolName) else { throw refused }
    let ports = try range(own[0])
    if let published = parts.popLast(), !published.isEmpty {
      let published = try range(published)
      // One port may have a range to be published in.
      guard ports.count == 1 || ports.count == published.count else { throw refused }
    }
    // An IPv6 address has colons of its own, and stands in brackets or does not.
    guard parts.joined().utf8.allSatisfy({ Character(UnicodeScalar($0)).isHexDigit || ".[]".utf8.contains($0) }) else { throw refused }
    return ports.map { "\($0)/\(protocolName)" }
  }
}

extension Words {
  /// The line is a heredoc's marker and nothing else.
  static func isMarkerAlone(_ line: String) -> Bool { line.hasPrefix("<<") && !line.contains { $0.isWhitespace } }
}
