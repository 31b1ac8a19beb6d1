import Model
import Raft

/// Committed entries become state.
extension ReplicaCore {
  mutating func apply(_ entries: [Entry]) throws(ConsensusError) {
    var changes: [StateChange] = []
    var answers: [Output] = []
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
      let answer: Answer =
        switch result {
        case _ where waiter.term != entry.term: .failed(.notLeader(leader: nil))
        case .success(let changes): .applied(index: entry.index, changes: changes)
        case .failure(let refusal): .failed(.refused(refusal))
        }
      answers.append(.answer(waiter.request, answer))
    }
    changed.insert(changes)
    reader.metadata = SnapshotMetadata(index: state.index, term: appliedTerm, confState: core.confState)
    core.applied(upTo: state.index)
    if began { outputs.append(.note(.leading(term: core.term))) }
    publish(ChangeBatch(index: state.index, changes: changes, state: state), resync: false)
    outputs += answers
  }

  private mutating func apply(_ entry: Entry) throws(ConsensusError) -> Result<[StateChange], Refusal> {
    switch entry.kind {
    case .empty:
      state.skip(to: entry.index)
      return .success([])
    case .configuration:
      state.skip(to: entry.index)
      try applyMembers(entry)
      return .success([])
    case .command:
      let command: Command
      do { command = try decoder.command(entry.data) } catch {
        throw .inconsistent("entry \(entry.index) cannot be read by this version of orch-manager: \(error)")
      }
      return state.apply(command, at: entry.index)
    }
  }

  private mutating func applyMembers(_ entry: Entry) throws(ConsensusError) {
    guard let change = ConfigurationChange(decoding: entry.data) else { throw .inconsistent("entry \(entry.index) is no change of members") }
    do throws(RaftError) { try core.applyConfigurationChange(change) } catch {
      // The same on every member: it has no effect.
      outputs.append(.note(.changeWithoutEffect(reason: "\(error)")))
      return
    }
    for part in change.changes {
      switch part {
      case .addVoter(let id): addMember(id, .voter, change.context)
      case .addLearner(let id): addMember(id, .learner, change.context)
      case .remove(let id): membership.members[id]?.role = .removed
      }
    }
    for id in membership.members.keys { membership.members[id]!.isOutgoingVoter = core.confState.votersOutgoing.contains(id) }
    membership.autoLeave = core.confState.autoLeave
    outputs.append(.note(.membersChanged(membership)))
    isMembershipChanged = true
    outputs.append(.peersChanged(peers))
    wasRemoved = membership.members[id]?.isRemoved == true
  }

  private mutating func addMember(_ id: RaftID, _ role: Membership.Role, _ context: [UInt8]) {
    var member = membership.members[id] ?? .init(raftID: id, node: nil, address: "", role: role)
    if !context.isEmpty, let told = decoder.member(context), told.raftID == id {
      member.node = told.node
      member.address = told.address
    }
    member.role = role
    membership.members[id] = member
  }

  mutating func serveReads() {
    guard !reads.isEmpty else { return }
    for (context, read) in reads.sorted(by: { $0.key < $1.key }) {
      guard let index = read.index, index <= state.index else { continue }
      reads[context] = nil
      for request in read.requests { outputs.append(.answer(request, .state(state))) }
    }
  }
}
