// Raft: the decisions of one member of the consensus group, and nothing else.
//
// In: `tick`, `step`, `propose`, `readIndex`, `transferLeadership`, and what became true of earlier output: `persisted`, `applied`.
// Out: `ready`, a value that says what to write, send and apply (the contract of etcd-io/raft's Ready with asynchronous storage writes).
//
// Invariants: at most one leader in a term; logs that agree at an index and term agree before it; what was committed is in every later
// leader's log; a promise (vote, acknowledgement) leaves only after what it rests upon is durable; a leader counts itself only once its own
// write is durable, though its messages leave before.
//
// It refuses to know: clocks, sockets, disks, threads, addresses, what a command means, how a snapshot's bytes travel.
import Model

/// One member. A value: the same inputs in the same order give the same outputs.
public struct RaftCore: Sendable {
  public init(config: RaftConfig, stored: StoredState, reader: any LogReader) { fatalError("soon") }
  public var id: RaftID { fatalError("soon") }
  public var status: RaftStatus { fatalError("soon") }
  public var role: Role { fatalError("soon") }
  public var leader: RaftID? { fatalError("soon") }
  public var term: Term { fatalError("soon") }
  public var commitIndex: LogIndex { fatalError("soon") }
  public var appliedIndex: LogIndex { fatalError("soon") }
  public var lastIndex: LogIndex { fatalError("soon") }
  public var confState: ConfState { fatalError("soon") }
  /// Time passes: call it at a steady pace.
  public mutating func tick() { fatalError("soon") }
  /// A message came from a peer. Throws only `inconsistent`.
  public mutating func step(_ message: Message) throws(RaftError) { fatalError("soon") }
  /// Starts an election now (a new cluster's first member need not wait).
  public mutating func campaign() { fatalError("soon") }
  /// One entry each. Throws `notLeader`, `busy`, `transferring`; then nothing was appended.
  public mutating func propose(_ data: [[UInt8]]) throws(RaftError) -> ProposalPosition { fatalError("soon") }
  public mutating func proposeConfigurationChange(_ change: ConfigurationChange) throws(RaftError) -> ProposalPosition { fatalError("soon") }
  /// Called for every committed `configuration` entry when it is applied; save the answer with the applied index.
  @discardableResult
  public mutating func applyConfigurationChange(_ change: ConfigurationChange) throws(RaftError) -> ConfState { fatalError("soon") }
  /// The answer comes as a `ReadState` with this context, or never (leader lost): ask again after a timeout. Throws `notLeader(nil)`.
  public mutating func readIndex(context: UInt64, mode: ReadMode = .quorum) throws(RaftError) { fatalError("soon") }
  /// Throws `notLeader`, `notVoter`. Given up after an election timeout.
  public mutating func transferLeadership(to target: RaftID) throws(RaftError) { fatalError("soon") }
  public var hasReady: Bool { fatalError("soon") }
  public mutating func ready() -> Ready { fatalError("soon") }
  /// This and every earlier `Ready` is durable.
  public mutating func persisted(_ number: UInt64) { fatalError("soon") }
  /// The state machine has applied (durably) every entry up to here.
  public mutating func applied(upTo index: LogIndex) { fatalError("soon") }
  /// The durable log no longer has entries up to here (never beyond what is applied).
  public mutating func compact(upTo index: LogIndex) { fatalError("soon") }
  /// A message to the peer was lost for sure.
  public mutating func reportUnreachable(_ peer: RaftID) { fatalError("soon") }
  /// How the sending of a `snapshot` message and its bytes ended. Always report: until then the peer gets nothing else.
  public mutating func reportSnapshot(_ peer: RaftID, succeeded: Bool) { fatalError("soon") }
}
