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

  public init() {}

  /// Forgets everything and takes `state` as it is; the next `step` looks at every service. O(state).
  public mutating func reset(_ state: ClusterState) {
  }

  /// - Parameters:
  ///   - state: the state after `changes`.
  ///   - changes: all since the previous call, in order, including those that this reconciler's decision made.
  public mutating func step(
    state: ClusterState, changes: [StateChange], now: Timestamp, generator: inout some RandomNumberGenerator
  ) -> Decision {
    Decision()
  }
}
