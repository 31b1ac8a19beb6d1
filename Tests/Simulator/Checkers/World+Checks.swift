import Model
import Raft
import Replica

/// What is looked at after every step of every manager.
extension World {
  func noted(_ note: ReplicaCore.Note, _ host: ManagerHost) throws {
    switch note {
    case .roleChanged(let role, let leader, let term):
      tell(host.address, "is \(role) in term \(term)\(leader.map { ", led by \($0)" } ?? "")")
      mix(term << 8 | UInt64(host.number))
      host.sentTo = [:]
      guard role == .leader else { return }
      figures.elections += 1
      ambush(newLeader: host)
      try oracle.leads(host.raftID, term)
    case .leading(let term): try checkCompleteness(host, term)
    case .installingSnapshot(let index): tell(host.address, "installs a snapshot at \(index)")
    case .membersChanged(let membership):
      host.membershipBefore = host.view.membership
      tell(host.address, "members: \(membership.members.values.sorted { $0.raftID < $1.raftID }.map { "\($0.raftID) \($0.role)" })")
    case .sendingSnapshot, .compacted, .changeWithoutEffect: break
    }
  }

  /// Raft section 5.4.3: whoever leads has all that was committed in earlier terms.
  private func checkCompleteness(_ host: ManagerHost, _ term: UInt64) throws {
    var index = oracle.lastIndex
    while index > host.disk.compacted.index, let known = oracle.committed(index) {
      // What a later leader has committed by now, this one need not know.
      guard known.entry.term > term || logical(index, host)?.term == known.entry.term else {
        throw Violation(
          checker: "leader completeness", what: "\(host.address) leads term \(term) and lacks entry \(index) of term \(known.entry.term)")
      }
      index -= 1
    }
  }

  /// As it is, or will be with the write under way.
  private func logical(_ index: UInt64, _ host: ManagerHost) -> StoredEntry? {
    for batch in [host.write?.batch].compactMap({ $0 }) + host.unsynced.reversed() {
      guard let first = batch.entries.first?.index, index >= first else { continue }
      let offset = Int(index - first)
      return offset < batch.entries.count ? batch.entries[offset] : nil
    }
    return host.disk.entry(index)
  }

  func checkPublished(_ view: ReplicaCore.View, _ batch: ChangeBatch?, _ resync: Bool, _ host: ManagerHost) throws {
    let (before, after) = (host.appliedSeen, view.state.index)
    if after > before, !resync {
      for index in before + 1...after {
        guard let entry = host.disk.entry(index) else {
          throw Violation(checker: "durability", what: "\(host.address) applies entry \(index), which is not on its disk")
        }
        let isNew = try oracle.commit(entry, by: host.address) { entry in
          entry.kind == Entry.Kind.command.rawValue ? try self.commands.command(entry.data) : nil
        }
        guard isNew else { continue }
        figures.entries += 1
        mix(entry.index << 20 | entry.term)
        for case .task(_, let new?) in oracle.committed(index)?.changes ?? [] where oracle.tasks.stoppedAt[new.id] == index {
          stopTimes[new.id] = now
        }
        for case .node(_, let new?) in oracle.committed(index)?.changes ?? [] where new.status.state == .down { lostAt[new.id] = now }
        if let committed = oracle.committed(index) {
          try rests.check(committed.changes, committed.state, agents, now: now)
          for case .network(_, nil) in committed.changes { networkIsGone() }
        }
        try checkDurable(entry, view, host)
      }
    }
    host.appliedSeen = after
    try oracle.check(view.membership, at: after, of: host.address)
    if let batch {
      try oracle.check(batch.changes, from: before, to: after, of: host.address)
    } else if resync {
      try oracle.check(view.state, of: host.address, "after a snapshot")
    }
  }

  /// At the moment when the first of all applies it, a majority of the voters has it on its disk.
  private func checkDurable(_ entry: StoredEntry, _ view: ReplicaCore.View, _ host: ManagerHost) throws {
    func majority(_ membership: Membership) -> Bool {
      let voters = membership.ids(.voter)
      let holders = voters.count { id in managers.first { $0.raftID == id }?.disk.holds(entry.index, term: entry.term) ?? false }
      return holders > voters.count / 2
    }
    // A change of the members counts for a leader once it has applied it: until then the majority is one of those before, and any of
    // either has a member of the other.
    let leaders = managers.filter { $0.isUp && $0.view.leadership.isLeader }.map(\.view.membership)
    if ([view.membership, host.view.membership, host.membershipBefore].compactMap { $0 } + leaders).contains(where: majority) { return }
    throw Violation(checker: "durability", what: "entry \(entry.index) of term \(entry.term) is committed, and no majority has it")
  }

  // MARK: - Windows

  /// No more appends are on their way to one follower than the window allows.
  func checkInflight(_ messages: [Message], from host: ManagerHost) throws {
    for message in messages {
      guard case .append(let append) = message.body, let last = append.entries.last?.index else { continue }
      // From an earlier point than before: it probes, one at a time.
      if let sent = host.sentTo[message.to]?.last, append.previousIndex < sent { host.sentTo[message.to] = [] }
      host.sentTo[message.to, default: []].append(last)
      let count = host.sentTo[message.to]!.count
      if count > scenario.inflightMessagesMax {
        throw Violation(
          checker: "windows", what: "\(host.address) has \(count) appends on their way to \(message.to), \(scenario.inflightMessagesMax) are allowed")
      }
    }
  }

  /// Before the follower's word reaches the leader's core.
  func noteAcknowledgement(_ message: Message, at host: ManagerHost) {
    switch message.body {
    case .appended(let index): host.sentTo[message.from]?.removeAll { $0 <= index }
    case .appendRejected: host.sentTo[message.from] = []
    default: break
    }
  }

  // MARK: - Health

  /// Who lives by what a leader told when it knew that a task is unhealthy sends nobody to it.
  func checkHealth(_ agent: AgentHost) throws {
    guard agent.isOpen, let sequence = agent.worker.sequence, let index = agent.connection?.basis[sequence] else { return }
    for id in agent.ready.sorted() {
      guard let since = oracle.tasks.unhealthyAt[id], since <= index else { continue }
      throw Violation(
        checker: "health", what: "host\(agent.number) sends to task \(id) by the state at \(index), which is unhealthy since \(since)")
    }
  }

  // MARK: - An agent's word

  /// Who starts again and has not been told anything yet does not go back behind what it said that it lives by.
  func checkWord(_ agent: AgentHost) throws {
    guard agent.worker.sequence == nil, !agent.isOpen, agent.knownIndex < agent.word else { return }
    throw Violation(
      checker: "word", what: "host\(agent.number) lives by the state at \(agent.knownIndex), and has told a leader that it does by \(agent.word)")
  }

  // MARK: - Drain

  /// A task that serves is told to stop when nobody who could call it still does, or 2 s later, or when those that do are down. Whose connection broke
  /// has its rules still.
  func checkStops(_ message: AssignmentsMessage, _ agent: AgentHost, _ connection: Connection) throws {
    let leader = managers[connection.manager]
    guard leader.isUp, leader.life == connection.managerLife, let term = leader.leader.term else { return }
    for case .task(let task) in message.updates where task.desiredState > .running {
      guard let known = agent.worker.task(task.id), known.desiredState == .running, agent.containers[task.id]?.isRunning == true,
        let at = oracle.tasks.stoppedAt[task.id], let stopped = stopTimes[task.id], let then = oracle.committed(at)
      else { continue }
      // What a leader finds it begins anew, and gives hosts that have not found it more time.
      let isInherited = then.entry.term != term
      let since = isInherited ? max(stopped, leader.ledSince) : stopped
      guard now - since < (isInherited ? 4_900_000 : 1_900_000), isExpected(agent, since: since, isInherited ? leader.ledFrom : then.state),
        isExpected(agent, since: since, leader.view.state)
      else { continue }
      let networks = Set(known.attachments.map(\.network))
      for other in agents where other.isUp && other.ready.contains(task.id) && mayCall(other, on: networks) {
        guard isExpected(other, since: since, isInherited ? leader.ledFrom : then.state), isExpected(other, since: since, leader.view.state) else {
          continue
        }
        throw Violation(checker: "drain", what: "task \(task.id) on host\(agent.number) is told to stop, and host\(other.number) still sends to it")
      }
    }
  }

  /// Not said to be down, then or since.
  private func isExpected(_ agent: AgentHost, since: Time, _ then: ClusterState) -> Bool {
    guard let state = then.nodes[agent.node]?.status.state, state == .ready || state == .unknown else { return false }
    return lostAt[agent.node].map { $0 < since } ?? true
  }

  /// A host calls for its own containers of a network, and on ingress for anybody. Whose last container there has ended is taken off the
  /// network and no longer waited for: until it hears of it, it has names that nobody asks for.
  private func mayCall(_ agent: AgentHost, on networks: Set<NetworkID>) -> Bool {
    if agent.worker.networks.contains(where: { $0.ingress && networks.contains($0.id) }) { return true }
    let running = agent.containers.keys.filter { agent.containers[$0]!.isRunning }
    return (running + agent.starting).contains { id in
      agent.worker.task(id)?.attachments.contains { networks.contains($0.network) } ?? false
    }
  }
}
