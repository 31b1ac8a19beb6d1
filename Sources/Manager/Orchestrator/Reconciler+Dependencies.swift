import Model

// Compose's depends_on: the first task of a slot waits, pending and with the reason, until the other services are as far as was declared.
// What follows it does not: a task that ended is replaced whether the database is well or not, as docker compose does.
extension Reconciler {
  /// What a service's first tasks wait for; nil: nothing.
  mutating func unmet(_ service: Service, _ spec: ServiceSpec, _ world: ClusterState) -> String? {
    let dependencies = spec.dependencies
    if dependencies.isEmpty { return nil }
    for other in waitedFor.keys { waitedFor[other]?.remove(service.id) }
    for dependency in dependencies {
      let name = (spec.stack.map { $0 + "_" } ?? "") + dependency.service
      // One that was removed is not waited for.
      guard let other = world.service(named: name), !other.pendingDelete, let reason = shortfall(of: other, dependency.condition, world) else {
        continue
      }
      waitedFor[other.id, default: []].insert(service.id)
      return "waiting for \(other.name) \(reason)"
    }
    return nil
  }

  private func shortfall(of other: Service, _ condition: ServiceDependency.Condition, _ world: ClusterState) -> String? {
    guard let spec = world.spec(of: other) else { return nil }
    let slots = Slot.group(world.tasks(of: other.id), isGlobal: spec.isGlobal).values
    let wanted = spec.replicas.map { Int(clamping: $0) } ?? max(1, slots.count)
    let (count, verb): (Int, String) =
      switch condition {
      case .started: (slots.count { $0.tasks.contains { $0.status.containerID != nil } }, "to start")
      case .healthy: (slots.count { $0.isServing }, "to be healthy")
      case .completed: (slots.count { $0.newest.status.state == .complete }, "to complete")
      }
    if count >= wanted { return nil }
    let trouble = slots.lazy.compactMap { $0.newest.status.error.isEmpty ? nil : $0.newest.status.error }.first
    return "\(verb) (\(count)/\(wanted)" + (trouble.map { "; \($0)" } ?? "") + ")"
  }

  /// Those of `tasks` that are not the first of their slot.
  func successors(among tasks: [ClusterTask], of service: ServiceID, _ world: ClusterState) -> [ClusterTask] {
    var counts: [UInt64: Int] = [:]
    for task in world.tasks(of: service) { counts[task.slot, default: 0] += 1 }
    return tasks.filter { counts[$0.slot, default: 0] > 1 }
  }
}
