import Model

/// A route of IPv4's main table, as proc_net(5) tells it: a line a route, addresses in hexadecimal and the host's byte order.
struct KernelRoute: Hashable {
  var destination: IPv4Prefix
  /// 0.0.0.0: none.
  var gateway: IPv4Address
  var device: String

  /// Of the calling thread's namespace.
  static func all() -> [KernelRoute] { read(UnderlayFacts.contents("/proc/thread-self/net/route")) }
  static func read(_ text: String) -> [KernelRoute] {
    text.split(separator: "\n").dropFirst().compactMap { line in
      let columns = line.split(whereSeparator: \.isWhitespace)
      guard columns.count > 7, let destination = UInt32(columns[1], radix: 16), let gateway = UInt32(columns[2], radix: 16),
        let flags = UInt16(columns[3], radix: 16), flags & 1 != 0, let mask = UInt32(columns[7], radix: 16)
      else { return nil }
      return IPv4Prefix(IPv4Address(destination.byteSwapped), length: UInt8(mask.nonzeroBitCount)).map {
        KernelRoute(destination: $0, gateway: IPv4Address(gateway.byteSwapped), device: String(columns[0]))
      }
    }
  }
}

/// The same of IPv6: `ipv6_route` has destination, its length, source, its length, next hop, metric, two counts, flags and device. Those that
/// refuse, and the host's own addresses, are `lo`'s or have RTF_LOCAL: not told.
struct KernelRoute6: Hashable {
  var destination: IPv6Prefix
  /// `::`: none.
  var gateway: IPv6Address
  var device: String

  static func all() -> [KernelRoute6] { read(UnderlayFacts.contents("/proc/thread-self/net/ipv6_route")) }
  static func read(_ text: String) -> [KernelRoute6] {
    text.split(separator: "\n").compactMap { line in
      let columns = line.split(whereSeparator: \.isWhitespace)
      guard columns.count == 10, let destination = UInt128(columns[0], radix: 16), let length = UInt8(columns[1], radix: 16),
        let gateway = UInt128(columns[4], radix: 16), let flags = UInt32(columns[8], radix: 16), flags & 1 != 0, flags & 0x8000_0000 == 0,
        columns[9] != "lo"
      else { return nil }
      return IPv6Prefix(IPv6Address(destination), length: length).map {
        KernelRoute6(destination: $0, gateway: IPv6Address(gateway), device: String(columns[9]))
      }
    }
  }
}
