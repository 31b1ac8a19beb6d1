import Model

extension RaftCore {
  /// Appends a change of the members. Throws `notLeader`, `busy`, `transferring`, `configurationPending`, `invalidConfiguration`.
  public mutating func proposeConfigurationChange(_ change: ConfigurationChange) throws(RaftError) -> ProposalPosition {
    guard role == .leader else { throw .notLeader(leader: leader) }
    guard pendingConfigurationIndex <= log.applied else { throw .configurationPending(index: pendingConfigurationIndex) }
    guard change.changes.count <= 255 else { throw .invalidConfiguration("more than 255 changes at once") }
    _ = try confState.applying(change)
    let position = try append(kind: .configuration, [change.encoded])
    pendingConfigurationIndex = position.last
    return position
  }

  /// Called for every committed `configuration` entry when it is applied; save the answer with the applied index.
  /// Throws `invalidConfiguration` for what no leader would have proposed; the members stay as they were.
  @discardableResult
  public mutating func applyConfigurationChange(_ change: ConfigurationChange) throws(RaftError) -> ConfState {
    confState = try confState.applying(change)
    rebuildMembers()
    reads.forgetLease()
    guard role == .leader else { return confState }
    guard confState.isVoter(id) else {
      handOverToHeir()
      return confState
    }
    if let target = transferee, !confState.voters.contains(target) { transferee = nil }
    broadcast(advanceCommit() ? .evenIfEmpty : .ifNew)
    releaseReads()
    return confState
  }

  /// A leader without a vote leads (not counting itself, taking no proposals) until another does. If it stepped down at once, those who
  /// have not heard that the change is committed could need its vote, and a longer log than theirs would refuse it.
  mutating func handOverToHeir() {
    let heirs = members.indices.filter { members[$0].isIncomingVoter }
    guard let heir = heirs.max(by: { members[$0].match < members[$1].match }) else { return }
    transferee = members[heir].id
    electionElapsed = 0
    request(.evenIfEmpty, heir)
    handOverIfDue(to: heir)
  }

  mutating func leaveJointIfDue() {
    guard role == .leader, confState.isJoint, confState.autoLeave, log.applied >= pendingConfigurationIndex, transferee == nil else { return }
    log.append(Entry(term: term, index: log.lastIndex + 1, kind: .configuration, data: ConfigurationChange.leaveJoint.encoded))
    pendingConfigurationIndex = log.lastIndex
    broadcast(.ifNew)
  }

  /// Keeps what is known of those who stay; a removed member is forgotten.
  mutating func rebuildMembers() {
    members = confState.members.map { id in
      var member: Progress
      if let known = position(of: id) {
        member = members[known]
      } else {
        member = Progress(id: id, next: max(log.lastIndex, 1))
        // Otherwise a check of the quorum right after would count it as lost.
        member.isRecentlyActive = true
        if id == self.id { member.reset(next: log.lastIndex + 1, match: log.stable) }
      }
      member.isIncomingVoter = confState.voters.contains(id)
      member.isOutgoingVoter = confState.votersOutgoing.contains(id)
      return member
    }
  }
}
