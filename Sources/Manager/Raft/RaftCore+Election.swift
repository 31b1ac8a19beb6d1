import Model

extension RaftCore {
  enum Campaign { case preElection, election, transfer }

  mutating func campaign(_ kind: Campaign) {
    // A change of the members that is committed but not applied could make this vote count by the wrong majority.
    guard !log.hasUnappliedConfiguration else { return }
    let request = Message.VoteRequest(lastIndex: log.lastIndex, lastTerm: log.lastTerm, isTransfer: kind == .transfer)
    if kind == .preElection {
      role = .preCandidate
      leader = nil
      leaderHeardAt = nil
      clearVotes()
      for member in members where member.isVoter && member.id != id { send(.preVote(request), to: member.id, term: term + 1) }
      count(vote: true, from: id)
    } else {
      reset(term: term + 1)
      role = .candidate
      vote = id
      // Not before this term, this vote and the log that the request boasts of are durable: a grant that arrives
      // after a crash must not count for less than it was given for. Its own vote counts in `persisted`.
      for member in members where member.isVoter && member.id != id { sendAfterPersistence(.vote(request), to: member.id) }
    }
  }

  private mutating func clearVotes() {
    for position in members.indices { members[position].vote = nil }
  }

  mutating func count(vote granted: Bool, from voter: RaftID) {
    guard let position = position(of: voter) else { return }
    if members[position].vote == nil { members[position].vote = granted }
    switch Quorum.outcome(members, { $0.vote }) {
    case .won where role == .preCandidate: campaign(.election)
    case .won: becomeLeader()
    case .lost: becomeFollower(term: term, leader: nil)
    case .pending: break
    }
  }

  private mutating func becomeLeader() {
    reset(term: term)
    role = .leader
    leader = id
    pendingConfigurationIndex = log.lastIndex
    for position in members.indices where members[position].id == id { members[position].replication = .replicate }
    for position in members.indices { members[position].isRecentlyActive = true }
    log.append(Entry(term: term, index: log.lastIndex + 1, kind: .empty))
    broadcast(.evenIfEmpty)
  }

  /// It heard a leader less than an election timeout ago, or is one.
  private var isShieldingLeader: Bool {
    guard config.checkQuorum else { return false }
    if role == .leader { return true }
    return leaderHeardAt.map { ticks - $0 < UInt64(config.electionTicks) } ?? false
  }

  /// To stand for election now would break the promise that its answers to the leader's heartbeats made.
  var upholdsLease: Bool { config.leaseReads && isShieldingLeader }

  /// False: the message goes no further.
  mutating func acceptsNewerTerm(_ message: Message) -> Bool {
    switch message.body {
    case .vote(let request), .preVote(let request):
      if !request.isTransfer, isShieldingLeader { return false }
      if case .preVote = message.body { return true }
      becomeFollower(term: message.term, leader: nil)
    case .preVoteResponse(.granted): break
    case .append, .heartbeat, .snapshot: becomeFollower(term: message.term, leader: message.from)
    default: becomeFollower(term: message.term, leader: nil)
    }
    return true
  }

  mutating func answerOlderTerm(_ message: Message) {
    switch message.body {
    case .append, .heartbeat:
      // Without it a leader that pre-vote or the shield keeps apart would never learn of the newer term.
      // Not an `appended`: whoever leads the newer term by now would believe that it begins at nothing.
      if config.checkQuorum || config.preVote { sendAfterPersistence(.heartbeatResponse(round: 0), to: message.from) }
    case .preVote: sendAfterPersistence(.preVoteResponse(refusal), to: message.from)
    default: break
    }
  }

  private var refusal: Message.VoteResponse { .refused(commit: log.committed, commitTerm: log.term(at: log.committed) ?? 0) }

  /// What was committed once is so for everyone who has that very entry (log matching, Raft section 5.3). An election by members that
  /// are about to change ends: another begins when the change is applied.
  mutating func learnCommit(_ response: Message.VoteResponse) throws(RaftError) {
    guard case .refused(let index, let commitTerm) = response, role != .leader, index > log.committed, log.matches(index: index, term: commitTerm)
    else { return }
    _ = try log.commit(to: index)
    if role != .follower, log.hasUnappliedConfiguration { becomeFollower(term: term, leader: nil) }
  }

  /// Raft sections 5.2 and 5.4.1. Learners answer too: they may have been promoted without knowing yet.
  mutating func answer(_ request: Message.VoteRequest, from candidate: RaftID, term requested: Term, isPreVote: Bool) {
    let mayVote = vote == candidate || (vote == nil && leader == nil) || (isPreVote && requested > term)
    let granted = mayVote && log.isUpToDate(lastIndex: request.lastIndex, lastTerm: request.lastTerm)
    if isPreVote {
      sendAfterPersistence(.preVoteResponse(granted ? .granted : refusal), to: candidate, term: granted ? requested : term)
    } else {
      if granted {
        vote = candidate
        electionElapsed = 0
      }
      sendAfterPersistence(.voteResponse(granted ? .granted : refusal), to: candidate)
    }
  }
}
