import API
import Model

/// How far a service is on its way to what was asked of it: a pure value of what the API says.
public struct Convergence: Hashable, Sendable {
  public enum Verdict: Hashable, Sendable {
    case converged
    case progressing
    /// It will not get there by itself; a sentence.
    case failed(String)
  }
  public var verdict: Verdict
  public var running: UInt64
  public var desired: UInt64
  /// Tasks that did what they were for and are not started again.
  public var completed: UInt64 = 0
  /// What keeps it, by task: "web.2: preparing", "web.3: pending (no suitable node …)".
  public var reasons: [String]
  /// Tasks of an earlier revision that still serve: an update has not come to them yet.
  public var old: Int
  /// Tasks that are to end and have not yet, but for those of hosts that are down.
  public var stopping: Int
  /// Those of hosts that are down, by hostname: they end when their host is back, and nobody waits for that.
  public var unreached: [String: Int]
  /// Tasks of the current spec that failed since the change was asked for.
  public var failures: Int
  /// A pending task's reason, when there is one: nothing but a change of the cluster or of the spec helps.
  public var stuck: String?

  /// Failures of one slot since `since`, after which the rest of the waiting is left to the user.
  public static let failuresMax = 3

  /// - Parameters:
  ///   - service: with its status, which says how many tasks a global one should have.
  ///   - tasks: all of the service's tasks.
  ///   - current: ids of those that are made from the current spec (`_up-to-date`).
  ///   - hostnames: by node id.
  ///   - down: ids of nodes that are down.
  ///   - since: when the change was asked for; earlier failures do not count.
  ///   - rollingBack: a rollback is what was asked for, and no failure.
  public init(
    _ service: ServiceInspect, tasks: [TaskInspect], current: Set<String>, hostnames: [String: String], down: Set<String> = [], since: Timestamp,
    rollingBack: Bool = false
  ) {
    let live = tasks.filter { $0.wanted && current.contains($0.id) }
    let name = service.spec.name
    func title(_ task: TaskInspect) -> String { task.title(name, hostnames) }
    func place(_ task: TaskInspect) -> String { task.nodeID.flatMap { hostnames[$0] }.map { " on \($0)" } ?? "" }
    func problem(_ task: TaskInspect) -> String { task.status.err ?? task.status.message }

    running = UInt64(live.count { $0.status.state == "running" })
    desired = service.spec.replicas ?? service.serviceStatus?.desiredTasks ?? UInt64(live.count)
    let isOver = ["none", "on-failure"].contains(service.spec.taskTemplate.restartPolicy?.condition?.rawValue ?? "")
    let latest = Dictionary(tasks.map { ($0.slot ?? 0, $0) }) { $0.createdAt > $1.createdAt ? $0 : $1 }
    if isOver { completed = UInt64(latest.values.count { $0.status.state == "complete" && current.contains($0.id) && $0.slot != nil }) }
    old = tasks.count { $0.isAlive && $0.wanted && !current.contains($0.id) }
    let ending = tasks.filter { $0.isAlive && !$0.wanted }
    let lost = ending.compactMap(\.nodeID).filter(down.contains)
    stopping = ending.count - lost.count
    unreached = Dictionary(lost.map { (hostnames[$0] ?? $0, 1) }, uniquingKeysWith: +)
    reasons = live.filter { $0.status.state != "running" }.sorted { ($0.slot ?? 0, $0.id) < ($1.slot ?? 0, $1.id) }.map { task in
      let tells = task.status.state == "pending" || task.status.containerStatus?.health != nil
      let detail = task.status.err ?? (tells ? task.status.message : "")
      return "\(title(task)): \(task.status.state)\(place(task))" + (detail.isEmpty ? "" : " (\(detail))")
    }

    stuck = live.first { $0.status.state == "pending" && $0.status.err?.isEmpty == false }.map {
      "\(title($0)) cannot be placed: \($0.status.err ?? "")"
    }
    let failed = tasks.filter { current.contains($0.id) && ["failed", "rejected"].contains($0.status.state) && $0.createdAt >= since }
    var perSlot: [String: [TaskInspect]] = [:]
    failures = failed.count
    for task in failed { perSlot[title(task), default: []].append(task) }
    // The newest of each slot: what failed before it says the same, or does not matter any more.
    let newest = perSlot.values.compactMap { $0.max { $0.updatedAt < $1.updatedAt } }
    for task in newest.sorted(by: { ($0.updatedAt, $0.id) < ($1.updatedAt, $1.id) }).suffix(3) {
      reasons.append("\(title(task)): \(task.status.state)\(place(task)) (\(problem(task)))")
    }

    // Why an update ended: the newest failure of the spec that was tried. After an automatic rollback that is not the current one.
    func cause(ofCurrent: Bool) -> String {
      let tried = tasks.filter { ["failed", "rejected"].contains($0.status.state) && current.contains($0.id) == ofCurrent }
      guard let last = tried.max(by: { $0.updatedAt < $1.updatedAt }) else { return service.updateStatus?.message ?? "" }
      return "\(title(last)) with image \(last.spec.containerSpec.image) was \(last.status.state)\(place(last)): \(problem(last))"
    }
    switch service.updateStatus?.state {
    case "paused":
      verdict = .failed("the update of \(name) is paused: \(cause(ofCurrent: true)). See orch ps \(name); then orch update or orch rollback \(name)")
    case "rollback_paused":
      verdict = .failed("the rollback of \(name) is paused: \(cause(ofCurrent: true)). See orch ps \(name); then orch update \(name)")
    case "rollback_completed" where !rollingBack && (service.updateStatus?.startedAt ?? .zero) >= since:
      verdict = .failed("the update of \(name) failed and was rolled back: \(cause(ofCurrent: false)). See orch ps \(name)")
    default:
      let updating = ["updating", "rollback_started"].contains(service.updateStatus?.state ?? "")
      if running + completed == desired, old == 0, stopping == 0, live.count + Int(completed) == Int(desired), !updating {
        verdict = .converged
      } else if let worst = perSlot.filter({ $0.value.count >= Self.failuresMax }).min(by: { $0.key < $1.key }),
        let last = worst.value.max(by: { $0.updatedAt < $1.updatedAt })
      {
        verdict = .failed(
          "\(worst.key) does not stay up: \(worst.value.count) attempts ended \(last.status.state)\(place(last)) (\(problem(last))). The cluster keeps trying; see orch ps \(name) and orch logs \(name)"
        )
      } else {
        verdict = .progressing
      }
    }
  }

  /// For the end, when it has converged.
  public func warnings(_ name: String) -> [String] {
    unreached.sorted { $0.key < $1.key }.map { host, count in
      "\(host) is down: \(count) \(count == 1 ? "task" : "tasks") of \(name) on it end\(count == 1 ? "s" : "") when it is back"
    }
  }

  /// "2/3 running", during an update "1/3 updated, 2 old still running"; with those that are stopping.
  public var summary: String {
    var text = old > 0 ? "\(running)/\(desired) updated, \(old) old still running" : "\(running)/\(desired) running"
    if completed > 0 { text += ", \(completed) complete" }
    if stopping > 0 { text += ", \(stopping) stopping" }
    return text
  }

  /// One line: "web  [=====>    ]  2/3 running".
  public func bar(_ name: String, width: Int = 20) -> String {
    let total = max(1, Int(desired))
    let filled = desired == 0 ? (old + stopping == 0 ? width : 0) : min(width, Int(running) * width / total)
    let arrow = filled < width ? ">" : ""
    let bar = String(repeating: "=", count: filled) + arrow
    return "\(name)  [\(bar)\(String(repeating: " ", count: width - bar.count))]  \(summary)"
  }
}

extension TaskInspect {
  /// The manager wants it to run, or to become ready to.
  public var wanted: Bool { ["running", "ready"].contains(desiredState) && !isOver }
  public var isOver: Bool { ["complete", "shutdown", "failed", "rejected", "remove", "orphaned"].contains(status.state) }
  /// A host still has it.
  public var isAlive: Bool { nodeID != nil && !isOver }

  /// "web.2", of global services "web.host1".
  public func title(_ service: String, _ hostnames: [String: String]) -> String {
    "\(service).\(slot.map(String.init) ?? nodeID.map { hostnames[$0] ?? $0 } ?? "?")"
  }
  /// Why it ended, or why it waits; empty: nothing is wrong with it.
  public var problem: String {
    var reason = status.err ?? ""
    if reason.isEmpty, status.state == "pending" { reason = status.message }
    if status.containerStatus?.oomKilled == true, !reason.contains("memory") {
      reason += reason.isEmpty ? "killed: out of memory" : " (out of memory)"
    }
    return reason
  }
}
