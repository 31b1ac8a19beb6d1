import Allocator
import Model
import Scheduler

// Orchestrator: from what is declared to what each node is told to run.
//
// `Reconciler` is the leader's whole decision in one pipeline, so that a change costs one Raft entry: it tries actions on a
// speculative copy of the state (tasks created and removed, then addresses, then nodes) and returns them as one batch.
//
// Invariants
// - It is the only writer of tasks' rows, desired states, endpoints, node addresses and update statuses. One decision is in
//   flight at a time: the state given to `step` contains what became of the previous one.
// - Everything that must outlive a change of leaders is in the replicated state; what is kept here can be rebuilt by `reset`.
// - A slot has at most one task that is meant to run, but for an update or a drain with start-first.
// - Work follows from changes: a service that did not change and waits for no instant is not looked at.
//
// It knows no clock, no socket, no randomness of its own, and nothing of sessions: that a node is down is in its status.

/// What the leader should propose next.
public struct Decision: Hashable, Sendable {
  /// To be proposed as one command; empty: nothing to do.
  public var actions: [Action]
  /// Must hold when they are applied (a rollback must not overwrite an update that came in between).
  public var conditions: [Condition]
  /// Call `step` again at this instant even if nothing changes; in the past: at once after this decision was applied.
  public var wakeAt: Timestamp?

  public init(actions: [Action] = [], conditions: [Condition] = [], wakeAt: Timestamp? = nil) {
    self.actions = actions
    self.conditions = conditions
    self.wakeAt = wakeAt
  }

  public var command: Command? { actions.isEmpty ? nil : Command(conditions: conditions, actions: actions) }
}

/// Orchestrator, allocator and scheduler as one value. Use: `reset` on gaining leadership and whenever a decision was refused or
/// its fate is unknown, then `step` for every batch of changes and at every `wakeAt`.
public struct Reconciler: Sendable {
  /// Actions in one decision, about; a larger change continues in the next one (bounds entry size and the pause of others).
  public var actionLimit = 5_000

  var allocator = Allocator()
  var scheduler = Scheduler()
  var dirty: Set<ServiceID> = []
  var wakes: [ServiceID: Timestamp] = [:]
  var globals: Set<ServiceID> = []
  /// Global services with a task that its node could not take.
  var heldGlobals: Set<ServiceID> = []
  /// Tasks that have no node yet.
  var waiting: [ServiceID: Set<TaskID>] = [:]
  var dirtyNetworks: Set<NetworkID> = []
  var dirtyNodes: Set<NodeID> = []
  var checkStacks = true
  /// Since when this leader knows of a node's loss.
  var downSince: [NodeID: Timestamp] = [:]
  var changedNodes: Set<NodeID> = []
  /// How long a task ran that has just ended.
  var ranFor: [TaskID: Nanoseconds] = [:]
  var updates: [ServiceID: UpdateProgress] = [:]
  var refusedNetworks: [NetworkID: String] = [:]
  var refusedEndpoints: [ServiceID: String] = [:]
  /// Tasks, services or nodes went without an address.
  var lacksAddresses = false
  var unaddressed: Set<NodeID> = []
  /// Who waits for a service to be as far as its `depends_on` says.
  var waitedFor: [ServiceID: Set<ServiceID>] = [:]

  public init() {}

  /// Forgets everything and takes `state` as it is; the next `step` looks at every service. O(state).
  public mutating func reset(_ state: ClusterState) {
    let (limit, before) = (actionLimit, allocator)
    self = Reconciler()
    actionLimit = limit
    // What is not in the state stays.
    allocator = before
    allocator.reset(state)
    scheduler.reset(state)
    for network in state.networks.values { dirtyNetworks.insert(network.id) }
    for node in state.nodes.values {
      dirtyNodes.insert(node.id)
      changedNodes.insert(node.id)
    }
    for service in state.services.values {
      dirty.insert(service.id)
      if state.spec(of: service)?.isGlobal == true { globals.insert(service.id) }
    }
    for task in state.tasks.values { index(task) }
  }

  /// - Parameters:
  ///   - state: the state after `changes`.
  ///   - changes: all since the previous call, in order, including those that this reconciler's decision made.
  public mutating func step(
    state: ClusterState, changes: [StateChange], now: Timestamp, generator: inout some RandomNumberGenerator
  ) -> Decision {
    for change in changes { note(change, state) }
    allocator.begin()
    var plan = Plan(world: state, limit: actionLimit)
    allocateNetworks(&plan, now, &generator)
    for (id, at) in wakes where at <= now { dirty.insert(id) }
    let tried = dirty.sorted()
    for id in tried {
      if plan.isFull { break }
      dirty.remove(id)
      wakes[id] = nil
      reconcile(id, &plan, now, &generator)
    }
    schedule(scheduler.freed ? waiting.keys.sorted() : tried.filter { waiting[$0] != nil }, &plan, now)
    addressNodes(&plan)
    if checkStacks { removeUnusedNetworks(&plan) }
    orphan(&plan, now)
    return Decision(actions: plan.actions, conditions: plan.conditions, wakeAt: wakeTime(plan, now))
  }

  /// Which free addresses may not be given yet. Before `step`; true: what went without one is to be tried again.
  public mutating func learn(resting: RestingAddresses) -> Bool {
    let mayGive = allocator.resting.endings != resting.endings
    allocator.resting = resting
    guard mayGive, lacksAddresses || !refusedNetworks.isEmpty else { return false }
    dirtyNetworks.formUnion(refusedNetworks.keys)
    guard lacksAddresses else { return true }
    lacksAddresses = false
    dirty.formUnion(waiting.keys)
    dirty.formUnion(refusedEndpoints.keys)
    dirtyNodes.formUnion(unaddressed)
    unaddressed = []
    return true
  }

  /// What hosts answered who were asked for ports: numbers that are chosen from now on go around what their processes have.
  public mutating func learn(asked: [PortClaim], taken: [PortClaim]) { allocator.learn(asked: asked, taken: taken) }

  private func wakeTime(_ plan: Plan, _ now: Timestamp) -> Timestamp? {
    if plan.isFull || !dirty.isEmpty { return now }
    let nodes = downSince.values.map { $0 + Self.orphanAfter }
    return (Array(wakes.values) + nodes).min()
  }

  /// Follows a change in every index; marks what has to be looked at again.
  mutating func note(_ change: StateChange, _ state: ClusterState) {
    allocator.observe(change, state: state)
    scheduler.observe(change, state: state)
    switch change {
    case .node(let old, let new):
      noteNode(old, new, state)
      if old?.status.address == nil, new?.status.address != nil, let id = allocator.ingress, state.networks[id]?.subnet == nil {
        dirtyNetworks.insert(id)
      }
    case .service(let old, let new):
      let id = (new ?? old)!.id
      if let new, let old, onlyProgress(old, new) {
        if old.endpoint != new.endpoint { dirty.formUnion(refusedEndpoints.keys) }
        break
      }
      dirty.insert(id)
      dirty.formUnion(waitedFor[id] ?? [])
      checkStacks = true
      // A port or a network may have become free.
      dirty.formUnion(refusedEndpoints.keys)
      if let new, state.spec(of: new)?.isGlobal == true { globals.insert(id) } else { globals.remove(id) }
      if new == nil {
        (updates[id], refusedEndpoints[id], waiting[id], waitedFor[id]) = (nil, nil, nil, nil)
      }
    case .revision(let key): if state.services[key.service]?.current == key.number { dirty.insert(key.service) }
    case .task(let old, let new):
      let id = (new ?? old)!.id
      let service = (new ?? old)!.service
      dirty.insert(service)
      dirty.formUnion(waitedFor[service] ?? [])
      if let old, let new, old.status.state == .running, new.status.state.isTerminal {
        ranFor[id] = new.status.timestamp - old.status.timestamp
      }
      if let new { index(new) } else { unindex(id, service) }
    case .network(_, let new):
      if let new { dirtyNetworks.insert(new.id) } else { dirtyNetworks.formUnion(refusedNetworks.keys) }
      checkStacks = true
    case .stack: checkStacks = true
    case .cluster:
      for network in state.networks.values where network.subnet == nil { dirtyNetworks.insert(network.id) }
    case .volume, .file: break
    }
  }

  private func onlyProgress(_ old: Service, _ new: Service) -> Bool {
    var same = old
    same.updateStatus = new.updateStatus
    same.endpoint = new.endpoint
    return same == new
  }

  private mutating func noteNode(_ old: Node?, _ new: Node?, _ state: ClusterState) {
    let id = (new ?? old)!.id
    if let new, let old, new.spec == old.spec, new.status.state == old.status.state, new.description == old.description { return }
    dirtyNodes.insert(id)
    changedNodes.insert(id)
    dirty.formUnion(globals)
    for task in state.tasks(on: id) { dirty.insert(task.service) }
  }

  private mutating func index(_ task: ClusterTask) {
    let isWaiting = task.node == nil && task.status.state < .assigned && task.desiredState <= .running
    if isWaiting { waiting[task.service, default: []].insert(task.id) } else { unindex(task.id, task.service) }
    if task.desiredState > .running { ranFor[task.id] = nil }
  }

  private mutating func unindex(_ id: TaskID, _ service: ServiceID) {
    waiting[service]?.remove(id)
    if waiting[service]?.isEmpty == true { waiting[service] = nil }
  }

  /// Adds an action to the plan and lets every index see what it would change.
  mutating func emit(_ action: Action, _ plan: inout Plan) {
    for change in plan.world.speculate([action]) { follow(change, plan.world) }
    switch action {
    case .createTask(let task):
      plan.created[task.id] = plan.actions.count
      plan.actions.append(action)
    case .assignTask(let id, _, _, _), .taskDesiredState(let id, _):
      // What is decided of a task that this plan creates goes into its creation.
      if let place = plan.created[id], let task = plan.world.tasks[id] {
        plan.actions[place] = .createTask(task)
      } else {
        plan.actions.append(action)
      }
    default: plan.actions.append(action)
    }
  }

  /// As `note`, without marking work: this very decision takes care of it, and its changes come back once they are applied.
  private mutating func follow(_ change: StateChange, _ world: ClusterState) {
    allocator.observe(change, state: world)
    scheduler.observe(change, state: world)
    switch change {
    case .task(let old, let new):
      if let new { index(new) } else if let old { unindex(old.id, old.service) }
    case .service, .stack, .network: checkStacks = true
    default: break
    }
  }
}

/// One decision while it is made.
struct Plan {
  /// The state as it would be with `actions`.
  var world: ClusterState
  var actions: [Action] = []
  var conditions: [Condition] = []
  /// Where the task's `createTask` is, so that what is decided of it later goes into it.
  var created: [TaskID: Int] = [:]
  let limit: Int

  init(world: ClusterState, limit: Int) {
    self.world = world
    self.limit = limit
  }
  var isFull: Bool { actions.count >= limit }
}
