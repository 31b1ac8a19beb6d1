import Logging
import Model
import Raft
import Store
import Wire

/// One member without thread or clock: RaftCore, Store and the replicated state, driven by `process`. Confined to whoever drives it
/// (Consensus's thread, a simulator). Order of effects, as Raft's Ready demands:
/// messages that promise nothing leave, then one write (entries, hard state, and the rows of what was applied before, in one
/// transaction), then the messages that rest upon it, then committed entries are applied, published and answered.
///
/// Applied rows may reach the disk with the next write or the next tick: what they stand for is in the durable log, and a restart
/// applies it again from the applied index that is in their own transaction. So a lone change costs one fsync, not two.
final class Replica {
  typealias Reply<Value> = @Sendable (Result<Value, ConsensusError>) -> Void

  enum Input: Sendable {
    case message(Message)
    case snapshot(IncomingSnapshot)
    case propose([UInt8], Reply<Applied>)
    case changeMembers(ConfigurationChange, force: Bool, Reply<Applied>)
    case read(Reply<ClusterState>)
    case unreachable(RaftID)
    case snapshotSent(RaftID, succeeded: Bool)
    case transfer(RaftID, Reply<Void>)
    case campaign
    /// Others say so; the entry itself may never reach a removed member.
    case removed
    case status(Reply<ConsensusStatus>)
    case stop
  }

  /// An entry of ours, applied.
  struct Applied: Sendable {
    var index: UInt64
    var changes: [StateChange]
  }

  /// What the outside sees; the thread publishes it after each step.
  struct View: Sendable {
    var state: ClusterState
    var leadership: Leadership
    var membership: Membership
    /// Of whichever member it believes leads, itself included.
    var leader: RaftPeer?
  }

  private struct Waiter {
    var term: UInt64
    var reply: Reply<Applied>
  }
  private struct PendingRead {
    var replies: [Reply<ClusterState>]
    var ticksLeft: Int
    /// Set by Raft's answer: to be served once applied.
    var index: UInt64?
  }

  let id: RaftID
  private let configuration: ConsensusConfiguration
  private let transport: any RaftTransport
  private let store: Store
  private let log: Logger
  private let reader: StoreReader
  private var core: RaftCore
  private var state: ClusterState
  private var appliedTerm: UInt64
  private var compacted: SnapshotPoint
  private(set) var membership: Membership
  /// The term in which this member leads and has applied its own first entry.
  private var leadingTerm: UInt64?
  private var removed = false

  // Waits for the next write.
  private var unwrittenChanges: [StateChange] = []
  private var unwrittenHardState: StoredHardState?
  private var unwrittenMembership = false
  private var writtenIndex: UInt64

  private var waiters: [UInt64: Waiter] = [:]
  private var reads: [UInt64: PendingRead] = [:]
  private var nextRead: UInt64
  private var arrived: IncomingSnapshot?
  /// One change of the members at a time: these wait for the one before.
  private var waitingChanges: [(change: ConfigurationChange, force: Bool, reply: Reply<Applied>)] = []
  static let waitingChangesMax = 64
  private let publish: (View, ChangeBatch?, _ resync: Bool) -> Void

  /// `publish` is told after every step that changed anything, before the answers of that step are given.
  init(
    configuration: ConsensusConfiguration, store: Store, transport: any RaftTransport, log: Logger,
    publish: @escaping (View, ChangeBatch?, _ resync: Bool) -> Void
  ) throws(ConsensusError) {
    self.configuration = configuration
    self.store = store
    self.transport = transport
    self.publish = publish
    let loaded: LoadedState
    do throws(StoreError) { loaded = try store.load() } catch { throw .storage(error) }
    guard let id = loaded.raftID else { throw .membership("database \(configuration.path): this manager belongs to no cluster yet") }
    self.id = id
    var log = log
    log[metadataKey: "raft"] = "\(id)"
    self.log = log
    state = loaded.state
    membership = loaded.membership
    compacted = loaded.compacted
    writtenIndex = loaded.state.index
    appliedTerm =
      loaded.state.index == loaded.compacted.index
      ? loaded.compacted.term : loaded.entries[Int(loaded.state.index - loaded.compacted.index) - 1].term
    nextRead = configuration.seed
    reader = StoreReader(store)
    var entries: [Entry] = []
    for entry in loaded.entries { entries.append(try Self.entry(entry)) }
    let stored = StoredState(
      hardState: HardState(term: loaded.hardState.term, vote: loaded.hardState.vote, commit: loaded.hardState.committed),
      confState: ConfState(membership), compactedIndex: loaded.compacted.index, compactedTerm: loaded.compacted.term, entries: entries,
      earlierTerms: [], applied: loaded.state.index)
    core = RaftCore(
      config: RaftConfig(
        id: id, electionTicks: configuration.electionTicks, heartbeatTicks: configuration.heartbeatTicks, seed: configuration.seed),
      stored: stored, reader: reader)
    reader.metadata = SnapshotMetadata(index: state.index, term: appliedTerm, confState: core.confState)
    if membership.members[id]?.role == .removed { throw .removed }
    transport.peersChanged(peers)
    publish(view, nil, true)
  }

  // MARK: - Driving

  /// Everything that waited, then the time that passed, then all that follows from it. Throws when this member cannot go on.
  /// Returns false when asked to stop.
  func process(_ inputs: [Input], ticks: Int) throws(ConsensusError) -> Bool {
    var proposals: [([UInt8], Reply<Applied>)] = []
    var replies: [Reply<ClusterState>] = []
    var running = true
    for input in inputs {
      switch input {
      case .propose(let data, let reply): proposals.append((data, reply))
      case .read(let reply): replies.append(reply)
      case .message(let message): try receive(message)
      case .snapshot(let snapshot): try receive(snapshot)
      case .changeMembers(let change, let force, let reply): changeMembers(change, force: force, reply)
      case .unreachable(let peer): core.reportUnreachable(peer)
      case .snapshotSent(let peer, let succeeded): core.reportSnapshot(peer, succeeded: succeeded)
      case .transfer(let target, let reply): transfer(to: target, reply)
      case .removed: removed = true
      case .campaign: core.campaign()
      case .status(let reply): reply(.success(status))
      case .stop: running = false
      }
    }
    if !proposals.isEmpty { propose(proposals) }
    if !replies.isEmpty { read(replies) }
    for _ in 0..<ticks { core.tick() }
    if ticks > 0 {
      expireReads(ticks)
      retryChanges()
      promoteLearners()
    }
    try settle()
    if (ticks > 0 || !running) && hasUnwritten { try write(WriteBatch()) }
    return running && !removed
  }

  /// Every answer that is still owed.
  func fail(with error: ConsensusError) {
    for waiter in waiters.values { waiter.reply(.failure(.unknownOutcome)) }
    for read in reads.values { for reply in read.replies { reply(.failure(error)) } }
    for waiting in waitingChanges { waiting.reply(.failure(error)) }
    (waiters, reads, waitingChanges) = ([:], [:], [])
  }

  var wasRemoved: Bool { removed }

  // MARK: - Inputs

  private func receive(_ message: Message) throws(ConsensusError) {
    guard message.to == id, membership.members[message.from]?.role != .removed else { return }
    do throws(RaftError) { try core.step(message) } catch { throw .inconsistent("\(error)") }
  }

  private func receive(_ snapshot: IncomingSnapshot) throws(ConsensusError) {
    guard case .snapshot = snapshot.message.body, snapshot.message.to == id else { return }
    arrived = snapshot
    try receive(snapshot.message)
    // Raft may find it old; if not, it comes back with the next Ready.
    try settle()
    arrived = nil
  }

  private func propose(_ proposals: [([UInt8], Reply<Applied>)]) {
    do throws(RaftError) {
      let position = try core.propose(proposals.map(\.0))
      for (offset, (_, reply)) in proposals.enumerated() {
        waiters[position.first + UInt64(offset)] = Waiter(term: position.term, reply: reply)
      }
    } catch {
      let failure = failure(error)
      for (_, reply) in proposals { reply(.failure(failure)) }
    }
  }

  private func changeMembers(_ change: ConfigurationChange, force: Bool, _ reply: @escaping Reply<Applied>) {
    if let objection = objection(to: change, force: force) { return reply(.failure(.membership(objection))) }
    do throws(RaftError) {
      let position = try core.proposeConfigurationChange(change)
      waiters[position.first] = Waiter(term: position.term, reply: reply)
    } catch {
      if case .configurationPending = error, waitingChanges.count < Self.waitingChangesMax {
        waitingChanges.append((change, force, reply))
      } else {
        reply(.failure(failure(error)))
      }
    }
  }

  private func retryChanges() {
    let waiting = waitingChanges
    waitingChanges = []
    for (change, force, reply) in waiting { changeMembers(change, force: force, reply) }
  }

  /// Why the members should not be changed like this.
  private func objection(to change: ConfigurationChange, force: Bool) -> String? {
    guard core.role == .leader else { return nil }
    for change in change.changes {
      switch change {
      case .addVoter(let id), .addLearner(let id):
        if membership.members[id]?.role == .removed { return "manager \(id) was removed and its id cannot come back; join with an empty folder" }
      case .remove(let id):
        guard let member = membership.members[id], member.role != .removed else { return "manager \(id) is not a member" }
        guard member.role == .voter else { continue }
        let rest = membership.ids(.voter).filter { $0 != id }
        if rest.isEmpty { return "manager \(id) is the last one; a cluster needs a manager" }
        // The leader is one of the peers of its own status, and always active there.
        let active = core.status.peers.count { rest.contains($0.id) && $0.isRecentlyActive }
        if !force && active < rest.count / 2 + 1 {
          return "without manager \(id) only \(active) of \(rest.count) managers would be reachable, too few for a majority; start another first"
        }
      }
    }
    return nil
  }

  private func transfer(to target: RaftID, _ reply: Reply<Void>) {
    do throws(RaftError) {
      try core.transferLeadership(to: target)
      reply(.success(()))
    } catch { reply(.failure(failure(error))) }
  }

  /// All that ask in one step share one confirmation.
  private func read(_ replies: [Reply<ClusterState>]) {
    nextRead &+= 1
    do throws(RaftError) {
      try core.readIndex(context: nextRead)
      reads[nextRead] = PendingRead(replies: replies, ticksLeft: max(1, Int(configuration.readTimeout / configuration.tick)), index: nil)
    } catch {
      let failure = failure(error)
      for reply in replies { reply(.failure(failure)) }
    }
  }

  private func expireReads(_ ticks: Int) {
    for context in reads.keys {
      reads[context]!.ticksLeft -= ticks
      guard reads[context]!.ticksLeft <= 0, let read = reads.removeValue(forKey: context) else { continue }
      for reply in read.replies { reply(.failure(.unavailable)) }
    }
  }

  /// A learner exists only to become a voter once it has (nearly) everything; whoever leads sees to it.
  private func promoteLearners() {
    guard leadingTerm != nil, !core.confState.learners.isEmpty else { return }
    let ready = core.status.peers.first {
      $0.isLearner && $0.isRecentlyActive && $0.replication == .replicate && $0.match + 100 >= core.commitIndex
    }
    guard let ready else { return }
    // Another change may be pending: the next tick tries again.
    _ = try? core.proposeConfigurationChange(ConfigurationChange([.addVoter(ready.id)]))
  }

  private func failure(_ error: RaftError) -> ConsensusError {
    switch error {
    case .notLeader: .notLeader(leader: leader)
    case .busy, .transferring, .configurationPending: .busy("\(error)")
    case .invalidConfiguration, .notVoter: .membership("\(error)")
    case .inconsistent(let reason): .inconsistent(reason)
    }
  }

  // MARK: - Ready

  private func settle() throws(ConsensusError) {
    while core.hasReady {
      let ready = core.ready()
      if let failure = reader.failure { throw .storage(failure) }
      try carryOut(ready)
    }
  }

  private func carryOut(_ ready: Ready) throws(ConsensusError) {
    if let soft = ready.softState { roleChanged(soft) }
    send(ready.messages)
    try persist(ready)
    send(ready.messagesAfterPersistence)
    if !ready.committedEntries.isEmpty { try apply(ready.committedEntries) }
    for read in ready.readStates { reads[read.context]?.index = read.index }
    serveReads()
  }

  private func roleChanged(_ soft: SoftState) {
    if soft.role != .leader { leadingTerm = nil }
    log.info("role changed", metadata: ["role": "\(soft.role)", "leader": "\(soft.leader.map { "\($0)" } ?? "none")", "term": "\(core.term)"])
    publish(view, nil, false)
    guard soft.role != .leader else { return }
    // Their entries may still be committed by the next leader.
    let lost = waiters.values
    waiters = [:]
    for waiter in lost { waiter.reply(.failure(.unknownOutcome)) }
    retryChanges()
  }

  private func send(_ messages: [Message]) {
    var byPeer: [RaftID: [Message]] = [:]
    for message in messages {
      guard let peer = peer(message.to) else {
        // Its address comes with an entry or a snapshot that is still under way.
        if case .snapshot = message.body { core.reportSnapshot(message.to, succeeded: false) }
        continue
      }
      if case .snapshot = message.body { sendSnapshot(message, to: peer) } else { byPeer[message.to, default: []].append(message) }
    }
    for (id, messages) in byPeer { if let peer = peer(id) { transport.send(messages, to: peer) } }
  }

  /// Always of the state as it is now, which may be newer than what Raft asked for.
  private func sendSnapshot(_ message: Message, to peer: RaftPeer) {
    var message = message
    message.body = .snapshot(SnapshotMetadata(index: state.index, term: appliedTerm, confState: core.confState))
    log.info("sending a snapshot", metadata: ["to": "\(peer.id) at \(peer.address)", "index": "\(state.index)", "objects": "\(state.objectCount)"])
    transport.send(OutgoingSnapshot(message: message, membership: membership, state: state), to: peer, completion: snapshotSent(peer.id))
  }

  /// Set by Consensus: brings the end of a sending back to this member's thread.
  var snapshotSent: (RaftID) -> @Sendable (Bool) -> Void = { _ in { _ in } }

  private func persist(_ ready: Ready) throws(ConsensusError) {
    if let hardState = ready.hardState {
      unwrittenHardState = StoredHardState(term: hardState.term, vote: hardState.vote, committed: hardState.commit)
    }
    if let metadata = ready.snapshot {
      try install(metadata, entries: ready.entries)
    } else if !ready.entries.isEmpty || (ready.mustSync && ready.needsPersistence) {
      var batch = WriteBatch()
      batch.entries = ready.entries.map { StoredEntry(index: $0.index, term: $0.term, kind: $0.kind.rawValue, data: $0.data) }
      try write(batch)
    }
    core.persisted(ready.number)
  }

  private func install(_ metadata: SnapshotMetadata, entries: [Entry]) throws(ConsensusError) {
    guard let snapshot = arrived, case .snapshot(metadata) = snapshot.message.body else {
      throw .inconsistent("a snapshot at \(metadata.index) is to be installed that did not arrive")
    }
    log.notice("installing a snapshot", metadata: ["index": "\(metadata.index)", "objects": "\(snapshot.state.objectCount)"])
    let point = SnapshotPoint(index: metadata.index, term: metadata.term)
    var batch = WriteBatch()
    batch.snapshot = .init(point: point, state: snapshot.state)
    batch.entries = entries.map { StoredEntry(index: $0.index, term: $0.term, kind: $0.kind.rawValue, data: $0.data) }
    unwrittenChanges = []
    state = snapshot.state
    writtenIndex = state.index
    membership = snapshot.membership
    unwrittenMembership = true
    try write(batch)
    appliedTerm = metadata.term
    compacted = point
    reader.metadata = SnapshotMetadata(index: state.index, term: appliedTerm, confState: metadata.confState)
    transport.peersChanged(peers)
    publish(view, nil, true)
  }

  private var hasUnwritten: Bool { unwrittenHardState != nil || unwrittenMembership || writtenIndex < state.index }

  /// Adds what waits to the batch; one fsync.
  private func write(_ batch: WriteBatch) throws(ConsensusError) {
    var batch = batch
    batch.hardState = unwrittenHardState
    if batch.snapshot == nil, writtenIndex < state.index { batch.applied = .init(changes: unwrittenChanges, state: state) }
    if unwrittenMembership { batch.membership = membership }
    do throws(StoreError) {
      if batch.snapshot == nil { batch.compact = try compaction() }
      try store.write(batch)
    } catch { throw .storage(error) }
    unwrittenHardState = nil
    unwrittenMembership = false
    unwrittenChanges = []
    writtenIndex = state.index
    if let point = batch.compact {
      compacted = point
      core.compact(upTo: point.index)
      log.debug("log compacted", metadata: ["to": "\(point.index)"])
    }
  }

  private func compaction() throws(StoreError) -> SnapshotPoint? {
    guard state.index - compacted.index >= configuration.snapshotEvery + configuration.keptEntries else { return nil }
    let index = state.index - configuration.keptEntries
    return try store.entries(first: index, last: index, maxBytes: 1).first.map { SnapshotPoint(index: index, term: $0.term) }
  }

  // MARK: - Applying

  private func apply(_ entries: [Entry]) throws(ConsensusError) {
    var changes: [StateChange] = []
    var answers: [() -> Void] = []
    var began = false
    for entry in entries {
      let result = try apply(entry)
      appliedTerm = entry.term
      if case .success(let made) = result { changes += made }
      if entry.kind == .empty, core.role == .leader, entry.term == core.term {
        leadingTerm = entry.term
        began = true
      }
      guard let waiter = waiters.removeValue(forKey: entry.index) else { continue }
      answers.append {
        if waiter.term != entry.term { return waiter.reply(.failure(.notLeader(leader: nil))) }
        switch result {
        case .success(let changes): waiter.reply(.success(Applied(index: entry.index, changes: changes)))
        case .failure(let refusal): waiter.reply(.failure(.refused(refusal)))
        }
      }
    }
    unwrittenChanges += changes
    reader.metadata = SnapshotMetadata(index: state.index, term: appliedTerm, confState: core.confState)
    core.applied(upTo: state.index)
    if began { log.notice("leading", metadata: ["term": "\(core.term)"]) }
    publish(view, ChangeBatch(index: state.index, changes: changes, state: state), false)
    for answer in answers { answer() }
  }

  private func apply(_ entry: Entry) throws(ConsensusError) -> Result<[StateChange], Refusal> {
    switch entry.kind {
    case .empty:
      state.skip(to: entry.index)
      return .success([])
    case .configuration:
      state.skip(to: entry.index)
      try applyMembers(entry)
      return .success([])
    case .command:
      do {
        return state.apply(try Command(serialized: entry.data), at: entry.index)
      } catch { throw .inconsistent("entry \(entry.index) cannot be read by this version of orch-manager: \(error)") }
    }
  }

  private func applyMembers(_ entry: Entry) throws(ConsensusError) {
    guard let change = ConfigurationChange(decoding: entry.data) else { throw .inconsistent("entry \(entry.index) is no change of members") }
    do throws(RaftError) { try core.applyConfigurationChange(change) } catch {
      // The same on every member: it has no effect.
      log.warning("a change of the managers had no effect", metadata: ["reason": "\(error)"])
      return
    }
    for change in change.changes {
      switch change {
      case .addVoter(let id): addMember(id, .voter, context: entry)
      case .addLearner(let id): addMember(id, .learner, context: entry)
      case .remove(let id): membership.members[id]?.role = .removed
      }
    }
    log.notice("managers changed", metadata: ["members": "\(membership.members.values.map { "\($0.raftID) \($0.address) \($0.role)" }.sorted())"])
    unwrittenMembership = true
    transport.peersChanged(peers)
    removed = membership.members[id]?.role == .removed
  }

  private func addMember(_ id: RaftID, _ role: Membership.Role, context entry: Entry) {
    let context = ConfigurationChange(decoding: entry.data)?.context ?? []
    var member = membership.members[id] ?? .init(raftID: id, node: nil, address: "", role: role)
    if !context.isEmpty, let told = try? WireRaftMember(serializedBytes: context).model(), told.raftID == id {
      member.node = told.node
      member.address = told.address
    }
    member.role = role
    membership.members[id] = member
  }

  private func serveReads() {
    for (context, read) in reads {
      guard let index = read.index, index <= state.index else { continue }
      reads[context] = nil
      for reply in read.replies { reply(.success(state)) }
    }
  }

  // MARK: - Views

  private func peer(_ id: RaftID) -> RaftPeer? {
    membership.address(of: id).flatMap { $0.isEmpty ? nil : RaftPeer(id: id, address: $0) }
  }

  private var peers: [RaftPeer] { membership.members.keys.filter { $0 != id }.sorted().compactMap(peer) }
  private var leader: RaftPeer? { core.leader.flatMap(peer) }
  private var leadership: Leadership {
    if let leadingTerm { return .leader(term: leadingTerm) }
    return .follower(leader: core.leader == id ? nil : leader)
  }
  private var view: View { View(state: state, leadership: leadership, membership: membership, leader: leader) }
  private var status: ConsensusStatus { ConsensusStatus(core.status, membership: membership, compacted: compacted.index) }

  private static func entry(_ entry: StoredEntry) throws(ConsensusError) -> Entry {
    guard let kind = Entry.Kind(rawValue: entry.kind) else { throw .inconsistent("entry \(entry.index) is of kind \(entry.kind)") }
    return Entry(term: entry.term, index: entry.index, kind: kind, data: entry.data)
  }

  /// Raft's way to the log on the disk.
  private final class StoreReader: LogReader, @unchecked Sendable {
    // Used by RaftCore within calls on the replica's own thread only.
    private let store: Store
    var metadata: SnapshotMetadata?
    var failure: StoreError?
    init(_ store: Store) { self.store = store }

    func entries(first: LogIndex, last: LogIndex, maxBytes: Int) -> [Entry] {
      do throws(StoreError) {
        return try store.entries(first: first, last: last, maxBytes: maxBytes).compactMap { try? Replica.entry($0) }
      } catch {
        failure = error
        return []
      }
    }
    func snapshot() -> SnapshotMetadata? { metadata }
  }
}

extension ConfState {
  init(_ membership: Membership) { self.init(voters: membership.ids(.voter), learners: membership.ids(.learner)) }
}
