import API
import Model
import Surroundings

extension ControlAPI {
  func listVolumes(_ target: Target) async throws -> APIResponse {
    let filters = try Filters(target, accepted: ["dangling", "driver", "label", "name"])
    let state = try await backend.state()
    let volumes = state.volumes.values.filter { volume in
      filters.match("name") { volume.name.contains($0) } && filters.match("driver") { volume.driver == $0 }
        && filters.match("dangling") { wanted in (wanted == "true" || wanted == "1") == state.users(ofVolume: volume.name).isEmpty }
        && filters.matchLabels("label", volume.labels)
    }
    return .json(VolumeList(volumes: volumes.sorted { $0.name < $1.name }.map { VolumeInspect($0) }))
  }

  func inspectVolume(_ name: String) async throws -> APIResponse {
    guard let volume = try await backend.state().volumes[name] else { throw APIError(404, "get \(name): no such volume") }
    return .json(VolumeInspect(volume))
  }

  func createVolume(_ request: APIRequest) async throws -> APIResponse {
    var spec = try await JSON.body(VolumeSpec.self, of: request)
    if spec.name.isEmpty { spec.name = TaskID.random().description }
    let volume = try volume(spec)
    let known = try await backend.state().volumes[volume.name]
    if let known { return .json(VolumeInspect(known), status: 201) }
    _ = try await backend.propose(Command(actions: [.putVolume(volume)]))
    return .json(VolumeInspect(volume), status: 201)
  }

  func removeVolume(_ name: String) async throws -> APIResponse {
    let state = try await backend.state()
    guard state.volumes[name] != nil else { throw APIError(404, "get \(name): no such volume") }
    let users = state.users(ofVolume: name)
    if !users.isEmpty { throw APIError(409, "remove \(name): volume is in use by \(users.joined(separator: ", ")): remove that first") }
    // A container may use it whose service is gone: only its host knows. What could not be forgotten there is listed here.
    let left = await removeData(of: [name], in: state)
    if !left.refused.isEmpty { throw APIError(409, "remove \(name): \(left.refused.joined(separator: "; "))") }
    _ = try await backend.propose(Command(actions: [.removeVolume(name)]))
    if !left.away.isEmpty {
      throw APIError(500, "volume \(name) is gone from the cluster, but its data is not: \(left.away.joined(separator: "; "))")
    }
    return .noContent
  }

  /// Deletes the volumes' data on every host.
  /// - Returns: a sentence for each host that refused or failed, and for each that cannot be asked.
  func removeData(of volumes: [String], in state: ClusterState) async -> (refused: [String], away: [String]) {
    let ready = state.nodes.values.filter { $0.status.state == .ready }
    let refused = await withTaskGroup(of: [String].self) { group in
      for node in ready {
        group.addTask {
          var failures: [String] = []
          for volume in volumes {
            do { try await backend.removeVolume(volume, on: node.id) } catch { failures.append("\(volume) on host \(node.hostname): \(error)") }
          }
          return failures
        }
      }
      return await group.reduce(into: []) { $0 += $1 }
    }
    let away = state.nodes.values.filter { $0.status.state != .ready && $0.description != nil }
      .map { "host \($0.hostname) is \($0.status.state) and keeps what it has of \(volumes.joined(separator: ", "))" }
    return (refused.sorted(), away.sorted())
  }

  func volume(_ spec: VolumeSpec) throws -> Volume {
    guard [nil, "", "local"].contains(spec.driver) else {
      throw APIError(400, "volume \(spec.name): driver \(spec.driver!) is not known: orch has local")
    }
    if let option = spec.driverOptions?.keys.min() {
      throw APIError(
        400, "volume \(spec.name): driver option \(option) is not supported: mount what it means on every host, and bind that folder in the service")
    }
    guard spec.name.utf8.allSatisfy({ (48...57).contains($0) || (65...90).contains($0) || (97...122).contains($0) || [45, 46, 95].contains($0) }),
      let first = spec.name.utf8.first, first != 45, first != 46, first != 95, spec.name.utf8.count <= 255
    else { throw APIError(400, "volume name '\(spec.name)' is not valid: letters, digits, '_', '.' and '-', beginning with a letter or digit") }
    return Volume(name: spec.name, labels: spec.labels ?? [:], driverOptions: spec.driverOptions ?? [:], createdAt: .now)
  }
}

extension ClusterState {
  /// Services whose current spec mounts the volume, or a task of which does: by a name with placeholders, of an earlier revision, or as its own
  /// (`TASK-…`, of the service's or its image's).
  func users(ofVolume name: String) -> [String] {
    services.values.filter { service in
      guard !service.pendingDelete else { return false }
      let isNamed = spec(of: service)?.taskTemplate.containerSpec.mounts?.contains { $0.volumeName == name } == true
      return isNamed || tasks(of: service.id).contains { mounts($0, name) }
    }.map { "service \($0.name)" }.sorted()
  }

  private func mounts(_ task: ClusterTask, _ name: String) -> Bool {
    guard !task.status.state.isTerminal, let node = task.node.flatMap({ nodes[$0] }), let spec = spec(of: task) else { return false }
    if name.hasPrefix("\(task.id)-") { return true }
    return task.volumeNames(spec, node: node.id, hostname: node.hostname, platform: node.description?.platform).contains(name)
  }
}
