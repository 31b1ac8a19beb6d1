import API
import Model
import Orchestrator
import Surroundings

extension ControlAPI {
  func listStacks() async throws -> APIResponse {
    let state = try await backend.state()
    return .json(state.stacks.values.filter { !$0.isBeingRemoved }.sorted { $0.name < $1.name }.map { StackInspect($0, in: state) })
  }

  func inspectStack(_ name: String) async throws -> APIResponse {
    let state = try await backend.state()
    guard let stack = state.stacks[name], !stack.isBeingRemoved else { throw APIError(404, "stack \(name) not found") }
    return .json(StackInspect(stack, in: state, manifest: true))
  }

  func deployStack(_ name: String, _ request: APIRequest) async throws -> APIResponse {
    let body = try await JSON.body(StackDeployRequest.self, of: request, limit: 4 * JSON.bodyMax)
    for network in body.networks { try refuseUnsupported(network) }
    var wanted = ServiceEdits.Deployment(
      name: name, manifest: body.manifest, services: body.services.map(\.withoutLogin), networks: body.networks,
      volumes: try body.volumes.map { try volume($0) })
    try await refuseTakenPorts(wanted.services)
    var new: [StoredFile.Name: StoredFile] = [:]
    for (kind, specs) in [(StoredFile.Kind.secret, body.secrets ?? []), (.config, body.configs ?? [])] {
      for spec in specs { new[.init(kind, spec.name)] = try newFile(kind, spec) }
    }
    let now = Timestamp.now
    let response = try await edit { state in
      wanted.files =
        try files(.secret, body.secrets ?? [], new: new, stack: name, in: state)
        + files(.config, body.configs ?? [], new: new, stack: name, in: state)
      for (index, spec) in wanted.services.enumerated() {
        let old = state.service(named: spec.name).flatMap { state.spec(of: $0) }
        wanted.services[index].registryLogin = try login(body.registryLogins?[spec.name], instead: old?.registryLogin)
      }
      var generator = SystemRandomNumberGenerator()
      let deployed = try ServiceEdits.deploy(wanted, state: state, now: now, generator: &generator)
      let before = state.stacks[name]?.revision ?? 0
      var response = StackDeployResponse(name: name, revision: deployed.command.actions.isEmpty ? before : before + 1)
      let lines =
        deployed.networks.map { ("network \($0.name)", $0.change) } + deployed.files.map { ($0.name, $0.change) }
        + deployed.volumes.map { ("volume \($0.name)", $0.change) }
        + deployed.services.map { ("service \($0.name)", $0.change) }
      for (line, change) in lines {
        switch change {
        case .created: response.created.append(line)
        case .updated: response.updated.append(line)
        case .unchanged: response.unchanged.append(line)
        case .removed: response.removed.append(line)
        }
      }
      return (deployed.command, response)
    }
    return .json(response)
  }

  /// The services are marked for removal at once; with `volumes` the answer comes when their tasks are gone and the data is deleted.
  func removeStack(_ name: String, volumes: Bool) async throws -> APIResponse {
    let changes = await backend.watch()
    let now = Timestamp.now
    let (services, names, gone, before) = try await edit { state in
      let command = try ServiceEdits.removeStack(name, volumes: volumes, state: state, now: now)
      let leaving = command.actions.compactMap { action -> Service? in
        if case .putService(let service) = action { return service }
        return nil
      }
      if volumes { try checkVolumes(of: name, in: state, leaving: Set(leaving.map(\.id))) }
      let files = command.actions.compactMap { action -> String? in
        guard case .removeFile(let id) = action, let file = state.files[id] else { return nil }
        return "\(file.kind.rawValue) \(file.name)"
      }
      return (command, (Set(leaving.map(\.id)), leaving.map { "service \($0.name)" }, files.sorted(), state))
    }
    let stack = before.stacks[name]
    let networks = (stack?.networks ?? []).compactMap { before.networks[$0].map { "network \($0.name)" } }
    var response = StackRemoveResponse(removed: names + networks.sorted() + gone)
    if volumes, let owned = stack?.volumes, !owned.isEmpty {
      response.removed += owned.sorted().map { "volume \($0)" }
      let gone = await waitUntilGone(services, changes, limit: .seconds(120))
      if gone {
        let left = await removeData(of: owned, in: before)
        response.warnings = (left.refused + left.away).sorted()
      } else {
        response.warnings = [
          "tasks of stack \(name) still run after 120 s: the data of its volumes (\(owned.joined(separator: ", "))) was not deleted"
        ]
      }
    }
    return .json(response)
  }

  private func checkVolumes(of stack: String, in state: ClusterState, leaving: Set<ServiceID>) throws {
    for volume in state.stacks[stack]?.volumes ?? [] {
      let others = state.users(ofVolume: volume).filter { user in !leaving.contains { state.services[$0].map { "service \($0.name)" } == user } }
      if !others.isEmpty {
        throw APIError(
          409, "volume \(volume) is in use by \(others.joined(separator: ", ")) outside of stack \(stack): remove that first, or leave out --volumes")
      }
    }
  }

  /// True when no task of these services runs any more; false after `limit`.
  private func waitUntilGone(_ services: Set<ServiceID>, _ changes: AsyncStream<([StateChange], ClusterState)>, limit: Duration) async -> Bool {
    func gone(_ state: ClusterState) -> Bool {
      services.allSatisfy { state.tasks(of: $0).allSatisfy { $0.status.state.isTerminal || $0.node == nil } }
    }
    if let state = try? await backend.state(), gone(state) { return true }
    return await withTaskGroup(of: Bool.self) { group in
      group.addTask {
        for await (_, state) in changes where gone(state) { return true }
        return false
      }
      group.addTask {
        try? await Task.sleep(for: limit)
        return false
      }
      defer { group.cancelAll() }
      return await group.next() ?? false
    }
  }
}
