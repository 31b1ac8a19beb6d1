import Model
import Netlink

/// Links, addresses, forwarding entries and neighbours of the overlays on one host: as they should be, or as they are.
struct HostState: Equatable, Sendable {
  struct Bridge: Equatable, Sendable {
    var mac: [UInt8]
    var mtu: UInt32
    var up = true
    /// Nobody made it filter VLANs, or the like.
    var isPlain = true
    var addresses: Set<Address>
    /// Those that the kernel makes with an address and which somebody may take: they lead this host to its containers.
    var routes: Set<LinkRoute> = []
    /// Nobody made it a port of another link.
    var isFree = true
    /// What others put there, and what should be empty.
    var surplus = Surplus()
  }
  /// What leads frames astray that come to a bridge, or are the host's own.
  struct Surplus: Equatable, Sendable {
    var entries: Set<BridgeForwardingInfo> = []
    /// Ports that are no task's: their links are somebody's, the bridge is ours.
    var ports: Set<Port> = []
    /// Of the host on the bridge: it asks for its neighbours there.
    var neighbours: Set<Neighbour> = []
    struct Port: Hashable, Sendable {
      var index: UInt32
      var name: String
    }
  }
  struct Address: Hashable, Sendable {
    var address: IPAddress
    var length: UInt8
    init(address: IPAddress, length: UInt8) { (self.address, self.length) = (address, length) }
    init(address: IPv4Address, length: UInt8) { self.init(address: .v4(address), length: length) }

    /// As Linux makes them (net/ipv4/fib_frontend.c, fib_add_ifaddr; net/ipv6/addrconf.c, addrconf_prefix_route: metric 256). Of IPv6 not the one to the
    /// address itself, which comes a moment after it, and none of a link-local one, which nothing here needs.
    var routes: [LinkRoute] {
      switch address {
      case .v4(let own):
        let itself = LinkRoute(own.octets, length: 32, isLocal: true, source: own.octets)
        guard length < 32, let prefix = IPv4Prefix(own, length: length) else { return [itself] }
        return [itself, LinkRoute(prefix.address.octets, length: length, source: own.octets)]
      case .v6(let own):
        guard length < 128, own.rawValue >> 118 != 0x3fa, let prefix = IPv6Prefix(own, length: length) else { return [] }
        return [LinkRoute(prefix.address.octets, length: length, metric: 256)]
      }
    }
  }
  struct Tunnel: Equatable, Sendable {
    var local: IPv4Address
    var port: UInt16
    var mtu: UInt32
    var up = true
    /// Is a port of the network's bridge.
    var bridged = true
    /// As a port of the bridge: that takes no sender's word for where it is, and reaches by it whom it does not know.
    var bridgePort = LinkInfo.BridgePort(hairpin: false, learning: false, flood: true)
    /// Nobody made it learn, or the like.
    var isPlain = true
    /// Answers ARP, and neighbour solicitations of IPv6, for the neighbours.
    var proxy = true
    var forwarding: Set<Forwarding>
    /// Who is elsewhere on the network; nobody asks the others for it.
    var neighbours: Set<Neighbour> = []
  }
  struct Neighbour: Hashable, Sendable {
    var address: IPAddress
    var mac: [UInt8]
    init(_ address: IPAddress, mac: [UInt8]) { (self.address, self.mac) = (address, mac) }
    init(_ address: IPv4Address) { self.init(.v4(address), mac: address.mac) }
  }
  struct Forwarding: Hashable, Sendable {
    var mac: [UInt8]
    var host: IPv4Address
  }
  /// By VNI.
  var bridges: [UInt32: Bridge] = [:]
  var tunnels: [UInt32: Tunnel] = [:]

  init() {}

  /// Where routes of bridges lead, as the watch knows them.
  var destinations: Set<DriftWatch.Destination> {
    Set(bridges.values.lazy.flatMap(\.routes).map { .init(bytes: $0.destination, length: $0.length) })
  }

  /// As it should be.
  init(_ world: NetworkWorld) {
    let remote = Dictionary(grouping: world.endpoints.lazy.filter { $0.underlay != world.underlay }, by: \.network)
    for network in world.networks {
      let mtu = UInt32(clamping: network.mtu)
      // Without an address it sends nothing; the kernel would give it the MAC of one of its ports.
      bridges[network.vni] = Bridge(
        mac: network.nodeAddress?.mac ?? [0x02, 0x4f] + world.underlay.octets, mtu: mtu,
        addresses: Set(network.nodeAddress.map { [Address(address: $0, length: network.subnet.length)] } ?? []))
      if network.ingress, let door = world.door6 {
        bridges[network.vni]?.addresses.formUnion([
          Address(address: .v6(door.address), length: door.subnet.length), Address(address: .v6(door.linkLocal), length: 64),
        ])
      }
      bridges[network.vni]!.routes = Set(bridges[network.vni]!.addresses.flatMap(\.routes))
      var places: [IPv4Address: IPv4Address] = [:]
      for endpoint in remote[network.id] ?? [] { places[endpoint.address] = endpoint.underlay }
      for peer in network.peers { if let address = peer.address { places[address] = peer.underlay } }
      // No entry for all others (the all-zero MAC): their frames end in the device, which counts them as dropped.
      tunnels[network.vni] = Tunnel(
        local: world.underlay, port: network.dataPathPort, mtu: mtu,
        forwarding: Set(places.map { Forwarding(mac: $0.key.mac, host: $0.value) }),
        neighbours: Set(
          places.keys.flatMap { address in
            [Neighbour(address)] + (network.counterpart(of: address).map { [Neighbour(.v6($0), mac: address.mac)] } ?? [])
          }))
    }
  }
}

enum HostOperation: Equatable, Sendable {
  case deleteBridge(UInt32)
  case deleteTunnel(UInt32)
  case addBridge(UInt32, mac: [UInt8], mtu: UInt32)
  case addTunnel(UInt32, local: IPv4Address, port: UInt16, mtu: UInt32)
  // From here on the links exist.
  case setBridge(UInt32, mac: [UInt8], mtu: UInt32)
  /// What else of them somebody changed.
  case plainBridge(UInt32)
  case endVLANs(UInt32)
  case plainTunnel(UInt32)
  case setTunnel(UInt32, mtu: UInt32)
  case bridgeTunnel(UInt32)
  /// As a port of its bridge.
  case setPort(UInt32)
  /// That frames pass, after all else of it.
  case openPort(UInt32)
  case addAddress(UInt32, HostState.Address)
  case deleteAddress(UInt32, HostState.Address)
  case addRoute(UInt32, LinkRoute)
  case freeBridge(UInt32)
  case releasePort(UInt32, HostState.Surplus.Port)
  case deleteBridgeForwarding(UInt32, BridgeForwardingInfo)
  case deleteBridgeNeighbour(UInt32, HostState.Neighbour)
  case addForwarding(UInt32, HostState.Forwarding)
  case deleteForwarding(UInt32, HostState.Forwarding)
  case addNeighbour(UInt32, HostState.Neighbour)
  case deleteNeighbour(UInt32, HostState.Neighbour)

  var vni: UInt32 {
    switch self {
    case .deleteBridge(let vni), .deleteTunnel(let vni), .bridgeTunnel(let vni), .setPort(let vni), .openPort(let vni), .plainBridge(let vni),
      .endVLANs(let vni), .plainTunnel(let vni), .freeBridge(let vni):
      vni
    case .releasePort(let vni, _), .deleteBridgeForwarding(let vni, _), .deleteBridgeNeighbour(let vni, _): vni
    case .addBridge(let vni, _, _), .addTunnel(let vni, _, _, _), .setBridge(let vni, _, _), .setTunnel(let vni, _): vni
    case .addAddress(let vni, _), .deleteAddress(let vni, _), .addRoute(let vni, _): vni
    case .addForwarding(let vni, _), .deleteForwarding(let vni, _): vni
    case .addNeighbour(let vni, _), .deleteNeighbour(let vni, _): vni
    }
  }

  /// As drift is counted; nil: with another.
  var kind: String? {
    switch self {
    case .addForwarding, .deleteForwarding, .deleteBridgeForwarding: "forwarding"
    case .addNeighbour, .deleteNeighbour, .deleteBridgeNeighbour: "neighbour"
    case .addAddress, .deleteAddress: "address"
    case .addRoute: "route"
    case .setPort, .releasePort: "port"
    case .openPort, .endVLANs: nil
    default: "link"
    }
  }

  /// Makes or removes links, so that their numbers have to be read again before the others.
  var changesLinks: Bool {
    switch self {
    case .deleteBridge, .deleteTunnel, .addBridge, .addTunnel: true
    default: false
    }
  }
}

extension HostState {
  /// What leads from `present` to this state; empty when they are equal. Links first, then what is on them; within that by VNI.
  func operations(from present: HostState) -> [HostOperation] {
    var links: [HostOperation] = []
    var rest: [HostOperation] = []
    for vni in present.tunnels.keys.sorted() where tunnels[vni] == nil { links.append(.deleteTunnel(vni)) }
    for vni in present.bridges.keys.sorted() where bridges[vni] == nil { links.append(.deleteBridge(vni)) }
    for (vni, bridge) in bridges.sorted(by: { $0.key < $1.key }) {
      let old = present.bridges[vni]
      if old == nil { links.append(.addBridge(vni, mac: bridge.mac, mtu: bridge.mtu)) }
      if old?.mac != bridge.mac || old?.mtu != bridge.mtu || old?.up != true { rest.append(.setBridge(vni, mac: bridge.mac, mtu: bridge.mtu)) }
      if old?.isPlain == false { rest += [.plainBridge(vni), .endVLANs(vni)] }
      if old?.isFree == false { rest.append(.freeBridge(vni)) }
      let surplus = old?.surplus ?? Surplus()
      for port in surplus.ports.sorted(by: { $0.index < $1.index }) { rest.append(.releasePort(vni, port)) }
      for entry in surplus.entries.sorted(by: { ($0.index, $0.mac.description) < ($1.index, $1.mac.description) }) {
        rest.append(.deleteBridgeForwarding(vni, entry))
      }
      for neighbour in surplus.neighbours.sorted() { rest.append(.deleteBridgeNeighbour(vni, neighbour)) }
      let addresses = old?.addresses ?? []
      for address in addresses.subtracting(bridge.addresses).sorted() { rest.append(.deleteAddress(vni, address)) }
      for address in bridge.addresses.subtracting(addresses).sorted() { rest.append(.addAddress(vni, address)) }
      // With an address that is new, and where the link comes up, the kernel makes them itself.
      let kept = old?.up == true ? addresses.intersection(bridge.addresses) : []
      let missing = bridge.routes.intersection(kept.flatMap(\.routes)).subtracting(old?.routes ?? [])
      for route in missing.sorted() { rest.append(.addRoute(vni, route)) }
    }
    for (vni, tunnel) in tunnels.sorted(by: { $0.key < $1.key }) {
      var old = present.tunnels[vni]
      if let other = old, other.local != tunnel.local || other.port != tunnel.port || other.proxy != tunnel.proxy {
        links.append(.deleteTunnel(vni))
        old = nil
      }
      if old == nil { links.append(.addTunnel(vni, local: tunnel.local, port: tunnel.port, mtu: tunnel.mtu)) }
      // A new bridge has lost the port of the old one.
      let isNewPort = old?.bridged != true || present.bridges[vni] == nil
      if isNewPort { rest.append(.bridgeTunnel(vni)) }
      if isNewPort || old?.bridgePort != tunnel.bridgePort { rest += [.setPort(vni), .openPort(vni)] }
      if old?.isPlain == false { rest.append(.plainTunnel(vni)) }
      if old?.mtu != tunnel.mtu || old?.up != true { rest.append(.setTunnel(vni, mtu: tunnel.mtu)) }
      let entries = old?.forwarding ?? []
      // Sets of one origin are equal at a glance.
      if entries == tunnel.forwarding, old?.neighbours == tunnel.neighbours { continue }
      // Removals first: an address that moved to another host has the same MAC.
      for entry in entries.subtracting(tunnel.forwarding).sorted() { rest.append(.deleteForwarding(vni, entry)) }
      for entry in tunnel.forwarding.subtracting(entries).sorted() { rest.append(.addForwarding(vni, entry)) }
      let neighbours = old?.neighbours ?? []
      let kept = Set(tunnel.neighbours.map(\.address))
      let gone = neighbours.subtracting(tunnel.neighbours).filter { !kept.contains($0.address) }
      for neighbour in gone.sorted() { rest.append(.deleteNeighbour(vni, neighbour)) }
      for neighbour in tunnel.neighbours.subtracting(neighbours).sorted() { rest.append(.addNeighbour(vni, neighbour)) }
    }
    return links + rest
  }
}

extension HostState.Address: Comparable {
  static func < (a: Self, b: Self) -> Bool { (a.address, a.length) < (b.address, b.length) }
}

extension HostState.Neighbour: Comparable {
  static func < (a: Self, b: Self) -> Bool { a.address < b.address }
}

extension HostState.Forwarding: Comparable {
  static func < (a: Self, b: Self) -> Bool {
    a.mac == b.mac ? a.host < b.host : a.mac.lexicographicallyPrecedes(b.mac)
  }
}
