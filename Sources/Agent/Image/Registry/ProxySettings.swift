import AsyncHTTPClient
import Model

/// By which proxies registries are asked: HTTPS_PROXY, HTTP_PROXY and NO_PROXY, each in small letters too, which win. The rules are those of Go's
/// `httpproxy`, and so docker's: loopback is never asked by a proxy; an entry of NO_PROXY is a host and what ends in it, `.host` (that alone),
/// an address, a network (10.0.0.0/8), each with an optional port, or `*`.
public struct ProxySettings: Hashable, Sendable {
  private var https = ""
  private var http = ""
  private var exceptions: [String] = []

  /// None.
  public init() {}

  public init(environment: [String: String]) {
    func value(_ name: String) -> String { environment[name.lowercased()] ?? environment[name] ?? "" }
    (https, http) = (value("HTTPS_PROXY"), value("HTTP_PROXY"))
    exceptions = value("NO_PROXY").split(whereSeparator: { $0 == "," || $0 == " " }).map { $0.lowercased() }
  }

  struct Proxy: Hashable, Sendable {
    var host: String
    var port: Int
    var user: String?
    var password = ""
    var isSocks = false

    var setting: HTTPClient.Configuration.Proxy {
      if isSocks { return .socksServer(host: host, port: port) }
      return .server(host: host, port: port, authorization: user.map { .basic(username: $0, password: password) })
    }
  }

  /// For `https://host:port/…` or `http://…`; nil: asked directly. Throws for a proxy that is none; what it says names no password.
  func proxy(for url: String) throws -> Proxy? {
    let origin = RegistryHost.origin(of: url)
    let isPlain = origin.hasPrefix("http://")
    let text = isPlain ? http : https
    guard !text.isEmpty, let separator = origin.firstRange(of: "://") else { return nil }
    let (host, port) = Self.split(String(origin[separator.upperBound...]), isPlain ? 80 : 443)
    if RegistryHost.isLoopback(host) || host == "::1" || exceptions.contains(where: { Self.matches($0, host, port) }) { return nil }
    return try Self.parse(text, isPlain ? "HTTP_PROXY" : "HTTPS_PROXY")
  }

  /// `host`, `host:port`, `[address]:port`.
  private static func split(_ authority: String, _ defaultPort: Int) -> (host: String, port: Int) {
    if authority.hasPrefix("[") {
      let host = authority.dropFirst().prefix { $0 != "]" }
      let rest = authority.dropFirst(host.count + 2)
      return (String(host), rest.hasPrefix(":") ? Int(rest.dropFirst()) ?? defaultPort : defaultPort)
    }
    guard let colon = authority.lastIndex(of: ":"), let port = Int(authority[authority.index(after: colon)...]) else {
      return (authority, defaultPort)
    }
    return (String(authority[..<colon]), port)
  }

  private static func matches(_ entry: String, _ host: String, _ port: Int) -> Bool {
    if entry == "*" { return true }
    if let network = IPv4Prefix(entry) { return IPv4Address(host).map(network.contains) ?? false }
    let (name, wanted) = split(entry, port)
    guard wanted == port else { return false }
    if name.hasPrefix("*.") { return host.hasSuffix(name.dropFirst()) }
    return name.hasPrefix(".") ? host.hasSuffix(name) : host == name || host.hasSuffix("." + name)
  }

  private static func parse(_ text: String, _ variable: String) throws -> Proxy {
    var rest = text[...]
    var scheme = "http"
    if let separator = rest.firstRange(of: "://") {
      scheme = rest[..<separator.lowerBound].lowercased()
      rest = rest[separator.upperBound...]
    }
    guard ["http", "socks5", "socks5h"].contains(scheme) else {
      throw ImageError(.unsupported, "use", variable, "a proxy is http://[USER:PASSWORD@]HOST:PORT or socks5://HOST:PORT, not \(scheme)://")
    }
    rest = rest.prefix { !"/?#".contains($0) }
    var user: String?
    var password = ""
    if let at = rest.lastIndex(of: "@") {
      let parts = rest[..<at].split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map { unescaped($0) }
      user = parts[0]
      password = parts.count > 1 ? parts[1] : ""
      rest = rest[rest.index(after: at)...]
    }
    let (host, port) = split(String(rest), scheme == "http" ? 80 : 1080)
    guard !host.isEmpty, (1...65_535).contains(port), !host.contains(":") || IPv6.isAddress(host) else {
      throw ImageError(.unsupported, "use", variable, "it names no HOST:PORT")
    }
    return Proxy(host: host, port: port, user: user, password: password, isSocks: scheme != "http")
  }

  /// %XX (RFC 3986 2.1).
  private static func unescaped(_ text: Substring) -> String {
    var bytes: [UInt8] = []
    var rest = Array(text.utf8)[...]
    while let byte = rest.popFirst() {
      if byte == 37, rest.count >= 2, let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16) {
        bytes.append(value)
        rest = rest.dropFirst(2)
      } else {
        bytes.append(byte)
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  private enum IPv6 {
    static func isAddress(_ text: String) -> Bool {
      text.utf8.allSatisfy { $0 == 58 || $0 == 46 || ($0 < 128 && Character(UnicodeScalar($0)).isHexDigit) }
    }
  }
}
