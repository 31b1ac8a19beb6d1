import Glibc
import Model
import Netlink

/// What this host's own network has that overlays must respect.
public struct UnderlayFacts: Equatable, Sendable {
  /// As `NodeDescription.routes`.
  public var routes: [NodeDescription.HostRoute] = []
  /// Of the link with the underlay's address, in bytes; nil: none has it (behind address translation), or it is the loopback.
  public var mtu: Int?
  public init(routes: [NodeDescription.HostRoute] = [], mtu: Int? = nil) { (self.routes, self.mtu) = (routes, mtu) }

  /// Of the calling thread's namespace.
  static func read(underlay: IPv4Address) throws(NetlinkError) -> UnderlayFacts {
    var facts = UnderlayFacts(routes: broadest(of: readRoutes()))
    let socket = try NetlinkSocket()
    if let index = try socket.addresses().first(where: { $0.address == underlay.octets })?.index, index != 1 {
      facts.mtu = try socket.links().first { $0.index == index }.map { Int($0.mtu) }
    }
    return facts
  }

  /// All of the calling thread's namespace that are not orch's.
  static func readRoutes() -> [NodeDescription.HostRoute] { routes(in: contents("/proc/thread-self/net/route")) }

  /// proc_net(5): a line a route of the main table; addresses are hexadecimal in the host's byte order.
  static func routes(in text: String) -> [NodeDescription.HostRoute] {
    var routes: Set<NodeDescription.HostRoute> = []
    for line in text.split(separator: "\n").dropFirst() {
      let columns = line.split(whereSeparator: \.isWhitespace)
      guard columns.count > 7, let destination = UInt32(columns[1], radix: 16), let mask = UInt32(columns[7], radix: 16),
        let flags = UInt16(columns[3], radix: 16), flags & 1 != 0
      else { continue }
      let device = String(columns[0])
      let length = UInt8(mask.byteSwapped.leadingZeroBitCount == 32 ? 0 : (~mask.byteSwapped).leadingZeroBitCount)
      guard length > 0, device != "lo", ![InterfaceName.bridgePrefix, InterfaceName.uplinkPrefix].contains(where: device.hasPrefix) else { continue }
      guard let prefix = IPv4Prefix(IPv4Address(destination.byteSwapped), length: length) else { continue }
      routes.insert(.init(destination: prefix, device: device))
    }
    return routes.sorted()
  }

  /// Without those that another covers.
  static func broadest(of routes: [NodeDescription.HostRoute]) -> [NodeDescription.HostRoute] {
    var kept: [NodeDescription.HostRoute] = []
    for route in routes.sorted() where !kept.contains(where: { $0.destination.overlaps(route.destination) }) {
      kept.append(route)
      if kept.count == NodeDescription.routesMax { break }
    }
    return kept
  }

  static func contents(_ path: String) -> String {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return "" }
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65_536)
    while case let count = Glibc.read(descriptor, &buffer, buffer.count), count > 0 { bytes += buffer[..<count] }
    return String(decoding: bytes, as: UTF8.self)
  }
}
