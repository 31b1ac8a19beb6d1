import Model

extension RaftCore {
  mutating func tickLeader() {
    heartbeatElapsed += 1
    if electionElapsed >= config.electionTicks {
      electionElapsed = 0
      transferee = nil
      if config.checkQuorum {
        let outcome = Quorum.outcome(members) { $0.id == config.id || $0.isRecentlyActive }
        for position in members.indices {
          members[position].wasRecentlyActive = members[position].isRecentlyActive
          members[position].isRecentlyActive = false
        }
        if outcome != .won {
          becomeFollower(term: term, leader: nil)
          return
        }
      }
      if confState.isVoter(id) { leaveJointIfDue() } else { handOverToHeir() }
    }
    if heartbeatElapsed >= config.heartbeatTicks { broadcastHeartbeat() }
    if isCommitUntold { broadcast(.evenIfEmpty) }
    isCommitUntold = false
  }

  /// A change of the members at once: whoever is removed by it hears nothing more afterwards.
  mutating func tellCommit() {
    isCommitUntold = config.tellsCommitsLate && !log.hasUnappliedConfiguration
    broadcast(isCommitUntold ? .ifNew : .evenIfEmpty)
  }

  mutating func broadcastHeartbeat() {
    heartbeatElapsed = 0
    let round = reads.beginRound(at: ticks)
    for member in members where member.id != id {
      send(.heartbeat(commit: min(member.match, log.committed), round: round), to: member.id)
    }
  }

  mutating func append(kind: Entry.Kind, _ data: [[UInt8]]) throws(RaftError) -> ProposalPosition {
    guard role == .leader else { throw .notLeader(leader: leader) }
    if let transferee { throw .transferring(to: transferee) }
    var bytes = 0
    for item in data { bytes += item.count }
    if bytes > 0, uncommittedBytes > 0, uncommittedBytes + bytes > config.maxUncommittedBytes {
      throw .busy(uncommittedBytes: uncommittedBytes, bound: config.maxUncommittedBytes)
    }
    uncommittedBytes += bytes
    let first = log.lastIndex + 1
    for item in data { log.append(Entry(term: term, index: log.lastIndex + 1, kind: kind, data: item)) }
    broadcast(.ifNew)
    isCommitUntold = false
    return ProposalPosition(term: term, first: first, last: log.lastIndex)
  }

  /// Asks for an append to everyone in the next `ready`.
  mutating func broadcast(_ send: Progress.Send) {
    for position in members.indices where members[position].id != id { request(send, position) }
  }

  func hasNews(_ position: Int) -> Bool { members[position].next <= log.lastIndex }

  mutating func request(_ send: Progress.Send, _ position: Int) {
    guard !members[position].isSilent else { return }
    switch send {
    case .evenIfEmpty: members[position].send = .evenIfEmpty
    case .ifNew: if members[position].send == .nothing, hasNews(position) { members[position].send = .ifNew }
    case .nothing: break
    }
  }

  /// Raft section 5.4.2: entries of its own term by counting, earlier ones with them. Answers whether the commit index rose.
  mutating func advanceCommit() -> Bool {
    let reached = Quorum.reached(members) { $0.match }
    guard reached > log.committed, reached <= log.lastIndex, log.term(at: reached) == term else { return false }
    let before = log.committed
    guard (try? log.commit(to: reached)) == true else { return false }
    if uncommittedBytes > 0 { uncommittedBytes = max(0, uncommittedBytes - log.dataBytes(first: before + 1, last: reached)) }
    admitPostponedReads()
    return true
  }

  mutating func handleAppended(from peer: RaftID, upTo index: LogIndex) throws(RaftError) {
    guard role == .leader, let position = position(of: peer) else { return }
    members[position].isRecentlyActive = true
    guard index <= log.lastIndex else {
      throw .inconsistent("member \(peer) acknowledged entry \(index) of term \(term), the log ends at \(log.lastIndex)")
    }
    let wasSilent = members[position].isSilent
    guard members[position].matched(upTo: index) || (members[position].match == index && members[position].replication == .probe) else { return }
    switch members[position].replication {
    case .probe: members[position].becomeReplicate()
    case .snapshot: if members[position].match >= log.compactedIndex { members[position].becomeReplicate() }
    case .replicate:
      members[position].inflights.free(upTo: index)
      members[position].isPaused = false
    }
    if advanceCommit() { tellCommit() }
    request(wasSilent ? .evenIfEmpty : .ifNew, position)
    handOverIfDue(to: position)
  }

  mutating func handleRejection(_ rejection: Message.AppendRejection, from peer: RaftID) {
    guard role == .leader, let position = position(of: peer) else { return }
    members[position].isRecentlyActive = true
    var possible = rejection.hintIndex
    if rejection.hintTerm > 0 { possible = log.lastPossibleMatch(index: rejection.hintIndex, term: rejection.hintTerm).index }
    guard members[position].rejected(rejection.index, possibleMatch: possible) else { return }
    if members[position].replication == .replicate { members[position].becomeProbe() }
    request(.evenIfEmpty, position)
  }

  mutating func handleHeartbeatResponse(from peer: RaftID, round: UInt64) {
    guard role == .leader, let position = position(of: peer) else { return }
    members[position].isRecentlyActive = true
    members[position].isPaused = false
    if round <= reads.round { members[position].ackedRound = max(members[position].ackedRound, round) }
    // Also when all was sent: an append whose entries were lost shows itself by a rejection.
    if members[position].match < log.lastIndex || members[position].replication == .probe { request(.evenIfEmpty, position) }
    releaseReads()
    handOverIfDue(to: position)
  }

  /// Carries out what `broadcast` and `request` asked for: proposals and commits between two `ready`s travel together.
  mutating func flushAppends() {
    for position in members.indices where members[position].send != .nothing {
      var evenIfEmpty = members[position].send == .evenIfEmpty
      members[position].send = .nothing
      while sendAppend(position, evenIfEmpty: evenIfEmpty) { evenIfEmpty = false }
    }
    sliceMemo = nil
  }

  /// Answers whether more may follow.
  private mutating func sendAppend(_ position: Int, evenIfEmpty: Bool) -> Bool {
    guard !members[position].isSilent else { return false }
    let previous = members[position].next - 1
    // The members at the log's beginning are not in the log: a new member learns them from a snapshot.
    let isNewMember = previous == 0 && log.applied > 0
    guard !isNewMember, let previousTerm = log.term(at: previous) else {
      sendSnapshot(position)
      return false
    }
    let isFull = members[position].inflights.isFull(maxMessages: config.maxInflightMessages, maxBytes: config.maxInflightBytes)
    let entries = members[position].replication == .replicate && isFull ? [] : slice(first: previous + 1)
    if entries.isEmpty, !evenIfEmpty { return false }
    let append = Message.Append(previousIndex: previous, previousTerm: previousTerm, commit: log.committed, entries: entries)
    send(.append(append), to: members[position].id)
    switch members[position].replication {
    case .probe: members[position].isPaused = true
    case .replicate:
      if let last = entries.last {
        members[position].next = last.index + 1
        members[position].inflights.add(last: last.index, bytes: entries.reduce(0) { $0 + $1.byteCount })
      }
      members[position].isPaused = members[position].inflights.isFull(
        maxMessages: config.maxInflightMessages, maxBytes: config.maxInflightBytes)
    case .snapshot: break
    }
    return !entries.isEmpty && hasNews(position)
  }

  private mutating func slice(first: LogIndex) -> [Entry] {
    let last = log.lastIndex
    if let sliceMemo, sliceMemo.first == first, sliceMemo.last == last { return sliceMemo.entries }
    let entries = log.slice(first: first, last: last, maxBytes: config.maxMessageBytes)
    sliceMemo = (first, last, entries)
    return entries
  }

  private mutating func sendSnapshot(_ position: Int) {
    // Bytes for someone who does not answer are wasted; its next answer asks again.
    guard members[position].isRecentlyActive, let snapshot = log.reader.snapshot(), snapshot.index >= log.compactedIndex else {
      members[position].isPaused = true
      return
    }
    members[position].becomeSnapshot(index: snapshot.index)
    send(.snapshot(snapshot), to: members[position].id)
  }
}
