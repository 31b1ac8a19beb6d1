import Model
import Worker

/// One agent's machine: its containers, and while it is up, its process.
final class AgentHost {
  struct Container {
    var isRunning: Bool
    var exitCode: Int32 = 0
    var startedAt: Time
  }

  let number: Int
  let node: NodeID
  let description: NodeDescription
  let underlay: IPv4Address

  var life = 0
  var isUp = false
  var startedAt: Time = 0
  var pausedUntil: Time = 0
  var wallOffset: Time = 0

  // What outlives the process.
  var containers: [TaskID: Container] = [:]
  var kept: AssignmentsMessage?
  /// Whose addresses its kernel takes them for.
  var known: [RestChecker.Place: RestChecker.Owner] = [:]
  var knownNetworks: [UInt32: NetworkID] = [:]
  /// It never comes back in phase two.
  var isDead = false
  /// When what was last asked to be kept is on its disk.
  var keptAt: Time = 0

  // The process.
  var worker = Worker()
  var connection: Connection?
  var isOpen = false
  var attempts = 0
  var failures = 0
  /// Where to dial next: the leader, if somebody said who that is.
  var hint: Int?
  /// Orders to start that were given and not carried out yet.
  var starting: Set<TaskID> = []
  var isNetworkPassDue = false
  /// What names and load balancers answer: endpoints as of the last pass.
  var ready: Set<TaskID> = []

  init(number: Int, node: NodeID) {
    (self.number, self.node) = (number, node)
    underlay = IPv4Address(0xC0A8_0000 + UInt32(number) + 1)
    description = NodeDescription(
      hostname: "host\(number)", platform: Platform(architecture: "x86_64", os: "linux"),
      resources: .init(nanoCPUs: 64_000_000_000, memoryBytes: 64 << 30), engine: .init(engineVersion: "1"))
  }

  func wall(_ now: Time) -> Timestamp { Timestamp(nanoseconds: (World.epoch + now + wallOffset) * 1_000) }

  func forget() {
    life += 1
    isUp = false
    worker = Worker()
    (connection, isOpen, starting, isNetworkPassDue, ready, hint, failures, keptAt) = (nil, false, [], false, [], nil, 0, 0)
  }
}
