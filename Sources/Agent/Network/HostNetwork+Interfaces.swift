import Glibc
import Model
import Netlink

// Containers' interfaces, with the addresses and routes in their namespaces: what is missing is made, whether it never was or somebody took it.
extension HostNetwork {
  /// With an uplink for each container that needs one: the one it has, or a new one. What stays without is told.
  func withUplinks(_ bare: NetworkWorld, _ links: [LinkInfo], _ addresses: [AddressInfo]) -> (world: NetworkWorld, problems: [NetworkProblem]) {
    let names = Dictionary(
      links.lazy.filter { InterfaceName.isUplink($0.name) }.map { ($0.index, $0.name) }, uniquingKeysWith: { a, _ in a })
    var present: [String: Uplink] = [:]
    for address in addresses {
      guard let name = names[address.index], let peer = address.peer else { continue }
      present[name] = Uplink(address: IPv4Address(octets: peer), gateway: IPv4Address(octets: address.address))
    }
    var world = bare
    // What a link takes that the host's others do not, its kernel tells the container (ICMP).
    if let index = addresses.first(where: { $0.address == bare.underlay.octets })?.index, index != 1,
      let link = links.first(where: { $0.index == index })
    {
      world.uplinkMTU = min(65_535, max(UInt32(Self.smallestMTU), link.mtu))
    }
    var problems: [NetworkProblem] = []
    let isChosen = configuration.uplinkSubnet != nil
    memory.withLock { memory in
      for task in memory.uplinks.keys where world.containers[task].map(world.needsUplink) != true { memory.uplinks[task] = nil }
      let missing = world.containers.values.filter { world.needsUplink($0) && memory.uplinks[$0.task] == nil }.map(\.task).sorted()
      for task in missing { memory.uplinks[task] = present[InterfaceName.uplink(task)] }
      let new = missing.filter { memory.uplinks[$0] == nil }
      if !new.isEmpty {
        // Who names a subnet knows this host's routes.
        let taken = world.networks.map(\.subnet) + (isChosen ? [] : UnderlayFacts.readRoutes().map(\.destination))
        var used = Set(present.values.map(\.address)).union(memory.uplinks.values.map(\.address))
        for task in new {
          guard let uplink = memory.pool.take(avoiding: taken, used: used) else {
            problems.append(
              NetworkProblem(
                "uplink of task \(task)",
                "no address is free beside this host's routes and networks: name a subnet by orch-agent's --uplink-subnet, or a larger one"))
            break
          }
          used.insert(uplink.address)
          memory.uplinks[task] = uplink
        }
      }
      memory.uplinkSubnets.formUnion(memory.uplinks.values.compactMap { uplink in memory.pool.subnets.first { $0.contains(uplink.address) } })
      (world.uplinks, world.uplinkSubnets) = (memory.uplinks, memory.uplinkSubnets)
    }
    return (world, problems)
  }

  /// Those of containers that lost an interface or were told of, and of those found again: what was missing is counted, but of the latter.
  func reconnect(
    _ world: NetworkWorld, _ socket: NetlinkSocket, _ links: [String: LinkInfo], _ successors: [NetworkAttachment: TaskID],
    _ addresses: [AddressInfo]
  ) -> (madeLinks: Bool, problems: [NetworkProblem]) {
    let peers = Dictionary(addresses.lazy.compactMap { address in address.peer.map { (address.index, $0) } }, uniquingKeysWith: { a, _ in a })
    let (unchecked, routesTouched) = memory.withLock { memory in
      defer { (memory.unchecked, memory.uplinkRoutesTouched) = ([:], false) }
      return (memory.unchecked, memory.uplinkRoutesTouched)
    }
    let uplinks6 = Set(addresses.lazy.filter { $0.address == Uplink.gateway6.octets }.map(\.index))
    var (madeLinks, problems) = (false, [NetworkProblem]())
    for container in world.containers.values where container.hasInterfaces {
      let isLost = world.ports(of: container).contains { port in
        guard let link = links[port.name] else { return true }
        return port.peer != nil
          && (peers[link.index] != port.address.octets || !link.up || (port.address6 != nil && !uplinks6.contains(link.index)))
      }
      let uplinkTouched = routesTouched && world.uplinks[container.task] != nil
      guard isLost || uplinkTouched || unchecked[container.task] != nil, access(path(container.task), F_OK) == 0 else { continue }
      if container.attachments.contains(where: { successors[$0].map { $0 != container.task } ?? false }) { continue }
      var made: [String] = []
      do { try connect(container, world, socket, links, checksRoute: uplinkTouched, &made) } catch {
        // Nobody tells of it once more.
        memory.withLock { $0.unchecked[container.task] = unchecked[container.task] ?? true }
        made.removeAll { $0 != "link" }
        problems.append(.again("task \(container.task)", "\(error)"))
      }
      if unchecked[container.task] != false { count(made) }
      // With an interface what is done to its frames is gone, also when the rest of it is refused.
      if made.contains("link") {
        memory.withLock { _ = $0.recovered.insert(container.task) }
        madeLinks = true
      }
    }
    return (madeLinks, problems)
  }

  /// Makes what is missing.
  /// - Parameter kinds: gets those of what was made; when it throws, "link" is certain and others are not.
  func connect(
    _ network: TaskNetwork, _ world: NetworkWorld, _ socket: NetlinkSocket, _ old: [String: LinkInfo], checksRoute: Bool = false,
    _ kinds: inout [String]
  ) throws {
    let ports = world.ports(of: network)
    guard !ports.isEmpty else { return }
    let path = path(network.task)
    var links = old
    func index(_ name: String) throws -> UInt32 {
      guard let index = links[name]?.index else { throw NetlinkError(operation: "find link", object: name, errno: ENODEV) }
      return index
    }
    func bridge(_ vni: UInt32) throws -> UInt32 {
      guard let link = links[InterfaceName.bridge(vni)], isOurs(link) else {
        throw NetlinkError(operation: "find bridge", object: InterfaceName.bridge(vni), errno: ENODEV)
      }
      return link.index
    }
    let missing = ports.filter { links[$0.name] == nil }
    if !missing.isEmpty {
      let namespace = open(path, O_RDONLY | O_CLOEXEC)
      guard namespace >= 0 else { throw NetlinkError(operation: "open namespace", object: path, errno: errno) }
      defer { close(namespace) }
      try socket.perform(
        missing.map { port in
          .addVeth(
            port.name, master: port.attachment == nil ? 0 : try bridge(port.vni), mtu: port.mtu, peer: port.inner,
            peerMAC: port.mac, peerNamespace: namespace, alias: "orch task \(network.task)")
        })
      links = Self.byName(try socket.links())
      kinds += missing.map { _ in "link" }
    }
    var messages = try missing.flatMap { port in
      try port.attachment.map { Self.port(try index(port.name), port.name, $0) } ?? []
    }
    if let port = ports.last, let gateway = port.peer {
      let link = try index(port.name)
      let isNew = missing.contains(port)
      if isNew {
        // Answers of published ports: docs/network.md. A kernel without IPv6 has no such file.
        for parameter in Self.door(port.name) { try parameter.keep() }
        messages.append(.quietIPv6(link, port.name))
        if port.address6 == nil { try Self.switchOff6(port.name) }
      }
      let addresses = isNew ? [] : try socket.addresses()
      let isThere = addresses.contains { $0.index == link && $0.peer == port.address.octets }
      if !isThere { messages.append(.addAddress(gateway.octets, peer: port.address.octets, length: 32, on: link)) }
      if !isThere, !isNew { kinds.append("address") }
      if !isNew { messages.append(.setLink(link, port.name, up: true)) }
      if checksRoute, !KernelRoute.all().contains(where: { $0.device == port.name }) {
        messages.append(.addLinkRoute(port.address.octets, length: 32, source: gateway.octets, on: link))
        kinds.append("route")
      }
      if let address6 = port.address6 {
        let wasOff = try Self.setOwnParameters6(port.name)
        let isThere6 = addresses.contains { $0.index == link && $0.address == Uplink.gateway6.octets }
        if !isThere6 || wasOff { messages.append(.addAddress(Uplink.gateway6.octets, length: 64, on: link)) }
        if !isThere6, !isNew { kinds.append("address") }
        let hasRoute = !isNew && isThere6 && !wasOff && KernelRoute6.all().contains { $0.device == port.name && $0.destination == port.prefix6 }
        if !hasRoute {
          // To an address of a link that is up.
          messages += [
            .setLink(link, port.name, up: true), .addLinkRoute(address6.octets, length: 128, source: nil, on: link),
          ]
          if !isNew, isThere6 { kinds.append("route") }
        }
      }
    }
    try socket.perform(messages)
    let wanted = ContainerState(ports, gateway: world.gateway(of: network), gateway6: world.gateway6(of: network))
    kinds += try thread.inside(path) { try wanted.restore() }
  }
}
