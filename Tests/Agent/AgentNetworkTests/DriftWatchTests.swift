import Glibc
import Model
import Testing

@testable import AgentNetwork

@Suite("When what others change is told")
struct DriftPaceTests {
  @Test("100 ms after the first change, whatever comes meanwhile; changes without end are told twice as late each time, a second at most")
  func pace() {
    var pace = DriftWatch.Pace()
    var due = pace.isDue(at: 5000)
    #expect(pace.wait(at: 5000) == -1 && !due)
    pace.began(at: 5000)
    for time in stride(from: Int64(5010), to: 5100, by: 10) {
      pace.began(at: time)
      due = pace.isDue(at: time)
      #expect(pace.wait(at: time) == Int32(5100 - time) && !due)
    }
    let once = [pace.isDue(at: 5100), pace.isDue(at: 5100)]
    #expect(once == [true, false] && pace.wait(at: 5100) == -1)
    var now: Int64 = 5100
    for expected in [Int64(200), 400, 800, 1000, 1000] {
      now += 3
      pace.began(at: now)
      #expect(pace.wait(at: now) == Int32(expected))
      now += expected
      let told = [pace.isDue(at: now - 1), pace.isDue(at: now)]
      #expect(told == [false, true])
    }
    pace.began(at: now + DriftWatch.Pace.calm)
    #expect(pace.wait(at: now + DriftWatch.Pace.calm) == 100)
  }
}

@Suite("Tampering on a host that is never silent", .serialized, .enabled(if: geteuid() == 0))
struct DriftNoiseTests {
  @Test("is repaired within a second while neighbours and links of others change 50 times a second")
  func noise() async throws {
    try await NamespaceWorld.with(2) { world in
      var cluster = Cluster(hosts: 2)
      for number in 1...2 { cluster.place(number, on: number) }
      let overlay = try world.overlay(1)
      await overlay.whenDrifted { Task { _ = try await overlay.repair() } }
      try await overlay.apply(networks: cluster.networks(of: 1), services: cluster.services, endpoints: cluster.endpoints)
      let one = try await overlay.attach(cluster.network(1))
      try await overlay.repair()
      let host = world.host(1)
      let noises = [
        // Of neighbours, which concern nobody here; of links, which may.
        "ip neigh replace 192.168.77.200 lladdr 02:00:00:00:00:$(printf %02x $((i % 256))) dev eth0",
        "ip link set lo mtu $((60000 + i % 256))", "nsenter --net=\(one.path) ip link set lo mtu $((60000 + i % 256))",
      ]
      for noise in noises {
        async let noisy = world.run(
          in: host, "sh", "-c",
          "e=$(($(date +%s) + 12)); i=0; while [ $(date +%s) -lt $e ] && [ ! -e \(world.folder)/quiet ]; do i=$((i+1)); \(noise); sleep 0.02; done")
        try await Task.sleep(for: .seconds(1))
        for (kind, command) in [("rules", "nft flush ruleset"), ("neighbour", "ip neigh del 10.77.0.12 dev orvx4096")] {
          let counted = await overlay.repairs[kind] ?? 0
          #expect(try await world.run(in: host, "sh", "-c", command).code == 0)
          let began = ContinuousClock.now
          while await overlay.repairs[kind] ?? 0 == counted, ContinuousClock.now - began < .seconds(4) {
            try await Task.sleep(for: .milliseconds(20))
          }
          #expect(await overlay.repairs[kind] ?? 0 > counted, "\(command) beside \(noise)")
          // 1 s is the longest pause; the rest is for a busy machine.
          #expect(ContinuousClock.now - began < .seconds(3), "\(command) beside \(noise)")
        }
        close(Glibc.open("\(world.folder)/quiet", O_CREAT | O_WRONLY | O_CLOEXEC, 0o600))
        _ = try await noisy
        unlink("\(world.folder)/quiet")
      }
    }
  }
}

@Suite("Rules that somebody changed and nobody told of", .serialized, .enabled(if: geteuid() == 0))
struct UntoldRulesTests {
  @Test("a generation that the watch never heard of is one of them, whatever the numbers; ours and what it heard of are not")
  func generations() {
    /// Of one comparison after the other, each with the kernel's number and the last that was heard of.
    func untold(_ loaded: UInt32, _ comparisons: [(UInt32, UInt32?)]) -> [Bool] {
      var known = HostNetwork.Generation(loaded: loaded)
      return comparisons.map { known.isUntold(now: $0.0, heard: $0.1) }
    }
    #expect(untold(7, [(7, nil), (8, nil)]) == [false, true])
    // Its message may be under way; by the next comparison it has come, or never will.
    #expect(untold(7, [(9, 7), (9, 9), (12, 10)]) == [false, false, false])
    #expect(untold(7, [(9, 7), (9, 8)]) == [false, true])
    #expect(untold(.max - 1, [(1, .max), (2, 1)]) == [false, false])
  }

  @Test("on a kernel that tells of nothing it is said, and rules, interfaces and addresses are repaired by the comparison that comes by time")
  func unheard() async throws {
    try await NamespaceWorld.with(1) { world in
      var cluster = Cluster(hosts: 1)
      cluster.ports = [PortConfig(targetPort: 80, publishedPort: 8080)]
      cluster.place(1, on: 1)
      let overlay = try world.overlay(1, hearsChanges: false)
      await overlay.whenDrifted { Task { _ = try await overlay.repair() } }
      let clock = ManualClock()
      let regularly = Task { await overlay.compareRegularly(every: .seconds(15), clock: clock) }
      defer { regularly.cancel() }
      func apply() async throws -> [String] {
        try await overlay.apply(networks: cluster.networks(of: 1), services: cluster.services, endpoints: cluster.endpoints).map(\.object)
      }
      for _ in 1...2 { #expect(try await apply() == ["changes by others"]) }
      let one = try await overlay.attach(cluster.network(1)).path
      let server = try await world.serve("task1", in: one)
      defer { world.stop([server]) }
      for (kind, command) in [
        ("rules", "nft flush ruleset"), ("container rules", "nsenter --net=\(one) nft flush ruleset"),
        ("container address", "nsenter --net=\(one) ip address del 10.255.0.11/24 dev eth0"), ("link", "ip link set orbr4097 down"),
      ] {
        let before = await overlay.repairs
        #expect(try await world.run(in: world.host(1), "sh", "-c", command).code == 0)
        await clock.advance(by: .seconds(15))
        for _ in 1...200 where await overlay.repairs == before { try await Task.sleep(for: .milliseconds(50)) }
        try await overlay.repair()
        let after = await overlay.repairs
        #expect(after[kind] == (before[kind] ?? 0) + 1, "\(command): \(after)")
        #expect(try await world.ask("192.168.77.1:8080", from: world.outside)?.name == "task1", "\(command)")
      }
      // Nothing is found where nothing is.
      let before = await overlay.repairs
      for _ in 1...2 {
        await clock.advance(by: .seconds(15))
        try await overlay.repair()
      }
      #expect(await overlay.repairs == before)
    }
  }

  @Test("who calls itself as this agent's thread is another")
  func namesake() async throws {
    try await NamespaceWorld.with(1) { world in
      let cluster = Cluster(hosts: 1)
      let overlay = try world.overlay(1)
      await overlay.whenDrifted { Task { _ = try await overlay.repair() } }
      try await overlay.apply(networks: cluster.networks(of: 1), services: [], endpoints: [])
      let command =
        "cp \"$(command -v nft)\" \(world.folder)/orch-network && \(world.folder)/orch-network flush ruleset; rm \(world.folder)/orch-network"
      #expect(try await world.run(in: world.host(1), "sh", "-c", command).code == 0)
      for _ in 1...200 where await overlay.repairs["rules"] == nil { try await Task.sleep(for: .milliseconds(50)) }
      #expect(await overlay.repairs["rules"] == 1)
    }
  }
}
