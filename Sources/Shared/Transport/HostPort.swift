/// "HOST:PORT" of a daemon; an IPv6 address stands in brackets.
public struct HostPort: Hashable, Sendable, LosslessStringConvertible {
  /// The managers' port, SwarmKit's.
  public static let defaultPort = 2377
  public var host: String
  public var port: Int

  public init(host: String, port: Int) {
    self.host = host
    self.port = port
  }

  /// Both parts are needed.
  public init?(_ description: String) {
    guard let parsed = HostPort(description, defaultPort: nil) else { return nil }
    self = parsed
  }

  /// The port may be missing.
  public init?(_ text: String, defaultPort: Int?) {
    var host = text[...]
    var port = defaultPort
    if text.hasPrefix("[") {
      guard let end = text.firstIndex(of: "]") else { return nil }
      host = text[text.index(after: text.startIndex)..<end]
      let rest = text[text.index(after: end)...]
      if rest.hasPrefix(":") { port = Int(rest.dropFirst()) } else if !rest.isEmpty { return nil }
    } else if let colon = text.lastIndex(of: ":") {
      host = text[..<colon]
      port = Int(text[text.index(after: colon)...])
      if host.contains(":") { return nil }
    }
    guard !host.isEmpty, host.utf8.count < 254, !host.utf8.contains(where: { $0 <= 32 || $0 == UInt8(ascii: "/") }), let port,
      (0...65535).contains(port)
    else { return nil }
    self.host = String(host)
    self.port = port
  }

  public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}
