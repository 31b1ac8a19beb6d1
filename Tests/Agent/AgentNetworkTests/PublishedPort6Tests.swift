import Glibc
import LinuxSystem
import Model
import Netlink
import Testing

@testable import AgentNetwork

@Suite("Published ports over IPv6, as a plan")
struct PublishedPort6PlanTests {
  private func cluster() -> Cluster {
    var cluster = Cluster(hosts: 2)
    cluster.dualIngress = true
    cluster.ports = [PortConfig(targetPort: 80, publishedPort: 8080), PortConfig(targetPort: 53, publishedPort: 5300, protocol: .udp)]
    cluster.place(1, on: 1)
    cluster.place(2, on: 2)
    return cluster
  }
  private func six(_ world: NetworkWorld) -> String {
    Ruleset.host6(world, ready: world.readyEndpoints(), unavailable: [], isRouter: true)?.fresh ?? ""
  }
  private func four(_ world: NetworkWorld) -> String { Ruleset.host(world, ready: world.readyEndpoints(), unavailable: []).fresh }

  @Test("hosts are on ingress with the counterpart of their IPv4 address there and a link-local one, and are neighbours of one another")
  func plan() throws {
    let state = HostState(cluster().world(1))
    #expect(
      state.bridges[4097]?.addresses.map { "\($0.address)/\($0.length)" }.sorted() == ["10.255.0.251/24", "fd00:255::fb/64", "fe80::aff:fb/64"])
    #expect(
      state.tunnels[4097]?.neighbours.map { "\($0.address)" }.sorted() == ["10.255.0.12", "10.255.0.252", "fd00:255::c", "fd00:255::fc"])
    #expect(state.bridges[4096]?.addresses == [])
  }

  @Test("the same tasks are behind a port as over IPv4, but those on hosts without IPv6; none: refused")
  func backends() {
    var cluster = cluster()
    var world = cluster.world(1)
    let text = six(world)
    #expect(text.contains("meta l4proto . th dport vmap { udp . 5300 : goto port-udp-5300, tcp . 8080 : goto port-tcp-8080 }"))
    #expect(text.contains("meta l4proto tcp dnat to numgen random mod 2 map { 0 : fd00:255::b, 1 : fd00:255::c }:80"))
    #expect(text.contains("meta l4proto udp counter name \"datagrams\" dnat to numgen"))
    for index in world.endpoints.indices where world.endpoints[index].address == address("10.255.0.12") { world.endpoints[index].lacksIPv6 = true }
    #expect(six(world).contains("meta l4proto tcp dnat to [fd00:255::b]:80"))
    for index in world.endpoints.indices { world.endpoints[index].lacksIPv6 = true }
    #expect(six(world).contains("    tcp dport { 8080 } reject with tcp reset\n    udp dport { 5300 } reject\n"))
    #expect(four(world).contains("map { 0 : 10.255.0.11, 1 : 10.255.0.12 }:80"))
    // A cluster of before.
    cluster.dualIngress = false
    #expect(Ruleset.host6(cluster.world(1), ready: world.readyEndpoints()) == nil)
  }

  @Test("a port of one address is in the rules of its family alone, and two families may have the same number")
  func addresses() {
    var cluster = cluster()
    cluster.ports += [PortConfig(targetPort: 81, publishedPort: 8080), PortConfig(targetPort: 82, publishedPort: 8082)]
    for (index, text) in ["127.0.0.1", "0.0.0.0", "::1", "::"].enumerated() { cluster.ports[index].hostIP = IPAddress(text) }
    let (four, six) = (four(cluster.world(1)), six(cluster.world(1)))
    #expect(four.contains("chain port-tcp-8080 {\n    ip daddr 127.0.0.1 meta l4proto tcp dnat to numgen"))
    #expect(four.contains("}:80\n") && four.contains("chain port-udp-5300 {\n    meta l4proto udp") && !four.contains("8082"))
    #expect(six.contains("chain port-tcp-8080 {\n    ip6 daddr ::1 meta l4proto tcp dnat to numgen"))
    #expect(six.contains("}:81\n") && six.contains("chain port-tcp-8082 {\n    meta l4proto tcp") && !six.contains("5300"))
    let own = PublishedPort(protocol: .tcp, number: 8080, family: .v6, address: IPAddress("::1"))
    let taken = Ruleset.host6(cluster.world(1), ready: cluster.world(1).readyEndpoints(), unavailable: [own])?.fresh
    #expect(taken?.contains("port-tcp-8080") == false && taken?.contains("port-tcp-8082") == true)
  }

  @Test("what leaves by ingress is masqueraded, what comes by published ports keeps its address; ingress leads to nobody's other networks")
  func isolation() {
    let text = six(cluster().world(1))
    #expect(
      text.split(separator: "\n").filter { $0.contains("masquerade") || $0.contains("snat") }.map { $0.drop { $0 == " " } } == [
        "ct status dnat oifname \"orbr4097\" ip6 saddr ::1 snat to fd6f:7263:6875:1::c0a8:4d01",
        "ct status dnat oifname \"orbr4097\" ip6 saddr fd00:255::/64 masquerade",
        "ct status dnat oifname \"orbr4097\" iifname \"orup*\" masquerade",
        "ct status dnat oifname \"orup*\" ip6 saddr ::1 snat to fd6f:7263:6875:1::c0a8:4d01",
        "ct status dnat oifname \"orup*\" ip6 saddr fd00:255::/64 masquerade",
        "ct status dnat oifname \"orup*\" iifname \"orup*\" masquerade",
        "oifname != \"orbr*\" oifname != \"orup*\" ip6 saddr fd00:255::/64 masquerade",
        "oifname != \"orbr*\" oifname != \"orup*\" iifname \"orup*\" masquerade",
      ])
    #expect(text.contains("    iifname \"orbr*\" iifname != \"orbr4097\" drop\n    oifname \"orbr*\" oifname != \"orbr4097\" drop\n"))
    #expect(text.contains("    oifname \"orbr4097\" drop\n    oifname \"orup*\" drop\n    iifname != \"orbr4097\" iifname != \"orup*\" drop\n  }"))
    #expect(text.contains("ether daddr 02:42:0a:ff:00:fb ip6 saddr != fd00:255::/64 drop\n    ether daddr != 02:42:0a:ff:00:fb notrack"))
    #expect(text.contains("    ip6 saddr fe80::/10 return\n    meta l4proto . th dport vmap"))
  }

  @Test("a task on ingress goes out and answers by it, with the callers' hosts told apart as over IPv4; one with a host port has an uplink")
  func containers() throws {
    let cluster = cluster()
    var world = cluster.world(1)
    world.hasIPv6 = true
    let published = cluster.ports + [PortConfig(targetPort: 90, publishedPort: 90)]
    let table = try #require(Ruleset.container6(cluster.network(1), in: world, Balancing(), published: published))
    #expect(
      table.fresh.contains(
        "daddr . meta l4proto . th dport != { fd00:255::b . tcp . 80, fd00:255::b . tcp . 90, fd00:255::b . udp . 53 } drop"))
    #expect(table.fresh.contains("iifname \"eth0\" ct original zone set ether saddr map { 02:42:0a:ff:00:fb : 251, 02:42:0a:ff:00:fc : 252 }"))
    #expect(table.fresh.contains("ct mark set ether saddr map { 02:42:0a:ff:00:fb : 0x0aff00fb") && table.egress == nil)
    #expect(table.fresh.contains("ct direction reply ct mark != 0 meta mark set ct mark"))
    #expect(Ruleset.container6(cluster.network(1, [cluster.web]), in: world, Balancing()) == nil)

    let gateway = try #require(world.gateway6(of: cluster.network(1, [cluster.web, cluster.ingress])))
    #expect(gateway.address.description == "fd00:255::fb" && gateway.device == "eth1")
    #expect(!world.needsUplink(cluster.network(1)) && world.gateway6(of: cluster.network(1, [cluster.web])) == nil)
    var third = cluster.network(3, [cluster.web])
    third.hostPorts = [PortConfig(targetPort: 80, publishedPort: 9000, publishMode: .host)]
    world.uplinks[third.task] = Uplink(address: address("172.28.240.2"), gateway: address("172.28.240.1"))
    world.containers[third.task] = third
    #expect(world.ports(of: third).map { $0.address6?.description } == [nil, "fd6f:7263:6875::ac1c:f002"])
    #expect(six(world).contains("dnat to [fd6f:7263:6875::ac1c:f002]:80"))
    world.hasIPv6 = false
    #expect(world.ports(of: third).map(\.address6) == [nil, nil] && !six(world).contains("9000"))
    // Who is inside alone is answered to processes of its host, over IPv4.
    third.attachments = cluster.network(3, [cluster.inside]).attachments
    world.hasIPv6 = true
    #expect(!world.needsUplink6(third) && world.needsUplink(third))
  }

  @Test("where ingress is too narrow for IPv6, or the kernel has none, ports answer over IPv4, and of those of IPv6 addresses alone people are told")
  func narrow() {
    var cluster = cluster()
    cluster.mtu = 1279
    let (world, problems) = HostNetwork.withoutLacking6(cluster.world(1))
    #expect(problems == [] && world.door6 == nil && Ruleset.publishedPorts6(world, ready: world.readyEndpoints()) == [])
    cluster.ports[0].hostIP = IPAddress("::1")
    let told = HostNetwork.withoutLacking6(cluster.world(1)).problems
    #expect(told.map(\.object) == ["IPv6 of network ingress"] && told.first?.reason.contains("nobody answers at [::1]:8080;") == true, "\(told)")
  }
}

@Suite("Published ports over IPv6, over hosts in namespaces", .serialized, .enabled(if: geteuid() == 0))
struct PublishedPort6Tests {
  private func apply(_ overlays: [OverlayNetwork], _ cluster: Cluster) async throws -> [NetworkProblem] {
    try await cluster.apply(to: overlays)
  }

  @Test(
    "a port answers at every host's IPv6 address, at ::1 and from containers, over IPv4 as ever; the client's address arrives; none: refused",
    arguments: [false, true])
  func everyHost(bridgeNetfilter: Bool) async throws {
    try await NamespaceWorld.with(3) { world in
      try await world.addIPv6()
      try await world.showBridgedFrames(bridgeNetfilter)
      var cluster = Cluster(hosts: 3)
      cluster.dualIngress = true
      cluster.ports = [PortConfig(targetPort: 80, publishedPort: 8080)]
      cluster.place(1, on: 1)
      let overlays = try (1...3).map { try world.overlay($0) }
      #expect(try await apply(overlays, cluster) == [])
      var servers: [pid_t] = []
      defer { world.stop(servers) }
      let one = try await overlays[0].attach(cluster.network(1))
      #expect(one.addresses6.map(\.description) == ["fd00:255::b"])
      servers.append(try await world.serve("task1", in: one.path))
      servers.append(try await world.serve("outside", in: world.outside))
      for host in 1...3 {
        for (target, client) in [("[fd00:192::\(host)]", "100"), ("192.168.77.\(host)", "192.168.77.100")] {
          let answer = try await world.ask("\(target):8080", from: world.outside)
          #expect(answer?.name == "task1" && answer?.client == client, "\(target): \(String(describing: answer))")
        }
        #expect(try await world.ask("[::1]:8080", from: world.host(host))?.name == "task1", "::1 on host \(host)")
        #expect(try await world.ask("127.0.0.1:8080", from: world.host(host))?.name == "task1", "127.0.0.1 on host \(host)")
        for from in 1...3 {
          let answer = try await world.ask("[fd00:192::\(host)]:8080", from: world.host(from))
          #expect(answer?.name == "task1" && answer?.client == "\(from)", "host \(from) at host \(host): \(String(describing: answer))")
        }
      }
      // A container without publishing has IPv4 alone here; those on ingress call each host's port, their own, and go out.
      let two = try await overlays[1].attach(cluster.network(2))
      for (path, host) in [(two.path, 2), (two.path, 3), (one.path, 1), (one.path, 2)] {
        #expect(try await world.ask("[fd00:192::\(host)]:8080", from: path)?.name == "task1", "host \(host)")
      }
      #expect(try await world.ask("[fd00:192::100]", from: one.path)?.client == "1", "out, by its host's address")
      #expect(try await world.ask("[fd00:192::100]", from: two.path)?.client == "2")
      // What others have on ::1 stays theirs.
      servers.append(try await world.serve("own", in: world.host(2), port: 8090))
      #expect(try await world.ask("[::1]:8090", from: world.host(2))?.name == "own")

      // What is broken is whole again.
      for command in [
        "ip -6 address del fd00:255::fb/64 dev orbr4097", "ip link del orlo0", "ip -6 route del local ::1/128 dev orlo1 table local",
        "nft delete table ip6 orch", "echo 1 > /proc/sys/net/ipv6/conf/orbr4097/disable_ipv6",
      ] {
        let before = await overlays[0].repairs
        #expect(try await world.run(in: world.host(1), "sh", "-c", command).code == 0, "\(command)")
        for _ in 1...200 where await overlays[0].repairs == before {
          try await overlays[0].repair()
          try await Task.sleep(for: .milliseconds(20))
        }
        #expect(await overlays[0].repairs != before, "\(command)")
        #expect(try await world.ask("[fd00:192::1]:8080", from: world.outside)?.client == "100", "\(command)")
        #expect(try await world.ask("[::1]:8080", from: world.host(1))?.name == "task1", "\(command)")
      }
      // An agent that comes after finds all of it as it should be.
      let again = try world.overlay(1)
      #expect(try await again.recover([cluster.network(1)]).count == 1)
      let problems = try await again.apply(networks: cluster.networks(of: 1), services: cluster.services, endpoints: cluster.endpoints)
      #expect(problems.allSatisfy { $0.conflict != nil }, "the agent before still holds the port: \(problems)")
      #expect(await again.repairs.isEmpty)

      cluster.endpoints = []
      _ = try await apply(overlays, cluster)
      for source in [world.outside, world.host(3)] {
        #expect(try await world.request("[fd00:192::3]:8080", from: source) == .refused)
      }
      #expect(try await world.request("[::1]:8080", from: world.host(3)) == .refused)
      for overlay in overlays { try await overlay.removeAll() }
      let left = try await world.run(
        in: world.host(2), "sh", "-c", "nft list tables; ip -o link; ip -6 route show table local; cat /proc/sys/net/ipv6/conf/all/forwarding")
      #expect(!left.output.contains("orch") && !left.output.contains("orlo") && left.output.hasSuffix("0\n"), "\(left.output)")
    }
  }

  @Test("a datagram to an IPv6 address of any host arrives with its client's address and is answered from there; at ::1 too, larger than a packet")
  func datagrams() async throws {
    try await NamespaceWorld.with(2) { world in
      try await world.addIPv6()
      var cluster = Cluster(hosts: 2)
      cluster.dualIngress = true
      cluster.ports = [PortConfig(targetPort: 53, publishedPort: 5300, protocol: .udp)]
      cluster.place(1, on: 1)
      let overlays = try (1...2).map { try world.overlay($0, lingering: .milliseconds(300)) }
      #expect(try await apply(overlays, cluster) == [])
      let path = try await overlays[0].attach(cluster.network(1, [cluster.web, cluster.ingress])).path
      let server = try await world.open(SOCK_DGRAM, in: path, port: 53, any: "::")
      defer { close(server) }
      let large = [UInt8](repeating: 7, count: 8000)
      var answer = [UInt8](repeating: 0, count: 9000)
      let own = { (host: Int) in LoopbackDetour.address(of: cluster.world(host)).description }
      for (client, path, target) in [
        ("fd00:192::100", world.outside, "fd00:192::1"), ("fd00:192::100", world.outside, "fd00:192::2"),
        ("fd00:192::1", world.host(1), "fd00:192::2"), ("fd00:192::2", world.host(2), "fd00:192::2"), (own(1), world.host(1), "::1"),
        (own(2), world.host(2), "::1"), ("192.168.77.100", world.outside, "192.168.77.2"),
      ] {
        let socket = try await world.open(SOCK_DGRAM, in: path, connectedTo: target, port: 5300)
        defer { close(socket) }
        for count in [3, 3, large.count] {
          // What is larger than the network's packets is not cut on the way: its sender is told, and cuts the next one (RFC 8200 4.5).
          var seen: String?
          for _ in 1...(count > 1000 ? 3 : 1) where seen == nil {
            send(socket, large, count, 0)
            seen = world.echo(server, most: 9000)
          }
          #expect(seen == client && recv(socket, &answer, 9000, 0) == count, "\(client) at \(target), \(count) bytes: \(seen ?? "nobody")")
        }
      }
      // A flow goes on to the next task when its own is gone.
      let flow = try await world.open(SOCK_DGRAM, in: world.outside, connectedTo: "fd00:192::2", port: 5300)
      defer { close(flow) }
      send(flow, "one", 3, 0)
      #expect(world.echo(server) == "fd00:192::100")
      #expect(recv(flow, &answer, 9000, 0) == 3)
      let second = try await overlays[1].attach(cluster.network(2)).path
      let next = try await world.open(SOCK_DGRAM, in: second, port: 53, any: "::")
      defer { close(next) }
      cluster.place(2, on: 2)
      cluster.remove(1)
      #expect(try await apply(overlays, cluster) == [])
      for overlay in overlays { await overlay.flowsForgotten() }
      send(flow, "two", 3, 0)
      #expect(world.echo(next) == "fd00:192::100")
      #expect(recv(flow, &answer, 9000, 0) == 3)
    }
  }

  @Test("ports of one IPv6 address answer there alone; a port that a process has over IPv6 is told, and answers over IPv4")
  func bound() async throws {
    try await NamespaceWorld.with(2) { world in
      try await world.addIPv6()
      var cluster = Cluster(hosts: 2)
      cluster.dualIngress = true
      cluster.ports = (0...3).map { PortConfig(targetPort: 80, publishedPort: 8080 + $0) }
      for (index, text) in ["::1", "fd00:192::1", "::"].enumerated() { cluster.ports[index].hostIP = IPAddress(text) }
      cluster.place(1, on: 1)
      let overlays = try (1...2).map { try world.overlay($0) }
      // Of IPv6 alone.
      let listener = try await withNetworkNamespace(world.host(2)) {
        let descriptor = socket(AF_INET6, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        var only: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_IPV6), IPV6_V6ONLY, &only, 4)
        #expect(SocketName("::", 8083).with { bind(descriptor, $0, $1) } == 0 && listen(descriptor, 8) == 0)
        return descriptor
      }
      defer { close(listener) }
      #expect(try await apply(overlays, cluster).map(\.object) == ["port [::]:8083/tcp"])
      #expect(try await overlays[1].conflicts(on: cluster.ports).map(\.port) == [8083])
      let own = try await overlays[0].attach(cluster.network(1)).path
      let servers = [try await world.serve("task1", in: own)]
      defer { world.stop(servers) }
      for host in 1...2 {
        #expect(try await world.ask("[::1]:8080", from: world.host(host))?.name == "task1")
        for source in [world.outside, world.host(host)] {
          #expect(try await world.request("[fd00:192::\(host)]:8080", from: source) == .refused, "host \(host)")
          #expect(try await world.request("192.168.77.\(host):8080", from: source) == .refused, "host \(host)")
          #expect(try await world.request("192.168.77.\(host):8082", from: source) == .refused, "host \(host)")
        }
        #expect(try await world.ask("[fd00:192::\(host)]:8082", from: world.outside)?.client == "100")
      }
      #expect(try await world.ask("[fd00:192::1]:8081", from: world.outside)?.name == "task1")
      #expect(try await world.request("[fd00:192::2]:8081", from: world.outside) == .refused)
      #expect(try await world.ask("192.168.77.2:8083", from: world.outside)?.name == "task1")
      #expect(try await world.ask("[fd00:192::1]:8083", from: world.outside)?.name == "task1")
    }
  }

  @Test(
    "a port in host mode answers over IPv6 at its task's host, whatever the task's networks have, and the client's address arrives",
    arguments: [false, true])
  func hostMode(isDual: Bool) async throws {
    try await NamespaceWorld.with(2) { world in
      try await world.addIPv6()
      var cluster = Cluster(hosts: 2)
      cluster.dualIngress = isDual
      let overlays = try (1...2).map { try world.overlay($0) }
      #expect(try await apply(overlays, cluster) == [])
      var servers: [pid_t] = []
      defer { world.stop(servers) }
      for (number, networks) in [(1, [cluster.web]), (2, [cluster.ingress, cluster.web])] {
        var network = cluster.network(number, networks)
        network.hostPorts = [PortConfig(targetPort: 80, publishedPort: UInt16(9000 + number), publishMode: .host)]
        servers.append(try await world.serve("task\(number)", in: try await overlays[0].attach(network).path))
        let target = "[fd00:192::1]:\(9000 + number)"
        for (path, client) in [(world.outside, "100"), (world.host(2), "2"), (world.host(1), "1")] {
          let answer = try await world.ask(target, from: path)
          #expect(answer?.name == "task\(number)" && answer?.client == client, "\(isDual) \(client): \(String(describing: answer))")
        }
        #expect(try await world.ask("[::1]:\(9000 + number)", from: world.host(1))?.name == "task\(number)", "\(isDual)")
        #expect(try await world.ask("192.168.77.1:\(9000 + number)", from: world.outside)?.client == "192.168.77.100", "\(isDual)")
        #expect(try await world.request("[fd00:192::2]:\(9000 + number)", from: world.outside) == .refused)
      }
    }
  }

  @Test("ingress leads a task neither to what its host keeps from it nor to another's name: forged addresses, ::1, link-local, other networks")
  func refused() async throws {
    try await NamespaceWorld.with(1) { world in
      try await world.addIPv6()
      var cluster = Cluster(hosts: 1)
      (cluster.dual, cluster.dualIngress) = (true, true)
      cluster.ports = [PortConfig(targetPort: 80, publishedPort: 8080)]
      cluster.place(1, on: 1)
      let overlay = try world.overlay(1)
      #expect(try await apply([overlay], cluster) == [])
      let one = try await overlay.attach(cluster.network(1)).path
      let inside = try await overlay.attach(cluster.network(2, [cluster.inside])).path
      let servers = [try await world.serve("inside", in: inside), try await world.serve("task1", in: one)]
      defer { world.stop(servers) }
      let counting = """
        table ip6 seen {
          counter came { }
          chain input { type filter hook input priority 300; policy accept; icmpv6 type echo-request counter name came; }
          chain out { type filter hook postrouting priority 300; policy accept; oifname != "orlo0" icmpv6 type echo-request counter name came; }
        }
        """
      #expect(try await world.run(in: world.host(1), "nft", counting).code == 0)
      func came() async throws -> Int? {
        let text = try await world.run(in: world.host(1), "nft", "list", "counter", "ip6", "seen", "came").output
        return Int(text.split(separator: "packets ").last?.prefix { $0.isNumber } ?? "")
      }
      func ping(_ target: String, _ before: String = "true") async throws -> Int {
        let start = try #require(try await came())
        _ = try await world.run(in: one, "sh", "-c", "\(before); busybox ping -6 -c1 -W1 -w1 \(target)")
        return try #require(try await came()) - start
      }
      #expect(try await ping("fd00:255::fb") > 0, "its own host, by its own address")
      #expect(try await ping("fd00:78::c") == 0, "a network that it is not on")
      #expect(try await ping("fe80::aff:fb%eth0") == 0)
      let detour = LoopbackDetour.address(of: cluster.world(1))
      #expect(try await ping("\(detour)") == 0)
      // The kernel of the task's namespace writes an address that is another's.
      let forged = "ip -6 address add fd00:192::77/128 dev lo nodad; ip -6 route add fd00:255::fb/128 dev eth0 src fd00:192::77"
      #expect(try await ping("fd00:255::fb", forged) == 0)
      #expect(try await world.ask("[fd00:78::c]", from: world.host(1)) == nil)
      // Of ingress's own addresses the published port alone is reached, by hosts and by who is there, too.
      let more = [try await world.serve("closed", in: one, port: 81)]
      defer { world.stop(more) }
      for path in [world.host(1), try await overlay.attach(cluster.network(3)).path] {
        #expect(try await world.request("[fd00:255::b]:81", from: path) == .failed(EINPROGRESS), "\(path)")
        #expect(try await world.ask("[fd00:255::b]:80", from: path)?.name == "task1", "\(path)")
      }
      #expect(try await world.ask("[fd00:192::1]:8080", from: world.outside)?.client == "100")
    }
  }
}
