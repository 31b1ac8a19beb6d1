import Glibc
import Model
import Testing

@testable import AgentNetwork

@Suite("Which problems are told") struct ToldProblemsTests {
  @Test("each when it begins and when its text changes, none while it lasts")
  func told() {
    let (a, b, other) = (NetworkProblem("a", "no memory"), NetworkProblem("b", "EPERM"), NetworkProblem("a", "EPERM"))
    var told = ToldProblems()
    #expect(told.step([]) == [])
    // Two parts of one comparison may tell the same.
    #expect(told.step([a, b, a]) == [a, b])
    #expect(told.step([b, a]) == [])
    #expect(told.step([other, b]) == [other])
    #expect(told.step([other]) == [])
    #expect(told.step([other, a]) == [a], "told anew, since it was over in between")
    #expect(told.step([]) == [])
    #expect(told.step([a]) == [a])
  }
}

@Suite("What stands in the way of one network stops no other", .serialized, .enabled(if: geteuid() == 0))
struct RefusalTests {
  @Test(
    "a link of another program with a network's name or VNI: its network is told and stays without, rules and ports of the others follow",
    arguments: ["ip link add orbr4098 type veth peer name other", "ip link add other type vxlan id 4098 dstport 4789 local 192.168.77.1"])
  func foreignLink(command: String) async throws {
    try await NamespaceWorld.with(2) { world in
      var cluster = Cluster(hosts: 2)
      cluster.ports = [PortConfig(targetPort: 80, publishedPort: 8080)]
      cluster.place(1, on: 1)
      let overlay = try world.overlay(1)
      #expect(try await world.run(in: world.host(1), "sh", "-c", command).code == 0)
      func apply() async throws -> [NetworkProblem] {
        try await overlay.apply(networks: cluster.networks(of: 1), services: cluster.services, endpoints: cluster.endpoints)
      }
      func foreign() async throws -> String {
        try await world.run(
          in: world.host(1), "sh", "-c",
          "ip -o link show orbr4098 type veth; ip -o link show other; cat /proc/sys/net/ipv6/conf/orbr4098/disable_ipv6; true"
        ).output
      }
      let before = try await foreign()
      let problems = try await apply()
      #expect(problems.map(\.object) == ["network inside"] && problems.allSatisfy { $0.weight == .unfinished }, "\(problems)")
      if command.contains("veth") { #expect(try await foreign() == before) }
      let server = try await world.serve("task1", in: try await overlay.attach(cluster.network(1)).path)
      defer { world.stop([server]) }
      #expect(try await world.ask("192.168.77.1:8080", from: world.outside)?.name == "task1")
      // Who wants the network is told why not.
      if command.contains("veth") {
        let network = cluster.network(4, [cluster.inside])
        await #expect(throws: (any Error).self) { try await overlay.attach(network) }
      }
      cluster.endpoints = []
      #expect(try await apply() == problems)
      #expect(try await world.request("192.168.77.1:8080", from: world.outside) == .refused)
      let removal = command.replacing("add", with: "del").split(separator: " type ")[0]
      #expect(try await world.run(in: world.host(1), "sh", "-c", String(removal)).code == 0)
      #expect(try await overlay.repair() == [])
      _ = try await overlay.attach(cluster.network(5, [cluster.inside]))
    }
  }

  @Test("another program's link with the name of the way back of ::1 keeps that back and none of IPv6's rules; that it did so is no drift")
  func foreignDetour() async throws {
    try await NamespaceWorld.with(1) { world in
      try await world.addIPv6()
      var cluster = Cluster(hosts: 1)
      cluster.dualIngress = true
      cluster.ports = [PortConfig(targetPort: 80, publishedPort: 8080)]
      cluster.place(1, on: 1)
      let overlay = try world.overlay(1)
      #expect(try await world.run(in: world.host(1), "ip", "link", "add", "orlo0", "type", "bridge").code == 0)
      let problems = try await overlay.apply(networks: cluster.networks(of: 1), services: cluster.services, endpoints: cluster.endpoints)
      #expect(problems.map(\.object) == ["way back of calls by ::1"] && problems.first?.weight == .again, "\(problems)")
      let server = try await world.serve("task1", in: try await overlay.attach(cluster.network(1)).path)
      defer { world.stop([server]) }
      #expect(try await world.ask("[fd00:192::1]:8080", from: world.outside)?.client == "100")
      #expect(try await world.run(in: world.host(1), "ip", "link", "del", "orlo0").code == 0)
      #expect(try await overlay.repair() == [])
      #expect(await overlay.repairs == [:])
      #expect(try await world.ask("[::1]:8080", from: world.host(1))?.name == "task1")
    }
  }

  @Test("rules that a container does not take are told as unfinished until it takes them")
  func containerRules() async throws {
    try await NamespaceWorld.with(1) { world in
      var cluster = Cluster(hosts: 1)
      let overlay = try world.overlay(1)
      func apply() async throws -> [NetworkProblem] {
        try await overlay.apply(networks: cluster.networks(of: 1), services: cluster.services, endpoints: cluster.endpoints)
      }
      #expect(try await apply() == [])
      let path = try await overlay.attach(cluster.network(1)).path
      let held = Glibc.open(path, O_RDONLY | O_CLOEXEC)
      defer { close(held) }
      // A file that is no namespace.
      #expect(umount2(path, Int32(MNT_DETACH)) == 0)
      cluster.place(2, on: 1)
      let problems = try await apply()
      // Told twice where the namespace's interfaces are to be looked at as well.
      #expect(Set(problems.map(\.object)) == ["task \(cluster.task(1))"] && problems.contains { $0.weight == .unfinished }, "\(problems)")
      #expect(mount("/proc/self/fd/\(held)", path, nil, UInt(MS_BIND), nil) == 0)
      #expect(try await overlay.repair() == [])
      #expect(try await world.run(in: path, "nft", "list", "set", "ip", "orch", "alive").output.contains("10.77.0.12"))
    }
  }

  @Test(
    "rules of this host's own making that are refused again and again are one drift of another program's, not one each time",
    arguments: [true, false])
  func ownRetries(hearsChanges: Bool) async throws {
    try await NamespaceWorld.with(1) { world in
      var cluster = Cluster(hosts: 1)
      cluster.ports = [PortConfig(targetPort: 80, publishedPort: 8080)]
      let overlay = try world.overlay(1, hearsChanges: hearsChanges)
      func apply() async throws -> [NetworkProblem] {
        try await overlay.apply(networks: cluster.networks(of: 1), services: cluster.services, endpoints: cluster.endpoints)
      }
      func repair() async throws -> [NetworkProblem] { try await overlay.repair().filter { $0.object != "changes by others" } }
      let host = await overlay.host
      func compare() { host.memory.withLock { $0.comparesAll = true } }
      #expect(try await apply().map(\.object) == (hearsChanges ? [] : ["changes by others"]))
      // Nobody else may change a table that has an owner, as long as that one lives (nft(8), "owner").
      // One line is one transaction: a repair between the two would be another drift.
      let table = "echo 'delete table ip orch; add table ip orch { flags owner; }'"
      let script = "mkfifo \(world.folder)/gate; (\(table); cat \(world.folder)/gate) | nft -i"
      async let owner = world.run(in: world.host(1), "sh", "-c", script)
      for _ in 1...100 where try await repair().isEmpty {
        try await Task.sleep(for: .milliseconds(50))
        compare()
      }
      for _ in 1...5 {
        let problems = try await repair()
        #expect(problems.map(\.weight) == [.unfinished], "\(problems)")
      }
      #expect(await overlay.repairs == ["rules": 1])
      #expect(try await world.run(in: world.host(1), "sh", "-c", "echo > \(world.folder)/gate").code == 0)
      _ = try await owner
      #expect(try await repair() == [])
      for _ in 1...2 {
        compare()
        #expect(try await repair() == [])
      }
      #expect(await overlay.repairs == ["rules": 1])
      #expect(try await world.run(in: world.host(1), "nft", "list", "table", "ip", "orch").output.contains("chain prerouting"))
    }
  }

  @Test("an interface that a container refuses is tried again, whom others are sent to does not hang on it, and it is counted once it is there")
  func interface() async throws {
    try await NamespaceWorld.with(1) { world in
      let cluster = Cluster(hosts: 1)
      let overlay = try world.overlay(1)
      #expect(try await overlay.apply(networks: cluster.networks(of: 1), services: cluster.services, endpoints: cluster.endpoints) == [])
      let path = try await overlay.attach(cluster.network(1)).path
      #expect(try await overlay.repair() == [])
      #expect(try await world.run(in: path, "sh", "-c", "ip link del eth0 && ip link add eth0 type bridge").code == 0)
      for _ in 1...3 {
        let problems = try await overlay.repair()
        #expect(problems.map(\.object) == ["task \(cluster.task(1))"] && problems.map(\.weight) == [.again], "\(problems)")
      }
      #expect(await overlay.repairs["link"] == nil)
      #expect(try await world.run(in: path, "ip", "link", "del", "eth0").code == 0)
      #expect(try await overlay.repair() == [])
      #expect(await overlay.repairs["link"] == 1)
      #expect(try await world.run(in: path, "ip", "-o", "-4", "address", "show", "eth0").output.contains("inet "))
    }
  }
}
