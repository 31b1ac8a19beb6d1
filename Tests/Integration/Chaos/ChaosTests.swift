import Foundation
import Linearizability
import Testing

extension MainJobTests {
  /// Three managers, with clients that write and read through all of them while managers are killed and paused, networks fail in one
  /// direction or both, and disks fill. Nested, so that nothing that measures time runs beside it.
  ///
  /// ORCH_CHAOS_SECONDS (180): how long; ORCH_CHAOS_SEED: the schedule of a failure again; ORCH_CHAOS_KEEP: a good run's history, too. What the processes make of it is theirs: the
  /// same seed gives the same faults, not the same history.
  @Suite(.serialized) struct Chaos {
    static let environment = ProcessInfo.processInfo.environment
    let hosts = ["host1", "host2", "host3"]

    @Test("3: what clients saw is linearizable, nothing acknowledged is lost or done twice, and managers outlive every fault")
    func history() async throws {
      let duration = Self.environment["ORCH_CHAOS_SECONDS"].flatMap { Double($0) } ?? 180
      let seed = Self.environment["ORCH_CHAOS_SEED"].flatMap { UInt64($0) } ?? UInt64.random(in: 0..<1_000_000)
      let again = "ORCH_CHAOS_SEED=\(seed) ORCH_CHAOS_SECONDS=\(Int(duration)) swift test --filter Chaos"
      print("chaos: \(again)")
      let cluster = try LocalCluster(beside: "c", ["--manager-disk", "64M"])
      defer { _ = try? cluster.dev("down", seconds: 60) }

      let services = ["chaos-a", "chaos-b"]
      for service in services {
        let spec = #"{"Name":"\#(service)","TaskTemplate":{"ContainerSpec":{"Image":"web:1"}},"Mode":{"Replicated":{"Replicas":0}}}"#
        let made = UnixHTTP.call(cluster.socketPath("host1"), "POST", "/services/create", Data(spec.utf8), seconds: 10)
        guard case .answer(201, _) = made else { throw LocalCluster.Failure("create \(service): \(made)") }
      }
      let clients = ChaosClients(
        sockets: Dictionary(uniqueKeysWithValues: hosts.map { ($0, cluster.socketPath($0)) }),
        registers: hosts.map { .init(kind: .node, name: $0) } + services.map { .init(kind: .service, name: $0) })
      let faults = ChaosFaults(cluster, hosts: hosts, note: clients.note)
      var problems: [String] = []

      clients.start(clients: 6, seed: seed)
      try await faults.run(FaultSchedule(seed: seed, duration: .seconds(duration)))
      let healed = clients.now
      do { try await recovered(clients) } catch { problems.append("\(error)") }
      let recovery = clients.now - healed
      try await clients.stop()
      faults.expectAllAlive()
      problems += faults.deaths
      problems += await lastReads(clients, faults)
      problems += clients.writtenTwice.map { "written twice: \($0)" }
      do { try clients.history.check() } catch { problems.append("\(error)") }

      let totals = clients.totals
      print(
        "chaos: \(totals.acknowledged) writes acknowledged, \(totals.unknown) of unknown fate, \(totals.reads) reads, \(totals.refused) without effect; "
          + "longest time without an acknowledgement \(seconds(totals.longestGap)) s (until \(seconds(totals.longestGapEnd))); all managers work \(seconds(recovery)) s after the last fault"
      )
      // Without them it proves nothing.
      #expect(totals.acknowledged > Int(duration) * 5, "\(totals)")
      guard !problems.isEmpty || Self.environment["ORCH_CHAOS_KEEP"] != nil else { return }
      let folder = try keep(clients, problems, seed, cluster)
      guard !problems.isEmpty else { return print("chaos: kept in \(folder)") }
      let faultsSeen = clients.trace.filter { $0.contains(" fault: ") }.joined(separator: "\n")
      Issue.record(
        "\(problems.joined(separator: "\n"))\nfaults:\n\(faultsSeen)\nAll of it, and the managers' logs: \(folder)\nThe same faults again: \(again)")
    }

    /// Every manager's API writes and reads again.
    private func recovered(_ clients: ChaosClients) async throws {
      let deadline = ContinuousClock.now + .seconds(30)
      for host in hosts {
        while clients.readSet(100, host) == nil {
          guard ContinuousClock.now < deadline else { throw LocalCluster.Failure("the API on \(host) does not work 30 s after the last fault") }
          try await Task.sleep(for: .milliseconds(50))
        }
      }
      let before = clients.totals.acknowledged
      while clients.totals.acknowledged < before + 10 {
        guard ContinuousClock.now < deadline else { throw LocalCluster.Failure("no writes are acknowledged 30 s after the last fault") }
        try await Task.sleep(for: .milliseconds(50))
      }
    }

    /// From every manager's own copy: each leads once.
    private func lastReads(_ clients: ChaosClients, _ faults: ChaosFaults) async -> [String] {
      var led: Set<String> = []
      let deadline = ContinuousClock.now + .seconds(60)
      while led.count < hosts.count {
        guard ContinuousClock.now < deadline else { return ["only \(led.sorted()) could be made to lead within 60 s"] }
        guard let leader = faults.leader else {
          try? await Task.sleep(for: .milliseconds(50))
          continue
        }
        for register in clients.registers { clients.read(register, 101, leader) }
        clients.readSet(101, leader)
        led.insert(leader)
        if led.count < hosts.count { try? faults.restart(leader) }
      }
      return []
    }

    private func keep(_ clients: ChaosClients, _ problems: [String], _ seed: UInt64, _ cluster: LocalCluster) throws -> String {
      let folder = "\(NSTemporaryDirectory())orch-chaos-\(seed)"
      try? FileManager.default.removeItem(atPath: folder)
      try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
      try (problems + [""] + clients.trace).joined(separator: "\n").write(toFile: "\(folder)/history", atomically: true, encoding: .utf8)
      for host in hosts {
        try? FileManager.default.copyItem(atPath: "/var/lib/orch/dev/\(cluster.name)/\(host)/log/orch-manager.log", toPath: "\(folder)/\(host).log")
      }
      return folder
    }
  }
}
