import API
import APIClient
import ArgumentParser
import Model

/// Waits until services are as asked, and shows how far they are: a block that redraws on a terminal, lines otherwise. Pushed by
/// `/events`.
struct Progress: Sendable {
  let client: APIClient
  var quiet = false
  /// Seconds after which the waiting ends, not the work.
  var timeout = 300
  var rollingBack = false
  /// Ids of services that are only waited for: an update of theirs that ended earlier is no failure.
  var unchanged: Set<String> = []
  /// A service whose tasks failed on the way must hold this long before it counts as converged.
  static let stableSeconds = 5
  /// A task may be pending for a reason this long before that is the answer.
  static let pendingSeconds = 15

  /// Returns when all have converged. Otherwise throws the reasons.
  func wait(for services: [String]) async throws {
    guard !services.isEmpty else { return }
    Terminal.explainInterrupt("Stopped watching; the cluster goes on. orch ps shows how far it is.")
    let pulses = Pulses(client, types: ["task", "service", "node"])
    defer { pulses.end() }
    // Some answers are a matter of time alone: a task that stays pending, one that held long enough, the end of patience.
    let ticker = Task {
      while !Task.isCancelled {
        try? await Task.sleep(for: .seconds(1))
        pulses.now()
      }
    }
    defer { ticker.cancel() }
    var screen = Screen(quiet: quiet)
    let clock = ContinuousClock()
    let start = clock.now
    var completeSince: ContinuousClock.Instant?
    var stuckSince: ContinuousClock.Instant?
    var last: [(String, Convergence)] = []
    for await _ in pulses.stream {
      do { (last, screen.warnings) = try await look(services) } catch let error as ClientError where error.isTransient {
        screen.note(error.description)
        if clock.now - start > .seconds(timeout) { throw error }
        continue
      }
      screen.show(last)
      if let failure = last.lazy.compactMap({ if case .failed(let text) = $0.1.verdict { text } else { nil } }).first {
        throw ClientError.broken(failure)
      }
      if last.allSatisfy({ $0.1.verdict == .converged }) {
        let since = completeSince ?? clock.now
        completeSince = since
        if !last.contains(where: { $0.1.failures > 0 }) || clock.now - since >= .seconds(Self.stableSeconds) {
          screen.done(last)
          return
        }
      } else {
        completeSince = nil
      }
      if let stuck = last.lazy.compactMap({ $0.1.stuck }).first {
        let since = stuckSince ?? clock.now
        stuckSince = since
        if clock.now - since >= .seconds(Self.pendingSeconds) {
          throw ClientError.broken("\(stuck). The task waits until that changes: orch ps and orch nodes show more")
        }
      } else {
        stuckSince = nil
      }
      if clock.now - start > .seconds(timeout) {
        let open = last.filter { $0.1.verdict != .converged }.map {
          "\($0.0) \($0.1.running)/\($0.1.desired)" + ($0.1.reasons.first.map { " (\($0))" } ?? "")
        }
        throw ClientError.broken(
          "not converged after \(timeout) s: \(open.joined(separator: ", ")). The cluster goes on; orch ps shows how far it is")
      }
    }
  }

  private func look(_ services: [String]) async throws -> ([(String, Convergence)], warnings: [String]) {
    let nodes = try await client.get("/nodes", as: [NodeInspect].self)
    let hostnames = nodes.hostnames
    let down = Set(nodes.filter { $0.status.state == "down" }.map(\.id))
    var result: [(String, Convergence)] = []
    var seen: [ServiceInspect] = []
    for id in services {
      let service = try await client.get("/services/\(id)", [("status", "true")], as: ServiceInspect.self)
      seen.append(service)
      let tasks = try await client.tasks(["service": [id]])
      let current = try await client.tasks(["service": [id], "_up-to-date": ["true"]])
      result.append(
        (
          service.spec.name,
          Convergence(
            service, tasks: tasks, current: Set(current.map(\.id)), hostnames: hostnames, down: down, since: service.updatedAt,
            rollingBack: rollingBack || unchanged.contains(service.id))
        ))
    }
    return (result, nodes.flatMap { $0.warnings(for: seen) } + result.flatMap { $1.warnings($0) })
  }
}

extension APIClient {
  func tasks(_ filters: [String: [String]] = [:]) async throws -> [TaskInspect] {
    try await get("/tasks", filters.isEmpty ? [] : [("filters", JSONText.line(filters))])
  }
}

/// What was shown last, so that only differences are.
private struct Screen {
  let quiet: Bool
  var drawn = 0
  var lines: [String: String] = [:]
  var noted = ""
  /// Told in the end, beside the good news.
  var warnings: [String] = []

  init(quiet: Bool) { self.quiet = quiet }

  mutating func show(_ services: [(String, Convergence)]) {
    if quiet { return }
    let pad = services.map(\.0.count).max() ?? 0
    if Terminal.isInteractive {
      var block: [String] = []
      for (name, convergence) in services {
        block.append(convergence.bar(name + String(repeating: " ", count: pad - name.count)))
        if convergence.verdict != .converged { block += convergence.reasons.prefix(4).map { "    " + $0 } }
      }
      let width = Terminal.width ?? 80
      var text = drawn > 0 ? "\u{1B}[\(drawn)A" : ""
      for line in block { text += "\u{1B}[2K" + String(line.prefix(width - 1)) + "\n" }
      if block.count < drawn {
        for _ in block.count..<drawn { text += "\u{1B}[2K\n" }
        text += "\u{1B}[\(drawn - block.count)A"
      }
      drawn = block.count
      Terminal.write(1, Array(text.utf8))
    } else {
      for (name, convergence) in services {
        let line =
          "\(name): \(convergence.summary)"
          + (convergence.reasons.isEmpty || convergence.verdict == .converged ? "" : "; " + convergence.reasons.prefix(2).joined(separator: "; "))
        if lines.updateValue(line, forKey: name) != line { Terminal.print(line) }
      }
    }
  }

  mutating func note(_ text: String) {
    guard !quiet, text != noted else { return }
    noted = text
    drawn = 0
    Terminal.warn("orch: \(text); trying again")
  }

  mutating func done(_ services: [(String, Convergence)]) {
    for warning in warnings { Terminal.warn("warning: \(warning)") }
    if quiet { return }
    Terminal.print(services.count == 1 ? "\(services[0].0) converged" : "\(services.count) services converged")
  }
}
