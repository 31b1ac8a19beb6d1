// One cluster in one thread: managers, agents, clients, their network, disks and clocks, all from one seed.
//
// The cores are the product's: Replica (with Raft and the replicated state), Leader (with Reconciler, Allocator, Scheduler and
// Dispatcher), Worker. The shells around them are played by this world: what a shell does at once happens at once, what takes time takes
// simulated time, and what can go wrong goes wrong when the seed says so.
import Linearizability
import Model
import Raft
import Replica

/// What must never be, and was.
struct Violation: Error {
  /// The checker's name, as docs/simulator.md lists them.
  var checker: String
  var what: String
}

enum Event {
  case tick(Int, life: Int)
  case step(Int, life: Int)
  case written(Int, life: Int, number: UInt64, failure: StoreError?)
  case synced(Int, life: Int)
  case news(Int, life: Int)
  case leadership(Int, life: Int)
  case leaderTick(Int, life: Int, token: Int)
  case leaderAnswer(Int, life: Int, LeaderAnswer)
  case snapshotSent(Int, life: Int, RaftID, succeeded: Bool)
  case startManager(Int)
  case deliver(Packet)
  case toManager(Connection, ToManager)
  case toAgent(Connection, AssignmentsBox)
  case lostByManager(Connection)
  case lostByAgent(Connection)
  case agent(Int, life: Int, AgentEvent)
  case startAgent(Int)
  case client(Int)
  case giveUp(client: Int, operation: Int)
  case operation
  case anotherNetwork
  case administer
  case misfortune
  case ambush
  /// A manager crashes by an ambush.
  case fell(Int, life: Int, downFor: Time?)
  case mend(Mending)
  case look
}

final class World {
  static let eventsMax = 4_000_000
  /// 2026-01-01, in microseconds: wall clocks begin here.
  static let epoch: Time = 1_767_225_600_000_000

  let seed: UInt64
  let scenario: Scenario
  let fault: Fault?
  var now: Time = 0
  var events = EventQueue<Event>()
  var isHealing = false
  var isDone = false
  var healingSince: Time = 0

  var managers: [ManagerHost] = []
  var agents: [AgentHost] = []
  var network = Wiring()
  let commands = CommandTable()
  var clients: [Client] = []
  var history = History()
  var operations = 0
  var connections = 0
  var snapshots = 0
  var users = Users()

  // Streams of randomness.
  var chance: Random
  var networkChance: Random
  var diskChance: Random
  var agentChance: Random
  var userChance: Random
  var misfortuneChance: Random
  var coreChance: Random
  var ambushChance: Random
  var walChance: Random
  var healthChance: Random
  var haltChance: Random
  var ambushes = Ambushes()

  var oracle: Oracle
  var rests = RestChecker()
  var figures = Figures()
  /// When the first manager applied that a task is to stop.
  var stopTimes: [TaskID: Time] = [:]
  /// When the first manager applied, for the last time, that a node is down.
  var lostAt: [NodeID: Time] = [:]
  /// A fingerprint of everything that happened.
  private(set) var trace: UInt64 = 0xCBF2_9CE4_8422_2325
  /// Nil: nobody listens.
  var listener: ((String) -> Void)?

  init(seed: UInt64, fault: Fault?) {
    self.seed = seed
    self.fault = fault
    scenario = Scenario(seed: seed)
    chance = Random(seed: seed)
    networkChance = chance.fork()
    diskChance = chance.fork()
    agentChance = chance.fork()
    userChance = chance.fork()
    misfortuneChance = chance.fork()
    coreChance = chance.fork()
    // Of its own: a seed without ambushes is what it was before there were any.
    ambushChance = Random(seed: ~seed)
    walChance = Random(seed: seed &* 0xD134_2543_DE82_EF95 &+ 1)
    healthChance = Random(seed: seed &* 0x9E6C_63D0_876A_3F6B &+ 1)
    haltChance = Random(seed: seed &* 0xC13F_A9A9_02A6_328F &+ 1)
    oracle = Oracle()
  }

  // MARK: - The run

  /// Throws `Violation`.
  func run() throws {
    try build()
    while let (time, event) = events.next() {
      now = time
      if isDone { break }
      if let until = pause(of: event), until > now {
        events.add(event, at: until + lateness(of: event, until))
        continue
      }
      figures.events += 1
      if figures.events > Self.eventsMax { throw Violation(checker: "convergence", what: "more than \(Self.eventsMax) events: it runs in circles") }
      mix(UInt64(bitPattern: time))
      try handle(event)
      if !isHealing, now >= scenario.faultsFor { try heal() }
      if isHealing, now - healingSince > Scenario.healingMax { throw Violation(checker: "convergence", what: notConverged()) }
    }
    try checkHistory()
  }

  func after(_ delay: Time, _ event: Event) { events.add(event, at: now + delay) }

  func mix(_ value: UInt64) { trace = (trace ^ value) &* 0x100_0000_01B3 }

  func tell(_ who: @autoclosure () -> String, _ what: @autoclosure () -> String) {
    guard let listener else { return }
    let micros = String(1_000_000 + now % 1_000_000).dropFirst()
    listener("\(now / 1_000_000).\(micros) \(who()): \(what())")
  }

  private func pause(of event: Event) -> Time? {
    switch event {
    case .tick(let m, _), .step(let m, _), .written(let m, _, _, _), .news(let m, _), .leadership(let m, _), .leaderTick(let m, _, _),
      .leaderAnswer(let m, _, _), .snapshotSent(let m, _, _, _):
      managers[m].pausedUntil
    case .agent(let a, _, _): agents[a].pausedUntil
    case .deliver(let packet):
      switch packet.to {
      case .manager(let m): managers[m].pausedUntil
      case .agent(let a): agents[a].pausedUntil
      case .client: nil
      }
    case .toManager(let c, _), .lostByManager(let c): managers[c.manager].pausedUntil
    case .toAgent(let c, _), .lostByAgent(let c): agents[c.agent].pausedUntil
    default: nil
    }
  }

  /// Who stood still finds what waited on every connection; which of them it reads first is chance.
  private func lateness(of event: Event, _ until: Time) -> Time {
    guard !scenario.ambushes.isEmpty, case .deliver(let packet) = event else { return 0 }
    var random = Random(seed: seed ^ UInt64(until) << 20 ^ packet.from.code)
    return Time(random.int(0...5_000))
  }

  private func handle(_ event: Event) throws {
    switch event {
    case .tick(let m, let life):
      guard managers[m].life == life, managers[m].isUp else { return }
      after(Time(scenario.tick) * Time(1_000 - managers[m].ratePermille) / 1_000, .tick(m, life: life))
      try input(.tick, to: managers[m])
    case .step(let m, let life): if managers[m].life == life { try step(managers[m]) }
    case .written(let m, let life, let number, let failure):
      if managers[m].life == life { try written(managers[m], number, failure) }
    case .synced(let m, let life):
      if managers[m].life == life, !managers[m].unsynced.isEmpty { managers[m].disk.write(managers[m].unsynced.removeFirst()) }
    case .news(let m, let life): if managers[m].life == life { try takeNews(managers[m]) }
    case .leadership(let m, let life): if managers[m].life == life { try takeLeadership(managers[m]) }
    case .leaderTick(let m, let life, let token):
      if managers[m].life == life, managers[m].wakeToken == token { try lead(managers[m], .tick) }
    case .leaderAnswer(let m, let life, let answer):
      if managers[m].life == life { try lead(managers[m], .answered(answer.number, answer.answer)) }
    case .snapshotSent(let m, let life, let peer, let succeeded):
      if managers[m].life == life {
        managers[m].sentTo[peer] = []
        try input(.snapshotSent(peer, succeeded: succeeded), to: managers[m])
      }
    case .startManager(let m): try start(managers[m])
    case .deliver(let packet): try deliver(packet)
    case .toManager(let connection, let message): try receive(connection, message)
    case .toAgent(let connection, let box): try receive(connection, box.message)
    case .lostByManager(let connection): try lostByManager(connection)
    case .lostByAgent(let connection): lostByAgent(connection)
    case .agent(let a, let life, let event): if agents[a].life == life, agents[a].isUp { try agentEvent(agents[a], event) }
    case .startAgent(let a): try start(agents[a])
    case .client(let c): try act(c)
    case .giveUp(let client, let operation): giveUp(client, operation)
    case .operation: try operate()
    case .anotherNetwork: replaceNetwork()
    case .administer: try administer()
    case .misfortune: try strike()
    case .ambush: try lieInWait()
    case .fell(let m, let life, let downFor): if managers[m].life == life { fell(managers[m], downFor: downFor) }
    case .mend(let mending): try mend(mending)
    case .look: try look()
    }
  }

  // MARK: - The beginning

  private func build() throws {
    tell("world", scenario.summary)
    let count = scenario.managers
    for number in 0..<scenario.agents { agents.append(AgentHost(number: number, node: NodeID(value: UInt128(10_000 + number)))) }
    for number in 0..<count { managers.append(newManager(number)) }

    var cluster = Cluster(id: .random(using: &chance), createdAt: managers[0].moment(0).wall)
    cluster.addressPool = IPv4Prefix("10.0.0.0/12")!
    var actions: [Action] = [.putCluster(cluster)]
    for agent in agents {
      var node = Node(id: agent.node, spec: NodeSpec(role: agent.number < count ? .manager : .worker), createdAt: cluster.createdAt)
      if agent.number < count { node.manager = ManagerStatus(raftID: managers[agent.number].raftID, address: managers[agent.number].address) }
      actions.append(.putNode(node))
    }
    for register in 0..<Client.registers { actions.append(.putNode(Node(id: Client.row(register), spec: NodeSpec(role: .worker), createdAt: .zero))) }
    var state = ClusterState()
    guard case .success = state.apply(Command(actions: actions), at: 1) else { throw Violation(checker: "world", what: "cannot be made") }
    oracle.begin(state)

    let members = managers.map { Membership.Member(raftID: $0.raftID, node: $0.node, address: $0.address, role: .voter) }
    for manager in managers {
      var batch = WriteBatch()
      batch.raftID = manager.raftID
      batch.hardState = StoredHardState(term: 1, vote: nil, committed: 1)
      batch.snapshot = .init(point: SnapshotPoint(index: 1, term: 1), state: state)
      batch.membership = Membership(members)
      manager.disk.write(batch)
      try start(manager)
    }
    for agent in agents { after(Time(chance.int(0...200_000)), .startAgent(agent.number)) }
    for number in 0..<scenario.clients {
      clients.append(Client(number: number))
      after(Time(chance.int(500_000...1_500_000)), .client(number))
    }
    after(.milliseconds(chance.int(500...1_500)), .operation)
    after(.milliseconds(chance.int(1_000...3_000)), .misfortune)
    if !scenario.ambushes.isEmpty { after(.seconds(1), .ambush) }
    after(.seconds(1), .administer)
    after(.milliseconds(200), .look)
  }

  func newManager(_ number: Int) -> ManagerHost {
    let node = number < min(agents.count, scenario.managers) ? agents[number].node : NodeID(value: UInt128(20_000 + number))
    let host = ManagerHost(
      number: number, raftID: RaftID(UInt64(number + 1)), node: node, diskDelayMax: scenario.diskMicrosecondsMax, fault: fault)
    host.wallOffset = scenario.clockSkew == 0 ? 0 : .milliseconds(chance.int(-scenario.clockSkew...scenario.clockSkew))
    host.ratePermille = scenario.ratePermille == 0 ? 0 : chance.int(0...scenario.ratePermille)
    return host
  }
}

/// An indirect payload, so that events stay small.
final class AssignmentsBox {
  let message: AssignmentsMessage
  init(_ message: AssignmentsMessage) { self.message = message }
}

/// How much happened: a run that goes nowhere proves nothing.
struct Figures {
  var events = 0
  var entries = 0
  var elections = 0
  var crashes = 0
  var snapshots = 0
  var calls = 0
  var tasks = 0
  var containers = 0
  var illnesses = 0
  var misfortunes = 0
  var members = 0
  var convergedAfter: Time = 0
}
