import Foundation
import Identity
import LinuxSystem
import Logging
import NIOPosix
import Testing
import Transport
import Wire

extension MainJobTests {
  /// What managers owe to each other and refuse to others, on a cluster of three managers and one host without.
  @Suite(.serialized) struct Managers {
    private let cluster: LocalCluster
    private let managers = ["host1", "host2", "host3"]
    private let worker = "host4"

    init() throws { cluster = try LocalCluster(beside: "m", ["--hosts", "4", "--managers", "3"]) }

    private func withCluster(_ body: () async throws -> Void) async throws {
      defer { _ = try? cluster.dev("down", seconds: 60) }
      try await body()
    }

    private func identity(_ daemon: String, on host: String) throws -> NodeIdentity {
      try #require(try NodeIdentity.load(folder: "/var/lib/orch/dev/\(cluster.name)/\(host)/lib/\(daemon)"))
    }

    /// From the worker's host to the leader's daemon port, as whoever `identity` says.
    private func connect(as identity: NodeIdentity, to leader: String, _ group: MultiThreadedEventLoopGroup) async throws -> Connection {
      try await TransportClient.connect(
        host: "192.168.77.\(leader.dropFirst(4))", port: 2377, credentials: try Credentials(identity), log: Logger(label: "test"), group: group)
    }

    @Test("1: with a worker's certificate no manager's call is answered; with a manager's it is")
    func workerRefused() async throws {
      try await withCluster {
        let leader = try #require(try cluster.leader)
        // Its threads, and so its sockets, are on the worker's host.
        let group = try await withNetworkNamespace("/run/netns/orch-\(cluster.name)-\(worker)") { MultiThreadedEventLoopGroup(numberOfThreads: 1) }
        let stolen = try identity("agent", on: worker)
        #expect(stolen.role == .worker)
        let connection = try await connect(as: stolen, to: leader, group)
        for method in [Method.raft, .raftSnapshot, .joinMember, .forwardAPI] {
          await #expect("\(method)") {
            _ = try await connection.call(method, WireEmpty(), returning: WireEmpty.self, timeout: .seconds(5))
          } throws: { error in
            (error as? StreamError)?.code == .permissionDenied && "\(error)".contains("worker")
          }
        }
        connection.close()
        // The agent beside a manager is the same node and yet a worker.
        let beside = try identity("agent", on: leader)
        #expect(try beside.role == .worker && beside.node == identity("manager", on: leader).node)
        let neighbour = try await connect(as: beside, to: leader, group)
        await #expect(throws: StreamError.self) {
          _ = try await neighbour.call(.joinMember, WireJoinMemberRequest(), returning: WireJoinMemberResponse.self, timeout: .seconds(5))
        }
        neighbour.close()

        let other = managers.first { $0 != leader }!
        let allowed = try await connect(as: identity("manager", on: other), to: leader, group)
        var ping = WireAPIMessage()
        ping.request.method = "GET"
        ping.request.uri = "/_ping"
        let answer = try await allowed.call(.forwardAPI, ping, returning: WireAPIMessage.self, timeout: .seconds(5))
        #expect(answer.response.status == 200)
        allowed.close()
        try await group.shutdownGracefully()
      }
    }

    @Test("10: the leader is cut off: a change through another manager within 2 s, a sentence from the leader in bounded time, and it follows again")
    func leaderCutOff() async throws {
      try await withCluster {
        var runs = 0
        for flags in [[], ["--one-way"]] {
          try await within(.seconds(2), "leader cut off \(flags) to next change accepted") {
            runs += 1
            let run = runs
            let leader = try #require(try cluster.leader)
            let others = managers.filter { $0 != leader }
            for other in others { try cluster.must(cluster.dev(["partition", leader, other] + flags)) }
            let cut = ContinuousClock.now
            let isolated = Task.detached { [cluster] in
              let began = ContinuousClock.now
              let answer = UnixHTTP.call(cluster.socketPath(leader), "POST", "/networks/create", Data(#"{"Name":"alone\#(run)"}"#.utf8), seconds: 20)
              return (answer, ContinuousClock.now - began)
            }
            var (attempt, accepted) = (0, false)
            while !accepted, ContinuousClock.now - cut < .seconds(45) {
              attempt += 1
              let body = Data(#"{"Name":"after\#(run)-\#(attempt)"}"#.utf8)
              if case .answer(201, _) = UnixHTTP.call(cluster.socketPath(others[attempt % 2]), "POST", "/networks/create", body, seconds: 10) {
                accepted = true
              }
            }
            let gap = ContinuousClock.now - cut
            #expect(accepted)
            let (answer, took) = await isolated.value
            guard case .answer(503, let body) = answer else {
              throw LocalCluster.Failure("the leader that was cut off answered \(answer)")
            }
            let sentence = String(decoding: body, as: UTF8.self)
            #expect(took < .seconds(20) && (sentence.contains("majority") || sentence.contains("leader")), "\(took): \(sentence)")
            try cluster.must(cluster.dev("heal"))
            try await eventually("the former leader answers, and knows what it missed") {
              let networks = try cluster.orch("networks", on: leader)
              return (networks.output.contains("after\(run)-\(attempt)") && !networks.output.contains("alone\(run)"), "\(networks)")
            }
            return gap
          }
        }
      }
    }

    @Test("a manager whose join is refused leaves no node behind, and the agent of its host a worker")
    func refusedJoin() async throws {
      try await withCluster {
        let token = try cluster.must(cluster.orch("join-token", "-q", "manager")).output.trimmingCharacters(in: .whitespacesAndNewlines)
        func nodes() throws -> [[String: String]] { try cluster.must(cluster.orch("nodes", "--format", "json")).rows }
        let before = try nodes().map { $0["ID"] }
        for agent in ["/nowhere", "/var/lib/orch/agent"] {
          let folder = "/run/orch/refused"
          let refused = try cluster.on(
            worker, "\(LocalCluster.programs)/orch-manager", "join", "--token", token, "--advertise-addr", "192.168.77.1:2377", "--state-dir",
            folder, "--agent-state-dir", agent, "192.168.77.2:2377")
          #expect(refused.code != 0 && refused.errors.contains("has the address 192.168.77.1:2377 already"), "\(refused)")
          #expect(try cluster.on(worker, "ls", folder).code != 0)
          #expect(try nodes().map { $0["ID"] } == before)
        }
        let row = try cluster.must(cluster.orch("inspect", worker)).output
        #expect(row.contains(#""Role": "worker""#), "\(row)")
      }
    }

    @Test("a demoted manager that lost its database has the state again by reseed, and still no vote; one that lost its folder joins again")
    func reseedLearner() async throws {
      try await withCluster {
        let demoted = try #require(managers.first { $0 != (try? cluster.leader) })
        try cluster.must(cluster.orch("manager", "demote", demoted))
        try cluster.must(cluster.dev("kill", demoted, "--manager"))
        for suffix in ["", "-wal", "-shm"] { unlink("/var/lib/orch/dev/\(cluster.name)/\(demoted)/lib/manager/raft.db\(suffix)") }
        let other = try #require(managers.first { $0 != demoted })
        // It runs until it is stopped.
        let reseed = try cluster.on(
          demoted, "timeout", "-s", "INT", "5", "\(LocalCluster.programs)/orch-manager", "reseed", "192.168.77.\(other.dropFirst(4))")
        #expect(reseed.output.contains("has the cluster's state again and no vote, since it was demoted"), "\(reseed)")
        try cluster.must(cluster.dev("start", demoted))
        try await eventually("it answers as a learner") {
          let rows = try cluster.orch("managers", "--format", "json", on: demoted).rows
          return (rows.contains { $0["Hostname"] == demoted && $0["Role"] == "learner" }, "\(rows)")
        }

        // Its agent is the same node still, whose learner the leader knows to have the log.
        func id() throws -> String {
          try cluster.orch("sql", "--format", "csv", "select raft_id from managers where node = '\(demoted)'", on: other).output
        }
        let before = try id()
        let token = try cluster.must(cluster.orch("join-token", "-q", "manager", on: other)).output.trimmingCharacters(in: .whitespacesAndNewlines)
        try cluster.must(cluster.dev("kill", demoted, "--manager"))
        let folder = "/var/lib/orch/dev/\(cluster.name)/\(demoted)/lib/manager"
        try FileManager.default.removeItem(atPath: folder)
        try await eventually("it has joined") {
          let joined = try cluster.on(
            demoted, "timeout", "-s", "INT", "5", "\(LocalCluster.programs)/orch-manager", "join", "--token", token, "--advertise-addr",
            "192.168.77.\(demoted.dropFirst(4)):2377", "192.168.77.\(other.dropFirst(4)):2377")
          return (FileManager.default.fileExists(atPath: "\(folder)/raft.db"), "\(joined)")
        }
        try cluster.must(cluster.dev("start", demoted))
        try await eventually("it votes, under another Raft id") {
          let rows = try cluster.orch("managers", "--format", "json", on: demoted).rows
          let now = try id()
          return (rows.contains { $0["Hostname"] == demoted && $0["Role"] == "voter" } && now != before, "\(rows) \(before) \(now)")
        }
      }
    }

    @Test("a removed node's agent says what to do, and asks again only now and then")
    func removed() async throws {
      try await withCluster {
        try cluster.must(cluster.orch("node", "rm", "--force", worker))
        let log = "/var/lib/orch/dev/\(cluster.name)/\(worker)/log/orch-agent.log"
        func said() throws -> Int {
          try String(contentsOfFile: log, encoding: .utf8).components(separatedBy: "was removed from the cluster").count - 1
        }
        try await eventually("it is told") { (try said() > 0, try String(contentsOfFile: log, encoding: .utf8)) }
        try await Task.sleep(for: .seconds(5))
        #expect(try said() == 1)
        #expect(try String(contentsOfFile: log, encoding: .utf8).contains("join again"))
      }
    }
  }
}
