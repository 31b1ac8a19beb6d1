import Dispatcher
import Model
import Orchestrator
import Testing

@testable import Leader

/// A leader's core beside a log that takes whatever is proposed when it is told to.
private struct World {
  var core = LeaderCore()
  var state = ClusterState()
  var generator = SystemRandomNumberGenerator()
  var seconds: Int64 = 1_000
  /// What the core wants, in order, as short words.
  var words: [String] = []
  var proposed: [(number: ProposalNumber, command: Command)] = []
  var wakeAt: Timestamp?
  let service = ServiceID(value: 7)
  let node = NodeID(value: 9)

  init() {
    var node = Node(id: node, spec: NodeSpec(role: .worker), createdAt: .zero)
    node.description = description
    node.status = NodeStatus(state: .ready, address: IPv4Address(0xC0A8_0001))
    node.manager = ManagerStatus(raftID: RaftID(1), address: "one:2377")
    apply(Command(actions: [.putCluster(Cluster(id: .random(using: &generator), createdAt: .zero)), .putNode(node)]))
  }

  let description = NodeDescription(
    hostname: "host", platform: Platform(architecture: "x86_64", os: "linux"), resources: .init(nanoCPUs: 8_000_000_000, memoryBytes: 8 << 30),
    engine: .init(engineVersion: "1"))
  var now: Moment { Moment(wall: Timestamp(nanoseconds: seconds * 1_000_000_000), steady: Timestamp(nanoseconds: seconds * 1_000_000_000)) }

  mutating func step(_ input: LeaderInput) {
    for output in core.step(input, now: now, generator: &generator) {
      switch output {
      case .propose(let number, let command):
        proposed.append((number, command))
        words.append("propose \(command.actions.count)")
      case .send: words.append("send")
      case .close: words.append("close")
      case .closeAll: words.append("close all")
      case .announce: words.append("announce")
      case .wakeAt(let instant): wakeAt = instant
      case .warning(let text): words.append("warning: \(text)")
      }
    }
  }

  @discardableResult
  mutating func apply(_ command: Command) -> [StateChange] {
    guard case .success(let changes) = state.apply(command, at: state.index + 1) else { return [] }
    return changes
  }

  /// The oldest proposal is applied and answered; the news comes first or last.
  mutating func commit(answerFirst: Bool = true) {
    let (number, command) = proposed.removeFirst()
    let changes = apply(command)
    if answerFirst { step(.answered(number, .applied(index: state.index))) }
    step(.changes(changes, state))
    if !answerFirst { step(.answered(number, .applied(index: state.index))) }
  }

  mutating func settle() { while !proposed.isEmpty { commit() } }

  mutating func deploy(replicas: UInt64 = 2) throws {
    var spec = ServiceSpec(name: "web", taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "app:1")), mode: .replicated(replicas))
    spec.labels = [:]
    let made = try ServiceEdits.create(spec, state: state, now: now.wall, generator: &generator)
    let changes = apply(made.command)
    step(.changes(changes, state))
  }

  mutating func takeWords() -> [String] {
    defer { words = [] }
    return words
  }
}

@Suite("Leader")
struct LeaderTests {
  @Test("it does nothing while another manager leads")
  func follower() throws {
    var world = World()
    world.step(.follows(leader: "two:2377"))
    try world.deploy()
    world.step(.tick)
    world.step(.session(.heartbeat(SessionID(1))))
    #expect(world.words == [])
  }

  @Test("one decision is in flight, and the next waits until this one is in the state", arguments: [true, false])
  func oneInFlight(answerFirst: Bool) throws {
    var world = World()
    world.step(.leads(term: 3, state: world.state))
    // The ingress network and the node's address on it.
    #expect(world.takeWords() == ["announce", "propose 2"])
    try world.deploy()
    #expect(world.takeWords() == [])
    world.commit(answerFirst: answerFirst)
    #expect(world.takeWords() == ["propose 2"])
    let (_, command) = world.proposed[0]
    #expect(command.actions.allSatisfy { if case .createTask(let task) = $0 { task.node == world.node } else { false } })
    world.commit(answerFirst: answerFirst)
    #expect(world.takeWords() == [])
  }

  @Test("after a refusal it decides anew at once, after an unknown outcome 100 ms later")
  func failures() throws {
    var world = World()
    world.step(.leads(term: 3, state: world.state))
    _ = world.takeWords()
    world.step(.answered(world.proposed.removeFirst().number, .refused(.outOfSequence)))
    #expect(world.takeWords() == ["warning: a decision was not applied (update out of sequence); deciding anew", "propose 2"])
    world.step(.answered(world.proposed.removeFirst().number, .failed("x")))
    #expect(world.takeWords() == ["warning: a decision was not applied (x); deciding anew"])
    #expect(world.wakeAt == world.now.steady + LeaderCore.retryAfter)
    world.step(.tick)
    #expect(world.takeWords() == [])
    world.seconds += 1
    world.step(.tick)
    #expect(world.takeWords() == ["propose 2"])
  }

  @Test("what was proposed in an earlier term is nobody's business, and every session ends with the term")
  func terms() throws {
    var world = World()
    world.step(.leads(term: 3, state: world.state))
    let old = world.proposed.removeFirst()
    _ = world.takeWords()
    world.step(.leads(term: 5, state: world.state))
    #expect(world.takeWords() == ["close all", "announce", "propose 2"])
    world.step(.answered(old.number, .applied(index: 99)))
    #expect(world.takeWords() == [])
    world.step(.follows(leader: nil))
    #expect(world.takeWords() == ["close all"])
    world.step(.answered(world.proposed.removeFirst().number, .applied(index: world.state.index)))
    #expect(world.takeWords() == [])
  }

  @Test("reports that come while one is under way share the next entry; a cluster that is busy or in trouble gets it again")
  func reports() throws {
    var world = World()
    world.step(.leads(term: 3, state: world.state))
    world.settle()
    try world.deploy(replicas: 3)
    world.settle()
    world.step(.session(.connected(node: world.node, session: SessionID(1), description: world.description, underlay: IPv4Address(0xC0A8_0001))))
    _ = world.takeWords()
    for (offset, task) in world.state.tasks.keys.sorted().enumerated() {
      let status = TaskStatus(state: .accepted, timestamp: world.now.wall, message: "accepted \(offset)")
      world.step(.session(.report(SessionID(1), [TaskReport(task: task, status: status)])))
    }
    #expect(world.takeWords() == ["propose 1"])
    world.step(.answered(world.proposed.removeFirst().number, .busy("full")))
    #expect(world.takeWords() == [])
    world.seconds += 1
    world.step(.tick)
    #expect(world.takeWords() == ["propose 1"])
    // What an agent has told it tells once: nothing of it is lost, and the log is not filled with it.
    for words in [["warning: reports were not applied (the disk is full); trying again"], []] {
      world.step(.answered(world.proposed.removeFirst().number, .failed("the disk is full")))
      #expect(world.takeWords() == words)
      world.seconds += 1
      world.step(.session(.heartbeat(SessionID(1))))
      world.step(.tick)
      #expect(world.takeWords() == ["propose 1"])
    }
    world.commit()
    #expect(world.takeWords() == ["propose 2"])
    world.commit()
    #expect(world.state.tasks.values.allSatisfy { $0.status.state == .accepted })
  }

  @Test("an agent's silence is measured by the steady clock, whatever the wall clock does", arguments: [-3_600, 3_600])
  func clockJump(jump: Int64) {
    var world = World()
    world.step(.leads(term: 3, state: world.state))
    world.settle()
    world.step(.session(.connected(node: world.node, session: SessionID(1), description: world.description, underlay: IPv4Address(0xC0A8_0001))))
    func moment(_ second: Int64) -> Moment {
      Moment(
        wall: Timestamp(nanoseconds: (second + jump) * 1_000_000_000), steady: Timestamp(nanoseconds: second * 1_000_000_000))
    }
    let start = world.seconds
    // The only node there is: its silence is doubted first.
    func doubts(_ outputs: [LeaderOutput]) -> Int { outputs.count { if case .warning = $0 { true } else { false } } }
    var doubted = 0
    for second in start + 1..<start + 10 {
      doubted += doubts(world.core.step(.session(.heartbeat(SessionID(1))), now: moment(second), generator: &world.generator))
      doubted += doubts(world.core.step(.tick, now: moment(second), generator: &world.generator))
    }
    #expect(doubted == 0)
    doubted += doubts(world.core.step(.tick, now: moment(start + 13), generator: &world.generator))
    #expect(doubted == 1)
  }

  @Test("the leader that was lost has 2.5 s to say that its host lives, others 5 s")
  func predecessor() {
    var world = World()
    world.step(.follows(leader: "one:2377"))
    world.step(.leads(term: 3, state: world.state))
    #expect(world.wakeAt == world.now.steady + Dispatcher.predecessorGrace)
    var other = World()
    other.step(.leads(term: 3, state: other.state))
    #expect(other.wakeAt == other.now.steady + Dispatcher.leadershipGrace)
  }

  @Test("a missed change makes it begin again, but not beside a decision that is under way")
  func resync() throws {
    var world = World()
    world.step(.leads(term: 3, state: world.state))
    _ = world.takeWords()
    world.apply(Command(actions: []))
    world.step(.resync(world.state))
    #expect(world.takeWords() == ["announce"])
    world.commit()
    // It has to look at everything again; there is nothing left to do.
    #expect(world.takeWords() == [])
    #expect(world.state.networks.count == 1)
  }
}
