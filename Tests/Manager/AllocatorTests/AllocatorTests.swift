import Model
import Testing

@testable import Allocator

private let start = Timestamp(nanoseconds: 1_000)

@Suite struct AllocatorTests {
  func world(_ subnet: String) throws -> (Allocator, ClusterState, Network) {
    var spec = NetworkSpec(name: "net")
    spec.ipam = NetworkSpec.IPAM(config: [.init(subnet: subnet)])
    var allocator = Allocator()
    var state = ClusterState()
    let network = try allocator.allocate(Network(id: NetworkID(value: 1), spec: spec, createdAt: start), cluster: nil, state: state)
    _ = state.speculate([.putNetwork(network)])
    return (allocator, state, network)
  }

  func service(_ network: Network) -> ServiceSpec {
    var spec = ServiceSpec(name: "web", taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "app")))
    spec.taskTemplate.networks = [NetworkAttachmentConfig(target: network.id.description)]
    return spec
  }

  @Test("addresses begin at .2, end before the broadcast, and are all different; then it is full")
  func exhausts() throws {
    var (allocator, state, network) = try world("10.5.0.0/29")
    let given = try (1...5).map { try allocator.attachments(for: TaskID(value: $0), spec: service(network), state: state)[0].address.description }
    #expect(given == ["10.5.0.2", "10.5.0.3", "10.5.0.4", "10.5.0.5", "10.5.0.6"])
    let error = #expect(throws: AllocationRefusal.self) { try allocator.attachments(for: TaskID(value: 9), spec: service(network), state: state) }
    #expect(error?.description == "network net has no free address (5 of 10.5.0.0/29 are in use): give it a larger subnet")
  }

  @Test("IPv6: a /64 of the cluster's own for each network that has it, or the declared one; what is reserved of it is given to nobody")
  func dualStack() throws {
    let cluster = Cluster(id: ClusterID(value: 0x0123_4567_89), createdAt: start)
    var allocator = Allocator()
    var state = ClusterState()
    func make(_ number: UInt128, _ configs: [NetworkSpec.IPAM.Config] = [], ipv6: Bool = true) throws -> Network {
      var spec = NetworkSpec(name: "net\(number)")
      (spec.enableIPv6, spec.ipam) = (ipv6, configs.isEmpty ? nil : .init(config: configs))
      try Allocator.check(spec, state: state)
      let network = try allocator.allocate(Network(id: NetworkID(value: number), spec: spec, createdAt: start), cluster: cluster, state: state)
      _ = state.speculate([.putNetwork(network)])
      return network
    }
    #expect(try make(1).subnet6?.description == "fd01:2345:6789:1000::/64")
    #expect(try make(2).subnet6?.description == "fd01:2345:6789:1001::/64")
    #expect(try make(3, ipv6: false).subnet6 == nil)
    // Somebody declared what would be the next one's.
    #expect(try make(4, [.init(subnet: "fd01:2345:6789:1004::/64")]).subnet6?.description == "fd01:2345:6789:1004::/64")
    #expect(try make(5).subnet6?.description == "fd01:2345:6789:1005::/64")
    // As with IPv4: the networks are apart, and a service is on one of them.
    let equal = try make(6, [.init(subnet: "fd01:2345:6789:1000::/52")])
    let refusal = #expect(throws: AllocationRefusal.self) {
      try Allocator.checkApart("web", [try #require(state.networks[NetworkID(value: 1)]), equal])
    }
    #expect(
      refusal?.description.contains("subnet fd01:2345:6789:1000::/52 of network net6 overlaps fd01:2345:6789:1000::/64 of network net1") == true)
    let declared = try make(
      7, [.init(subnet: "10.5.0.0/29"), .init(subnet: "fd00:5::/64", gateway: "fd00:5::3", auxiliary: ["router": "fd00:5::4"])])
    let given = try (1...3).map { try allocator.attachments(for: TaskID(value: $0), spec: service(declared), state: state)[0].address }
    #expect(given.map(\.description) == ["10.5.0.2", "10.5.0.5", "10.5.0.6"])
    #expect(given.compactMap(declared.counterpart).map(\.description) == ["fd00:5::2", "fd00:5::5", "fd00:5::6"])
    #expect(declared.shown(given[0]) == ["10.5.0.2/29", "fd00:5::2/64"])
    // A new leader knows it from the rows.
    var other = Allocator()
    other.reset(state)
    #expect(other.subnets6 == allocator.subnets6)
  }

  @Test("a task that is shutting down keeps its address until it is terminal; then the others have their turn first")
  func keeps() throws {
    var (allocator, state, network) = try world("10.5.0.0/29")
    var task = ClusterTask(id: TaskID(value: 1), service: ServiceID(value: 1), revision: 1, slot: 1, createdAt: start)
    task.attachments = try allocator.attachments(for: task.id, spec: service(network), state: state)
    allocator.observe(.task(old: nil, new: task), state: state)
    func next(_ number: UInt128) -> String? {
      try? allocator.attachments(for: TaskID(value: number), spec: service(network), state: state)[0].address.description
    }
    var leaving = task
    leaving.desiredState = .shutdown
    allocator.observe(.task(old: task, new: leaving), state: state)
    #expect([next(2), next(3), next(4), next(5), next(6)] == ["10.5.0.3", "10.5.0.4", "10.5.0.5", "10.5.0.6", nil])
    var gone = leaving
    gone.status.state = .shutdown
    allocator.observe(.task(old: leaving, new: gone), state: state)
    // Not in the decision that frees it, nor while it rests.
    #expect(next(7) == nil)
    allocator.begin()
    allocator.resting.begin([task.attachments[0].address], on: network.id)
    #expect(next(7) == nil)
    let full = #expect(throws: AllocationRefusal.self) { try allocator.attachments(for: TaskID(value: 7), spec: service(network), state: state) }
    #expect(
      full?.description.contains("(4 of 10.5.0.0/29 are in use, 1 just became free and are given again when every host has dropped them") == true)
    allocator.resting.end([task.attachments[0].address], on: network.id)
    allocator.resting.close(network.id)
    #expect(next(7) == nil)
    allocator.resting.open(network.id)
    #expect(next(7) == "10.5.0.2")
    // The row's removal, seen later, does not take the address from its new owner.
    allocator.observe(.task(old: gone, new: nil), state: state)
    #expect(next(8) == nil)
  }

  @Test("what a network had that is gone is given to the next one when it has rested; while it is not known what rests, nothing of the pool is")
  func networksRest() throws {
    var (allocator, state) = (Allocator(), ClusterState())
    func make(_ number: UInt128) throws -> Network {
      let network = Network(id: NetworkID(value: number), spec: NetworkSpec(name: "net\(number)"), createdAt: start)
      return try allocator.allocate(network, cluster: nil, state: state)
    }
    let one = try make(1)
    _ = state.speculate([.putNetwork(one)])
    allocator.observe(.network(old: one, new: nil), state: state)
    _ = state.speculate([.removeNetwork(one.id)])
    allocator.resting.begin(vni: one.vni, subnet: one.subnet)
    let two = try make(2)
    #expect(two.vni != one.vni && two.subnet != one.subnet)
    allocator.resting.end(vni: one.vni, subnet: one.subnet)
    let three = try make(3)
    #expect(three.vni == one.vni && three.subnet == one.subnet)
    allocator.resting.close()
    let refused = #expect(throws: AllocationRefusal.self) { try make(4) }
    #expect(
      refused?.description == "network net4 waits until the hosts have told the new leader that they left what was removed before (5 s at most)")
    allocator.resting.open()
    _ = try make(4)
  }

  @Test("built from the state it knows what was given")
  func rebuilds() throws {
    var (allocator, state, network) = try world("10.5.0.0/28")
    var task = ClusterTask(id: TaskID(value: 1), service: ServiceID(value: 1), revision: 1, slot: 1, createdAt: start)
    task.attachments = try allocator.attachments(for: task.id, spec: service(network), state: state)
    var node = Node(id: NodeID(value: 2), spec: NodeSpec(role: .worker), createdAt: start)
    node.attachments = try allocator.attachments(for: node, on: [network.id], state: state)
    _ = state.speculate([.createTask(task), .putNode(node)])
    var fresh = Allocator()
    fresh.reset(state)
    #expect(try fresh.attachments(for: TaskID(value: 3), spec: service(network), state: state)[0].address.description == "10.5.0.4")
    // What a node has it keeps.
    #expect(try fresh.attachments(for: node, on: [network.id], state: state) == node.attachments)
    #expect(fresh.isInUse(network.id))
  }

  @Test("subnets come from the pool, skip the first and what is declared, and do not overlap; declared ones may, but not ingress's")
  func subnets() throws {
    var allocator = Allocator()
    let state = ClusterState()
    func make(_ number: UInt128, _ subnet: String? = nil, ingress: Bool = false) throws -> String {
      var spec = NetworkSpec(name: "n\(number)")
      spec.ingress = ingress
      if let subnet { spec.ipam = NetworkSpec.IPAM(config: [.init(subnet: subnet)]) }
      let network = try allocator.allocate(Network(id: NetworkID(value: number), spec: spec, createdAt: start), cluster: nil, state: state)
      return "\(network.subnet!) \(network.vni!)"
    }
    #expect(try make(1) == "10.0.1.0/24 4096")
    #expect(try make(2, ingress: true) == "10.0.0.0/24 4097")
    #expect(try make(3, "10.0.2.128/25") == "10.0.2.128/25 4098")
    #expect(try make(4) == "10.0.3.0/24 4099")
    #expect(try make(5, "10.0.3.0/25") == "10.0.3.0/25 4100")
    #expect(throws: AllocationRefusal.self) { try make(8, "10.0.0.128/25") }
    #expect(throws: AllocationRefusal.self) { try make(6, "10.0.9.0/30") }
    #expect(throws: AllocationRefusal.self) { try make(7, "fd00::/64") }
  }

  @Test("no task is on two networks whose subnets overlap: its service is refused, and both are named")
  func apart() throws {
    var (allocator, state, network) = try world("10.5.0.0/24")
    var spec = NetworkSpec(name: "other")
    spec.ipam = NetworkSpec.IPAM(config: [.init(subnet: "10.5.0.128/25")])
    let other = try allocator.allocate(Network(id: NetworkID(value: 2), spec: spec, createdAt: start), cluster: nil, state: state)
    _ = state.speculate([.putNetwork(other)])
    var both = service(network)
    try #expect(
      allocator.endpoint(for: Service(id: ServiceID(value: 1), name: "web", createdAt: start), spec: both, state: state).virtualIPs.count == 1)
    both.taskTemplate.networks?.append(NetworkAttachmentConfig(target: other.id.description))
    let error = #expect(throws: AllocationRefusal.self) {
      try allocator.endpoint(for: Service(id: ServiceID(value: 1), name: "web", createdAt: start), spec: both, state: state)
    }
    #expect(
      error?.description.hasPrefix(
        "service web: subnet 10.5.0.128/25 of network other overlaps 10.5.0.0/24 of network net, and one task cannot be on both")
        == true)
  }

  @Test("what hosts route elsewhere is no network's: a declared subnet is refused with the route, the pool goes around it")
  func routes() throws {
    var state = ClusterState()
    var node = Node(id: NodeID(value: 1), spec: NodeSpec(role: .worker), createdAt: start)
    node.description = NodeDescription(
      hostname: "host1", platform: Platform(architecture: "x86_64", os: "linux"), resources: .init(nanoCPUs: 1, memoryBytes: 1),
      engine: .init(engineVersion: "1"))
    node.description?.routes = [
      .init(destination: IPv4Prefix("10.0.0.0/15")!, device: "vpn0"), .init(destination: IPv4Prefix("192.168.77.0/24")!, device: "eth0"),
    ]
    _ = state.speculate([.putNode(node)])
    var spec = NetworkSpec(name: "a")
    spec.ipam = .init(config: [.init(subnet: "192.168.0.0/16")])
    let error = #expect(throws: AllocationRefusal.self) { try Allocator.check(spec, state: state) }
    #expect(
      error?.description
        == "network a: subnet 192.168.0.0/16 overlaps the route 192.168.77.0/24 dev eth0 of host host1: choose another subnet, or remove that route")
    var allocator = Allocator()
    let plain = Network(id: NetworkID(value: 2), spec: NetworkSpec(name: "b"), createdAt: start)
    #expect(try allocator.allocate(plain, cluster: nil, state: state).subnet?.description == "10.2.0.0/24")
    // One that covers the pool cannot be gone around.
    node.description?.routes = [.init(destination: IPv4Prefix("10.0.0.0/8")!, device: "vpn0")]
    _ = state.speculate([.putNode(node)])
    let other = Network(id: NetworkID(value: 3), spec: NetworkSpec(name: "c"), createdAt: start)
    #expect(try allocator.allocate(other, cluster: nil, state: state).subnet?.description == "10.0.1.0/24")
  }

  @Test("addresses come from the declared range, without the gateway and the auxiliary ones")
  func range() throws {
    func give(_ config: NetworkSpec.IPAM.Config) throws -> [String] {
      var spec = NetworkSpec(name: "net")
      spec.ipam = .init(config: [config])
      var allocator = Allocator()
      var state = ClusterState()
      let network = try allocator.allocate(Network(id: NetworkID(value: 1), spec: spec, createdAt: start), cluster: nil, state: state)
      _ = state.speculate([.putNetwork(network)])
      return (1...9).compactMap { try? allocator.attachments(for: TaskID(value: $0), spec: service(network), state: state)[0].address.description }
    }
    #expect(
      try give(.init(subnet: "10.5.0.0/24", gateway: "10.5.0.9", range: "10.5.0.8/29", auxiliary: ["a": "10.5.0.12"]))
        == ["10.5.0.8", "10.5.0.10", "10.5.0.11", "10.5.0.13", "10.5.0.14", "10.5.0.15"])
    #expect(try give(.init(subnet: "10.5.0.0/24", range: "10.5.0.0/31")) == [])
    for (config, why) in [
      (
        NetworkSpec.IPAM.Config(subnet: "10.5.0.0/24", range: "10.6.0.0/25"),
        "IP range 10.6.0.0/25 is not a part of 10.5.0.0/24, written like 10.5.0.0/25"
      ),
      (.init(subnet: "10.5.0.0/24", auxiliary: ["router": "10.6.0.1"]), "auxiliary address router 10.6.0.1 is not in 10.5.0.0/24"),
      (.init(subnet: nil, range: "10.5.0.0/24"), "a gateway, an IP range and auxiliary addresses need a subnet: give one"),
      (.init(subnet: "fd00::/64"), "fd00::/64 is an IPv6 subnet: say that the network has IPv6 (enable_ipv6: true, --ipv6)"),
    ] {
      let error = #expect(throws: AllocationRefusal.self) { try give(config) }
      #expect(error?.description == "network net: \(why)")
    }
  }

  @Test("published ports: what is given is kept, conflicts are refused, 0 is chosen and stays")
  func ports() throws {
    var allocator = Allocator()
    let state = ClusterState()
    func give(_ number: UInt128, _ ports: [UInt16?], kept: Service.Endpoint = .init()) throws -> Service.Endpoint {
      var spec = ServiceSpec(name: "s", taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "app")))
      spec.endpointSpec = EndpointSpec(mode: .dnsrr, ports: ports.enumerated().map { PortConfig(targetPort: UInt16($0 + 1), publishedPort: $1) })
      var service = Service(id: ServiceID(value: number), name: "s\(number)", createdAt: start)
      service.endpoint = kept
      let endpoint = try allocator.endpoint(for: service, spec: spec, state: state)
      service.endpoint = endpoint
      allocator.observe(.service(old: nil, new: service), state: state)
      return endpoint
    }
    let first = try give(1, [80, 0, nil])
    #expect(first.ports.map(\.publishedPort) == [80, 30000, 30001])
    #expect(throws: AllocationRefusal.self) { try give(2, [0, 80]) }
    #expect(try give(3, [0]).ports.map(\.publishedPort) == [30002])
    #expect(try give(1, [81, 0], kept: first).ports.map(\.publishedPort) == [81, 30000])
  }

  /// What a service of these ports is given, and has from then on.
  private func publish(
    _ number: UInt128, _ ports: [PortConfig], kept: Service.Endpoint, in allocator: inout Allocator
  ) throws -> Service.Endpoint {
    var spec = ServiceSpec(name: "s", taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "app")))
    spec.endpointSpec = EndpointSpec(mode: .dnsrr, ports: ports)
    var service = Service(id: ServiceID(value: number), name: "s\(number)", createdAt: start)
    service.endpoint = kept
    let old = service
    service.endpoint = try allocator.endpoint(for: service, spec: spec, state: ClusterState())
    allocator.observe(.service(old: kept.ports.isEmpty ? nil : old, new: service), state: ClusterState())
    return service.endpoint
  }

  @Test("of a range the first port that is free is given, and kept; one that the same service fixes is not; none: refused")
  func portRanges() throws {
    var allocator = Allocator()
    func range(_ last: UInt16) -> PortConfig {
      var config = PortConfig(targetPort: 80, publishedPort: nil)
      config.publishedRange = 8000...last
      return config
    }
    func give(_ number: UInt128, _ ports: [PortConfig], kept: Service.Endpoint = .init()) throws -> Service.Endpoint {
      try publish(number, ports, kept: kept, in: &allocator)
    }
    let fixed = PortConfig(targetPort: 81, publishedPort: 8000)
    let first = try give(1, [range(8002), fixed])
    #expect(first.ports.map(\.publishedPort) == [8001, 8000])
    let second = try give(2, [range(8003)])
    #expect(second.ports.map(\.publishedPort) == [8002])
    #expect(try give(1, [range(8002)], kept: first).ports.map(\.publishedPort) == [8001], "kept, though 8000 is free")
    #expect(try give(2, [range(8001)], kept: second).ports.map(\.publishedPort) == [8000], "what it had is not in the range any more")
    #expect(throws: AllocationRefusal("no port of 8000-8001 is free: publish a wider range")) { try give(3, [range(8001)]) }
    let third = try give(3, [range(8002), range(8003)])
    #expect(third.ports.map(\.publishedPort) == [8002, 8003])
    #expect(try give(3, [range(8002), range(8003)], kept: third).ports.map(\.publishedPort) == [8002, 8003])
    // Any number goes around those that its service fixes, too.
    #expect(
      try give(4, [PortConfig(targetPort: 1, publishedPort: nil), PortConfig(targetPort: 2, publishedPort: 30_000)]).ports.map(\.publishedPort) == [
        30_001, 30_000,
      ])
  }

  @Test("a number is chosen around what other services fix, in host mode, too, and around what processes of hosts have; what was given stays")
  func chosenAround() throws {
    var allocator = Allocator()
    var state = ClusterState()
    func spec(_ ports: [PortConfig]) -> ServiceSpec {
      var spec = ServiceSpec(name: "s", taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "app")))
      spec.endpointSpec = EndpointSpec(mode: .dnsrr, ports: ports)
      return spec
    }
    func declare(_ number: UInt128, _ ports: [PortConfig]) -> Service {
      var service = Service(id: ServiceID(value: number), name: "s\(number)", createdAt: start)
      service.current = 1
      let revision = ServiceRevision(key: .init(service.id, 1), spec: spec(ports), template: 1, createdAt: start)
      for change in state.speculate([.putService(service), .putRevision(revision)]) { allocator.observe(change, state: state) }
      // As a batch of changes is seen: after all of them.
      allocator.observe(.service(old: nil, new: service), state: state)
      return service
    }
    func give(_ service: Service) throws -> Service.Endpoint {
      let endpoint = try allocator.endpoint(for: service, spec: state.spec(of: service)!, state: state)
      for change in state.speculate([.serviceEndpoint(service.id, endpoint)]) { allocator.observe(change, state: state) }
      return endpoint
    }
    func range(_ last: UInt16) -> PortConfig {
      var config = PortConfig(targetPort: 80, publishedPort: nil)
      config.publishedRange = 8000...last
      return config
    }
    func host(_ number: UInt16) -> PortConfig { PortConfig(targetPort: 80, publishedPort: number, publishMode: .host) }
    // Declared and not given yet; 8001 through ingress.
    let first = declare(1, [host(8000), host(30_000), PortConfig(targetPort: 1, publishedPort: 8001)])
    let second = declare(2, [range(8003), PortConfig(targetPort: 80, publishedPort: nil)])
    var given = try give(second)
    #expect(given.ports.map(\.publishedPort) == [8002, 30_001])
    #expect(try give(first).ports.map(\.publishedPort) == [8000, 30_000, 8001])
    // The other way round.
    let error = #expect(throws: AllocationRefusal.self) { try give(declare(3, [host(8002)])) }
    #expect(error?.description == "port 8002/tcp is already in use by service s2: publish another port or change that service")
    #expect(throws: AllocationRefusal("port 8000/tcp is already in use by service s1: publish another port or change that service")) {
      try give(declare(4, [PortConfig(targetPort: 1, publishedPort: 8000)]))
    }
    // In host mode several may have one.
    #expect(try give(declare(5, [host(8000)])).ports.map(\.publishedPort) == [8000])
    // Processes: what was asked for, and what a host tells of itself.
    allocator.learn(asked: [PortClaim(8003, .tcp), PortClaim(8004, .tcp)], taken: [PortClaim(8003, .tcp, at: IPAddress("0.0.0.0"))])
    var node = Node(id: NodeID(value: 1), spec: NodeSpec(role: .worker), createdAt: start)
    node.description = NodeDescription(
      hostname: "host1", platform: Platform(architecture: "x86_64", os: "linux"), resources: .init(nanoCPUs: 1, memoryBytes: 1),
      engine: .init(engineVersion: "1"))
    node.description?.portConflicts = [.init(port: 8004, protocol: .tcp, holder: nil)]
    _ = state.speculate([.putNode(node)])
    #expect(try give(declare(6, [range(8010)])).ports.map(\.publishedPort) == [8005])
    // Where nothing else is left, the hosts that can answer it.
    #expect(try give(declare(7, [range(8004)])).ports.map(\.publishedPort) == [8003])
    // The process is gone.
    allocator.learn(asked: [PortClaim(8003, .tcp)], taken: [])
    given = try give(state.services[second.id]!)
    #expect(given.ports.map(\.publishedPort) == [8002, 30_001])
    var fresh = Allocator()
    fresh.reset(state)
    #expect(fresh.ports.holders(overlapping: PortClaim(8002, .tcp)) == [second.id] && fresh.hostPorts.isTaken(PortClaim(8000, .tcp)))
    #expect(fresh.declared.isTaken(PortClaim(8000, .tcp)) && !fresh.declared.isTaken(PortClaim(8002, .udp)))
  }

  @Test("a number is given once for each address of hosts, and all addresses of a family exclude each of them")
  func portAddresses() throws {
    var allocator = Allocator()
    func give(_ number: UInt128, _ addresses: String?..., port: UInt16? = 80, kept: Service.Endpoint = .init()) throws -> Service.Endpoint {
      let ports = addresses.map {
        var config = PortConfig(targetPort: 1, publishedPort: port)
        config.hostIP = $0.flatMap { IPAddress($0) }
        return config
      }
      return try publish(number, ports, kept: kept, in: &allocator)
    }
    let first = try give(1, "127.0.0.1", "192.0.2.5")
    _ = try give(2, "192.0.2.6", "::1")
    for taken in [nil, "0.0.0.0", "127.0.0.1", "192.0.2.6", "::1", "::"] { #expect(throws: AllocationRefusal.self) { try give(3, taken) } }
    // One that gives an address up has the other on.
    _ = try give(1, "192.0.2.5", kept: first)
    _ = try give(3, "127.0.0.1")
    #expect(throws: AllocationRefusal.self) { try give(4, "192.0.2.5") }
    // Chosen numbers are of an address, too.
    #expect(try give(5, "127.0.0.1", nil, "::1", port: nil).ports.map(\.publishedPort) == [30000, 30001, 30002])
    #expect(try give(6, "127.0.0.2", port: 30000).ports.map(\.publishedPort) == [30000])
    #expect(throws: AllocationRefusal.self) { try give(7, "127.0.0.1", port: 30000) }
  }
}
