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

  @Test("a task that is shutting down keeps its address until it is terminal; then the others have their turn first")
  func keeps() throws {
    var (allocator, state, network) = try world("10.5.0.0/29")
    var task = ClusterTask(id: TaskID(value: 1), service: ServiceID(value: 1), revision: 1, slot: 1, createdAt: start)
    task.attachments = try allocator.attachments(for: task.id, spec: service(network), state: state)
    allocator.observe(.task(old: nil, new: task))
    func next(_ number: UInt128) -> String? {
      try? allocator.attachments(for: TaskID(value: number), spec: service(network), state: state)[0].address.description
    }
    var leaving = task
    leaving.desiredState = .shutdown
    allocator.observe(.task(old: task, new: leaving))
    #expect([next(2), next(3), next(4), next(5), next(6)] == ["10.5.0.3", "10.5.0.4", "10.5.0.5", "10.5.0.6", nil])
    var gone = leaving
    gone.status.state = .shutdown
    allocator.observe(.task(old: leaving, new: gone))
    #expect(next(7) == "10.5.0.2")
    // The row's removal, seen later, does not take the address from its new owner.
    allocator.observe(.task(old: gone, new: nil))
    #expect(next(8) == nil)
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

  @Test("subnets come from the pool, skip the first and what is declared, and do not overlap")
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
    #expect(throws: AllocationRefusal.self) { try make(5, "10.0.3.0/25") }
    #expect(throws: AllocationRefusal.self) { try make(6, "10.0.9.0/30") }
    #expect(throws: AllocationRefusal.self) { try make(7, "fd00::/64") }
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
      allocator.observe(.service(old: nil, new: service))
      return endpoint
    }
    let first = try give(1, [80, 0, nil])
    #expect(first.ports.map(\.publishedPort) == [80, 30000, 30001])
    #expect(throws: AllocationRefusal.self) { try give(2, [0, 80]) }
    #expect(try give(3, [0]).ports.map(\.publishedPort) == [30002])
    #expect(try give(1, [81, 0], kept: first).ports.map(\.publishedPort) == [81, 30000])
  }
}
