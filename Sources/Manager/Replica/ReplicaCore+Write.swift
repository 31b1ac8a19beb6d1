import Model
import Raft

/// Ready, and the writes that follow from it.
extension ReplicaCore {
  mutating func settle() throws(ConsensusError) {
    while core.hasReady {
      let ready = core.ready()
      if let failure = reader.failure { throw .storage(failure) }
      if let soft = ready.softState { roleChanged(soft) }
      send(ready.messages)
      try persist(ready)
      if !ready.committedEntries.isEmpty { try apply(ready.committedEntries) }
      for read in ready.readStates { reads[read.context]?.index = read.index }
      serveReads()
    }
  }

  private mutating func roleChanged(_ soft: SoftState) {
    if soft.role != .leader { leadingTerm = nil }
    outputs.append(.note(.roleChanged(soft.role, leader: soft.leader, term: core.term)))
    publish(nil, resync: false)
    guard soft.role != .leader else { return }
    // Their entries may still be committed by the next leader.
    for waiter in waiters.sorted(by: { $0.key < $1.key }) { outputs.append(.answer(waiter.value.request, .failed(.unknownOutcome))) }
    waiters = [:]
    retryChanges()
  }

  mutating func send(_ messages: [Message]) {
    var byPeer: [(peer: RaftPeer, messages: [Message])] = []
    for message in messages {
      guard let peer = peer(message.to) else {
        // Its address comes with an entry or a snapshot that is still under way.
        if case .snapshot = message.body { core.reportSnapshot(message.to, succeeded: false) }
        continue
      }
      if case .snapshot = message.body {
        sendSnapshot(message, to: peer)
      } else if let known = byPeer.firstIndex(where: { $0.peer.id == peer.id }) {
        byPeer[known].messages.append(message)
      } else {
        byPeer.append((peer, [message]))
      }
    }
    for (peer, messages) in byPeer { outputs.append(.send(messages, to: peer)) }
  }

  /// Always of the state as it is now, which may be newer than what Raft asked for.
  private mutating func sendSnapshot(_ message: Message, to peer: RaftPeer) {
    var message = message
    message.body = .snapshot(SnapshotMetadata(index: state.index, term: appliedTerm, confState: core.confState))
    outputs.append(.note(.sendingSnapshot(to: peer, index: state.index)))
    outputs.append(.sendSnapshot(OutgoingSnapshot(message: message, membership: membership, state: state), to: peer))
  }

  private mutating func persist(_ ready: Ready) throws(ConsensusError) {
    if let hard = ready.hardState { next.hardState = StoredHardState(term: hard.term, vote: hard.vote, committed: hard.commit) }
    if let metadata = ready.snapshot {
      guard let snapshot = arrived, snapshot.metadata == metadata else {
        throw .inconsistent("a snapshot at \(metadata.index) is to be installed that did not arrive")
      }
      outputs.append(.note(.installingSnapshot(index: metadata.index)))
      next.snapshot = snapshot
      // It replaces the log, and the state that these belong to.
      next.entries = []
      changed = ChangedRows()
      isMembershipChanged = false
      flushing = nil
      logSizes.restart(after: metadata.index)
    }
    next.append(ready.entries)
    for entry in next.entries.suffix(ready.entries.count) { logSizes.append(entry) }
    if ready.mustSync { next.isDue = true }
    // In order: a promise waits for every write before it, too.
    if next.isDue {
      next.ready = ready.number
      next.messages += ready.messagesAfterPersistence
    } else if underWay != nil {
      underWay!.ready = ready.number
      underWay!.messages += ready.messagesAfterPersistence
    } else {
      core.persisted(ready.number)
      send(ready.messagesAfterPersistence)
    }
  }

  var hasUnwritten: Bool {
    next.hardState != nil || isMembershipChanged || next.snapshot != nil || !next.entries.isEmpty
      || (underWay?.flushed?.index ?? writtenIndex) < state.index
  }

  /// Rows may wait: what they stand for is in the durable log. The longer they do, the more changes share a row, a page and a transaction,
  /// and the more entries a restart applies again.
  private var areRowsDue: Bool {
    guard flushing == nil, next.snapshot == nil, writtenIndex < state.index else { return false }
    return stopping || isMembershipChanged || !flushes.isEmpty || ticksSinceRows >= config.rowTicks || changed.keys.count >= rowsBound
      || state.index - writtenIndex >= config.snapshotEvery || logSizes.bytes > config.logBytesMax
  }

  private mutating func beginFlush() {
    flushing = RowFlush(changed, state: state, membership: isMembershipChanged ? membership : nil)
    changed = ChangedRows()
    isMembershipChanged = false
    ticksSinceRows = 0
    // Down to half of `rowsMax`: members that wrote the same rows in the same moment would all hold up entries at once, and the others'
    // disks could not make up for one.
    rowsBound = config.rowsMax - Int.random(in: 0...config.rowsMax / 2, using: &random)
  }

  /// One at a time; what comes meanwhile waits for the next.
  mutating func startWrite() {
    guard underWay == nil else { return }
    if areRowsDue { beginFlush() }
    guard next.isDue || flushing != nil || (next.hardState != nil && ticksSinceWrite > 1) || (stopping && hasUnwritten) else { return }
    var write = next
    next = NextWrite()
    lastWrite += 1
    write.number = lastWrite
    var batch = WriteBatch()
    batch.entries = write.entries
    if let snapshot = write.snapshot, let metadata = snapshot.metadata {
      batch.snapshot = .init(point: SnapshotPoint(index: metadata.index, term: metadata.term), state: snapshot.state)
      batch.membership = snapshot.membership
      write.flushed = snapshot.state
      ticksSinceRows = 0
    } else {
      if flushing != nil { bring(&batch, &write) }
      batch.compact = compaction(entries: batch.entries.count)
      write.compact = batch.compact
    }
    // How far the log is committed costs a page: it goes with one write of each tick, or when there is none. Always with a change of the
    // members: the one before it is committed then, and a restart that did not know would count by the members before both.
    if let hard = write.hardState {
      let changesMembers = batch.entries.contains { $0.kind == Entry.Kind.configuration.rawValue }
      if batch.applied != nil || batch.snapshot != nil || changesMembers || ticksSinceWrite > 0 || stopping || hard.term != promised.term
        || hard.vote != promised.vote
      {
        batch.hardState = hard
        promised = hard
      } else {
        next.hardState = hard
      }
    }
    ticksSinceWrite = 0
    write.entries = []
    underWay = write
    outputs.append(.write(batch, number: write.number))
  }

  /// The next slice of the rows.
  private mutating func bring(_ batch: inout WriteBatch, _ write: inout NextWrite) {
    guard var flush = flushing else { return }
    let rows = flush.slice(config.rowsSlice)
    guard flush.rows.isEmpty else {
      flushing = flush
      batch.applied = .init(rows: rows, state: flush.state, before: written)
      return
    }
    batch.applied = .init(rows: rows, state: flush.state)
    batch.membership = flush.membership
    write.flushed = flush.state
    flushing = nil
    let applied = flush.state.index
    if applied >= compacted.index + config.snapshotEvery + config.keptEntries { forgettable = applied - config.keptEntries }
    if logSizes.bytes > config.logBytesMax { forgotten = min(applied, logSizes.first(within: config.logBytesMax / 4) - 1) }
  }

  /// A few entries a write, for new ones wait as long as old ones are being deleted; but more than come with it, and none that others
  /// need. All of a log that is too large.
  private func compaction(entries: Int) -> SnapshotPoint? {
    guard max(forgettable, forgotten) > compacted.index else { return nil }
    let paced = compacted.index + UInt64(max(Self.forgottenMin, 2 * entries))
    let index = max(min(forgettable, neededByOthers, paced), forgotten)
    guard index > compacted.index, let term = core.term(at: index) else { return nil }
    return SnapshotPoint(index: index, term: term)
  }

  /// The last entry that nobody who is here needs any more. Whoever is being sent a snapshot goes on from it with the entries after it: if
  /// they were cut off meanwhile it needed another, and so on for as long as changes come fast. `logBytesMax` bounds what waits for it.
  private var neededByOthers: UInt64 {
    var index = UInt64.max
    for peer in core.status.peers where peer.id != id {
      switch peer.replication {
      case .snapshot: index = min(index, max(peer.pendingSnapshot, peer.match))
      case .probe where peer.isRecentlyActive: index = min(index, peer.next - 1)
      case .replicate where peer.isRecentlyActive: index = min(index, peer.match)
      case .probe, .replicate: break
      }
    }
    return index
  }

  mutating func written(_ number: UInt64, _ failure: StoreError?) throws(ConsensusError) {
    if let failure { throw .storage(failure) }
    guard let write = underWay, write.number == number else { throw .inconsistent("write \(number) is done, which was not asked for") }
    underWay = nil
    if let snapshot = write.snapshot { install(snapshot) }
    if let flushed = write.flushed { written = flushed }
    answerFlushes()
    if let point = write.compact {
      compacted = point
      core.compact(upTo: point.index)
      logSizes.forget(upTo: point.index)
      outputs.append(.note(.compacted(to: point.index)))
    }
    if write.ready > 0 { core.persisted(write.ready) }
    send(write.messages)
  }

  mutating func flush(_ request: RequestID) {
    flushes.append((state.index, request))
    answerFlushes()
  }

  private mutating func answerFlushes() {
    while let first = flushes.first, first.index <= writtenIndex {
      outputs.append(.answer(first.request, .done))
      flushes.removeFirst()
    }
  }

  private mutating func install(_ snapshot: IncomingSnapshot) {
    guard let metadata = snapshot.metadata else { return }
    state = snapshot.state
    membership = snapshot.membership
    appliedTerm = metadata.term
    compacted = SnapshotPoint(index: metadata.index, term: metadata.term)
    reader.metadata = SnapshotMetadata(index: state.index, term: appliedTerm, confState: metadata.confState)
    outputs.append(.peersChanged(peers))
    publish(nil, resync: true)
    wasRemoved = wasRemoved || membership.members[id]?.isRemoved == true
  }
}
