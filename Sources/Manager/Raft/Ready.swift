import Model

/// What the shell has to do now. Order: install `snapshot`, then write `entries` and `hardState` (one transaction, fsync when `mustSync`);
/// `messages` leave at once, beside the write; `messagesAfterPersistence` once this and every earlier `Ready` is durable;
/// `committedEntries` are applied in order. Then say `persisted(number)` and `applied(upTo:)`, each when it is true.
public struct Ready: Sendable {
  /// Rises by one with each `Ready`. Writes are made durable in this order.
  public var number: UInt64
  /// Set when it changed.
  public var softState: SoftState?
  /// Set when it changed. Where `commit` alone did, it may be written later: with the next entry of kind `configuration` at the latest.
  public var hardState: HardState?
  /// To append. Whatever is stored at or after the first one's index is deleted first.
  public var entries: [Entry]
  /// To install in place of the whole state and log; it is durable and applied when `persisted` says so.
  public var snapshot: SnapshotMetadata?
  public var messages: [Message]
  public var messagesAfterPersistence: [Message]
  /// Durable here and on a quorum.
  public var committedEntries: [Entry]
  /// Reads that may be served once the state machine has applied their index.
  public var readStates: [ReadState]
  /// False: nothing is promised upon this write; it may wait for the next and be reported as persisted at once.
  public var mustSync: Bool

  public var needsPersistence: Bool { hardState != nil || !entries.isEmpty || snapshot != nil }
}

/// The answer to `readIndex`.
public struct ReadState: Hashable, Sendable {
  public var context: UInt64
  public var index: LogIndex
  public init(context: UInt64, index: LogIndex) {
    self.context = context
    self.index = index
  }
}

public enum ReadMode: Hashable, Sendable {
  /// A quorum confirms the leader after the read was asked for (Raft section 8): safe under any clock.
  case quorum
  /// Answered at once while the leader's lease lasts, else as `quorum`. Only where `RaftConfig.leaseReads` is on; it says what this trusts.
  case lease
}

/// Where a proposal stands in the log. It is certain once the entry applied at that index has this term; another term there: it was lost.
public struct ProposalPosition: Hashable, Sendable {
  public var term: Term
  public var first: LogIndex
  public var last: LogIndex
}
