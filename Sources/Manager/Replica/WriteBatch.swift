import Model

/// Everything that must reach the disk together: one transaction, one fsync. Order within it: snapshot, hard state, entries,
/// applied changes, membership, compaction.
public struct WriteBatch: Sendable {
  /// This manager's own id in the Raft group; set once, when the database is made.
  public var raftID: RaftID?
  public var hardState: StoredHardState?
  /// Ascending without gaps; whatever the log held at the first one's index and above is dropped.
  public var entries: [StoredEntry] = []
  public var applied: Applied?
  /// As of `applied` (or `snapshot`).
  public var membership: Membership?
  /// Replaces state, log and membership. `membership` must come with it, and `applied` must not.
  public var snapshot: Snapshot?
  /// Forget entries up to and including this one, whose index must not be over the applied index.
  public var compact: SnapshotPoint?

  /// The named rows are written as they are in `state`; `state.index` becomes the applied index, unless more slices follow.
  public struct Applied: Sendable {
    /// Each once in all slices of a flush.
    public var rows: [RowKey]
    public var state: ClusterState
    /// Set in all slices but the last: the state that all rows were of before the first one, and that the applied index stays at. A start
    /// finds the rows as they are in it, until the last slice is there.
    public var before: ClusterState?
    public init(rows: [RowKey], state: ClusterState, before: ClusterState? = nil) {
      self.rows = rows
      self.state = state
      self.before = before
    }
    public init(changes: [StateChange], state: ClusterState) { self.init(rows: ChangedRows(changes).keys, state: state) }
  }

  public struct Snapshot: Sendable {
    public var point: SnapshotPoint
    public var state: ClusterState
    public init(point: SnapshotPoint, state: ClusterState) {
      precondition(point.index == state.index)
      self.point = point
      self.state = state
    }
  }

  public init() {}

  public var isEmpty: Bool {
    raftID == nil && hardState == nil && entries.isEmpty && applied == nil && membership == nil && snapshot == nil && compact == nil
  }
}
