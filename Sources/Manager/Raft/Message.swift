import Model

/// What one member says to another. May be lost, doubled, delayed and reordered.
public struct Message: Hashable, Sendable {
  public var from: RaftID
  public var to: RaftID
  /// The sender's; of a pre-vote and a granted answer to it: the term that the sender would begin.
  public var term: Term
  public var body: Body

  public init(from: RaftID, to: RaftID, term: Term, body: Body) {
    self.from = from
    self.to = to
    self.term = term
    self.body = body
  }

  public enum Body: Hashable, Sendable {
    /// Would you vote for me? Changes nobody's term (Raft thesis 9.6).
    case preVote(VoteRequest)
    case preVoteResponse(VoteResponse)
    case vote(VoteRequest)
    case voteResponse(VoteResponse)
    case append(Append)
    /// The sender's durable log agrees with the leader's up to here.
    case appended(upTo: LogIndex)
    case appendRejected(AppendRejection)
    /// `commit` never beyond what the receiver is known to have. `round` is echoed: it confirms reads and the lease.
    case heartbeat(commit: LogIndex, round: UInt64)
    case heartbeatResponse(round: UInt64)
    /// Stepped into the receiver once its shell has all the bytes. The shell may send a newer snapshot and say so here.
    case snapshot(SnapshotMetadata)
    /// Start an election at once: leadership is handed over (Raft thesis 3.10).
    case timeoutNow
    /// A follower asks the leader for a read index.
    case readIndex(context: UInt64)
    case readIndexResponse(index: LogIndex, context: UInt64)
  }

  public struct VoteRequest: Hashable, Sendable {
    public var lastIndex: LogIndex
    public var lastTerm: Term
    /// The leader asked for this election: voters do not shield it.
    public var isTransfer: Bool
    public init(lastIndex: LogIndex, lastTerm: Term, isTransfer: Bool) {
      self.lastIndex = lastIndex
      self.lastTerm = lastTerm
      self.isTransfer = isTransfer
    }
  }

  public enum VoteResponse: Hashable, Sendable {
    case granted
    /// With the last entry that the sender knows to be committed. A candidate that has this entry too learns that it is: its members may
    /// have changed there, and the vote it waits for may not be needed any more (tikv/raft-rs, `maybe_commit_by_vote`).
    case refused(commit: LogIndex, commitTerm: Term)
  }

  /// Entries that follow `previousIndex`, without gaps; none: a probe or news of `commit`.
  public struct Append: Hashable, Sendable {
    public var previousIndex: LogIndex
    public var previousTerm: Term
    public var commit: LogIndex
    public var entries: [Entry]
    public init(previousIndex: LogIndex, previousTerm: Term, commit: LogIndex, entries: [Entry]) {
      self.previousIndex = previousIndex
      self.previousTerm = previousTerm
      self.commit = commit
      self.entries = entries
    }
  }

  public struct AppendRejection: Hashable, Sendable {
    /// The refused message's `previousIndex`.
    public var index: LogIndex
    /// The last index at which the sender's log may agree, and its term there.
    public var hintIndex: LogIndex
    public var hintTerm: Term
    public init(index: LogIndex, hintIndex: LogIndex, hintTerm: Term) {
      self.index = index
      self.hintIndex = hintIndex
      self.hintTerm = hintTerm
    }
  }
}
