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

  /// All of the calling thread's namespace that are not orch's; not the default one.
  static func readRoutes() -> [NodeDescription.HostRoute] {
    let others = KernelRoute.all().filter { route in
      route.destination.length > 0 && route.device != "lo" && !route.device.hasPrefix(InterfaceName.bridgePrefix)
        && !InterfaceName.isUplink(route.device)
    }
    return Set(others.map { NodeDescription.HostRoute(destination: $0.destination, device: $0.device) }).sorted()
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
