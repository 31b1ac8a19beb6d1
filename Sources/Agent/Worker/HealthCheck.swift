import Model

/// One container's health check: when to probe, and what the results mean. A value; the shell runs the probes and sleeps.
/// After moby daemon/health.go, but for one thing: until the first `interval` is over it probes as often as in a start period, and failures
/// do not count. So a task need not wait for its first interval to be found healthy, and is unhealthy at the same instant as there.
public struct HealthCheck: Sendable {
  /// What is declared, with Docker's defaults for the rest.
  public struct Config: Hashable, Sendable, Codable {
    /// What to execute in the container.
    public var arguments: [String]
    public var interval: Nanoseconds = .seconds(30)
    public var timeout: Nanoseconds = .seconds(30)
    public var retries = 3
    public var startPeriod: Nanoseconds = 0
    public var startInterval: Nanoseconds = .seconds(5)

    /// A service's declaration over its image's; nil: none, or switched off. What the service leaves out is the image's.
    /// - Parameter shell: the image's, which a CMD-SHELL is handed to, whoever declares it (moby daemon/health.go, getShell); empty: /bin/sh -c.
    public init?(_ service: HealthConfig?, image: HealthConfig?, shell: [String] = []) {
      func pick<Value>(_ field: KeyPath<HealthConfig, Value?>, _ isSet: (Value) -> Bool) -> Value? {
        for config in [service, image] { if let value = config?[keyPath: field], isSet(value) { return value } }
        return nil
      }
      guard let test = pick(\.test, { !$0.isEmpty }) else { return nil }
      switch test[0] {
      case "CMD" where test.count > 1: arguments = Array(test.dropFirst())
      case "CMD-SHELL" where test.count > 1: arguments = (shell.isEmpty ? ["/bin/sh", "-c"] : shell) + [test[1]]
      default: return nil
      }
      if let value = pick(\.interval, { $0 > 0 }) { interval = value }
      if let value = pick(\.timeout, { $0 > 0 }) { timeout = value }
      if let value = pick(\.retries, { $0 > 0 }) { retries = value }
      if let value = pick(\.startPeriod, { $0 > 0 }) { startPeriod = value }
      if let value = pick(\.startInterval, { $0 > 0 }) { startInterval = value }
    }

    /// From then on, after the start, failures count.
    var countsAfter: Nanoseconds { max(startPeriod, interval) }
  }

  public enum Input: Hashable, Sendable {
    case begin
    /// The time that was asked for is over.
    case due
    case probed(TaskHealth.Probe)
  }
  public enum Output: Hashable, Sendable {
    /// Give `due` after this time.
    case wait(Nanoseconds)
    /// Execute the arguments; give `probed` when they have ended, at the latest after the timeout.
    case probe
    /// To be told to the manager.
    case changed(TaskHealth)
  }

  public let config: Config
  private let started: Timestamp
  private(set) var health: TaskHealth

  /// - Parameter isHealthy: found again after a restart of the agent, and healthy before.
  public init(_ config: Config, started: Timestamp, isHealthy: Bool = false) {
    self.config = config
    self.started = started
    health = TaskHealth(status: isHealthy ? .healthy : .starting)
  }

  /// `now` must not go back. After `unhealthy` nothing more is asked for.
  public mutating func step(_ input: Input, now: Timestamp) -> [Output] {
    switch input {
    case .begin: return [.wait(pause(now))]
    case .due: return [.probe]
    case .probed(let probe): return take(probe, now)
    }
  }

  private mutating func take(_ probe: TaskHealth.Probe, _ now: Timestamp) -> [Output] {
    let isFirst = health.log.isEmpty
    let wasFailing = health.failingStreak > 0
    health.add(probe)
    var isNews = false
    if probe.exitCode == 0 {
      isNews = health.status != .healthy || wasFailing
      health.status = .healthy
      health.failingStreak = 0
    } else if health.status == .starting, now - started < config.countsAfter {
      isNews = isFirst
    } else {
      health.failingStreak += 1
      isNews = health.failingStreak == 1
      if health.failingStreak >= config.retries {
        health.status = .unhealthy
        return [.changed(health)]
      }
    }
    return (isNews ? [.changed(health)] : []) + [.wait(pause(now))]
  }

  private func pause(_ now: Timestamp) -> Nanoseconds {
    let left = Nanoseconds(config.countsAfter.rawValue - (now - started).rawValue)
    return health.status == .starting && left > 0 ? min(config.startInterval, config.interval, left) : config.interval
  }
}
