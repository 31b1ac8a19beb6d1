import Model
import Scheduler

// What ended, or sits where it cannot stay, is followed by a new task in its slot.
extension Reconciler {
  /// Without a declared delay: at once after the first failure, then 100 ms, 200 ms, … up to this.
  static let backoffMax = Nanoseconds.seconds(5)
  static let backoffStep = Nanoseconds.milliseconds(100)
  /// A task that ran this long was well: what follows starts counting anew.
  static let healthyAfter = Nanoseconds.seconds(10)

  mutating func restart(_ context: inout Context, _ plan: inout Plan, _ generator: inout some RandomNumberGenerator) {
    for var slot in slots(context, plan).values.sorted(by: { $0.key < $1.key }) {
      for id in shed(slot, context, &plan).map(\.id) {
        if plan.isFull { return }
        // What was done for the one before counts for the next.
        slot.tasks = slot.tasks.compactMap { plan.world.tasks[$0.id] }
        guard let task = plan.world.tasks[id], task.desiredState <= .running else { continue }
        if let made = replacement(of: task, slot, &context, &plan, &generator) { slot.tasks.append(made) }
      }
    }
  }

  /// What follows a task that is over or cannot stay, made now.
  private mutating func replacement(
    of task: ClusterTask, _ slot: Slot, _ context: inout Context, _ plan: inout Plan, _ generator: inout some RandomNumberGenerator
  ) -> ClusterTask? {
    if task.status.state.isTerminal { return follow(task, slot, &context, &plan, &generator) }
    // Global tasks follow their nodes: `cover`.
    guard !context.spec.isGlobal, let node = task.node else { return nil }
    if plan.world.nodes[node].map({ $0.status.state == .down }) ?? true {
      emit(.taskDesiredState(task.id, .shutdown), &plan)
      if context.policy?.condition == RestartPolicy.Condition.none || hasOther(task, slot) { return nil }
      // It may itself have waited for one that still runs elsewhere; `release` lets it run at once if not.
      return create(in: slot.key, after: slot.newest, &context, &plan, &generator, waits: true, restartCount: task.restartCount)
    }
    return mustLeave(task, plan.world.nodes[node], context) ? move(task, slot, &context, &plan, &generator) : nil
  }

  /// Two of a kind in one slot: a decision whose fate was unknown came true after all. The one that serves stays, else the oldest.
  private mutating func shed(_ slot: Slot, _ context: Context, _ plan: inout Plan) -> [ClusterTask] {
    let live = slot.live
    guard live.count > 1 else { return live }
    let equal = live.filter { task in
      let node = task.node.flatMap { plan.world.nodes[$0] }
      let isLost = task.node != nil && (node == nil || node?.status.state == .down)
      return !task.status.state.isTerminal && task.revision == context.template && !isLost && !mustLeave(task, node, context)
    }
    guard equal.count > 1, let kept = equal.first(where: \.isServing) ?? equal.first else { return live }
    for task in equal where task.id != kept.id { emit(.taskDesiredState(task.id, .shutdown), &plan) }
    return live.filter { task in task.id == kept.id || !equal.contains { $0.id == task.id } }
  }

  /// A task that is over gets its successor, if the policy has one for it.
  private mutating func follow(
    _ task: ClusterTask, _ slot: Slot, _ context: inout Context, _ plan: inout Plan, _ generator: inout some RandomNumberGenerator
  ) -> ClusterTask? {
    // Made ready ahead of its time and failed at that: the next would be made ready at once too. So the delay in progress is kept
    // (as SwarmKit's restart.go, waitRestart).
    if task.startAfter > context.now, task.revision == context.template {
      context.wake(at: task.startAfter)
      return nil
    }
    let ran = ranFor[task.id]
    emit(.taskDesiredState(task.id, .shutdown), &plan)
    if hasOther(task, slot) {
      // Start-first: the old task still serves. A failed new one is tried again unless the update has stopped for it.
      let hasNew = slot.live.contains { $0.id != task.id && $0.revision == context.template && !$0.status.state.isTerminal }
      if hasNew || task.revision != context.template || context.isUpdatePaused { return nil }
    }
    guard mayRestart(task, context) else { return nil }
    if context.spec.isGlobal, let node = slot.key.node, plan.world.nodes[node]?.status.state != .ready { return nil }
    let attempts = failuresInARow(task, ran: ran, context)
    let startAfter = delay(after: attempts, context).map { context.now + $0 } ?? .zero
    return create(in: slot.key, after: slot.newest, &context, &plan, &generator, waits: true, startAfter: startAfter, restartCount: attempts)
  }

  private func hasOther(_ task: ClusterTask, _ slot: Slot) -> Bool {
    slot.live.contains { $0.id != task.id && !$0.status.state.isTerminal }
  }

  /// SwarmKit's restart.go, shouldRestart; the attempts are counted in the task itself, so that they survive a change of leaders.
  func mayRestart(_ task: ClusterTask, _ context: Context) -> Bool {
    switch context.policy?.condition ?? .any {
    case .none: return false
    case .onFailure: if task.status.state == .complete { return false }
    case .any: break
    }
    guard let most = context.policy?.maxAttempts, most > 0, task.revision == context.template else { return true }
    return UInt64(failuresInARow(task, ran: ranFor[task.id], context)) <= most
  }

  /// This failure and those before it, without a healthy stretch between. With a window that is as long as the window; with
  /// attempts but no window they are counted for ever.
  private func failuresInARow(_ task: ClusterTask, ran: Nanoseconds?, _ context: Context) -> UInt32 {
    guard task.revision == context.template else { return 1 }
    let window = context.policy?.window ?? 0
    let isCountedForEver = (context.policy?.maxAttempts ?? 0) > 0 && window == 0
    // A new leader did not see it start: since it was let start is the best it knows.
    // What its health check ended may never have been well, however long it tried.
    let isUnknown = task.status.containerID == nil || task.status.health != nil
    let time = ran ?? (isUnknown ? 0 : task.status.timestamp - max(task.createdAt, task.startAfter))
    if !isCountedForEver, time >= (window > 0 ? window : Self.healthyAfter) { return 1 }
    return task.restartCount == .max ? .max : task.restartCount + 1
  }

  private func delay(after attempts: UInt32, _ context: Context) -> Nanoseconds? {
    if let declared = context.policy?.delay { return declared > 0 ? declared : nil }
    guard attempts > 1 else { return nil }
    let doubled = Self.backoffStep.rawValue << Int64(min(attempts - 2, 10))
    return min(Nanoseconds(doubled), Self.backoffMax)
  }

  // MARK: - Drain and constraints

  private func mustLeave(_ task: ClusterTask, _ node: Node?, _ context: Context) -> Bool {
    guard let node else { return false }
    if node.spec.availability == .drain { return true }
    // An old revision's constraints are not the node's fault; the update replaces it.
    guard task.revision == context.template, let constraints = context.spec.taskTemplate.placement?.constraints, !constraints.isEmpty else {
      return false
    }
    return !Constraint.all(constraints, admit: node)
  }

  /// With start-first the successor serves before the old one stops, if there is room for it; else it is prepared and waits for its end.
  private mutating func move(
    _ task: ClusterTask, _ slot: Slot, _ context: inout Context, _ plan: inout Plan, _ generator: inout some RandomNumberGenerator
  ) -> ClusterTask? {
    let successor = slot.live.last { other in
      other.id != task.id && !other.status.state.isTerminal && other.createdAt > task.createdAt
    }
    // One that serves where it may stay is there already: a drain that was taken back.
    let stays = slot.live.contains { other in
      let node = other.node.flatMap { plan.world.nodes[$0] }
      return other.id != task.id && other.isServing && other.revision == context.template && node?.status.state == .ready
        && !mustLeave(other, node, context)
    }
    if stays {
      emit(.taskDesiredState(task.id, .shutdown), &plan)
      return nil
    }
    let startsFirst = context.spec.updateConfig?.order == .startFirst && task.isServing
    if let successor {
      let cannotCome = successor.status.state == .pending && !successor.status.error.isEmpty
      if !startsFirst || successor.isServing || cannotCome { emit(.taskDesiredState(task.id, .shutdown), &plan) }
      return nil
    }
    if !startsFirst { emit(.taskDesiredState(task.id, .shutdown), &plan) }
    return create(in: slot.key, after: slot.newest, &context, &plan, &generator, waits: !startsFirst, restartCount: task.restartCount)
  }
}
