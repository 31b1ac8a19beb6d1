import Glibc
import Model
import Testing

@testable import AgentNetwork

@Suite("Parameters of the kernel", .serialized, .enabled(if: geteuid() == 0))
struct ParameterTests {
  @Test(
    "what sysctl changes is repaired and counted: what the kernel tells at once, the rest with the next regular comparison; others' parameters stay")
  func comparison() async throws {
    try await NamespaceWorld.with(1) { world in
      var cluster = Cluster(hosts: 1)
      cluster.dual = true
      let overlay = try world.overlay(1)
      await overlay.whenDrifted { Task { _ = try await overlay.repair() } }
      let clock = ManualClock()
      let regularly = Task { await overlay.compareRegularly(every: .seconds(15), clock: clock) }
      defer { regularly.cancel() }
      let networks = cluster.networks(of: 1)
      #expect(try await overlay.apply(networks: networks, services: [], endpoints: []) == [])
      let path = try await overlay.attach(cluster.network(1, [cluster.web])).path
      try await overlay.repair()
      let server = try await world.serve("outside", in: world.outside)
      defer { world.stop([server]) }
      let uplink = InterfaceName.uplink(cluster.task(1))
      func read(_ parameter: String) async throws -> String {
        try await world.run(in: world.host(1), "cat", "/proc/sys/net/\(parameter)").output
      }
      for (parameter, foreign, wanted, isTold) in [
        ("ipv4/ip_forward", "0", "1", true), ("ipv4/conf/orbr4097/rp_filter", "1", "2", true), ("ipv4/conf/orbr4097/route_localnet", "0", "1", false),
        ("ipv4/conf/orbr4097/forwarding", "0", "1", true), ("ipv4/conf/\(uplink)/rp_filter", "1", "2", true),
        ("ipv4/conf/\(uplink)/route_localnet", "0", "1", false),
        ("ipv4/conf/\(uplink)/forwarding", "0", "1", true), ("ipv6/conf/orvx4096/accept_ra", "1", "0", false),
        ("ipv6/conf/all/forwarding", "0", "1", true),
      ] {
        let before = await overlay.repairs
        let changed = try await world.run(in: world.host(1), "sh", "-c", "echo \(foreign) > /proc/sys/net/\(parameter)")
        #expect(changed.code == 0, "\(parameter)")
        if !isTold { await clock.advance(by: .seconds(15)) }
        var now = ""
        for _ in 1...900 {
          now = try await read(parameter)
          if now == "\(wanted)\n", await overlay.repairs != before { break }
          try await Task.sleep(for: .milliseconds(50))
        }
        let after = await overlay.repairs
        #expect(now == "\(wanted)\n" && after["parameter"] == (before["parameter"] ?? 0) + 1, "\(parameter): \(now) \(after)")
        if parameter == "ipv4/ip_forward" { #expect(try await world.ask("192.168.77.100", from: path)?.name == "outside") }
      }
      // The administrator's own.
      let own = "echo 1 > /proc/sys/net/ipv4/conf/eth0/rp_filter; echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter"
      #expect(try await world.run(in: world.host(1), "sh", "-c", own).code == 0)
      let before = await overlay.repairs
      try await overlay.repair()
      #expect(try await read("ipv4/conf/eth0/rp_filter") == "1\n")
      #expect(await overlay.repairs == before)
      #expect(try await world.ask("192.168.77.100", from: path)?.name == "outside")
    }
  }
}
