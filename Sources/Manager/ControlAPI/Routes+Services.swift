import API
import Model
import Orchestrator
import Surroundings

extension ControlAPI {
  func listServices(_ target: Target) async throws -> APIResponse {
    let filters = try Filters(target, accepted: ["id", "label", "mode", "name", "runtime"])
    let state = try await backend.state()
    let withStatus = target.flag("status")
    let services = state.services.values.filter { service in
      guard !service.pendingDelete, let spec = state.spec(of: service) else { return false }
      return filters.match("id") { service.id.description.hasPrefix($0) }
        && filters.match("name") { service.name.hasPrefix($0) || state.shortName(of: service) == $0 } && filters.match("mode") { spec.modeName == $0 }
        && filters.match("runtime") { $0 == "container" } && filters.matchLabels("label", spec.labels ?? [:])
    }
    let sorted = services.sorted { $0.name < $1.name }
    return .json(
      sorted.compactMap { service in
        var shape = ServiceInspect(service, in: state, status: withStatus ? state.status(of: service) : nil)
        if let asked = filters["name"], let name = state.askedName(of: service, among: asked) { shape?.spec.name = name }
        return shape
      })
  }

  func inspectService(_ name: String, _ target: Target) async throws -> APIResponse {
    let state = try await backend.state()
    let service = try state.lookUpService(name)
    guard var shape = ServiceInspect(service, in: state, status: target.flag("status") ? state.status(of: service) : nil) else {
      throw APIError(404, "service \(name) not found")
    }
    if target.flag("insertDefaults") { shape.spec.insertDefaults() }
    return .json(shape)
  }

  func createService(_ request: APIRequest) async throws -> APIResponse {
    var spec = try await serviceSpec(request)
    spec.registryLogin = try login(request.header("x-registry-auth"), instead: nil)
    try await refuseTakenPorts([spec])
    let now = Timestamp.now
    let id = try await edit { [spec] state in
      var generator = SystemRandomNumberGenerator()
      let created = try ServiceEdits.create(spec, state: state, now: now, generator: &generator)
      return (created.command, created.id)
    }
    return .json(ServiceCreateResponse(id: id.description, warnings: nil), status: 201)
  }

  func updateService(_ name: String, _ target: Target, _ request: APIRequest) async throws -> APIResponse {
    let version = try target.version()
    let now = Timestamp.now
    if let rollback = target["rollback"], !rollback.isEmpty {
      guard rollback == "previous" else { throw APIError(400, "invalid rollback '\(rollback)': only ?rollback=previous is known") }
      try await edit(retries: 0) { state in
        (try ServiceEdits.rollback(try state.lookUpService(name).id, version: version, state: state, now: now), ())
      }
    } else {
      let spec = try await serviceSpec(request)
      try await refuseTakenPorts([spec])
      try await edit(retries: 0) { state in
        let service = try state.lookUpService(name)
        let old = state.spec(of: service)
        var spec = spec
        // Docker's clients say which one is to stay when they send none.
        let kept = target["registryAuthFrom"] == "previous-spec" ? service.previous.flatMap { state.revision(service.id, $0)?.spec } : old
        spec.registryLogin = try login(request.header("x-registry-auth"), instead: kept?.registryLogin)
        return (try ServiceEdits.update(try state.lookUpService(name).id, to: spec, version: version, state: state, now: now), ())
      }
    }
    return .json(ServiceUpdateResponse(warnings: nil))
  }

  func removeService(_ name: String) async throws -> APIResponse {
    try await edit { state in
      let service = try state.lookUpService(name)
      if service.pendingDelete { throw APIError(404, "service \(name) not found") }
      return (try ServiceEdits.remove(service.id, state: state), ())
    }
    return APIResponse(status: 200)
  }

  /// {"web": 3, "api": 0}: all or none, one entry.
  func scale(_ request: APIRequest) async throws -> APIResponse {
    let wanted = try await JSON.body([String: Double].self, of: request)
    if wanted.isEmpty { throw APIError(400, "name at least one service: {\"web\": 3}") }
    var counts: [String: UInt64] = [:]
    for (name, count) in wanted {
      guard count >= 0, count <= Double(ServiceEdits.replicasMax), count == count.rounded() else {
        let shown = abs(count) < 1e15 && count == count.rounded() ? String(Int64(count)) : "\(count)"
        throw APIError(400, "service \(name) cannot have \(shown) replicas: give a whole number from 0 to \(ServiceEdits.replicasMax)")
      }
      counts[name] = UInt64(count)
    }
    let now = Timestamp.now
    let items = try await edit { state in
      var items: [ScaleResponse.Item] = []
      var edits: [(service: ServiceID, replicas: UInt64)] = []
      for (name, count) in counts.sorted(by: { $0.key < $1.key }) {
        let service = try state.lookUpService(name)
        if edits.contains(where: { $0.service == service.id }) { throw APIError(400, "service \(service.name) is named twice") }
        items.append(.init(name: service.name, id: service.id.description, from: state.spec(of: service)?.replicas ?? 0, to: count))
        edits.append((service.id, count))
      }
      return (try ServiceEdits.scale(edits, state: state, now: now), items)
    }
    return .json(ScaleResponse(services: items))
  }

  /// What the service's hosts are to tell the registry: what the client sends (docker's X-Registry-Auth), sealed, or `old` without any. The same
  /// as before stays the same object, so that nothing seems changed.
  func login(_ header: String?, instead old: SealedLogin?) throws -> SealedLogin? {
    guard let header, !header.isEmpty else { return old }
    guard let wanted = try credentials(header) else { return nil }
    // Not the text: JSON's keys come in any order.
    if let old, let known = try? backend.content(of: old.file), try credentials(String(decoding: known, as: UTF8.self)) == wanted { return old }
    let id = FileID.random()
    return SealedLogin(id: id, data: try backend.seal(Array(header.utf8), as: id))
  }

  /// Out of docker's X-Registry-Auth; nil when it names nobody.
  func credentials(_ header: String) throws -> RegistryCredentials? {
    do { return try RegistryCredentials(header: header) } catch { throw APIError(400, "\(error)") }
  }

  /// The body as a spec; refuses by name what orch would have to drop.
  private func serviceSpec(_ request: APIRequest) async throws -> ServiceSpec {
    let bytes = try await JSON.bytes(of: request)
    let unknown = try JSON.parse(UnsupportedSpec.self, bytes)
    if let name = unknown.found { throw APIError(501, "orch does not support \(name) in a service yet: leave it out") }
    return try JSON.parse(ServiceSpec.self, bytes).withoutLogin
  }
}

/// The parts of Docker's ServiceSpec that Model has no place for: found here so that they are refused and not lost.
private struct UnsupportedSpec: Decodable {
  struct Anything: Decodable {}
  struct Template: Decodable {
    struct Container: Decodable {
      struct Privileges: Decodable {
        var CredentialSpec: Anything?
        var SELinuxContext: Anything?
        struct Profile: Decodable { var Mode: String? }
        var Seccomp: Profile?
        var AppArmor: Profile?
      }
      struct Config: Decodable { var Runtime: Anything? }
      var Configs: [Config]?
      var Privileges: Privileges?
    }
    struct Resources: Decodable {
      struct Reservations: Decodable { var GenericResources: [Anything]? }
      var Reservations: Reservations?
    }
    var ContainerSpec: Container?
    var PluginSpec: Anything?
    var NetworkAttachmentSpec: Anything?
    var Resources: Resources?
  }
  var TaskTemplate: Template?

  var found: String? {
    let container = TaskTemplate?.ContainerSpec
    if container?.Configs?.contains(where: { $0.Runtime != nil }) == true { return "a config for the runtime" }
    if container?.Privileges?.CredentialSpec != nil { return "a credential spec" }
    if container?.Privileges?.SELinuxContext != nil { return "an SELinux context" }
    // Docker's own profile is every container's; labels of AppArmor are none's.
    if !["", "default"].contains(container?.Privileges?.Seccomp?.Mode ?? "") { return "another seccomp profile" }
    if !["", "default", "disabled"].contains(container?.Privileges?.AppArmor?.Mode ?? "") { return "another AppArmor profile" }
    if TaskTemplate?.PluginSpec != nil { return "a plugin" }
    if TaskTemplate?.NetworkAttachmentSpec != nil { return "a network attachment" }
    if TaskTemplate?.Resources?.Reservations?.GenericResources?.isEmpty == false { return "generic resources" }
    return nil
  }
}

extension ServiceSpec {
  var modeName: String {
    if mode?.global != nil { return "global" }
    if mode?.replicatedJob != nil { return "replicated-job" }
    if mode?.globalJob != nil { return "global-job" }
    return "replicated"
  }

  /// SwarmKit's defaults (api/defaults/service.go), for `?insertDefaults=true`.
  mutating func insertDefaults() {
    if mode == nil { mode = .replicated(1) }
    if mode?.replicated != nil, mode?.replicated?.replicas == nil { mode?.replicated?.replicas = 1 }
    var container = taskTemplate.containerSpec
    container.stopGracePeriod = container.stopGracePeriod ?? ContainerSpec.defaultStopGracePeriod
    container.dnsConfig = container.dnsConfig ?? ContainerSpec.DNSConfig()
    taskTemplate.containerSpec = container
    taskTemplate.resources = taskTemplate.resources ?? ResourceRequirements()
    var restart = taskTemplate.restartPolicy ?? RestartPolicy()
    restart.condition = restart.condition ?? .any
    restart.delay = restart.delay ?? .seconds(5)
    restart.maxAttempts = restart.maxAttempts ?? 0
    taskTemplate.restartPolicy = restart
    taskTemplate.placement = taskTemplate.placement ?? Placement()
    updateConfig = (updateConfig ?? UpdateConfig()).withDefaults
    rollbackConfig = (rollbackConfig ?? UpdateConfig()).withDefaults
    var endpoint = endpointSpec ?? EndpointSpec()
    endpoint.mode = endpoint.mode ?? .vip
    endpointSpec = endpoint
  }
}

extension UpdateConfig {
  fileprivate var withDefaults: UpdateConfig {
    var config = self
    config.parallelism = parallelism ?? 1
    config.failureAction = failureAction ?? .pause
    config.monitor = monitor ?? .seconds(5)
    config.maxFailureRatio = maxFailureRatio ?? 0
    config.order = order ?? .stopFirst
    return config
  }
}

extension ClusterState {
  /// What a service is called in an answer to a list by name. `docker service ps web` lists by the name `web` and then looks for a
  /// service whose name or id *is* `web`, in the docker command itself (docker/cli cli/command/service/ps.go): `demo_web` would not
  /// be found. So a short name that is no full name and is of one service alone is answered as it was asked. Everywhere else, and in
  /// every list that does not ask for just that name, the full name stands.
  fileprivate func askedName(of service: Service, among names: [String]) -> String? {
    guard let short = shortName(of: service), names.contains(short), self.service(named: short) == nil else { return nil }
    let same = services.values.count { !$0.pendingDelete && shortName(of: $0) == short }
    return same == 1 ? short : nil
  }

  /// As SwarmKit's ListServiceStatuses: running tasks that should run; what should run. For global services those are the tasks that should and
  /// the hosts that get one: right after a service was made it has none yet, and is not converged.
  func status(of service: Service) -> ServiceInspect.Status {
    var running: UInt64 = 0
    var desired: UInt64 = 0
    var completed: UInt64 = 0
    var visited: Set<NodeID> = []
    for task in tasks(of: service.id) {
      if task.desiredState <= .running {
        desired += 1
        if let node = task.node { visited.insert(node) }
        if task.status.state == .running { running += 1 }
      }
      if task.status.state == .complete { completed += 1 }
    }
    if let spec = spec(of: service) {
      if let replicas = spec.replicas {
        desired = replicas
      } else {
        let placement = GlobalPlacement(spec)
        desired += UInt64(nodes.values.count { !visited.contains($0.id) && placement.wants($0) })
      }
    }
    return ServiceInspect.Status(runningTasks: running, desiredTasks: desired, completedTasks: completed)
  }
}
