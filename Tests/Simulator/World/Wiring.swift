import Dispatcher
import Model
import Raft
import Replica

enum Address: Hashable {
  case manager(Int)
  case agent(Int)
  case client(Int)

  var code: UInt64 {
    switch self {
    case .manager(let number): UInt64(number)
    case .agent(let number): 1_000 + UInt64(number)
    case .client(let number): 1_000_000 + UInt64(number)
    }
  }
}

struct Packet {
  var from: Address
  var to: Address
  var body: Body

  enum Body {
    case raft([Message])
    case snapshot(IncomingSnapshot, number: Int)
    /// You were removed.
    case removed
    case request(Request, hops: Int)
    case reply(operation: Int, Reply)
    /// An agent dials a manager, and what it is told.
    case dial(life: Int, attempt: Int)
    case refused(attempt: Int, leader: Int?)
  }
}

/// An agent's session as a connection: in order or broken.
final class Connection {
  let number: Int
  let agent: Int
  let agentLife: Int
  let manager: Int
  let managerLife: Int
  var session: SessionID?
  var openedAt: Time
  /// Neither end gets anything any more, whether it knows it or not.
  var isBroken = false
  var lastToAgent: Time = 0
  var lastToManager: Time = 0
  /// The index of the state that the leader told from, by the number that each message results in.
  var basis: [UInt64: UInt64] = [:]

  init(number: Int, agent: Int, agentLife: Int, manager: Int, managerLife: Int, openedAt: Time) {
    (self.number, self.agent, self.agentLife, self.manager, self.managerLife) = (number, agent, agentLife, manager, managerLife)
    self.openedAt = openedAt
  }
}

enum ToManager {
  case heartbeat
  case reports([TaskReport])
  case resync
  case applied(UInt64)
}

/// Who reaches whom, and how slowly. Directed: one way may be cut alone.
struct Wiring {
  struct Link: Hashable {
    var from: Address
    var to: Address
  }
  private var cut: Set<Link> = []
  /// Extra microseconds for everything that leaves or enters a host.
  private var clogged: [Address: Int] = [:]

  func isCut(_ from: Address, _ to: Address) -> Bool { !cut.isEmpty && cut.contains(Link(from: from, to: to)) }
  var isWhole: Bool { cut.isEmpty && clogged.isEmpty }
  mutating func cut(_ from: Address, _ to: Address) { cut.insert(Link(from: from, to: to)) }
  mutating func clog(_ host: Address, microseconds: Int) { clogged[host] = microseconds }
  mutating func heal() {
    cut = []
    clogged = [:]
  }

  /// Between two of them, both ways.
  mutating func split(_ one: [Address], from other: [Address], bothWays: Bool) {
    for a in one {
      for b in other where a != b {
        cut(a, b)
        if bothWays { cut(b, a) }
      }
    }
  }

  func delay(_ from: Address, _ to: Address, _ scenario: Scenario, isCalm: Bool, _ random: inout Random) -> Time {
    var delay = 100 + random.skewed(0...(isCalm ? 1_000 : scenario.delayMax))
    if !isCalm, random.chance(permille: scenario.slowPermille) { delay += random.int(20_000...400_000) }
    delay += (clogged[from] ?? 0) + (clogged[to] ?? 0)
    return Time(delay)
  }
}
