import Glibc
import LinuxSystem
import Model
import Netlink
import Testing

@testable import AgentNetwork

@Suite("Tasks on no network", .serialized, .enabled(if: geteuid() == 0))
struct BridgedTests {
  private let cluster = Cluster(hosts: 1)
  private func bridged(_ number: Int) -> TaskNetwork { TaskNetwork(task: cluster.task(number), attachments: [], isBridged: true) }

  @Test(
    "they reach who is outside by their host's address, and neither tasks of networks, nor one another, nor what listens at the host's loopback",
    arguments: [false, true])
  func ways(hasNetworks: Bool) async throws {
    try await NamespaceWorld.with(1) { world in
      let overlay = try world.overlay(1)
      // Without rules nothing keeps it from this host.
      let early = await #expect(throws: NetworkProblem.self) { try await overlay.attach(bridged(5)) }
      #expect(early?.description.contains("not known yet") == true)
      try await overlay.apply(networks: hasNetworks ? cluster.networks(of: 1) : [], services: [], endpoints: [])
      let own = try await overlay.attach(bridged(5))
      #expect(own.reachesOutside && own.networks.isEmpty && own.bridged == address("172.28.240.2"))
      let other = try await overlay.attach(bridged(6))
      var targets = [try #require(other.bridged).description]
      var servers = [try await world.serve("outside", in: world.outside), try await world.serve("other", in: other.path)]
      defer { world.stop(servers) }
      servers.append(try await world.serve("host", in: world.host(1), port: 8000, at: "127.0.0.1"))
      if hasNetworks {
        servers.append(try await world.serve("one", in: try await overlay.attach(cluster.network(1)).path))
        targets += ["10.77.0.11", "10.255.0.11"]
      }
      let answer = try await world.ask("192.168.77.100", from: own.path)
      #expect(answer?.name == "outside" && answer?.client == "192.168.77.1", "\(String(describing: answer))")
      for target in targets { #expect(try await world.ask(target, from: own.path) == nil, "\(target)") }
      #expect(try await world.request("127.0.0.1:8000", from: own.path) == .refused)
      // By a route of its own to its host's loopback; which leads there where the rules do not say otherwise.
      let script = """
        echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet
        ip route del table local local 127.0.0.1 dev lo; ip route del table local local 127.0.0.0/8 dev lo; ip route add 127.0.0.1 via 172.28.240.1
        """
      #expect(try await world.run(in: own.path, "sh", "-ec", script).code == 0)
      #expect(try await world.ask("127.0.0.1:8000", from: own.path) == nil)
      #expect(try await world.run(in: world.host(1), "nft", "flush", "chain", "ip", "orch", "guard").code == 0)
      #expect(try await world.ask("127.0.0.1:8000", from: own.path)?.name == "host")
    }
  }

  @Test(
    "a port in host mode leads to one; a new agent finds those that have a namespace of ours, and they stay as they are until they are detached")
  func lasting() async throws {
    try await NamespaceWorld.with(1) { world in
      let overlay = try world.overlay(1)
      try await overlay.apply(networks: [], services: [], endpoints: [])
      var published = bridged(6)
      published.hostPorts = [PortConfig(targetPort: 80, publishedPort: 8081, publishMode: .host)]
      let six = try await overlay.attach(published)
      let task = try await world.serve("task", in: six.path)
      let called = try await world.ask("192.168.77.1:8081", from: world.outside)
      #expect(called?.name == "task" && called?.client == "192.168.77.100", "\(String(describing: called))")
      world.stop([task])
      try await overlay.detach(published.task)

      let own = try await overlay.attach(bridged(5))
      let servers = [try await world.serve("outside", in: world.outside)]
      defer { world.stop(servers) }
      let again = try world.overlay(1)
      // An agent that knew no such way out made the other's task.
      let found = try await again.recover([bridged(5), bridged(7)])
      #expect(Array(found.keys) == [cluster.task(5)] && found.values.first?.reachesOutside == true)
      #expect(try await again.apply(networks: [], services: [], endpoints: []) == [])
      #expect(try await world.ask("192.168.77.100", from: own.path)?.client == "192.168.77.1")
      #expect(await again.repairs == [:])

      try await again.detach(cluster.task(5))
      #expect(access(own.path, F_OK) != 0)
    }
  }

  @Test("where the kernel refuses the host's rules none is attached, and nothing is left of it")
  func refused() async throws {
    try await NamespaceWorld.with(1) { world in
      let overlay = try world.overlay(1)
      try await overlay.apply(networks: [], services: [], endpoints: [])
      // Nobody else may change a table that has an owner, as long as that one lives (nft(8), "owner").
      let table = "echo 'delete table ip orch; add table ip orch { flags owner; }'"
      let script = "mkfifo \(world.folder)/gate; (\(table); cat \(world.folder)/gate) | nft -i"
      async let owner = world.run(in: world.host(1), "sh", "-c", script)
      let owned = "nft list table ip orch | grep -q owner"
      for _ in 1...200 where try await world.run(in: world.host(1), "sh", "-c", owned).code != 0 { try await Task.sleep(for: .milliseconds(20)) }
      await #expect(throws: NetworkProblem.self) { try await overlay.attach(bridged(5)) }
      let path = await overlay.host.path(cluster.task(5))
      #expect(access(path, F_OK) != 0)
      #expect(try await world.run(in: world.host(1), "sh", "-c", "echo > \(world.folder)/gate").code == 0)
      _ = try await owner
      #expect(try await overlay.attach(bridged(6)).reachesOutside)
    }
  }
}
