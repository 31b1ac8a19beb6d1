import Model
import Scheduler

// One service: from its rows to the next actions. Every rule reads the rows alone where it can, so that a new leader goes on where
// the old one stopped.
extension Reconciler {
  mutating func reconcile(_ id: ServiceID, _ plan: inout Plan, _ now: Timestamp, _ generator: inout some RandomNumberGenerator) {
    sweep(id, &plan, now)
    guard let service = plan.world.services[id], !service.pendingDelete else { return dissolve(id, &plan) }
    guard let revision = plan.world.revision(id, service.current) else { return }
    var context = Context(service: service, spec: revision.spec, template: revision.template, now: now)
    if isSpent(context, plan) {
      var service = service
      service.pendingDelete = true
      plan.conditions.append(.serviceVersion(service.id, service.version))
      emit(.putService(service), &plan)
      return dissolve(id, &plan)
    }
    allocateEndpoint(service, revision.spec, &plan)
    restart(&context, &plan, &generator)
    if context.spec.isGlobal { cover(&context, &plan, &generator) } else { scale(&context, &plan, &generator) }
    update(&context, &plan, &generator)
    release(&context, &plan)
    forgetHistory(context, &plan)
    pruneRevisions(service, &plan)
    // Where the rows are again as a slow path would find them: what was cut off by the limit is done in the next decision.
    if plan.isFull { dirty.insert(id) }
    if context.again { dirty.insert(id) }
    if let wake = context.wake { wakes[id] = wake }
  }

  /// What one look at a service needs throughout.
  struct Context {
    var service: Service
    var spec: ServiceSpec
    var template: UInt64
    var now: Timestamp
    var wake: Timestamp?
    /// The service's row was changed: look again.
    var again = false

    init(service: Service, spec: ServiceSpec, template: UInt64, now: Timestamp) {
      self.service = service
      self.spec = spec
      self.template = template
      self.now = now
    }
    mutating func wake(at instant: Timestamp) { wake = min(wake ?? instant, instant) }
    var policy: RestartPolicy? { spec.taskTemplate.restartPolicy }
    var isUpdatePaused: Bool { service.updateStatus?.state == .paused || service.updateStatus?.state == .rollbackPaused }
    var isRollback: Bool { service.updateStatus?.state == .rollbackStarted || service.updateStatus?.state == .rollbackPaused }
    var updateConfig: UpdateConfig { (isRollback ? spec.rollbackConfig : spec.updateConfig) ?? UpdateConfig() }
    var startsFirst: Bool { updateConfig.order == .startFirst }
  }

  func slots(_ context: Context, _ plan: Plan) -> [Slot.Key: Slot] {
    Slot.group(plan.world.tasks(of: context.service.id), isGlobal: context.spec.isGlobal)
  }

  // MARK: - Rows that are done with

  /// `orch run -d --rm`: nobody waits for its end, and nothing of it is to stay.
  private func isSpent(_ context: Context, _ plan: Plan) -> Bool {
    guard context.spec.labels?[ServiceSpec.removedWhenOver] == "1", context.policy?.condition == RestartPolicy.Condition.none else { return false }
    let tasks = Array(plan.world.tasks(of: context.service.id))
    return !tasks.isEmpty && tasks.allSatisfy(\.status.state.isTerminal)
  }

  /// Removes rows that nobody needs and gives up those whose node has left.
  private mutating func sweep(_ id: ServiceID, _ plan: inout Plan, _ now: Timestamp) {
    for task in Array(plan.world.tasks(of: id)).sorted(by: { $0.id < $1.id }) {
      if plan.isFull { return }
      let isOver = task.status.state.isTerminal || task.status.state < .assigned
      if task.desiredState == .remove && isOver || task.desiredState > .running && task.status.state < .assigned {
        emit(.removeTask(task.id), &plan)
      } else if let node = task.node, plan.world.nodes[node] == nil, !task.status.state.isTerminal {
        emit(.taskStatus(task.id, TaskStatus(state: .orphaned, timestamp: now, message: "orphaned", error: "the node was removed")), &plan)
        if task.desiredState == .remove { emit(.removeTask(task.id), &plan) }
      }
    }
  }

  /// Tasks first, then the row.
  private mutating func dissolve(_ id: ServiceID, _ plan: inout Plan) {
    for task in Array(plan.world.tasks(of: id)).sorted(by: { $0.id < $1.id }) {
      if plan.isFull {
        dirty.insert(id)
        return
      }
      // A host that is down ends what it has when it comes back and is not told of it any more: nobody waits for that with the stack's next deployment.
      let isLost = task.node.map { plan.world.nodes[$0]?.status.state == .down } ?? false
      if task.status.state.isTerminal || task.status.state < .assigned || isLost {
        emit(.removeTask(task.id), &plan)
      } else if task.desiredState < .remove {
        emit(.taskDesiredState(task.id, .remove), &plan)
      }
    }
    if plan.world.services[id] != nil, plan.world.taskIDs(of: id).isEmpty { emit(.removeService(id), &plan) }
  }

  private mutating func forgetHistory(_ context: Context, _ plan: inout Plan) {
    let kept = plan.world.cluster?.taskHistory ?? 5
    for slot in slots(context, plan).values.sorted(by: { $0.key < $1.key }) where slot.tasks.count > kept {
      var ended = slot.tasks.filter { $0.status.state.isTerminal && $0.desiredState > .running }
      // The last one tells that the slot is done.
      if slot.live.isEmpty, ended.last?.id == slot.newest.id { ended.removeLast() }
      for task in ended.dropLast(kept) where !plan.isFull { emit(.removeTask(task.id), &plan) }
    }
  }

  /// Keeps the latest ten revisions and those that something points at.
  private mutating func pruneRevisions(_ service: Service, _ plan: inout Plan) {
    let numbers = plan.world.revisionNumbers(of: service.id)
    guard numbers.count > 20 else { return }
    var needed = Set(numbers.suffix(10))
    needed.formUnion(plan.world.tasks(of: service.id).map(\.revision))
    needed.formUnion([service.current, service.previous ?? service.current])
    for number in needed { if let template = plan.world.revision(service.id, number)?.template { needed.insert(template) } }
    for number in numbers where !needed.contains(number) { emit(.removeRevision(.init(service.id, number)), &plan) }
  }

  // MARK: - How many

  /// Replicated: as many filled slots as replicas.
  private mutating func scale(_ context: inout Context, _ plan: inout Plan, _ generator: inout some RandomNumberGenerator) {
    let wanted = Int(clamping: context.spec.replicas ?? 1)
    let slots = slots(context, plan)
    let filled = slots.values.filter { isFilled($0, context, plan) }
    if filled.count > wanted {
      let leaving = removalOrder(filled, plan).prefix(filled.count - wanted)
      for slot in leaving { removeSlot(slot, &plan) }
    }
    if filled.count >= wanted {
      // Nobody fills these any more: their history goes.
      let extra = slots.values.filter { !isFilled($0, context, plan) && !$0.isLeaving }
      for slot in extra.sorted(by: { $0.key < $1.key }) { removeSlot(slot, &plan) }
      return
    }
    var missing = wanted - filled.count
    let taken = Set(filled.map(\.key.number))
    var number: UInt64 = 0
    while missing > 0, !plan.isFull {
      number += 1
      if taken.contains(number) { continue }
      let old = slots[Slot.Key(number: number, node: nil)]
      // Its last task has not gone yet: two of one name would confuse everyone.
      if let old, old.isLeaving, old.isBusy { continue }
      create(in: Slot.Key(number: number, node: nil), after: old?.newest, &context, &plan, &generator, waits: old?.isBusy ?? false)
      missing -= 1
    }
  }

  private mutating func removeSlot(_ slot: Slot, _ plan: inout Plan) {
    for task in slot.tasks where task.desiredState < .remove {
      if plan.isFull { return }
      if task.status.state.isTerminal || task.status.state < .assigned {
        emit(.removeTask(task.id), &plan)
      } else {
        emit(.taskDesiredState(task.id, .remove), &plan)
      }
    }
  }

  /// Those that do not run first, then from the node that has most of the service (SwarmKit replicated/slot.go), then the highest number.
  private func removalOrder(_ slots: [Slot], _ plan: Plan) -> [Slot] {
    var perNode: [NodeID: Int] = [:]
    let ranked = slots.sorted { $0.key < $1.key }.map { slot -> (slot: Slot, runs: Bool, rank: Int) in
      guard let task = slot.live.first(where: { $0.status.state == .running }), let node = task.node else { return (slot, false, 0) }
      perNode[node, default: 0] += 1
      return (slot, true, perNode[node]!)
    }
    return ranked.sorted {
      if $0.runs != $1.runs { return !$0.runs }
      if $0.rank != $1.rank { return $0.rank > $1.rank }
      return $0.slot.key > $1.slot.key
    }.map(\.slot)
  }

  /// Has a task that is meant to run, or one that ended and by the policy is not followed by another.
  func isFilled(_ slot: Slot, _ context: Context, _ plan: Plan) -> Bool {
    if slot.tasks.contains(where: { $0.desiredState <= .running }) { return true }
    let newest = slot.newest
    if newest.desiredState == .remove { return false }
    return newest.revision == context.template && !mayRestart(newest, context)
  }

  /// Global: one on every node that is fit.
  private mutating func cover(_ context: inout Context, _ plan: inout Plan, _ generator: inout some RandomNumberGenerator) {
    let placement = GlobalPlacement(context.spec)
    let slots = slots(context, plan)
    for slot in slots.values.sorted(by: { $0.key < $1.key }) {
      guard let id = slot.key.node else { continue }
      let node = plan.world.nodes[id]
      let stays = node.map { $0.status.state != .down && $0.spec.availability != .drain && placement.admits($0) } ?? false
      if stays { continue }
      let desired: TaskState = node.map { !placement.admits($0) } ?? true ? .remove : .shutdown
      for task in slot.tasks where task.desiredState < desired && (task.desiredState <= .running || desired == .remove) {
        if plan.isFull { return }
        if task.status.state.isTerminal && desired == .remove || task.status.state < .assigned {
          emit(.removeTask(task.id), &plan)
        } else {
          emit(.taskDesiredState(task.id, desired), &plan)
        }
      }
    }
    for node in plan.world.nodes.values.sorted(by: { $0.id < $1.id }) where placement.wants(node) {
      if plan.isFull { return }
      let key = Slot.Key(number: 0, node: node.id)
      if let slot = slots[key] {
        if slot.live.contains(where: { $0.status.state == .pending }) { retryGlobal(slot, &context, &plan, &generator) }
        if isFilled(slot, context, plan) { continue }
      }
      create(in: key, after: slots[key]?.newest, &context, &plan, &generator)
    }
  }

  /// A global task that did not fit its node is made anew when it does.
  private mutating func retryGlobal(_ slot: Slot, _ context: inout Context, _ plan: inout Plan, _ generator: inout some RandomNumberGenerator) {
    guard let node = slot.key.node, let task = slot.live.first(where: { $0.status.state == .pending }) else { return }
    var reason = refusedEndpoints[context.service.id] ?? scheduler.objection(of: node, to: context.service.id, spec: context.spec)
    if reason == nil {
      // On a copy: as `place` would find it.
      var trial = allocator
      do { _ = try trial.attachments(for: task.id, spec: context.spec, state: plan.world) } catch { reason = error.description }
    }
    if reason == task.status.error {
      heldGlobals.insert(context.service.id)
      return
    }
    emit(.removeTask(task.id), &plan)
    create(in: slot.key, after: slot.newest, &context, &plan, &generator, startAfter: task.startAfter, restartCount: task.restartCount)
  }

  // MARK: - Making a task

  /// - Parameter waits: prepared now, and let run when what it follows has stopped or `startAfter` has come.
  @discardableResult
  mutating func create(
    in key: Slot.Key, after previous: ClusterTask?, _ context: inout Context, _ plan: inout Plan, _ generator: inout some RandomNumberGenerator,
    waits: Bool = false, startAfter: Timestamp = .zero, restartCount: UInt32 = 0
  ) -> ClusterTask {
    let now = context.now
    // Later than what it follows, so that the newest of a slot is always known.
    let createdAt = previous.map { max(now, Timestamp(nanoseconds: $0.createdAt.nanoseconds + 1)) } ?? now
    let later = startAfter > now
    // After a loss of its node the old task may come back with the node: what follows in the same place waits for it too.
    let busy = key.node.map { node in
      plan.world.tasks(on: node).contains { $0.service == context.service.id && !$0.status.state.isTerminal && $0.desiredState > .running }
    }
    var task = ClusterTask(
      id: .random(using: &generator), service: context.service.id, revision: context.template, slot: key.number,
      desiredState: waits || later || busy == true ? .ready : .running, createdAt: createdAt)
    task.startAfter = startAfter
    task.restartCount = restartCount
    if later { context.wake(at: startAfter) }
    if let node = key.node { place(&task, on: node, context, plan) }
    emit(.createTask(task), &plan)
    return task
  }

  /// A global task's node is given.
  private mutating func place(_ task: inout ClusterTask, on node: NodeID, _ context: Context, _ plan: Plan) {
    task.node = node
    var reason = refusedEndpoints[context.service.id] ?? scheduler.objection(of: node, to: context.service.id, spec: context.spec)
    if reason == nil {
      do { task.attachments = try allocator.attachments(for: task.id, spec: context.spec, state: plan.world) } catch { reason = error.description }
    }
    if let reason {
      heldGlobals.insert(context.service.id)
      task.status = TaskStatus(state: .pending, timestamp: context.now, message: "pending task scheduling", error: reason)
    } else {
      task.status = assigned(context.now)
    }
  }

  /// Lets prepared tasks run whose time has come.
  private mutating func release(_ context: inout Context, _ plan: inout Plan) {
    for slot in slots(context, plan).values.sorted(by: { $0.key < $1.key }) {
      guard let task = slot.tasks.last(where: { $0.desiredState == .ready }) else { continue }
      if task.startAfter > context.now {
        context.wake(at: task.startAfter)
        continue
      }
      let isBlocked = slot.tasks.contains { other in
        other.desiredState > .running && !other.status.state.isTerminal && other.status.state >= .assigned
          && other.node.flatMap { plan.world.nodes[$0] }.map { $0.status.state != .down } == true
      }
      if !isBlocked, !plan.isFull { emit(.taskDesiredState(task.id, .running), &plan) }
    }
  }
}
