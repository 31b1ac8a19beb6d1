import Glibc
import LinuxSystem
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
        #expect(try await cluster.apply(to: overlays) == [])
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

      // Hosts are not on it.
      #expect(try await world.run(in: world.host(2), "busybox", "ping", "-c1", "-W1", "-w1", "10.77.0.12").code != 0)

      cluster.endpoints = []
      try await apply()
      #expect(try await world.request("10.77.0.2", from: paths[0]) == .refused)
    }
  }

  @Test(
    "a published port answers on every host, on 127.0.0.1 and from a container; the client's address arrives; none: refused; taken: told",
    arguments: [false, true])
  func publishedPorts(bridgeNetfilter: Bool) async throws {
    try await NamespaceWorld.with(3) { world in
      try await world.showBridgedFrames(bridgeNetfilter)
      var cluster = Cluster(hosts: 3)
      cluster.ports = [PortConfig(targetPort: 80, publishedPort: 8080)]
      cluster.place(1, on: 1)
      let overlays = try (1...3).map { try world.overlay($0) }
      func apply() async throws -> [NetworkProblem] {
        try await cluster.apply(to: overlays)
      }
      #expect(try await apply() == [])
      var servers: [pid_t] = []
      defer { world.stop(servers) }
      let one = try await overlays[0].attach(cluster.network(1))
      servers.append(try await world.serve("task1", in: one.path))
      for host in 1...3 {
        let answer = try await world.ask("192.168.77.\(host):8080", from: world.outside)
        #expect(answer?.name == "task1")
        #expect(answer?.client == "192.168.77.100", "at host \(host)")
        #expect(try await world.ask("127.0.0.1:8080", from: world.host(host))?.name == "task1", "127.0.0.1 on host \(host)")
        // Each host's processes call each host, the endpoint's own too.
        for from in 1...3 {
          let answer = try await world.ask("192.168.77.\(host):8080", from: world.host(from))
          #expect(answer?.name == "task1" && answer?.client == "192.168.77.\(from)", "host \(from) at host \(host): \(String(describing: answer))")
        }
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
      #expect(problems.map(\.object) == ["port 0.0.0.0:9090/tcp"] && problems.first?.conflict?.holder?.command == "busybox", "\(problems)")
      #expect(try await world.ask("192.168.77.3:9090", from: world.outside)?.name == "other", "its traffic is not taken from it")
      #expect(try await world.ask("192.168.77.2:9090", from: world.outside)?.name == "task1")
    }
  }

  @Test("a port of one address answers there alone, and leaves the host's other addresses to its processes")
  func boundPorts() async throws {
    try await NamespaceWorld.with(2) { world in
      var cluster = Cluster(hosts: 2)
      cluster.ports = [PortConfig(targetPort: 80, publishedPort: 8080), PortConfig(targetPort: 80, publishedPort: 8081)]
      cluster.ports[0].hostIP = IPAddress("127.0.0.1")
      cluster.ports[1].hostIP = IPAddress("192.168.77.1")
      cluster.place(1, on: 1)
      let overlays = try (1...2).map { try world.overlay($0) }
      var servers = [try await world.serve("own", in: world.host(2), port: 8081)]
      defer { world.stop(servers) }
      #expect(try await cluster.apply(to: overlays) == [])
      servers.append(try await world.serve("task1", in: try await overlays[0].attach(cluster.network(1)).path))
      for host in 1...2 {
        #expect(try await world.ask("127.0.0.1:8080", from: world.host(host))?.name == "task1")
        for source in [world.outside, world.host(host)] {
          #expect(try await world.request("192.168.77.\(host):8080", from: source) == .refused, "host \(host)")
        }
      }
      #expect(try await world.ask("192.168.77.1:8081", from: world.outside)?.name == "task1")
      #expect(try await world.ask("192.168.77.2:8081", from: world.outside)?.name == "own")
    }
  }

  @Test("one number at two addresses leads to two targets; at a third it is a process's of the host, and then a task's in host mode")
  func numberTwice() async throws {
    try await NamespaceWorld.with(1) { world in
      var cluster = Cluster(hosts: 1)
      cluster.ports = [PortConfig(targetPort: 80, publishedPort: 8080), PortConfig(targetPort: 81, publishedPort: 8080)]
      cluster.ports[0].hostIP = IPAddress("127.0.0.1")
      cluster.ports[1].hostIP = IPAddress("192.168.77.1")
      cluster.place(1, on: 1)
      let overlay = try world.overlay(1)
      #expect(try await world.run(in: world.host(1), "ip", "address", "add", "192.168.77.201/24", "dev", "eth0").code == 0)
      var servers = [try await world.serve("own", in: world.host(1), port: 8080, at: "192.168.77.201")]
      defer { world.stop(servers) }
      #expect(try await overlay.apply(networks: cluster.networks(of: 1), services: cluster.services, endpoints: cluster.endpoints) == [])
      let task = try await overlay.attach(cluster.network(1)).path
      servers += [try await world.serve("first", in: task), try await world.serve("second", in: task, port: 81)]
      #expect(try await world.ask("127.0.0.1:8080", from: world.host(1))?.name == "first")
      for source in [world.outside, world.host(1)] {
        #expect(try await world.ask("192.168.77.1:8080", from: source)?.name == "second")
        #expect(try await world.ask("192.168.77.201:8080", from: source)?.name == "own")
      }
      // A task's in host mode at the address that is left is its process's, which is named; at one of the two it is another service's.
      var second = cluster.network(2, [cluster.web])
      second.hostPorts = [PortConfig(targetPort: 80, publishedPort: 8080, publishMode: .host)]
      second.hostPorts[0].hostIP = IPAddress("192.168.77.201")
      let taken = await #expect(throws: NetworkProblem.self) { try await overlay.attach(second) }
      #expect(taken?.conflict?.holder?.pid == servers[0] && taken?.object == "port 192.168.77.201:8080/tcp", "\(taken?.description ?? "")")
      for other in [IPAddress("127.0.0.1"), nil] {
        second.hostPorts[0].hostIP = other
        let taken = await #expect(throws: NetworkProblem.self) { try await overlay.attach(second) }
        #expect(taken?.reason == "service web has it on this host: publish another port" && taken?.conflict == nil)
      }
      world.stop([servers.removeFirst()])
      second.hostPorts[0].hostIP = IPAddress("192.168.77.201")
      servers.append(try await world.serve("hosted", in: try await overlay.attach(second).path))
      #expect(try await world.ask("192.168.77.201:8080", from: world.outside)?.name == "hosted")
      #expect(try await world.ask("192.168.77.1:8080", from: world.outside)?.name == "second")
    }
  }

  @Test("a port of an address that the host gets later is nobody else's then")
  func laterAddress() async throws {
    try await NamespaceWorld.with(1) { world in
      var cluster = Cluster(hosts: 1)
      cluster.ports = [PortConfig(targetPort: 80, publishedPort: 8080)]
      cluster.ports[0].hostIP = .v4(address("192.168.77.200"))
      cluster.place(1, on: 1)
      let overlay = try world.overlay(1)
      #expect(try await overlay.apply(networks: cluster.networks(of: 1), services: cluster.services, endpoints: cluster.endpoints) == [])
      let servers = [try await world.serve("task1", in: try await overlay.attach(cluster.network(1)).path)]
      defer { world.stop(servers) }
      #expect(try await world.run(in: world.host(1), "ip", "address", "add", "192.168.77.200/24", "dev", "eth0").code == 0)
      let other = try await world.run(in: world.host(1), "timeout", "1", "busybox", "nc", "-l", "-s", "192.168.77.200", "-p", "8080")
      #expect(other.code == 1, "address in use, and not ended by timeout (124 or 143): \(other)")
      #expect(try await world.ask("192.168.77.200:8080", from: world.outside)?.name == "task1")
    }
  }

  @Test("a datagram to a published port of any host arrives with its client's address, and is answered from the port it was sent to")
  func datagrams() async throws {
    try await NamespaceWorld.with(3) { world in
      var cluster = Cluster(hosts: 3)
      cluster.ports = [PortConfig(targetPort: 53, publishedPort: 5300, protocol: .udp)]
      cluster.place(1, on: 1)
      let overlays = try (1...3).map { try world.overlay($0) }
      #expect(try await cluster.apply(to: overlays) == [])
      // Its first network is not ingress: a socket bound to no address answers from where the default route leads.
      let one = try await overlays[0].attach(cluster.network(1, [cluster.web, cluster.ingress]))
      let server = try await world.open(SOCK_DGRAM, in: one.path, port: 53)
      defer { close(server) }
      for (name, path) in [("100", world.outside), ("1", world.host(1)), ("2", world.host(2))] {
        for host in 1...3 {
          let client = try await world.open(SOCK_DGRAM, in: path, connectedTo: "192.168.77.\(host)", port: 5300)
          defer { close(client) }
          for round in 1...2 {
            send(client, "ask", 3, 0)
            let seen = world.echo(server)
            var answer = [UInt8](repeating: 0, count: 8)
            let count = recv(client, &answer, 8, 0)
            #expect(seen == "192.168.77.\(name)" && count == 3, "from \(name) at host \(host), round \(round): \(seen ?? "nothing"), \(count)")
          }
        }
      }
    }
  }

  @Test("when a task's host is lost, datagrams go on to the next task, new calls are refused and old connections are reset")
  func departed() async throws {
    try await NamespaceWorld.with(3) { world in
      var cluster = Cluster(hosts: 3)
      cluster.place(1, on: 1, ready: false)
      cluster.place(2, on: 2)
      let overlays = try (1...3).map { try world.overlay($0, lingering: .milliseconds(300)) }
      func apply() async throws {
        #expect(try await cluster.apply(to: overlays) == [])
        for overlay in overlays { await overlay.flowsForgotten() }
      }
      try await apply()
      let client = try await overlays[0].attach(cluster.network(1)).path
      let (two, three) = (try await overlays[1].attach(cluster.network(2)).path, try await overlays[2].attach(cluster.network(3)).path)
      let servers = [
        try await world.open(SOCK_DGRAM, in: two, port: 53), try await world.open(SOCK_STREAM, in: two, port: 80),
        try await world.open(SOCK_DGRAM, in: three, port: 53),
      ]
      defer { for server in servers { close(server) } }
      let flow = try await world.open(SOCK_DGRAM, in: client, connectedTo: "10.77.0.2", port: 53)
      defer { close(flow) }
      let connection = try await world.open(SOCK_STREAM, in: client, connectedTo: "10.77.0.2", port: 80)
      defer { close(connection) }
      var bytes = [UInt8](repeating: 0, count: 8)
      for _ in 1...3 {
        send(flow, "one", 3, 0)
        #expect(world.echo(servers[0]) == "10.77.0.11")
        #expect(recv(flow, &bytes, 8, 0) == 3)
      }
      // Its host is cut off.
      #expect(try await world.run(in: world.host(2), "ip", "link", "set", "eth0", "down").code == 0)
      cluster.lose(2)
      try await apply()
      #expect(try await world.request("10.77.0.2", from: client) == .refused)
      cluster.place(3, on: 3)
      try await apply()
      send(flow, "two", 3, 0)
      #expect(world.echo(servers[2]) == "10.77.0.11", "the same socket, another task")
      #expect(recv(flow, &bytes, 8, 0) == 3)
      var reset: Int32 = 0
      for _ in 1...300 where reset == 0 {
        if send(connection, "more", 4, Int32(MSG_NOSIGNAL)) < 0 { reset = errno }
        try await Task.sleep(for: .milliseconds(20))
      }
      #expect(reset == ECONNRESET || reset == EPIPE, "\(reset)")
      // Its host is back, and it still runs.
      #expect(try await world.run(in: world.host(2), "ip", "link", "set", "eth0", "up").code == 0)
      cluster.remove(3)
      cluster.place(2, on: 2)
      try await apply()
      send(flow, "one", 3, 0)
      #expect(world.echo(servers[0]) == "10.77.0.11", "the task that was lost")
      #expect(recv(flow, &bytes, 8, 0) == 3)
      let again = try await world.open(SOCK_STREAM, in: client, connectedTo: "10.77.0.2", port: 80)
      #expect(send(again, "more", 4, Int32(MSG_NOSIGNAL)) == 4)
      close(again)
    }
  }

  @Test("interfaces that a crash left are told from those of tasks and of others, and go with their other end")
  func leftovers() async throws {
    try await NamespaceWorld.with(1) { world in
      var cluster = Cluster(hosts: 1)
      cluster.place(1, on: 1)
      let overlay = try world.overlay(1)
      try await overlay.apply(networks: cluster.networks(of: 1), services: cluster.services, endpoints: cluster.endpoints)
      _ = try await overlay.attach(cluster.network(3, [cluster.web]))
      let gone = cluster.task(99)
      for (name, peer) in [
        (InterfaceName.veth(gone, 0), "left0"), (InterfaceName.uplink(gone), "left1"), ("ov-000100-abcde", "other0"), ("ovs0", "other1"),
        ("veth1", "other2"),
      ] {
        #expect(try await world.run(in: world.host(1), "ip", "link", "add", name, "type", "veth", "peer", "name", peer).code == 0)
      }
      // A bridge of that name is none of ours either.
      #expect(try await world.run(in: world.host(1), "ip", "link", "add", InterfaceName.veth(gone, 1), "type", "bridge").code == 0)
      let links = try await overlay.containerLinks()
      let stray = links.filter { !$0.isOf(cluster.task(3)) }
      #expect(Set(stray.map(\.name)) == [InterfaceName.veth(gone, 0), InterfaceName.uplink(gone)])
      #expect(stray.allSatisfy { $0.isOf(gone) })
      #expect(
        Set(links.map(\.name)).subtracting(stray.map(\.name)) == [InterfaceName.veth(cluster.task(3), 0), InterfaceName.uplink(cluster.task(3))])
      try await overlay.remove(stray)
      try await overlay.remove(stray)
      let left = try await world.run(in: world.host(1), "ip", "-o", "link").output
      #expect(!left.contains("left0") && !left.contains("left1"))
      for name in ["other0", "other1", "other2", InterfaceName.veth(gone, 1), InterfaceName.veth(cluster.task(3), 0)] { #expect(left.contains(name)) }
    }
  }

  @Test("what ip, bridge and nft change of ours is repaired at once and counted by kind; what is not ours is left alone")
  func tampering() async throws {
    try await NamespaceWorld.with(2) { world in
      var cluster = Cluster(hosts: 2)
      for number in 1...2 { cluster.place(number, on: number) }
      let overlay = try world.overlay(1)
      await overlay.whenDrifted { Task { _ = try await overlay.repair() } }
      try await overlay.apply(networks: cluster.networks(of: 1), services: cluster.services, endpoints: cluster.endpoints)
      let one = try await overlay.attach(cluster.network(1))
      let other = try await overlay.attach(cluster.network(3, [cluster.web]))
      let bridged = try await overlay.attach(TaskNetwork(task: cluster.task(4), attachments: [], isBridged: true))
      let uplink = InterfaceName.uplink(cluster.task(3))
      func shape() async throws -> String {
        let host = world.host(1)
        // Numbers of interfaces and counters are nobody's wish.
        return try await world.run(
          in: host, "sh", "-c",
          """
          for l in orbr4096 orvx4096 $(bridge link | grep -o 'ov[^ @]*' | grep -v orvx); do
            ip -d -o link show $l | grep -Eo '(vlan_filtering|stp_state|learning|nolearning|ttl|isolated|guard|(mcast_|bcast_)?flood|hairpin) [^ ]*|bridge_slave state [a-z]*'
          done
          ip -o link show type bridge | cut -d' ' -f2-; bridge fdb show | grep dst | sort; ip -o -4 address | cut -d' ' -f2- | sort
          ip route; ip -o link show \(uplink) | grep -o 'state [A-Z]*'
          bridge link | grep -c ' ov.*master orbr'; nft -s list table ip orch | sed 's/# handle.*//'
          ip neigh show nud permanent | sort; bridge fdb show | grep 'ov.*static' | sed 's/ov[^ ]*/ov/' | sort; bridge -d link | grep -c 'learning off flood off'
          for i in \(world.folder)/run1/netns/*; do nsenter --net=$i sh -c 'nft -s list table ip orch; nft -s list table netdev orch; ip -o link | grep -o "eth.*mtu [0-9]*" | sed s/@if[0-9]*// | sort; ip -o -4 address | cut -d" " -f2- | sort; ip route'; done
          """
        ).output
      }
      // What hosts know of their containers is complete after a comparison.
      try await overlay.repair()
      let before = try await shape()
      let tampering = [
        ("link", "ip link set orbr4096 down"), ("link", "ip link set orbr4096 mtu 1300"), ("link", "ip link del orvx4096"),
        ("link", "ip link set orvx4096 nomaster"), ("address", "ip address del 10.255.0.251/24 dev orbr4097"),
        ("address", "ip address add 10.99.0.1/24 dev orbr4096"),
        ("forwarding", "bridge fdb del 02:42:0a:4d:00:0c dev orvx4096 dst 192.168.77.2"),
        (
          "forwarding",
          "bridge fdb append 02:42:0a:4d:00:0c dev orvx4096 dst 192.168.77.2; bridge fdb add 02:00:00:00:00:01 dev orvx4096 dst 192.168.77.99"
        ),
        ("port", "ip link set $(bridge link | grep -o 'ov[^ @]*' | grep -v orvx | head -1) nomaster"), ("rules", "nft flush chain ip orch forward"),
        ("neighbour", "ip neigh del 10.77.0.12 dev orvx4096"), ("neighbour", "ip neigh replace 10.77.0.12 lladdr 02:00:00:00:00:01 dev orvx4096"),
        ("neighbour", "ip neigh add 10.77.0.99 lladdr 02:00:00:00:00:01 dev orvx4096"),
        ("port", "bridge link set dev orvx4096 learning on"), ("port", "bridge link set dev orvx4096 flood off"),
        ("port", "bridge link set dev orvx4096 state 0"), ("port", "bridge link set dev orvx4096 isolated on"),
        ("port", "bridge link set dev orvx4096 guard on mcast_flood off"), ("link", "ip link set orvx4096 type vxlan learning"),
        ("link", "ip link set orvx4096 type vxlan ttl 1"), ("link", "ip link set orbr4096 type bridge group_fwd_mask 8"),
        ("link", "ip link set orbr4096 type bridge stp_state 1"),
        ("port", "bridge link set dev $(bridge link | grep -o 'ov[^ @]*' | grep -v orvx | head -1) isolated on"),
        ("port", "bridge link set dev $(bridge link | grep -o 'ov[^ @]*' | grep -v orvx | head -1) state 0"),
        ("port", "bridge link set dev $(bridge link | grep -o 'ov[^ @]*' | grep -v orvx | head -1) flood on"),
        ("port", "bridge fdb del 02:42:0a:4d:00:0b dev $(bridge fdb show | grep 02:42:0a:4d:00:0b | grep -o 'ov[^ ]*' | head -1) master"),
        ("link", "ip link set $(bridge link | grep -o 'ov[^ @]*' | grep -v orvx | head -1) mtu 1200"),
        ("container rules", "nsenter --net=\(one.path) nft flush table ip orch"),
        ("container rules", "nsenter --net=\(one.path) nft delete table ip orch"),
        ("address", "ip address del 172.28.240.1 peer 172.28.240.2/32 dev \(uplink)"), ("route", "ip route del 172.28.240.2 dev \(uplink)"),
        ("link", "ip link del \(uplink)"),
        ("link", "ip link del $(ip -o link show master orbr4097 | grep -o 'ov[^ @]*' | grep -v orvx | head -1)"),
        ("container address", "nsenter --net=\(one.path) ip address del 10.77.0.11/24 dev eth1"),
        ("container address", "nsenter --net=\(other.path) ip address flush dev eth1"),
        ("container route", "nsenter --net=\(one.path) ip route del default"),
        ("container route", "nsenter --net=\(other.path) ip route replace default via 10.77.0.1 dev eth0"),
        ("container route", "nsenter --net=\(one.path) ip route del 10.77.0.0/24"),
        ("container link", "nsenter --net=\(one.path) ip link set eth1 down"),
        ("container link", "nsenter --net=\(one.path) ip link set eth1 mtu 1200"),
        ("rules", "nft delete table ip orch"), ("rules", "nft add rule ip orch prerouting counter"), ("rules", "nft flush ruleset"),
        ("link", "ip link del \(InterfaceName.uplink(cluster.task(4)))"),
        ("container rules", "nsenter --net=\(bridged.path) nft flush table ip orch"),
        ("container address", "nsenter --net=\(bridged.path) ip address flush dev eth0"),
        ("container route", "nsenter --net=\(bridged.path) ip route del default"),
        ("container link", "nsenter --net=\(bridged.path) ip link set eth0 down"),
      ]
      for (kind, command) in tampering {
        let counted = await overlay.repairs[kind] ?? 0
        let done = try await world.run(in: world.host(1), "sh", "-c", command)
        #expect(done.code == 0, "\(command): \(done.output)")
        var (now, after) = ("", counted)
        for _ in 1...200 {
          (now, after) = (try await shape(), await overlay.repairs[kind] ?? 0)
          if now == before, after > counted { break }
          try await Task.sleep(for: .milliseconds(50))
        }
        #expect(now == before && after > counted, "\(command): \(kind) \(counted) -> \(after)\n\(before)\n---\n\(now)")
      }
      let counted = await overlay.repairs
      #expect(
        try await world.run(
          in: world.host(1), "sh", "-c",
          """
          nft add table ip other; ip link add other type bridge; ip address add 10.5.0.1/24 dev eth0
          # A container's own tunnel.
          nsenter --net=\(other.path) sh -c 'ip link add tun0 type bridge && ip address add 10.9.0.1/24 dev tun0 && ip link set tun0 up &&
            ip route replace default via 10.9.0.2 dev tun0'
          """
        ).code == 0)
      _ = try await overlay.repair()
      try await Task.sleep(for: .milliseconds(300))
      #expect(await overlay.repairs == counted)
      #expect(try await world.run(in: world.host(1), "nft", "list", "table", "ip", "other").code == 0)
      #expect(try await world.run(in: other.path, "ip", "route", "show", "default").output.contains("dev tun0"))
    }
  }

  @Test(
    "nothing is flooded: who is known is found without a question to other hosts, frames for others end here, counted; strangers' frames are not shown"
  )
  func noFlooding() async throws {
    try await NamespaceWorld.with(3) { world in
      var cluster = Cluster(hosts: 3)
      for (number, host) in [(1, 1), (2, 2), (3, 1)] { cluster.place(number, on: host) }
      let overlays = try (1...3).map { try world.overlay($0) }
      try await cluster.apply(to: overlays, services: [])
      let one = try await overlays[0].attach(cluster.network(1))
      _ = try await overlays[1].attach(cluster.network(2))
      let three = try await overlays[0].attach(cluster.network(3))
      func count(_ host: Int, _ field: String) async throws -> Int {
        let text = try await world.run(in: world.host(host), "cat", "/proc/thread-self/net/dev").output
        // Columns of the device's line: received 1-8 (packets second, dropped fourth), sent 9-16.
        let line = text.split(separator: "\n").first { $0.contains("orvx4096:") }.map { $0.split(whereSeparator: { $0 == " " || $0 == ":" }) } ?? []
        return line.count > 12 ? Int(line[["received": 2, "sent": 10, "dropped": 12][field]!]) ?? -1 : -1
      }
      let before = try await (count(3, "received"), count(1, "dropped"))
      // A container in another, and its host as well.
      for (from, to) in [(one.path, "10.77.0.12"), (one.path, "10.255.0.252"), (world.host(1), "10.255.0.12"), (one.path, "10.77.0.13")] {
        let ping = try await world.run(in: from, "busybox", "ping", "-c1", "-W2", "-w2", to)
        #expect(ping.code == 0, "\(to): \(ping.output)")
      }
      #expect(try await count(3, "received") == before.0, "host 3 was asked")
      // An address that nobody has: the question ends at this host.
      #expect(try await world.run(in: one.path, "busybox", "ping", "-c1", "-W1", "-w1", "10.77.0.99").code != 0)
      // A frame for a MAC that nobody has.
      let watch = "table netdev seen { chain in { type filter hook ingress device \"eth1\" priority 0; ether daddr 02:42:0a:4d:00:62 counter; }; }"
      #expect(try await world.run(in: three.path, "nft", watch).code == 0)
      let unknown = try await world.run(
        in: one.path, "sh", "-c",
        "ip neigh replace 10.77.0.98 lladdr 02:42:0a:4d:00:62 dev eth1; for i in 1 2; do busybox ping -c1 -W1 -w1 10.77.0.98; done; true")
      #expect(unknown.code == 0)
      let dropped = try await count(1, "dropped")
      #expect(dropped >= before.1 + 2)
      #expect(await overlays[0].unknownDestinations >= UInt64(dropped), "of all its tunnels")
      #expect(try await count(3, "received") == before.0)
      let shown = try await world.run(in: three.path, "nft", "list", "table", "netdev", "seen").output
      #expect(shown.contains("packets 0 "), "the neighbour on the same host saw it: \(shown)")
    }
  }

  @Test("a path that takes less than the network's packets is no black hole, fragments arrive, and a smaller MTU reaches what runs")
  func packetSizes() async throws {
    try await NamespaceWorld.with(2) { world in
      var cluster = Cluster(hosts: 2)
      for number in 1...2 { cluster.place(number, on: number, ready: number == 2) }
      let overlays = try (1...2).map { try world.overlay($0) }
      func apply() async throws {
        try await cluster.apply(to: overlays)
      }
      try await apply()
      #expect(
        try await overlays[0].underlayFacts()
          == UnderlayFacts(routes: [.init(destination: IPv4Prefix("192.168.77.0/24")!, device: "eth0")], mtu: 1500))
      let one = try await overlays[0].attach(cluster.network(1))
      let two = try await overlays[1].attach(cluster.network(2))
      let content = String(repeating: "x", count: 300_000)
      let server = try await world.serve("task2", in: two.path)
      defer { world.stop([server]) }
      let file = Glibc.open("\(world.folder)/www-task2/big", O_CREAT | O_WRONLY | O_CLOEXEC, 0o644)
      write(file, content, content.utf8.count)
      close(file)
      func fetch() async throws -> Int {
        let answer = try await world.run(
          in: one.path, "sh", "-c",
          "timeout 10 busybox wget -qO- http://10.77.0.12/big | wc -c; timeout 10 busybox wget -qO- http://10.77.0.2/big | wc -c")
        return answer.output.split(separator: "\n").compactMap { Int($0) }.reduce(0, +)
      }
      func ping(_ size: Int, _ target: String) async throws -> Bool {
        try await world.run(in: one.path, "busybox", "ping", "-c2", "-W2", "-w3", "-s", "\(size)", target).code == 0
      }
      for size in [1400, 8000] { #expect(try await ping(size, "10.77.0.12")) }
      // The way back has less room, which nobody told the containers.
      let less = "ip route replace 192.168.77.1/32 dev eth0 mtu 1200"
      #expect(try await world.run(in: world.host(2), "sh", "-c", less).code == 0)
      #expect(try await fetch() == 600_000)
      #expect(try await ping(8000, "10.77.0.12"))
      // A host with a smaller link has joined.
      cluster.mtu = 1350
      try await apply()
      for path in [one.path, two.path] {
        #expect(try await world.run(in: path, "sh", "-c", "ip -o link show eth1").output.contains("mtu 1350 "))
      }
      #expect(try await fetch() == 600_000)
    }
  }

  @Test(
    "a host's route into a network's subnet takes nothing from its tasks; uplinks keep out of the host's routes; subnets that overlap do not meet")
  func routes() async throws {
    try await NamespaceWorld.with(2) { world in
      var cluster = Cluster(hosts: 2)
      for number in 1...2 { cluster.place(number, on: number) }
      let overlays = try (1...2).map { try world.overlay($0) }
      let host = world.host(1)
      #expect(
        try await world.run(
          in: host, "sh", "-c",
          "ip route add 10.0.0.0/8 via 192.168.77.9; ip route add 10.77.0.0/25 via 192.168.77.9; ip route add 172.28.0.0/16 via 192.168.77.9"
        ).code == 0)
      var networks = cluster.networks(of: 1)
      try await cluster.apply(to: overlays, services: [])
      #expect(try await overlays[0].underlayFacts().routes.map(\.destination.description) == ["10.0.0.0/8", "172.28.0.0/16", "192.168.77.0/24"])
      let one = try await overlays[0].attach(cluster.network(1, [cluster.web]))
      _ = try await overlays[1].attach(cluster.network(2, [cluster.web]))
      // A link that is new may lose its first packets where the machine is busy.
      let ping = "for i in 1 2 3 4 5; do busybox ping -c1 -W2 -w2 10.77.0.12 && exit 0; done; exit 1"
      #expect(try await world.run(in: one.path, "sh", "-c", ping).code == 0)
      let address = try await world.run(in: one.path, "sh", "-c", "ip -o -4 address show eth1; ip route show default").output
      #expect(address.contains("inet 172.27.240.2 peer 172.27.240.1/32") && address.contains("default via 172.27.240.1 dev eth1"), "\(address)")
      #expect(try await overlays[0].underlayFacts().routes.count == 3, "an uplink's is nobody's concern")
      networks[2].subnet = IPv4Prefix("10.77.0.0/16")!
      try await overlays[0].apply(networks: networks, services: [], endpoints: cluster.endpoints)
      let error = await #expect(throws: NetworkProblem.self) { try await overlays[0].attach(cluster.network(3, [cluster.web, cluster.inside])) }
      #expect(
        error?.description.hasPrefix("network inside: its subnet 10.77.0.0/16 overlaps 10.77.0.0/24 of network web: one task cannot be on both")
          == true)
    }
  }

  @Test(
    "three networks with one subnet on the same hosts: each reaches its own by address and virtual IP, and the outside; none another's",
    arguments: [false, true])
  func equalSubnets(bridgeNetfilter: Bool) async throws {
    try await NamespaceWorld.with(2) { world in
      try await world.showBridgedFrames(bridgeNetfilter)
      var dual = Cluster(hosts: 2)
      dual.dual = true
      let cluster = dual
      func networks(of host: Int) -> [NetworkAssignment] {
        (0..<3).map { number in
          var network = cluster.networks(of: host)[0]
          (network.id, network.name, network.vni) = (NetworkID(value: UInt128(20 + number)), "net\(number)", UInt32(5000 + number))
          return network
        } + [cluster.networks(of: host)[1]]
      }
      let ids = networks(of: 1).prefix(3).map(\.id)
      func service(_ number: Int) -> ServiceID { ServiceID(value: UInt128(30 + number)) }
      let services = ids.enumerated().map { number, id in
        ServiceRecord(
          id: service(number), name: "web", names: [id: ["web"]], mode: .vip, virtualIPs: [.init(network: id, address: cluster.virtualIP)],
          ports: [])
      }
      // On each network the same addresses: a client .11 on host 1, a server .12 on host 2 and .13 on host 1.
      func task(_ network: Int, _ number: Int) -> TaskNetwork {
        TaskNetwork(
          task: cluster.task(10 * network + number), attachments: [.init(network: ids[network], address: address("10.77.0.\(10 + number)"))])
      }
      func endpoints(_ tasks: [Int]) -> [EndpointRecord] {
        (0..<3).flatMap { network in
          tasks.map { number in
            EndpointRecord(
              task: task(network, number).task, service: service(network), network: ids[network], node: NodeID(value: 1), slot: UInt64(number),
              address: address("10.77.0.\(10 + number)"), underlay: cluster.underlay(number == 2 ? 2 : 1), ready: number > 1)
          }
        }
      }
      let overlays = try (1...2).map { try world.overlay($0) }
      func apply(_ endpoints: [EndpointRecord]) async throws {
        for (index, overlay) in overlays.enumerated() {
          #expect(try await overlay.apply(networks: networks(of: index + 1), services: services, endpoints: endpoints) == [])
        }
      }
      try await apply(endpoints([1, 2, 3]))
      var servers = [try await world.serve("outside", in: world.outside)]
      defer { world.stop(servers) }
      var clients: [String] = []
      for network in 0..<3 {
        clients.append(try await overlays[0].attach(task(network, 1)).path)
        servers.append(try await world.serve("far\(network)", in: try await overlays[1].attach(task(network, 2)).path))
        servers.append(try await world.serve("near\(network)", in: try await overlays[0].attach(task(network, 3)).path))
      }
      for (network, client) in clients.enumerated() {
        #expect(try await world.ask("10.77.0.12", from: client)?.name == "far\(network)")
        #expect(try await world.ask("10.77.0.13", from: client)?.name == "near\(network)")
        var called: Set<String> = []
        for _ in 1...12 {
          let answer = try await world.ask("10.77.0.2", from: client)
          #expect(answer?.client == "10.77.0.11")
          called.insert(answer?.name ?? "nobody")
        }
        #expect(called == ["far\(network)", "near\(network)"])
        #expect(try await world.ask("[fd00:77::c]", from: client)?.name == "far\(network)")
        #expect(try await world.ask("[fd00:77::d]", from: client)?.name == "near\(network)")
        let six = try await world.ask("[fd00:77::2]", from: client)
        #expect(six?.client == "b" && six.map { called.contains($0.name) } == true, "\(String(describing: six))")
        let outside = try await world.ask("192.168.77.100", from: client)
        #expect(outside?.name == "outside" && outside?.client == "192.168.77.1")
      }
      // By their uplinks they do not reach one another.
      let other = try await world.run(in: clients[1], "sh", "-c", "ip -o -4 address show eth1 | grep -o 'inet [0-9.]*' | cut -d' ' -f2").output
      #expect(try await world.run(in: clients[0], "busybox", "ping", "-c1", "-W1", "-w1", other.filter { $0 != "\n" }).code != 0)
      // One network's task ends: connections of the others, from the same address to the same address and port, stay.
      let held = try await world.open(SOCK_STREAM, in: clients[1], connectedTo: "10.77.0.12", port: 80)
      defer { close(held) }
      try await apply(endpoints([1, 2, 3]).filter { !($0.network == ids[0] && $0.slot == 2) })
      try await overlays[1].detach(task(0, 2).task)
      try await Task.sleep(for: .milliseconds(200))
      let query = "GET /cgi-bin/who HTTP/1.0\r\n\r\n"
      send(held, query, query.utf8.count, Int32(MSG_NOSIGNAL))
      var bytes = [UInt8](repeating: 0, count: 4096)
      let count = recv(held, &bytes, bytes.count, 0)
      #expect(String(decoding: bytes.prefix(max(0, count)), as: UTF8.self).hasPrefix("HTTP/1."))
      #expect(try await world.ask("10.77.0.2", from: clients[0])?.name == "near0")
      #expect(try await world.ask("10.77.0.12", from: clients[2])?.name == "far2")
    }
  }

  @Test("an address that another task has by now is that task's at once, while the namespace of the one before is still there")
  func succession() async throws {
    try await NamespaceWorld.with(2) { world in
      var cluster = Cluster(hosts: 2)
      cluster.place(1, on: 1)
      cluster.place(3, on: 1)
      let overlays = try (1...2).map { try world.overlay($0) }
      func apply() async throws {
        try await cluster.apply(to: overlays, services: [])
      }
      try await apply()
      _ = try await overlays[0].attach(cluster.network(1))
      let three = try await overlays[0].attach(cluster.network(3))
      // Task 1 has ended; task 7 on the other host gets its addresses.
      cluster.endpoints = cluster.endpoints.map { endpoint in
        var endpoint = endpoint
        if endpoint.task == cluster.task(1) {
          (endpoint.task, endpoint.node, endpoint.underlay) = (cluster.task(7), NodeID(value: 2), cluster.underlay(2))
        }
        return endpoint
      }
      try await apply()
      let seven = try await overlays[1].attach(TaskNetwork(task: cluster.task(7), attachments: cluster.network(1).attachments))
      let server = try await world.serve("task7", in: seven.path)
      defer { world.stop([server]) }
      #expect(try await world.ask("10.77.0.11", from: three.path)?.name == "task7")
    }
  }

  @Test("VXLAN packets of a network are heard from its members alone, and those dropped are counted")
  func strangers() async throws {
    try await NamespaceWorld.with(1) { world in
      let cluster = Cluster(hosts: 2)
      let overlay = try world.overlay(1)
      try await overlay.apply(networks: cluster.networks(of: 1), services: [], endpoints: [])
      func received() async throws -> String {
        try await world.run(in: world.host(1), "sh", "-c", "ip -s link show orvx4096 | awk '/RX:/ {getline; print $2}'").output
      }
      func arp(_ id: Int, as source: String) async throws {
        let script = """
          ip address add \(source)/32 dev eth0 2>/dev/null
          ip link add vx type vxlan id \(id) dstport 4789 local \(source) remote 192.168.77.1 && ip address add 10.77.0.99/24 dev vx && ip link set vx up
          busybox ping -c1 -W1 -w1 10.77.0.251
          ip link del vx
          """
        _ = try await world.run(in: world.outside, "sh", "-c", script)
      }
      try await arp(4096, as: "192.168.77.100")
      #expect(try await received() == "0\n")
      #expect(await overlay.strangers > 0)
      // The same from the address of a member arrives.
      try await arp(4096, as: "192.168.77.2")
      #expect(try await received() != "0\n")
    }
  }

  @Test("what containers send to hosts' VXLAN ports becomes nobody's frame, whatever its source; to others it goes")
  func smuggling() async throws {
    try await NamespaceWorld.with(2) { world in
      var cluster = Cluster(hosts: 2)
      cluster.place(3, on: 1)
      let overlays = try (1...2).map { try world.overlay($0) }
      try await cluster.apply(to: overlays, services: [])
      // Another address of the second host.
      let further = "ip address add 192.168.78.2/32 dev eth0; ip link set eth0 up"
      #expect(try await world.run(in: world.host(2), "sh", "-c", further).code == 0)
      #expect(try await world.run(in: world.host(1), "ip", "route", "add", "192.168.78.2/32", "via", "192.168.77.2").code == 0)
      let uplinked = try await overlays[0].attach(cluster.network(1, [cluster.web])).path
      let published = try await overlays[0].attach(cluster.network(2, [cluster.ingress])).path
      func received(_ host: Int) async throws -> String {
        try await world.run(in: world.host(host), "sh", "-c", "ip -s link show orvx4098 | awk '/RX:/ {getline; print $2}'").output
      }
      /// ARP requests into the internal network, from a tunnel of the sender's own.
      func smuggle(from path: String, as source: String?, to target: String) async throws {
        let script = """
          [ -z '\(source ?? "")' ] || ip address add \(source ?? "")/32 dev $(ip -o route get \(target) | sed 's/.* dev \\([^ ]*\\).*/\\1/')
          ip link add vx type vxlan id 4098 dstport 4789 \(source.map { "local \($0)" } ?? "") remote \(target)
          ip address add 10.78.0.99/24 dev vx && ip link set vx up
          busybox ping -c1 -W1 -w1 10.78.0.12
          ip link del vx
          [ -z '\(source ?? "")' ] || ip address del \(source ?? "")/32 dev $(ip -o route get \(target) | sed 's/.* dev \\([^ ]*\\).*/\\1/')
          """
        _ = try await world.run(in: path, "sh", "-c", script)
      }
      for (name, path) in [("on an uplink", uplinked), ("on ingress", published)] {
        for (source, target) in [
          (nil, "192.168.77.2"), ("192.168.77.1", "192.168.77.2"), (nil, "192.168.78.2"), (nil, "192.168.77.1"), ("192.168.77.2", "192.168.77.1"),
          (nil, "192.168.77.255"),
        ] {
          let before = await (overlays[0].strangers, overlays[1].strangers)
          try await smuggle(from: path, as: source, to: target)
          let after = await (overlays[0].strangers, overlays[1].strangers)
          let seen = try await (received(1), received(2))
          #expect(seen == ("0\n", "0\n"), "\(name), \(source ?? "itself") to \(target)")
          // The host's own address from elsewhere is no packet to its kernel (a martian).
          #expect(after.0 > before.0 || after.1 > before.1 || source == "192.168.77.1", "\(name), \(source ?? "itself") to \(target): not counted")
        }
      }
      // Datagrams to the same port of an address that is no host's.
      let server = try await world.open(SOCK_DGRAM, in: world.outside, port: 4789)
      defer { close(server) }
      for path in [uplinked, published] {
        let client = try await world.open(SOCK_DGRAM, in: path, connectedTo: "192.168.77.100", port: 4789)
        defer { close(client) }
        send(client, "ask", 3, 0)
        #expect(world.echo(server) == "192.168.77.1")
        var answer = [UInt8](repeating: 0, count: 8)
        #expect(recv(client, &answer, 8, 0) == 3)
      }
      // The script would be heard if it came from a host.
      #expect(try await world.run(in: world.host(2), "ip", "link", "del", "orvx4098").code == 0)
      try await smuggle(from: world.host(2), as: nil, to: "192.168.77.1")
      #expect(try await received(1) != "0\n")
    }
  }

  @Test(
    "a task's host port leads to it alone and may be had once, by TCP and by UDP: who is second is refused, and the task or the process that has it is named",
    arguments: [PortConfig.PortProtocol.tcp, .udp])
  func hostPorts(kind: PortConfig.PortProtocol) async throws {
    try await NamespaceWorld.with(1) { world in
      let cluster = Cluster(hosts: 1)
      let overlay = try world.overlay(1)
      try await overlay.apply(networks: cluster.networks(of: 1), services: [], endpoints: [])
      var network = cluster.network(1, [cluster.web])
      network.hostPorts = [PortConfig(targetPort: 80, publishedPort: 8081, publishMode: .host)]
      // Two families of one number, the second of which the process has.
      network.hostPorts.append(PortConfig(targetPort: 81, publishedPort: 8082, protocol: kind, publishMode: .host))
      let process = try await world.open(kind == .udp ? SOCK_DGRAM : SOCK_STREAM, in: world.host(1), port: 8082)
      let taken = await #expect(throws: NetworkProblem.self) { try await overlay.attach(network) }
      let claim = PortClaim(8082, kind, at: IPAddress("0.0.0.0"))
      #expect(taken?.conflict?.holder?.pid == getpid() && taken?.conflict?.claim == claim, "\(taken?.description ?? "")")
      let path = await overlay.host.path(network.task)
      #expect(access(path, F_OK) != 0, "nothing is left of it")
      close(process)
      let namespace = try await overlay.attach(network)
      let servers = [try await world.serve("task1", in: namespace.path)]
      defer { world.stop(servers) }
      let answer = try await world.ask("192.168.77.1:8081", from: world.outside)
      #expect(answer?.name == "task1" && answer?.client == "192.168.77.100")
      var second = cluster.network(2, [cluster.web])
      second.hostPorts = [network.hostPorts[1]]
      let refused = await #expect(throws: NetworkProblem.self) { try await overlay.attach(second) }
      #expect(refused?.description == "port 8082/\(kind.rawValue): task \(network.task) has it on this host: publish another port")
      #expect(refused?.conflict == nil, "no process of the host has it: other tasks may come here")
      #expect(try await world.ask("192.168.77.1:8081", from: world.outside)?.name == "task1")
      try await overlay.detach(network.task)
      _ = try await overlay.attach(second)
    }
  }

  @Test(
    "a task's host ports are taken all or none: when one of a family is refused, it is told with that family, and the others are free for others and for another try"
  )
  func hostPortRefused() async throws {
    try await NamespaceWorld.with(1) { world in
      try await world.addIPv6()
      let cluster = Cluster(hosts: 1)
      let overlay = try world.overlay(1)
      try await overlay.apply(networks: cluster.networks(of: 1), services: [], endpoints: [])
      var network = cluster.network(1, [cluster.web])
      network.hostPorts = [PortConfig(targetPort: 80, publishedPort: 8081, publishMode: .host)]
      func listen(_ any: String) async throws -> Int32? {
        try await withNetworkNamespace(world.host(1)) { () -> Int32? in
          let name = SocketName(any, 8081)
          let descriptor = socket(name.family, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
          var only: Int32 = 1
          if name.family == AF_INET6 { setsockopt(descriptor, Int32(IPPROTO_IPV6), IPV6_V6ONLY, &only, 4) }
          if name.with({ bind(descriptor, $0, $1) }) == 0, Glibc.listen(descriptor, 8) == 0 { return descriptor }
          close(descriptor)
          return nil
        }
      }
      let six = try #require(try await listen("::"))
      func told() async throws -> [PortClaim] { try await overlay.conflicts(on: network.hostPorts).map(\.claim) }
      let all6 = PortClaim(8081, .tcp, at: IPAddress("::"))
      let refused6 = await #expect(throws: NetworkProblem.self) { try await overlay.attach(network) }
      #expect(refused6?.conflict?.claim == all6 && refused6?.conflict?.holder?.pid == getpid(), "\(refused6?.description ?? "")")
      #expect(try await told() == [all6])
      let four = try #require(try await listen("0.0.0.0"))
      let refused = await #expect(throws: NetworkProblem.self) { try await overlay.attach(network) }
      #expect(refused?.conflict?.claim == PortClaim(8081, .tcp), "\(refused?.description ?? "")")
      #expect(try await told() == [PortClaim(8081, .tcp)])
      close(six)
      #expect(try await told() == [PortClaim(8081, .tcp, at: IPAddress("0.0.0.0"))])
      close(four)
      _ = try await overlay.attach(network)
    }
  }

  @Test("who has a port that a task wants is another task, or else the service that publishes it through ingress at such an address")
  func owner() {
    var world = Cluster(hosts: 1).world(1)
    let (first, second) = (TaskID(value: 1), TaskID(value: 2))
    func port(_ address: String?, _ mode: PortConfig.PublishMode) -> PortConfig {
      var port = PortConfig(targetPort: 80, publishedPort: 8080, publishMode: mode)
      port.hostIP = address.flatMap { IPAddress($0) }
      return port
    }
    world.containers[first] = TaskNetwork(task: first, attachments: [], hostPorts: [port("127.0.0.1", .host)])
    // What a service has in host mode is its tasks'.
    world.services[0].ports = [port("192.0.2.5", .ingress), port("192.0.2.6", .host)]
    func owner(_ address: String?, besides task: TaskID) -> String {
      HostNetwork.owner(of: PublishedPort(protocol: .tcp, number: 8080, address: address.flatMap { IPAddress($0) }), in: world, besides: task)
    }
    #expect(owner(nil, besides: second) == "task \(first)" && owner("127.0.0.1", besides: second) == "task \(first)")
    #expect(owner(nil, besides: first) == "service web" && owner("192.0.2.5", besides: second) == "service web")
    #expect(owner("192.0.2.6", besides: second) == "another task or service" && owner("127.0.0.1", besides: first) == "another task or service")
  }

  @Test("a task with a host port on internal networks alone answers its host's processes and calls none of them")
  func insideHostPort() async throws {
    try await NamespaceWorld.with(1) { world in
      let cluster = Cluster(hosts: 1)
      let overlay = try world.overlay(1)
      try await overlay.apply(networks: cluster.networks(of: 1), services: [], endpoints: [])
      var network = cluster.network(1, [cluster.inside])
      network.hostPorts = [PortConfig(targetPort: 80, publishedPort: 8081, publishMode: .host)]
      let path = try await overlay.attach(network).path
      let servers = [try await world.serve("task1", in: path), try await world.serve("own", in: world.host(1), port: 9999)]
      defer { world.stop(servers) }
      // A route of its own too.
      let route = "ip route add 192.168.77.1/32 via 172.28.240.1"
      #expect(try await world.run(in: path, "sh", "-c", route).code == 0)
      for target in ["172.28.240.1:9999", "192.168.77.1:9999", "192.168.77.1:8081"] {
        #expect(try await world.ask(target, from: path) == nil, "\(target)")
      }
      for target in ["192.168.77.1:8081", "127.0.0.1:8081"] {
        #expect(try await world.ask(target, from: world.host(1))?.name == "task1", "\(target)")
      }
      // Gone without the agent's doing: calls do not leave by the host's way out.
      let loss = "ip route add default via 192.168.77.100; ip link del \(InterfaceName.uplink(network.task))"
      #expect(try await world.run(in: world.host(1), "sh", "-c", loss).code == 0)
      #expect(try await world.request("192.168.77.1:8081", from: world.host(1)) == .refused)
    }
  }

  @Test("hosts take nothing from containers that has another's address, of either family", arguments: [false, true])
  func forged(bridgeNetfilter: Bool) async throws {
    try await NamespaceWorld.with(1) { world in
      try await world.showBridgedFrames(bridgeNetfilter)
      var cluster = Cluster(hosts: 1)
      cluster.dual = true
      let overlay = try world.overlay(1)
      try await overlay.apply(networks: cluster.networks(of: 1), services: [], endpoints: [])
      let uplinked = try await overlay.attach(cluster.network(1, [cluster.web])).path
      let published = try await overlay.attach(cluster.network(2, [cluster.ingress])).path
      let watch = """
        table inet seen {
          set forged { type ipv4_addr; elements = { 192.168.77.100, 172.28.240.77, 10.255.9.9 } }
          chain in { type filter hook prerouting priority -200
            ip saddr @forged counter name four; ip6 saddr 2001:db8::5 counter name six; ip6 saddr fd6f:7263:6875::/64 counter name own; ip saddr { 172.28.240.2, 10.255.0.12 } counter name own
          }
          counter four { }
          counter six { }
          counter own { }
        }
        """
      #expect(try await world.run(in: world.host(1), "nft", watch).code == 0)
      func seen(_ counter: String) async throws -> UInt64 {
        try await world.thread.run(in: world.host(1)) { try NetlinkSocket.netfilter().counter(counter, table: "seen", family: 1).packets }
      }
      func call(from path: String, as source: String?, _ target: String) async throws {
        let (own, option) = source.map { ("ip address add \($0)/\($0.contains(":") ? 128 : 32) dev lo nodad;", "-I \($0)") } ?? ("", "")
        _ = try await world.run(in: path, "sh", "-c", "\(own) busybox ping \(target.contains(":") ? "-6" : "") -c1 -W1 -w1 \(option) \(target)")
      }
      for (path, source) in [(uplinked, "192.168.77.100"), (uplinked, "172.28.240.77"), (published, "192.168.77.100"), (published, "10.255.9.9")] {
        for target in ["192.168.77.1", "192.168.77.200"] { try await call(from: path, as: source, target) }
        #expect(try await seen("four") == 0, "\(source)")
      }
      try await call(from: uplinked, as: "2001:db8::5", "2001:db8:1::1")
      #expect(try await seen("six") == 0)
      var before = try await seen("own")
      #expect(before == 0)
      for (path, target) in [(uplinked, "192.168.77.1"), (published, "192.168.77.1"), (uplinked, "2001:db8:1::1")] {
        try await call(from: path, as: nil, target)
        let now = try await seen("own")
        #expect(now > before, "its own address, to \(target)")
        before = now
      }
    }
  }

  @Test("a container that loses ingress has nothing of it left, and has it again when that is back", arguments: [false, true])
  func ingressLost(isNewAgent: Bool) async throws {
    try await NamespaceWorld.with(1) { world in
      let cluster = Cluster(hosts: 2)
      var overlay = try world.overlay(1)
      func apply(_ networks: [NetworkAssignment]) async throws {
        try await overlay.apply(networks: networks, services: networks.isEmpty ? [] : cluster.services, endpoints: [])
      }
      let all = cluster.networks(of: 1)
      try await apply(all)
      let path = try await overlay.attach(cluster.network(1)).path
      func tables() async throws -> String { try await world.run(in: path, "nft", "list", "tables").output }
      #expect(try await tables() == "table ip orch\ntable netdev orch\n")
      if isNewAgent {
        overlay = try world.overlay(1)
        _ = try await overlay.recover([cluster.network(1)])
      }
      try await apply(all.filter { !$0.ingress })
      #expect(try await tables() == "table ip orch\n")
      try await apply([])
      // Names alone.
      #expect(try await tables() == "table ip orch\n")
      #expect(try await world.run(in: path, "sh", "-c", "nft list chains ip | grep -c hook").output == "1\n")
      try await apply(all)
      #expect(try await tables() == "table ip orch\ntable netdev orch\n")
    }
  }

  @Test(
    "names are asked at port 53 of 127.0.0.11 and answered at another, which conntrack does not see; port 53 of other addresses is the container's")
  func names() async throws {
    try await NamespaceWorld.with(1) { world in
      let cluster = Cluster(hosts: 1)
      let overlay = try world.overlay(1)
      try await overlay.apply(networks: cluster.networks(of: 1), services: cluster.services, endpoints: [])
      for (number, networks) in [[cluster.inside], [cluster.web], [cluster.ingress, cluster.web]].enumerated() {
        let path = try await overlay.attach(cluster.network(1 + number, networks)).path
        // The resolver's part, and a server of names that has all addresses.
        var servers: [Int32] = []
        defer { for server in servers { close(server) } }
        for kind in [SOCK_DGRAM, SOCK_STREAM] {
          servers.append(try await world.open(kind, in: path, port: EmbeddedDNS.port, any: "\(EmbeddedDNS.address)"))
          servers.append(try await world.open(kind, in: path, port: 53))
        }
        for (target, index) in [("127.0.0.11", 0), ("127.0.0.1", 1)] {
          let client = try await world.open(SOCK_DGRAM, in: path, connectedTo: target, port: 53)
          defer { close(client) }
          for _ in 1...3 {
            send(client, "ask", 3, 0)
            #expect(world.echo(servers[index]) != nil)
            #expect(world.hear(client) == "ask of \(target):53")
          }
          let stream = try await world.open(SOCK_STREAM, in: path, connectedTo: target, port: 53)
          let accepted = accept(servers[2 + index], nil, nil)
          defer { for socket in [stream, accepted] { close(socket) } }
          var bytes = [UInt8](repeating: 0, count: 64_000)
          for (from, to) in [(stream, accepted), (accepted, stream)] {
            #expect(send(from, bytes, 2000, 0) == 2000 && recv(to, &bytes, 2000, Int32(MSG_WAITALL)) == 2000)
          }
        }
        let flows = try await world.run(in: path, "sh", "-c", "grep -c 'dst=127.0.0.11' /proc/thread-self/net/nf_conntrack").output
        #expect(flows == "0\n" || flows == "", "\(flows)")
      }
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
        try await cluster.apply(to: overlays)
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
        // What goes around the bridge does not need it (BypassState).
        if link != "orbr4096" { #expect(try await reaches() == false) }
        try await overlays[0].repair()
        #expect(try await reaches(), "after \(link) was removed")
      }
      #expect(access(two.path, F_OK) == 0)
      for overlay in overlays { try await overlay.removeAll() }
      #expect(access(one.path, F_OK) != 0)
      for host in 1...2 {
        var links: [String] = []
        for _ in 1...900 {
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
