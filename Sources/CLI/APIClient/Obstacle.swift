import API
import Model

/// What keeps a service from being as it is declared, in words: one for each task that does not run and will not without help or time, and one for a service whose
/// update stands still.
public struct Obstacle: Hashable, Sendable {
  /// "web.2", or the service's name.
  public var subject: String
  /// Empty for services.
  public var task: String
  /// "pending", "starting", "failed", "update paused".
  public var state: String
  public var since: Timestamp
  /// Never empty.
  public var reason: String

  /// - Parameters:
  ///   - tasks: of the service, ended ones too.
  ///   - hostnames: by node id.
  public static func all(_ service: ServiceInspect, tasks: [TaskInspect], hostnames: [String: String]) -> [Obstacle] {
    let name = service.spec.name
    var found: [Obstacle] = []
    if let update = service.updateStatus, ["paused", "rollback_paused"].contains(update.state) {
      found.append(
        Obstacle(
          subject: name, task: "", state: update.state == "paused" ? "update paused" : "rollback paused",
          since: update.completedAt ?? update.startedAt ?? service.updatedAt,
          reason: update.message + ": orch update or orch rollback goes on"))
    }
    let slots = Dictionary(grouping: tasks) { $0.title(name, hostnames) }
    for (title, tasks) in slots.sorted(by: { ($0.value[0].slot ?? 0, $0.key) < ($1.value[0].slot ?? 0, $1.key) }) {
      // A task that waits for its turn after one that failed is what the slot is about, not the one that is on its way out.
      guard let task = tasks.filter(\.wanted).max(by: { $0.createdAt < $1.createdAt }) ?? tasks.max(by: { $0.createdAt < $1.createdAt }) else {
        continue
      }
      guard let reason = reason(task, before: tasks.filter { $0.id != task.id }, hostnames) else { continue }
      found.append(Obstacle(subject: title, task: task.id, state: task.status.state, since: task.status.timestamp, reason: reason))
    }
    return found
  }

  private static func reason(_ task: TaskInspect, before: [TaskInspect], _ hostnames: [String: String]) -> String? {
    let health = task.status.containerStatus?.health
    if task.status.state == "running" { return health?.status == .unhealthy ? "its health check fails" : nil }
    let failed = before.filter { ["failed", "rejected"].contains($0.status.state) }.sorted { $0.updatedAt < $1.updatedAt }
    if task.wanted {
      var parts = [task.problem.isEmpty ? task.status.message : task.problem].filter { !$0.isEmpty }
      if task.status.state == "starting", health != nil { parts.append("it counts as running when its health check succeeds") }
      if let last = failed.last {
        let place = last.nodeID.flatMap { hostnames[$0] }.map { " on \($0)" } ?? ""
        parts.append("\(failed.count == 1 ? "the task before it" : "\(failed.count) tasks before it") failed, the last\(place): \(last.problem)")
      }
      return parts.isEmpty ? "it is \(task.status.state)" : parts.joined(separator: "; ")
    }
    guard ["failed", "rejected", "orphaned"].contains(task.status.state), task.desiredState != "remove" else { return nil }
    return (task.problem.isEmpty ? "it \(task.status.state)" : task.problem) + "; it is not started again (restart_policy)"
  }
}
