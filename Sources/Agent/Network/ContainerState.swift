import Glibc
import Model
import Netlink

/// Addresses and routes in a container's namespace, as they should be. What a program of the container adds (a tunnel and a default route through
/// it) is its own.
struct ContainerState {
  var ports: [ContainerPort]
  var gateway: IPv4Address?
  /// Behind one of these ports.
  var gateway6: (address: IPv6Address, device: String)?
  init(_ ports: [ContainerPort], gateway: IPv4Address?, gateway6: (address: IPv6Address, device: String)?) {
    (self.ports, self.gateway, self.gateway6) = (ports, gateway, gateway6)
  }

  /// In the calling thread's namespace, which is the container's: makes what is missing and returns its kinds.
  func restore() throws -> [String] {
    let socket = try NetlinkSocket()
    let links = HostNetwork.byName(try socket.links())
    let addresses = try socket.addresses()
    var kinds: [String] = []
    var messages: [NetlinkMessage] = []
    var messages6: [NetlinkMessage] = []
    // A link of less than IPv6 needs has none of its parameters.
    let narrow = ports.filter { port in links[port.inner].map { $0.mtu < port.mtu } ?? false }
    try socket.perform(narrow.map { .setLink(links[$0.inner]!.index, $0.inner, mtu: $0.mtu) })
    for port in ports where port.address6 != nil && links[port.inner] != nil { try HostNetwork.setOwnParameters6(port.inner) }
    for port in ports {
      guard let link = links[port.inner] else { throw NetlinkError(operation: "find link", object: port.inner, errno: ENODEV) }
      let isThere = addresses.contains {
        $0.index == link.index && $0.address == port.address.octets && $0.length == port.length && $0.peer == port.peer?.octets
      }
      if !isThere {
        messages.append(.addAddress(port.address.octets, peer: port.peer?.octets, length: port.length, on: link.index))
        kinds.append("container address")
      }
      if let address6 = port.address6,
        !addresses.contains(where: { $0.index == link.index && $0.address == address6.octets && $0.length == port.length6 })
      {
        // The kernel makes its route where the link is up.
        messages6.append(.addAddress(address6.octets, length: port.length6, on: link.index))
        kinds.append("container address")
      }
      let mtu = port.mtu == link.mtu ? nil : port.mtu
      if !link.up || mtu != nil {
        messages.append(.setLink(link.index, port.inner, up: true, mtu: mtu))
        kinds.append("container link")
      }
    }
    try socket.perform(messages + messages6)
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
    if ports.contains(where: { $0.address6 != nil }) { messages += routes6(links) }
    try socket.perform(messages)
    return kinds + messages.map { _ in "container route" }
  }

  /// Those of IPv6 that are missing.
  private func routes6(_ links: [String: LinkInfo]) -> [NetlinkMessage] {
    let present = KernelRoute6.all()
    var messages: [NetlinkMessage] = []
    for port in ports {
      guard let prefix = port.prefix6, let index = links[port.inner]?.index, port.peer == nil else { continue }
      if present.contains(KernelRoute6(destination: prefix, gateway: IPv6Address(0), device: port.inner)) { continue }
      messages.append(.addLinkRoute(prefix.address.octets, length: prefix.length, source: nil, on: index))
    }
    if let gateway6, let index = links[gateway6.device]?.index {
      let own = Set(ports.map(\.inner))
      let isThere = present.contains {
        $0.destination.length == 0 && ($0.gateway == gateway6.address && $0.device == gateway6.device || !own.contains($0.device))
      }
      if !isThere { messages.append(.addDefaultRoute(gateway: gateway6.address.octets, on: index)) }
    }
    return messages
  }
}
