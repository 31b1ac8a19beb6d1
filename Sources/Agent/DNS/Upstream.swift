import Glibc
import LinuxSystem
import Model

/// A resolver that is asked for other names: of the host, or one that a task has for itself.
public struct Upstream: Hashable, Sendable {
  public var address: IPAddress
  public var port: UInt16
  /// The interface of a link-local IPv6 address (RFC 4007 11): name or number.
  public var zone: String?
  public init(address: IPAddress, port: UInt16 = 53, zone: String? = nil) {
    self.address = address
    self.port = port
    self.zone = zone
  }

  /// As in resolv.conf(5): `10.0.0.1`, `fd00::1`, `fe80::1%eth0`.
  public init?(_ text: some StringProtocol) {
    if let address = IPv4Address(String(text)) {
      self.init(address: .v4(address))
      return
    }
    let parts = text.split(separator: "%", maxSplits: 1, omittingEmptySubsequences: false)
    guard let address = IPv6Address(String(parts[0])), parts.count == 1 || !parts[1].isEmpty else { return nil }
    self.init(address: .v6(address), zone: parts.count == 2 ? String(parts[1]) : nil)
  }

  /// A socket connected to it; -1 and errno when that fails at once. Only its answers arrive on it, on a port that the kernel chose.
  /// - Parameter milliseconds: that each step blocks at most; nil: it does not block.
  func connect(_ kind: __socket_type, waiting milliseconds: Int64?) -> Int32 {
    let family = if case .v4 = address { AF_INET } else { AF_INET6 }
    let descriptor = socket(
      family, Int32(kind.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | (milliseconds == nil ? Int32(SOCK_NONBLOCK.rawValue) : 0), 0)
    guard descriptor >= 0 else { return -1 }
    if let milliseconds {
      var limit = timeval(tv_sec: Int(milliseconds / 1000), tv_usec: Int(milliseconds % 1000) * 1000)
      setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
      setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }
    guard withSocketAddress(address, port, zone, { Glibc.connect(descriptor, $0, $1) }) == 0 else {
      close(descriptor)
      return -1
    }
    return descriptor
  }

  /// One question over TCP (RFC 1035 4.2.2), waiting at most so long for each step; nil when there is no answer. Blocks.
  func askByTCP(_ query: [UInt8], milliseconds: Int64) -> [UInt8]? {
    let descriptor = connect(SOCK_STREAM, waiting: milliseconds)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    let framed = [UInt8(query.count >> 8 & 0xff), UInt8(query.count & 0xff)] + query
    guard send(descriptor, framed, framed.count, Int32(MSG_NOSIGNAL)) == framed.count else { return nil }
    func take(_ count: Int) -> [UInt8]? {
      var bytes = [UInt8](repeating: 0, count: count)
      return recv(descriptor, &bytes, count, Int32(MSG_WAITALL)) == count ? bytes : nil
    }
    // Another id than the question's is no answer to it.
    guard let length = take(2), let answer = take(Int(length[0]) << 8 | Int(length[1])), answer.prefix(2) == query.prefix(2) else { return nil }
    return answer
  }
}

func withSocketAddress<T>(_ address: IPv4Address, _ port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) -> T) -> T {
  var socketAddress = sockaddr_in()
  socketAddress.sin_family = sa_family_t(AF_INET)
  socketAddress.sin_port = port.bigEndian
  socketAddress.sin_addr.s_addr = address.rawValue.bigEndian
  return withUnsafePointer(to: &socketAddress) {
    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
  }
}

func withSocketAddress<T>(_ address: IPAddress, _ port: UInt16, _ zone: String?, _ body: (UnsafePointer<sockaddr>, socklen_t) -> T) -> T {
  let octets: [UInt8]
  switch address {
  case .v4(let address): return withSocketAddress(address, port, body)
  case .v6(let address): octets = address.octets
  }
  var socketAddress = sockaddr_in6()
  socketAddress.sin6_family = sa_family_t(AF_INET6)
  socketAddress.sin6_port = port.bigEndian
  if let zone { socketAddress.sin6_scope_id = UInt32(zone) ?? if_nametoindex(zone) }
  withUnsafeMutableBytes(of: &socketAddress.sin6_addr) { $0.copyBytes(from: octets) }
  return withUnsafePointer(to: &socketAddress) {
    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in6>.size)) }
  }
}
