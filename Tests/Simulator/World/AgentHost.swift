import Model
import Worker

/// One agent's machine: its containers, and while it is up, its process.
final class AgentHost {
  struct Container {
    var isRunning: Bool
    var exitCode: Int32 = 0
    var startedAt: Time
    /// nil: it is not checked.
    var check: HealthCheck.Config?
    /// When its probes begin to fail, and when they succeed again; `Time.max`: never.
    var illFrom: Time = .max
    var wellFrom: Time = 0
    func isIll(at time: Time) -> Bool { time >= illFrom && time < wellFrom }
  }

  let number: Int
  let node: NodeID
  let description: NodeDescription
  let underlay: IPv4Address

  var life = 0
  var isUp = false
  var pausedUntil: Time = 0
  var wallOffset: Time = 0

  // What outlives the process.
  var containers: [TaskID: Container] = [:]
  var kept: AssignmentsMessage?
  /// The index of the state that it was made from, and of what the leader of the last session was told to be lived by.
  var keptIndex: UInt64 = 0
  var word: UInt64 = 0
  /// Whose addresses its kernel takes them for.
  var known: [RestChecker.Place: RestChecker.Owner] = [:]
  var knownNetworks: [UInt32: NetworkID] = [:]
  /// What names and load balancers answer: endpoints as of the last pass over the kernel, whose rules stay when the process dies.
  var ready: Set<TaskID> = []
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
  var applied = AppliedAssignments()
  /// The index of the state that its worker was told from.
  var knownIndex: UInt64 = 0
  var checks: [TaskID: HealthCheck] = [:]

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
    (applied, checks) = (AppliedAssignments(), [:])
    (connection, isOpen, starting, isNetworkPassDue, hint, failures, keptAt) = (nil, false, [], false, nil, 0, 0)
  }
}
