import Model
import Testing

@testable import Scheduler

private let start = Timestamp(nanoseconds: 1_000_000_000_000)

private func node(_ number: UInt128, cpus: Int64 = 4, memory: Int64 = 4 << 30, labels: [String: String]? = nil) -> Node {
  var node = Node(id: NodeID(value: number), spec: NodeSpec(role: number == 1 ? .manager : .worker), createdAt: start)
  node.spec.labels = labels
  node.description = NodeDescription(
    hostname: "host\(number)", platform: Platform(architecture: "x86_64", os: "linux"),
    resources: .init(nanoCPUs: cpus * 1_000_000_000, memoryBytes: memory), engine: .init(engineVersion: "1", labels: ["tier": "t\(number % 2)"]))
  node.status = NodeStatus(state: .ready, address: IPv4Address("10.9.0.\(number % 256)"))
  return node
}

private func spec(_ change: (inout ServiceSpec) -> Void = { _ in }) -> ServiceSpec {
  var spec = ServiceSpec(name: "web", taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "app")))
  spec.taskTemplate.placement = Placement()
  change(&spec)
  return spec
}

private let web = ServiceID(value: 99)

private func scheduler(_ nodes: [Node]) -> Scheduler {
  var scheduler = Scheduler()
  for node in nodes { scheduler.observe(.node(old: nil, new: node), state: ClusterState()) }
  return scheduler
}

@Suite struct SchedulerTests {
  @Test(
    "constraints",
    arguments: [
      ("node.id == 0000000000000000000000002", [2]), ("node.hostname != host2", [1, 3]), ("node.role==manager", [1]),
      ("node.platform.os == Linux", [1, 2, 3]), ("node.platform.arch == amd64", [1, 2, 3]), ("node.platform.arch != amd64", []),
      ("node.labels.zone == east", [1, 3]), ("node.labels.zone != east", [2]), ("engine.labels.tier == t0", [2]),
      ("node.ip == 10.9.0.3", [3]), ("node.ip != 10.9.0.0/24", []),
    ])
  func constraints(_ text: String, _ expected: [UInt128]) throws {
    let nodes = (1...3).map { node($0, labels: $0 == 2 ? nil : ["zone": "east"]) }
    let constraint = try Constraint(text)
    #expect(nodes.filter { constraint.admits($0) }.map(\.id.value) == expected)
  }

  @Test("malformed constraints say what is wrong", arguments: ["zone=east", "node.color == red", "node.id ==", "node.ip == home"])
  func malformed(_ text: String) { #expect(throws: Constraint.Malformed.self) { try Constraint(text) } }

  @Test("each filter explains itself, the commonest reason first")
  func explains() {
    var down = node(1)
    down.status.state = .down
    var paused = node(2)
    paused.spec.availability = .pause
    let nodes = [down, paused, node(3, memory: 1 << 20), node(4, memory: 1 << 20), node(5, memory: 1 << 20), node(6)]
    let wanted = spec {
      var reservation = ResourceRequirements.Reservation()
      reservation.memoryBytes = 1 << 30
      $0.taskTemplate.resources = ResourceRequirements(reservations: reservation)
      $0.taskTemplate.placement?.constraints = ["node.hostname != host6"]
    }
    let placement = scheduler(nodes).place(web, spec: wanted, count: 1, now: start)
    #expect(placement.nodes == [])
    #expect(
      placement.shortfall
        == "no suitable node (insufficient memory on 3 nodes; 2 nodes not available for new tasks; scheduling constraints not satisfied on 1 node)")
    #expect(Scheduler().place(web, spec: wanted, count: 1, now: start).shortfall == "no suitable node (no node has joined)")
  }

  @Test("a batch fills nodes only as far as there is room", arguments: ["cpu", "memory", "ports", "replicas"])
  func room(_ what: String) {
    let wanted = spec { spec in
      var reservation = ResourceRequirements.Reservation()
      if what == "cpu" { reservation.nanoCPUs = 3_000_000_000 }
      if what == "memory" { reservation.memoryBytes = 3 << 30 }
      spec.taskTemplate.resources = ResourceRequirements(reservations: reservation)
      if what == "ports" { spec.endpointSpec = EndpointSpec(ports: [PortConfig(targetPort: 80, publishedPort: 80, publishMode: .host)]) }
      if what == "replicas" { spec.taskTemplate.placement?.maxReplicas = 1 }
    }
    let placement = scheduler([node(1), node(2)]).place(web, spec: wanted, count: 3, now: start)
    #expect(Set(placement.nodes).count == 2)
    let reason = [
      "cpu": "insufficient CPU", "memory": "insufficient memory", "ports": "host-mode port already in use",
      "replicas": "max replicas per node limit reached",
    ]
    #expect(placement.shortfall == "no suitable node (\(reason[what]!) on 2 nodes)")
  }

  @Test("a node where a process has a port takes no task that wants it in host mode, until its agent says that it is free")
  func takenPorts() {
    let wanted = spec { $0.endpointSpec = EndpointSpec(ports: [PortConfig(targetPort: 80, publishedPort: 80, publishMode: .host)]) }
    let free = node(1)
    var taken = free
    taken.description?.portConflicts = [.init(port: 80, protocol: .tcp, holder: nil)]
    var other = node(2)
    other.description?.portConflicts = [.init(port: 80, protocol: .udp, holder: nil)]
    var scheduler = scheduler([taken, other])
    #expect(scheduler.place(web, spec: wanted, count: 2, now: start).nodes == [other.id])
    #expect(scheduler.place(web, spec: spec(), count: 2, now: start).nodes.count == 2)
    scheduler.clearFreed()
    scheduler.observe(.node(old: taken, new: free), state: ClusterState())
    #expect(scheduler.freed && scheduler.place(web, spec: wanted, count: 2, now: start).nodes.count == 2)
  }

  @Test("a node takes tasks that want one number in host mode at different addresses, and none where a task or a process has that address or all")
  func portAddresses() {
    func wanted(_ address: String?) -> ServiceSpec {
      spec {
        var port = PortConfig(targetPort: 80, publishedPort: 80, publishMode: .host)
        port.hostIP = address.flatMap { IPAddress($0) }
        $0.endpointSpec = EndpointSpec(ports: [port])
      }
    }
    var state = ClusterState()
    _ = state.speculate([.putRevision(ServiceRevision(key: .init(web, 1), spec: wanted("127.0.0.1"), template: 1, createdAt: start))])
    var held = node(1)
    held.description?.portConflicts = [.init(port: 80, protocol: .tcp, address: IPAddress("192.0.2.5"), holder: nil)]
    var scheduler = scheduler([held])
    var task = ClusterTask(id: TaskID(value: 1), service: web, revision: 1, slot: 1, createdAt: start)
    task.node = held.id
    task.status.state = .running
    scheduler.observe(.task(old: nil, new: task), state: state)
    let other = ServiceID(value: 5)
    func takes(_ address: String?) -> Bool { scheduler.place(other, spec: wanted(address), count: 1, now: start).nodes == [held.id] }
    for address in ["192.0.2.6", "::1", "::"] { #expect(takes(address), "\(address)") }
    for address in [nil, "0.0.0.0", "127.0.0.1", "192.0.2.5"] { #expect(!takes(address), "\(address ?? "all")") }
    var ended = task
    ended.status.state = .complete
    scheduler.observe(.task(old: task, new: ended), state: state)
    #expect(takes("127.0.0.1") && !takes("0.0.0.0"))
  }

  @Test("fewest tasks of the service first, then fewest tasks at all; failing nodes last")
  func spread() {
    var state = ClusterState()
    _ = state.speculate([.putRevision(ServiceRevision(key: .init(web, 1), spec: spec(), template: 1, createdAt: start))])
    var scheduler = scheduler([node(1), node(2), node(3)])
    func task(_ number: UInt128, _ service: ServiceID, _ node: UInt128) -> ClusterTask {
      var task = ClusterTask(id: TaskID(value: number), service: service, revision: 1, slot: 1, createdAt: start)
      task.node = NodeID(value: node)
      task.status.state = .running
      return task
    }
    let other = ServiceID(value: 5)
    for change in [task(1, other, 2), task(2, other, 2), task(3, other, 3), task(4, web, 1)] {
      scheduler.observe(.task(old: nil, new: change), state: state)
      // Seen twice, counted once.
      scheduler.observe(.task(old: nil, new: change), state: state)
    }
    #expect(scheduler.place(web, spec: spec(), count: 4, now: start).nodes.map(\.value) == [3, 2, 1, 3])
    for number in UInt128(10)..<15 {
      var failed = task(number, web, 3)
      let before = failed
      failed.status.state = .failed
      failed.status.timestamp = start
      scheduler.observe(.task(old: before, new: failed), state: state)
    }
    #expect(!scheduler.place(web, spec: spec(), count: 3, now: start).nodes.map(\.value).contains(3))
    #expect(scheduler.place(web, spec: spec(), count: 3, now: start + .seconds(301)).nodes.map(\.value).contains(3))
  }

  @Test("preferences spread over label values before nodes")
  func preferences() {
    let nodes = [node(1, labels: ["zone": "a"]), node(2, labels: ["zone": "a"]), node(3, labels: ["zone": "a"]), node(4, labels: ["zone": "b"])]
    let wanted = spec { $0.taskTemplate.placement?.preferences = [.init(spreadOver: "node.labels.zone")] }
    let placed = scheduler(nodes).place(web, spec: wanted, count: 6, now: start).nodes.map(\.value)
    #expect(placed.count { $0 == 4 } == 3)
    #expect(Set(placed).count == 4)
  }

  @Test("rate at 10,000 nodes (printed)")
  func rate() {
    let scheduler = scheduler((1...10_000).map { node($0) })
    let wanted = spec {
      var reservation = ResourceRequirements.Reservation()
      reservation.memoryBytes = 1 << 20
      $0.taskTemplate.resources = ResourceRequirements(reservations: reservation)
    }
    let clock = ContinuousClock()
    var placed = 0
    let time = clock.measure {
      for _ in 0..<5 { placed += scheduler.place(web, spec: wanted, count: 5_000, now: start).nodes.count }
    }
    #expect(placed == 25_000)
    let seconds = Double(time.components.attoseconds) / 1e18 + Double(time.components.seconds)
    print("scheduler: \(Int(Double(placed) / seconds)) placements/s at 10,000 nodes, batches of 5,000, this build")
  }
}
