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
      next.rows = ChangedRows()
      next.hasMembership = false
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
    next.hardState != nil || next.hasMembership || next.snapshot != nil || !next.entries.isEmpty || appliedIndexAfterWrite < state.index
  }

  /// On the disk when the write that is under way is.
  private var appliedIndexAfterWrite: UInt64 { underWay?.appliedIndex ?? writtenIndex }

  /// Rows may wait: what they stand for is in the durable log. The longer they do, the more changes share a row, a page and a transaction,
  /// and the more entries a restart applies again.
  private var areRowsDue: Bool {
    if stopping { return hasUnwritten }
    guard writtenIndex < state.index else { return false }
    return next.hasMembership || !flushes.isEmpty || ticksSinceRows >= config.rowTicks || next.rows.keys.count >= rowsBound
      || state.index - writtenIndex >= config.snapshotEvery || logSizes.bytes > config.logBytesMax
  }

  /// `rowsMax`, or down to half of it: members that wrote the same rows in the same moment would all hold up entries at once, and the
  /// others' disks could not make up for one.
  private var rowsBound: Int {
    let spread = UInt64(max(1, config.rowsMax / 2))
    return config.rowsMax - Int((((id.rawValue &+ rowWrites) &* 0x9E37_79B9_7F4A_7C15) >> 33) % spread)
  }

  /// One at a time; what comes meanwhile waits for the next.
  mutating func startWrite() {
    guard underWay == nil else { return }
    let bringsRows = areRowsDue
    guard next.isDue || bringsRows || (next.hardState != nil && ticksSinceWrite > 1) else { return }
    var write = next
    next = NextWrite()
    lastWrite += 1
    write.number = lastWrite
    var batch = WriteBatch()
    batch.entries = write.entries
    if let snapshot = write.snapshot, let metadata = snapshot.metadata {
      batch.snapshot = .init(point: SnapshotPoint(index: metadata.index, term: metadata.term), state: snapshot.state)
      batch.membership = snapshot.membership
      write.appliedIndex = metadata.index
      ticksSinceRows = 0
    } else {
      write.appliedIndex = writtenIndex
      if bringsRows {
        rowWrites &+= 1
        if writtenIndex < state.index { batch.applied = .init(rows: write.rows.keys, state: state) }
        if write.hasMembership { batch.membership = membership }
        write.appliedIndex = state.index
        batch.compact = compaction()
        write.compact = batch.compact
        ticksSinceRows = 0
      } else {
        next.rows = write.rows
        next.hasMembership = write.hasMembership
      }
    }
    // How far the log is committed costs a page: it goes with one write of each tick, or when there is none. Always with a change of the
    // members: the one before it is committed then, and a restart that did not know would count by the members before both.
    if let hard = write.hardState {
      let changesMembers = batch.entries.contains { $0.kind == Entry.Kind.configuration.rawValue }
      if bringsRows || batch.snapshot != nil || changesMembers || ticksSinceWrite > 0 || hard.term != promised.term || hard.vote != promised.vote {
        batch.hardState = hard
        promised = hard
      } else {
        next.hardState = hard
      }
    }
    ticksSinceWrite = 0
    write.entries = []
    write.rows = ChangedRows()
    underWay = write
    outputs.append(.write(batch, number: write.number))
  }

  private func compaction() -> SnapshotPoint? {
    guard state.index > compacted.index else { return nil }
    var index = compacted.index
    if state.index - compacted.index >= config.snapshotEvery + config.keptEntries {
      index = min(state.index - config.keptEntries, neededByOthers)
    }
    if logSizes.bytes > config.logBytesMax { index = max(index, min(state.index, logSizes.first(within: config.logBytesMax / 4) - 1)) }
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
    writtenIndex = max(writtenIndex, write.appliedIndex)
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
