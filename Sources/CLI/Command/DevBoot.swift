import API
import APIClient
import DevCluster
import Foundation

/// Brings a local cluster up: the first manager makes the cluster, the others and all agents join with its tokens.
struct DevBoot {
  let dev: DevCluster
  let record: DevRecord

  /// Of the API over TCP, docker's for TLS.
  static let apiPort = 2376

  static func managerArguments(_ verb: [String], _ host: DevHost) -> [String] {
    verb + ["--advertise-addr", "\(host.address):2377", "--api-addr", "\(host.address):\(apiPort)"]
  }
  static func agentArguments(_ verb: [String], _ host: DevHost, _ layout: DevLayout, _ registries: [String]) -> [String] {
    verb + ["--advertise-addr", host.address, "--cgroup-parent", layout.containerCgroup(host)] + registries.flatMap { ["--insecure-registry", $0] }
  }

  func run() async throws {
    try await dev.createNetwork(record)
    try await withThrowingTaskGroup(of: Void.self) { group in
      for host in record.hosts { group.addTask { try await dev.boot(host) } }
      try await group.waitForAll()
    }
    say(
      "\(record.hosts.count) hosts: \(record.hosts.map { "\($0.name) \($0.address)" }.prefix(4).joined(separator: ", "))\(record.hosts.count > 4 ? ", …" : "")"
    )

    let first = record.hosts[0]
    try await dev.start(.manager, Self.managerArguments(["init"], first), on: first)
    let tokens = try await joinTokens(first)
    say("cluster made by \(first.name)")

    try await withThrowingTaskGroup(of: Void.self) { group in
      for host in record.hosts.dropFirst() where host.isManager {
        try await dev.start(.manager, Self.managerArguments(["join", "--token", tokens.manager, "\(first.address):2377"], host), on: host)
        group.addTask { try await waitForManager(host) }
      }
      try await group.waitForAll()
    }
    for host in record.hosts {
      try await dev.start(
        .agent, Self.agentArguments(["join", "--token", tokens.worker, "\(first.address):2377"], host, dev.layout, record.insecureRegistries),
        on: host)
    }
    say("\(record.hosts.count(where: \.isManager)) managers; agents are joining")
    try await waitForNodes(first, record.hosts.count)
  }

  private func say(_ text: String) { Terminal.print("  \(text)") }

  private func client(_ host: DevHost) throws -> APIClient { APIClient(endpoint: .unix(path: dev.layout.socket(host))) }

  private func poll<Value>(_ what: String, on host: DevHost, _ daemon: DevDaemon, _ body: (APIClient) async throws -> Value?) async throws -> Value {
    let client = try client(host)
    let deadline = ContinuousClock.now.advanced(by: .seconds(20))
    var last: (any Error)?
    while ContinuousClock.now < deadline {
      do {
        if let value = try await body(client) {
          return value
        }
      } catch { last = error }
      if dev.pid(of: daemon, on: host) == nil { break }
      try await Task.sleep(for: .milliseconds(15))
    }
    throw DevError("\(what): not done\(last.map { " (\($0))" } ?? ""); the log is \(dev.layout.log(host, daemon))")
  }

  private func joinTokens(_ host: DevHost) async throws -> (worker: String, manager: String) {
    try await poll("\(host.name) makes the cluster", on: host, .manager) { client in
      let swarm: SwarmInspect = try await client.get("/swarm")
      return swarm.joinTokens.map { ($0.worker, $0.manager) }
    }
  }

  private func waitForManager(_ host: DevHost) async throws {
    try await poll("\(host.name) joins as manager", on: host, .manager) { client in
      let nodes: [NodeInspect] = try await client.get("/nodes")
      return nodes.isEmpty ? nil : ()
    }
  }

  private func waitForNodes(_ host: DevHost, _ count: Int) async throws {
    try await poll("\(count) nodes become ready", on: host, .manager) { client in
      let nodes: [NodeInspect] = try await client.get("/nodes")
      return nodes.count { $0.status.state == "ready" } >= count ? () : nil
    }
  }
}
