import Glibc
import Model
import Testing

@testable import AgentNetwork

@Suite("Who called a published port, and by which host", .serialized, .enabled(if: geteuid() == 0))
struct PublishedCallerTests {
  /// Two hosts, one task on the first, with a port of streams and one of datagrams.
  private func with(
    _ family: IPFamily = .v4, _ body: (NamespaceWorld, Cluster, [OverlayNetwork], _ task: String) async throws -> Void
  ) async throws {
    try await NamespaceWorld.with(2) { world in
      var cluster = Cluster(hosts: 2)
      cluster.dualIngress = family == .v6
      if cluster.dualIngress { try await world.addIPv6() }
      cluster.ports = [
        PortConfig(targetPort: 80, publishedPort: 8080), PortConfig(targetPort: 53, publishedPort: 5300, protocol: .udp),
      ]
      cluster.place(1, on: 1)
      let overlays = try (1...2).map { try world.overlay($0) }
      #expect(try await cluster.apply(to: overlays) == [])
      try await body(world, cluster, overlays, try await overlays[0].attach(cluster.network(1)).path)
    }
  }

  private func flow(_ one: Int32, _ other: Int32, _ what: String) {
    var bytes = [UInt8](repeating: 0, count: 8)
    for (from, to) in [(one, other), (other, one)] {
      send(from, "more", 4, Int32(MSG_NOSIGNAL))
      #expect(recv(to, &bytes, 8, 0) == 4, "\(what)")
    }
  }

  /// Who is at the other end, without the port.
  private func peer(_ stream: Int32) -> String {
    SocketName { getpeername(stream, $0, &$1) == 0 }?.host ?? "nobody"
  }
  private func every(_ family: IPFamily) -> String { family == .v6 ? "::" : "0.0.0.0" }

  @Test(
    "a client holds connections from one port of its own to the same published port of two hosts, and both reach the one task",
    arguments: IPFamily.allCases)
  func streams(family: IPFamily) async throws {
    try await with(family) { world, _, _, task in
      let listener = try await world.open(SOCK_STREAM, in: task, port: 80, any: every(family))
      defer { close(listener) }
      // From outside, and from a process of a host that calls itself and the other.
      for (path, client) in [(world.outside, world.underlay(100, family)), (world.host(2), world.underlay(2, family))] {
        var streams: [(Int32, Int32)] = []
        defer { for (one, other) in streams { for descriptor in [one, other] { close(descriptor) } } }
        for host in 1...2 {
          let stream = try await world.open(SOCK_STREAM, in: path, connectedTo: world.underlay(host, family), port: 8080, from: 5000)
          let accepted = accept(listener, nil, nil)
          #expect(peer(accepted) == client)
          streams.append((stream, accepted))
        }
        for _ in 1...2 { for (index, (one, other)) in streams.enumerated() { flow(one, other, "\(client) at host \(index + 1)") } }
      }
    }
  }

  @Test(
    "a socket that asks two hosts from one port is answered by each from the address that it asked", arguments: [false, true], IPFamily.allCases)
  func datagrams(bridgeNetfilter: Bool, family: IPFamily) async throws {
    try await with(family) { world, _, _, task in
      try await world.showBridgedFrames(bridgeNetfilter)
      let server = try await world.open(SOCK_DGRAM, in: task, port: 53, any: every(family))
      let client = try await world.open(SOCK_DGRAM, in: world.outside, port: 5001, any: every(family))
      defer { for socket in [server, client] { close(socket) } }
      for round in 1...3 {
        for host in [1, 2, 2, 1] {
          world.tell(client, "ask \(host)", to: world.underlay(host, family), port: 5300)
          #expect(world.echo(server) == world.underlay(100, family))
          #expect(world.hear(client) == "ask \(host) of \(SocketName(world.underlay(host, family), 5300))", "round \(round)")
        }
      }
    }
  }

  @Test("a connection whose first packet came before the rules knew its host is made by the next one")
  func late() async throws {
    try await with { world, _, overlays, task in
      let listener = try await world.open(SOCK_STREAM, in: task, port: 80)
      let server = try await world.open(SOCK_DGRAM, in: task, port: 53)
      let flow = try await world.open(SOCK_DGRAM, in: world.outside, connectedTo: "192.168.77.2", port: 5300)
      defer { for socket in [listener, server, flow] { close(socket) } }
      // What is left keeps conntrack at work.
      #expect(try await world.run(in: task, "sh", "-c", "nft flush chain ip orch arrive; nft flush chain ip orch caller || true").code == 0)
      send(flow, "ask", 3, 0)
      #expect(world.echo(server) == "192.168.77.100")
      async let connecting = world.open(SOCK_STREAM, in: world.outside, connectedTo: "192.168.77.2", port: 8080)
      for _ in 1...50 where await overlays[0].repairs["container rules"] == nil {
        try await Task.sleep(for: .milliseconds(100))
        try await overlays[0].repair()
      }
      let stream = try await connecting
      defer { close(stream) }
      let accepted = accept(listener, nil, nil)
      defer { close(accepted) }
      self.flow(stream, accepted, "the stream")
      send(flow, "ask", 3, 0)
      #expect(world.echo(server) == "192.168.77.100")
      #expect(world.hear(flow) == "ask of 192.168.77.2:5300")
    }
  }

  @Test("connections from before callers' hosts were told apart (an agent of then made the rules) go on, each by its host")
  func upgrade() async throws {
    try await with { world, cluster, overlays, task in
      let listener = try await world.open(SOCK_STREAM, in: task, port: 80)
      defer { close(listener) }
      let past = """
        nft flush chain ip orch caller && cd /proc/sys/net/netfilter && echo 1 > nf_conntrack_tcp_loose && echo 0 > nf_conntrack_tcp_be_liberal
        """
      #expect(try await world.run(in: task, "sh", "-c", past).code == 0)
      var streams: [(Int32, Int32)] = []
      defer { for (one, other) in streams { for descriptor in [one, other] { close(descriptor) } } }
      for host in 1...2 {
        let stream = try await world.open(SOCK_STREAM, in: world.outside, connectedTo: "192.168.77.\(host)", port: 8080)
        streams.append((stream, accept(listener, nil, nil)))
        flow(streams[host - 1].0, streams[host - 1].1, "before, at host \(host)")
      }
      let new = try world.overlay(1)
      #expect(try await new.recover([cluster.network(1)]).count == 1)
      try await new.apply(networks: cluster.networks(of: 1), services: cluster.services, endpoints: cluster.endpoints)
      var bytes = [UInt8](repeating: 0, count: 64_000)
      for (index, (one, other)) in streams.enumerated() {
        // More than any window, both ways.
        for (from, to) in [(one, other), (other, one)] {
          for part in 1...40 {
            try #require(send(from, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count)
            try #require(recv(to, &bytes, bytes.count, Int32(MSG_WAITALL)) == bytes.count, "at host \(index + 1), part \(part)")
          }
        }
      }
      withExtendedLifetime(overlays) {}
    }
  }

  @Test("a container that is attached while hosts change knows those of the change")
  func attachedMeanwhile() async throws {
    try await NamespaceWorld.with(1) { world in
      var cluster = Cluster(hosts: 2)
      let overlay = try world.overlay(1)
      try await overlay.apply(networks: cluster.networks(of: 1), services: [], endpoints: [])
      async let busy: Void = overlay.host.thread.run { usleep(400_000) }
      let one = cluster.network(1)
      async let attached = overlay.attach(one)
      try await Task.sleep(for: .milliseconds(150))
      cluster.hosts = 3
      try await overlay.apply(networks: cluster.networks(of: 1), services: [], endpoints: [])
      let (_, namespace) = try await (busy, attached)
      let map = try await world.run(in: namespace.path, "nft", "list", "table", "netdev", "orch").output
      let third = address("10.255.0.253").octets.reduce(0) { $0 << 8 | UInt32($1) }
      #expect(map.contains("0x" + String(repeating: "0", count: 8 - String(third, radix: 16).count) + String(third, radix: 16)), "\(map)")
    }
  }
}
