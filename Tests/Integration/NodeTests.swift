import Foundation
import Testing

extension MainJobTests {
  /// Nodes that come and go, on a cluster of three managers and one host without.
  @Suite(.serialized) struct Nodes {
    private let cluster: LocalCluster
    private let worker = "host4"

    init() throws {
      // For the sample images.
      _ = try LocalCluster.shared.get()
      cluster = try LocalCluster(beside: "n", ["--hosts", "4", "--managers", "3"])
    }

    private func load() throws { try cluster.must(cluster.orch("image", "load", "\(LocalCluster.images)/busybox-1.tar")) }
    private func deployGlobal() throws {
      let folder = try TemporaryFolder()
      let file = try folder.write(
        "all.yaml",
        """
        services:
          probe: {image: "busybox:1", command: sleep 1000, stop_grace_period: 1s, deploy: {mode: global}}
        """)
      try cluster.must(cluster.orch("deploy", file, "--name", "all"))
    }
    private func holders(on host: String = "host1") throws -> [String] {
      try cluster.running("all_probe", on: host).compactMap { $0["Node"] }.sorted()
    }
    private func runs(on hosts: [String], asking host: String = "host1") async throws {
      try await eventually("one task on each of \(hosts)") {
        (try holders(on: host) == hosts, "\(try cluster.tasks("all_probe", on: host))")
      }
    }

    @Test("a global service has one task a node: a node that joins gets one, one that is drained loses its")
    func global() async throws {
      defer { _ = try? cluster.dev("down", seconds: 60) }
      // A cluster of three nodes, as far as it knows.
      try cluster.must(cluster.dev("kill", worker))
      try cluster.must(cluster.orch("node", "rm", "--force", worker))
      try load()
      try deployGlobal()
      try await runs(on: ["host1", "host2", "host3"])
      let before = Set(try cluster.running("all_probe").compactMap { $0["ID"] })

      try FileManager.default.removeItem(atPath: "/var/lib/orch/dev/\(cluster.name)/\(worker)/lib/agent")
      // Its daemons find nothing to run with; the host itself is on.
      _ = try cluster.dev("start", worker)
      let token = try cluster.must(cluster.orch("join-token", "-q", "worker")).output.trimmingCharacters(in: .whitespacesAndNewlines)
      // Its containers belong to the host's cgroup, as `dev start` would have it, or `dev down` could not find them.
      let join = "orch-agent join --token \(token) --cgroup-parent orch-dev-\(cluster.name)/\(worker)/containers 192.168.77.1:2377"
      try cluster.must(cluster.on(worker, "sh", "-c", "setsid \(LocalCluster.programs)/\(join) >/run/orch/join.log 2>&1 </dev/null &"))
      try await eventually("the node is ready") {
        let nodes = try cluster.orch("nodes", "--format", "json").rows
        return (nodes.contains { $0["Hostname"] == worker && $0["Status"] == "Ready" }, "\(nodes)")
      }
      try load()
      try await runs(on: ["host1", "host2", "host3", worker])
      #expect(before.isSubset(of: Set(try cluster.running("all_probe").compactMap { $0["ID"] })))

      try cluster.must(cluster.orch("node", "drain", "host2"))
      try await runs(on: ["host1", "host3", worker])
      try cluster.must(cluster.orch("node", "activate", "host2"))
      try await runs(on: ["host1", "host2", "host3", worker])
    }

    @Test("orch node rm of the leading manager: it hands over first, so that the next change waits for no election")
    func removeLeader() async throws {
      defer { _ = try? cluster.dev("down", seconds: 60) }
      try load()
      try deployGlobal()
      let hosts = ["host1", "host2", "host3", worker]
      try await runs(on: hosts)
      let leader = try #require(try cluster.leader)
      let other = try #require(hosts.first { $0 != leader })
      /// Who finds itself without a leader asks for votes so.
      func elections() throws -> Int {
        try ["host1", "host2", "host3"].filter { $0 != leader }.reduce(0) { count, host in
          let log = try String(contentsOfFile: "/var/lib/orch/dev/\(cluster.name)/\(host)/log/orch-manager.log", encoding: .utf8)
          return count + log.components(separatedBy: "role=preCandidate").count - 1
        }
      }
      let before = try elections()
      try cluster.must(cluster.orch("node", "rm", "--force", leader, on: other))
      let change = UnixHTTP.call(cluster.socketPath(other), "POST", "/networks/create", Data(#"{"Name":"after"}"#.utf8), seconds: 10)
      if case .answer(201, _) = change {} else { Issue.record("\(change)") }
      #expect(try elections() == before)
      let nodes = try cluster.must(cluster.orch("nodes", "--format", "json", on: other)).rows
      #expect(nodes.count == 3 && !nodes.contains { $0["Hostname"] == leader } && nodes.count { $0["ManagerStatus"] == "Leader" } == 1, "\(nodes)")
      let managers = try cluster.must(cluster.orch("managers", "--format", "json", on: other)).rows
      #expect(managers.count == 2 && managers.allSatisfy { $0["Role"] == "voter" }, "\(managers)")
      try await runs(on: hosts.filter { $0 != leader }, asking: other)
      let log = try String(contentsOfFile: "/var/lib/orch/dev/\(cluster.name)/\(leader)/log/orch-manager.log", encoding: .utf8)
      #expect(log.contains("this manager does not lead any more"), "\(log.suffix(2000))")
      try await eventually("the removed manager ends") {
        let row = try cluster.dev("hosts", "--format", "json").rows.first { $0["Name"] == leader } ?? [:]
        return (["", "-"].contains(row["Manager"] ?? ""), "\(row)")
      }
    }
  }
}
