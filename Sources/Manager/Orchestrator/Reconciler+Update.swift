import Model

/// What this leader saw of an update. A new leader begins with nothing: it waits delay and monitor anew, and counts failures by the rows.
struct UpdateProgress: Sendable {
  var template: UInt64
  var startedAt: Timestamp
  /// When a new task was first seen running.
  var runningSince: [TaskID: Timestamp] = [:]
  var failed: Set<Slot.Key> = []
}

// Rolling update, after SwarmKit's manager/orchestrator/update/updater.go: no worker sleeps, every look decides from the rows.
extension Reconciler {
  static let monitorDefault = Nanoseconds.seconds(5)

  mutating func update(_ context: inout Context, _ plan: inout Plan, _ generator: inout some RandomNumberGenerator) {
    let slots = slots(context, plan).values
      .filter { (isFilled($0, context, plan) || isOutdated($0, context)) && isWithinReach($0, plan) }.sorted { $0.key < $1.key }
    let retired = retireOld(slots, context, &plan)
    if context.isUpdatePaused { return }
    let outdated = slots.filter { isOutdated($0, context) && !retired.contains($0.key) }
    let isUnderWay = context.service.updateStatus?.state == .updating || context.service.updateStatus?.state == .rollbackStarted
    if !isUnderWay {
      guard !outdated.isEmpty else { return }
      setStatus(.updating, "update in progress", &context, &plan)
    }
    guard let status = context.service.updateStatus else { return }
    var progress = updates[context.service.id] ?? UpdateProgress(template: context.template, startedAt: status.startedAt)
    if progress.template != context.template || progress.startedAt != status.startedAt {
      progress = UpdateProgress(template: context.template, startedAt: status.startedAt)
    }
    defer { updates[context.service.id] = progress }
    let config = context.updateConfig
    let look = observe(slots, &progress, &context)
    if let failed = look.failed, Double(progress.failed.count) / Double(max(1, slots.count)) > config.maxFailureRatio ?? 0,
      giveUp(because: failed, config, &context, &plan)
    {
      return
    }

    let parallelism = config.parallelism ?? 1
    var free = parallelism == 0 ? Int.max : Int(clamping: parallelism) - look.busy
    // Those that do not run lose nothing: first.
    let next = outdated.filter { slot in !slot.live.contains { $0.revision == context.template } && !progress.failed.contains(slot.key) }
    for slot in next.filter({ !$0.isServing }) + next.filter(\.isServing) {
      if free <= 0 || plan.isFull { break }
      free -= 1
      replace(slot, &context, &plan, &generator)
    }
    if outdated.isEmpty, look.busy == 0, !look.isWatching {
      let isRollback = status.state == .rollbackStarted
      setStatus(isRollback ? .rollbackCompleted : .completed, isRollback ? "rollback completed" : "update completed", &context, &plan)
      progress.runningSince = [:]
    }
  }

  /// On a node that is down, drained or paused a global task is not replaced: that waits until the node takes tasks again (as SwarmKit's
  /// global orchestrator).
  private func isWithinReach(_ slot: Slot, _ plan: Plan) -> Bool {
    guard let id = slot.key.node else { return true }
    return plan.world.nodes[id].map { $0.status.state == .ready && $0.spec.availability == .active } ?? false
  }

  /// A live task of another template, or a done slot whose last task was.
  private func isOutdated(_ slot: Slot, _ context: Context) -> Bool {
    let live = slot.live
    if live.isEmpty { return slot.newest.desiredState != .remove && slot.newest.revision != context.template }
    return live.contains { $0.revision != context.template }
  }

  /// Start-first: the new one serves, the old one goes. Also a new task that a rollback made an old one. Of two old ones that serve, since an
  /// update came to its end before their turn, the newer stays.
  private mutating func retireOld(_ slots: [Slot], _ context: Context, _ plan: inout Plan) -> Set<Slot.Key> {
    var retired: Set<Slot.Key> = []
    for slot in slots where slot.live.count > 1 {
      if slot.live.contains(where: { $0.revision == context.template && $0.isServing }) {
        for task in slot.live where task.revision != context.template {
          emit(.taskDesiredState(task.id, .shutdown), &plan)
          retired.insert(slot.key)
        }
      } else {
        for task in slot.live.filter(\.isServing).dropLast() { emit(.taskDesiredState(task.id, .shutdown), &plan) }
      }
    }
    return retired
  }

  /// How far the new tasks are.
  private func observe(
    _ slots: [Slot], _ progress: inout UpdateProgress, _ context: inout Context
  ) -> (busy: Int, isWatching: Bool, failed: ClusterTask?) {
    let config = context.updateConfig
    let monitor = config.monitor ?? Self.monitorDefault
    var busy = 0
    var isWatching = false
    var failed: ClusterTask?
    for slot in slots {
      for task in slot.tasks where task.revision == context.template && task.createdAt >= progress.startedAt {
        if task.status.state == .failed || task.status.state == .rejected
          || (task.status.state == .complete && (context.policy?.condition ?? .any) == .any)
        {
          let since = progress.runningSince[task.id]
          if since.map({ context.now - $0 <= monitor }) ?? true, progress.failed.insert(slot.key).inserted { failed = task }
          // Judged once.
          progress.runningSince[task.id] = since ?? .zero
        }
      }
      guard let task = slot.live.last(where: { $0.revision == context.template }), task.createdAt >= progress.startedAt else { continue }
      guard task.status.state == .running else {
        if !task.status.state.isTerminal, !progress.failed.contains(slot.key) { busy += 1 }
        continue
      }
      let since = progress.runningSince[task.id] ?? context.now
      progress.runningSince[task.id] = since
      if let delay = config.delay, since + delay > context.now {
        busy += 1
        context.wake(at: since + delay)
      }
      if since + monitor > context.now {
        isWatching = true
        context.wake(at: since + monitor)
      }
    }
    return (busy, isWatching, failed)
  }

  /// Whether the update ends here.
  private mutating func giveUp(because task: ClusterTask, _ config: UpdateConfig, _ context: inout Context, _ plan: inout Plan) -> Bool {
    let isRollback = context.isRollback
    switch config.failureAction ?? .pause {
    case .continue: return false
    case .rollback where !isRollback && context.service.previous != nil:
      var service = plan.world.services[context.service.id] ?? context.service
      plan.conditions.append(.serviceVersion(service.id, service.version))
      let previous = service.previous!
      // What failed is no state to go back to: `orch rollback` must not bring it again.
      service.previous = nil
      service.current = previous
      service.updatedAt = context.now
      service.updateStatus = Service.UpdateStatus(
        state: .rollbackStarted, startedAt: context.now,
        message: "update rolled back due to failure or early termination of task \(task.id)")
      emit(.putService(service), &plan)
      context.service = service
      context.again = true
    case .pause, .rollback:
      let verb = isRollback ? "rollback" : "update"
      setStatus(
        isRollback ? .rollbackPaused : .paused, "\(verb) paused due to failure or early termination of task \(task.id)", &context, &plan)
    }
    return true
  }

  private mutating func replace(_ slot: Slot, _ context: inout Context, _ plan: inout Plan, _ generator: inout some RandomNumberGenerator) {
    let old = slot.live
    let startsFirst = context.startsFirst && slot.isServing
    // Start-first keeps one that serves, not what an earlier update had begun.
    let kept = startsFirst ? old.last(where: \.isServing)?.id : nil
    for task in old where task.id != kept { emit(.taskDesiredState(task.id, .shutdown), &plan) }
    create(in: slot.key, after: slot.newest, &context, &plan, &generator, waits: !startsFirst && slot.isBusy)
  }

  private mutating func setStatus(_ state: Service.UpdateStatus.State, _ message: String, _ context: inout Context, _ plan: inout Plan) {
    let isEnd = state == .completed || state == .rollbackCompleted
    let startedAt = state == .updating ? context.now : context.service.updateStatus?.startedAt ?? context.now
    let status = Service.UpdateStatus(state: state, startedAt: startedAt, completedAt: isEnd ? context.now : nil, message: message)
    emit(.serviceUpdateStatus(context.service.id, status), &plan)
    context.service.updateStatus = status
  }
}

extension Slot {
  var isServing: Bool { tasks.contains { $0.isServing } }
}
