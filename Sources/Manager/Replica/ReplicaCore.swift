// Replica: one member of the Raft group as a value: RaftCore, the replicated state, and what of both is on the disk.
//
// In: requests, messages, ticks, and what became true of earlier output (`written`, `snapshotSent`). Out: one write at a time, messages,
// answers, what the outside may see. While a write is under way the member goes on: what needs the disk meanwhile collects in the next
// write, so one fsync serves everything that waited, and appends leave for the followers beside the leader's own fsync.
//
// Invariants:
// - At most one write is under way, and writes are made in order. A promise (vote, acknowledgement) leaves only when the write it rests
//   upon, and every earlier one, is durable.
// - A proposal is answered when its entry is committed and applied here. Its rows follow with a later write, in the transaction that
//   moves the applied index, when enough of them wait, when they have waited long enough, or when somebody asks (`flush`); a restart
//   applies what they lack again from the durable log. So a change costs one fsync, and a row that changes often is written once.
//   Many rows come in slices, one a write, so that no entry waits for all of them; until the last one the disk can go back (`RowFlush`).
// - After a write that failed nothing is promised any more: the member ends, and another is made from what the disk then really holds.
//
// It refuses to know: threads, clocks, SQLite, sockets, and how a command is encoded (`ReplicaDecoder`).
import Model
import Raft

/// One member. The same inputs in the same order give the same outputs. A copy shares the reader of old entries.
public struct ReplicaCore {
  public let id: RaftID
  let config: ReplicaConfig
  let decoder: ReplicaDecoder
  let reader: ReplicaLogReader
  var core: RaftCore
  public internal(set) var state: ClusterState
  var appliedTerm: UInt64
  var compacted: SnapshotPoint
  public internal(set) var membership: Membership
  /// Members that are not in `membership` yet, by their own word.
  var contacts: [RaftID: RaftPeer] = [:]
  /// More strangers are not remembered.
  static let contactsMax = 16
  /// The term in which this member leads and has applied its own first entry.
  var leadingTerm: UInt64?
  var logSizes: LogSizes

  // The disk.
  var next = NextWrite()
  var underWay: NextWrite?
  var lastWrite: UInt64 = 0
  /// What the rows on the disk are of, but for those of slices that came since.
  var written: ClusterState
  /// Rows that are to come.
  var changed = ChangedRows()
  var isMembershipChanged = false
  /// Slices of it are still to be handed to the disk.
  var flushing: RowFlush?
  /// Ticks that applied entries have waited for their rows.
  var ticksSinceRows = 0
  /// The log may be cut up to this index.
  var forgettable: UInt64 = 0
  /// It is, whoever needs it: it is too large.
  var forgotten: UInt64 = 0
  /// So many entries are forgotten with one write, or twice as many as it brings.
  static let forgottenMin = 500
  /// Rows that may wait this time.
  var rowsBound: Int
  var random: SplitMix64
  var ticksSinceWrite = 0
  /// As last handed to the disk; `commit` may be behind.
  var promised: StoredHardState
  /// Arrived whole, not handed to the disk yet.
  var arrived: IncomingSnapshot?

  // What is owed.
  var waiters: [UInt64: Waiter] = [:]
  var reads: [UInt64: PendingRead] = [:]
  var nextRead: UInt64
  var waitingChanges: [WaitingChange] = []
  /// In the order of their indexes.
  var flushes: [(index: UInt64, request: RequestID)] = []

  var stopping = false
  var wasRemoved = false
  /// Others have said so: they do not need it any more.
  var isTold = false
  /// Ticks since it was removed or last heard of a member that still counts on it.
  var silentTicks = 0
  public private(set) var hasEnded = false
  var outputs: [Output] = []

  /// One change of the members at a time: so many wait for the one before.
  public static let waitingChangesMax = 64

  struct Waiter {
    var term: UInt64
    var request: RequestID
  }
  struct PendingRead {
    var requests: [RequestID]
    var ticksLeft: Int
    /// Set by Raft's answer: to be served once applied.
    var index: UInt64?
  }
  struct WaitingChange {
    var change: ConfigurationChange
    var force: Bool
    var request: RequestID
  }

  /// From what the disk holds. `reader` is asked for entries that are no longer in memory, within `step`.
  public init(config: ReplicaConfig, loaded: LoadedState, reader: any ReplicaLog, decoder: ReplicaDecoder) throws(ConsensusError) {
    guard let id = loaded.raftID else { throw .membership("this manager belongs to no cluster yet") }
    if loaded.membership.members[id]?.isRemoved == true { throw .removed }
    self.id = id
    self.config = config
    self.decoder = decoder
    state = loaded.state
    membership = loaded.membership
    compacted = loaded.compacted
    written = loaded.state
    random = SplitMix64(seed: id.rawValue)
    rowsBound = config.rowsMax
    promised = loaded.hardState
    appliedTerm =
      loaded.state.index == loaded.compacted.index
      ? loaded.compacted.term : loaded.entries[Int(loaded.state.index - loaded.compacted.index) - 1].term
    nextRead = config.raft.seed
    logSizes = LogSizes(after: loaded.compacted.index)
    self.reader = ReplicaLogReader(reader)
    var entries: [Entry] = []
    entries.reserveCapacity(loaded.entries.count)
    for stored in loaded.entries {
      entries.append(try Entry(stored))
      logSizes.append(stored)
    }
    let stored = StoredState(
      hardState: HardState(term: loaded.hardState.term, vote: loaded.hardState.vote, commit: loaded.hardState.committed),
      confState: ConfState(membership), compactedIndex: loaded.compacted.index, compactedTerm: loaded.compacted.term, entries: entries,
      earlierTerms: [], applied: loaded.state.index)
    var raft = config.raft
    raft.id = id
    core = RaftCore(config: raft, stored: stored, reader: self.reader)
    self.reader.metadata = SnapshotMetadata(index: state.index, term: appliedTerm, confState: core.confState)
  }

  /// The first outputs of a life. Alone it need not wait for anybody.
  public mutating func begin() -> [Output] {
    outputs.append(.peersChanged(peers))
    publish(nil, resync: true)
    if membership.ids(.voter) == [id] { core.campaign() }
    return carryOut([])
  }

  public mutating func step(_ input: Input) -> [Output] { step([input]) }

  /// What waited together: its proposals become one append, its reads share one confirmation. After `.ended` there is no more output.
  public mutating func step(_ inputs: [Input]) -> [Output] { hasEnded ? [] : carryOut(inputs) }

  private mutating func carryOut(_ inputs: [Input]) -> [Output] {
    do throws(ConsensusError) {
      try take(inputs)
      try settle()
      startWrite()
      endIfDue()
    } catch { end(error, during: inputs) }
    defer { outputs = [] }
    return outputs
  }

  private mutating func take(_ inputs: [Input]) throws(ConsensusError) {
    var proposals: [(data: [UInt8], request: RequestID)] = []
    var readers: [RequestID] = []
    var ticks = 0
    for input in inputs {
      switch input {
      case .propose(let data, let request): proposals.append((data, request))
      case .read(let request): readers.append(request)
      case .message(let message): try receive(message)
      case .contact(let peer): meet(peer)
      case .snapshot(let snapshot): try receive(snapshot)
      case .changeMembers(let change, let force, let request): changeMembers(change, force: force, request)
      case .transfer(let target, let request): transfer(to: target, request)
      case .status(let request): outputs.append(.answer(request, .status(status)))
      case .flush(let request): flush(request)
      case .unreachable(let peer): core.reportUnreachable(peer)
      case .snapshotSent(let peer, let succeeded): core.reportSnapshot(peer, succeeded: succeeded)
      case .written(let number, let failure): try written(number, failure)
      case .campaign: core.campaign()
      case .tick: ticks += 1
      case .removed: (wasRemoved, isTold) = (true, true)
      case .stop: stopping = true
      }
    }
    if !proposals.isEmpty { propose(proposals) }
    if !readers.isEmpty { read(readers) }
    guard ticks > 0 else { return }
    for _ in 0..<ticks { core.tick() }
    if wasRemoved { silentTicks += ticks }
    ticksSinceRows = writtenIndex < state.index ? ticksSinceRows + ticks : 0
    ticksSinceWrite += ticks
    expireReads(ticks)
    retryChanges()
    promoteLearners()
  }

  // MARK: - The end

  private mutating func endIfDue() {
    if stopping {
      guard underWay == nil, !hasUnwritten else { return }
      return end(.stopped)
    }
    // A leader that was removed leads until another does, and its vote may be needed to elect that one: the rest may not know yet that
    // the change is committed, and a majority of those before may not be left without it (Raft thesis 4.2.2). So it stays for three
    // election timeouts after it last heard of anybody.
    if wasRemoved, core.role != .leader, isTold || silentTicks >= 3 * config.raft.electionTicks { end(.removed) }
  }

  /// Nobody is left waiting. A leader whose disk failed first asks the best of the others to stand for election at once.
  /// `during`: what was being taken in; of that, too, nobody is left waiting.
  private mutating func end(_ reason: ConsensusError, during inputs: [Input] = []) {
    guard !hasEnded else { return }
    hasEnded = true
    if case .storage = reason, core.role == .leader { askHeirToCampaign() }
    let failure = reason
    for waiter in waiters.sorted(by: { $0.key < $1.key }) { outputs.append(.answer(waiter.value.request, .failed(.unknownOutcome))) }
    for read in reads.sorted(by: { $0.key < $1.key }) {
      for request in read.value.requests { outputs.append(.answer(request, .failed(failure))) }
    }
    for waiting in waitingChanges { outputs.append(.answer(waiting.request, .failed(failure))) }
    for flush in flushes { outputs.append(.answer(flush.request, .failed(failure))) }
    (waiters, reads, waitingChanges, flushes) = ([:], [:], [], [])
    var answered = Set(outputs.compactMap { if case .answer(let request, _) = $0 { request } else { nil } })
    for request in inputs.compactMap(\.request) where answered.insert(request).inserted { outputs.append(.answer(request, .failed(failure))) }
    outputs.append(.ended(reason))
  }

  private mutating func askHeirToCampaign() {
    let heirs = core.status.peers.filter { $0.id != id && !$0.isLearner && $0.isRecentlyActive }
    guard let heir = heirs.max(by: { ($0.match, $1.id) < ($1.match, $0.id) }), let peer = peer(heir.id) else { return }
    outputs.append(.send([Message(from: id, to: heir.id, term: core.term, body: .timeoutNow)], to: peer))
  }

  // MARK: - Views

  func peer(_ id: RaftID) -> RaftPeer? {
    guard membership.members[id] != nil else { return contacts[id] }
    return membership.address(of: id).flatMap { $0.isEmpty ? nil : RaftPeer(id: id, address: $0) }
  }

  var peers: [RaftPeer] { Set(membership.members.keys).union(contacts.keys).filter { $0 != id }.sorted().compactMap(peer) }

  /// A leader that was added while this member was behind can bring it what it lacks only if it is answered.
  private mutating func meet(_ peer: RaftPeer) {
    guard membership.members[peer.id] == nil, contacts[peer.id] != peer, contacts[peer.id] != nil || contacts.count < Self.contactsMax else {
      return
    }
    contacts[peer.id] = peer
    outputs.append(.peersChanged(peers))
  }

  public var view: View {
    let leader = core.leader.flatMap(peer)
    let leadership: Leadership = leadingTerm.map { .leader(term: $0) } ?? .follower(leader: core.leader == id ? nil : leader)
    return View(state: state, leadership: leadership, membership: membership, leader: leader)
  }

  /// As Raft has it now.
  public var configuration: ConfState { core.confState }
  public var status: ConsensusStatus { ConsensusStatus(core.status, membership: membership, compacted: compacted.index) }

  /// How much the next step may have to do.
  public enum Load: Sendable { case idle, little, much }

  /// `much` whenever a step might read the disk.
  public var load: Load {
    let owed = waiters.count + reads.count
    guard owed <= 1, next.entries.isEmpty, core.lastIndex - core.appliedIndex <= 64, !core.needsStorage else { return .much }
    return owed == 0 && underWay == nil ? .idle : .little
  }
  public var isWriting: Bool { underWay != nil }
  /// The applied index that is on the disk.
  var writtenIndex: UInt64 { written.index }
  public var isLeader: Bool { core.role == .leader }

  mutating func publish(_ batch: ChangeBatch?, resync: Bool) { outputs.append(.publish(view, batch, resync: resync)) }
}

extension ConfState {
  init(_ membership: Membership) {
    let members = membership.members.values
    let outgoing = members.filter(\.isOutgoingVoter).map(\.raftID)
    self.init(
      voters: membership.ids(.voter), votersOutgoing: outgoing, learners: membership.ids(.learner).filter { !outgoing.contains($0) },
      learnersNext: membership.ids(.learner).filter { outgoing.contains($0) }, autoLeave: membership.autoLeave && !outgoing.isEmpty)
  }
}

extension Entry {
  init(_ entry: StoredEntry) throws(ConsensusError) {
    guard let kind = Kind(rawValue: entry.kind) else { throw .inconsistent("entry \(entry.index) is of kind \(entry.kind)") }
    self.init(term: entry.term, index: entry.index, kind: kind, data: entry.data)
  }
}

extension StoredEntry {
  init(_ entry: Entry) { self.init(index: entry.index, term: entry.term, kind: entry.kind.rawValue, data: entry.data) }
}
