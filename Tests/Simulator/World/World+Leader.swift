import Dispatcher
import Model

#if PLANTED
  @testable import Allocator
  @testable import Leader
  @testable import Orchestrator
  @testable import Replica
#else
  import Leader
  import Replica
#endif

/// The shell of a leader: the manager's control loop and its agents' sessions.
extension World {
  /// Batches that the control loop may lag behind, as `ConsensusConfiguration.watcherBatchesMax`, but reached more easily.
  private static let newsMax = 24

  func published(_ view: ReplicaCore.View, _ batch: ChangeBatch?, _ resync: Bool, _ host: ManagerHost) throws {
    let before = host.view.leadership
    try checkPublished(view, batch, resync, host)
    host.view = view
    if resync {
      host.news = [.resync(view.state)]
      announceNews(host)
    } else if let batch {
      if host.news.count >= Self.newsMax {
        host.news = [.resync(view.state)]
      } else if fault == .changeDropped, chance.chance(permille: 20), !batch.changes.isEmpty {
        host.news.append(.changes(ChangeBatch(index: batch.index, changes: [], state: batch.state)))
      } else {
        host.news.append(.changes(batch))
      }
      announceNews(host)
    }
    if view.leadership != before { after(Time(chance.skewed(1...3_000)), .leadership(host.number, life: host.life)) }
  }

  private func announceNews(_ host: ManagerHost) {
    guard !host.isNewsDue else { return }
    host.isNewsDue = true
    after(Time(chance.skewed(1...2_000)), .news(host.number, life: host.life))
  }

  func takeNews(_ host: ManagerHost) throws {
    host.isNewsDue = false
    guard host.isUp, !host.news.isEmpty else { return }
    let first = host.news.removeFirst()
    switch first {
    case .changes(let batch):
      host.ledIndex = batch.state.index
      try lead(host, .changes(batch.changes, batch.state))
    // The state of the moment in which it is read; what is in it already is not told again.
    case .resync:
      (host.ledSince, host.ledFrom, host.ledIndex) = (now, host.view.state, host.view.state.index)
      try lead(host, .resync(host.view.state))
    }
    if case .resync = first {
      let seen = host.view.state.index
      host.news.removeAll { if case .changes(let batch) = $0 { batch.index <= seen } else { false } }
    }
    if !host.news.isEmpty { announceNews(host) }
  }

  /// Only the newest waits.
  func takeLeadership(_ host: ManagerHost) throws {
    guard host.isUp, host.toldLeadership != host.view.leadership else { return }
    host.toldLeadership = host.view.leadership
    switch host.view.leadership {
    case .leader(let term):
      tell(host.address, "leads term \(term)")
      (host.ledSince, host.ledFrom, host.ledIndex) = (now, host.view.state, host.view.state.index)
      try lead(host, .leads(term: term, state: host.view.state))
    case .follower(let leader): try lead(host, .follows(leader: leader?.address))
    }
  }

  func lead(_ host: ManagerHost, _ input: LeaderInput) throws {
    guard host.isUp else { return }
    #if PLANTED
      plantBeforeDecision(host)
    #endif
    let outputs = host.leader.step(input, now: host.moment(now), generator: &coreChance)
    for output in outputs {
      switch output {
      case .propose(let number, let command):
        let command = plant(on: command, host)
        tell(host.address, "decides \(describe(command))")
        mix(UInt64(command.actions.count))
        let id = host.nextRequest(.leader(number))
        try self.input(.propose(commands.encode(command), id), to: host)
      case .send(let session, let message):
        guard let connection = host.sessions[session] else { continue }
        connection.basis[message.resultsIn] = host.ledIndex
        send(message, over: connection)
      case .close(let session, let reason):
        tell(host.address, "closes \(session): \(reason)")
        hangUp(host, session)
      case .closeAll: for session in host.sessions.keys.sorted() { hangUp(host, session) }
      case .announce: break
      case .wakeAt(let instant):
        host.wakeToken += 1
        let delay = max(0, (instant.nanoseconds - host.moment(now).steady.nanoseconds) / 1_000) * 1_000 / Int64(1_000 + host.ratePermille)
        after(delay + 1_000, .leaderTick(host.number, life: host.life, token: host.wakeToken))
      case .warning(let text): tell(host.address, text)
      }
    }
  }

  private func hangUp(_ host: ManagerHost, _ session: SessionID) {
    guard let connection = host.sessions.removeValue(forKey: session) else { return }
    connection.isBroken = true
    let isHeard = !network.isCut(.manager(host.number), .agent(connection.agent))
    after(isHeard ? Time(networkChance.int(200...20_000)) : .milliseconds(networkChance.int(500...4_000)), .lostByAgent(connection))
  }

  // MARK: - Sessions

  func dialled(_ host: ManagerHost, by agent: AgentHost, _ life: Int, _ attempt: Int) throws {
    guard host.isUp else { return }
    guard host.leader.isLeading else { return refuse(agent, attempt, by: host) }
    if fault == .sessionUnconfirmed { return try connect(host, agent, life, attempt) }
    try input(.read(host.nextRequest(.session(agent, life: life, attempt: attempt))), to: host)
  }

  func refuse(_ agent: AgentHost, _ attempt: Int, by host: ManagerHost) {
    let leader = host.view.leader.flatMap { Int($0.address.dropFirst()) }
    transmit(Packet(from: .manager(host.number), to: .agent(agent.number), body: .refused(attempt: attempt, leader: leader)))
  }

  func connect(_ host: ManagerHost, _ agent: AgentHost, _ life: Int, _ attempt: Int) throws {
    guard host.leader.isLeading, host.view.leadership.isLeader || fault == .sessionUnconfirmed else { return refuse(agent, attempt, by: host) }
    connections += 1
    let connection = Connection(
      number: connections, agent: agent.number, agentLife: life, manager: host.number, managerLife: host.life, openedAt: now)
    host.lastSession += 1
    let session = SessionID(host.lastSession)
    connection.session = session
    host.sessions[session] = connection
    // Whoever dialled may have given up meanwhile.
    if agent.life == life, agent.attempts == attempt, agent.connection == nil { agent.connection = connection }
    try lead(host, .session(.connected(node: agent.node, session: session, description: agent.description, underlay: agent.underlay)))
  }

  /// In order or not at all; a cut way breaks the connection, which each end notices in its own time.
  private func isUsable(_ connection: Connection, _ from: Address, _ to: Address) -> Bool {
    guard !connection.isBroken else { return false }
    guard network.isCut(from, to) else { return true }
    break_(connection)
    return false
  }

  func break_(_ connection: Connection) {
    guard !connection.isBroken else { return }
    connection.isBroken = true
    after(.milliseconds(networkChance.int(10...5_000)), .lostByAgent(connection))
    after(.milliseconds(networkChance.int(10...5_000)), .lostByManager(connection))
  }

  private func send(_ message: AssignmentsMessage, over connection: Connection) {
    let (from, to) = (Address.manager(connection.manager), Address.agent(connection.agent))
    guard isUsable(connection, from, to) else { return }
    connection.lastToAgent = max(connection.lastToAgent + 1, now + network.delay(from, to, scenario, isCalm: isHealing, &networkChance))
    events.add(.toAgent(connection, AssignmentsBox(message)), at: connection.lastToAgent)
  }

  func send(_ message: ToManager, over connection: Connection) {
    let (from, to) = (Address.agent(connection.agent), Address.manager(connection.manager))
    guard isUsable(connection, from, to) else { return }
    connection.lastToManager = max(connection.lastToManager + 1, now + network.delay(from, to, scenario, isCalm: isHealing, &networkChance))
    events.add(.toManager(connection, message), at: connection.lastToManager)
  }

  func receive(_ connection: Connection, _ message: ToManager) throws {
    let host = managers[connection.manager]
    guard host.isUp, host.life == connection.managerLife, !connection.isBroken, let session = connection.session, host.sessions[session] != nil
    else { return }
    switch message {
    case .heartbeat: try lead(host, .session(.heartbeat(session)))
    case .reports(let reports):
      let reports = fault == .reportLost ? reports.filter { _ in !chance.chance(permille: 100) } : reports
      try lead(host, .session(.report(session, reports)))
    case .resync: try lead(host, .session(.resync(session)))
    case .applied(let sequence): try lead(host, .session(.applied(session, sequence)))
    }
  }

  func lostByManager(_ connection: Connection) throws {
    let host = managers[connection.manager]
    guard host.isUp, host.life == connection.managerLife, let session = connection.session, host.sessions.removeValue(forKey: session) != nil else {
      return
    }
    tell(host.address, "loses \(session) of host\(connection.agent)")
    if fault == .silentNodeKept { return }
    try lead(host, .session(.disconnected(session)))
  }

  func describe(_ command: Command) -> String {
    command.actions.prefix(40).map { action in
      switch action {
      case .createTask(let task): "create \(name(task)) \(task.desiredState)\(task.node.map { " on \($0.value)" } ?? "") \(task.status.error)"
      case .assignTask(let id, let node, _, let status): "assign \(short(id)) \(node.map { "to \($0.value)" } ?? status.error)"
      case .taskDesiredState(let id, let state): "want \(short(id)) \(state)"
      case .taskStatus(let id, let status): "\(short(id)) is \(status.state)\(status.error.isEmpty ? "" : " (\(status.error))")"
      case .removeTask(let id): "remove \(short(id))"
      case .nodeStatus(let id, let status): "node \(id.value) \(status.state)"
      case .putService(let service): "service \(service.name) revision \(service.current)\(service.pendingDelete ? " leaves" : "")"
      case .serviceUpdateStatus(_, let status): "update \(status?.state.rawValue ?? "-")"
      default: "\(String(describing: action).prefix(24))"
      }
    }.joined(separator: ", ") + (command.actions.count > 40 ? ", … \(command.actions.count)" : "")
  }

  func short(_ id: TaskID) -> String { String(id.description.prefix(6)) }
  func name(_ task: ClusterTask) -> String {
    "\(short(task.id)) (\(oracle.state.services[task.service]?.name ?? "new").\(task.slot), revision \(task.revision))"
  }
}
