import Model
import Netlink

// What others put on our bridges and uplinks. It is found in what a comparison reads anyway.
extension HostNetwork {
  /// By the bridges' numbers.
  static func surplus(
    _ world: NetworkWorld, _ links: [LinkInfo], bridges: [LinkInfo], _ entries: [BridgeForwardingInfo], _ neighbours: [UInt32: [NeighbourInfo]]
  ) -> [UInt32: HostState.Surplus] {
    var macs: [String: [UInt8]] = [:]
    for container in world.containers.values {
      for (number, attachment) in container.attachments.enumerated() { macs[InterfaceName.veth(container.task, number)] = attachment.address.mac }
    }
    var surplus: [UInt32: HostState.Surplus] = [:]
    /// Bridges and those of their ports whose entries are known.
    var places: [UInt32: Place] = [:]
    for bridge in bridges {
      places[bridge.index] = Place(bridge: bridge, itself: bridge.mac)
      surplus[bridge.index] = HostState.Surplus(neighbours: Set((neighbours[bridge.index] ?? []).map(HostState.Neighbour.init)))
    }
    for link in links {
      guard let bridge = places[link.master]?.bridge, link.master == bridge.index else { continue }
      if link.kind == "vxlan", InterfaceName.vni(link.name, prefix: InterfaceName.tunnelPrefix) != nil {
        places[link.index] = Place(bridge: bridge, itself: link.mac)
      } else if ContainerLink(link) == nil || InterfaceName.isUplink(link.name) {
        surplus[bridge.index]?.ports.insert(.init(index: link.index, name: link.name))
      } else if let mac = macs[link.name] {
        places[link.index] = Place(bridge: bridge, itself: link.mac, behind: mac)
      }
      // One of a task that this comparison does not know may be new.
    }
    for entry in entries {
      guard let place = places[entry.index], !place.has(entry) else { continue }
      surplus[place.bridge.index]?.entries.insert(entry)
    }
    return surplus
  }

  private struct Place {
    var bridge: LinkInfo
    /// The link's own address.
    var itself: [UInt8]
    /// The container's.
    var behind: [UInt8]?

    /// Whether it belongs there. Ports of ours learn nothing: what was learned was so while somebody let them.
    func has(_ entry: BridgeForwardingInfo) -> Bool {
      switch entry.kind {
      case .local: entry.mac == itself || entry.mac == bridge.mac
      // Learned, it is set in its place (`reattachments`).
      case .fixed, .learned: entry.mac == behind
      }
    }
  }

  /// Entries that somebody set for good: hosts ask for who is behind an uplink.
  func forgetUplinkNeighbours(_ socket: NetlinkSocket, _ links: [LinkInfo], _ neighbours: [NeighbourInfo], isDrift: Bool) throws {
    let uplinks = Set(links.lazy.filter { $0.kind == "veth" && InterfaceName.isUplink($0.name) }.map(\.index))
    let messages = neighbours.filter { uplinks.contains($0.index) }.map { NetlinkMessage.deleteNeighbour($0.address, on: $0.index) }
    if messages.isEmpty { return }
    try socket.perform(messages)
    if isDrift { count(messages.map { _ in "neighbour" }) }
  }

  /// Told for as long as the agent runs: whoever put it there may do so again and again.
  func noteReleased(_ operations: [HostOperation], _ world: NetworkWorld) -> [NetworkProblem] {
    let released = operations.compactMap { operation -> ReleasedPort? in
      guard case .releasePort(let vni, let port) = operation else { return nil }
      return ReleasedPort(name: port.name, bridge: InterfaceName.bridge(vni), network: world.networks.first { $0.vni == vni }?.name ?? "\(vni)")
    }
    return memory.withLock { memory in
      for port in released where memory.released.count < Self.releasedMost { memory.released.insert(port) }
      return memory.released.map(\.problem).sorted { $0.object < $1.object }
    }
  }
  private static let releasedMost = 100

  struct ReleasedPort: Hashable {
    var name: String
    var bridge: String
    var network: String
    var problem: NetworkProblem {
      NetworkProblem(
        "link \(name)", "somebody made it a port of \(bridge), the bridge of network \(network), whose ports are its tasks' alone: it was released")
    }
  }
}

extension HostState.Neighbour {
  init(_ info: NeighbourInfo) { self.init(IPAddress(octets: info.address), mac: info.mac) }
}
