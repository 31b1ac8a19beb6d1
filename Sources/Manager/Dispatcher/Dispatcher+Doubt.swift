import Model

// When most nodes fall silent at the same time, it is likelier that this manager does not hear than that all of them are lost: a switch
// that restarts, a machine that was paused, managers that came back from a power cut before the agents did. To replace the tasks then
// would pile everything on the few that are left, and start twice what still runs. So nobody is declared down while fewer than a third of
// the nodes are heard, for a minute at most. Their state is unknown meanwhile; they get no new tasks, and traffic to them goes on.
//
// A third: with three hosts the loss of one or two is an ordinary loss, with two hosts the loss of one. After Kubernetes' node lifecycle
// controller, which evicts nobody while a whole zone is not ready and slows down from 55 % on (--unhealthy-zone-threshold).
extension Dispatcher {
  /// How long the nodes are given at most. Longer than a switch or a virtual machine takes to come back.
  public static let doubtMax = Nanoseconds.seconds(60)
  /// Fewer than one of so many nodes heard: doubt.
  static let doubtShare = 3
  /// When it is over, those that are still missing have so long to connect.
  static let doubtGrace = reelectionGrace

  struct Doubt: Sendable {
    var since: Timestamp
    /// Nodes that are said to be unknown.
    var held: Set<NodeID> = []
  }

  /// Whether the silence is put down to this manager. Tells of it when that changes.
  mutating func doubts(_ now: Timestamp, _ outputs: inout [DispatcherOutput]) -> Bool {
    let expected = view.state.nodes.values.count(where: \.isExpected)
    // Heard lately enough that it was not cut off together with those whose time is over now.
    let late = Nanoseconds(Self.heartbeatTimeout.rawValue - Self.heartbeatPeriod.rawValue)
    let heard = current.values.count { id in sessions[id].map { !$0.isSilent && $0.lastHeard + late > now } ?? false }
    if heard * Self.doubtShare < expected {
      if doubt == nil {
        doubt = Doubt(since: now)
        outputs.append(
          .warning("\(heard) of \(expected) nodes are heard: this manager may be cut off; tasks are left alone for up to \(Self.doubtMax.seconds) s"))
      }
      return now < doubt!.since + Self.doubtMax
    }
    guard doubt != nil else { return false }
    doubt = nil
    for (node, until) in awaited { awaited[node] = min(until, now + Self.doubtGrace) }
    outputs.append(.warning("\(heard) of \(expected) nodes are heard now"))
    return false
  }

  /// Instead of declaring them down.
  mutating func hold(silent: [SessionID], lost: [NodeID], _ outputs: inout [DispatcherOutput]) {
    guard let until = doubt.map({ $0.since + Self.doubtMax }) else { return }
    // The connection may be well: then its next heartbeat says so.
    for id in silent { sessions[id]!.isSilent = true }
    for node in lost + silent.map({ sessions[$0]!.node }) {
      awaited[node] = until
      guard let row = view.state.nodes[node], row.status.state == .ready, doubt!.held.insert(node).inserted else { continue }
      let message = "not heard, as most nodes: its tasks are left alone for up to \(Self.doubtMax.seconds) s"
      outputs.append(.propose([.nodeStatus(node, NodeStatus(state: .unknown, message: message, address: row.status.address))]))
    }
  }

  /// An agent was heard on the session that it had.
  mutating func hear(_ id: SessionID, _ now: Timestamp, _ outputs: inout [DispatcherOutput]) {
    guard var session = sessions[id] else { return }
    let wasSilent = session.isSilent
    session.lastHeard = now
    session.isSilent = false
    sessions[id] = session
    if wasSilent, current[session.node] == id {
      awaited[session.node] = nil
      doubt?.held.remove(session.node)
      outputs.append(.propose([.nodeStatus(session.node, NodeStatus(state: .ready, address: session.underlay))]))
    }
    if doubt != nil { expire(now, &outputs) }
  }
}

extension Node {
  /// Should have a session: it had one, and nobody has said that it is down.
  var isExpected: Bool { status.state == .ready || status.state == .unknown && description != nil }
}

extension Nanoseconds {
  fileprivate var seconds: Int64 { rawValue / 1_000_000_000 }
}
