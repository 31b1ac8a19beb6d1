import Glibc
import LinuxSystem
import Model

/// A resolver of the host.
public struct Upstream: Hashable, Sendable {
  public var address: IPv4Address
  public var port: UInt16
  public init(address: IPv4Address, port: UInt16 = 53) {
    self.address = address
    self.port = port
  }

  /// The IPv4 `nameserver` lines of a resolv.conf(5), at most three; empty when there are none.
  public static func parse(_ resolvConf: String) -> [Upstream] {
    Array(
      resolvConf.split(whereSeparator: \.isNewline).compactMap { line in
        let words = line.split(whereSeparator: \.isWhitespace)
        guard words.count >= 2, words[0] == "nameserver", let address = IPv4Address(String(words[1])) else { return nil }
        return Upstream(address: address)
      }.prefix(3))
  }

  static func ofHost() -> [Upstream] {
    let descriptor = open("/etc/resolv.conf", O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return [] }
    defer { close(descriptor) }
    var buffer = [UInt8](repeating: 0, count: 16_384)
    let count = read(descriptor, &buffer, buffer.count)
    return parse(String(decoding: buffer[..<max(0, count)], as: UTF8.self))
  }

  /// A socket connected to it; -1 and errno when that fails at once. Only its answers arrive on it, on a port that the kernel chose.
  func connect(_ kind: __socket_type, blocking: Bool) -> Int32 {
    let descriptor = socket(AF_INET, Int32(kind.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | (blocking ? 0 : Int32(SOCK_NONBLOCK.rawValue)), 0)
    guard descriptor >= 0 else { return -1 }
    if blocking {
      var limit = timeval(tv_sec: 2, tv_usec: 0)
      setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
      setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }
    guard withSocketAddress(address, port, { Glibc.connect(descriptor, $0, $1) }) == 0 else {
      close(descriptor)
      return -1
    }
    return descriptor
  }

  /// One question over TCP (RFC 1035 4.2.2), waiting at most 2 s for each step; nil when there is no answer. Blocks.
  func askByTCP(_ query: [UInt8]) -> [UInt8]? {
    let descriptor = connect(SOCK_STREAM, blocking: true)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    let framed = [UInt8(query.count >> 8 & 0xff), UInt8(query.count & 0xff)] + query
    guard send(descriptor, framed, framed.count, Int32(MSG_NOSIGNAL)) == framed.count else { return nil }
    func take(_ count: Int) -> [UInt8]? {
      var bytes = [UInt8](repeating: 0, count: count)
      return recv(descriptor, &bytes, count, Int32(MSG_WAITALL)) == count ? bytes : nil
    }
    guard let length = take(2) else { return nil }
    return take(Int(length[0]) << 8 | Int(length[1]))
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
