import Glibc
import Model
import Netlink
import Testing

@testable import AgentNetwork

@Suite("Overlay networks over hosts in namespaces", .serialized, .enabled(if: geteuid() == 0))
struct OverlayNetworkTests {
  @Test("containers on three hosts reach each other, by address and by virtual IP, and traffic leaves an endpoint that is not ready")
  func overlay() async throws {
    try await NamespaceWorld.with(3) { world in
      var cluster = Cluster(hosts: 3)
      for number in 1...3 { cluster.place(number, on: number) }
      let overlays = try (1...3).map { try world.overlay($0) }
      func apply() async throws {
        for (index, overlay) in overlays.enumerated() {
          let problems = try await overlay.apply(networks: cluster.networks(of: index + 1), services: cluster.services, endpoints: cluster.endpoints)
          #expect(problems == [])
        }
      }
      try await apply()
      var servers: [pid_t] = []
      defer { world.stop(servers) }
      var paths: [String] = []
      for number in 1...3 {
        let namespace = try await overlays[number - 1].attach(cluster.network(number))
        #expect(namespace.reachesOutside)
        paths.append(namespace.path)
        servers.append(try await world.serve("task\(number)", in: namespace.path))
      }
      for from in 1...3 {
        for to in 1...3 where from != to {
          let ping = try await world.run(in: paths[from - 1], "busybox", "ping", "-c1", "-W2", "-w2", "10.77.0.\(10 + to)")
          #expect(ping.code == 0, "\(from) -> \(to): \(ping.output)")
        }
      }
      let direct = try await world.ask("10.77.0.13", from: paths[0])
      #expect(direct?.name == "task3" && direct?.client == "10.77.0.11")

      var seen: Set<String> = []
      for _ in 1...30 {
        let answer = try await world.ask("10.77.0.2", from: paths[0])
        #expect(answer?.client == "10.77.0.11", "the client's own address arrives")
        seen.insert(answer?.name ?? "nobody")
      }
      #expect(seen == ["task1", "task2", "task3"])

      cluster.place(2, on: 2, ready: false)
      try await apply()
      seen = []
      for _ in 1...20 { seen.insert(try await world.ask("10.77.0.2", from: paths[0])?.name ?? "nobody") }
      #expect(seen == ["task1", "task3"])

      // From a host's own processes too.
      #expect(try await world.ask("10.77.0.2", from: world.host(2)) != nil)

      cluster.endpoints = []
      try await apply()
      #expect(try await world.request("10.77.0.2", from: paths[0]) == .refused)
    }
  }

  @Test("a published port answers on every host, on 127.0.0.1 and from a container; a local endpoint sees the client; none: refused; taken: told")
  func publishedPorts() async throws {
    try await NamespaceWorld.with(3) { world in
      var cluster = Cluster(hosts: 3)
      cluster.ports = [PortConfig(targetPort: 80, publishedPort: 8080)]
      cluster.place(1, on: 1)
      let overlays = try (1...3).map { try world.overlay($0) }
      func apply() async throws -> [NetworkProblem] {
        var problems: [NetworkProblem] = []
        for (index, overlay) in overlays.enumerated() {
          problems += try await overlay.apply(networks: cluster.networks(of: index + 1), services: cluster.services, endpoints: cluster.endpoints)
        }
        return problems
      }
      #expect(try await apply() == [])
      var servers: [pid_t] = []
      defer { world.stop(servers) }
      let one = try await overlays[0].attach(cluster.network(1))
      servers.append(try await world.serve("task1", in: one.path))
      for host in 1...3 {
        let answer = try await world.ask("192.168.77.\(host):8080", from: world.outside)
        #expect(answer?.name == "task1")
        #expect(answer?.client == (host == 1 ? "192.168.77.100" : "10.255.0.\(250 + host)"))
        #expect(try await world.ask("127.0.0.1:8080", from: world.host(host))?.name == "task1", "127.0.0.1 on host \(host)")
        #expect(try await world.ask("192.168.77.\(host):8080", from: world.host(host))?.name == "task1", "own address on host \(host)")
      }
      // From a container, through its own host's address: to itself and to another.
      let two = try await overlays[1].attach(cluster.network(2, [cluster.web]))
      #expect(try await world.ask("192.168.77.2:8080", from: two.path)?.name == "task1")
      let three = try await overlays[0].attach(cluster.network(3, [cluster.web]))
      #expect(try await world.ask("192.168.77.1:8080", from: three.path)?.name == "task1")
      #expect(try await world.ask("192.168.77.1:8080", from: one.path)?.name == "task1")

      cluster.endpoints = []
      #expect(try await apply() == [])
      for source in [world.outside, world.host(3)] {
        #expect(try await world.request("192.168.77.3:8080", from: source) == .refused)
      }

      servers.append(try await world.serve("other", in: world.host(3), port: 9090))
      cluster.ports.append(PortConfig(targetPort: 80, publishedPort: 9090))
      cluster.place(1, on: 1)
      let problems = try await apply()
      #expect(problems.map(\.object) == ["port 9090/tcp"] && problems.first?.conflict?.holder?.command == "busybox", "\(problems)")
      #expect(try await world.ask("192.168.77.3:9090", from: world.outside)?.name == "other", "its traffic is not taken from it")
      #expect(try await world.ask("192.168.77.2:9090", from: world.outside)?.name == "task1")
    }
  }

  @Test("a task's host port leads to it alone and may be had once")
  func hostPorts() async throws {
    try await NamespaceWorld.with(1) { world in
      let cluster = Cluster(hosts: 1)
      let overlay = try world.overlay(1)
      try await overlay.apply(networks: cluster.networks(of: 1), services: [], endpoints: [])
      var network = cluster.network(1, [cluster.web])
      network.hostPorts = [PortConfig(targetPort: 80, publishedPort: 8081, publishMode: .host)]
      let namespace = try await overlay.attach(network)
      let servers = [try await world.serve("task1", in: namespace.path)]
      defer { world.stop(servers) }
      let answer = try await world.ask("192.168.77.1:8081", from: world.outside)
      #expect(answer?.name == "task1" && answer?.client == "192.168.77.100")
      var second = cluster.network(2, [cluster.web])
      second.hostPorts = network.hostPorts
      await #expect(throws: NetworkProblem.self) { try await overlay.attach(second) }
      #expect(try await world.ask("192.168.77.1:8081", from: world.outside)?.name == "task1")
      try await overlay.detach(network.task)
      _ = try await overlay.attach(second)
    }
  }

  @Test("containers reach the outside by their host's address; those of internal networks do not; networks do not reach each other")
  func outside() async throws {
    try await NamespaceWorld.with(1) { world in
      let cluster = Cluster(hosts: 1)
      let overlay = try world.overlay(1)
      try await overlay.apply(networks: cluster.networks(of: 1), services: [], endpoints: [])
      let servers = [try await world.serve("outside", in: world.outside)]
      defer { world.stop(servers) }
      let web = try await overlay.attach(cluster.network(1, [cluster.web]))
      let answer = try await world.ask("192.168.77.100", from: web.path)
      #expect(answer?.name == "outside" && answer?.client == "192.168.77.1")
      let inside = try await overlay.attach(cluster.network(2, [cluster.inside]))
      #expect(!inside.reachesOutside)
      #expect(try await world.run(in: inside.path, "busybox", "ping", "-c1", "-W1", "-w1", "192.168.77.100").code != 0)
      // Even with a route of its own.
      #expect(try await world.run(in: inside.path, "ip", "route", "add", "default", "via", "10.78.0.251").code == 0)
      #expect(try await world.run(in: inside.path, "busybox", "ping", "-c1", "-W1", "-w1", "192.168.77.100").code != 0)
      #expect(try await world.run(in: inside.path, "busybox", "ping", "-c1", "-W1", "-w1", "10.77.0.11").code != 0)
      #expect(try await world.run(in: web.path, "busybox", "ping", "-c1", "-W1", "-w1", "10.78.0.12").code != 0)
    }
  }

  @Test("a new agent takes over what runs and removes what does not; removed links are repaired; in the end nothing is left")
  func recovery() async throws {
    try await NamespaceWorld.with(2) { world in
      var cluster = Cluster(hosts: 2)
      for number in 1...2 { cluster.place(number, on: number) }
      var overlays = try (1...2).map { try world.overlay($0) }
      func apply() async throws {
        for (index, overlay) in overlays.enumerated() {
          try await overlay.apply(networks: cluster.networks(of: index + 1), services: cluster.services, endpoints: cluster.endpoints)
        }
      }
      try await apply()
      let one = try await overlays[0].attach(cluster.network(1))
      let two = try await overlays[1].attach(cluster.network(2))
      let dead = try await overlays[0].attach(cluster.network(3))
      overlays[0] = try world.overlay(1)
      let found = try await overlays[0].recover([cluster.network(1), cluster.network(9)])
      #expect(found == [cluster.task(1): one], "as it was described when it was made")
      #expect(access(dead.path, F_OK) != 0)
      func reaches() async throws -> Bool { try await world.run(in: one.path, "busybox", "ping", "-c1", "-W2", "-w2", "10.77.0.12").code == 0 }
      #expect(try await reaches(), "while nobody looks after it")
      try await apply()
      #expect(try await reaches())
      for link in ["orvx4096", "orbr4096"] {
        #expect(try await world.run(in: world.host(1), "ip", "link", "del", link).code == 0)
        #expect(try await reaches() == false)
        try await overlays[0].repair()
        #expect(try await reaches(), "after \(link) was removed")
      }
      #expect(access(two.path, F_OK) == 0)
      for overlay in overlays { try await overlay.removeAll() }
      #expect(access(one.path, F_OK) != 0)
      for host in 1...2 {
        var links: [String] = []
        for _ in 1...50 {
          links = try await world.thread.run(in: world.host(host)) { try NetlinkSocket().links().map(\.name) }
          if links.sorted() == ["eth0", "lo"] { break }
          try await Task.sleep(for: .milliseconds(50))
        }
        #expect(links.sorted() == ["eth0", "lo"])
        #expect(try await world.run(in: world.host(host), "nft", "list", "ruleset").output == "")
      }
    }
  }
}
