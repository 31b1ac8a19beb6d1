import Model

extension RaftCore {
  /// A message of this term that only its leader sends.
  mutating func follow(_ sender: RaftID) throws(RaftError) {
    switch role {
    case .leader: throw .inconsistent("member \(sender) leads term \(term) too: was a member's disk lost or copied?")
    case .candidate, .preCandidate: becomeFollower(term: term, leader: sender)
    case .follower:
      if let leader, leader != sender {
        throw .inconsistent("members \(leader) and \(sender) both lead term \(term): was a member's disk lost or copied?")
      }
      leader = sender
      electionElapsed = 0
    }
    leaderHeardAt = ticks
  }

  mutating func handle(_ append: Message.Append) throws(RaftError) {
    guard let leader else { return }
    if append.previousIndex < log.committed {
      sendAfterPersistence(.appended(upTo: log.committed), to: leader)
      return
    }
    guard log.matches(index: append.previousIndex, term: append.previousTerm) else {
      let hint = log.lastPossibleMatch(index: append.previousIndex, term: append.previousTerm)
      let rejection = Message.AppendRejection(index: append.previousIndex, hintIndex: hint.index, hintTerm: hint.term)
      sendAfterPersistence(.appendRejected(rejection), to: leader)
      return
    }
    var expected = append.previousIndex
    for entry in append.entries {
      expected += 1
      guard entry.index == expected else { throw .inconsistent("an append from member \(leader) has entry \(entry.index) in place of \(expected)") }
    }
    try log.appendAsFollower(append.entries)
    _ = try log.commit(to: min(append.commit, expected))
    sendAfterPersistence(.appended(upTo: expected), to: leader)
  }

  mutating func handleHeartbeat(commit: LogIndex, round: UInt64) throws(RaftError) {
    guard let leader else { return }
    _ = try log.commit(to: commit)
    // It shields this leader from now on, also after a crash: that takes a durable term.
    if durableTerm == term {
      send(.heartbeatResponse(round: round), to: leader)
    } else {
      sendAfterPersistence(.heartbeatResponse(round: round), to: leader)
    }
  }

  mutating func handle(_ snapshot: SnapshotMetadata) {
    guard let leader else { return }
    if snapshot.index > log.committed, !log.matches(index: snapshot.index, term: snapshot.term) {
      // A snapshot that does not know its receiver was made before it was added: a later one will come.
      guard snapshot.confState.isMember(id) else { return }
      log.restore(snapshot)
      confState = snapshot.confState
      rebuildMembers()
      sendAfterPersistence(.appended(upTo: snapshot.index), to: leader)
      return
    }
    if snapshot.index > log.committed { _ = try? log.commit(to: snapshot.index) }
    sendAfterPersistence(.appended(upTo: log.committed), to: leader)
  }
}
