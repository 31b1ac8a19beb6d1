import Model

public struct RaftConfig: Hashable, Sendable {
  public var id: RaftID
  /// A follower that hears nothing for `electionTicks` to 2 * `electionTicks` - 1 ticks starts an election. More than `heartbeatTicks`.
  public var electionTicks: Int
  public var heartbeatTicks: Int
  /// Asks for votes before it raises its term: a member that was cut off does not unseat the leader when it returns.
  public var preVote: Bool
  /// A leader that has not heard from a quorum for an election timeout steps down; voters shield a leader they hear. Leases need it.
  public var checkQuorum: Bool
  /// Answers `ReadMode.lease` from the leader's lease, without a round of heartbeats. Needs `checkQuorum`, on every member. Safe only while
  /// a tick lasts equally long everywhere, within one tick in an election timeout, and while no member's ticks stand still: a process or
  /// machine that was paused must be given the ticks it missed before it is asked anything. Off: such reads are confirmed like the others.
  public var leaseReads: Bool
  /// That the commit index rose is told with the next entries, else at the next tick (Raft section 5.3), not by messages of its own at
  /// once: a lone client's changes then cost half as many messages, and others apply them up to a tick later.
  public var tellsCommitsLate: Bool
  /// Of one append message; one entry always fits.
  public var maxMessageBytes: Int
  /// Append messages on their way to one peer.
  public var maxInflightMessages: Int
  public var maxInflightBytes: Int
  /// Of proposals not committed yet; the first always fits.
  public var maxUncommittedBytes: Int
  /// Of committed entries in one `Ready`; one entry always fits.
  public var maxCommittedBytes: Int
  /// Of entries kept in memory beyond those not yet durable or applied; older ones come from the `LogReader`.
  public var maxCachedBytes: Int
  /// Reads that wait for their confirmation; more are dropped, as a lost message is.
  public var maxPendingReads: Int
  /// For the randomized election timeouts. Differs between members.
  public var seed: UInt64

  public init(
    id: RaftID, electionTicks: Int = 10, heartbeatTicks: Int = 1, preVote: Bool = true, checkQuorum: Bool = true, leaseReads: Bool = false,
    tellsCommitsLate: Bool = false, maxMessageBytes: Int = 1 << 20, maxInflightMessages: Int = 256, maxInflightBytes: Int = 16 << 20,
    maxUncommittedBytes: Int = 64 << 20,
    maxCommittedBytes: Int = 4 << 20,
    maxCachedBytes: Int = 16 << 20, maxPendingReads: Int = 4096, seed: UInt64
  ) {
    self.id = id
    self.electionTicks = electionTicks
    self.heartbeatTicks = heartbeatTicks
    self.preVote = preVote
    self.checkQuorum = checkQuorum
    self.leaseReads = leaseReads
    self.tellsCommitsLate = tellsCommitsLate
    self.maxMessageBytes = maxMessageBytes
    self.maxInflightMessages = maxInflightMessages
    self.maxInflightBytes = maxInflightBytes
    self.maxUncommittedBytes = maxUncommittedBytes
    self.maxCommittedBytes = maxCommittedBytes
    self.maxCachedBytes = maxCachedBytes
    self.maxPendingReads = maxPendingReads
    self.seed = seed
  }
}

/// What a restart finds on disk. All empty: a new member that waits to be added (or `confState` names it: a new cluster).
public struct StoredState: Sendable {
  public var hardState: HardState
  /// As of `applied`.
  public var confState: ConfState
  /// The last entry no longer in the log, and its term; 0: the log is whole.
  public var compactedIndex: LogIndex
  public var compactedTerm: Term
  /// The log's tail, without gaps, as much as shall be in memory (at least what is not applied). Empty: the log is empty.
  public var entries: [Entry]
  /// Terms of the entries between `compactedIndex` and the first of `entries`; empty when nothing lies between.
  public var earlierTerms: [TermStart]
  /// The last entry whose effect the state machine holds.
  public var applied: LogIndex

  public init(
    hardState: HardState = HardState(), confState: ConfState = ConfState(), compactedIndex: LogIndex = 0, compactedTerm: Term = 0,
    entries: [Entry] = [], earlierTerms: [TermStart] = [], applied: LogIndex = 0
  ) {
    self.hardState = hardState
    self.confState = confState
    self.compactedIndex = compactedIndex
    self.compactedTerm = compactedTerm
    self.entries = entries
    self.earlierTerms = earlierTerms
    self.applied = applied
  }
}
