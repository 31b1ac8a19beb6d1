import Model
import Testing

@testable import Orchestrator

@Suite struct ReconcilerTests {
  @Test("a new service is created, addressed, placed and assigned in one decision")
  func oneDecision() throws {
    var world = World(nodes: 3)
    let network = try world.network("back")
    let id = try world.create("web", replicas: 3) { $0.taskTemplate.networks = [NetworkAttachmentConfig(target: "back")] }
    _ = world.decide()
    let tasks = world.live(id)
    #expect(tasks.map(\.status.state) == [.assigned, .assigned, .assigned])
    #expect(tasks.allSatisfy { $0.attachments.map(\.network) == [network] })
    #expect(Set(tasks.compactMap(\.node)).count == 3)
    #expect(world.state.services[id]?.endpoint.virtualIPs.count == 1)
    // On ingress alone.
    #expect(world.nodes.allSatisfy { world.state.nodes[$0]!.attachments.count == 1 })
    world.settle()
    #expect(world.perNode(id) == [1, 1, 1])
    #expect(world.violations == [])
  }

  @Test("scaling up and down spreads, removes the fullest first and leaves no rows")
  func scaling() throws {
    var world = World(nodes: 3)
    let id = try world.create("web", replicas: 7)
    world.settle()
    #expect(world.perNode(id).sorted() == [2, 2, 3])
    try world.scale(id, 3)
    world.settle()
    #expect(world.perNode(id) == [1, 1, 1])
    #expect(world.state.tasks.count == 3)
    try world.scale(id, 0)
    world.settle()
    #expect(world.state.tasks.isEmpty)
    try world.scale(id, 2)
    world.settle()
    #expect(world.running(id).map(\.slot) == [1, 2])
    #expect(Set(world.running(id).map(\.revision)) == [1])
    #expect(world.violations == [])
  }

  @Test("a run that is to leave nothing is gone with its end, however it ended; any other stays, and so does one that is started again")
  func spent() throws {
    var world = World(nodes: 1)
    world.broken = ["broken:1"]
    world.refused = ["refused:1"]
    func run(_ name: String, _ image: String, _ label: String?, _ condition: RestartPolicy.Condition = .none) throws -> ServiceID {
      try world.create(name) {
        $0.taskTemplate.containerSpec.image = image
        $0.taskTemplate.restartPolicy = RestartPolicy()
        $0.taskTemplate.restartPolicy?.condition = condition
        $0.labels = label.map { [ServiceSpec.removedWhenOver: $0] }
      }
    }
    let going = try run("going", "app:1", "1")
    let failed = try run("failed", "broken:1", "1")
    let refused = try run("refused", "refused:1", "1")
    let kept = try run("kept", "broken:1", nil)
    let denied = try run("denied", "broken:1", "0")
    let again = try run("again", "broken:1", "1", .any)
    world.settle()
    #expect(Set(world.state.services.keys) == [going, kept, denied, again])
    #expect(world.state.taskIDs(of: failed).isEmpty && world.state.taskIDs(of: refused).isEmpty)
    #expect(world.running(going).count == 1)
    world.fail(world.running(going)[0])
    world.settle()
    #expect(Set(world.state.services.keys) == [kept, denied, again])
    #expect(world.violations == [])
  }

  @Test("a killed task is replaced at once, then with growing delay, and the count starts anew after a healthy stretch")
  func backoff() throws {
    var world = World(nodes: 1)
    let id = try world.create("web")
    world.settle()
    var waits: [Int64] = []
    for _ in 0..<9 {
      let failedAt = world.now
      world.fail(world.running(id)[0])
      world.settle()
      while world.running(id).isEmpty, let next = world.wakeAt {
        world.now = max(world.now, next)
        world.settle()
      }
      waits.append((world.now - failedAt).rawValue / 1_000_000)
    }
    #expect(waits == [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000])
    #expect(world.state.tasks(of: id).count { $0.status.state.isTerminal } == 5)
    world.run(for: .seconds(60))
    world.fail(world.running(id)[0])
    world.settle()
    #expect(world.running(id).count == 1)
    #expect(world.running(id)[0].restartCount == 1)
    #expect(world.violations == [])
  }

  @Test("a task that no node can make ready is tried again with growing delay too, and an update of the service ends the wait")
  func rejected() throws {
    var world = World(nodes: 1)
    world.refused = ["app:1"]
    let id = try world.create("web")
    var times: [Int64] = []
    var seen: Set<TaskID> = []
    let begin = world.now
    while times.count < 10, world.violations.isEmpty {
      world.settle()
      for task in world.state.tasks(of: id) where seen.insert(task.id).inserted { times.append((task.createdAt - begin).rawValue / 1_000_000) }
      guard let next = world.wakeAt else { break }
      world.now = max(world.now, next)
    }
    #expect(times == [0, 0, 0, 100, 300, 700, 1500, 3100, 6300, 11300])
    try world.update(id) { $0.taskTemplate.containerSpec.image = "app:2" }
    world.settle()
    #expect(world.running(id).count == 1)
    #expect(world.violations == [])
  }

  @Test("a declared delay is kept each time, and attempts are limited")
  func declaredDelay() throws {
    var world = World(nodes: 1)
    var policy = RestartPolicy()
    policy.delay = .seconds(3)
    policy.maxAttempts = 2
    let id = try world.create("web") { $0.taskTemplate.restartPolicy = policy }
    world.settle()
    for _ in 0..<2 {
      world.fail(world.running(id)[0])
      world.settle()
      #expect(world.running(id).isEmpty)
      #expect(world.live(id).map(\.desiredState) == [.ready])
      world.run(for: .seconds(3))
      #expect(world.running(id).count == 1)
    }
    world.fail(world.running(id)[0])
    world.run(for: .seconds(60))
    #expect(world.live(id).isEmpty)
    #expect(world.violations == [])
  }

  @Test("conditions: none is never followed, on-failure not after exit code 0", arguments: [RestartPolicy.Condition.none, .onFailure])
  func conditions(_ condition: RestartPolicy.Condition) throws {
    var world = World(nodes: 1)
    var policy = RestartPolicy()
    policy.condition = condition
    let id = try world.create("job") { $0.taskTemplate.restartPolicy = policy }
    world.settle()
    world.fail(world.running(id)[0], exit: 0)
    world.run(for: .seconds(30))
    #expect(world.live(id).isEmpty)
    #expect(world.state.tasks(of: id).map(\.status.state) == [.complete])
    // Another leader comes to the same conclusion.
    world.reconciler.reset(world.state)
    world.run(for: .seconds(30))
    #expect(world.live(id).isEmpty)
    if condition == .onFailure {
      try world.scale(id, 2)
      world.settle()
      world.fail(world.running(id)[0])
      world.run(for: .seconds(1))
      #expect(world.running(id).count == 1)
    }
    #expect(world.violations == [])
  }

  @Test("a lost node's tasks run elsewhere after one decision; the node comes back without duplicates")
  func lostNode() throws {
    var world = World(nodes: 3)
    let id = try world.create("web", replicas: 6)
    world.settle()
    world.setNode(1, .down)
    _ = world.decide()
    #expect(world.live(id).count == 6)
    world.settle()
    #expect(world.perNode(id) == [0, 3, 3])
    #expect(world.state.tasks(on: world.nodes[0]).allSatisfy { $0.desiredState == .shutdown && $0.status.state == .running })
    world.setNode(1, .ready)
    world.settle()
    #expect(world.perNode(id) == [0, 3, 3])
    #expect(world.state.tasks(on: world.nodes[0]).allSatisfy { $0.status.state == .shutdown })
    #expect(world.violations == [])
  }

  @Test("tasks of a node that stays down are orphaned after a day, those of a removed node at once")
  func orphans() throws {
    var world = World(nodes: 2)
    let id = try world.create("web", replicas: 2)
    world.settle()
    world.setNode(1, .down)
    world.run(for: .seconds(23 * 3600))
    #expect(world.state.tasks(on: world.nodes[0]).map(\.status.state) == [.running])
    world.run(for: .seconds(2 * 3600))
    #expect(world.state.tasks(on: world.nodes[0]).map(\.status.state) == [.orphaned])
    world.addNode(3)
    world.settle()
    world.apply([.removeNode(world.nodes[1])])
    world.settle()
    #expect(world.running(id).count == 2)
    #expect(world.perNode(id) == [0, 0, 2])
    #expect(world.violations == [])
  }

  @Test("drain moves tasks after they stopped, or before with start-first; pause keeps them and takes no more", arguments: [false, true])
  func drain(startFirst: Bool) throws {
    var world = World(nodes: 2)
    let id = try world.create("web", replicas: 2) {
      if startFirst {
        $0.updateConfig = UpdateConfig()
        $0.updateConfig?.order = .startFirst
      }
    }
    world.settle()
    world.editNode(1) { $0.availability = .drain }
    var fewest = 2
    for _ in 0..<20 {
      _ = world.decide()
      _ = world.agents()
      fewest = min(fewest, world.state.tasks(of: id).count { $0.status.state == .running })
    }
    #expect(world.perNode(id) == [0, 2])
    #expect(fewest == (startFirst ? 2 : 1))
    world.editNode(1) { $0.availability = .pause }
    try world.scale(id, 4)
    world.settle()
    #expect(world.perNode(id) == [0, 4])
    #expect(world.violations == [])
  }

  @Test("a drained node's tasks stop even when there is no other node, and say why they wait")
  func drainWithoutRoom() throws {
    var world = World(nodes: 1)
    let id = try world.create("web") {
      $0.updateConfig = UpdateConfig()
      $0.updateConfig?.order = .startFirst
    }
    world.settle()
    world.editNode(1) { $0.availability = .drain }
    world.settle()
    #expect(world.running(id).isEmpty)
    #expect(world.live(id).map(\.status.error) == ["no suitable node (1 node not available for new tasks)"])
    world.editNode(1) { $0.availability = .active }
    world.settle()
    #expect(world.running(id).count == 1)
    #expect(world.violations == [])
  }

  @Test("a global service has one task on every fit node and follows constraints, drain, loss and new nodes")
  func global() throws {
    var world = World(nodes: 3)
    let id = try world.create("agent") {
      $0.mode = .globalMode
      $0.taskTemplate.placement = Placement()
      $0.taskTemplate.placement?.constraints = ["node.labels.zone != off"]
    }
    world.settle()
    #expect(world.perNode(id) == [1, 1, 1])
    world.editNode(2) { $0.labels = ["zone": "off"] }
    world.editNode(3) { $0.availability = .drain }
    world.addNode(4)
    world.settle()
    #expect(world.perNode(id) == [1, 0, 0, 1])
    world.editNode(2) { $0.labels = nil }
    world.editNode(3) { $0.availability = .active }
    world.settle()
    #expect(world.perNode(id) == [1, 1, 1, 1])
    world.setNode(1, .down)
    world.settle()
    #expect(world.live(id).count == 3)
    world.setNode(1, .ready)
    world.settle()
    #expect(world.perNode(id) == [1, 1, 1, 1])
    world.fail(world.running(id)[0])
    world.settle()
    #expect(world.perNode(id) == [1, 1, 1, 1])
    #expect(world.violations == [])
  }

  @Test("a global task that does not fit waits on its node, says why, and runs when there is room")
  func globalWaits() throws {
    var world = World(nodes: 2, memory: 1 << 30)
    let big = try world.create("big") { $0.taskTemplate.resources = reserve(900 << 20) }
    world.settle()
    let id = try world.create("agent") {
      $0.mode = .globalMode
      $0.taskTemplate.resources = reserve(500 << 20)
    }
    world.settle()
    #expect(world.running(id).count == 1)
    #expect(world.live(id).first { $0.status.state == .pending }?.status.error == "no suitable node (insufficient memory on 1 node)")
    world.apply(try ServiceEdits.remove(big, state: world.state))
    world.settle()
    #expect(world.perNode(id) == [1, 1])
    #expect(world.violations == [])
  }

  @Test("a removed service takes its tasks along, then its row; addresses and ports are free again")
  func removal() throws {
    var world = World(nodes: 2)
    _ = try world.network("back")
    func make(_ world: inout World) throws -> ServiceID {
      try world.create("web", replicas: 2) {
        $0.taskTemplate.networks = [NetworkAttachmentConfig(target: "back")]
        $0.endpointSpec = EndpointSpec(ports: [PortConfig(targetPort: 80, publishedPort: 8080), PortConfig(targetPort: 81, publishedPort: nil)])
      }
    }
    let id = try make(&world)
    world.settle()
    #expect(world.state.services[id]?.endpoint.ports.map(\.publishedPort) == [8080, 30000])
    #expect(throws: EditError.conflict("port 8080/tcp is already in use by service web: publish another port or change that service")) {
      try world.create("other") { $0.endpointSpec = EndpointSpec(ports: [PortConfig(targetPort: 1, publishedPort: 8080)]) }
    }
    world.apply(try ServiceEdits.remove(id, state: world.state))
    world.settle()
    #expect(world.state.services.isEmpty && world.state.tasks.isEmpty && world.state.revisions.isEmpty)
    #expect(world.nodes.allSatisfy { world.state.nodes[$0]!.attachments.count == 1 })
    let again = try make(&world)
    world.settle()
    #expect(world.running(again).count == 2)
    #expect(world.violations == [])
  }

  @Test("a service is removed though a host of it is down, before or after that was asked for", arguments: [true, false])
  func removalWithoutAHost(downBefore: Bool) throws {
    var world = World(nodes: 2)
    let id = try world.create("web", replicas: 4)
    world.settle()
    #expect(world.perNode(id) == [2, 2])
    if downBefore { world.setNode(1, .down) }
    world.apply(try ServiceEdits.remove(id, state: world.state))
    _ = world.decide()
    #expect(world.state.services[id]?.pendingDelete == true)
    if !downBefore { world.setNode(1, .down) }
    world.settle()
    #expect(world.state.services.isEmpty && world.state.tasks.isEmpty)
    #expect(world.violations == [])
  }

  @Test("large changes are cut into several decisions")
  func bounded() throws {
    var world = World(nodes: 5)
    world.reconciler.actionLimit = 100
    let id = try world.create("web", replicas: 950)
    world.settle()
    #expect(world.running(id).count == 950)
    #expect(world.actionsMost < 250)
    try world.scale(id, 1)
    world.settle()
    #expect(world.state.tasks.count == 1)
    #expect(world.violations == [])
  }

  @Test("tasks that cannot be placed say why and are placed when a node can take them")
  func pending() throws {
    var world = World(nodes: 3, memory: 1 << 30)
    world.editNode(3) { $0.labels = ["disk": "ssd"] }
    let id = try world.create("db", replicas: 2) {
      $0.taskTemplate.resources = reserve(800 << 20)
      $0.taskTemplate.placement = Placement()
      $0.taskTemplate.placement?.constraints = ["node.labels.disk == ssd"]
    }
    world.settle()
    #expect(world.running(id).count == 1)
    #expect(
      world.live(id).first { $0.status.state == .pending }?.status.error
        == "no suitable node (scheduling constraints not satisfied on 2 nodes; insufficient memory on 1 node)")
    world.editNode(2) { $0.labels = ["disk": "ssd"] }
    world.settle()
    #expect(world.running(id).count == 2)
    #expect(world.violations == [])
  }

  @Test("a full network is a reason to wait")
  func fullNetwork() throws {
    var world = World(nodes: 1, subnetLength: 29)
    _ = try world.network("tiny")
    let id = try world.create("web", replicas: 5) { $0.taskTemplate.networks = [NetworkAttachmentConfig(target: "tiny")] }
    world.settle()
    // Of .2 to .6 one is the service's.
    #expect(world.running(id).count == 4)
    #expect(
      world.live(id).filter { $0.status.state == .pending }.map(\.status.error)
        == ["network tiny has no free address (5 of 10.0.0.8/29 are in use): give it a larger subnet"])
    #expect(world.violations == [])
  }

  @Test("ingress has its subnet when the first host has told its routes, around them")
  func ingressAroundRoutes() throws {
    var world = World(nodes: 0)
    #expect(world.state.network(named: "ingress").map { $0.subnet == nil } == true)
    var node = Node(id: NodeID(value: 7), spec: NodeSpec(role: .worker), createdAt: world.now)
    world.apply([.putNode(node)])
    world.settle()
    #expect(world.state.network(named: "ingress")?.subnet == nil)
    node.description = NodeDescription(
      hostname: "host7", platform: Platform(architecture: "x86_64", os: "linux"), resources: .init(nanoCPUs: 1_000_000_000, memoryBytes: 1 << 30),
      engine: .init(engineVersion: "1"))
    node.description?.routes = [NodeDescription.HostRoute(destination: IPv4Prefix("10.0.0.0/22")!, device: "eth0")]
    node.status = NodeStatus(state: .ready, address: IPv4Address("192.168.0.7"))
    world.apply([.putNode(node)])
    world.settle()
    #expect(world.state.network(named: "ingress")?.subnet == IPv4Prefix("10.0.4.0/24"))
    // Ports answer at hosts' IPv6 addresses, too.
    let own = world.state.cluster.map { IPv6Prefix.uniqueLocal(of: $0.id) }
    #expect(world.state.network(named: "ingress")?.subnet6.map { own?.contains($0.address) == true && $0.length == 64 } == true)
    #expect(world.state.nodes[node.id]?.attachments.first?.address == IPv4Address("10.0.4.2"))
  }

  @Test("a task that publishes goes to no host that has no address on ingress, and says so")
  func noAddressForTheHost() throws {
    // .2 to .6 of ingress, for six hosts.
    var world = World(nodes: 6, subnetLength: 29)
    let id = try world.create("web", replicas: 1) { $0.endpointSpec = EndpointSpec(ports: [PortConfig(targetPort: 80, publishedPort: 8080)]) }
    world.settle()
    #expect(world.running(id).isEmpty)
    let reasons = Set(world.live(id).filter { $0.status.state == .pending }.map(\.status.error))
    #expect(!reasons.isEmpty && reasons.allSatisfy { $0.contains("network ingress has no free address") }, "\(reasons)")
    #expect(world.state.nodes.values.count { !$0.attachments.isEmpty } == 5)
    #expect(world.violations == [])
  }

  @Test("a slot that was filled twice keeps the task that serves")
  func filledTwice() throws {
    var world = World(nodes: 2)
    let id = try world.create("web", replicas: 2)
    world.settle()
    let before = world.running(id).map(\.id)
    var late = ClusterTask(id: .random(using: &world.generator), service: id, revision: 1, slot: 2, createdAt: world.now)
    late.node = world.nodes[0]
    late.status.state = .assigned
    world.apply([.createTask(late)])
    world.settle()
    #expect(world.running(id).map(\.id) == before)
    #expect(world.state.tasks[late.id]?.desiredState == .shutdown)
    #expect(world.violations == [])
  }

  @Test("a new leader changes nothing in a settled cluster")
  func newLeader() throws {
    var world = World(nodes: 3)
    _ = try world.network("back")
    for name in ["a", "b"] {
      try world.create(name, replicas: 4) {
        $0.taskTemplate.networks = [NetworkAttachmentConfig(target: "back")]
        $0.endpointSpec = EndpointSpec(ports: [PortConfig(targetPort: 80, publishedPort: nil)])
      }
    }
    world.settle()
    world.reconciler.reset(world.state)
    let acted = world.decide()
    #expect(!acted)
  }
}

func reserve(_ bytes: Int64) -> ResourceRequirements {
  var reservation = ResourceRequirements.Reservation()
  reservation.memoryBytes = bytes
  return ResourceRequirements(reservations: reservation)
}
