import Model

// A task that leaves is first made not ready for everybody; its own node is told to stop it when all who could call it know. The agents
// say so themselves: nothing sleeps.
extension Dispatcher {
  /// Notes the tasks that are to stop with these changes and serve, and forgets those that ended by themselves.
  mutating func drain(_ changes: [StateChange], _ now: Timestamp) -> [TaskID] {
    var leaving: [TaskID] = []
    for case .node(let old, let new) in changes where new.map({ !$0.isExpected }) ?? true { giveUpDrains(by: (new ?? old)!.id) }
    for case .task(let old?, let new) in changes {
      if let new, old.isServing, new.status.state == .running, new.desiredState > .running, !new.attachments.isEmpty, !view.draining.contains(new.id),
        let node = new.node, view.state.nodes[node]?.isExpected == true
      {
        drain(new, on: node, until: current[node] == nil ? nil : now + Self.drainTimeout)
        leaving.append(new.id)
      } else if view.draining.contains(old.id), new.map({ $0.status.state.isTerminal || $0.desiredState <= .running }) ?? true {
        drains[old.id] = nil
        view.draining.remove(old.id)
      }
    }
    return leaving
  }

  /// Who was just told of what may call them: everyone on their networks.
  mutating func awaitDrain(of leaving: [TaskID]) {
    for id in leaving {
      guard let task = view.state.tasks[id] else { continue }
      for attachment in task.attachments {
        for node in view.members[attachment.network] ?? [] {
          guard let id = current[node], let session = sessions[id], session.applied < session.sequence else { continue }
          drains[task.id]?.waits[id] = session.sequence
        }
      }
    }
  }

  /// On gaining leadership: the leader before may have told nobody. Whoever comes is told that these tasks are not ready, and theirs to stop when all
  /// have said so; their time begins when their own node comes.
  mutating func inheritDrains() {
    strangers = Set(view.state.nodes.values.lazy.filter(\.isExpected).map(\.id))
    for task in view.state.tasks.values where task.status.state == .running && task.desiredState > .running && !task.attachments.isEmpty {
      guard let node = task.node, strangers.contains(node) else { continue }
      drain(task, on: node, until: nil)
    }
  }

  private mutating func drain(_ task: ClusterTask, on node: NodeID, until: Timestamp?) {
    var waited: Set<NodeID> = current[node] == nil ? [node] : []
    if !strangers.isEmpty {
      for attachment in task.attachments { waited.formUnion((view.members[attachment.network] ?? []).filter(strangers.contains)) }
    }
    drains[task.id] = Drain(strangers: waited, until: until)
    view.draining.insert(task.id)
  }

  /// A node was told everything.
  mutating func awaitDrains(by id: SessionID, _ now: Timestamp) {
    guard let session = sessions[id] else { return }
    strangers.remove(session.node)
    for (task, drain) in drains where drain.strangers.contains(session.node) {
      drains[task]!.strangers.remove(session.node)
      drains[task]!.waits[id] = session.sequence
      if drain.until == nil, view.state.tasks[task]?.node == session.node { drains[task]!.until = now + Self.drainTimeout }
    }
  }

  /// The node is lost.
  private mutating func giveUpDrains(by node: NodeID) {
    strangers.remove(node)
    for (task, drain) in drains where drain.strangers.contains(node) {
      drains[task]!.strangers.remove(node)
      guard drain.until == nil, view.state.tasks[task]?.node == node else { continue }
      drains[task] = nil
      view.draining.remove(task)
    }
  }

  /// Tells the nodes of tasks that nobody is sent to any more, or whose time is over: then who may still send to them is said.
  mutating func release(_ now: Timestamp, _ outputs: inout [DispatcherOutput]) {
    guard !drains.isEmpty else { return }
    var updates: [NodeID: [AssignmentItem]] = [:]
    for (id, var drain) in drains.sorted(by: { $0.key < $1.key }) {
      if !drain.isAcknowledged, drain.strangers.isEmpty, drain.waits.keys.allSatisfy({ sessions[$0] == nil }) {
        drain.isAcknowledged = true
        drain.until = min(drain.until ?? now + Self.handshakeTime, now + Self.handshakeTime)
        drains[id] = drain
      }
      guard let until = drain.until, until <= now else { continue }
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
    let silent = (drain.waits.keys.compactMap { sessions[$0]?.node } + drain.strangers).map { view.state.nodes[$0]?.hostname ?? "\($0)" }.sorted()
    return
      "task \(id) is told to stop after \(Self.drainTimeout.rawValue / 1_000_000_000) s, though \(silent.joined(separator: ", ")) did not say that nobody is sent to it any more"
  }
}
