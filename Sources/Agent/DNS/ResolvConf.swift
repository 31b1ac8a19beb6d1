import Glibc
import LinuxSystem
import Model

/// Resolvers and how they are asked: the host's or a task's own, as resolv.conf(5) says.
public struct ResolvConf: Hashable, Sendable {
  /// The `nameserver` lines, IPv4 and IPv6, at most three (of a task's own: all).
  public var servers: [Upstream] = []
  /// `options timeout:`, 1 to 30 s; 2 s when it does not say.
  public var timeoutMilliseconds: Int64 = 2000
  /// `options attempts:`, 1 to 5: how often the whole list is asked; once when it does not say, for who asks us tries again by itself.
  public var attempts = 1
  /// `options rotate`: another server first each time.
  public var rotates = false

  public init(servers: [Upstream] = []) { self.servers = servers }

  public init(_ text: String) {
    for line in text.split(whereSeparator: \.isNewline) {
      let words = line.split(whereSeparator: \.isWhitespace)
      guard let first = words.first else { continue }
      switch first {
      case "nameserver":
        if words.count >= 2, servers.count < 3, let server = Upstream(words[1]) { servers.append(server) }
      case "options": for option in words.dropFirst() { take(option) }
      default: break
      }
    }
  }

  /// A task's own servers, asked as its `dns_opt` says; nil when it names none.
  public init?(_ own: ContainerSpec.DNSConfig?) {
    // Not the resolver itself, which would ask itself.
    servers = own?.nameservers?.filter { $0 != "127.0.0.11" }.compactMap { Upstream($0) } ?? []
    if servers.isEmpty { return nil }
    for option in own?.options ?? [] { take(option[...]) }
  }

  private mutating func take(_ option: Substring) {
    let parts = option.split(separator: ":", maxSplits: 1)
    let number = parts.count == 2 ? Int64(parts[1]) : nil
    switch (parts.first, number) {
    case ("timeout", let seconds?): timeoutMilliseconds = max(1, min(30, seconds)) * 1000
    case ("attempts", let number?): attempts = Int(max(1, min(5, number)))
    case ("rotate", nil): rotates = true
    default: break
    }
  }

  static func ofHost() -> Self {
    let descriptor = open("/etc/resolv.conf", O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return Self() }
    defer { close(descriptor) }
    var buffer = [UInt8](repeating: 0, count: 16_384)
    let count = read(descriptor, &buffer, buffer.count)
    return Self(String(decoding: buffer[..<max(0, count)], as: UTF8.self))
  }

  /// In the order in which a question is put to them; `turn` grows with each.
  func order(turn: Int) -> [Upstream] {
    guard !servers.isEmpty else { return [] }
    let first = rotates ? turn % servers.count : 0
    return Array(repeating: servers[first...] + servers[..<first], count: attempts).flatMap { $0 }
  }
}
