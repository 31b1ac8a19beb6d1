import API
import APIClient
import ArgumentParser
import Model
import Surroundings

struct ListTasks: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ps", abstract: "List tasks with their history: what ran where, what ended and why.",
    discussion: "Without a service: all tasks that should run (-a: the ended ones too).\n\nExample: orch ps web")
  @OptionGroup var connection: Connection
  @Argument(help: "Services; none: all.") var services: [String] = []
  @Flag(name: .shortAndLong, help: "Ended tasks too.") var all = false
  @Option(help: "Tasks on this node only.") var node: String?
  @OptionGroup var list: ListOptions

  func run() async throws {
    let client = try connection.client()
    var filters: [String: [String]] = [:]
    if !services.isEmpty { filters["service"] = services }
    if let node { filters["node"] = [node] }
    let tasks = try await client.tasks(filters)
    let known = try await client.get("/services", as: [ServiceInspect].self)
    let names = Dictionary(known.map { ($0.id, $0.spec.name) }) { first, _ in first }
    let nodes = try await client.get("/nodes", as: [NodeInspect].self)
    let hostnames = nodes.hostnames
    let shown = tasks.filter { !services.isEmpty || all || $0.wanted || $0.isAlive }
    func base(_ task: TaskInspect) -> String { task.title(names[task.serviceID] ?? String(task.serviceID.prefix(12)), hostnames) }
    let sorted = shown.sorted { a, b in
      if a.serviceID != b.serviceID { return (names[a.serviceID] ?? "", a.serviceID) < (names[b.serviceID] ?? "", b.serviceID) }
      if a.slot != b.slot { return (a.slot ?? 0) < (b.slot ?? 0) }
      if a.slot == nil, a.nodeID != b.nodeID { return base(a) < base(b) }
      return a.createdAt > b.createdAt
    }
    var table = Table([
      .init("ID", "ID"), .init("Name", "NAME", flexible: true), .init("Image", "IMAGE", flexible: true), .init("Node", "NODE"),
      .init("DesiredState", "DESIRED STATE"), .init("CurrentState", "CURRENT STATE", flexible: true), .init("Error", "ERROR", flexible: true),
      .init("Ports", "PORTS"),
    ])
    var previous = ""
    for task in sorted {
      let name = base(task)
      let ports = (task.status.portStatus?.ports ?? []).map(\.shown)
      table.add([
        list.short(task.id), name == previous && list.format == .table ? " \\_ \(name)" : name, task.spec.containerSpec.image,
        task.nodeID.map { hostnames[$0] ?? String($0.prefix(12)) } ?? "", capitalized(task.desiredState),
        "\(capitalized(task.status.state)) \(task.status.timestamp.ago)\(health(task))", task.problem, ports.joined(separator: ","),
      ])
      previous = name
    }
    list.show(table, ids: sorted.map { list.short($0.id) })
    let own = known.filter { service in sorted.contains { $0.serviceID == service.id } }
    list.warn(nodes.flatMap { $0.warnings(for: own) })
  }

  /// As `docker ps` has it.
  private func health(_ task: TaskInspect) -> String {
    guard let health = task.status.containerStatus?.health, !task.isOver else { return "" }
    return health.status == .starting ? " (health: starting)" : " (\(health.status.rawValue))"
  }
}

func capitalized(_ text: String) -> String { text.prefix(1).uppercased() + text.dropFirst() }

extension Timestamp {
  /// "5 seconds ago".
  var ago: String { humanDuration(.now - self).lowercasedFirst + " ago" }
}

extension String {
  fileprivate var lowercasedFirst: String { prefix(1).lowercased() + dropFirst() }
}
