import API
import APIClient
import ArgumentParser
import Model

struct Nodes: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "List the hosts of the cluster.", discussion: "Example: orch nodes --format json")
  @OptionGroup var connection: Connection
  @OptionGroup var list: ListOptions

  func run() async throws { try await listNodes(connection, list) }
}

struct NodeCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "node", abstract: "List nodes, inspect and change them: drain, activate, pause, rm, update.",
    discussion: "Example: orch node drain h2",
    subcommands: [List.self, Show.self, Drain.self, Activate.self, Pause.self, Update.self, Remove.self])

  struct List: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "ls", abstract: "List the hosts of the cluster.", discussion: "Example: orch node ls")
    @OptionGroup var connection: Connection
    @OptionGroup var list: ListOptions
    func run() async throws { try await listNodes(connection, list) }
  }
  struct Show: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "inspect", abstract: "Show everything about nodes, as JSON.",
      discussion: """
        Description.NetworkRepairs counts what others changed of a host's network and was put back, by kind; PortConflicts are published ports that its
        processes have. "self" is the node of the manager that answers.

        Example: orch node inspect h2
        """)
    @OptionGroup var connection: Connection
    @Argument(help: "Hostnames or ids.") var nodes: [String]
    @OptionGroup var shape: InspectShape
    func run() async throws { try await inspect(nodes, as: [.node], connection, shape) }
  }
  struct Drain: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Move a node's tasks elsewhere and give it no new ones.", discussion: "Example: orch node drain h2")
    @OptionGroup var connection: Connection
    @Argument(help: "Hostnames or ids.") var nodes: [String]
    func run() async throws { try await change(connection, nodes) { $0.availability = .drain } }
  }
  struct Activate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Let a drained or paused node take tasks again.", discussion: "Example: orch node activate h2")
    @OptionGroup var connection: Connection
    @Argument(help: "Hostnames or ids.") var nodes: [String]
    func run() async throws { try await change(connection, nodes) { $0.availability = .active } }
  }
  struct Pause: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Give a node no new tasks; those it has go on.", discussion: "Example: orch node pause h2")
    @OptionGroup var connection: Connection
    @Argument(help: "Hostnames or ids.") var nodes: [String]
    func run() async throws { try await change(connection, nodes) { $0.availability = .pause } }
  }
  struct Update: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Change a node's labels; placement constraints ask for them.", discussion: "Example: orch node update --label-add disk=ssd h1")
    @OptionGroup var connection: Connection
    @Option(help: ArgumentHelp("Set a label; repeatable.", valueName: "key=value")) var labelAdd: [String] = []
    @Option(help: ArgumentHelp("Remove a label; repeatable.", valueName: "key")) var labelRm: [String] = []
    @Argument(help: "Hostnames or ids.") var nodes: [String]
    func run() async throws {
      try await change(connection, nodes) { $0.labels = try edited($0.labels, add: labelAdd, remove: labelRm, "--label-add") }
    }
  }
  struct Remove: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "rm", abstract: "Forget a node that is down.", discussion: "Example: orch node rm h3")
    @OptionGroup var connection: Connection
    @Argument(help: "Hostnames or ids.") var nodes: [String]
    @Flag(name: .shortAndLong, help: "Even if it is not down.") var force = false
    func run() async throws { try await removeEach(nodes, of: "nodes", connection.client(), force ? [("force", "1")] : []) }
  }
}

private func listNodes(_ connection: Connection, _ list: ListOptions) async throws {
  let client = try connection.client()
  let nodes = try await client.get("/nodes", as: [NodeInspect].self)
  let own = try await client.get("/info", as: Info.self).swarm.nodeID
  var table = Table([
    .init("ID", "ID"), .init("Self", nil, isBoolean: true), .init("Hostname", "HOSTNAME", flexible: true), .init("Status", "STATUS"),
    .init("Availability", "AVAILABILITY"),
    .init("ManagerStatus", "MANAGER STATUS"), .init("Address", "ADDRESS"), .init("EngineVersion", "ENGINE VERSION"), .init("TLSStatus", nil),
  ])
  for node in nodes {
    let manager = node.managerStatus.map { $0.leader == true ? "Leader" : capitalized($0.reachability) } ?? ""
    table.add([
      list.format == .json ? node.id : list.short(node.id) + (node.id == own ? " *" : ""), node.id == own ? "true" : "false", node.hostname,
      capitalized(node.status.state), capitalized(node.spec.availability.rawValue), manager, node.status.addr ?? "",
      node.description?.engine.engineVersion ?? "", "Ready",
    ])
  }
  list.show(table, ids: nodes.map(\.id))
  list.warn(nodes.flatMap { $0.warnings() })
}

private func change(_ connection: Connection, _ names: [String], _ edit: (inout NodeSpec) throws -> Void) async throws {
  let client = try connection.client()
  for name in names {
    _ = try await client.edit(name, as: NodeInspect.self, if: !=, edit)
    Terminal.print(name)
  }
}
