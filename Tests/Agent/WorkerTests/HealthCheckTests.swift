import Model
import Testing

@testable import Worker

/// A container whose probes end as a table says, in a world where time passes only when it is waited for.
private struct Patient {
  var check: HealthCheck
  var now = Timestamp(nanoseconds: 1_000_000_000_000)
  let start = Timestamp(nanoseconds: 1_000_000_000_000)

  init(_ config: HealthConfig, isHealthy: Bool = false) {
    check = HealthCheck(HealthCheck.Config(config, image: nil)!, started: now, isHealthy: isHealthy)
  }

  /// "5s starting" for what is told, "5s ok" or "5s 1" for each probe, until the answers end or nothing more is asked for.
  mutating func live(_ answers: [Int32]) -> [String] {
    var told: [String] = []
    var answers = answers[...]
    var next = check.step(.begin, now: now)
    while let output = next.first {
      next.removeFirst()
      switch output {
      case .wait(let time):
        now = now + time
        next += check.step(.due, now: now)
      case .probe:
        guard let code = answers.popFirst() else { return told }
        told.append("\(seconds) \(code == 0 ? "ok" : "exit \(code)")")
        next += check.step(.probed(.init(start: now, end: now, exitCode: code, output: "out")), now: now)
      case .changed(let health):
        told[told.count - 1] += " -> \(health.status)" + (health.failingStreak > 0 ? " \(health.failingStreak)" : "")
      }
    }
    return told + ["over"]
  }
  private var seconds: String { "\((now - start).rawValue / 1_000_000_000)s" }
}

private func config(interval: Double? = nil, retries: Int? = nil, startPeriod: Double? = nil, startInterval: Double? = nil) -> HealthConfig {
  var config = HealthConfig()
  config.test = ["CMD", "true"]
  config.interval = interval.map { .seconds($0) }
  config.retries = retries
  config.startPeriod = startPeriod.map { .seconds($0) }
  config.startInterval = startInterval.map { .seconds($0) }
  return config
}

struct HealthCheckTests {
  @Test("healthy at the first success, then a probe in every interval; only changes are told")
  func healthy() {
    var patient = Patient(config(interval: 10))
    #expect(patient.live([0, 0, 0]) == ["5s ok -> healthy", "15s ok", "25s ok"])
  }

  @Test("with Docker's defaults it is unhealthy when it is there: after three failures in intervals of 30 s; earlier ones do not count")
  func defaults() {
    var patient = Patient(config())
    #expect(
      patient.live([1, 1, 1, 1, 1, 1, 1, 1, 1]) == [
        "5s exit 1 -> starting", "10s exit 1", "15s exit 1", "20s exit 1", "25s exit 1", "30s exit 1 -> starting 1", "60s exit 1",
        "90s exit 1 -> unhealthy 3", "over",
      ])
  }

  @Test("failures of the start period do not count, a success ends it")
  func startPeriod() {
    var patient = Patient(config(interval: 2, retries: 2, startPeriod: 5, startInterval: 1))
    #expect(
      patient.live([1, 1, 0, 1, 1, 1]) == [
        "1s exit 1 -> starting", "2s exit 1", "3s ok -> healthy", "5s exit 1 -> healthy 1", "7s exit 1 -> unhealthy 2", "over",
      ])
    patient = Patient(config(interval: 2, retries: 2, startPeriod: 5, startInterval: 3))
    #expect(patient.live([1, 1, 1, 1]) == ["2s exit 1 -> starting", "4s exit 1", "5s exit 1 -> starting 1", "7s exit 1 -> unhealthy 2", "over"])
  }

  @Test("a success between failures begins the count anew, and is told when a failure was")
  func streak() {
    var patient = Patient(config(interval: 1, retries: 3))
    #expect(
      patient.live([0, 1, 1, 0, 1, 1, -1]) == [
        "1s ok -> healthy", "2s exit 1 -> healthy 1", "3s exit 1", "4s ok -> healthy", "5s exit 1 -> healthy 1", "6s exit 1",
        "7s exit -1 -> unhealthy 3", "over",
      ])
  }

  @Test("found again by a restarted agent it is healthy until probes fail; its start period is over")
  func recovered() {
    var patient = Patient(config(interval: 4, retries: 2, startPeriod: 60), isHealthy: true)
    #expect(patient.live([1, 1]) == ["4s exit 1 -> healthy 1", "8s exit 1 -> unhealthy 2", "over"])
  }

  @Test("a service's declaration goes before its image's, piece by piece; NONE switches off")
  func merged() {
    var image = config(interval: 7, retries: 9)
    image.test = ["CMD-SHELL", "curl x"]
    var own = HealthConfig()
    own.retries = 2
    let merged = HealthCheck.Config(own, image: image)
    #expect(merged?.arguments == ["/bin/sh", "-c", "curl x"])
    #expect(merged?.interval == .seconds(7) && merged?.retries == 2 && merged?.timeout == .seconds(30))
    #expect(HealthCheck.Config(nil, image: image)?.retries == 9)
    // The image's shell, whoever declares the line (moby daemon/health.go, getShell).
    let shell = ["/bin/bash", "-o", "pipefail", "-c"]
    #expect(HealthCheck.Config(own, image: image, shell: shell)?.arguments == shell + ["curl x"])
    own.test = ["CMD-SHELL", "curl y"]
    #expect(HealthCheck.Config(own, image: image, shell: shell)?.arguments == shell + ["curl y"])
    own.test = ["CMD", "curl", "z"]
    #expect(HealthCheck.Config(own, image: image, shell: shell)?.arguments == ["curl", "z"])
    own.test = ["NONE"]
    #expect(HealthCheck.Config(own, image: image) == nil)
    #expect(HealthCheck.Config(HealthConfig(), image: nil) == nil && HealthCheck.Config(nil, image: nil) == nil)
  }

  @Test("at most five probes and 4 KiB of what they said are kept, the newest whole")
  func bounds() {
    var health = TaskHealth(status: .starting)
    for number in 1...7 {
      let output = "\(number)" + String(repeating: "x", count: 1500)
      health.add(.init(start: .zero, end: .zero, exitCode: 1, output: output))
    }
    #expect(health.log.map { $0.output.prefix(1) } == ["", "", "5", "6", "7"])
    #expect(health.log.last?.output.utf8.count == 1501)
    #expect(health.log.reduce(0) { $0 + $1.output.utf8.count } == TaskHealth.outputMax)
  }
}
