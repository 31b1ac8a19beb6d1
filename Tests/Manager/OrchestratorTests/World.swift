import Model

@testable import Orchestrator

/// A cluster without machines: a state, a leader's reconciler, and agents that start and stop what they are told at once.
struct World {
  var state = ClusterState()
  var reconciler = Reconciler()
  var generator = SplitMix64(seed: 7)
  var now = Timestamp(nanoseconds: 1_000_000_000_000)
  var wakeAt: Timestamp?
  var pending: [StateChange] = []
  var nodes: [NodeID] = []
  /// Nodes whose agents answer.
  var alive: Set<NodeID> = []
  /// Images whose containers exit with 1 right after they started.
  var broken: Set<String> = []
  /// Images that no node can make ready.
  var refused: Set<String> = []
  /// Tasks of these images take their time to start: they stay in `starting`.
  var stuck: Set<String> = []
  var decisions = 0
  var actionsMost = 0
  /// What must never happen, and did.
  var violations: [String] = []

  init(nodes count: Int, cpus: Int64 = 8, memory: Int64 = 8 << 30, subnetLength: UInt8 = 24) {
    var cluster = Cluster(id: .random(using: &generator), createdAt: now)
    cluster.subnetLength = subnetLength
    apply([.putCluster(cluster)])
    for number in 1...max(count, 1) where count > 0 { addNode(number, cpus: cpus, memory: memory) }
    reconciler.reset(state)
    pending = []
    settle()
  }

  mutating func addNode(_ number: Int, cpus: Int64 = 8, memory: Int64 = 8 << 30) {
    var node = Node(id: .random(using: &generator), spec: NodeSpec(role: .worker), createdAt: now)
    node.description = NodeDescription(
      hostname: "host\(number)", platform: Platform(architecture: "x86_64", os: "linux"),
      resources: .init(nanoCPUs: cpus * 1_000_000_000, memoryBytes: memory), engine: .init(engineVersion: "1"))
    node.status = NodeStatus(state: .ready, address: IPv4Address(0xC0A8_0000 + UInt32(number)))
    nodes.append(node.id)
    alive.insert(node.id)
    apply([.putNode(node)])
  }

  mutating func apply(_ actions: [Action], _ conditions: [Condition] = []) {
    switch state.apply(Command(conditions: conditions, actions: actions), at: state.index + 1) {
    case .success(let changes): pending += changes
    case .failure(let refusal): violations.append("refused: \(refusal)")
    }
    check()
  }

  mutating func apply(_ command: Command) { apply(command.actions, command.conditions) }

  /// One decision; whether it did anything.
  mutating func decide() -> Bool {
    let changes = pending
    pending = []
    let decision = reconciler.step(state: state, changes: changes, now: now, generator: &generator)
    wakeAt = decision.wakeAt
    decisions += 1
    actionsMost = max(actionsMost, decision.actions.count)
    guard let command = decision.command else { return false }
    apply(command)
    return true
  }

  /// Every live agent does what it is told for one step.
  mutating func agents() -> Bool {
    var actions: [Action] = []
    for task in state.tasks.values {
      guard let node = task.node, alive.contains(node), task.status.state >= .assigned, !task.status.state.isTerminal else { continue }
      guard let image = state.spec(of: task)?.taskTemplate.containerSpec.image else { continue }
      var next: TaskState?
      var exit: Int32?
      if task.desiredState > .running {
        next = .shutdown
      } else if task.status.state < .ready {
        next = refused.contains(image) ? .rejected : .ready
      } else if task.status.state < .starting, task.desiredState == .running {
        next = .starting
      } else if task.status.state == .starting, !stuck.contains(image) {
        next = .running
      } else if task.status.state == .running, broken.contains(image) {
        (next, exit) = (.failed, 1)
      }
      guard let next else { continue }
      actions.append(
        .taskStatus(
          task.id,
          TaskStatus(
            state: next, timestamp: now, message: "\(next)", error: next == .failed ? "task: non-zero exit (1)" : "",
            containerID: next > .ready ? "c" : nil, exitCode: exit)))
    }
    if !actions.isEmpty { apply(actions) }
    return !actions.isEmpty
  }

  /// Until nothing happens without time passing.
  mutating func settle(limit: Int = 500) {
    for _ in 0..<limit {
      let decided = decide()
      let acted = agents()
      now.nanoseconds += 1_000
      if !decided && !acted && pending.isEmpty { return }
    }
    violations.append("does not settle")
  }

  /// Lets time pass, from one wished instant to the next.
  mutating func run(for span: Nanoseconds) {
    let end = now + span
    settle()
    while let next = wakeAt, next <= end, violations.isEmpty {
      now = max(now, next)
      settle()
    }
    now = max(now, end)
    settle()
  }

  // MARK: - What must always hold

  private mutating func check() {
    var holders: [String: String] = [:]
    func hold(_ attachment: NetworkAttachment, _ who: String) -> String? {
      let key = "\(attachment.network) \(attachment.address)"
      if let other = holders[key], other != who { return "\(attachment.address) belongs to \(other) and \(who)" }
      holders[key] = who
      return nil
    }
    for task in state.tasks.values where !task.status.state.isTerminal {
      for attachment in task.attachments { if let bad = hold(attachment, "task \(task.id)") { violations.append(bad) } }
    }
    for service in state.services.values {
      for address in service.endpoint.virtualIPs { if let bad = hold(address, service.name) { violations.append(bad) } }
    }
    for node in state.nodes.values { for address in node.attachments { if let bad = hold(address, node.hostname) { violations.append(bad) } } }
  }

  // MARK: - Users

  @discardableResult
  mutating func create(_ name: String, replicas: UInt64 = 1, _ change: (inout ServiceSpec) -> Void = { _ in }) throws -> ServiceID {
    var spec = ServiceSpec(name: name, taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "app:1")), mode: .replicated(replicas))
    change(&spec)
    let made = try ServiceEdits.create(spec, state: state, now: now, generator: &generator)
    apply(made.command)
    return made.id
  }

  mutating func update(_ id: ServiceID, _ change: (inout ServiceSpec) -> Void) throws {
    var spec = state.spec(of: state.services[id]!)!
    change(&spec)
    apply(try ServiceEdits.update(id, to: spec, state: state, now: now))
  }

  mutating func scale(_ id: ServiceID, _ replicas: UInt64) throws {
    apply(try ServiceEdits.scale([(id, replicas)], state: state, now: now))
  }

  mutating func network(_ name: String) throws -> NetworkID {
    let made = try ServiceEdits.createNetwork(NetworkSpec(name: name), state: state, now: now, generator: &generator)
    apply(made.command)
    return made.id
  }

  mutating func setNode(_ number: Int, _ state: NodeState) {
    let id = nodes[number - 1]
    if state == .down { alive.remove(id) } else { alive.insert(id) }
    apply([.nodeStatus(id, NodeStatus(state: state, address: self.state.nodes[id]?.status.address))])
  }

  mutating func editNode(_ number: Int, _ change: (inout NodeSpec) -> Void) {
    var node = state.nodes[nodes[number - 1]]!
    change(&node.spec)
    apply([.putNode(node)])
  }

  mutating func fail(_ task: ClusterTask, exit: Int32 = 1) {
    apply([
      .taskStatus(
        task.id,
        TaskStatus(
          state: exit == 0 ? .complete : .failed, timestamp: now, message: "finished", error: exit == 0 ? "" : "task: non-zero exit (\(exit))",
          containerID: "c", exitCode: exit))
    ])
  }

  // MARK: - Questions

  func running(_ id: ServiceID) -> [ClusterTask] {
    state.tasks(of: id).filter(\.isServing).sorted { ($0.slot, $0.createdAt) < ($1.slot, $1.createdAt) }
  }
  func live(_ id: ServiceID) -> [ClusterTask] { state.tasks(of: id).filter { $0.desiredState <= .running }.sorted { $0.slot < $1.slot } }
  func images(_ id: ServiceID) -> [String] { running(id).compactMap { state.spec(of: $0)?.taskTemplate.containerSpec.image } }
  func perNode(_ id: ServiceID) -> [Int] { nodes.map { node in running(id).count { $0.node == node } } }
  func status(_ id: ServiceID) -> String { state.services[id]?.updateStatus.map { "\($0.state.rawValue): \($0.message)" } ?? "-" }
}
