import Glibc
import Model
import Telemetry
import Testing

@testable import AgentNetwork

@Suite("What an agent measures of its host's network", .serialized, .enabled(if: geteuid() == 0))
struct NetworkMetricsTests {
  @Test("repairs are told by kind, and what stands in docs/network.md has its name there")
  func names() async throws {
    try await NamespaceWorld.with(1) { world in
      let overlay = try world.overlay(1)
      await overlay.whenDrifted { Task { _ = try await overlay.repair() } }
      func text() async -> [String] { await overlay.metrics().map(\.text) }
      #expect(await text().first?.hasSuffix("# TYPE orch_network_repairs_total counter\n") == true)
      try await overlay.apply(networks: Cluster(hosts: 1).networks(of: 1), services: [], endpoints: [])
      try await overlay.repair()
      #expect(try await world.run(in: world.host(1), "sh", "-c", "ip link set orbr4096 down; nft flush ruleset").code == 0)
      for _ in 1...100 where await overlay.repairs["rules"] == nil { try await Task.sleep(for: .milliseconds(50)) }
      let metrics = await text()
      #expect(metrics[0].contains("counter\norch_network_repairs_total{kind=\"link\"} 1\n"), "\(metrics[0])")
      #expect(metrics[0].hasSuffix("\norch_network_repairs_total{kind=\"rules\"} 1\n"), "\(metrics[0])")
      let kinds = metrics.map { $0.split(separator: "\n")[1].dropFirst("# TYPE ".count) }
      #expect(
        kinds == [
          "orch_network_repairs_total counter", "orch_network_strangers_packets_total counter",
          "orch_network_unknown_destination_frames_total counter", "orch_network_bridge_bypass gauge",
        ])
    }
  }
}
