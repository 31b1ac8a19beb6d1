import Model

/// What was applied since the last one: one or several entries.
public struct ChangeBatch: Sendable {
  /// Of the last entry.
  public var index: UInt64
  public var changes: [StateChange]
  /// After that entry.
  public var state: ClusterState
  public init(index: UInt64, changes: [StateChange], state: ClusterState) {
    self.index = index
    self.changes = changes
    self.state = state
  }
}

/// Who leads, as far as this member knows.
public enum Leadership: Hashable, Sendable {
  /// This member leads, and its state holds everything committed before its term: decisions may be made from it.
  case leader(term: UInt64)
  case follower(leader: RaftPeer?)
  public var isLeader: Bool { if case .leader = self { true } else { false } }
}
