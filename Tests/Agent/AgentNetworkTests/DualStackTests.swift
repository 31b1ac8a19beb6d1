import Glibc
import Model
import Netlink
import Testing

@testable import AgentNetwork

@Suite("A network with both families, as a plan")
struct DualStackPlanTests {
  private func cluster() -> Cluster {
    var cluster = Cluster(hosts: 2)
    cluster.dual = true
    cluster.place(1, on: 1)
    cluster.place(2, on: 2)
    return cluster
  }

  @Test("neighbours of each family for what is elsewhere, forwarding entries once; hosts have no IPv6 address on networks")
  func plan() throws {
    let state = HostState(cluster().world(1))
    #expect(state.bridges.values.allSatisfy { $0.addresses.allSatisfy { $0.address.octets.count == 4 } })
    let tunnel = try #require(state.tunnels[4096])
    #expect(tunnel.neighbours.map { "\($0.address)" }.sorted() == ["10.77.0.12", "fd00:77::c"])
    #expect(Set(tunnel.neighbours.map(\.mac)) == Set(tunnel.forwarding.map(\.mac)) && tunnel.forwarding.count == 1)
    // This cluster's ingress has IPv4 alone.
    #expect(state.tunnels[4097]?.neighbours.contains { $0.address.octets.count == 16 } == false)
    #expect(state.operations(from: state) == [])
  }

  @Test("virtual IPs of IPv6 lead to the same endpoints; what leaves is masqueraded; internal networks have no way out")
  func rules() throws {
    var cluster = cluster()
    var world = cluster.world(1)
    let ready = world.readyEndpoints()
    let host = try #require(Ruleset.host6(world)).fresh
    #expect(host.contains("oifname != \"orbr*\" oifname != \"orup*\" iifname \"orup*\" masquerade"))
    #expect(host.contains("iifname \"orbr*\" drop\n    oifname \"orbr*\" drop\n"))
    let container = try #require(
      Ruleset.container6(cluster.network(9), in: world, Ruleset.balancing6(in: world, on: [cluster.web, cluster.ingress], ready: ready)))
    #expect(container.fresh.contains("add element ip6 orch backends { fd00:77::2 . 0 : fd00:77::b, fd00:77::2 . 1 : fd00:77::c }\n"))
    #expect(container.fresh.contains("add element ip6 orch virtual { fd00:77::2 : goto spread-2 }\n"))
    #expect(container.fresh.contains("add element ip6 orch alive { fd00:77::b, fd00:77::c }\n"))
    #expect(container.fresh.contains("ip6 daddr @refused reject with icmpv6 type addr-unreachable"))

    // The second one's host has no IPv6: nobody is sent there, and who calls its address is refused at once.
    for index in world.endpoints.indices where world.endpoints[index].address == address("10.77.0.12") { world.endpoints[index].lacksIPv6 = true }
    let without = Ruleset.balancing6(in: world, on: [cluster.web], ready: ready)
    #expect(without.virtual.mapValues { $0.map(\.description) } == [IPv6Address("fd00:77::2")!: ["fd00:77::b"]])
    #expect(without.alive.map(\.description) == ["fd00:77::b"])
    #expect(Ruleset.balancing(in: world, on: [cluster.web], ready: ready).virtual.values.map(\.count) == [2])

    // One on ingress has its way out over IPv4 there, and an uplink for IPv6.
    let uplink = Uplink(address: address("172.28.240.2"), gateway: address("172.28.240.1"))
    for network in [cluster.network(1), cluster.network(2, [cluster.web]), cluster.network(3, [cluster.inside])] {
      world.containers[network.task] = network
      world.uplinks[network.task] = uplink
    }
    #expect(world.containers.values.filter(world.needsUplink).map(\.task).sorted() == [cluster.task(1), cluster.task(2)])
    #expect(world.gateway(of: cluster.network(1)) == address("10.255.0.251"))
    #expect(world.ports(of: cluster.network(1)).map { $0.address6?.description } == [nil, "fd00:77::b", "fd6f:7263:6875::ac1c:f002"])
    #expect(world.ports(of: cluster.network(3, [cluster.inside])).map { $0.address6?.description } == ["fd00:78::d", nil])
    #expect(!host.contains("iifname != \"orup*\" drop"))
    let router = try #require(Ruleset.host6(world, isRouter: true, bridges: [7])).fresh
    #expect(router.contains("    iif . oif { 7 . 7 } accept\n    iifname != \"orup*\" drop\n  }"))
    // By its host port's uplink it is called, and calls nobody.
    let shut = InterfaceName.uplink(cluster.task(3))
    #expect(router.contains("iifname { \"\(shut)\" } ct direction original drop"))
    cluster.dual = false
    #expect(Ruleset.host6(cluster.world(1)) == nil)
    #expect(!cluster.world(1).needsUplink(cluster.network(1)))
  }

  @Test("where packets hold less than IPv6 needs, networks have IPv4 alone, and it is told")
  func small() {
    var cluster = cluster()
    cluster.mtu = 1279
    let (world, problems) = HostNetwork.withoutLacking6(cluster.world(1))
    #expect(world.networks.allSatisfy { $0.subnet6 == nil })
    #expect(
      problems.map(\.description)
        == ["web", "inside"].map {
          "IPv6 of network \($0): its packets hold 1279 bytes, IPv6 needs 1280: tasks have IPv4 alone; raise the MTU of the smallest host's link"
        })
    cluster.mtu = 1280
    #expect(HostNetwork.withoutLacking6(cluster.world(1)).problems == [])
  }
}

@Suite("A network with both families, over hosts in namespaces", .serialized, .enabled(if: geteuid() == 0))
struct DualStackTests {
  @Test(
    "IPv6: containers on two hosts reach each other, by address and by virtual IP, see who calls, and go out; an internal network does not; drift is repaired"
  )
  func dualStack() async throws {
    try await NamespaceWorld.with(2) { world in
      for (name, number) in [("host1", 1), ("host2", 2), ("outside", 100)] {
        let added = try await world.run(in: world.namespace(name), "ip", "address", "add", "fd00:192::\(number)/64", "dev", "eth0", "nodad")
        #expect(added.code == 0)
      }
      var cluster = Cluster(hosts: 2)
      cluster.dual = true
      for number in 1...2 { cluster.place(number, on: number) }
      let overlays = try (1...2).map { try world.overlay($0) }
      func apply() async throws {
        #expect(try await cluster.apply(to: overlays) == [])
      }
      try await apply()
      try await world.showBridgedFrames(true)
      var servers: [pid_t] = []
      defer { world.stop(servers) }
      var paths: [String] = []
      for number in 1...2 {
        let namespace = try await overlays[number - 1].attach(cluster.network(number))
        #expect(namespace.addresses6 == [IPv6Address("fd00:77::\(String(10 + number, radix: 16))")!])
        paths.append(namespace.path)
        servers.append(try await world.serve("task\(number)", in: namespace.path))
      }
      servers.append(try await world.serve("outside", in: world.outside))
      // No port takes VXLAN over IPv6.
      let sockets = try await world.run(in: world.host(1), "cat", "/proc/thread-self/net/udp6")
      #expect(sockets.code == 0 && sockets.output.contains("local_address") && !sockets.output.contains(":12B5"), "\(sockets.output)")
      for (from, to) in [(0, "fd00:77::c"), (1, "fd00:77::b")] {
        let ping = try await world.run(in: paths[from], "busybox", "ping", "-6", "-c1", "-W2", "-w2", to)
        #expect(ping.code == 0, "\(from) -> \(to): \(ping.output)")
      }
      let direct = try await world.ask("[fd00:77::c]", from: paths[0])
      #expect(direct?.name == "task2" && direct?.client == "b")

      var seen: Set<String> = []
      for _ in 1...30 {
        let answer = try await world.ask("[fd00:77::2]", from: paths[0])
        #expect(answer?.client == "b", "the client's own address arrives")
        seen.insert(answer?.name ?? "nobody")
      }
      #expect(seen == ["task1", "task2"])
      let two = try await overlays[0].attach(cluster.network(3, [cluster.web]))
      #expect(try await world.ask("[fd00:77::b]", from: two.path)?.name == "task1", "on the same host")

      for path in [paths[0], two.path] {
        #expect(try await world.ask("[fd00:192::100]", from: path)?.client == "1", "out, by its host's address")
      }
      let shut = try await overlays[0].attach(cluster.network(4, [cluster.inside]))
      #expect(try await world.ask("[fd00:192::100]", from: shut.path) == nil)
      #expect(try await world.ask("[fd00:77::b]", from: shut.path) == nil)
      // Nor do containers reach one another by their uplinks, nor the host reach into networks.
      let uplink = try await world.run(in: two.path, "sh", "-c", "ip -6 -o address show | grep -o 'fd6f[0-9a-f:]*'")
      #expect(uplink.output.hasPrefix("fd6f:7263:6875::ac1c:f0"), "\(uplink)")
      servers.append(try await world.serve("two", in: two.path))
      #expect(try await world.ask("[\(uplink.output.filter { !$0.isWhitespace })]", from: paths[0]) == nil)
      #expect(try await world.ask("[fd00:77::b]", from: world.host(1)) == nil)

      cluster.place(2, on: 2, ready: false)
      try await apply()
      seen = []
      for _ in 1...10 { seen.insert(try await world.ask("[fd00:77::2]", from: paths[0])?.name ?? "nobody") }
      #expect(seen == ["task1"])

      func tamper(_ kind: String, _ path: String, _ command: String) async throws {
        let before = await overlays[0].repairs[kind] ?? 0
        let done = try await world.run(in: path, "sh", "-c", command)
        #expect(done.code == 0, "\(command)")
        // What is inside containers, rules and routes, is told by the watch; the rest is seen by comparing.
        for _ in 1...200 where await overlays[0].repairs[kind] ?? 0 == before {
          #expect(try await overlays[0].repair() == [])
          try await Task.sleep(for: .milliseconds(50))
        }
        #expect(await overlays[0].repairs[kind] ?? 0 > before, "\(command)")
        #expect(try await world.ask("[fd00:77::c]", from: paths[0])?.name == "task2", "\(command)")
        #expect(try await world.ask("[fd00:77::2]", from: two.path)?.name == "task1", "\(command)")
        #expect(try await world.ask("[fd00:192::100]", from: two.path)?.client == "1", "\(command)")
      }
      let up = InterfaceName.uplink(cluster.task(3))
      try await tamper("neighbour", world.host(1), "ip -6 neighbour del fd00:77::c dev orvx4096")
      try await tamper("link", world.host(1), "echo 0 > /proc/sys/net/ipv6/conf/orbr4096/disable_ipv6")
      try await tamper(
        "address", world.host(1), "echo 0 > /proc/sys/net/ipv6/conf/orbr4096/disable_ipv6; ip -6 address add fd00:77::fb/64 dev orbr4096")
      try await tamper("rules", world.host(1), "nft delete table ip6 orch")
      try await tamper("address", world.host(1), "ip -6 address del fe80::1/64 dev \(up)")
      try await tamper("route", world.host(1), "ip -6 route del \(uplink.output.filter { !$0.isWhitespace }) dev \(up)")
      try await tamper("container route", two.path, "ip -6 route del default")
      try await tamper("container route", two.path, "ip -6 route del fd00:77::/64 dev eth0")
      try await tamper("container address", two.path, "ip -6 address del fd00:77::d/64 dev eth0")
      try await tamper("container rules", two.path, "nft flush table ip6 orch")

      // After a restart of the agent all is as it should be.
      let again = try world.overlay(1)
      _ = try await again.recover([cluster.network(1), cluster.network(3, [cluster.web]), cluster.network(4, [cluster.inside])])
      #expect(try await again.apply(networks: cluster.networks(of: 1), services: cluster.services, endpoints: cluster.endpoints) == [])
      #expect(await again.repairs.isEmpty)
      #expect(try await world.ask("[fd00:77::2]", from: paths[0])?.name == "task1")
      try await again.removeAll()
      let rules = try await world.run(in: world.host(1), "nft", "list", "tables")
      #expect(rules.code == 0 && !rules.output.contains("orch"))
    }
  }

  @Test(
    "what tasks send to link addresses of their host goes nowhere, with both families: not outside from an internal network, nor to the host",
    arguments: [false, true])
  func linkAddresses(bridgeNetfilter: Bool) async throws {
    try await NamespaceWorld.with(1) { world in
      var cluster = Cluster(hosts: 1)
      cluster.dual = true
      let overlay = try world.overlay(1)
      #expect(try await overlay.apply(networks: cluster.networks(of: 1), services: [], endpoints: []) == [])
      try await world.showBridgedFrames(bridgeNetfilter)
      let host = try await world.run(
        in: world.host(1), "sh", "-c",
        """
        set -e; ip -6 address add fd00:192::1/64 dev eth0 nodad
        for link in /proc/sys/net/ipv4/conf/*; do echo 0 > $link/rp_filter; done
        echo 0 > /proc/sys/net/ipv4/conf/default/rp_filter
        """)
      #expect(host.code == 0)
      let outside = try await world.run(in: world.outside, "ip", "-6", "address", "add", "fd00:192::100/64", "dev", "eth0", "nodad")
      #expect(outside.code == 0)
      // Whatever comes from a task, by either family, untranslated or not: outside everything counts, at the host what is for its own processes.
      let counting = """
        table inet seen {
          counter four { }
          counter six { }
          chain input {
            type filter hook input priority 300; policy accept;
            icmp type echo-request counter name four
            icmpv6 type echo-request counter name six
          }
        }
        """
      for place in [world.host(1), world.outside] {
        #expect(try await world.run(in: place, "nft", counting).code == 0)
      }
      func seen(_ place: String, _ counter: String) async throws -> Int {
        let text = try await world.run(in: place, "nft", "list", "counter", "inet", "seen", counter).output
        return Int(text.split(separator: "packets ").last?.prefix { $0.isNumber } ?? "") ?? -1
      }
      // One that is inside, and one that is inside with an uplink for its host port.
      var published = cluster.network(2, [cluster.inside])
      published.hostPorts = [PortConfig(targetPort: 80, publishedPort: 8080, publishMode: .host)]
      let one = try await overlay.attach(cluster.network(1, [cluster.inside]))
      let two = try await overlay.attach(published)
      let bridge = "orbr4098"
      let uplink = InterfaceName.uplink(cluster.task(2))
      func linkAddress(_ name: String) async throws -> String {
        let text = try await world.run(in: world.host(1), "ip", "-o", "link", "show", name).output
        return try #require(text.split(separator: "link/ether ").last?.split(separator: " ").first.map(String.init))
      }
      // The kernel of the task's namespace makes the frames that a raw socket would.
      func send(_ task: String, _ device: String, to link: String) async throws {
        let script = """
          ip route del default; ip -6 route del default; set -e
          echo 0 > /proc/sys/net/ipv6/conf/\(device)/disable_ipv6; echo 0 > /proc/sys/net/ipv6/conf/\(device)/accept_dad
          ip -6 address replace fd00:79::9/64 dev \(device) nodad
          ip neigh replace 10.78.0.240 lladdr \(link) dev \(device) nud permanent
          ip route replace default via 10.78.0.240 dev \(device) onlink
          ip -6 neigh replace fe80::99 lladdr \(link) dev \(device) nud permanent
          ip -6 route replace default via fe80::99 dev \(device)
          for target in 192.168.77.100 192.168.77.1 fd00:192::100 fd00:192::1; do busybox ping -c1 -W1 -w1 $target & done
          wait
          """
        let done = try await world.run(in: task, "sh", "-c", script)
        #expect(done.code == 0, "\(done.output)")
      }
      try await send(one.path, "eth0", to: try await linkAddress(bridge))
      // The bridge takes frames for its ports' own link addresses too.
      try await send(one.path, "eth0", to: try await linkAddress("orvx4098"))
      for (place, counter) in [(world.outside, "four"), (world.outside, "six"), (world.host(1), "four"), (world.host(1), "six")] {
        #expect(try await seen(place, counter) == 0, "\(counter) at \(place) by \(bridge)")
      }
      try await send(two.path, "eth1", to: try await linkAddress(uplink))
      for (place, counter) in [(world.outside, "four"), (world.outside, "six"), (world.host(1), "four"), (world.host(1), "six")] {
        #expect(try await seen(place, counter) == 0, "\(counter) at \(place) by \(uplink)")
      }
      // Whoever switches it on again.
      for name in [bridge, uplink] {
        let off = "/proc/sys/net/ipv6/conf/\(name)/disable_ipv6"
        #expect(try await world.run(in: world.host(1), "sh", "-c", "echo 0 > \(off)").code == 0)
        #expect(try await overlay.repair() == [])
        #expect(try await world.run(in: world.host(1), "cat", off).output == "1\n", "\(name)")
      }
    }
  }

  @Test("a container's link that somebody made too narrow for IPv6 has its room and its addresses again")
  func narrowed() async throws {
    try await NamespaceWorld.with(1) { world in
      var cluster = Cluster(hosts: 1)
      cluster.dual = true
      let overlay = try world.overlay(1)
      await overlay.whenDrifted { Task { _ = try await overlay.repair() } }
      #expect(try await overlay.apply(networks: cluster.networks(of: 1), services: [], endpoints: []) == [])
      let path = try await overlay.attach(cluster.network(1, [cluster.web])).path
      func shape() async throws -> String {
        let script = "ip -o link show eth0 | grep -o 'mtu [0-9]*'; ip -o -6 address show eth0 scope global; ip -6 route | grep -v fe80::/"
        return try await world.run(in: path, "sh", "-c", script).output
      }
      let before = try await shape()
      #expect(before.contains("fd00:77::b/64"))
      #expect(try await world.run(in: path, "ip", "link", "set", "eth0", "mtu", "1200").code == 0)
      for _ in 1...100 where try await shape() != before { try await Task.sleep(for: .milliseconds(50)) }
      let after = try await shape()
      #expect(after == before, "\(before)\n\(after)")
    }
  }

  @Test("a host that forwards IPv6 for tasks is no router for others, and ends to forward; one that was a router stays what it was")
  func router() async throws {
    try await NamespaceWorld.with(1) { world in
      var cluster = Cluster(hosts: 1)
      func apply(_ overlay: OverlayNetwork, dual: Bool) async throws {
        cluster.dual = dual
        #expect(try await overlay.apply(networks: cluster.networks(of: 1), services: [], endpoints: []) == [])
      }
      // A link behind the host, with one that is there.
      let made = try await world.run(
        in: world.host(1), "sh", "-c",
        """
        set -e; ip -6 address add fd00:192::1/64 dev eth0 nodad; echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_ra
        ip link add behind type veth peer name far; ip link set far up; ip link set behind up; ip -6 address add fd00:193::1/64 dev behind nodad
        ip -6 neigh add fd00:193::2 lladdr 02:00:00:00:00:77 dev behind nud permanent
        nft 'table ip6 seen { counter passed { }; chain out { type filter hook postrouting priority 300; policy accept; oifname "behind" icmpv6 type echo-request counter name passed; }; }'
        """)
      #expect(made.code == 0, "\(made.output)")
      let outside = try await world.run(
        in: world.outside, "sh", "-c", "ip -6 address add fd00:192::100/64 dev eth0 nodad && ip -6 route add fd00:193::/64 via fd00:192::1")
      #expect(outside.code == 0)
      func parameters() async throws -> String {
        try await world.run(
          in: world.host(1), "sh", "-c", "cd /proc/sys/net/ipv6/conf; cat all/forwarding behind/forwarding eth0/accept_ra | tr -d '\\n'"
        ).output
      }
      func passes() async throws -> Bool {
        func passed() async throws -> Int? {
          let text = try await world.run(in: world.host(1), "nft", "list", "counter", "ip6", "seen", "passed").output
          return Int(text.split(separator: "packets ").last?.prefix { $0.isNumber } ?? "")
        }
        let before = try #require(try await passed())
        _ = try await world.run(in: world.outside, "busybox", "ping", "-6", "-c1", "-W1", "-w1", "fd00:193::2")
        return try #require(try await passed()) > before
      }
      #expect(try await parameters() == "001")
      let overlay = try world.overlay(1)
      try await apply(overlay, dual: true)
      #expect(try await parameters() == "112")
      #expect(try await !passes())
      // An agent after this one knows who turned it on.
      let again = try world.overlay(1)
      try await apply(again, dual: true)
      #expect(try await !passes())
      try await apply(again, dual: false)
      #expect(try await parameters() == "001")
      try await apply(again, dual: true)
      #expect(try await parameters() == "112")
      try await again.removeAll()
      #expect(try await parameters() == "001")

      #expect(try await world.run(in: world.host(1), "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding").code == 0)
      try await apply(again, dual: true)
      #expect(try await passes())
      try await apply(again, dual: false)
      try await again.removeAll()
      #expect(try await parameters() == "111")
    }
  }
}
