import Model

extension ConfState {
  /// The members after a change. Throws `invalidConfiguration`. Rules as in etcd-io/raft's confchange.
  func applying(_ change: ConfigurationChange) throws(RaftError) -> ConfState {
    var next = self
    if change.changes.isEmpty {
      guard isJoint else { throw .invalidConfiguration("there is no joint configuration to leave") }
      next.learners = sortedUnion(learners, learnersNext)
      next.learnersNext = []
      next.votersOutgoing = []
      next.autoLeave = false
      return next
    }
    guard !isJoint else { throw .invalidConfiguration("the earlier change is still in its joint configuration") }
    if let autoLeave = change.jointAutoLeave {
      next.votersOutgoing = voters
      next.autoLeave = autoLeave
    }
    for change in change.changes { next.apply(change) }
    guard !next.voters.isEmpty else { throw .invalidConfiguration("it would leave no voter") }
    if !next.isJoint {
      let difference = next.voters.count { !voters.contains($0) } + voters.count { !next.voters.contains($0) }
      guard difference <= 1 else { throw .invalidConfiguration("more than one voter changes without a joint configuration") }
    }
    return next
  }

  private mutating func apply(_ change: ConfigurationChange.Change) {
    switch change {
    case .addVoter(let id):
      forget(id)
      voters = sortedUnion(voters, [id])
    case .addLearner(let id):
      forget(id)
      if votersOutgoing.contains(id) { learnersNext = sortedUnion(learnersNext, [id]) } else { learners = sortedUnion(learners, [id]) }
    case .remove(let id):
      forget(id)
    }
  }

  private mutating func forget(_ id: RaftID) {
    voters.removeAll { $0 == id }
    learners.removeAll { $0 == id }
    learnersNext.removeAll { $0 == id }
  }

  private func sortedUnion(_ a: [RaftID], _ b: [RaftID]) -> [RaftID] { (a + b.filter { !a.contains($0) }).sorted() }
}
