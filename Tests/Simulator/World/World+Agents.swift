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
  case health(TaskID, HealthCheck.Input)
  case networkApplied
  case persisted(AssignmentsBox, AppliedAssignments.Mark, index: UInt64)
  /// By chance, just when it has said something that its next life must keep to.
  case falls
}

/// The shell of an agent: its session, its disk and its containers.
extension World {
  func start(_ agent: AgentHost) throws {
    guard !agent.isUp, !agent.isDead else { return }
    agent.life += 1
    agent.isUp = true
    agent.knownIndex = agent.keptIndex
    tell("host\(agent.number)", "agent starts, \(agent.containers.count) containers are there")
    let there = agent.containers.keys.sorted()
      .map { id in
        let container = agent.containers[id]!
        return RecoveredTask(id: id, containerID: "c", pid: container.isRunning ? 1 : nil, isHealthChecked: container.check != nil)
      }
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
      try input(.started(id, containerID: "c", pid: 1, isHealthChecked: agent.containers[id]?.check != nil), to: agent)
      try beginCheck(id, isHealthy: false, agent)
      if agent.containers[id]?.isRunning == false { try agentEvent(agent, .exited(id)) }
    case .exited(let id):
      guard let container = agent.containers[id], !container.isRunning else { return }
      try input(.exited(id, TaskExit(code: container.exitCode, oomKilled: false, finishedAt: agent.wall(now))), to: agent)
    case .stopDue(let id): try input(.stopDue(id), to: agent)
    case .containerEnds(let id, let code, let startedAt): end(id, code, startedAt, on: agent)
    case .health(let id, let input): try check(id, input, agent)
    case .networkApplied:
      agent.isNetworkPassDue = false
      agent.ready = Set(agent.worker.endpoints.filter(\.ready).map(\.task))
      agent.learnAddresses()
      try checkHealth(agent)
      try checkWord(agent)
      _ = agent.applied.passed(agent.mark, isWhole: true, isDone: true)
      tellApplied(agent)
    case .persisted(let box, let mark, let index):
      (agent.kept, agent.keptIndex) = (box.message, index)
      _ = agent.applied.written(mark, succeeded: true)
      tellApplied(agent)
    case .falls:
      crash(agent)
      after(.milliseconds(haltChance.int(50...1_500)), .startAgent(agent.number))
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
      agent.applied.sessionOpened(agent.applied.session + 1)
      agent.word = 0
      try input(.sessionOpened, to: agent)
      after(.seconds(1), .agent(agent.number, life: agent.life, .heartbeat(connection: connection.number)))
    }
    tell(
      "host\(agent.number)",
      "told \(message.complete ? "all" : "\(message.appliesTo)") -> \(message.resultsIn): \(message.updates.count) items, \(message.removals.count) gone"
    )
    try checkStops(message, agent, connection)
    if message.complete || message.appliesTo == agent.worker.sequence { agent.knownIndex = connection.basis[message.resultsIn] ?? 0 }
    try input(.assignments(plant(on: message, agent)), to: agent)
    if !agent.isNetworkPassDue {
      agent.applied.unchanged(agent.mark)
      tellApplied(agent)
    }
  }

  private func tellApplied(_ agent: AgentHost) {
    guard agent.isOpen, let connection = agent.connection, let sequence = agent.applied.toTell() else { return }
    send(.applied(sequence), over: connection)
    agent.word = connection.basis[sequence] ?? 0
    if !isHealing, scenario.misfortunes.contains(.crashAgent), haltChance.chance(permille: 6) {
      after(Time(haltChance.int(0...3_000)), .agent(agent.number, life: agent.life, .falls))
    }
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
      case .watch(let id):
        after(1_000, .agent(agent.number, life: agent.life, .exited(id)))
        try beginCheck(id, isHealthy: agent.worker.task(id)?.status.state == .running, agent)
      case .stop(let id):
        if fault == .stopForgotten, chance.chance(permille: 200) { continue }
        agent.checks[id] = nil
        stop(id, on: agent)
      case .stopLater(let id): after(Time(Worker.withdrawalMax.rawValue / 1000), .agent(agent.number, life: agent.life, .stopDue(id)))
      case .release(let id): agent.checks[id] = nil
      case .sweep: break
      case .remove(let id): agent.containers[id] = nil
      case .network:
        guard !agent.isNetworkPassDue else { continue }
        agent.isNetworkPassDue = true
        after(.milliseconds(agentChance.skewed(1...300)), .agent(agent.number, life: agent.life, .networkApplied))
      case .report(let reports):
        for report in reports { oracle.said(report, by: agent.node) }
        if agent.isOpen, let connection = agent.connection { send(.reports(reports), over: connection) }
      case .persist:
        let isSlow = haltChance.chance(permille: 30)
        agent.keptAt = max(agent.keptAt, now) + .milliseconds(agentChance.skewed(1...50) + (isSlow ? haltChance.int(50...500) : 0))
        let box = AssignmentsBox(agent.worker.assignments)
        events.add(.agent(agent.number, life: agent.life, .persisted(box, agent.mark, index: agent.knownIndex)), at: agent.keptAt)
        if fault == .appliedBeforeKept { _ = agent.applied.written(agent.mark, succeeded: true) }
      case .resync: if let connection = agent.connection { send(.resync, over: connection) }
      }
    }
  }

  func spec(_ id: TaskID, _ agent: AgentHost) -> ServiceSpec? { agent.worker.task(id).flatMap { agent.worker.spec(of: $0) } }

  // MARK: - Containers

  private func begin(_ id: TaskID, on agent: AgentHost) throws {
    try oracle.started(id, on: agent.node)
    figures.containers += 1
    tell("host\(agent.number)", "container of \(short(id)) runs")
    agent.containers[id] = AgentHost.Container(isRunning: true, startedAt: now)
    drawHealth(id, on: agent)
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

// MARK: - Health

extension AgentHost {
  var mark: AppliedAssignments.Mark { applied.mark(worker.sequence) }
}

extension World {
  /// How a container that is checked will feel: well; ill for good or for a while, from its start or later; with some images from the start more often.
  private func drawHealth(_ id: TaskID, on agent: AgentHost) {
    guard let spec = spec(id, agent), let check = HealthCheck.Config(spec.taskTemplate.containerSpec.healthCheck, image: nil) else { return }
    agent.containers[id]!.check = check
    let isSick = ["7", "8"].contains(spec.taskTemplate.containerSpec.image.last.map { "\($0)" })
    guard !isHealing, healthChance.chance(permille: isSick ? 800 : 500) else { return }
    agent.containers[id]!.illFrom = now + (isSick || healthChance.chance(permille: 200) ? 0 : .milliseconds(healthChance.int(50...5_000)))
    agent.containers[id]!.wellFrom =
      healthChance.chance(permille: 400) ? agent.containers[id]!.illFrom + .milliseconds(healthChance.int(100...3_000)) : .max
  }

  /// As `HealthRunner`, whose time never goes back.
  private var checkTime: Timestamp { Timestamp(nanoseconds: now * 1_000) }

  func beginCheck(_ id: TaskID, isHealthy: Bool, _ agent: AgentHost) throws {
    guard let container = agent.containers[id], container.isRunning, let config = container.check, agent.checks[id] == nil else { return }
    agent.checks[id] = HealthCheck(config, started: checkTime, isHealthy: isHealthy)
    try check(id, .begin, agent)
  }

  func check(_ id: TaskID, _ input: HealthCheck.Input, _ agent: AgentHost) throws {
    guard agent.checks[id] != nil, let container = agent.containers[id], container.isRunning else { return }
    for output in agent.checks[id]?.step(input, now: checkTime) ?? [] {
      switch output {
      case .wait(let time): after(Time(time.rawValue / 1_000), .agent(agent.number, life: agent.life, .health(id, .due)))
      case .probe:
        let begun = checkTime
        let isIll = container.isIll(at: now) && !isHealing
        let duration = Time(healthChance.skewed(1_000...100_000))
        let probe = TaskHealth.Probe(start: begun, end: begun + Nanoseconds(duration * 1_000), exitCode: isIll ? 1 : 0, output: isIll ? "ill" : "")
        after(duration, .agent(agent.number, life: agent.life, .health(id, .probed(probe))))
      case .changed(let health):
        figures.illnesses += health.status == .unhealthy ? 1 : 0
        tell("host\(agent.number)", "\(short(id)) is \(health.status), failing \(health.failingStreak)")
        try self.input(.health(id, health), to: agent)
      }
    }
  }
}
