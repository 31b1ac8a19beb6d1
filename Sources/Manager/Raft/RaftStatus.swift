import Model

/// For people and metrics; decisions are made from `Ready`.
public struct RaftStatus: Hashable, Sendable {
  public var id: RaftID
  public var role: Role
  public var leader: RaftID?
  public var term: Term
  public var commit: LogIndex
  public var applied: LogIndex
  public var lastIndex: LogIndex
  public var confState: ConfState
  public var transferee: RaftID?
  /// Empty unless it leads.
  public var peers: [Peer]

  public struct Peer: Hashable, Sendable {
    public var id: RaftID
    /// Known to be durable there.
    public var match: LogIndex
    public var next: LogIndex
    public var replication: Replication
    /// Of the snapshot that is being sent to it; 0: none.
    public var pendingSnapshot: LogIndex
    /// Heard from since the last check of the quorum.
    public var isRecentlyActive: Bool
    public var isLearner: Bool
  }
  public enum Replication: Hashable, Sendable {
    /// Looking for the point where the logs agree: one message at a time.
    case probe
    case replicate
    /// Its next entry is compacted away; waits for the shell's report.
    case snapshot
  }
}
