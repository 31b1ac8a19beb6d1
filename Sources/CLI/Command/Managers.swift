import API
import APIClient
import ArgumentParser
import Model

struct Managers: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "List the managers: who leads, who votes, who is reachable, who lags.",
    discussion: "Works without a leader too; log index and lag are known to the leader alone.\n\nExample: orch managers")
  @OptionGroup var connection: Connection
  @OptionGroup var list: ListOptions

  func run() async throws { try await listManagers(connection, list) }
}

struct ManagerCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "manager", abstract: "Add, remove, promote and demote managers; choose who leads.", discussion: "Example: orch manager add",
    subcommands: [List.self, Add.self, Remove.self, Promote.self, Demote.self, Transfer.self])

  struct List: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "ls", abstract: "List the managers.", discussion: "Example: orch manager ls")
    @OptionGroup var connection: Connection
    @OptionGroup var list: ListOptions
    func run() async throws { try await listManagers(connection, list) }
  }

  struct Add: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Print the command with which a host becomes a further manager.",
      discussion: """
        Run what it prints on that host: it joins, gets the state, and votes once it has caught up. With --wait this command shows that.

        Example: orch manager add --wait
        """)
    @OptionGroup var connection: Connection
    @Flag(help: "Wait until another manager votes.") var wait = false
    @Option(help: "Seconds after which to stop waiting.") var timeout = 300

    func run() async throws {
      let client = try connection.client()
      let before = try await client.managers()
      try await printJoinCommand(client, .manager)
      let votes = before.count { $0.role == .voter }
      if votes % 2 == 1 {
        Terminal.warn(
          "note: \(votes + 1) managers survive the loss of \(votes / 2), no more than \(votes) do; \(votes + 2) survive the loss of \(votes / 2 + 1)")
      }
      guard wait else { return }
      Terminal.explainInterrupt("Stopped watching; the command still works.")
      let clock = ContinuousClock()
      let deadline = clock.now.advanced(by: .seconds(timeout))
      var shown = ""
      while clock.now < deadline {
        let now = (try? await client.managers()) ?? []
        let new = now.filter { manager in !before.contains { $0.raftID == manager.raftID } }
        if let voter = new.first(where: { $0.role == .voter }) { return Terminal.print("manager \(voter.hostname) at \(voter.addr) votes") }
        let line =
          new.first.map { "manager \($0.hostname) at \($0.addr) is catching up\($0.lag.map { ": \($0) entries behind" } ?? "")" }
          ?? "waiting for a manager to join"
        if line != shown { Terminal.print(line) }
        shown = line
        try await Task.sleep(for: .milliseconds(200))
      }
      throw ClientError.broken("no further manager votes after \(timeout) s; see orch managers, and the log of the one that joins")
    }
  }

  struct Remove: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "remove", abstract: "Take managers out of the cluster for good; their nodes stay as workers.",
      discussion: """
        The orch-manager there ends; to have it back, empty its folder and join again. One that leads hands over first.
        To forget the node too: orch node rm.

        Example: orch manager remove h3
        """, aliases: ["rm"])
    @OptionGroup var connection: Connection
    @Argument(help: "Hostnames or ids.") var nodes: [String]
    @Flag(name: .shortAndLong, help: "Even if the rest is too few to go on.") var force = false
    func run() async throws {
      let client = try connection.client()
      for node in nodes {
        try await client.call("DELETE", "/orch/v1/managers/\(percentEncoded(node))", force ? [("force", "1")] : [])
        Terminal.print(node)
      }
    }
  }

  struct Promote: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Give managers that were demoted their vote again.",
      discussion: "A host without a manager gets one by itself alone: orch manager add.\n\nExample: orch manager promote h3")
    @OptionGroup var connection: Connection
    @Argument(help: "Hostnames or ids.") var nodes: [String]
    func run() async throws {
      let client = try connection.client()
      for node in nodes {
        try await client.call("POST", "/orch/v1/managers/\(percentEncoded(node))/promote")
        Terminal.print(node)
      }
    }
  }

  struct Demote: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Take managers' votes; they keep a copy of the state (learners) and answer the API.",
      discussion: "One that leads hands over first. To be rid of a manager: orch manager remove.\n\nExample: orch manager demote h3")
    @OptionGroup var connection: Connection
    @Argument(help: "Hostnames or ids.") var nodes: [String]
    @Flag(name: .shortAndLong, help: "Even if the rest is too few to go on.") var force = false
    func run() async throws {
      let client = try connection.client()
      for node in nodes {
        try await client.call("POST", "/orch/v1/managers/\(percentEncoded(node))/demote", force ? [("force", "1")] : [])
        Terminal.print(node)
      }
    }
  }

  struct Transfer: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "transfer-leadership", abstract: "Let another manager lead.",
      discussion: "Without a name the one that has the most of the log.\n\nExample: orch manager transfer-leadership h2")
    @OptionGroup var connection: Connection
    @Argument(help: "Hostname or id.") var node: String?
    func run() async throws {
      let answer = try await connection.client().post(
        "/orch/v1/managers/transfer-leadership", [], LeadershipTransfer(node: node), as: LeadershipTransfer.self)
      Terminal.print("\(answer.node ?? "") leads")
    }
  }
}

private func listManagers(_ connection: Connection, _ list: ListOptions) async throws {
  let managers = try await connection.client().managers()
  var table = Table([
    .init("ID", nil), .init("Hostname", "HOSTNAME", flexible: true), .init("NodeID", "NODE"), .init("Addr", "ADDRESS"), .init("Role", "ROLE"),
    .init("Leader", "LEADER"), .init("Reachability", "REACHABILITY"), .init("Term", "TERM"), .init("MatchIndex", "LOG INDEX"), .init("Lag", "LAG"),
  ])
  for manager in managers {
    table.add([
      String(manager.raftID), manager.hostname, list.format == .json ? manager.nodeID : list.short(manager.nodeID), manager.addr,
      manager.role.rawValue, manager.leader ? "yes" : "",
      manager.reachability, String(manager.term), manager.matchIndex.map(String.init) ?? "", manager.lag.map(String.init) ?? "",
    ])
  }
  list.show(table, ids: managers.map(\.nodeID))
}

extension APIClient {
  func managers() async throws -> [ManagerInspect] { try await get("/orch/v1/managers", as: [ManagerInspect].self) }
}

struct JoinToken: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "join-token", abstract: "Print the command with which another host joins.",
    discussion: "Example: orch join-token worker\nExample: ssh h4 orch-agent join --token $(orch join-token -q worker) 10.0.0.1:2377")
  enum Role: String, ExpressibleByArgument, CaseIterable { case worker, manager }
  @OptionGroup var connection: Connection
  @Argument(help: "worker or manager.") var role: Role
  @Flag(name: .shortAndLong, help: "Print the token only.") var quiet = false

  func run() async throws { try await printJoinCommand(try connection.client(), role, quiet: quiet) }
}

private func printJoinCommand(_ client: APIClient, _ role: JoinToken.Role, quiet: Bool = false) async throws {
  guard let tokens = try await client.get("/swarm", as: SwarmInspect.self).joinTokens else {
    throw ClientError.broken("the manager gave no tokens")
  }
  let token = role == .worker ? tokens.worker : tokens.manager
  if quiet { return Terminal.print(token) }
  let managers = try await client.managers()
  let address = (managers.first { $0.leader } ?? managers.first)?.addr ?? "ADDRESS"
  Terminal.print(
    "To add a \(role.rawValue), run this on it:\n\n    \(role == .worker ? "orch-agent" : "orch-manager") join --token \(token) \(address)\n")
}
