import API
import APIClient
import ArgumentParser
import Model

struct Services: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "List the services, with how many of their tasks run.", discussion: "Example: orch services --format json", aliases: ["ls"])
  @OptionGroup var connection: Connection
  @OptionGroup var list: ListOptions
  @Option(name: .shortAndLong, help: ArgumentHelp("Of this stack only.", valueName: "name")) var stack: String?

  func run() async throws {
    var query: APIClient.Query = [("status", "true")]
    if let stack { query.append(("filters", JSONText.line(["label": ["\(StackLabel.namespace)=\(stack)"]]))) }
    let client = try connection.client()
    let services = try await client.get("/services", query, as: [ServiceInspect].self)
    var table = Table([
      .init("ID", "ID"), .init("Name", "NAME", flexible: true), .init("Mode", "MODE"), .init("Replicas", "REPLICAS"),
      .init("Image", "IMAGE", flexible: true), .init("Ports", "PORTS", flexible: true),
    ])
    for service in services {
      let status = service.serviceStatus
      table.add([
        list.short(service.id), service.spec.name, service.spec.mode?.global == nil ? "replicated" : "global",
        "\(status?.runningTasks ?? 0)/\(status?.desiredTasks ?? 0)", service.spec.taskTemplate.containerSpec.image, ports(service),
      ])
    }
    list.show(table, ids: services.map { list.short($0.id) })
    if !list.quiet { list.warn(try await client.get("/nodes", as: [NodeInspect].self).flatMap { $0.warnings(for: services) }) }
  }

  private func ports(_ service: ServiceInspect) -> String {
    (service.endpoint.ports ?? service.spec.ports).filter { $0.publishMode != .host }.map(\.shown).joined(separator: ", ")
  }
}

extension PortConfig {
  /// "*:8080->80/tcp", the address in place of the star where it is one.
  var shown: String {
    let place = hostIP.map { $0.family == .v6 ? "[\($0)]" : "\($0)" } ?? "*"
    return "\(place):\(publishedPort ?? 0)->\(targetPort)/\((`protocol` ?? .tcp).rawValue)"
  }
}

struct Scale: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Set how many tasks services have, several at once; shows the way there.",
    discussion: "All are changed, or none. Ctrl-C stops the watching only.\n\nExample: orch scale web=3 api=0")
  @OptionGroup var connection: Connection
  @Argument(help: ArgumentHelp("SERVICE=COUNT, 0 to 10000.", valueName: "service=count")) var targets: [String]
  @OptionGroup var waiting: WaitOptions

  func run() async throws {
    var counts: [String: Int64] = [:]
    for target in targets {
      guard let equals = target.lastIndex(of: "="), equals != target.startIndex else {
        throw ValidationError("'\(target)' is not SERVICE=COUNT, for example web=3")
      }
      let name = String(target[..<equals])
      let text = target[target.index(after: equals)...]
      guard let count = Int64(text) else {
        throw ValidationError("'\(target)': \(text.isEmpty ? "nothing" : "'\(text)'") is no number of tasks; give for example \(name)=3")
      }
      if counts.updateValue(count, forKey: name) != nil { throw ValidationError("\(name) is named twice") }
    }
    let client = try connection.client()
    let answer = try await client.post("/orch/v1/scale", [], counts, as: ScaleResponse.self)
    if !waiting.quiet {
      for item in answer.services {
        Terminal.print("\(item.name) scaled to \(item.to)" + (item.from == item.to ? " (it was already)" : " from \(item.from)"))
      }
    }
    try await waiting.wait(client, answer.services.map(\.id))
  }
}

struct Update: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Change a service; its tasks are replaced as its update_config says.",
    discussion: "Example: orch update web --image web:2\nExample: orch update web --env-add LEVEL=debug --replicas 4")
  @OptionGroup var connection: Connection
  @Argument(help: "The service.") var service: String
  @Option(help: "The image to run.") var image: String?
  @Option(parsing: .unconditional, help: "How many tasks.") var replicas: Int64?
  @Option(help: ArgumentHelp("Set a variable; repeatable.", valueName: "name=value")) var envAdd: [String] = []
  @Option(help: ArgumentHelp("Remove a variable; repeatable.", valueName: "name")) var envRm: [String] = []
  @Option(help: ArgumentHelp("Set a label of the service; repeatable.", valueName: "key=value")) var labelAdd: [String] = []
  @Option(help: ArgumentHelp("Remove a label; repeatable.", valueName: "key")) var labelRm: [String] = []
  @Option(help: ArgumentHelp("Add a placement constraint; repeatable.", valueName: "node.role==worker")) var constraintAdd: [String] = []
  @Option(help: ArgumentHelp("Remove a placement constraint; repeatable.", valueName: "constraint")) var constraintRm: [String] = []
  @Option(help: "Tasks replaced at a time; 0: all at once.") var updateParallelism: UInt64?
  @Option(help: ArgumentHelp("Time between replacements.", valueName: "10s")) var updateDelay: String?
  @Option(help: "stop-first or start-first.") var updateOrder: String?
  @Option(help: "pause, continue or rollback.") var updateFailureAction: String?
  @Flag(help: "Replace the tasks even if nothing else changed.") var force = false
  @OptionGroup var auth: RegistryAuthOption
  @OptionGroup var waiting: WaitOptions

  func run() async throws {
    let client = try connection.client()
    let (old, spec) = try await client.edit(
      service, as: ServiceInspect.self,
      headers: { spec in try auth.header(for: spec.taskTemplate.containerSpec.image).map { [(name: "X-Registry-Auth", value: $0)] } ?? [] }, change)
    if !waiting.quiet { Terminal.print(spec == old.spec && !auth.withRegistryAuth ? "\(spec.name): nothing to change" : "\(spec.name) updated") }
    return try await waiting.wait(client, [old.id])
  }

  private func change(_ spec: inout ServiceSpec) throws {
    if let image { spec.taskTemplate.containerSpec.image = image }
    if let replicas {
      guard replicas >= 0 else { throw ValidationError("--replicas \(replicas): give 0 or more") }
      guard !spec.isGlobal else { throw ValidationError("\(spec.name) runs one task on every node: --replicas does not apply") }
      spec.mode = .replicated(UInt64(replicas))
    }
    var env = spec.taskTemplate.containerSpec.env ?? []
    for name in envRm { env.removeAll { $0 == name || $0.hasPrefix(name + "=") } }
    for pair in envAdd {
      let name = String(pair.prefix { $0 != "=" })
      guard !name.isEmpty, pair.contains("=") else { throw ValidationError("--env-add \(pair): give NAME=VALUE") }
      env.removeAll { $0.hasPrefix(name + "=") }
      env.append(pair)
    }
    if !envRm.isEmpty || !envAdd.isEmpty { spec.taskTemplate.containerSpec.env = env }
    spec.labels = try edited(spec.labels, add: labelAdd, remove: labelRm, "--label-add")
    var placement = spec.taskTemplate.placement ?? Placement()
    var constraints = placement.constraints ?? []
    constraints.removeAll { constraintRm.contains($0) }
    constraints += constraintAdd.filter { !constraints.contains($0) }
    if !constraintAdd.isEmpty || !constraintRm.isEmpty {
      placement.constraints = constraints
      spec.taskTemplate.placement = placement
    }
    var config = spec.updateConfig ?? UpdateConfig()
    if let updateParallelism { config.parallelism = updateParallelism }
    if let updateDelay {
      guard let span = parseSpan(updateDelay) else { throw ValidationError("--update-delay \(updateDelay): give a time like 10s or 1m30s") }
      config.delay = span
    }
    if let updateOrder {
      guard let order = UpdateConfig.Order(rawValue: updateOrder) else {
        throw ValidationError("--update-order \(updateOrder): stop-first or start-first")
      }
      config.order = order
    }
    if let updateFailureAction {
      guard let action = UpdateConfig.FailureAction(rawValue: updateFailureAction) else {
        throw ValidationError("--update-failure-action \(updateFailureAction): pause, continue or rollback")
      }
      config.failureAction = action
    }
    if config != spec.updateConfig, config != UpdateConfig() { spec.updateConfig = config }
    if force { spec.taskTemplate.forceUpdate = (spec.taskTemplate.forceUpdate ?? 0) + 1 }
  }
}

/// Labels, or other KEY=VALUE, after --…-add and --…-rm; nil stays nil when nothing is asked.
func edited(_ labels: [String: String]?, add: [String], remove: [String], _ option: String) throws -> [String: String]? {
  guard !add.isEmpty || !remove.isEmpty else { return labels }
  var labels = labels ?? [:]
  for key in remove { labels[key] = nil }
  for pair in add {
    let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
    guard !parts[0].isEmpty else { throw ValidationError("\(option) \(pair): give KEY=VALUE") }
    labels[String(parts[0])] = parts.count == 2 ? String(parts[1]) : ""
  }
  return labels
}

struct Rollback: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Bring a service back to its previous revision.", discussion: "Example: orch rollback web")
  @OptionGroup var connection: Connection
  @Argument(help: "The service.") var service: String
  @OptionGroup var waiting: WaitOptions

  func run() async throws {
    let client = try connection.client()
    let old = try await client.get("/services/\(percentEncoded(service))", as: ServiceInspect.self)
    try await client.call(
      "POST", "/services/\(old.id)/update", [("version", String(old.version.index)), ("rollback", "previous")], JSONText.encode(old.spec))
    if !waiting.quiet { Terminal.print("\(old.spec.name) rolls back") }
    try await waiting.wait(client, [old.id], rollingBack: true)
  }
}

struct Remove: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rm", abstract: "Remove services and their tasks.", discussion: "For a whole stack: orch down.\n\nExample: orch rm web_visitor")
  @OptionGroup var connection: Connection
  @Argument(help: "The services.") var services: [String]

  func run() async throws { try await removeEach(services, of: "services", connection.client()) }
}
