import Model

/// One placement constraint, as `node.labels.zone == east`. Keys are SwarmKit's (manager/constraint/constraint.go).
public struct Constraint: Hashable, Sendable {
  public enum Key: Hashable, Sendable {
    case id, hostname, ip, role, operatingSystem, architecture
    case label(String)
    case engineLabel(String)
  }
  public var key: Key
  /// `==` when true, `!=` when false.
  public var equal: Bool
  public var value: String

  public struct Malformed: Error, Hashable, Sendable, CustomStringConvertible {
    public var description: String
  }

  public init(_ text: String) throws(Malformed) {
    let bytes = Array(text.utf8)
    guard let place = bytes.indices.dropLast().first(where: { (bytes[$0] == 61 || bytes[$0] == 33) && bytes[$0 + 1] == 61 }) else {
      throw Malformed(description: "placement constraint '\(text)' has neither == nor !=: write it as node.labels.zone==east")
    }
    let name = trim(String(decoding: bytes[..<place], as: UTF8.self))
    value = trim(String(decoding: bytes[(place + 2)...], as: UTF8.self))
    equal = bytes[place] == 61
    switch name.lowercased() {
    case "node.id": key = .id
    case "node.hostname": key = .hostname
    case "node.ip": key = .ip
    case "node.role": key = .role
    case "node.platform.os": key = .operatingSystem
    case "node.platform.arch": key = .architecture
    case let lower where lower.hasPrefix("node.labels.") && lower.utf8.count > 12: key = .label(String(name.dropFirst(12)))
    case let lower where lower.hasPrefix("engine.labels.") && lower.utf8.count > 14: key = .engineLabel(String(name.dropFirst(14)))
    default:
      throw Malformed(
        description: "placement constraint '\(text)': unknown key '\(name)'; known are node.id, node.hostname, node.ip, node.role, "
          + "node.platform.os, node.platform.arch, node.labels.KEY and engine.labels.KEY")
    }
    guard !value.isEmpty else { throw Malformed(description: "placement constraint '\(text)' has no value") }
    if key == .ip, IPv4Address(value) == nil, IPv4Prefix(value) == nil {
      throw Malformed(description: "placement constraint '\(text)': \(value) is neither an IPv4 address nor a subnet")
    }
  }

  /// Values are compared without regard to case, labels too, as Swarm does. A label that a node lacks is the empty string.
  public func admits(_ node: Node) -> Bool {
    switch key {
    case .id: matches(node.id.description)
    case .hostname: matches(node.description?.hostname ?? "")
    case .role: matches(node.spec.role.rawValue)
    case .operatingSystem: matches(node.description?.platform.os ?? "")
    case .architecture: equal == sameArchitecture(node.description?.platform.architecture ?? "", value)
    case .label(let name): matches(node.spec.labels?[name] ?? "")
    case .engineLabel(let name): matches(node.description?.engine.labels?[name] ?? "")
    case .ip: equal == isAt(node.status.address)
    }
  }

  private func matches(_ actual: String) -> Bool { equal == (actual == value || actual.lowercased() == value.lowercased()) }

  private func isAt(_ address: IPv4Address?) -> Bool {
    guard let address else { return false }
    return IPv4Address(value).map { $0 == address } ?? IPv4Prefix(value).map { $0.contains(address) } ?? false
  }
}

extension Constraint {
  /// All of a placement's constraints hold for the node. Malformed ones (the API lets none in) never hold.
  public static func all(_ texts: [String], admit node: Node) -> Bool {
    texts.allSatisfy { (try? Constraint($0))?.admits(node) ?? false }
  }
}

/// uname's and Go's names for the same processor.
func sameArchitecture(_ a: String, _ b: String) -> Bool { normalArchitecture(a) == normalArchitecture(b) }

private func normalArchitecture(_ name: String) -> String {
  switch name.lowercased() {
  case "x86_64", "x86-64": "amd64"
  case "aarch64": "arm64"
  case "i386", "i686": "386"
  case let other: other
  }
}

private func trim(_ text: String) -> String {
  String(text.drop { $0 == " " || $0 == "\t" }.reversed().drop { $0 == " " || $0 == "\t" }.reversed())
}
