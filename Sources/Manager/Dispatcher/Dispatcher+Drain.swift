import Model

// A task that leaves is first made not ready for everybody; its own node is told to stop it when all who could call it know. The agents
// say so themselves: nothing sleeps.
extension Dispatcher {
  /// Notes the tasks that are to stop with these changes and serve, and forgets those that ended by themselves.
  mutating func drain(_ changes: [StateChange], _ state: ClusterState, _ now: Timestamp) -> [TaskID] {
    var leaving: [TaskID] = []
    for case .task(let old?, let new) in changes {
      if let new, old.isServing, new.isToBeDrained(in: state), !view.draining.contains(new.id) {
        begin(new.id, now)
        leaving.append(new.id)
      } else if view.draining.contains(old.id), new?.isLeaving != true {
        drains[old.id] = nil
        view.draining.remove(old.id)
      }
    }
    return leaving
  }

  /// On gaining leadership: whom the leader before told is not known. Whoever comes is told that these tasks are not ready, and theirs to stop when all
  /// have said so; who does not come is down when the time is over.
  mutating func inheritDrains(_ now: Timestamp) {
    let leaving = view.state.tasks.values.filter { $0.isToBeDrained(in: view.state) }.map(\.id)
    for id in leaving { begin(id, now) }
    awaitDrain(of: leaving)
  }

  private mutating func begin(_ id: TaskID, _ now: Timestamp) {
    drains[id] = Drain(until: now + Self.drainTimeout)
    view.draining.insert(id)
  }

  /// Who was just told of what may call them: everyone on their networks. Who has no session is told when it comes back, and may call them until then.
  mutating func awaitDrain(of leaving: [TaskID]) {
    for id in leaving {
      guard let task = view.state.tasks[id], var drain = drains[id] else { continue }
      drain.waits = lagging(Set(task.attachments.flatMap { view.members[$0.network] ?? [] }))
      // Who has not found this leader yet may need so long.
      if drain.waits.keys.contains(where: { inheritance.strangers[$0] != nil }) { drain.until = max(drain.until, inheritance.until) }
      drains[id] = drain
    }
  }

  /// Tells the nodes of tasks that nobody is sent to any more, or whose time is over: then who may still send to them is said.
  mutating func release(_ now: Timestamp, _ outputs: inout [DispatcherOutput]) {
    guard !drains.isEmpty else { return }
    var updates: [NodeID: [AssignmentItem]] = [:]
    for (id, var drain) in drains.sorted(by: { $0.key < $1.key }) {
      if !drain.isAcknowledged, drain.waits.isEmpty {
        drain.isAcknowledged = true
        drain.until = min(drain.until, now + Self.handshakeTime)
        drains[id] = drain
      }
      guard drain.until <= now else { continue }
      if !drain.isAcknowledged { outputs.append(.warning(late(id, drain))) }
      drains[id] = nil
      view.draining.remove(id)
      guard let node = view.state.tasks[id]?.node, let item = view.item(.task(id), for: node) else { continue }
      updates[node, default: []].append(item)
    }
    for (node, items) in updates.sorted(by: { $0.key < $1.key }) {
      guard let id = current[node], let sequence = sessions[id]?.sequence else { continue }
      sessions[id]!.sequence = sequence + 1
      outputs.append(
        .send(id, AssignmentsMessage(complete: false, appliesTo: sequence, resultsIn: sequence + 1, updates: items, removals: [])))
    }
  }

  private func late(_ id: TaskID, _ drain: Drain) -> String {
    let silent = drain.waits.keys.map { view.state.nodes[$0]?.hostname ?? "\($0)" }.sorted()
    return
      "task \(id) is told to stop in the end, though \(silent.joined(separator: ", ")) did not say that nobody is sent to it any more"
  }
}

extension ClusterTask {
  /// Runs, and is to stop: since it is wanted no more, or is unhealthy.
  var isLeaving: Bool { status.state == .running && (desiredState > .running || status.health?.status == .unhealthy) }
  /// Others may call it, and its host is there to stop it.
  fileprivate func isToBeDrained(in state: ClusterState) -> Bool {
    isLeaving && !attachments.isEmpty && node.map { state.nodes[$0]?.isExpected == true } == true
  }
}
