import API
import Model

extension ControlAPI {
  func listTasks(_ target: Target) async throws -> APIResponse {
    let filters = try Filters(target, accepted: ["desired-state", "id", "label", "name", "node", "runtime", "service", "_up-to-date"])
    let state = try await backend.state()
    // Names in filters become ids first, as dockerd does; an unknown one is an error there too.
    let services = try filters["service"].map { names in Set(try names.map { try state.lookUpService($0).id }) }
    let nodes = try await filters["node"]?.asyncMap { name in
      try state.lookUpNode(name == "self" ? await backend.info().node.description : name).id
    }
    for wanted in filters["desired-state"] ?? [] where !["running", "shutdown", "accepted", "remove", "ready", "complete"].contains(wanted) {
      throw APIError(400, "invalid task state '\(wanted)': one of accepted, complete, ready, remove, running, shutdown")
    }
    let candidates: [ClusterTask] = services.map { $0.flatMap { Array(state.tasks(of: $0)) } } ?? Array(state.tasks.values)
    let tasks = candidates.filter { task in
      (nodes.map { $0.contains { $0 == task.node } } ?? true) && filters.match("id") { task.id.description.hasPrefix($0) }
        && filters.match("desired-state") { task.desiredState.description == $0 } && filters.match("name") { state.name(of: task).hasPrefix($0) }
        && filters.match("runtime") { $0 == "container" } && filters.match("_up-to-date") { state.isUpToDate(task) == ($0 == "true" || $0 == "1") }
        && filters.matchLabels("label", state.spec(of: task)?.labels ?? [:])
    }
    return .json(tasks.sorted { ($0.createdAt, $0.id) < ($1.createdAt, $1.id) }.compactMap { TaskInspect($0, in: state) })
  }

  func inspectTask(_ name: String) async throws -> APIResponse {
    let state = try await backend.state()
    guard let task = TaskInspect(try state.lookUpTask(name), in: state) else { throw APIError(404, "task \(name) not found") }
    return .json(task)
  }
}

extension ClusterState {
  /// The task is what the service's current revision asks for.
  func isUpToDate(_ task: ClusterTask) -> Bool {
    guard let service = services[task.service], let current = revision(service.id, service.current) else { return false }
    return task.revision == current.template
  }
}

extension Array {
  func asyncMap<Result>(_ transform: (Element) async throws -> Result) async rethrows -> [Result] {
    var results: [Result] = []
    for element in self { results.append(try await transform(element)) }
    return results
  }
}
