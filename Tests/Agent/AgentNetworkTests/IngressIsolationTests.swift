import Glibc
import Model
import Testing

@testable import AgentNetwork

@Suite("Who publishes a port is on ingress with all others, and is reached there by that port alone", .serialized, .enabled(if: geteuid() == 0))
struct IngressIsolationTests {
  /// Task 1 of service web on host 1, with 8080 -> 80; task 2 of service other on host 2, with 8081 -> 81, a port of datagrams and, in host mode, 9090 -> 90.
  private func with(_ body: (NamespaceWorld, Cluster, [OverlayNetwork], _ paths: [String]) async throws -> Void) async throws {
    try await NamespaceWorld.with(2) { world in
      var cluster = Cluster(hosts: 2)
      cluster.ports = [PortConfig(targetPort: 80, publishedPort: 8080)]
      cluster.place(1, on: 1)
      cluster.place(2, on: 2)
      for index in cluster.endpoints.indices where cluster.endpoints[index].slot == 2 { cluster.endpoints[index].service = Self.other }
      let overlays = try (1...2).map { try world.overlay($0) }
      try await Self.apply(cluster, overlays)
      var second = cluster.network(2)
      second.hostPorts = [PortConfig(targetPort: 90, publishedPort: 9090, publishMode: .host)]
      try await body(world, cluster, overlays, [try await overlays[0].attach(cluster.network(1)).path, try await overlays[1].attach(second).path])
    }
  }
  private static let other = ServiceID(value: 11)
  private static let usual = [PortConfig(targetPort: 81, publishedPort: 8081), PortConfig(targetPort: 53, publishedPort: 5300, protocol: .udp)]
  private static func apply(_ cluster: Cluster, _ overlays: [OverlayNetwork], _ ports: [PortConfig] = usual) async throws {
    var services = cluster.services
    services.append(ServiceRecord(id: other, name: "other", names: [:], mode: .vip, virtualIPs: [], ports: ports))
    #expect(try await cluster.apply(to: overlays, services: services) == [])
  }

  @Test("neither other tasks nor hosts' processes reach a port there that is not published, by whatever address; by a network of both they do")
  func closed() async throws {
    try await with { world, cluster, overlays, paths in
      var servers: [pid_t] = []
      defer { world.stop(servers) }
      for port in [81, 90, 5432] { servers.append(try await world.serve("port\(port)", in: paths[1], port: port)) }
      servers.append(try await world.serve("web", in: paths[0]))
      // Its address on another network, by ingress's link.
      for host in 1...2 {
        let way = "ip route add 10.77.0.12/32 via 10.255.0.12 dev orbr4097"
        #expect(try await world.run(in: world.host(host), "sh", "-c", way).code == 0)
      }
      for path in [paths[0], world.host(1), world.host(2)] {
        #expect(try await world.request("10.255.0.12:5432", from: path) == .failed(EINPROGRESS), "\(path)")
        #expect(try await world.ask("10.255.0.12:81", from: path)?.name == "port81")
        #expect(try await world.ask("10.255.0.12:90", from: path)?.name == "port90", "its port in host mode leads there")
        let address = path == paths[0] ? nil : try await world.request("10.77.0.12:81", from: path)
        #expect(address == nil || address == .failed(EINPROGRESS), "\(path)")
      }
      #expect(try await world.ask("10.77.0.12:5432", from: paths[0])?.name == "port5432")
      let server = try await world.open(SOCK_DGRAM, in: paths[1], port: 53)
      let closed = try await world.open(SOCK_DGRAM, in: paths[1], port: 81)
      defer { for socket in [server, closed] { close(socket) } }
      for path in [paths[0], world.host(2)] {
        for (port, isOpen) in [(UInt16(53), true), (81, false)] {
          let client = try await world.open(SOCK_DGRAM, in: path, connectedTo: "10.255.0.12", port: port)
          defer { close(client) }
          send(client, "ask", 3, 0)
          #expect((world.echo(isOpen ? server : closed) != nil) == isOpen, "\(port) from \(path)")
        }
      }
      // As it was: by every host, by its loopback, by the task's own host from the task, in host mode; and what a task calls is answered.
      for host in 1...2 {
        #expect(try await world.ask("192.168.77.\(host):8081", from: world.outside)?.name == "port81")
        #expect(try await world.ask("127.0.0.1:8081", from: world.host(host))?.name == "port81")
        for path in paths { #expect(try await world.ask("192.168.77.\(host):8081", from: path)?.name == "port81", "\(path) at host \(host)") }
      }
      for path in [world.outside, world.host(1), world.host(2), paths[0], paths[1]] {
        #expect(try await world.ask("192.168.77.2:9090", from: path)?.name == "port90", "\(path)")
      }
      servers.append(try await world.serve("outside", in: world.outside))
      let outside = try await world.open(SOCK_DGRAM, in: world.outside, port: 5353)
      defer { close(outside) }
      for path in paths {
        #expect(try await world.ask("192.168.77.100", from: path)?.name == "outside")
        let client = try await world.open(SOCK_DGRAM, in: path, connectedTo: "192.168.77.100", port: 5353)
        defer { close(client) }
        send(client, "ask", 3, 0)
        #expect(world.echo(outside) != nil)
        var bytes = [UInt8](repeating: 0, count: 8)
        #expect(recv(client, &bytes, 8, 0) == 3)
      }
      withExtendedLifetime((cluster, overlays)) {}
    }
  }

  @Test("a port that is published later is open then; when it is no longer, connections go on and new ones are not taken")
  func changed() async throws {
    try await with { world, cluster, overlays, paths in
      let listener = try await world.open(SOCK_STREAM, in: paths[1], port: 5432)
      defer { close(listener) }
      #expect(try await world.request("10.255.0.12:5432", from: paths[0]) == .failed(EINPROGRESS))
      try await Self.apply(cluster, overlays, Self.usual + [PortConfig(targetPort: 5432, publishedPort: 8082)])
      let stream = try await world.open(SOCK_STREAM, in: world.outside, connectedTo: "192.168.77.1", port: 8082)
      let accepted = accept(listener, nil, nil)
      defer { for socket in [stream, accepted] { close(socket) } }
      try await Self.apply(cluster, overlays)
      var bytes = [UInt8](repeating: 0, count: 8)
      for (from, to) in [(stream, accepted), (accepted, stream)] {
        send(from, "more", 4, Int32(MSG_NOSIGNAL))
        #expect(recv(to, &bytes, 8, 0) == 4)
      }
      #expect(try await world.request("10.255.0.12:5432", from: paths[0]) == .failed(EINPROGRESS))
    }
  }

  @Test("who calls a task that just ended by its published port is refused as long as its namespace is there")
  func ended() async throws {
    try await with { world, cluster, overlays, paths in
      var ended = cluster
      ended.remove(2)
      // The other host does not know it yet.
      let services = cluster.services + [ServiceRecord(id: Self.other, name: "other", names: [:], mode: .vip, virtualIPs: [], ports: Self.usual)]
      try await overlays[1].apply(networks: cluster.networks(of: 2), services: services, endpoints: ended.endpoints)
      for path in [paths[0], world.host(1), world.host(2)] {
        #expect(try await world.request("10.255.0.12:81", from: path) == .refused, "\(path)")
        #expect(try await world.request("10.255.0.12:5432", from: path) == .failed(EINPROGRESS), "\(path)")
      }
      #expect(try await world.request("192.168.77.1:8081", from: world.outside) == .refused)
    }
  }

  @Test("the rule of one family is the other's, with its own words")
  func rule() {
    let ports = [PortConfig(targetPort: 80, publishedPort: 1), PortConfig(targetPort: 53, publishedPort: 2, protocol: .udp)]
    #expect(
      Ruleset.unpublished(to: IPv6Address("fd00::1")!, by: "eth1", ports)
        == "iifname \"eth1\" ct state new,untracked meta l4proto != ipv6-icmp ip6 daddr . meta l4proto . th dport != { fd00::1 . tcp . 80, fd00::1 . udp . 53 } drop"
    )
    #expect(
      Ruleset.unpublished(to: address("10.255.0.12"), by: "eth0", []) == "iifname \"eth0\" ct state new,untracked meta l4proto != icmp drop")
    // Of one family's addresses.
    var own = [PortConfig(targetPort: 80, publishedPort: 1), PortConfig(targetPort: 81, publishedPort: 2)]
    (own[0].hostIP, own[1].hostIP) = (IPAddress("::1"), IPAddress("127.0.0.1"))
    #expect(Ruleset.unpublished(to: address("10.255.0.12"), by: "eth0", own).hasSuffix("!= { 10.255.0.12 . tcp . 81 } drop"))
    #expect(Ruleset.unpublished(to: IPv6Address("fd00::1")!, by: "eth0", own).hasSuffix("!= { fd00::1 . tcp . 80 } drop"))
  }
}
