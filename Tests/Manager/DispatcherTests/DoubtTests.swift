import Model
import Testing

@testable import Dispatcher

/// A leader with nine nodes, whose proposals are applied at once.
private struct World {
  var dispatcher = Dispatcher()
  var state = ClusterState()
  var told: [String] = []
  static let count = 9

  init(connected: ClosedRange<Int>? = 1...9) {
    for number in 1...Self.count { _ = state.speculate([.putNode(Self.node(number))]) }
    carryOut(dispatcher.reset(state: state, now: at(0)), at(0))
    if let connected { for number in connected { connect(number, 0) } }
    told = []
  }

  static func node(_ number: Int) -> Node {
    var node = Node(id: NodeID(value: UInt128(number)), spec: NodeSpec(role: .worker), createdAt: .zero)
    node.description = NodeDescription(
      hostname: "h\(number)", platform: Platform(architecture: nil, os: nil), resources: .init(nanoCPUs: 1, memoryBytes: 1),
      engine: .init(engineVersion: "1"))
    node.status = NodeStatus(state: .ready, address: IPv4Address(UInt32(number)))
    return node
  }

  /// `session` of node n is n, and n + 100 when it connects again.
  mutating func connect(_ number: Int, _ second: Double, again: Bool = false) {
    let node = Self.node(number)
    step(
      .connected(
        node: node.id, session: SessionID(UInt64(number + (again ? 100 : 0))), description: node.description!, underlay: node.status.address!), second
    )
  }
  mutating func hear(_ numbers: some Sequence<Int>, _ second: Double) {
    for number in numbers { step(.heartbeat(SessionID(UInt64(number))), second) }
  }
  mutating func step(_ input: DispatcherInput, _ second: Double) { carryOut(dispatcher.step(input, state: state, now: at(second)), at(second)) }

  /// Ticks every 100 ms, which is more often than asked for.
  mutating func pass(_ from: Double, _ to: Double) {
    var second = from
    while second <= to {
      step(.tick, second)
      second += 0.1
    }
  }

  private mutating func carryOut(_ outputs: [DispatcherOutput], _ now: Timestamp) {
    var changes: [StateChange] = []
    for output in outputs {
      switch output {
      case .propose(let actions):
        for case .nodeStatus(let id, let status) in actions { told.append("\(id.value) \(status.state)") }
        changes += state.speculate(actions)
      case .warning(let text): told.append(String(text.prefix { $0 != ":" }))
      case .close(let id, _): told.append("close \(id.rawValue)")
      default: break
      }
    }
    if !changes.isEmpty { carryOut(dispatcher.step(.changes(changes), state: state, now: now), now) }
  }
  var states: String { (1...Self.count).map { String(state.nodes[Self.node($0).id]!.status.state.rawValue.prefix(1)) }.joined() }
}

private func at(_ seconds: Double) -> Timestamp { Timestamp(nanoseconds: 1_000_000_000_000) + .seconds(seconds) }

@Suite struct DoubtTests {
  @Test("a third that is heard is enough: what is silent is down after three seconds", arguments: [3, 5, 8])
  func ordinary(heard: Int) {
    var world = World()
    for second in 1...3 { world.hear(1...heard, Double(second)) }
    world.pass(2.9, 3.1)
    #expect(world.states == String(repeating: "r", count: heard) + String(repeating: "d", count: 9 - heard))
    #expect(world.dispatcher.doubt == nil)
  }

  @Test("fewer: nobody is down, the silent are unknown, for a minute at most", arguments: [0, 2])
  func held(heard: Int) {
    var world = World()
    for second in 1...62 {
      world.hear(1..<heard + 1, Double(second))
      world.pass(Double(second), Double(second) + 0.9)
      if second == 3 {
        #expect(world.told.first == "\(heard) of 9 nodes are heard")
        #expect(world.states == String(repeating: "r", count: heard) + String(repeating: "u", count: 9 - heard))
        #expect(!world.told.contains { $0.hasPrefix("close") })
      }
    }
    let message = world.state.nodes[World.node(9).id]!.status.message
    #expect(message.contains("left alone for up to 60 s"))
    world.hear(1..<heard + 1, 63)
    world.pass(63, 63.1)
    #expect(world.states == String(repeating: "r", count: heard) + String(repeating: "d", count: 9 - heard))
    // What comes afterwards is an ordinary loss again.
    world.hear(1..<heard + 1, 64)
    #expect(world.dispatcher.doubt == nil || heard == 0)
  }

  @Test("heartbeats that were only late end it: everybody is ready on the session it had, and nobody was closed")
  func resumed() {
    var world = World()
    world.pass(0.1, 20)
    #expect(world.states == "uuuuuuuuu")
    world.told = []
    world.hear(1...9, 20.2)
    world.pass(20.3, 22)
    #expect(world.states == "rrrrrrrrr" && world.dispatcher.doubt == nil)
    #expect(!world.told.contains { $0.hasPrefix("close") || $0.hasSuffix("down") }, "\(world.told)")
  }

  @Test("when most are back, those that are still missing have two seconds more, then they are down")
  func partly() {
    var world = World()
    world.pass(0.1, 10)
    for number in 1...6 { world.connect(number, 11, again: true) }
    for second in 12...13 { world.hear(101...106, Double(second)) }
    world.connect(7, 12.5, again: true)
    #expect(world.states == "rrrrrrruu")
    world.pass(12.9, 13.1)
    #expect(world.states == "rrrrrrrdd")
    #expect(world.told.contains("close 8") && world.told.contains("close 9"))
    // A node that was given up comes back as ever.
    world.connect(8, 14, again: true)
    #expect(world.states == "rrrrrrrrd")
  }

  @Test("connections that broke one after the other are one event, as long as the others were not heard since")
  func broken() {
    var world = World()
    for number in 1...9 { world.hear([number], 1 + Double(number) / 10) }
    for number in 1...9 { world.step(.disconnected(SessionID(UInt64(number))), 2) }
    world.pass(2, 6)
    #expect(world.states == "uuuuuuuuu")
  }

  @Test("after a power cut the managers wait for the agents, which start later; a new leader takes over those that are unknown")
  func cold() {
    var world = World(connected: nil)
    world.pass(0.1, 8)
    #expect(world.states == "uuuuuuuuu")
    _ = world.dispatcher.reset(state: world.state, now: at(8))
    for number in 1...8 { world.connect(number, 9) }
    #expect(world.states == "rrrrrrrru")
    for second in 10...13 { world.hear(1...8, Double(second)) }
    world.pass(13, 13.1)
    #expect(world.states == "rrrrrrrrd")
  }

  @Test("traffic still goes to tasks of nodes that are unknown")
  func traffic() {
    var state = ClusterState()
    var node = World.node(1)
    let network = NetworkID(value: 5)
    node.status.state = .unknown
    var task = ClusterTask(id: TaskID(value: 1), service: ServiceID(value: 1), revision: 1, slot: 1, createdAt: .zero)
    task.node = node.id
    task.status.state = .running
    task.attachments = [NetworkAttachment(network: network, address: IPv4Address(1))]
    _ = state.speculate([.putNode(node), .createTask(task)])
    #expect(View(state).endpoint(task.id, network)?.ready == true)
    task.status.health = TaskHealth(status: .unhealthy)
    _ = state.speculate([.removeTask(task.id), .createTask(task)])
    #expect(View(state).endpoint(task.id, network)?.ready == false)
    _ = state.speculate([.nodeStatus(node.id, NodeStatus(state: .down, address: IPv4Address(1)))])
    #expect(View(state).endpoint(task.id, network)?.ready == false)
  }
}
