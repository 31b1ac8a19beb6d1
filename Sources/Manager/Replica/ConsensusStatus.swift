import Model
import Raft

/// One member's view of the group, for `orch managers`.
public struct ConsensusStatus: Sendable {
  public var id: RaftID
  public var role: Role
  public var leader: RaftID?
  public var term: UInt64
  public var commit: UInt64
  public var applied: UInt64
  public var lastIndex: UInt64
  /// The log begins after this index.
  public var compacted: UInt64
  /// Set while this member's disk takes no writes; the rest is as it was when that began.
  public var diskFailure: StoreError?
  /// Ascending by id; removed ones too.
  public var members: [Member]

  public struct Member: Sendable {
    public var member: Membership.Member
    /// Known to be durable there; nil unless this member leads, or for itself.
    public var match: UInt64?
    /// Heard from lately; nil unless this member leads.
    public var isReachable: Bool?
  }

  init(_ status: RaftStatus, membership: Membership, compacted: UInt64) {
    id = status.id
    role = status.role
    leader = status.leader
    term = status.term
    commit = status.commit
    applied = status.applied
    lastIndex = status.lastIndex
    self.compacted = compacted
    members = membership.members.values.sorted { $0.raftID < $1.raftID }.map { member in
      let peer = status.peers.first { $0.id == member.raftID }
      return Member(member: member, match: peer?.match, isReachable: peer?.isRecentlyActive)
    }
  }
}
