import Model
import Worker

enum AgentEvent {
  case dial
  case dialTimedOut(attempt: Int)
  case heartbeat(connection: Int)
  case prepared(TaskID, succeeds: Bool)
  case started(TaskID)
  case exited(TaskID)
  case stopDue(TaskID)
  case containerEnds(TaskID, code: Int32, startedAt: Time)
  case networkApplied
  case persisted(AssignmentsBox)
}

/// The shell of an agent: its session, its disk and its containers.
extension World {
  func start(_ agent: AgentHost) throws {
    guard !agent.isUp, !agent.isDead else { return }
    agent.life += 1
    agent.isUp = true
    agent.startedAt = now
    tell("host\(agent.number)", "agent starts, \(agent.containers.count) containers are there")
    let there = agent.containers.keys.sorted()
      .map { RecoveredTask(id: $0, containerID: "c", pid: agent.containers[$0]!.isRunning ? 1 : nil) }
    try input(.recovered(agent.kept, there), to: agent)
    after(Time(agentChance.int(1_000...100_000)), .agent(agent.number, life: agent.life, .dial))
  }

  /// The process only; containers live on.
  func crash(_ agent: AgentHost) {
    guard agent.isUp else { return }
    tell("host\(agent.number)", "agent dies")
    // What was being started may have begun.
    for id in agent.starting.sorted() where agent.containers[id] == nil && agent.keptAt < now && agentChance.chance(permille: 500) {
      try? begin(id, on: agent)
    }
    if let connection = agent.connection { lose(connection, by: agent) }
    agent.forget()
  }

  /// The other end hears of it at once, if it can.
  private func lose(_ connection: Connection, by agent: AgentHost) {
    connection.isBroken = true
    let isHeard = !network.isCut(.agent(agent.number), .manager(connection.manager))
    after(isHeard ? Time(networkChance.int(200...5_000)) : .milliseconds(networkChance.int(500...5_000)), .lostByManager(connection))
  }

  func agentEvent(_ agent: AgentHost, _ event: AgentEvent) throws {
    switch event {
    case .dial: dial(agent)
    case .dialTimedOut(let attempt):
      guard agent.attempts == attempt, !agent.isOpen else { return }
      if let connection = agent.connection { lose(connection, by: agent) }
      agent.connection = nil
      agent.failures += 1
      dial(agent)
    case .heartbeat(let number):
      guard let connection = agent.connection, connection.number == number else { return }
      send(.heartbeat, over: connection)
      after(.seconds(1), .agent(agent.number, life: agent.life, .heartbeat(connection: number)))
    case .prepared(let id, let succeeds): try input(succeeds ? .prepared(id) : .prepareFailed(id, "no such image"), to: agent)
    case .started(let id):
      guard agent.starting.remove(id) != nil else { return }
      try begin(id, on: agent)
      try input(.started(id, containerID: "c", pid: 1), to: agent)
      if agent.containers[id]?.isRunning == false { try agentEvent(agent, .exited(id)) }
    case .exited(let id):
      guard let container = agent.containers[id], !container.isRunning else { return }
      try input(.exited(id, TaskExit(code: container.exitCode, oomKilled: false, finishedAt: agent.wall(now))), to: agent)
    case .stopDue(let id): try input(.stopDue(id), to: agent)
    case .containerEnds(let id, let code, let startedAt): end(id, code, startedAt, on: agent)
    case .networkApplied:
      agent.isNetworkPassDue = false
      agent.ready = Set(agent.worker.endpoints.filter(\.ready).map(\.task))
      // What a restarted agent takes from its disk may be older than what it said before; its session mends it.
      if agent.isOpen { agent.learnAddresses() }
      tellApplied(agent)
    case .persisted(let box): agent.kept = box.message
    }
  }

  // MARK: - Session

  private func dial(_ agent: AgentHost) {
    guard !agent.isOpen, agent.connection == nil else { return }
    agent.attempts += 1
    let reachable = managers.indices.filter { !managers[$0].isGone }
    let target = agent.hint ?? agentChance.pick(reachable.isEmpty ? [0] : reachable)
    agent.hint = nil
    let attempt = agent.attempts
    transmit(Packet(from: .agent(agent.number), to: .manager(target), body: .dial(life: agent.life, attempt: attempt)))
    after(.seconds(1), .agent(agent.number, life: agent.life, .dialTimedOut(attempt: attempt)))
  }

  func refused(_ agent: AgentHost, _ attempt: Int, _ leader: Int?) {
    guard agent.isUp, agent.attempts == attempt, !agent.isOpen, agent.connection == nil else { return }
    agent.hint = leader
    agent.failures += 1
    let delay = leader != nil && agent.failures < 4 ? 1 : agent.failures < 12 ? 200 : 1_000
    after(.milliseconds(agentChance.int(delay / 2...delay)), .agent(agent.number, life: agent.life, .dial))
  }

  func lostByAgent(_ connection: Connection) {
    let agent = agents[connection.agent]
    guard agent.isUp, agent.life == connection.agentLife, agent.connection === connection else { return }
    tell("host\(agent.number)", "loses its session with m\(connection.manager)")
    agent.connection = nil
    agent.isOpen = false
    agent.failures = 0
    after(.milliseconds(agentChance.int(25...200)), .agent(agent.number, life: agent.life, .dial))
  }

  func receive(_ connection: Connection, _ message: AssignmentsMessage) throws {
    let agent = agents[connection.agent]
    guard agent.isUp, agent.life == connection.agentLife, agent.connection === connection, !connection.isBroken else { return }
    mix(UInt64(message.updates.count) << 32 | message.resultsIn)
    if !agent.isOpen {
      agent.isOpen = true
      agent.failures = 0
      try input(.sessionOpened, to: agent)
      after(.seconds(1), .agent(agent.number, life: agent.life, .heartbeat(connection: connection.number)))
    }
    tell(
      "host\(agent.number)",
      "told \(message.complete ? "all" : "\(message.appliesTo)") -> \(message.resultsIn): \(message.updates.count) items, \(message.removals.count) gone"
    )
    try checkStops(message, agent, connection)
    try input(.assignments(plant(on: message, agent)), to: agent)
    if !agent.isNetworkPassDue { tellApplied(agent) }
  }

  private func tellApplied(_ agent: AgentHost) {
    guard agent.isOpen, let connection = agent.connection, let sequence = agent.worker.sequence else { return }
    send(.applied(sequence), over: connection)
  }

  // MARK: - Worker

  func input(_ input: WorkerInput, to agent: AgentHost) throws {
    for output in agent.worker.step(input, now: agent.wall(now)) {
      switch output {
      case .prepare(let id):
        let image = spec(id, agent)?.taskTemplate.containerSpec.image ?? ""
        let succeeds = isHealing || !image.hasPrefix("missing") || agentChance.chance(permille: 200)
        after(.milliseconds(agentChance.skewed(2...1_500)), .agent(agent.number, life: agent.life, .prepared(id, succeeds: succeeds)))
      case .start(let id):
        agent.starting.insert(id)
        events.add(.agent(agent.number, life: agent.life, .started(id)), at: max(now + .milliseconds(agentChance.skewed(2...800)), agent.keptAt + 1))
      case .watch(let id): after(1_000, .agent(agent.number, life: agent.life, .exited(id)))
      case .stop(let id):
        if fault == .stopForgotten, chance.chance(permille: 200) { continue }
        stop(id, on: agent)
      case .stopLater(let id): after(Time(Worker.withdrawalMax.rawValue / 1000), .agent(agent.number, life: agent.life, .stopDue(id)))
      case .release, .sweep: break
      case .remove(let id): agent.containers[id] = nil
      case .network:
        guard !agent.isNetworkPassDue else { continue }
        agent.isNetworkPassDue = true
        after(.milliseconds(agentChance.skewed(1...300)), .agent(agent.number, life: agent.life, .networkApplied))
      case .report(let reports):
        for report in reports { oracle.said(report, by: agent.node) }
        if agent.isOpen, let connection = agent.connection { send(.reports(reports), over: connection) }
      case .persist:
        agent.keptAt = max(agent.keptAt, now) + .milliseconds(agentChance.skewed(1...50))
        events.add(.agent(agent.number, life: agent.life, .persisted(AssignmentsBox(agent.worker.assignments))), at: agent.keptAt)
      case .resync: if let connection = agent.connection { send(.resync, over: connection) }
      }
    }
  }

  private func spec(_ id: TaskID, _ agent: AgentHost) -> ServiceSpec? { agent.worker.task(id).flatMap { agent.worker.spec(of: $0) } }

  // MARK: - Containers

  private func begin(_ id: TaskID, on agent: AgentHost) throws {
    try oracle.started(id, on: agent.node)
    figures.containers += 1
    tell("host\(agent.number)", "container of \(short(id)) runs")
    agent.containers[id] = AgentHost.Container(isRunning: true, startedAt: now)
    let image = spec(id, agent)?.taskTemplate.containerSpec.image ?? ""
    if !isHealing, image.hasPrefix("flaky") {
      after(.milliseconds(agentChance.int(50...6_000)), .agent(agent.number, life: agent.life, .containerEnds(id, code: 1, startedAt: now)))
    }
  }

  private func stop(_ id: TaskID, on agent: AgentHost) {
    guard let container = agent.containers[id] else { return }
    // It ends whether the agent lives to see it or not.
    after(.milliseconds(agentChance.skewed(1...1_500)), .mend(.endContainer(agent.number, id, code: 143, startedAt: container.startedAt)))
  }

  func end(_ id: TaskID, _ code: Int32, _ startedAt: Time, on agent: AgentHost) {
    guard agent.containers[id]?.isRunning == true, agent.containers[id]?.startedAt == startedAt else { return }
    tell("host\(agent.number)", "container of \(short(id)) ends with \(code)")
    agent.containers[id]!.isRunning = false
    agent.containers[id]!.exitCode = code
    if agent.isUp { after(.milliseconds(agentChance.skewed(1...50)), .agent(agent.number, life: agent.life, .exited(id))) }
  }
}
