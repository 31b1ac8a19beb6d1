import Model

/// Names to objects as Docker does (full id, full name, id prefix), and orch's short names: `web` for `stack_web` where only
/// one stack has it. Everything not found is 404 in Docker's words; what is ambiguous is 400 with the candidates.
extension ClusterState {
  func lookUpService(_ name: String) throws -> Service {
    if let id = ServiceID(name), let service = services[id] { return service }
    // One that is being removed is gone for its users; its full id still finds what is left of it.
    if let service = service(named: name), !service.pendingDelete { return service }
    let byShortName = services.values.filter { !$0.pendingDelete && shortName(of: $0) == name }
    if let found = try single(byShortName, "service", name, \.name) { return found }
    let byPrefix = services.values.filter { !$0.pendingDelete && $0.id.description.hasPrefix(name) }
    if let found = try single(byPrefix, "service", name, { "\($0.name) (\($0.id))" }) { return found }
    throw APIError(404, "service \(name) not found")
  }

  /// `web` of `stack_web`; nil for a service of no stack.
  func shortName(of service: Service) -> String? {
    guard let stack = spec(of: service)?.stack, service.name.hasPrefix(stack + "_") else { return nil }
    return String(service.name.dropFirst(stack.utf8.count + 1))
  }

  /// Id, hostname or name, id prefix.
  func lookUpNode(_ name: String) throws -> Node {
    if let id = NodeID(name), let node = nodes[id] { return node }
    let byName = nodes.values.filter { $0.hostname == name || $0.spec.name == name }
    // A host that joined again under the same name leaves its old self behind, down.
    let alive = byName.filter { $0.status.state == .ready }
    if let found = try single(alive.isEmpty ? byName : alive, "node", name, { "\($0.hostname) (\($0.id), \($0.status.state))" }) { return found }
    if let found = try single(nodes.values.filter { $0.id.description.hasPrefix(name) }, "node", name, { "\($0.hostname) (\($0.id))" }) {
      return found
    }
    throw APIError(404, "node \(name) not found")
  }

  /// Id, `service.slot` (or `service.node` of a global service; the running one, else the newest), id prefix.
  func lookUpTask(_ name: String) throws -> ClusterTask {
    if let id = TaskID(name), let task = tasks[id] { return task }
    if let dot = name.lastIndex(of: "."), let service = try? lookUpService(String(name[..<dot])) {
      let rest = String(name[name.index(after: dot)...])
      let inSlot = tasks(of: service.id).filter { task in
        if let slot = UInt64(rest), slot > 0 { return task.slot == slot }
        guard task.slot == 0, let node = task.node else { return false }
        return node.description.hasPrefix(rest) || nodes[node]?.hostname == rest
      }
      let newestFirst = inSlot.sorted { $0.createdAt > $1.createdAt }
      if let found = newestFirst.first(where: { $0.status.state == .running }) ?? newestFirst.first { return found }
    }
    if name.utf8.count >= 3, let found = try single(tasks.values.filter { $0.id.description.hasPrefix(name) }, "task", name, { "\($0.id)" }) {
      return found
    }
    throw APIError(404, "task \(name) not found")
  }

  func lookUpNetwork(_ name: String) throws -> Network {
    if let id = NetworkID(name), let network = networks[id] { return network }
    if let network = network(named: name) { return network }
    let byPrefix = networks.values.filter { $0.id.description.hasPrefix(name) }
    if let found = try single(byPrefix, "network", name, { "\($0.name) (\($0.id))" }) { return found }
    throw APIError(404, "network \(name) not found")
  }

  func lookUpFile(_ kind: StoredFile.Kind, _ name: String) throws -> StoredFile {
    if let id = FileID(name), let file = files[id], file.kind == kind { return file }
    if let file = file(kind, named: name) { return file }
    let byPrefix = files.values.filter { $0.kind == kind && $0.id.description.hasPrefix(name) }
    if let found = try single(byPrefix, kind.rawValue, name, { "\($0.name) (\($0.id))" }) { return found }
    throw APIError(404, "\(kind.rawValue) \(name) not found")
  }

  /// "web_web.1", or "web_web.NODE" for a global service.
  func name(of task: ClusterTask) -> String {
    let service = services[task.service]?.name ?? task.service.description
    if task.slot > 0 { return "\(service).\(task.slot)" }
    return "\(service).\(task.node?.description ?? task.id.description)"
  }

  /// For people: with the host's name instead of the node's id.
  func title(of task: ClusterTask) -> String {
    guard task.slot == 0, let node = task.node.flatMap({ nodes[$0] }), let service = services[task.service] else { return name(of: task) }
    return "\(service.name).\(node.hostname)"
  }
}

private func single<Object>(_ found: [Object], _ kind: String, _ name: String, _ describe: (Object) -> String) throws -> Object? {
  guard found.count > 1 else { return found.first }
  let candidates = found.map(describe).sorted()
  let shown = candidates.prefix(8).joined(separator: ", ") + (candidates.count > 8 ? ", …" : "")
  throw APIError(400, "\(kind) \(name) is ambiguous (\(found.count) matches found): say which of \(shown)")
}
