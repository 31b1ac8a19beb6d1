import Glibc
import Model
import Testing

@testable import AgentNetwork

@Suite("What room there is", .serialized, .enabled(if: geteuid() == 0))
struct PathTests {
  @Test("an uplink has the room of the host's link, and follows it")
  func uplink() async throws {
    try await NamespaceWorld.with(1) { world in
      let cluster = Cluster(hosts: 1)
      let overlay = try world.overlay(1)
      #expect(try await world.run(in: world.host(1), "ip", "link", "set", "eth0", "mtu", "1400").code == 0)
      try await overlay.apply(networks: cluster.networks(of: 1), services: [], endpoints: [])
      let path = try await overlay.attach(cluster.network(1, [cluster.web])).path
      func rooms() async throws -> [String] {
        var rooms: [String] = []
        for (namespace, link) in [(world.host(1), InterfaceName.uplink(cluster.task(1))), (path, "eth1")] {
          rooms.append(try await world.run(in: namespace, "sh", "-c", "ip -o link show \(link) | grep -o 'mtu [0-9]*'").output)
        }
        return rooms
      }
      #expect(try await rooms() == ["mtu 1400\n", "mtu 1400\n"])
      try await overlay.repair()
      #expect(try await world.run(in: world.host(1), "ip", "link", "set", "eth0", "mtu", "1500").code == 0)
      try await overlay.repair()
      #expect(try await rooms() == ["mtu 1500\n", "mtu 1500\n"])
      #expect(await overlay.repairs.isEmpty, "the host's own link is nobody's drift")
      #expect(try await world.run(in: path, "ip", "link", "set", "eth1", "mtu", "1300").code == 0)
      #expect(try await world.run(in: world.host(1), "ip", "link", "set", InterfaceName.uplink(cluster.task(1)), "mtu", "1300").code == 0)
      try await overlay.repair()
      #expect(try await rooms() == ["mtu 1500\n", "mtu 1500\n"])
      #expect(await overlay.repairs["link"] == 1)
    }
  }
}
