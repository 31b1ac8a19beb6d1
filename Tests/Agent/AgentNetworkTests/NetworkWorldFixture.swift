import Glibc
import Logging
import Model

@testable import AgentNetwork

func address(_ text: String) -> IPv4Address { IPv4Address(text)! }

/// A cluster of hosts 192.168.77.1… with one network 10.77.0.0/24 and ingress 10.255.0.0/24, as the manager would tell it: hosts have
/// addresses on ingress alone.
struct Cluster {
  let web = NetworkID(value: 1)
  let ingress = NetworkID(value: 2)
  let inside = NetworkID(value: 3)
  let service = ServiceID(value: 10)
  var hosts: Int
  var endpoints: [EndpointRecord] = []
  var ports: [PortConfig] = []
  var mtu = 1450
  /// web has fd00:77::/64 beside, and inside fd00:78::/64.
  var dual = false
  /// ingress has fd00:255::/64 beside, as a new cluster's.
  var dualIngress = false

  func underlay(_ host: Int) -> IPv4Address { address("192.168.77.\(host)") }

  func networks(of host: Int) -> [NetworkAssignment] {
    [(web, "web", 4096, 77, false, false), (ingress, "ingress", 4097, 255, false, true), (inside, "inside", 4098, 78, true, false)].map {
      id, name, vni, second, inside, ingress in
      var network = NetworkAssignment(
        id: id, name: name, vni: UInt32(vni), subnet: IPv4Prefix("10.\(second).0.0/24")!, internalOnly: inside, ingress: ingress, mtu: mtu,
        dataPathPort: 4789, nodeAddress: ingress ? address("10.\(second).0.\(250 + host)") : nil,
        peers: (1...hosts).filter { $0 != host }.map {
          .init(node: NodeID(value: UInt128($0)), underlay: underlay($0), address: ingress ? address("10.\(second).0.\(250 + $0)") : nil)
        })
      if ingress ? dualIngress : dual { network.subnet6 = IPv6Prefix("fd00:\(second)::/64") }
      return network
    }
  }
  var virtualIP: IPv4Address { address("10.77.0.2") }
  var services: [ServiceRecord] {
    [
      ServiceRecord(
        id: service, name: "web", names: [web: ["web"]], mode: .vip, virtualIPs: [NetworkAttachment(network: web, address: virtualIP)], ports: ports)
    ]
  }

  func task(_ number: Int) -> TaskID { TaskID(value: UInt128(0x1234_5678_9abc_def0_1234) << 32 | UInt128(number)) }
  /// Attached to web and ingress: 10.77.0.(10+number), 10.255.0.(10+number).
  func network(_ number: Int, _ networks: [NetworkID]? = nil) -> TaskNetwork {
    TaskNetwork(
      task: task(number),
      attachments: (networks ?? [ingress, web]).map { id in
        let second = id == web ? 77 : id == ingress ? 255 : 78
        return NetworkAttachment(network: id, address: address("10.\(second).0.\(10 + number)"))
      })
  }
  mutating func place(_ number: Int, on host: Int, ready: Bool = true) {
    remove(number)
    for attachment in network(number).attachments {
      endpoints.append(
        EndpointRecord(
          task: task(number), service: service, network: attachment.network, node: NodeID(value: UInt128(host)), slot: UInt64(number),
          address: attachment.address, underlay: underlay(host), ready: ready))
    }
  }
  /// Its host is down: as the manager tells it then (Dispatcher/View.swift).
  mutating func lose(_ number: Int) {
    let id = task(number)
    for position in endpoints.indices where endpoints[position].task == id { (endpoints[position].ready, endpoints[position].lost) = (false, true) }
  }
  mutating func remove(_ number: Int) {
    let id = task(number)
    endpoints.removeAll { $0.task == id }
  }

  /// Tells host after host, the first of `overlays` being host 1; what stays wrong on any of them.
  /// - Parameter services: instead of its own.
  @discardableResult
  func apply(to overlays: [OverlayNetwork], services other: [ServiceRecord]? = nil) async throws -> [NetworkProblem] {
    var problems: [NetworkProblem] = []
    for (index, overlay) in overlays.enumerated() {
      problems += try await overlay.apply(networks: networks(of: index + 1), services: other ?? services, endpoints: endpoints)
    }
    return problems
  }

  func world(_ host: Int) -> NetworkWorld {
    var world = NetworkWorld()
    world.underlay = underlay(host)
    world.networks = networks(of: host)
    world.services = services
    world.endpoints = endpoints
    return world
  }
}

/// Of one table alone, with what the others have in common made for it.
extension Ruleset {
  static func container(
    _ network: TaskNetwork, in world: NetworkWorld, _ balancing: Balancing<IPv4Address>, published: [PortConfig] = []
  ) -> RuleTable<IPv4Address>? {
    container(network, in: world, balancing, published: published, arrival(network, world))
  }
  static func container6(
    _ network: TaskNetwork, in world: NetworkWorld, _ balancing: Balancing<IPv6Address>, published: [PortConfig] = []
  ) -> RuleTable<IPv6Address>? {
    container6(network, in: world, balancing, published: published, arrival(network, world))
  }
  private static func arrival(_ network: TaskNetwork, _ world: NetworkWorld) -> Arrival? {
    entrance(network, in: world).map { Arrival(by: $0.number, $0.ingress) }
  }
  static func host(_ world: NetworkWorld, ready: Ready, unavailable: Set<PublishedPort>) -> RuleTable<IPv4Address> {
    host(world, publishedPorts(world, ready: ready), ready: ready, unavailable: unavailable)
  }
  static func host6(
    _ world: NetworkWorld, ready: Ready = [:], unavailable: Set<PublishedPort> = [], isRouter: Bool = false, bridges: [UInt32] = []
  ) -> RuleTable<IPv6Address>? {
    host6(
      world, publishedPorts6(world, ready: ready), ready: ready, counterparts(in: world), unavailable: unavailable, isRouter: isRouter,
      bridges: bridges)
  }
  static func publishedPorts6(_ world: NetworkWorld, ready: Ready) -> [Published<IPv6Address>] {
    publishedPorts6(world, ready: ready, counterparts(in: world))
  }
  static func balancing6(in world: NetworkWorld, on networks: Set<NetworkID>, ready: Ready) -> Balancing<IPv6Address> {
    balancing6(in: world, on: networks, ready: ready, counterparts(in: world))
  }
}
