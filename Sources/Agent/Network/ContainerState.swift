import Glibc
import Model
import Netlink

/// Addresses and routes in a container's namespace, as they should be. What a program of the container adds (a tunnel and a default route through
/// it) is its own.
struct ContainerState {
  var ports: [ContainerPort]
  var gateway: IPv4Address?
  init(_ ports: [ContainerPort], gateway: IPv4Address?) { (self.ports, self.gateway) = (ports, gateway) }

  /// In the calling thread's namespace, which is the container's: makes what is missing and returns its kinds.
  func restore() throws -> [String] {
    let socket = try NetlinkSocket()
    let links = HostNetwork.byName(try socket.links())
    let addresses = try socket.addresses()
    var kinds: [String] = []
    var messages: [NetlinkMessage] = []
    for port in ports {
      guard let link = links[port.inner] else { throw NetlinkError(operation: "find link", object: port.inner, errno: ENODEV) }
      let isThere = addresses.contains {
        $0.index == link.index && $0.address == port.address.octets && $0.length == port.length && $0.peer == port.peer?.octets
      }
      if !isThere {
        messages.append(.addAddress(port.address.octets, peer: port.peer?.octets, length: port.length, on: link.index))
        kinds.append("container address")
      }
      let mtu = port.mtu.flatMap { $0 == link.mtu ? nil : $0 }
      if !link.up || mtu != nil {
        messages.append(.setLink(link.index, port.inner, up: true, mtu: mtu))
        kinds.append("container link")
      }
    }
    try socket.perform(messages)
    let routes = KernelRoute.all()
    messages = []
    for port in ports where !routes.contains(KernelRoute(destination: port.prefix, gateway: IPv4Address(0), device: port.inner)) {
      messages.append(.addLinkRoute(port.prefix.address.octets, length: port.length, source: port.address.octets, on: links[port.inner]!.index))
    }
    if let gateway {
      let own = Set(ports.map(\.inner))
      let defaults = routes.filter { $0.destination.length == 0 }
      if !defaults.contains(where: { $0.gateway == gateway || !own.contains($0.device) }) {
        messages.append(.addDefaultRoute(gateway: gateway.octets))
      }
    }
    try socket.perform(messages)
    return kinds + messages.map { _ in "container route" }
  }
}
