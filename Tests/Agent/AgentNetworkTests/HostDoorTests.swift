import Glibc
import Model
import Netlink
import Testing

@testable import AgentNetwork

@Suite("What leads a host to the tasks behind its ports, and others change", .serialized, .enabled(if: geteuid() == 0))
struct HostDoorTests {
  /// Ports of the first host lead to a task of the second alone. On the first are a task on both networks, and one that has an uplink.
  private struct Scene {
    let world: NamespaceWorld
    let overlay: OverlayNetwork
    let cluster: Cluster
    private let other: OverlayNetwork
    private let servers: [pid_t]

    init(_ world: NamespaceWorld) async throws {
      try await world.addIPv6()
      var cluster = Cluster(hosts: 2)
      cluster.dualIngress = true
      cluster.ports = [PortConfig(targetPort: 80, publishedPort: 8080)]
      cluster.place(1, on: 1, ready: false)
      cluster.place(2, on: 2)
      let overlays = try (1...2).map { try world.overlay($0) }
      let overlay = overlays[0]
      await overlay.whenDrifted { Task { _ = try await overlay.repair() } }
      #expect(try await cluster.apply(to: overlays) == [])
      _ = try await overlay.attach(cluster.network(1))
      _ = try await overlay.attach(cluster.network(3, [cluster.web]))
      servers = [try await world.serve("task2", in: try await overlays[1].attach(cluster.network(2)).path)]
      // What a host knows of its containers is complete after a comparison.
      try await overlay.repair()
      (self.world, self.overlay, self.cluster, other) = (world, overlay, cluster, overlays[1])
    }
    func end() { world.stop(servers) }

    /// - Parameter whole: a command of the host that succeeds where nothing is wrong.
    func mends(_ kind: String, _ command: String, _ whole: String) async throws {
      func isWhole() async throws -> Bool { try await world.run(in: world.host(1), "sh", "-c", whole).code == 0 }
      let counted = await overlay.repairs[kind] ?? 0
      #expect(try await isWhole(), "before \(command): \(whole)")
      let done = try await world.run(in: world.host(1), "sh", "-c", command)
      #expect(done.code == 0, "\(command): \(done.output)")
      // 0.1 s and a comparison; nothing compares by time here.
      let began = ContinuousClock.now
      while ContinuousClock.now - began < .seconds(5) {
        if await overlay.repairs[kind] ?? 0 > counted, try await isWhole() { break }
        try await Task.sleep(for: .milliseconds(20))
      }
      let (repairs, isMended) = (await overlay.repairs, try await isWhole())
      #expect(isMended && repairs[kind] ?? 0 > counted, "\(command): whole: \(isMended), \(repairs)")
      for target in ["192.168.77.1", "[fd00:192::1]"] {
        #expect(try await world.ask("\(target):8080", from: world.outside)?.name == "task2", "\(target) after \(command)")
      }
    }
  }

  private func with(_ body: (Scene) async throws -> Void) async throws {
    try await NamespaceWorld.with(2) { world in
      let scene = try await Scene(world)
      defer { scene.end() }
      try await body(scene)
      // Nothing is found where nothing is.
      try await scene.overlay.repair()
      let before = await scene.overlay.repairs
      await scene.overlay.host.memory.withLock { $0.comparesAll = true }
      try await scene.overlay.repair()
      #expect(await scene.overlay.repairs == before)
    }
  }

  @Test("the host's route to ingress and to its own address there, taken away or led elsewhere, is back at once and counted, over IPv4 and IPv6")
  func routes() async throws {
    try await with { scene in
      let four = "ip route show 10.255.0.0/24 | grep -q '^10.255.0.0/24 dev orbr4097 proto kernel scope link src 10.255.0.251'"
      let own = "ip route show table local | grep -q '^local 10.255.0.251 dev orbr4097 proto kernel scope host src 10.255.0.251'"
      let six = "ip -6 route show fd00:255::/64 | grep -q '^fd00:255::/64 dev orbr4097 proto kernel metric 256'"
      for (kind, command, whole) in [
        ("route", "ip route del 10.255.0.0/24 dev orbr4097", four), ("route", "ip route replace 10.255.0.0/24 via 192.168.77.100", four),
        ("route", "ip route replace 10.255.0.0/24 dev orbr4097 src 192.168.77.1", four), ("route", "ip route flush dev orbr4097", four),
        ("route", "ip route del local 10.255.0.251 dev orbr4097 table local", own),
        ("route", "ip route flush table local dev orbr4097; ip route flush dev orbr4097", "\(four) && \(own)"),
        ("route", "ip -6 route del fd00:255::/64 dev orbr4097", six),
        ("route", "ip -6 route replace fd00:255::/64 via fd00:192::100 metric 256", six),
        // What the kernel makes again itself is no route that somebody took.
        ("address", "ip address del 10.255.0.251/24 dev orbr4097", "\(four) && \(own)"),
        ("address", "ip -6 address del fd00:255::fb/64 dev orbr4097", six),
        ("link", "ip link set orbr4097 down", "\(four) && \(own) && \(six)"), ("link", "ip link del orbr4097", "\(four) && \(own) && \(six)"),
      ] { try await scene.mends(kind, command, whole) }
      #expect(await scene.overlay.repairs["route"] == 9)
    }
  }

  @Test("entries, neighbours and ports that others add to ours are taken away at once and counted; whose link it is, it stays, and that is told")
  func surplus() async throws {
    try await with { scene in
      let port = InterfaceName.veth(scene.cluster.task(1), 0)
      let uplink = InterfaceName.uplink(scene.cluster.task(3))
      let peer = "$(ip -o -4 address show \(uplink) | grep -oE 'peer [0-9.]+' | cut -c6-)"
      let (mac, own) = ("02:42:0a:ff:00:0c", "02:42:0a:ff:00:0b")
      let clean = "! bridge fdb show | grep -q '\(mac).*master'"
      let unknown = "! ip neigh show nud permanent nud noarp | grep '02:00:00:00:00:01'"
      for (kind, command, whole) in [
        ("forwarding", "bridge fdb add \(mac) dev \(port) master static", clean),
        ("forwarding", "bridge fdb add \(mac) dev orvx4097 master static", clean),
        ("forwarding", "bridge fdb add \(mac) dev \(port) master", clean), ("forwarding", "bridge fdb add \(mac) dev orbr4097 self", clean),
        ("forwarding", "bridge fdb add \(mac) dev orvx4097 master dynamic", clean),
        ("port", "bridge fdb replace \(own) dev orvx4097 master static", "bridge fdb show | grep -q '\(own) dev \(port) master orbr4097 static'"),
        ("neighbour", "ip neigh replace 10.255.0.12 lladdr 02:00:00:00:00:01 nud permanent dev orbr4097", unknown),
        ("neighbour", "ip neigh replace 10.255.0.12 lladdr 02:00:00:00:00:01 nud noarp dev orbr4097", unknown),
        ("neighbour", "ip neigh replace fd00:255::c lladdr 02:00:00:00:00:01 nud permanent dev orbr4097", unknown),
        ("neighbour", "ip neigh replace \(peer) lladdr 02:00:00:00:00:01 dev \(uplink)", unknown),
        (
          "port", "ip link add guest0 type veth peer name guest1 && ip link set guest0 up master orbr4097",
          "! ip -o link show master orbr4097 | grep -q guest0"
        ),
        ("port", "bridge link set dev orvx4097 learning on", "! bridge -d link show dev orvx4097 | grep -q 'learning on'"),
      ] { try await scene.mends(kind, command, whole) }
      #expect(try await scene.world.run(in: scene.world.host(1), "sh", "-c", "ip link show guest0 up").output.contains("guest0"))
      #expect(try await scene.overlay.repair().map(\.object) == ["link guest0"])
      // What a host learns of its neighbours is its own.
      let before = await scene.overlay.repairs
      let ping = "for i in 10.255.0.11 10.255.0.12 10.255.0.252 fd00:255::c; do busybox ping -c1 -W2 -w2 $i; done"
      _ = try await scene.world.run(in: scene.world.host(1), "sh", "-c", ping)
      #expect(try await scene.world.run(in: scene.world.host(1), "sh", "-c", "ip neigh show dev orbr4097").output.contains("10.255.0.12"))
      try await scene.overlay.repair()
      #expect(await scene.overlay.repairs == before)
    }
  }

  @Test("a bridge that is another link's port is released, its links that are nobody's too, and what belongs there is no surplus")
  func plan() {
    var cluster = Cluster(hosts: 2)
    cluster.place(1, on: 1)
    let wanted = HostState(cluster.world(1))
    var present = wanted
    present.bridges[4096]!.isFree = false
    let (guest, neighbour) = (HostState.Surplus.Port(index: 9, name: "tap0"), HostState.Neighbour(address("10.255.0.12")))
    let entry = BridgeForwardingInfo(mac: [2, 0x42, 10, 255, 0, 12], port: 7)
    present.bridges[4097]!.surplus = .init(entries: [entry], ports: [guest], neighbours: [neighbour])
    present.bridges[4097]!.routes = []
    let operations = wanted.operations(from: present)
    #expect(
      operations == [
        .freeBridge(4096), .releasePort(4097, guest), .deleteBridgeForwarding(4097, entry), .deleteBridgeNeighbour(4097, neighbour),
        .addRoute(4097, LinkRoute([10, 255, 0, 251], length: 32, isLocal: true, source: [10, 255, 0, 251])),
        .addRoute(4097, LinkRoute([10, 255, 0, 0], length: 24, source: [10, 255, 0, 251])),
      ])
    #expect(operations.map(\.kind) == ["link", "port", "forwarding", "neighbour", "route", "route"])
    // Where the link comes up the kernel makes them.
    present.bridges[4097]!.up = false
    #expect(!wanted.operations(from: present).contains { if case .addRoute = $0 { true } else { false } })
  }

  @Test("routes that are others' are left alone")
  func others() async throws {
    try await with { scene in
      let before = await scene.overlay.repairs
      let command =
        "ip route add 10.99.0.0/24 dev orbr4097; ip route add 10.255.0.0/24 via 192.168.77.100 metric 100; ip -6 route add fd00:99::/64 dev eth0"
      #expect(try await scene.world.run(in: scene.world.host(1), "sh", "-c", command).code == 0)
      try await Task.sleep(for: .milliseconds(300))
      try await scene.overlay.repair()
      #expect(await scene.overlay.repairs == before)
      let left = try await scene.world.run(in: scene.world.host(1), "sh", "-c", "ip route; ip -6 route").output
      for text in ["10.99.0.0/24", "metric 100", "fd00:99::"] { #expect(left.contains(text), "\(left)") }
    }
  }
}
