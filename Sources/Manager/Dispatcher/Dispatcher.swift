import Model

// Dispatcher: the leader's side of the agents' sessions.
//
// A pure core: it knows who is connected and when it was last heard, what every node must know as a function of the replicated
// state, and how to send only the difference. The shell owns the sockets and the timer and proposes what it is told to.
//
// Invariants
// - What a session was sent, put together, is exactly the full set for its node at the last `changes`.
// - An agent's word counts for tasks of its own node only, and only for states that are an agent's to write.
// - A node is said to be down once for each loss, by the leader, and only after its time of grace.
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
  /// The connection broke or was closed by the agent.
  case disconnected(SessionID)
  /// Applied entries; `state` of the same call is the state right after them.
  case changes([StateChange])
  /// The instant asked for by `wakeAt` has come.
  case tick
  case report(SessionID, [TaskReport])
  /// The agent has another sequence number than a difference builds on.
  case resync(SessionID)
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
}

public struct Dispatcher: Sendable {
  public static let heartbeatPeriod = Nanoseconds.seconds(1)
  /// Silence after which a connected node is down.
  public static let heartbeatTimeout = Nanoseconds.seconds(3)
  /// After a broken connection: time to come back before the node is down.
  public static let reconnectGrace = Nanoseconds.seconds(2)
  /// After a change of leaders: time for every agent to find the new one.
  public static let leadershipGrace = Nanoseconds.seconds(5)

  public init() {}

  /// On gaining leadership: no sessions, every node that is said to be ready has `leadershipGrace` to connect.
  public mutating func reset(state: ClusterState, now: Timestamp) -> [DispatcherOutput] {
    []
  }

  public mutating func step(_ input: DispatcherInput, state: ClusterState, now: Timestamp) -> [DispatcherOutput] {
    []
  }
}
