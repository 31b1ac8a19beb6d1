import Model

/// What the disk holds: all that a manager knows when it starts.
public struct LoadedState: Sendable {
  /// nil: a new database.
  public var raftID: RaftID?
  public var hardState: StoredHardState
  public var membership: Membership
  /// The log begins after this entry; index 0: from the very first.
  public var compacted: SnapshotPoint
  /// Ascending, without gaps, from `compacted.index + 1`.
  public var entries: [StoredEntry]
  /// At the applied index.
  public var state: ClusterState

  public init(
    raftID: RaftID?, hardState: StoredHardState = StoredHardState(), membership: Membership = Membership(),
    compacted: SnapshotPoint = SnapshotPoint(index: 0, term: 0), entries: [StoredEntry] = [], state: ClusterState = ClusterState()
  ) {
    self.raftID = raftID
    self.hardState = hardState
    self.membership = membership
    self.compacted = compacted
    self.entries = entries
    self.state = state
  }
}

/// A log entry as stored. The store does not ask what `kind` and `data` mean.
public struct StoredEntry: Hashable, Sendable {
  public var index: UInt64
  public var term: UInt64
  public var kind: UInt8
  public var data: [UInt8]
  public init(index: UInt64, term: UInt64, kind: UInt8, data: [UInt8]) {
    self.index = index
    self.term = term
    self.kind = kind
    self.data = data
  }
}

/// Raft's HardState. `vote` nil: none in this term.
public struct StoredHardState: Hashable, Sendable {
  public var term: UInt64
  public var vote: RaftID?
  public var committed: UInt64
  public init(term: UInt64 = 0, vote: RaftID? = nil, committed: UInt64 = 0) {
    self.term = term
    self.vote = vote
    self.committed = committed
  }
}

/// What a snapshot stands for: the state after the entry at `index`.
public struct SnapshotPoint: Hashable, Comparable, Sendable {
  public var index: UInt64
  public var term: UInt64
  public init(index: UInt64, term: UInt64) {
    self.index = index
    self.term = term
  }
  public static func < (a: Self, b: Self) -> Bool { a.index < b.index }
}
