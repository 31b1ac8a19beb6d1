import Model

/// A log entry as stored. What `kind` and `data` mean is Consensus's business.
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

  var checksum: UInt32 {
    var crc = CRC32C()
    crc.add(index)
    crc.add(term)
    crc.add(UInt64(kind))
    crc.add(data)
    return crc.value
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

/// Who is in the Raft group, with the addresses that the configuration-change entries brought.
public struct Membership: Hashable, Sendable {
  public enum Role: String, Hashable, Sendable {
    case voter, learner
    /// What a joiner knows before it has the state: somebody to answer.
    case contact
    /// Kept so that its id is never used again and its messages are refused.
    case removed
  }
  public struct Member: Hashable, Sendable {
    public var raftID: RaftID
    public var node: NodeID?
    /// "HOST:PORT" of its daemon port.
    public var address: String
    public var role: Role
    public init(raftID: RaftID, node: NodeID?, address: String, role: Role) {
      self.raftID = raftID
      self.node = node
      self.address = address
      self.role = role
    }
  }
  public var members: [RaftID: Member] = [:]
  public init() {}
  public init(_ members: some Sequence<Member>) { for member in members { self.members[member.raftID] = member } }

  /// Ascending.
  public func ids(_ role: Role) -> [RaftID] { members.values.filter { $0.role == role }.map(\.raftID).sorted() }
  public func address(of id: RaftID) -> String? { members[id].flatMap { $0.role == .removed ? nil : $0.address } }
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

  /// The rows that `changes` name are written as they are in `state`; `state.index` becomes the applied index.
  public struct Applied: Sendable {
    public var changes: [StateChange]
    public var state: ClusterState
    public init(changes: [StateChange], state: ClusterState) {
      self.changes = changes
      self.state = state
    }
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

/// What `Store.load` found: all that a manager knows when it starts.
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
}
