import Glibc
import Model
import Testing

@testable import AgentNetwork

@Suite("When what others change is told")
struct DriftPaceTests {
  @Test("100 ms after the first change, whatever comes meanwhile; changes without end are told twice as late each time, a second at most")
  func pace() {
    var pace = DriftWatch.Pace()
    #expect(pace.wait(at: 5000) == -1 && !pace.isDue(at: 5000))
    pace.began(at: 5000)
    for time in stride(from: Int64(5010), to: 5100, by: 10) {
      pace.began(at: time)
      #expect(pace.wait(at: time) == Int32(5100 - time) && !pace.isDue(at: time))
    }
    #expect(pace.isDue(at: 5100) && !pace.isDue(at: 5100) && pace.wait(at: 5100) == -1)
    var now: Int64 = 5100
    for expected in [Int64(200), 400, 800, 1000, 1000] {
      now += 3
      pace.began(at: now)
      #expect(pace.wait(at: now) == Int32(expected))
      now += expected
      #expect(!pace.isDue(at: now - 1) && pace.isDue(at: now))
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
