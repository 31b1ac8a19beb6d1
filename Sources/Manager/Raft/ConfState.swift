import Model

/// Who takes part. `votersOutgoing` is not empty exactly in a joint configuration (Raft section 6), where both halves must agree.
/// Every list is sorted and without doubles.
public struct ConfState: Hashable, Sendable {
  public var voters: [RaftID]
  public var votersOutgoing: [RaftID]
  /// Receive the log, have no vote.
  public var learners: [RaftID]
  /// Voters of the outgoing half that become learners when the joint configuration is left.
  public var learnersNext: [RaftID]
  /// The leader leaves the joint configuration by itself.
  public var autoLeave: Bool

  public init(
    voters: [RaftID] = [], votersOutgoing: [RaftID] = [], learners: [RaftID] = [], learnersNext: [RaftID] = [], autoLeave: Bool = false
  ) {
    self.voters = voters.sorted()
    self.votersOutgoing = votersOutgoing.sorted()
    self.learners = learners.sorted()
    self.learnersNext = learnersNext.sorted()
    self.autoLeave = autoLeave
  }

  public var isJoint: Bool { !votersOutgoing.isEmpty }
  public func isVoter(_ id: RaftID) -> Bool { voters.contains(id) || votersOutgoing.contains(id) }
  public func isMember(_ id: RaftID) -> Bool { isVoter(id) || learners.contains(id) || learnersNext.contains(id) }

  /// Everyone, sorted.
  public var members: [RaftID] {
    var all: [RaftID] = []
    for id in voters + votersOutgoing + learners + learnersNext where !all.contains(id) { all.append(id) }
    return all.sorted()
  }
}
