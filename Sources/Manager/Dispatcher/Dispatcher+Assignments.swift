import Model

extension Dispatcher {
  /// The whole set for a session's node.
  mutating func sendAll(_ id: SessionID, _ outputs: inout [DispatcherOutput]) {
    guard var session = sessions[id] else { return }
    session.sequence += 1
    sessions[id] = session
    outputs.append(
      .send(
        id,
        AssignmentsMessage(
          complete: true, appliesTo: 0, resultsIn: session.sequence, updates: view.items(for: session.node), removals: [])))
  }

  /// Only what differs between the view before and after, for every connected node that it concerns.
  mutating func sendDifferences(_ changes: [StateChange], _ state: ClusterState, _ outputs: inout [DispatcherOutput]) {
    let before = view
    view.advance(to: state, changes)
    let known = current
    var touched = Touched(connected: { known[$0] != nil })
    touched.collect(changes, before)
    touched.collect(changes, view)
    touched.collectMoves(changes, from: before, to: view)
    // The same for every node that knows it: made once.
    var shared: [AssignmentItem.Key: (old: AssignmentItem?, new: AssignmentItem?)] = [:]
    for (node, keys) in touched.keys.sorted(by: { $0.key < $1.key }) {
      guard let id = current[node] else { continue }
      var updates: [AssignmentItem] = []
      var removals: [AssignmentItem.Key] = []
      for key in keys.sorted() {
        let (old, new) = pair(key, node, before, &shared)
        if old == new { continue }
        if let new { updates.append(new) } else { removals.append(key) }
      }
      if updates.isEmpty && removals.isEmpty { continue }
      let sequence = sessions[id]!.sequence
      sessions[id]!.sequence = sequence + 1
      outputs.append(
        .send(
          id, AssignmentsMessage(complete: false, appliesTo: sequence, resultsIn: sequence + 1, updates: updates, removals: removals)))
    }
  }

  private func pair(
    _ key: AssignmentItem.Key, _ node: NodeID, _ before: View, _ shared: inout [AssignmentItem.Key: (old: AssignmentItem?, new: AssignmentItem?)]
  ) -> (AssignmentItem?, AssignmentItem?) {
    guard case .endpoint(let task, let network) = key else { return (before.item(key, for: node), view.item(key, for: node)) }
    let made = shared[key] ?? (before.endpoint(task, network).map(AssignmentItem.endpoint), view.endpoint(task, network).map(AssignmentItem.endpoint))
    shared[key] = made
    return (
      before.members[network]?.contains(node) == true ? made.old : nil,
      view.members[network]?.contains(node) == true ? made.new : nil
    )
  }
}
