import Model
import Testing

@testable import Dispatcher

private let description = NodeDescription(
  hostname: "host", platform: Platform(architecture: "x86_64", os: "linux"), resources: .init(nanoCPUs: 1, memoryBytes: 1),
  engine: .init(engineVersion: "1"))

private func node(_ number: Int, ready: Bool = true) -> Node {
  var node = Node(id: NodeID(value: UInt128(number)), spec: NodeSpec(role: .worker), createdAt: .zero)
  node.description = description
  node.status = NodeStatus(state: ready ? .ready : .unknown, address: IPv4Address(0xC0A8_0000 + UInt32(number)))
  return node
}

private func at(_ seconds: Double) -> Timestamp { Timestamp(nanoseconds: 1_000_000_000_000) + .seconds(seconds) }

@Suite struct LivenessTests {
  var dispatcher = Dispatcher()
  var state = ClusterState()

  init() { _ = state.speculate([.putNode(node(1)), .putNode(node(2))]) }

  func connected(_ session: UInt64, _ number: Int = 1) -> DispatcherInput {
    .connected(node: node(number).id, session: SessionID(session), description: description, underlay: node(number).status.address!)
  }
  /// A third node that is heard, so that the silence of the others is not doubted.
  mutating func witness(_ second: Double) {
    if state.nodes[node(3).id] == nil { _ = state.speculate([.putNode(node(3))]) }
    dispatcher.view = View(state)
    _ = dispatcher.step(connected(33, 3), state: state, now: at(second))
  }
  func down(_ outputs: [DispatcherOutput]) -> [UInt128] {
    outputs.flatMap { output -> [UInt128] in
      guard case .propose(let actions) = output else { return [] }
      return actions.compactMap { if case .nodeStatus(let id, let status) = $0, status.state == .down { id.value } else { nil } }
    }
  }

  @Test("a new leader waits five seconds for every ready node, then those that did not come are down")
  mutating func grace() {
    #expect(dispatcher.reset(state: state, now: at(0)) == [.wakeAt(at(5))])
    _ = dispatcher.step(connected(1), state: state, now: at(1))
    // Heartbeats go on; the tick is asked for where it is needed.
    for second in 2...4 { _ = dispatcher.step(.heartbeat(SessionID(1)), state: state, now: at(Double(second))) }
    #expect(down(dispatcher.step(.tick, state: state, now: at(5))) == [2])
  }

  @Test("the leader before, whose agent lost its session at once, has less time")
  mutating func predecessor() {
    #expect(dispatcher.reset(state: state, predecessor: node(2).id, now: at(0)) == [.wakeAt(at(2.5))])
    witness(2)
    #expect(down(dispatcher.step(.tick, state: state, now: at(2.5))) == [2])
    _ = dispatcher.step(.heartbeat(SessionID(33)), state: state, now: at(4))
    #expect(down(dispatcher.step(.tick, state: state, now: at(5))) == [1])
  }

  @Test("led again in the next term, what was left of a silent node's time still counts; at least two seconds, at most what it had")
  mutating func again() {
    _ = dispatcher.reset(state: state, predecessor: node(2).id, now: at(0))
    _ = dispatcher.step(connected(1), state: state, now: at(0.5))
    #expect(dispatcher.reset(state: state, again: true, now: at(1)) == [.wakeAt(at(3))])
    witness(2)
    #expect(down(dispatcher.step(.tick, state: state, now: at(3))) == [2])
    // Its proposal was lost with the leadership: nobody waits five seconds more.
    _ = dispatcher.step(connected(1), state: state, now: at(3))
    _ = dispatcher.reset(state: state, again: true, now: at(4))
    #expect(dispatcher.awaited == [node(1).id: at(9), node(2).id: at(6), node(3).id: at(9)])
    // After another's term everybody may have been heard there.
    _ = dispatcher.reset(state: state, now: at(5))
    #expect(dispatcher.awaited == [node(1).id: at(10), node(2).id: at(10), node(3).id: at(10)])
  }

  @Test("three silent seconds and the node is down, whether its connection broke or not; coming back in time prevents it")
  mutating func silence() {
    _ = dispatcher.reset(state: state, now: at(0))
    _ = dispatcher.step(connected(1), state: state, now: at(0))
    let joined = dispatcher.step(connected(2, 2), state: state, now: at(0))
    #expect(!joined.contains { if case .propose = $0 { true } else { false } })
    #expect(dispatcher.step(.heartbeat(SessionID(1)), state: state, now: at(1.5)) == [])
    let late = dispatcher.step(.tick, state: state, now: at(3))
    #expect(down(late) == [2])
    #expect(late.contains(.close(SessionID(2), reason: "no heartbeat for 3 s")))
    #expect(late.contains(.wakeAt(at(4.5))))
    #expect(dispatcher.step(.disconnected(SessionID(1)), state: state, now: at(3.5)) == [])
    #expect(dispatcher.awaited[node(1).id] == at(4.5))
    witness(3.5)
    for second in 4...6 { _ = dispatcher.step(.heartbeat(SessionID(33)), state: state, now: at(Double(second))) }
    _ = dispatcher.step(connected(3), state: state, now: at(3.6))
    #expect(down(dispatcher.step(.tick, state: state, now: at(5.5))) == [])
    #expect(dispatcher.step(.disconnected(SessionID(3)), state: state, now: at(5.6)) == [])
    #expect(down(dispatcher.step(.tick, state: state, now: at(6.6))) == [1])
    #expect(
      dispatcher.step(.heartbeat(SessionID(3)), state: state, now: at(8)).first == .close(SessionID(3), reason: "unknown session: connect again"))
  }

  @Test("a second session replaces the first; the first one's end means nothing")
  mutating func replaced() {
    _ = dispatcher.reset(state: state, now: at(0))
    _ = dispatcher.step(connected(1), state: state, now: at(0))
    #expect(
      dispatcher.step(connected(2), state: state, now: at(0)).contains(.close(SessionID(1), reason: "replaced by a newer session of the same node")))
    _ = dispatcher.step(.disconnected(SessionID(1)), state: state, now: at(0.1))
    _ = dispatcher.step(.heartbeat(SessionID(2)), state: state, now: at(2))
    #expect(down(dispatcher.step(.tick, state: state, now: at(3))) == [])
  }

  @Test("a node that came back while its loss was written down is ready again; a removed one is sent away")
  mutating func contradicts() {
    _ = dispatcher.reset(state: state, now: at(0))
    _ = dispatcher.step(connected(1), state: state, now: at(0))
    let lost = state.speculate([.nodeStatus(node(1).id, NodeStatus(state: .down, address: node(1).status.address))])
    #expect(
      dispatcher.step(.changes(lost), state: state, now: at(1)).contains(.propose([.nodeStatus(node(1).id, node(1).status)])))
    let removed = state.speculate([.removeNode(node(1).id)])
    #expect(
      dispatcher.step(.changes(removed), state: state, now: at(2)).contains(
        .close(SessionID(1), reason: "the node was removed from the cluster")))
    #expect(
      dispatcher.step(connected(5), state: state, now: at(2)).contains {
        if case .close(SessionID(5), _) = $0 { true } else { false }
      })
  }

  @Test("an agent's word counts for its own tasks and its own states only")
  mutating func reports() {
    func task(_ number: UInt128, on node: Int) -> ClusterTask {
      var task = ClusterTask(id: TaskID(value: number), service: ServiceID(value: 1), revision: 1, slot: 1, createdAt: .zero)
      task.node = NodeID(value: UInt128(node))
      task.status.state = .assigned
      return task
    }
    _ = state.speculate([.createTask(task(1, on: 1)), .createTask(task(2, on: 2))])
    _ = dispatcher.reset(state: state, now: at(0))
    _ = dispatcher.step(connected(1), state: state, now: at(0))
    func report(_ number: UInt128, _ state: TaskState) -> TaskReport {
      TaskReport(task: TaskID(value: number), status: TaskStatus(state: state, timestamp: at(1), message: ""))
    }
    let outputs = dispatcher.step(
      .report(SessionID(1), [report(1, .running), report(2, .failed), report(1, .orphaned), report(1, .assigned), report(7, .running)]),
      state: state, now: at(1))
    #expect(outputs.first { if case .propose = $0 { true } else { false } } == .propose([.taskStatus(TaskID(value: 1), report(1, .running).status)]))
    #expect(outputs.count { if case .refused = $0 { true } else { false } } == 3)
  }
}

@Suite struct AssignmentTests {
  /// What an agent has after the messages it got.
  struct Replica {
    var items: [AssignmentItem.Key: AssignmentItem] = [:]
    var sequence: UInt64 = 0
    mutating func take(_ message: AssignmentsMessage) {
      if message.complete { items = [:] } else { #expect(message.appliesTo == sequence) }
      sequence = message.resultsIn
      for key in message.removals { items[key] = nil }
      for item in message.updates { items[item.key] = item }
    }
  }

  @Test("a full set has the node's tasks, their specs, its networks with peers, and who is reachable there")
  func fullSet() {
    var state = ClusterState()
    let network = NetworkID(value: 1)
    var net = Network(id: network, spec: NetworkSpec(name: "shop_default"), createdAt: .zero)
    (net.vni, net.subnet) = (4097, IPv4Prefix("10.0.1.0/24"))
    var spec = ServiceSpec(
      name: "shop_web", labels: [StackLabel.namespace: "shop"], taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "app")))
    spec.taskTemplate.networks = [NetworkAttachmentConfig(target: network.description, aliases: ["www", "web"])]
    let service = Service(id: ServiceID(value: 1), name: "shop_web", createdAt: .zero)
    var actions: [Action] = [
      .putNetwork(net), .putService(service), .putRevision(ServiceRevision(key: .init(service.id, 1), spec: spec, template: 1, createdAt: .zero)),
    ]
    for number in 1...3 {
      var row = node(number)
      if number < 3 { row.attachments = [NetworkAttachment(network: network, address: IPv4Address("10.0.1.\(number + 1)")!)] }
      actions.append(.putNode(row))
    }
    var task = ClusterTask(id: TaskID(value: 1), service: service.id, revision: 1, slot: 1, createdAt: .zero)
    task.node = node(2).id
    task.status.state = .running
    task.attachments = [NetworkAttachment(network: network, address: IPv4Address("10.0.1.9")!)]
    actions.append(.createTask(task))
    _ = state.speculate(actions)
    let view = View(state)
    #expect(view.items(for: node(3).id).isEmpty)
    let items = view.items(for: node(1).id)
    #expect(items.count == 3)
    guard case .network(let given)? = items.first else { return #expect(Bool(false)) }
    #expect(given.nodeAddress?.description == "10.0.1.2")
    #expect(given.peers.map(\.underlay.description) == ["192.168.0.2"])
    #expect(given.peers.map(\.address?.description) == ["10.0.1.3"])
    guard case .service(let record) = items[1], case .endpoint(let endpoint) = items[2] else { return #expect(Bool(false)) }
    #expect(record.names == [network: ["shop_web", "web", "www"]])
    #expect(endpoint.ready && endpoint.address.description == "10.0.1.9" && endpoint.underlay.description == "192.168.0.2")
    #expect(view.items(for: node(2).id).count == 5)
  }

  @Test("a secret goes to the nodes whose tasks use it, while they do, without what changes of it")
  func secrets() {
    let id = FileID(value: 5)
    var spec = ServiceSpec(name: "web", taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "app")))
    spec.taskTemplate.containerSpec.files = [FileReference(kind: .secret, target: FileTarget(name: "key"), id: id.description, name: "key")]
    let service = Service(id: ServiceID(value: 1), name: "web", createdAt: .zero)
    var task = ClusterTask(id: TaskID(value: 1), service: service.id, revision: 1, slot: 1, createdAt: .zero)
    task.node = node(2).id
    task.status.state = .assigned
    var state = ClusterState()
    let file = StoredFile(kind: .secret, id: id, name: "key", labels: ["a": "b"], data: [1, 2], createdAt: .zero)
    _ = state.speculate([
      .putNode(node(1)), .putNode(node(2)), .putFile(file), .putService(service),
      .putRevision(ServiceRevision(key: .init(service.id, 1), spec: spec, template: 1, createdAt: .zero)), .createTask(task),
    ])
    #expect(View(state).items(for: node(1).id).isEmpty)
    let items = View(state).items(for: node(2).id)
    // Before the task that needs it.
    guard case .file(let given)? = items.first else { return #expect(Bool(false), "\(items)") }
    #expect(given.data == [1, 2] && given.labels.isEmpty && given.version == 0 && items.count == 3)
    _ = state.speculate([.taskStatus(task.id, TaskStatus(state: .failed, timestamp: at(1), message: ""))])
    #expect(!View(state).items(for: node(2).id).contains { if case .file = $0 { true } else { false } })
  }

  @Test("tasks of an older revision are pulled with what the service was told last")
  func registryLogin() {
    var spec = ServiceSpec(name: "web", taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "app")))
    spec.registryLogin = SealedLogin(id: FileID(value: 1), data: [1])
    var service = Service(id: ServiceID(value: 1), name: "web", createdAt: .zero)
    var task = ClusterTask(id: TaskID(value: 1), service: service.id, revision: 1, slot: 1, createdAt: .zero)
    task.node = node(1).id
    task.status.state = .assigned
    var state = ClusterState()
    _ = state.speculate([
      .putNode(node(1)), .putService(service), .putRevision(ServiceRevision(key: .init(service.id, 1), spec: spec, template: 1, createdAt: .zero)),
      .createTask(task),
    ])
    func login() -> [UInt8]? {
      for case .revision(let revision) in View(state).items(for: node(1).id) { return revision.spec.registryLogin?.data }
      return nil
    }
    #expect(login() == [1])
    service.current = 2
    spec.registryLogin?.data = [2]
    _ = state.speculate([
      .putService(service), .putRevision(ServiceRevision(key: .init(service.id, 2), spec: spec, template: 1, createdAt: .zero)),
    ])
    #expect(login() == [2])
  }

  @Test("differences put together are the full set", arguments: 1...40)
  func differences(_ seed: UInt64) {
    var dice = SplitMix64(seed: seed)
    var state = ClusterState()
    var dispatcher = Dispatcher()
    _ = dispatcher.reset(state: state, now: at(0))
    var replicas: [SessionID: Replica] = [:]
    var sessions: [SessionID: NodeID] = [:]
    var addresses: UInt32 = 0
    func pick(_ range: ClosedRange<Int>) -> Int { .random(in: range, using: &dice) }
    func attachments() -> [NetworkAttachment] {
      (1...3).filter { _ in Bool.random(using: &dice) }.map {
        addresses += 1
        return NetworkAttachment(network: NetworkID(value: UInt128($0)), address: IPv4Address(0x0A00_0000 + addresses))
      }
    }
    func take(_ outputs: [DispatcherOutput]) {
      for output in outputs {
        if case .send(let id, let message) = output { replicas[id, default: Replica()].take(message) }
        if case .close(let id, _) = output { sessions[id] = nil }
      }
    }
    func acknowledge() {
      for session in sessions.keys.sorted() {
        take(dispatcher.step(.applied(session, replicas[session]?.sequence ?? 0), state: state, now: at(0)))
      }
    }
    for step in 0..<300 {
      var actions: [Action] = []
      for _ in 0..<pick(1...4) {
        let nodeID = NodeID(value: UInt128(pick(1...4)))
        let serviceID = ServiceID(value: UInt128(pick(1...3)))
        let taskID = TaskID(value: UInt128(pick(1...12)))
        let networkID = NetworkID(value: UInt128(pick(1...3)))
        let fileID = FileID(value: UInt128(pick(1...3)))
        switch pick(0...15) {
        case 0: actions.append(.putNode(node(Int(nodeID.value))))
        case 1: if pick(0...5) == 0 { actions.append(.removeNode(nodeID)) }
        case 2: if state.nodes[nodeID] != nil { actions.append(.nodeAttachments(nodeID, attachments())) }
        case 3:
          if state.nodes[nodeID] != nil {
            actions.append(
              .nodeStatus(
                nodeID,
                NodeStatus(state: Bool.random(using: &dice) ? .down : .ready, address: pick(0...3) == 0 ? nil : IPv4Address(UInt32(pick(1...9))))))
          }
        case 4, 5:
          var service = state.services[serviceID] ?? Service(id: serviceID, name: "st_s\(serviceID.value)", createdAt: .zero)
          var spec = ServiceSpec(
            name: service.name, labels: [StackLabel.namespace: "st"], taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "\(step)")))
          spec.taskTemplate.networks = (1...2).filter { _ in Bool.random(using: &dice) }.map {
            NetworkAttachmentConfig(target: NetworkID(value: UInt128($0)).description)
          }
          if Bool.random(using: &dice) {
            spec.taskTemplate.containerSpec.files = [FileReference(kind: .secret, target: nil, id: fileID.description, name: "f\(fileID.value)")]
          }
          if Bool.random(using: &dice) { spec.registryLogin = SealedLogin(id: fileID, data: [UInt8(step % 3)]) }
          if Bool.random(using: &dice) { spec.endpointSpec = EndpointSpec(ports: [PortConfig(targetPort: 80, publishedPort: 80)]) }
          service.current = UInt64(pick(1...3))
          service.pendingDelete = pick(0...5) == 0
          let service2 = ServiceRevision(key: .init(serviceID, service.current), spec: spec, template: service.current, createdAt: .zero)
          let both: [Action] = [.putService(service), .putRevision(service2)]
          // Alone: a rollback.
          actions += pick(0...3) == 0 ? [.putService(service)] : Bool.random(using: &dice) ? both : both.reversed()
        case 6: if pick(0...2) == 0 { actions.append(.removeService(serviceID)) }
        case 7:
          var endpoint = Service.Endpoint()
          endpoint.virtualIPs = attachments()
          endpoint.ports = [PortConfig(targetPort: 80, publishedPort: 80)]
          actions.append(.serviceEndpoint(serviceID, endpoint))
        case 8, 9:
          var task = ClusterTask(id: taskID, service: serviceID, revision: UInt64(pick(1...3)), slot: 1, createdAt: .zero)
          task.node = nodeID
          task.status.state = Bool.random(using: &dice) ? .pending : .assigned
          task.attachments = attachments()
          if state.tasks[taskID] == nil { actions.append(.createTask(task)) }
        case 10:
          actions.append(
            .taskStatus(taskID, TaskStatus(state: TaskState.allCases.randomElement(using: &dice)!, timestamp: at(Double(step)), message: "")))
        case 11: actions.append(.taskDesiredState(taskID, [.shutdown, .remove].randomElement(using: &dice)!))
        case 12: actions.append(.removeTask(taskID))
        case 13:
          let labels = ["step": "\(step)"]
          actions.append(.putFile(StoredFile(kind: .secret, id: fileID, name: "f\(fileID.value)", labels: labels, data: [1], createdAt: .zero)))
        case 14: actions.append(.removeFile(fileID))
        default:
          var spec = NetworkSpec(name: networkID.value == 3 ? "ingress" : "net\(networkID.value)")
          spec.ingress = networkID.value == 3
          var network = Network(id: networkID, spec: spec, createdAt: .zero)
          if pick(0...3) > 0 { (network.vni, network.subnet) = (UInt32(pick(4096...4099)), IPv4Prefix("10.0.1.0/24")) }
          actions.append(pick(0...4) == 0 ? .removeNetwork(networkID) : .putNetwork(network))
        }
      }
      let changes = state.speculate(actions)
      take(dispatcher.step(.changes(changes), state: state, now: at(0)))
      if pick(0...9) == 0 {
        let nodeID = NodeID(value: UInt128(pick(1...4)))
        let session = SessionID(UInt64(step + 1))
        sessions[session] = nodeID
        take(
          dispatcher.step(.connected(node: nodeID, session: session, description: description, underlay: IPv4Address(1)), state: state, now: at(0)))
      }
      // Tasks on their way out are told of it when everybody knows, or has had the time.
      if pick(0...2) > 0 { continue }
      acknowledge()
      let isHeardOfAll = state.nodes.values.allSatisfy { !$0.isExpected || dispatcher.current[$0.id] != nil }
      take(dispatcher.step(.tick, state: state, now: at(isHeardOfAll ? 0.2 : 2.1)))
      #expect(dispatcher.drains.isEmpty && dispatcher.view.draining.isEmpty)
      for (session, nodeID) in sessions {
        let expected = View(state).items(for: nodeID)
        let actual = (replicas[session] ?? Replica()).items
        let wanted = Dictionary(uniqueKeysWithValues: expected.map { ($0.key, $0) })
        let wrong = Set(actual.keys).union(wanted.keys).filter { actual[$0] != wanted[$0] }.sorted()
        #expect(wrong.isEmpty, "seed \(seed) step \(step)")
        if !wrong.isEmpty { return }
      }
    }
    #expect(!replicas.isEmpty)
  }
}

@Suite struct DrainTests {
  var dispatcher = Dispatcher()
  var state = ClusterState()
  let task = TaskID(value: 1)

  init() {
    let network = NetworkID(value: 1)
    var net = Network(id: network, spec: NetworkSpec(name: "net"), createdAt: .zero)
    (net.vni, net.subnet) = (4097, IPv4Prefix("10.0.1.0/24"))
    var actions: [Action] = [.putNetwork(net)]
    for number in 1...3 {
      var row = node(number)
      row.attachments = [NetworkAttachment(network: network, address: IPv4Address("10.0.1.\(number + 1)")!)]
      actions.append(.putNode(row))
    }
    var row = ClusterTask(id: task, service: ServiceID(value: 1), revision: 1, slot: 1, createdAt: .zero)
    row.node = node(1).id
    row.status.state = .running
    row.attachments = [NetworkAttachment(network: network, address: IPv4Address("10.0.1.9")!)]
    _ = state.speculate(actions + [.createTask(row)])
    _ = dispatcher.reset(state: state, now: at(0))
    for number in 1...3 {
      _ = dispatcher.step(
        .connected(node: node(number).id, session: SessionID(UInt64(number)), description: description, underlay: node(number).status.address!),
        state: state, now: at(0))
      _ = dispatcher.step(.applied(SessionID(UInt64(number)), 1), state: state, now: at(0))
    }
  }

  /// What the task's node is told to do with it; nil when it is told nothing.
  func told(_ outputs: [DispatcherOutput]) -> TaskState? {
    for case .send(SessionID(1), let message) in outputs {
      for case .task(let task) in message.updates { return task.desiredState }
    }
    return nil
  }
  func notReady(_ outputs: [DispatcherOutput]) -> [UInt64] {
    outputs.compactMap { output in
      guard case .send(let id, let message) = output else { return nil }
      return message.updates.contains { if case .endpoint(let endpoint) = $0 { !endpoint.ready } else { false } } ? id.rawValue : nil
    }
  }

  mutating func leave() -> [DispatcherOutput] {
    let changes = state.speculate([.taskDesiredState(task, .shutdown)])
    return dispatcher.step(.changes(changes), state: state, now: at(1))
  }

  @Test("a task that leaves is not ready for anybody before its node is told to stop it")
  mutating func order() {
    let first = leave()
    #expect(told(first) == nil && notReady(first) == [1, 2, 3])
    #expect(told(dispatcher.step(.applied(SessionID(1), 2), state: state, now: at(1))) == nil)
    #expect(told(dispatcher.step(.applied(SessionID(3), 2), state: state, now: at(1))) == nil)
    #expect(told(dispatcher.step(.applied(SessionID(2), 1), state: state, now: at(1))) == nil)
    // Handshakes that were begun with it may still be on their way.
    let last = dispatcher.step(.applied(SessionID(2), 2), state: state, now: at(1))
    #expect(told(last) == nil && last.contains(.wakeAt(at(1.1))))
    #expect(told(dispatcher.step(.tick, state: state, now: at(1.099))) == nil)
    #expect(told(dispatcher.step(.tick, state: state, now: at(1.1))) == .shutdown)
    #expect(dispatcher.drains.isEmpty)
  }

  @Test("a session's word for more than it was sent is not believed, and one that was overtaken changes nothing")
  mutating func strange() {
    _ = leave()
    for number in 1...3 { _ = dispatcher.step(.applied(SessionID(UInt64(number)), 50), state: state, now: at(1)) }
    #expect(told(dispatcher.step(.tick, state: state, now: at(1.2))) == nil && dispatcher.sessions[SessionID(1)]?.applied == 1)
    for sequence in [UInt64(2), 1] {
      for number in 1...3 { _ = dispatcher.step(.applied(SessionID(UInt64(number)), sequence), state: state, now: at(1.2)) }
      #expect((1...3).allSatisfy { dispatcher.sessions[SessionID($0)]?.applied == 2 })
    }
    #expect(told(dispatcher.step(.tick, state: state, now: at(1.4))) == .shutdown)
  }

  @Test("an agent that does not answer does not keep a task from stopping")
  mutating func silent() {
    #expect(leave().contains(.wakeAt(at(3))) || dispatcher.wake == at(3))
    _ = dispatcher.step(.applied(SessionID(1), 2), state: state, now: at(1))
    _ = dispatcher.step(.applied(SessionID(2), 2), state: state, now: at(1))
    for number in 1...3 { _ = dispatcher.step(.heartbeat(SessionID(UInt64(number))), state: state, now: at(2.9)) }
    let late = dispatcher.step(.tick, state: state, now: at(3))
    #expect(told(late) == .shutdown)
    // And who did not answer is said.
    let warnings = late.compactMap { output -> String? in if case .warning(let text) = output { text } else { nil } }
    #expect(warnings.count == 1 && warnings[0].contains("though \(state.nodes[NodeID(value: 3)]!.hostname) did not say"), "\(warnings)")
  }

  /// What is said of the task's address, by session.
  func endpoints(_ outputs: [DispatcherOutput]) -> [UInt64: EndpointRecord] {
    var found: [UInt64: EndpointRecord] = [:]
    for case .send(let id, let message) in outputs { for case .endpoint(let endpoint) in message.updates { found[id.rawValue] = endpoint } }
    return found
  }

  @Test("tasks of a host that is down are lost for everyone, before they are told to stop and after; of one that is back they are not")
  mutating func lost() {
    _ = dispatcher.step(.disconnected(SessionID(1)), state: state, now: at(0.5))
    func status(_ to: NodeState) -> Action { .nodeStatus(node(1).id, NodeStatus(state: to, address: node(1).status.address)) }
    var changes = state.speculate([status(.down)])
    let down = endpoints(dispatcher.step(.changes(changes), state: state, now: at(3.5)))
    #expect(down.keys.sorted() == [2, 3] && down.values.allSatisfy { $0.lost && !$0.ready })
    changes = state.speculate([.taskDesiredState(task, .shutdown)])
    #expect(endpoints(dispatcher.step(.changes(changes), state: state, now: at(3.6))).values.allSatisfy { $0.lost })
    #expect(dispatcher.view.endpoint(task, NetworkID(value: 1))?.lost == true)
    // It may run there still, and its calls are answered.
    changes = state.speculate([status(.ready)])
    let back = endpoints(dispatcher.step(.changes(changes), state: state, now: at(4)))
    #expect(back.keys.sorted() == [2, 3] && back.values.allSatisfy { !$0.lost && !$0.ready })
    // Silent like most: nobody takes it for lost.
    changes = state.speculate([status(.unknown)])
    #expect(endpoints(dispatcher.step(.changes(changes), state: state, now: at(5))).values.allSatisfy { !$0.lost })
  }

  private mutating func come(_ number: Int, _ session: UInt64, _ second: Double) -> [DispatcherOutput] {
    dispatcher.step(
      .connected(node: node(number).id, session: SessionID(session), description: description, underlay: node(number).status.address!), state: state,
      now: at(second))
  }

  @Test("a host whose session broke has its rules still: it is waited for until its next session lives by what it was told, or it is down")
  mutating func broken() {
    _ = leave()
    for number in 1...2 { _ = dispatcher.step(.applied(SessionID(UInt64(number)), 2), state: state, now: at(1)) }
    #expect(told(dispatcher.step(.disconnected(SessionID(3)), state: state, now: at(1.1))) == nil)
    #expect(told(dispatcher.step(.tick, state: state, now: at(1.3))) == nil)
    var lost = dispatcher
    #expect(told(come(3, 13, 1.4)) == nil)
    #expect(told(dispatcher.step(.tick, state: state, now: at(1.6))) == nil)
    #expect(told(dispatcher.step(.applied(SessionID(13), 1), state: state, now: at(1.7))) == nil)
    #expect(told(dispatcher.step(.tick, state: state, now: at(1.8))) == .shutdown)

    let changes = state.speculate([.nodeStatus(node(3).id, NodeStatus(state: .down, address: node(3).status.address))])
    #expect(told(lost.step(.changes(changes), state: state, now: at(1.7))) == nil)
    #expect(told(lost.step(.tick, state: state, now: at(1.8))) == .shutdown)
  }

  @Test("a host that had no session when the task was to stop is waited for too, two seconds at most, and named")
  mutating func away() {
    _ = dispatcher.step(.disconnected(SessionID(3)), state: state, now: at(0.5))
    #expect(notReady(leave()) == [1, 2])
    for number in 1...2 { _ = dispatcher.step(.applied(SessionID(UInt64(number)), 2), state: state, now: at(1)) }
    #expect(told(dispatcher.step(.tick, state: state, now: at(2.9))) == nil)
    let late = dispatcher.step(.tick, state: state, now: at(3))
    #expect(told(late) == .shutdown)
    #expect(late.contains { if case .warning(let text) = $0 { text.contains("though \(state.nodes[node(3).id]!.hostname) did not") } else { false } })
  }

  @Test("a task whose own host has no session is drained too: its host is told when it has come and all have said so")
  mutating func ownAway() {
    _ = dispatcher.step(.disconnected(SessionID(1)), state: state, now: at(0.5))
    #expect(notReady(leave()) == [2, 3])
    #expect(told(come(1, 1, 1.1)) == .running)
    for (number, sequence) in [(UInt64(1), UInt64(1)), (2, 2), (3, 2)] {
      #expect(told(dispatcher.step(.applied(SessionID(number), sequence), state: state, now: at(1.2))) == nil)
    }
    #expect(told(dispatcher.step(.tick, state: state, now: at(1.3))) == .shutdown)
    #expect(dispatcher.drains.isEmpty && dispatcher.view.draining.isEmpty)
  }

  @Test("a new leader begins anew: the task's host is told when everyone who may call it came and said so, or is down, or has had five seconds")
  mutating func inherited() {
    _ = state.speculate([.taskDesiredState(task, .shutdown)])
    _ = dispatcher.reset(state: state, now: at(10))
    #expect(told(come(1, 1, 11)) == .running && notReady(come(2, 2, 11)) == [2])
    for session in 1...2 { #expect(told(dispatcher.step(.applied(SessionID(UInt64(session)), 1), state: state, now: at(11.1))) == nil) }
    #expect(told(dispatcher.step(.tick, state: state, now: at(13.2))) == nil)
    let before = (dispatcher, state)

    #expect(told(come(3, 3, 13.5)) == nil)
    #expect(told(dispatcher.step(.applied(SessionID(3), 1), state: state, now: at(13.6))) == nil)
    #expect(told(dispatcher.step(.tick, state: state, now: at(13.7))) == .shutdown)
    #expect(dispatcher.drains.isEmpty && dispatcher.view.draining.isEmpty)

    // The third is lost.
    (dispatcher, state) = before
    let changes = state.speculate([.nodeStatus(node(3).id, NodeStatus(state: .down, address: node(3).status.address))])
    #expect(told(dispatcher.step(.changes(changes), state: state, now: at(13.5))) == nil)
    #expect(told(dispatcher.step(.tick, state: state, now: at(13.6))) == .shutdown)

    // It comes and says nothing.
    (dispatcher, state) = before
    _ = come(3, 3, 13.5)
    for session in 1...3 { _ = dispatcher.step(.heartbeat(SessionID(UInt64(session))), state: state, now: at(14.9)) }
    #expect(told(dispatcher.step(.tick, state: state, now: at(14.9))) == nil)
    let late = dispatcher.step(.tick, state: state, now: at(15))
    #expect(told(late) == .shutdown)
    #expect(late.contains { if case .warning(let text) = $0 { text.contains("did not say") } else { false } })
  }

  @Test("a task that says it is unhealthy is told to stop when nobody is sent to it any more, by this leader and the next")
  mutating func unhealthy() {
    var status = TaskStatus(state: .running, timestamp: at(1), message: "stopping: unhealthy")
    status.health = TaskHealth(status: .unhealthy)
    let changes = state.speculate([.taskStatus(task, status)])
    let first = dispatcher.step(.changes(changes), state: state, now: at(1))
    #expect(told(first) == .running && notReady(first) == [1, 2, 3])
    for number in 1...3 {
      #expect(told(dispatcher.step(.applied(SessionID(UInt64(number)), 2), state: state, now: at(1.1))) == nil)
    }
    #expect(told(dispatcher.step(.tick, state: state, now: at(1.2))) == .shutdown)
    #expect(state.tasks[task]?.desiredState == .running)
    guard case .task(let item)? = View(state).item(.task(task), for: node(1).id) else { return #expect(Bool(false)) }
    #expect(item.desiredState == .shutdown && item.status.health?.status == .unhealthy)
    // The manager may want its end meanwhile: it is told once.
    let ending = state.speculate([.taskDesiredState(task, .shutdown)])
    #expect(told(dispatcher.step(.changes(ending), state: state, now: at(1.3))) == nil)
    #expect(dispatcher.drains.isEmpty)
  }

  @Test("a task that ends by itself meanwhile, or is removed, is told of as ever")
  mutating func ended() {
    _ = leave()
    let changes = state.speculate([.taskStatus(task, TaskStatus(state: .failed, timestamp: at(1), message: ""))])
    #expect(told(dispatcher.step(.changes(changes), state: state, now: at(1))) == .shutdown)
    #expect(dispatcher.drains.isEmpty && dispatcher.view.draining.isEmpty)
  }
}

@Suite struct ServiceRecordTests {
  @Test("names of ports (SRV) are told of all published ports, those in host mode too; none of a service that goes")
  func ports() {
    var state = ClusterState()
    var service = Service(id: ServiceID(value: 1), name: "web", createdAt: .zero)
    let ports = [PortConfig(targetPort: 80, publishedPort: 8080), PortConfig(targetPort: 53, publishedPort: 53, publishMode: .host)]
    let spec = ServiceSpec(name: "web", taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "web:1")))
    service.current = 1
    service.endpoint.ports = ports
    let revision = ServiceRevision(key: .init(service.id, 1), spec: spec, template: 1, createdAt: .zero)
    _ = state.speculate([.putService(service), .putRevision(revision)])
    #expect(View(state).service(service.id)?.ports == ports)
    service.pendingDelete = true
    _ = state.speculate([.putService(service)])
    #expect(View(state).service(service.id)?.ports == [])
  }
}

@Suite struct EndpointRecordTests {
  @Test("the hostname that a task's own revision names is told with its placeholders filled in; none that names none")
  func hostname() {
    var (state, task) = (DrainTests().state, DrainTests().task)
    func told() -> String? { View(state).endpoint(task, NetworkID(value: 1))?.hostname }
    let service = state.tasks[task]!.service
    func revise(_ number: UInt64, _ hostname: String?) {
      var spec = ServiceSpec(name: "kafka", taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "kafka:1")))
      spec.taskTemplate.containerSpec.hostname = hostname
      var row = Service(id: service, name: "kafka", createdAt: .zero)
      row.current = number
      _ = state.speculate([
        .putService(row), .putRevision(ServiceRevision(key: .init(service, number), spec: spec, template: number, createdAt: .zero)),
      ])
    }
    #expect(told() == nil)
    revise(1, "kafka-{{.Task.Slot}}.{{.Node.Hostname}}")
    revise(2, "other")
    #expect(told() == "kafka-1.\(node(1).hostname)")
    revise(1, "")
    #expect(told() == nil)
  }
}

@Suite struct WithoutIPv6Tests {
  @Test("tasks of a host without IPv6 are told so to everyone on their network, when the host says it and when it has it again")
  func told() {
    let drains = DrainTests()
    var (dispatcher, state) = (drains.dispatcher, drains.state)
    func endpoints(_ outputs: [DispatcherOutput]) -> [SessionID: Bool] {
      var found: [SessionID: Bool] = [:]
      for case .send(let id, let message) in outputs { for case .endpoint(let endpoint) in message.updates { found[id] = endpoint.lacksIPv6 } }
      return found
    }
    for lacks in [true, false] {
      var other = description
      other.lacksIPv6 = lacks ? true : nil
      let proposed = dispatcher.step(.described(SessionID(1), other), state: state, now: at(1))
      #expect(proposed == [.propose([.nodeDescription(node(1).id, other)])])
      let changes = state.speculate([.nodeDescription(node(1).id, other)])
      let outputs = dispatcher.step(.changes(changes), state: state, now: at(1))
      #expect(endpoints(outputs) == [SessionID(1): lacks, SessionID(2): lacks, SessionID(3): lacks])
    }
  }
}

@Suite struct RestTests {
  var dispatcher = Dispatcher()
  var state = ClusterState()
  let task = TaskID(value: 1)
  let network = NetworkID(value: 1)
  let address = IPv4Address("10.0.1.9")!

  init() {
    let drains = DrainTests()
    (dispatcher, state) = (drains.dispatcher, drains.state)
  }

  mutating func end() {
    let changes = state.speculate([.taskStatus(task, TaskStatus(state: .failed, timestamp: at(1), message: ""))])
    _ = dispatcher.step(.changes(changes), state: state, now: at(1))
  }
  mutating func applied(_ session: UInt64, _ sequence: UInt64) {
    _ = dispatcher.step(.applied(SessionID(session), sequence), state: state, now: at(2))
  }
  mutating func connect(_ number: Int, _ session: UInt64) {
    _ = dispatcher.step(
      .connected(node: node(number).id, session: SessionID(session), description: description, underlay: node(number).status.address!),
      state: state, now: at(2))
  }
  var rests: Bool { dispatcher.resting.contains(address, on: network) }

  @Test("a freed address rests until every host of its network has said that it lives without it, in this session or the next")
  mutating func acknowledged() {
    end()
    #expect(rests)
    applied(1, 2)
    applied(2, 1)
    applied(3, 2)
    #expect(rests)
    // Its session is lost and comes again: what it says of the new one counts.
    _ = dispatcher.step(.disconnected(SessionID(2)), state: state, now: at(2))
    #expect(rests)
    connect(2, 12)
    #expect(rests)
    applied(12, 1)
    #expect(!rests && dispatcher.rests.isEmpty)
  }

  @Test("a host that is down is not waited for; one that does not answer, five seconds")
  mutating func bounded() {
    end()
    applied(1, 2)
    var other = dispatcher
    let changes = state.speculate([.nodeStatus(node(2).id, NodeStatus(state: .down))])
    _ = other.step(.changes(changes), state: state, now: at(2))
    #expect(other.resting.contains(address, on: network))
    _ = other.step(.applied(SessionID(3), 3), state: state, now: at(2))
    #expect(!other.resting.contains(address, on: network))
    for number in 1...3 { _ = dispatcher.step(.heartbeat(SessionID(UInt64(number))), state: state, now: at(5.9)) }
    _ = dispatcher.step(.tick, state: state, now: at(5.9))
    #expect(rests)
    _ = dispatcher.step(.tick, state: state, now: at(6))
    #expect(!rests)
  }

  @Test("what a network had that is gone rests until every host that lags has said that it left it; a new leader gives none before all have")
  mutating func networks() {
    end()
    for (session, sequence) in [(1, 2), (2, 2), (3, 2)] { applied(UInt64(session), UInt64(sequence)) }
    let (vni, subnet) = (state.networks[network]?.vni, state.networks[network]?.subnet)
    #expect(vni != nil && subnet != nil && !dispatcher.resting.isClosed)
    let changes = state.speculate([.removeNetwork(network)])
    #expect(!changes.isEmpty)
    _ = dispatcher.step(.changes(changes), state: state, now: at(2))
    // All three had it: it is taken from them now.
    #expect(dispatcher.resting.vnis == [vni!] && Array(dispatcher.resting.subnets) == [subnet!])
    let endings = dispatcher.resting.endings
    for session in 1...3 {
      #expect(dispatcher.resting.vnis == [vni!])
      applied(UInt64(session), dispatcher.sessions[SessionID(UInt64(session))]!.sequence)
    }
    #expect(dispatcher.resting.vnis.isEmpty && dispatcher.resting.subnets.isEmpty && dispatcher.resting.endings > endings)
  }

  @Test("a new leader gives no VNI and subnet before a host that is on no network has spoken: it may have left one that is gone")
  mutating func newLeaderAndIdleHost() {
    end()
    var idle = Node(id: NodeID(value: 77), spec: NodeSpec(role: .worker), createdAt: at(0))
    idle.status = NodeStatus(state: .ready)
    _ = state.speculate([.putNode(idle)])
    _ = dispatcher.reset(state: state, now: at(1))
    for number in 1...3 {
      connect(number, UInt64(20 + number))
      applied(UInt64(20 + number), 1)
    }
    #expect(dispatcher.resting.isClosed)
    _ = dispatcher.step(.tick, state: state, now: at(6))
    #expect(!dispatcher.resting.isClosed)
  }

  @Test("a new leader gives none of a network's addresses before its hosts live by what it told them")
  mutating func newLeader() {
    end()
    _ = dispatcher.reset(state: state, now: at(1))
    let other = IPv4Address("10.0.1.77")!
    func closed() -> Bool { dispatcher.resting.contains(other, on: network) }
    for number in 1...3 {
      connect(number, UInt64(20 + number))
      #expect(closed() && dispatcher.resting.isClosed)
      applied(UInt64(20 + number), 1)
    }
    #expect(!closed() && !rests && !dispatcher.resting.isClosed)
    // One that stays away: its time is five seconds.
    _ = dispatcher.reset(state: state, now: at(10))
    #expect(closed())
    _ = dispatcher.step(.tick, state: state, now: at(15))
    #expect(!closed())
  }
}
