import Model

// Dispatcher: the leader's side of the agents' sessions.
//
// A pure core: it knows who is connected and when it was last heard, what every node must know as a function of the replicated
// state, and how to send only the difference. The shell owns the sockets and the timer and proposes what it is told to.
//
// Invariants
// - What a session was sent, put together, is exactly the full set for its node at the last `changes`.
// - An agent's word counts for tasks of its own node only, and only for states that are an agent's to write.
// - A task that serves is told to stop once no agent sends anybody to it any more, an unhealthy one too (`Drain`).
// - An address that became free rests until no agent sends anybody to it any more (`Rest`).
// - A node is said to be down once for each loss, by the leader, and only after its time of grace; not while most are silent (`Doubt`).
//
// It refuses to know what a task is for, where it should run, and how bytes travel.

/// A connection of one agent, numbered by the shell; never used twice while the leader lives.
public struct SessionID: Hashable, Comparable, Sendable, CustomStringConvertible {
  public let rawValue: UInt64
  public init(_ rawValue: UInt64) { self.rawValue = rawValue }
  public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
  public var description: String { "session \(rawValue)" }
}

public enum DispatcherInput: Sendable {
  /// An agent with `node`'s certificate opened a session. `underlay`: where other hosts send VXLAN to.
  case connected(node: NodeID, session: SessionID, description: NodeDescription, underlay: IPv4Address)
  /// Expected every second (`Dispatcher.heartbeatPeriod`).
  case heartbeat(SessionID)
  /// The node says something new of itself.
  case described(SessionID, NodeDescription)
  /// The connection broke or was closed by the agent.
  case disconnected(SessionID)
  /// Applied entries; `state` of the same call is the state right after them.
  case changes([StateChange])
  /// The instant asked for by `wakeAt` has come.
  case tick
  case report(SessionID, [TaskReport])
  /// The agent has another sequence number than a difference builds on.
  case resync(SessionID)
  /// The agent's names and balancing are as its assignments up to this sequence number say.
  case applied(SessionID, UInt64)
}

public enum DispatcherOutput: Hashable, Sendable {
  case send(SessionID, AssignmentsMessage)
  /// Each is a command of its own; batches of task statuses may be merged with others.
  case propose([Action])
  case close(SessionID, reason: String)
  /// Replaces the earlier wish: give `tick` at this instant.
  case wakeAt(Timestamp)
  /// For the log: something an agent may not do.
  case refused(SessionID, reason: String)
  /// For the log.
  case warning(String)
}

public struct Dispatcher: Sendable {
  public static let heartbeatPeriod = Nanoseconds.seconds(1)
  /// Silence after which a node is down, whether its connection broke meanwhile or not.
  public static let heartbeatTimeout = Nanoseconds.seconds(3)
  /// After the loss of the leader, for the node that the lost leader is: its agent lost its session at once, unless it is lost too.
  public static let predecessorGrace = Nanoseconds.milliseconds(2500)
  /// An agent that does not answer holds the end of a task up for so long; one that has not found a new leader yet, for `restTimeout` from its election.
  public static let drainTimeout = Nanoseconds.seconds(2)
  /// After the last agent's word: time for handshakes (TCP) that were begun with the task before. A listener that closes resets them, and its
  /// program cannot see them. Round trips to clients far away take as long; Kubernetes' users put a sleep into preStop for it.
  public static let handshakeTime = Nanoseconds.milliseconds(100)
  /// After a change of leaders: time for every agent to find the new one.
  public static let leadershipGrace = Nanoseconds.seconds(5)
  /// At least, when this manager led the term before as well: an agent that has found no leader for long tries once in a second.
  public static let reelectionGrace = Nanoseconds.seconds(2)

  struct Session: Sendable {
    var node: NodeID
    var underlay: IPv4Address
    var lastHeard: Timestamp
    /// Not heard in time, and held in doubt.
    var isSilent = false
    var sequence: UInt64 = 0
    /// The agent has said that it lives by the assignments up to here.
    var applied: UInt64 = 0
  }

  /// A task that is to stop, while others may still be sent to it. Not replicated: a new leader begins it anew (`inheritDrains`).
  struct Drain: Sendable {
    /// Who could call it.
    var waits: [NodeID: Wait] = [:]
    /// Everybody has said so, or is down.
    var isAcknowledged = false
    /// Then it is told to stop.
    var until: Timestamp
  }

  var view = View()
  var sessions: [SessionID: Session] = [:]
  /// The session that speaks for a node: its latest.
  var current: [NodeID: SessionID] = [:]
  /// Nodes without a session that are down unless they connect until then.
  var awaited: [NodeID: Timestamp] = [:]
  var drains: [TaskID: Drain] = [:]
  var rests: [Rest] = []
  var inheritance = Inheritance()
  /// What may not be given again yet.
  public internal(set) var resting = RestingAddresses()
  var doubt: Doubt?
  /// The tick that was asked for.
  var wake: Timestamp?

  public init() {}

  /// On gaining leadership: no sessions, every node that is said to be ready has `leadershipGrace` to connect (others notice the
  /// loss of a silent leader after 3 s), the leader before only `predecessorGrace`.
  /// - Parameter again: nobody else has led since this dispatcher's last input: who had no session then could not have found another
  ///   manager that leads, and what was left of its time still counts.
  public mutating func reset(state: ClusterState, predecessor: NodeID? = nil, again: Bool = false, now: Timestamp) -> [DispatcherOutput] {
    let before = self
    self = Dispatcher()
    view = View(state)
    for node in state.nodes.values where node.isExpected {
      let until = now + (node.id == predecessor ? Self.predecessorGrace : Self.leadershipGrace)
      awaited[node.id] = again ? min(until, before.deadline(of: node.id).map { max($0, now + Self.reelectionGrace) } ?? until) : until
    }
    inherit(now)
    inheritDrains(now)
    var outputs: [DispatcherOutput] = []
    askForTick(&outputs)
    return outputs
  }

  /// - Parameter state: for `changes` the state right after them; other inputs do not look at it.
  public mutating func step(_ input: DispatcherInput, state: ClusterState, now: Timestamp) -> [DispatcherOutput] {
    var outputs: [DispatcherOutput] = []
    switch input {
    case .connected(let node, let session, let description, let underlay): connect(node, session, description, underlay, now, &outputs)
    case .heartbeat(let id):
      if sessions[id] == nil { outputs.append(.close(id, reason: "unknown session: connect again")) } else { hear(id, now, &outputs) }
    case .described(let id, let description):
      guard let node = sessions[id]?.node, let row = view.state.nodes[node], row.description != description else { break }
      outputs.append(.propose([.nodeDescription(node, description)]))
    case .disconnected(let id): disconnect(id)
    case .changes(let changes):
      closeRemoved(changes, &outputs)
      let leaving = drain(changes, state, now)
      let before = view
      sendDifferences(changes, state, &outputs)
      giveUpLost(changes)
      rest(changes, before: before, now)
      awaitDrain(of: leaving)
      release(now, &outputs)
      contradict(changes, &outputs)
    case .tick:
      wake = nil
      expire(now, &outputs)
      release(now, &outputs)
      endRests(at: now)
    case .report(let id, let reports): accept(reports, from: id, now, &outputs)
    case .resync(let id): sendAll(id, &outputs)
    case .applied(let id, let sequence):
      // More than it was sent is another session's; less than it has said was overtaken on its way.
      guard let session = sessions[id], sequence <= session.sequence, sequence >= session.applied else { break }
      sessions[id]!.applied = sequence
      dropped(id, sequence)
      release(now, &outputs)
    }
    askForTick(&outputs)
    return outputs
  }

  // MARK: - Sessions

  private mutating func connect(
    _ node: NodeID, _ id: SessionID, _ description: NodeDescription, _ underlay: IPv4Address, _ now: Timestamp, _ outputs: inout [DispatcherOutput]
  ) {
    guard let row = view.state.nodes[node] else {
      outputs.append(.close(id, reason: "node \(node) is not a member of this cluster: it was removed, or never joined"))
      return
    }
    if let old = current[node], old != id {
      sessions[old] = nil
      outputs.append(.close(old, reason: "replaced by a newer session of the same node"))
    }
    sessions[id] = Session(node: node, underlay: underlay, lastHeard: now)
    current[node] = id
    awaited[node] = nil
    doubt?.held.remove(node)
    var actions: [Action] = []
    let status = NodeStatus(state: .ready, address: underlay)
    if row.description != description { actions.append(.nodeDescription(node, description)) }
    if row.status != status { actions.append(.nodeStatus(node, status)) }
    if !actions.isEmpty { outputs.append(.propose(actions)) }
    sendAll(id, &outputs)
    if doubt != nil { expire(now, &outputs) }
  }

  private mutating func disconnect(_ id: SessionID) {
    guard let session = sessions.removeValue(forKey: id), current[session.node] == id else { return }
    current[session.node] = nil
    if session.isSilent { return }
    awaited[session.node] = session.lastHeard + Self.heartbeatTimeout
  }

  /// Of a node without session; long ago when it has passed and only the proposal to say so was lost.
  private func deadline(of node: NodeID) -> Timestamp? {
    if let until = awaited[node] { return until }
    return current[node] == nil && view.state.nodes[node]?.isExpected == true ? Timestamp(nanoseconds: 0) : nil
  }

  private mutating func closeRemoved(_ changes: [StateChange], _ outputs: inout [DispatcherOutput]) {
    for case .node(let old?, nil) in changes {
      awaited[old.id] = nil
      guard let id = current.removeValue(forKey: old.id) else { continue }
      sessions[id] = nil
      outputs.append(.close(id, reason: "the node was removed from the cluster"))
    }
  }

  /// A node that came back while its loss was being written down is ready nevertheless.
  private func contradict(_ changes: [StateChange], _ outputs: inout [DispatcherOutput]) {
    for case .node(_, let new?) in changes where new.status.state != .ready {
      guard let session = current[new.id].flatMap({ sessions[$0] }), !session.isSilent, view.state.nodes[new.id]?.status.state == new.status.state
      else { continue }
      outputs.append(.propose([.nodeStatus(new.id, NodeStatus(state: .ready, address: session.underlay))]))
    }
  }

  // MARK: - Time

  mutating func expire(_ now: Timestamp, _ outputs: inout [DispatcherOutput]) {
    var silent: [SessionID] = []
    for (id, session) in sessions where !session.isSilent && session.lastHeard + Self.heartbeatTimeout <= now { silent.append(id) }
    var lost: [NodeID] = []
    for (node, until) in awaited where until <= now { lost.append(node) }
    guard doubt != nil || !silent.isEmpty || !lost.isEmpty else { return }
    if doubts(now, &outputs) { return hold(silent: silent.sorted(), lost: lost.sorted(), &outputs) }
    for id in silent.sorted() {
      close(id, &outputs)
      disconnect(id)
    }
    for (node, until) in awaited.sorted(by: { $0.key < $1.key }) where until <= now {
      awaited[node] = nil
      if let id = current.removeValue(forKey: node) {
        close(id, &outputs)
        sessions[id] = nil
      }
      guard let row = view.state.nodes[node], row.status.state != .down else { continue }
      let status = NodeStatus(state: .down, message: "heartbeat failure", address: row.status.address)
      outputs.append(.propose([.nodeStatus(node, status)]))
    }
  }

  private func close(_ id: SessionID, _ outputs: inout [DispatcherOutput]) {
    outputs.append(.close(id, reason: "no heartbeat for \(Self.heartbeatTimeout.rawValue / 1_000_000_000) s"))
  }

  /// Heartbeats only move deadlines later: the tick comes a little early then and asks again.
  private mutating func askForTick(_ outputs: inout [DispatcherOutput]) {
    let inherited = inheritance.strangers.isEmpty ? nil : inheritance.until
    var earliest = [awaited.values.min(), drains.values.map(\.until).min(), rests.map(\.until).min(), inherited].compactMap { $0 }.min()
    if wake == nil || (earliest.map { $0 < wake! } ?? false) || sessions.count == 1 {
      for session in sessions.values where !session.isSilent {
        earliest = min(earliest ?? .init(nanoseconds: .max), session.lastHeard + Self.heartbeatTimeout)
      }
    }
    guard let earliest, wake.map({ earliest < $0 }) ?? true else { return }
    wake = earliest
    outputs.append(.wakeAt(earliest))
  }

  // MARK: - Reports

  private mutating func accept(_ reports: [TaskReport], from id: SessionID, _ now: Timestamp, _ outputs: inout [DispatcherOutput]) {
    guard let session = sessions[id] else {
      outputs.append(.close(id, reason: "unknown session: connect again"))
      return
    }
    hear(id, now, &outputs)
    var actions: [Action] = []
    for report in reports {
      // Reaped meanwhile: nobody's news any more.
      guard let task = view.state.tasks[report.task] else { continue }
      if task.node != session.node {
        outputs.append(.refused(id, reason: "task \(report.task) is not assigned to node \(session.node)"))
      } else if report.status.state <= .assigned || report.status.state >= .remove {
        outputs.append(.refused(id, reason: "state \(report.status.state) of task \(report.task) is not an agent's to report"))
      } else if report.status != task.status {
        actions.append(.taskStatus(report.task, report.status))
      }
    }
    if !actions.isEmpty { outputs.append(.propose(actions)) }
  }
}
