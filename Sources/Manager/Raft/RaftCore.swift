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
import DequeModule
import Model

/// One member. A value: the same inputs in the same order give the same outputs.
public struct RaftCore: Sendable {
  let config: RaftConfig
  var random: SplitMix64
  /// Since the start of the process.
  var ticks: UInt64 = 0

  public internal(set) var term: Term
  var vote: RaftID?
  public internal(set) var role = Role.follower
  public internal(set) var leader: RaftID?
  public internal(set) var confState: ConfState
  var log: RaftLog
  /// Sorted by id.
  var members: [Progress] = []

  var electionElapsed = 0
  var heartbeatElapsed = 0
  var electionTimeout = 0
  /// When the leader of this term was last heard: until an election timeout later nobody else gets a vote (Raft section 6).
  var leaderHeardAt: UInt64?

  // A leader's own.
  var transferee: RaftID?
  /// A change of the members may be in the log up to here; the next one waits until it is applied.
  var pendingConfigurationIndex: LogIndex = 0
  var uncommittedBytes = 0
  /// The next tick tells of it.
  var isCommitUntold = false
  var reads = PendingReads()

  // What the next `ready` hands out.
  var messages: [Message] = []
  var messagesAfterPersistence: [Message] = []
  var readStates: [ReadState] = []
  var shownSoftState: SoftState
  var shownHardState: HardState
  /// The hard state's term is durable up to here.
  var durableTerm: Term
  var readyNumber: UInt64 = 0
  /// The last slice read for sending: peers in step share it.
  var sliceMemo: (first: LogIndex, last: LogIndex, entries: [Entry])?

  /// Traps when what was stored contradicts itself.
  public init(config: RaftConfig, stored: StoredState, reader: any LogReader) {
    precondition(config.id.rawValue != 0, "a member's id is never 0")
    precondition(config.heartbeatTicks > 0 && config.electionTicks > config.heartbeatTicks, "electionTicks must exceed heartbeatTicks")
    precondition(!config.leaseReads || config.checkQuorum, "leases need checkQuorum")
    self.config = config
    random = SplitMix64(seed: config.seed)
    term = stored.hardState.term
    vote = stored.hardState.vote
    confState = stored.confState
    log = RaftLog(stored: stored, reader: reader, maxCachedBytes: config.maxCachedBytes)
    shownSoftState = SoftState(role: .follower, leader: nil)
    shownHardState = HardState(term: term, vote: vote, commit: log.committed)
    durableTerm = term
    // Before the restart it may have answered a leader that still holds a lease.
    if term > 0 { leaderHeardAt = 0 }
    rebuildMembers()
    randomizeElectionTimeout()
  }

  public var id: RaftID { config.id }
  public var commitIndex: LogIndex { log.committed }
  public var appliedIndex: LogIndex { log.applied }
  public var lastIndex: LogIndex { log.lastIndex }
  public var firstIndex: LogIndex { log.compactedIndex + 1 }
  /// Nil: compacted away or beyond the end. Never reads storage.
  public func term(at index: LogIndex) -> Term? { log.term(at: index) }
  /// What a peer lacks is no longer in memory: `ready` may read storage.
  public var needsStorage: Bool { role == .leader && members.contains { $0.id != id && !log.isCached($0.next) } }
  var hardState: HardState { HardState(term: term, vote: vote, commit: log.committed) }
  var softState: SoftState { SoftState(role: role, leader: leader) }

  public var status: RaftStatus {
    RaftStatus(
      id: id, role: role, leader: leader, term: term, commit: log.committed, applied: log.applied, lastIndex: log.lastIndex,
      confState: confState, transferee: transferee,
      peers: role != .leader
        ? []
        : members.map {
          RaftStatus.Peer(
            id: $0.id, match: $0.match, next: $0.next, replication: $0.replication, pendingSnapshot: $0.pendingSnapshotIndex,
            isRecentlyActive: $0.id == id || $0.isRecentlyActive || $0.wasRecentlyActive, isLearner: !$0.isVoter)
        })
  }

  // MARK: Inputs

  /// Time passes: call it at a steady pace.
  public mutating func tick() {
    ticks += 1
    electionElapsed += 1
    if role == .leader {
      tickLeader()
    } else if electionElapsed >= electionTimeout, isPromotable {
      electionElapsed = 0
      campaign(config.preVote ? .preElection : .election)
    }
  }

  /// Starts an election now (a new cluster's first member need not wait). Nothing happens if it may not be elected, or has a part in a
  /// leader's lease.
  public mutating func campaign() {
    guard role != .leader, isPromotable, !upholdsLease else { return }
    campaign(config.preVote ? .preElection : .election)
  }

  /// One entry each. Throws `notLeader`, `busy`, `transferring`; then nothing was appended.
  public mutating func propose(_ data: [[UInt8]]) throws(RaftError) -> ProposalPosition {
    try append(kind: .command, data)
  }

  /// A message from a peer, which the shell has authenticated as `from`. Throws only `inconsistent`.
  public mutating func step(_ message: Message) throws(RaftError) {
    guard message.to == id, message.from != id else { return }
    if message.term > term {
      guard acceptsNewerTerm(message) else { return }
    } else if message.term < term {
      answerOlderTerm(message)
      return
    }
    switch message.body {
    case .vote(let request): answer(request, from: message.from, term: message.term, isPreVote: false)
    case .preVote(let request): answer(request, from: message.from, term: message.term, isPreVote: true)
    case .voteResponse(let response):
      try learnCommit(response)
      if role == .candidate { count(vote: response == .granted, from: message.from) }
    case .preVoteResponse(let response):
      try learnCommit(response)
      if role == .preCandidate, response != .granted || message.term == term + 1 { count(vote: response == .granted, from: message.from) }
    case .append(let append):
      try follow(message.from)
      try handle(append)
    case .heartbeat(let commit, let round):
      try follow(message.from)
      try handleHeartbeat(commit: commit, round: round)
    case .snapshot(let metadata):
      try follow(message.from)
      handle(metadata)
    case .appended(let index): try handleAppended(from: message.from, upTo: index)
    case .appendRejected(let rejection): handleRejection(rejection, from: message.from)
    case .heartbeatResponse(let round): handleHeartbeatResponse(from: message.from, round: round)
    case .timeoutNow: if role == .follower, isPromotable { campaign(.transfer) }
    case .readIndex(let context): if role == .leader { read(from: message.from, context: context, mode: .quorum) }
    case .readIndexResponse(let index, let context): readStates.append(ReadState(context: context, index: index))
    }
  }

  /// This and every earlier `Ready` is durable.
  public mutating func persisted(_ number: UInt64) {
    while let write = log.finishWrite(upTo: number) {
      durableTerm = max(durableTerm, write.term)
      if role == .candidate, write.term == term, write.votedForItself { count(vote: true, from: id) }
    }
    guard role == .leader, let own = position(of: id), members[own].matched(upTo: log.stable) else { return }
    members[own].next = log.lastIndex + 1
    if advanceCommit() { tellCommit() }
  }

  /// The state machine holds (durably) the effect of every entry up to here.
  public mutating func applied(upTo index: LogIndex) {
    log.apply(upTo: index)
    leaveJointIfDue()
  }

  /// The durable log no longer has entries up to here (never beyond what is applied).
  public mutating func compact(upTo index: LogIndex) { log.compact(upTo: index) }

  /// A message to the peer was lost for sure.
  public mutating func reportUnreachable(_ peer: RaftID) {
    guard role == .leader, let position = position(of: peer), members[position].replication == .replicate else { return }
    members[position].becomeProbe()
  }

  /// How the sending of a `snapshot` message and its bytes ended. Always report: until then the peer gets nothing else.
  public mutating func reportSnapshot(_ peer: RaftID, succeeded: Bool) {
    guard role == .leader, let position = position(of: peer), members[position].replication == .snapshot else { return }
    if !succeeded { members[position].pendingSnapshotIndex = 0 }
    members[position].becomeProbe()
    // Next it hears from the peer (installed, or a heartbeat's answer) it goes on.
    members[position].isPaused = true
  }

  // MARK: Shared

  func position(of id: RaftID) -> Int? { members.firstIndex { $0.id == id } }

  /// Has a vote and a state to stand on.
  var isPromotable: Bool { confState.isVoter(id) && log.pendingSnapshotIndex == nil }

  mutating func randomizeElectionTimeout() {
    electionTimeout = config.electionTicks + Int(random.next() % UInt64(config.electionTicks))
  }

  mutating func send(_ body: Message.Body, to: RaftID, term: Term? = nil) {
    messages.append(Message(from: id, to: to, term: term ?? self.term, body: body))
  }

  mutating func sendAfterPersistence(_ body: Message.Body, to: RaftID, term: Term? = nil) {
    messagesAfterPersistence.append(Message(from: id, to: to, term: term ?? self.term, body: body))
  }

  mutating func reset(term newTerm: Term) {
    if term != newTerm {
      term = newTerm
      vote = nil
    }
    leader = nil
    leaderHeardAt = nil
    electionElapsed = 0
    heartbeatElapsed = 0
    randomizeElectionTimeout()
    transferee = nil
    pendingConfigurationIndex = 0
    uncommittedBytes = 0
    isCommitUntold = false
    reads = PendingReads()
    for position in members.indices {
      members[position].reset(next: log.lastIndex + 1, match: members[position].id == id ? log.stable : 0)
    }
  }

  mutating func becomeFollower(term: Term, leader: RaftID?) {
    reset(term: term)
    self.leader = leader
    role = .follower
  }
}
