import Model

/// One entry of `depends_on`, before it is known whether there is such a service.
struct DeclaredDependency {
  var name: String
  var condition = ServiceDependency.Condition.started
  var isRequired = true
  var position: Value.Position
  var path: String
}

extension Reader {
  /// A list of names, or a map of names with their conditions.
  func readDependencies(_ value: Value) -> [DeclaredDependency] {
    if case .list(let items) = value.kind {
      return items.compactMap { item in
        nonEmpty(item, "a service's name").map { DeclaredDependency(name: $0, position: item.position, path: item.path) }
      }
    }
    return (entries(value) ?? []).compactMap { entry in
      var declared = DeclaredDependency(name: entry.key, position: entry.position, path: entry.value.path)
      if entry.value.isNull { return declared }
      guard var fields = Fields(entry.value, self) else { return nil }
      if let value = fields.take("condition"), let text = nonEmpty(value, "a condition") {
        let known = ServiceDependency.Condition.allCases.map(\.rawValue)
        if let condition = ServiceDependency.Condition(rawValue: text) {
          declared.condition = condition
        } else {
          error(
            value, "there is no condition '\(text)'",
            nearest(to: text, among: known).map { "did you mean '\($0)'?" } ?? "use \(known.joined(separator: ", "))")
        }
      }
      if let value = fields.take("required") { declared.isRequired = bool(value) ?? true }
      if let value = fields.take("restart"), bool(value) == true {
        notYet(value, "a service is not started again because another was updated; orch update --force does it")
      }
      fields.finish()
      return declared
    }
  }

  /// Writes what holds into the specs. A service that others wait for to complete is not started again after that.
  func resolveDependencies(_ services: inout [ServiceSpec], stack: String) {
    let places = Dictionary(services.enumerated().map { ($1.name, $0) }) { first, _ in first }
    for index in services.indices {
      let own = services[index].name
      var kept: [ServiceDependency] = []
      for declared in dependencies[own] ?? [] {
        guard let other = places["\(stack)_\(declared.name)"] else {
          if declared.isRequired {
            let near = nearest(to: declared.name, among: serviceKeys.values)
            error(
              declared.position, declared.path, "there is no service '\(declared.name)'",
              near.map { "did you mean '\($0)'?" } ?? "declare it, or write 'required: false'")
          } else {
            warning(declared.position, declared.path, "there is no service '\(declared.name)', so it is not waited for", "remove it")
          }
          continue
        }
        check(declared, &services[other])
        kept.append(ServiceDependency(service: declared.name, condition: declared.condition))
      }
      guard !kept.isEmpty else { continue }
      if services[index].isGlobal, let first = dependencies[own]?.first {
        error(first.position, first.path, "a global service cannot wait for others yet", "let the program try again until the other answers")
      }
      services[index].dependencies = kept
    }
    refuseCycles(services, stack)
  }

  private func check(_ declared: DeclaredDependency, _ other: inout ServiceSpec) {
    switch declared.condition {
    case .started: break
    case .healthy:
      if other.taskTemplate.containerSpec.healthCheck?.test == ["NONE"] {
        error(declared.position, declared.path, "'\(declared.name)' has its health check switched off", "wait for service_started")
      }
    case .completed:
      var policy = other.taskTemplate.restartPolicy ?? RestartPolicy()
      if policy.condition == .any {
        error(
          declared.position, declared.path, "'\(declared.name)' is started again whenever it has completed", "give it 'restart: on-failure'")
      }
      if policy.condition == nil { policy.condition = .onFailure }
      other.taskTemplate.restartPolicy = policy
    }
  }

  private func refuseCycles(_ services: [ServiceSpec], _ stack: String) {
    let waits = Dictionary(services.map { ($0.name, $0.dependencies.map { "\(stack)_\($0.service)" }) }) { first, _ in first }
    var done: Set<String> = []
    func walk(_ name: String, _ path: [String]) {
      if let start = path.firstIndex(of: name) {
        let cycle = (path[start...] + [name]).map { serviceKeys[$0] ?? $0 }.joined(separator: " -> ")
        if let first = dependencies[name]?.first {
          error(first.position, first.path, "services wait for each other: \(cycle)", "take one of these out")
        }
        return
      }
      guard done.insert(name).inserted else { return }
      for other in waits[name] ?? [] { walk(other, path + [name]) }
    }
    for service in services { walk(service.name, []) }
  }
}
