import Model
import Raft

/// What others ask of this member.
extension ReplicaCore {
  mutating func receive(_ message: Message) throws(ConsensusError) {
    guard message.to == id, membership.members[message.from]?.isRemoved != true else { return }
    silentTicks = 0
    do throws(RaftError) { try core.step(message) } catch { throw .inconsistent("\(error)") }
  }

  mutating func receive(_ snapshot: IncomingSnapshot) throws(ConsensusError) {
    guard snapshot.metadata != nil, snapshot.message.to == id else { return }
    arrived = snapshot
    try receive(snapshot.message)
    // Raft may find it old; if not, it comes back with the next Ready.
    try settle()
    arrived = nil
  }

  mutating func propose(_ proposals: [(data: [UInt8], request: RequestID)]) {
    do throws(RaftError) {
      let position = try core.propose(proposals.map(\.data))
      for (offset, proposal) in proposals.enumerated() {
        waiters[position.first + UInt64(offset)] = Waiter(term: position.term, request: proposal.request)
      }
    } catch {
      let failure = failure(error)
      for proposal in proposals { outputs.append(.answer(proposal.request, .failed(failure))) }
    }
  }

  /// All that ask in one step share one confirmation.
  mutating func read(_ requests: [RequestID]) {
    nextRead &+= 1
    do throws(RaftError) {
      try core.readIndex(context: nextRead, mode: config.readMode)
      reads[nextRead] = PendingRead(requests: requests, ticksLeft: max(1, config.readTicks), index: nil)
    } catch {
      let failure = failure(error)
      for request in requests { outputs.append(.answer(request, .failed(failure))) }
    }
  }

  mutating func expireReads(_ ticks: Int) {
    for context in reads.keys.sorted() {
      reads[context]!.ticksLeft -= ticks
      guard reads[context]!.ticksLeft <= 0, let read = reads.removeValue(forKey: context) else { continue }
      for request in read.requests { outputs.append(.answer(request, .failed(.unavailable))) }
    }
  }

  mutating func transfer(to target: RaftID, _ request: RequestID) {
    do throws(RaftError) {
      try core.transferLeadership(to: target)
      outputs.append(.answer(request, .done))
    } catch { outputs.append(.answer(request, .failed(failure(error)))) }
  }

  // MARK: - Members

  mutating func changeMembers(_ change: ConfigurationChange, force: Bool, _ request: RequestID) {
    if let objection = objection(to: change, force: force) { return outputs.append(.answer(request, .failed(.membership(objection)))) }
    do throws(RaftError) {
      let position = try core.proposeConfigurationChange(change)
      waiters[position.first] = Waiter(term: position.term, request: request)
    } catch {
      if case .configurationPending = error, waitingChanges.count < Self.waitingChangesMax {
        waitingChanges.append(WaitingChange(change: change, force: force, request: request))
      } else {
        outputs.append(.answer(request, .failed(failure(error))))
      }
    }
  }

  mutating func retryChanges() {
    let waiting = waitingChanges
    waitingChanges = []
    for waiting in waiting { changeMembers(waiting.change, force: waiting.force, waiting.request) }
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
      }
    }
    return force ? nil : objectionToLossOfVotes(change)
  }

  /// Those who vote then, one more perhaps, must have a majority that is reachable: without one nothing could be changed any more, and this not be undone.
  private func objectionToLossOfVotes(_ change: ConfigurationChange) -> String? {
    let before = Set(membership.ids(.voter))
    var after = before
    for change in change.changes {
      switch change {
      case .addVoter(let id): after.insert(id)
      case .addLearner(let id), .remove(let id): after.remove(id)
      }
    }
    if after == before { return nil }
    if after.isEmpty { return "it is the only manager with a vote, and a cluster needs one; add another first (orch manager add)" }
    // The leader is one of the peers of its own status, and always active there. Of the others it believes that for a while after its
    // election: only who has answered since counts.
    let active = core.status.peers.count { after.contains($0.id) && $0.isRecentlyActive && ($0.id == id || $0.match > 0) }
    let needed = after.count / 2 + 1
    if active >= needed { return nil }
    let found = "only \(active) of \(after.count) managers would be reachable, and \(needed) are needed: the cluster would take no more changes"
    if after.isSuperset(of: before) { return "with its vote \(found); it has to be up first (orch managers)" }
    return "without its vote \(found); start the others first (orch managers), or add one; --force does it nevertheless"
  }

  /// A learner becomes a voter once it has (nearly) everything; whoever leads sees to it.
  mutating func promoteLearners() {
    guard leadingTerm != nil, !core.confState.learners.isEmpty else { return }
    let ready = core.status.peers.first {
      $0.isLearner && $0.isRecentlyActive && $0.replication == .replicate && $0.match + 100 >= core.commitIndex && shallVote($0.id)
    }
    guard let ready else { return }
    // Another change may be pending: the next tick tries again.
    _ = try? core.proposeConfigurationChange(ConfigurationChange([.addVoter(ready.id)]))
  }

  /// A manager that was demoted stays a learner until it is promoted.
  private func shallVote(_ id: RaftID) -> Bool { membership.members[id]?.node.flatMap { state.nodes[$0] }?.spec.role != .worker }

  func failure(_ error: RaftError) -> ConsensusError {
    switch error {
    case .notLeader: .notLeader(leader: core.leader.flatMap(peer))
    case .busy, .transferring, .configurationPending: .busy("\(error)")
    case .invalidConfiguration, .notVoter: .membership("\(error)")
    case .inconsistent(let reason): .inconsistent(reason)
    }
  }
}
