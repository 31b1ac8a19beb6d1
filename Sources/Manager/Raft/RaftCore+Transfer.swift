import Model

extension RaftCore {
  /// Hands leadership to a voter once its log is complete; proposals are refused meanwhile. Given up after an election timeout.
  /// Throws `notLeader`, `notVoter`.
  public mutating func transferLeadership(to target: RaftID) throws(RaftError) {
    guard role == .leader else { throw .notLeader(leader: leader) }
    guard confState.voters.contains(target), let position = position(of: target) else { throw .notVoter(target) }
    guard target != id, target != transferee else { return }
    electionElapsed = 0
    transferee = target
    if members[position].match == log.lastIndex {
      handOverIfDue(to: position)
    } else {
      request(.evenIfEmpty, position)
    }
  }

  mutating func handOverIfDue(to position: Int) {
    guard members[position].id == transferee, members[position].match == log.lastIndex else { return }
    handOver(to: members[position].id)
  }

  /// The message may be late: for the rest of the term the other may be elected at any moment.
  mutating func handOver(to target: RaftID) {
    reads.hasForfeitedLease = true
    send(.timeoutNow, to: target)
  }
}
