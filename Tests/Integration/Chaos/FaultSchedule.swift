import Model

/// What goes wrong and when: all of it from one seed, so that a failure's schedule can be run again.
struct FaultSchedule {
  enum Target: String { case leader, follower, all }
  enum Fault: Hashable {
    /// kill -9 of the managers, or of every process of the whole host. What the kernel has of their files survives both: only the simulator
    /// and `StoreTests` lose writes that no fsync answered for.
    case kill(Target), killHost(Target)
    /// SIGSTOP of the managers.
    case pause(Target)
    /// The leader and the others hear nothing of each other.
    case isolate
    /// What the leader sends is lost; what is sent to it is lost.
    case mute, deafen
    /// Two managers, of which one may lead.
    case cut(oneWay: Bool)
    /// No room on the managers' disks.
    case fill(Target)
  }
  struct Step {
    var fault: Fault
    /// After the beginning, and how long it lasts.
    var begins: Duration
    var lasts: Duration
    /// Decides which follower, which two.
    var choice: UInt64
  }
  let steps: [Step]

  /// More of what changes the leader.
  private static let faults: [(Fault, weight: Int)] = [
    (.kill(.leader), 4), (.kill(.follower), 1), (.kill(.all), 1), (.killHost(.leader), 1), (.killHost(.follower), 1), (.pause(.leader), 4),
    (.pause(.follower), 1), (.pause(.all), 1), (.isolate, 4), (.mute, 3), (.deafen, 3), (.cut(oneWay: false), 2), (.cut(oneWay: true), 2),
    (.fill(.leader), 3), (.fill(.follower), 1), (.fill(.all), 1),
  ]

  /// Faults last 0.2 to 5 s (disks a little longer: what is in the database's files may be written again for a while), and every second
  /// one begins while the one before it lasts.
  init(seed: UInt64, duration: Duration) {
    var random = SplitMix64(seed: seed)
    var steps: [Step] = []
    var begins = Duration.seconds(2)
    while true {
      var fault = Self.faults[0].0
      var pick = Int.random(in: 0..<Self.faults.reduce(0) { $0 + $1.weight }, using: &random)
      for (candidate, weight) in Self.faults {
        if pick < weight {
          fault = candidate
          break
        }
        pick -= weight
      }
      var lasts = Duration.milliseconds(Int.random(in: 200...5000, using: &random))
      if case .fill = fault { lasts += .seconds(3) }
      guard begins + lasts < duration else { break }
      steps.append(Step(fault: fault, begins: begins, lasts: lasts, choice: random.next()))
      let overlaps = Bool.random(using: &random)
      begins +=
        (overlaps ? .milliseconds(Int.random(in: 0...1000, using: &random)) : lasts + .milliseconds(Int.random(in: 200...3000, using: &random)))
    }
    self.steps = steps
  }
}
