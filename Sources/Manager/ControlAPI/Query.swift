import Model

/// Path and query of a request, decoded.
struct Target: Sendable {
  /// Without the version prefix: ["services", "web", "update"].
  var path: [String]
  /// "1.45" of "/v1.45/…"; nil for an unversioned path.
  var apiVersion: String?
  var query: [String: [String]]

  init(uri: String) {
    let parts = uri.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
    var path = parts[0].split(separator: "/").map { percentDecoded($0, plusIsSpace: false) }
    if let first = path.first, first.first == "v",
      first.dropFirst().split(separator: ".", omittingEmptySubsequences: false).allSatisfy({ UInt($0) != nil })
    {
      apiVersion = String(path.removeFirst().dropFirst())
    }
    self.path = path
    var query: [String: [String]] = [:]
    if parts.count == 2 {
      for item in parts[1].split(separator: "&") {
        let pair = item.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        query[percentDecoded(pair[0], plusIsSpace: true), default: []].append(pair.count == 2 ? percentDecoded(pair[1], plusIsSpace: true) : "")
      }
    }
    self.query = query
  }

  subscript(_ name: String) -> String? { query[name]?.first }

  /// Docker's booleans: absent, "", 0, no, false, none are false.
  func flag(_ name: String) -> Bool {
    guard let value = self[name]?.lowercased() else { return false }
    return !["", "0", "no", "false", "none"].contains(value)
  }

  /// A version to compare with; 400 when it is missing or no number.
  func version() throws -> UInt64 {
    guard let text = self["version"], let version = UInt64(text) else {
      throw APIError(400, "invalid version '\(self["version"] ?? "")': give ?version=N with the Version.Index that you read")
    }
    return version
  }

  /// "1600000000", "1600000000.000000001" or RFC 3339; nil when absent or 0.
  func instant(_ name: String) throws -> Timestamp? {
    guard let text = self[name], !text.isEmpty, text != "0" else { return nil }
    if let instant = Timestamp(text) { return instant }
    let parts = text.split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
    if let seconds = Int64(parts[0]), abs(seconds) < 9_000_000_000 {
      var nanoseconds = seconds * 1_000_000_000
      if parts.count == 2 {
        let digits = String(parts[1].prefix(9))
        guard let fraction = UInt64(digits.isEmpty ? "0" : digits) else { throw bad(name, text) }
        nanoseconds += Int64(fraction) * (0..<(9 - max(1, digits.count))).reduce(1) { scale, _ in scale * 10 }
      }
      return Timestamp(nanoseconds: nanoseconds)
    }
    throw bad(name, text)
  }

  private func bad(_ name: String, _ text: String) -> APIError {
    APIError(400, "invalid value for '\(name)': '\(text)' is neither seconds since 1970 nor a time like 2026-01-31T12:00:00Z")
  }
}

func percentDecoded(_ text: some StringProtocol, plusIsSpace: Bool) -> String {
  var bytes: [UInt8] = []
  let source = Array(text.utf8)
  var index = 0
  func hex(_ byte: UInt8) -> UInt8? {
    switch byte {
    case 48...57: byte - 48
    case 65...70: byte - 55
    case 97...102: byte - 87
    default: nil
    }
  }
  while index < source.count {
    if source[index] == UInt8(ascii: "%"), index + 2 < source.count, let high = hex(source[index + 1]), let low = hex(source[index + 2]) {
      bytes.append(high << 4 | low)
      index += 3
    } else {
      bytes.append(plusIsSpace && source[index] == UInt8(ascii: "+") ? UInt8(ascii: " ") : source[index])
      index += 1
    }
  }
  return String(decoding: bytes, as: UTF8.self)
}

/// `?filters=`: {"name":{"web":true}} as Go writes it, {"name":["web"]} as Python does.
struct Filters: Sendable, Decodable {
  private var values: [String: [String]]

  init(_ target: Target, accepted: Set<String>) throws {
    guard let text = target["filters"], !text.isEmpty else {
      values = [:]
      return
    }
    do { self = try JSON.decode(Filters.self, from: Array(text.utf8)) } catch {
      throw APIError(400, "invalid filter: '\(text)' is not JSON like {\"name\":[\"web\"]}")
    }
    for name in values.keys.sorted() where !accepted.contains(name) {
      throw APIError(400, "invalid filter '\(name)': one of \(accepted.filter { $0.first != "_" }.sorted().joined(separator: ", ")) is accepted here")
    }
  }

  init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    if let sets = try? container.decode([String: [String: Bool]].self) {
      values = sets.mapValues { $0.filter(\.value).keys.sorted() }
    } else {
      values = try container.decode([String: [String]].self)
    }
  }

  subscript(_ name: String) -> [String]? { values[name].flatMap { $0.isEmpty ? nil : $0 } }

  /// True when the filter is absent or one of its values matches.
  func match(_ name: String, _ test: (String) -> Bool) -> Bool { self[name].map { $0.contains(where: test) } ?? true }

  /// All of a label filter's "key" or "key=value" must hold.
  func matchLabels(_ name: String, _ labels: [String: String]) -> Bool {
    (self[name] ?? []).allSatisfy { wanted in
      let pair = wanted.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard let value = labels[String(pair[0])] else { return false }
      return pair.count == 1 || value == pair[1]
    }
  }
}
