import Foundation
import LinuxSystem
import Logging
import Model
import Runtime
import Surroundings
import Worker

/// The shell of one container's `HealthCheck`: sleeps, probes, tells. Ends with its task, with the container, and when it is unhealthy.
struct HealthRunner: Sendable {
  let container: String
  let config: HealthCheck.Config
  let runtime: ContainerRuntime
  let log: Logger
  /// Healthy before the agent was restarted.
  var isHealthy = false

  func run(_ tell: @Sendable (TaskHealth) async -> Void) async {
    // Never goes back, as the wall clock may.
    let (wall, clock) = (Timestamp.now, ContinuousClock.now)
    func now() -> Timestamp { wall + Nanoseconds((ContinuousClock.now - clock).nanoseconds) }
    var check = HealthCheck(config, started: wall, isHealthy: isHealthy)
    var next = check.step(.begin, now: now())
    while !next.isEmpty {
      var input: HealthCheck.Input?
      for output in next {
        switch output {
        case .changed(let health): await tell(health)
        case .wait(let time):
          do { try await Task.sleep(for: time.duration) } catch { return }
          input = .due
        case .probe:
          guard let probe = await probe() else { return }
          input = .probed(probe)
        }
      }
      guard let input, !Task.isCancelled else { return }
      next = check.step(input, now: now())
    }
  }

  /// nil when there is nothing to probe any more.
  private func probe() async -> TaskHealth.Probe? {
    let start = Timestamp.now
    do {
      let result = try await runtime.probe(container, config.arguments, timeout: config.timeout.duration, outputMax: TaskHealth.outputMax)
      var output = String(decoding: result.output, as: UTF8.self).replacing("\0", with: "")
      if result.exitCode == nil {
        // Docker's words.
        output = "Health check exceeded timeout (\(seconds(config.timeout)))" + (output.isEmpty ? "" : ": \(output)")
      }
      return TaskHealth.Probe(start: start, end: Timestamp.now, exitCode: result.exitCode ?? -1, output: output)
    } catch  where error.kind == .notRunning || error.kind == .noSuchContainer {
      return nil
    } catch {
      log.warning("health check of \(container): \(error)")
      return TaskHealth.Probe(start: start, end: Timestamp.now, exitCode: -1, output: "\(error)")
    }
  }

  private func seconds(_ time: Nanoseconds) -> String {
    let milliseconds = time.rawValue / 1_000_000
    return milliseconds % 1000 == 0 ? "\(milliseconds / 1000)s" : "\(Double(milliseconds) / 1000)s"
  }
}

/// What a container's health check is, kept beside its files: a restarted agent must know it before any manager answers, and the image's
/// name may mean another image by then.
extension Rooms {
  private func healthFile(_ id: TaskID) -> String { "\(taskDirectory(id))/health" }

  func keepHealth(_ config: HealthCheck.Config?, of id: TaskID) throws {
    guard let config else { return }
    try JSONEncoder().encode(config).write(to: URL(fileURLWithPath: healthFile(id)))
  }

  func keptHealth(of id: TaskID) -> HealthCheck.Config? {
    FileManager.default.contents(atPath: healthFile(id)).flatMap { try? JSONDecoder().decode(HealthCheck.Config.self, from: $0) }
  }
}
