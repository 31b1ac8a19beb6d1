import Glibc
import Model
import Testing

@testable import AgentNetwork

@Suite("Paths with less room than the links", .serialized, .enabled(if: geteuid() == 0))
struct PathTests {
  /// What lies between is a router whose next link takes 1200 bytes.
  struct Router: CustomTestStringConvertible, Sendable {
    /// false: it says nothing of what it drops (RFC 2923 2.1: a black hole).
    var tells: Bool
    var bridgeNetfilter: Bool
    var testDescription: String { "\(tells ? "ICMP" : "no ICMP"), br_netfilter \(bridgeNetfilter ? "on" : "off")" }
    static let all = [true, false].flatMap { tells in [false, true].map { Router(tells: tells, bridgeNetfilter: $0) } }
  }

  /// Packets between two hosts go by `outside`.
  private func narrow(_ world: NamespaceWorld, _ one: Int, _ other: Int, _ router: Router) async throws {
    let silence = "nft 'table ip hole { chain output { type filter hook output priority 0; icmp type destination-unreachable counter drop; }; }'"
    let script = """
      echo 1 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv4/conf/all/send_redirects; echo 0 > /proc/sys/net/ipv4/conf/eth0/send_redirects
      for host in \(one) \(other); do ip route add 192.168.77.$host/32 dev eth0 mtu 1200; done
      \(router.tells ? "true" : silence)
      """
    #expect(try await world.run(in: world.outside, "sh", "-c", script).code == 0)
    for (host, peer) in [(one, other), (other, one)] {
      #expect(try await world.run(in: world.host(host), "ip", "route", "add", "192.168.77.\(peer)/32", "via", "192.168.77.100").code == 0)
    }
    let whole = try await world.run(in: world.host(one), "busybox", "ping", "-c1", "-W2", "-w2", "-s", "1172", "192.168.77.\(other)")
    #expect(whole.code == 0, "the router works")
  }

  /// A server of 300,000 bytes, and one of datagrams.
  private func serve(_ world: NamespaceWorld, in path: String) async throws -> (pid_t, Int32) {
    let server = try await world.serve("task", in: path)
    let content = [UInt8](repeating: 120, count: 300_000)
    let file = Glibc.open("\(world.folder)/www-task/big", O_CREAT | O_WRONLY | O_CLOEXEC, 0o644)
    write(file, content, content.count)
    close(file)
    return (server, try await world.open(SOCK_DGRAM, in: path, port: 53))
  }
  private func fetch(_ world: NamespaceWorld, from path: String, _ target: String) async throws -> String {
    try await world.run(in: path, "sh", "-c", "timeout 30 busybox wget -qO- http://\(target)/big | wc -c").output
  }
  /// 8 KB there and back.
  private func datagram(_ world: NamespaceWorld, from path: String, _ target: String, port: UInt16, _ server: Int32) async throws -> Bool {
    let client = try await world.open(SOCK_DGRAM, in: path, connectedTo: target, port: port)
    defer { close(client) }
    var bytes = [UInt8](repeating: 7, count: 8192)
    for _ in 1...3 {
      send(client, bytes, bytes.count, 0)
      if world.echo(server, most: 9000) != nil, recv(client, &bytes, bytes.count, 0) == bytes.count { return true }
    }
    return false
  }

  @Test("between hosts: streams and datagrams of 8 KB arrive by virtual IP, by address and by published port", arguments: Router.all)
  func betweenHosts(router: Router) async throws {
    try await NamespaceWorld.with(2) { world in
      try await world.showBridgedFrames(router.bridgeNetfilter)
      var cluster = Cluster(hosts: 2)
      cluster.ports = [PortConfig(targetPort: 80, publishedPort: 8080), PortConfig(targetPort: 53, publishedPort: 5300, protocol: .udp)]
      for number in 1...2 { cluster.place(number, on: number, ready: number == 2) }
      let overlays = try (1...2).map { try world.overlay($0) }
      #expect(try await cluster.apply(to: overlays) == [])
      let client = try await overlays[0].attach(cluster.network(1)).path
      let (server, datagrams) = try await serve(world, in: try await overlays[1].attach(cluster.network(2)).path)
      defer {
        world.stop([server])
        close(datagrams)
      }
      try await narrow(world, 1, 2, router)
      for (path, target) in [(client, "10.77.0.2"), (client, "10.77.0.12"), (world.host(1), "192.168.77.1:8080")] {
        #expect(try await fetch(world, from: path, target) == "300000\n", "\(target)")
      }
      for (path, target, port) in [(client, "10.77.0.2", UInt16(53)), (client, "10.77.0.12", 53), (world.host(1), "192.168.77.1", 5300)] {
        #expect(try await datagram(world, from: path, target, port: port, datagrams), "8 KB to \(target)")
      }
    }
  }

  @Test(
    "between a host and who is outside: a published port's streams and datagrams arrive, and what a container sends out by its uplink",
    arguments: Router.all)
  func toOutside(router: Router) async throws {
    try await NamespaceWorld.with(3) { world in
      try await world.showBridgedFrames(router.bridgeNetfilter)
      var cluster = Cluster(hosts: 2)
      cluster.ports = [PortConfig(targetPort: 80, publishedPort: 8080), PortConfig(targetPort: 53, publishedPort: 5300, protocol: .udp)]
      cluster.place(2, on: 2)
      let overlays = try (1...2).map { try world.overlay($0) }
      #expect(try await cluster.apply(to: overlays) == [])
      let (server, datagrams) = try await serve(world, in: try await overlays[1].attach(cluster.network(2)).path)
      let uplinked = try await overlays[0].attach(cluster.network(1, [cluster.web])).path
      defer {
        world.stop([server])
        close(datagrams)
      }
      // The third host is no member: who is outside.
      try await narrow(world, 1, 3, router)
      #expect(try await fetch(world, from: world.host(3), "192.168.77.1:8080") == "300000\n")
      #expect(try await datagram(world, from: world.host(3), "192.168.77.1", port: 5300, datagrams), "8 KB")
      let sink = try await world.open(SOCK_STREAM, in: world.host(3), port: 7000)
      let stream = try await world.open(SOCK_STREAM, in: uplinked, connectedTo: "192.168.77.3", port: 7000)
      let accepted = accept(sink, nil, nil)
      defer { for descriptor in [sink, stream, accepted] { close(descriptor) } }
      let content = [UInt8](repeating: 1, count: 60_000)
      // The send buffer takes all of it.
      #expect(send(stream, content, content.count, Int32(MSG_NOSIGNAL)) == content.count)
      var (received, bytes, idle) = (0, [UInt8](repeating: 0, count: 65_536), 0)
      while received < content.count, idle < 15 {
        let count = recv(accepted, &bytes, bytes.count, 0)
        if count > 0 { received += count } else { idle += 1 }
      }
      #expect(received == content.count, "by the uplink")
      let far = try await world.open(SOCK_DGRAM, in: world.host(3), port: 53)
      defer { close(far) }
      #expect(try await datagram(world, from: uplinked, "192.168.77.3", port: 53, far), "8 KB by the uplink")
    }
  }

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
