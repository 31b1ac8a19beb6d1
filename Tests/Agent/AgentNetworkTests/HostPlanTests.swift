import Model
import Testing

@testable import AgentNetwork

@Suite("What a host's overlay should be, as a value")
struct HostPlanTests {
  var cluster: Cluster {
    var cluster = Cluster(hosts: 3)
    cluster.place(1, on: 1)
    cluster.place(2, on: 2)
    return cluster
  }

  @Test("remote endpoints, and on ingress peers' own addresses, have entries and are neighbours, local endpoints are not; nobody is flooded to")
  func forwarding() {
    let state = HostState(cluster.world(1))
    #expect(state.tunnels[4096]!.forwarding == [.init(mac: [2, 0x42, 10, 77, 0, 12], host: address("192.168.77.2"))])
    #expect(state.tunnels[4096]!.neighbours == [.init(address("10.77.0.12"))])
    #expect(state.bridges[4096]!.addresses.isEmpty)
    let ingress = state.tunnels[4097]!
    #expect(
      ingress.forwarding == [
        .init(mac: [2, 0x42, 10, 255, 0, 252], host: address("192.168.77.2")), .init(mac: [2, 0x42, 10, 255, 0, 253], host: address("192.168.77.3")),
        .init(mac: [2, 0x42, 10, 255, 0, 12], host: address("192.168.77.2")),
      ])
    #expect(ingress.neighbours == [.init(address("10.255.0.252")), .init(address("10.255.0.253")), .init(address("10.255.0.12"))])
  }

  @Test("from nothing everything is made, links before what is on them; from itself nothing is done")
  func fromNothing() {
    let state = HostState(cluster.world(1))
    let operations = state.operations(from: HostState())
    let links = operations.prefix { $0.changesLinks }
    #expect(links.count == 6)
    #expect(!operations.dropFirst(6).contains { $0.changesLinks })
    #expect(operations.contains(.addAddress(4097, .init(address: address("10.255.0.251"), length: 24))))
    #expect(state.operations(from: state) == [])
  }

  @Test("a task that moves to another host moves its entry, the old one first; one that comes here loses it")
  func moves() {
    var later = cluster
    later.place(2, on: 3)
    let before = HostState(cluster.world(1))
    let mac: [UInt8] = [2, 0x42, 10, 77, 0, 12]
    let operations = HostState(later.world(1)).operations(from: before).filter {
      if case .addForwarding(4096, _) = $0 { true } else if case .deleteForwarding(4096, _) = $0 { true } else { false }
    }
    #expect(
      operations == [
        .deleteForwarding(4096, .init(mac: mac, host: address("192.168.77.2"))), .addForwarding(4096, .init(mac: mac, host: address("192.168.77.3"))),
      ])
    later.place(2, on: 1)
    #expect(HostState(later.world(1)).operations(from: before).contains(.deleteForwarding(4096, .init(mac: mac, host: address("192.168.77.2")))))
  }

  @Test("what others broke is repaired: a link that is down, a lost address, a port outside its bridge, another tunnel port")
  func repairs() {
    let state = HostState(cluster.world(1))
    var broken = state
    broken.bridges[4096]!.up = false
    broken.bridges[4096]!.addresses = [.init(address: address("10.9.9.9"), length: 24)]
    broken.tunnels[4096]!.bridged = false
    broken.tunnels[4097]!.port = 8472
    broken.tunnels[4098]!.bridgePort.learning = true
    broken.tunnels[4097]!.bridgePort.isPlain = false
    broken.tunnels[4096]!.isPlain = false
    broken.bridges[4098]!.isPlain = false
    broken.bridges[4097]!.addresses = []
    broken.tunnels[4096]!.neighbours = [.init(.v4(address("10.77.0.12")), mac: [2, 0, 0, 0, 0, 1]), .init(address("10.77.0.9"))]
    broken.bridges[9999] = broken.bridges[4096]
    let operations = state.operations(from: broken)
    #expect(operations.contains(.deleteBridge(9999)))
    #expect(operations.contains(.setBridge(4096, mac: [2, 0x4f, 192, 168, 77, 1], mtu: 1450)))
    #expect(operations.contains(.deleteAddress(4096, .init(address: address("10.9.9.9"), length: 24))))
    #expect(operations.contains(.addAddress(4097, .init(address: address("10.255.0.251"), length: 24))))
    #expect(operations.contains(.bridgeTunnel(4096)))
    #expect(
      operations.firstIndex(of: .deleteTunnel(4097))! < operations.firstIndex(
        of: .addTunnel(4097, local: address("192.168.77.1"), port: 4789, mtu: 1450))!)
    #expect(operations.contains(.bridgeTunnel(4097)) && operations.contains(.plainTunnel(4096)) && operations.contains(.plainBridge(4098)))
    #expect(
      operations.filter {
        switch $0 {
        case .setPort(4098), .addNeighbour(4096, _), .deleteNeighbour(4096, _): true
        default: false
        }
      } == [.deleteNeighbour(4096, .init(address("10.77.0.9"))), .addNeighbour(4096, .init(address("10.77.0.12"))), .setPort(4098)])
  }

  @Test("names fit an interface and lead back")
  func names() {
    #expect(InterfaceName.bridge(16_777_215).utf8.count <= 15)
    #expect(InterfaceName.veth(TaskID(value: .max), 99).utf8.count <= 15)
    #expect(InterfaceName.vni("orbr4096", prefix: "orbr") == 4096)
    for foreign in ["orbr", "orbr04096", "orbrx", "br0", "orbr-1", "orbr99999999999"] { #expect(InterfaceName.vni(foreign, prefix: "orbr") == nil) }
  }

  @Test("the default route leads through ingress where a task publishes there, or else through its uplink, if a network of it has a way out")
  func gateways() {
    var world = cluster.world(1)
    world.uplinks[cluster.task(1)] = Uplink(address: address("172.28.240.2"), gateway: address("172.28.240.1"))
    for (networks, gateway, needsUplink) in [
      ([cluster.ingress, cluster.web], "10.255.0.251", false), ([cluster.inside, cluster.web], "172.28.240.1", true),
      ([cluster.inside, cluster.ingress], "10.255.0.251", false), ([cluster.inside], nil, false),
    ] {
      let network = cluster.network(1, networks)
      #expect(world.gateway(of: network) == gateway.map(address))
      #expect(world.needsUplink(network) == needsUplink)
    }
    // Its host's own processes may call it.
    var published = cluster.network(1, [cluster.inside])
    published.hostPorts = [PortConfig(targetPort: 80, publishedPort: 8080, publishMode: .host)]
    #expect(world.needsUplink(published) && world.gateway(of: published) == nil && !world.leadsOutside(published))
    // On no network: docker's bridge, or none.
    for isBridged in [true, false] {
      let network = TaskNetwork(task: cluster.task(1), attachments: [], isBridged: isBridged)
      #expect(world.needsUplink(network) == isBridged && world.gateway(of: network) == (isBridged ? address("172.28.240.1") : nil))
    }
    #expect(!TaskNetwork(task: cluster.task(1), attachments: cluster.network(1).attachments, isBridged: true).isBridged)
  }

  @Test("uplinks' addresses come from a private range that is free, all in turn; none: nil")
  func uplinks() {
    var pool = UplinkPool()
    let first = pool.take(avoiding: [], used: [])
    #expect(first == Uplink(address: address("172.28.240.2"), gateway: address("172.28.240.1")))
    #expect(pool.take(avoiding: [], used: [])?.address == address("172.28.240.3"), "one that is free again waits for its turn")
    // A network came that has that range; containers that have addresses of it keep them.
    #expect(pool.take(avoiding: [IPv4Prefix("172.28.0.0/16")!], used: [])?.address == address("172.27.240.2"))
    #expect(pool.take(avoiding: [IPv4Prefix("172.16.0.0/12")!, IPv4Prefix("10.0.0.0/8")!], used: [])?.gateway == address("192.168.240.1"))
    #expect(pool.take(avoiding: UplinkPool.usual.map { IPv4Prefix($0)! }, used: []) == nil)
    var small = UplinkPool(IPv4Prefix("192.0.2.0/29")!)
    var used: Set<IPv4Address> = []
    while let uplink = small.take(avoiding: [], used: used) { used.insert(uplink.address) }
    #expect(used.sorted().map(\.description) == (2...6).map { "192.0.2.\($0)" })
    used.remove(address("192.0.2.4"))
    #expect(small.take(avoiding: [], used: used)?.address == address("192.0.2.4"))
  }
}

@Suite("nftables rules, as text")
struct RulesetTests {
  @Test("a container's virtual IP leads to ready endpoints of its networks, in a fixed order; none: refused")
  func container() {
    var cluster = Cluster(hosts: 2)
    cluster.place(2, on: 2)
    cluster.place(1, on: 1)
    cluster.place(3, on: 1, ready: false)
    let world = cluster.world(1)
    func table(_ world: NetworkWorld, _ network: TaskNetwork) -> RuleTable<IPv4Address>? {
      let networks = Set(network.attachments.map(\.network))
      return Ruleset.container(network, in: world, Ruleset.balancing(in: world, on: networks, ready: world.readyEndpoints()))
    }
    let full = table(world, cluster.network(9))!
    #expect(
      full.fresh.contains(
        "chain spread-2 {\n    meta l4proto udp counter name \"datagrams\"\n    dnat to ip daddr . numgen random mod 2 map @backends\n"))
    #expect(full.fresh.contains("add element ip orch backends { 10.77.0.2 . 0 : 10.77.0.11, 10.77.0.2 . 1 : 10.77.0.12 }\n"))
    #expect(full.fresh.contains("add element ip orch virtual { 10.77.0.2 : goto spread-2 }\n"))
    #expect(full.fresh.contains("add element ip orch alive { 10.255.0.11, 10.255.0.12, 10.255.0.13, 10.77.0.11, 10.77.0.12, 10.77.0.13 }\n"))
    #expect(full.fresh.contains("ct status dnat ct state new ip daddr { 10.255.0.0/24, 10.77.0.0/24 } ip daddr != @alive reject"))
    cluster.endpoints = []
    let empty = cluster.world(1)
    let refusing = table(empty, cluster.network(9))!
    #expect(refusing.fresh.contains("add element ip orch refused { 10.77.0.2 }\n"))
    #expect(refusing.fresh.contains("ip daddr @refused meta l4proto tcp reject with tcp reset"))
    #expect(!refusing.fresh.contains("add element ip orch virtual"))
    // Names alone.
    #expect(table(empty, cluster.network(9, [cluster.inside]))?.chains.map(\.name) == ["names"])
    #expect(table(empty, cluster.network(9, [])) == nil)
  }

  @Test("a change of endpoints changes their elements and no others; a chain for another number of them is there before it is led to")
  func changes() {
    var cluster = Cluster(hosts: 2)
    func table() -> RuleTable<IPv4Address> {
      let world = cluster.world(1)
      return Ruleset.container(
        cluster.network(9, [cluster.web]), in: world, Ruleset.balancing(in: world, on: [cluster.web], ready: world.readyEndpoints()))!
    }
    for number in 1...2 { cluster.place(number, on: 2) }
    let two = table()
    #expect(two.changes(from: two) == [])
    cluster.place(3, on: 2)
    let three = table()
    #expect(
      three.changes(from: two) == [
        """
        table ip orch {
          chain spread-3 {
            meta l4proto udp counter name "datagrams"
            dnat to ip daddr . numgen random mod 3 map @backends
            dnat to ip daddr . numgen random mod 1 map @backends
          }
        }

        """,
        """
        delete element ip orch virtual { 10.77.0.2 }
        flush chain ip orch spread-2
        add element ip orch virtual { 10.77.0.2 : goto spread-3 }
        add element ip orch backends { 10.77.0.2 . 2 : 10.77.0.13 }
        add element ip orch alive { 10.77.0.13 }
        delete chain ip orch spread-2

        """,
      ])
    cluster.remove(3)
    cluster.place(1, on: 2, ready: false)
    #expect(
      table().changes(from: two)?.last == """
        delete element ip orch virtual { 10.77.0.2 }
        delete element ip orch backends { 10.77.0.2 . 0, 10.77.0.2 . 1 }
        flush chain ip orch spread-2
        add element ip orch virtual { 10.77.0.2 : goto spread-1 }
        add element ip orch backends { 10.77.0.2 . 0 : 10.77.0.12 }
        delete chain ip orch spread-2

        """)
    cluster.endpoints = []
    #expect(
      table().changes(from: two) == [
        """
        delete element ip orch virtual { 10.77.0.2 }
        delete element ip orch backends { 10.77.0.2 . 0, 10.77.0.2 . 1 }
        delete element ip orch alive { 10.77.0.11, 10.77.0.12 }
        flush chain ip orch spread-2
        add element ip orch refused { 10.77.0.2 }
        delete chain ip orch spread-2

        """
      ])
  }

  @Test("a service that prefers its callers' host is called there while a task of it is ready, and elsewhere when none is")
  func sameNode() {
    var cluster = Cluster(hosts: 2)
    cluster.place(1, on: 1)
    cluster.place(2, on: 2)
    cluster.place(3, on: 2)
    func called(from host: Int, prefers: Bool? = true) -> [IPv4Address]? {
      var world = cluster.world(host)
      world.services[0].prefersSameNode = prefers
      return Ruleset.balancing(in: world, on: [cluster.web], ready: world.readyEndpoints()).virtual[cluster.virtualIP]
    }
    #expect(called(from: 1) == [address("10.77.0.11")])
    #expect(called(from: 2) == [address("10.77.0.12"), address("10.77.0.13")])
    #expect(called(from: 1, prefers: nil)?.count == 3)
    cluster.place(1, on: 1, ready: false)
    #expect(called(from: 1) == [address("10.77.0.12"), address("10.77.0.13")])
  }

  @Test("what came in by ingress is answered to the host it came from; other networks have no such rule")
  func arrival() {
    let cluster = Cluster(hosts: 2)
    let world = cluster.world(2)
    let text = Ruleset.container(cluster.network(9, [cluster.web, cluster.ingress]), in: world, Balancing<IPv4Address>())!.fresh
    #expect(
      text.contains(
        "iifname \"eth1\" ct direction original ct mark 0 ct mark set ether saddr map { 02:42:0a:ff:00:fb : 0x0aff00fb, 02:42:0a:ff:00:fc : 0x0aff00fc }"
      ))
    #expect(text.contains("iifname \"eth1\" ct original zone set ether saddr map { 02:42:0a:ff:00:fb : 251, 02:42:0a:ff:00:fc : 252 }"))
    #expect(text.contains("@ll,0,48 set meta mark map { 0x0aff00fb : 0x02420aff00fb, 0x0aff00fc : 0x02420aff00fc }"))
    #expect(Ruleset.container(cluster.network(9, [cluster.web]), in: world, Balancing<IPv4Address>())?.egress == nil)
  }

  @Test("a published port leads to the endpoints on ingress, on other hosts too, and keeps the client's address")
  func published() {
    var cluster = Cluster(hosts: 2)
    cluster.ports = [PortConfig(targetPort: 80, publishedPort: 8080)]
    cluster.place(1, on: 1)
    cluster.place(2, on: 2)
    let world = cluster.world(1)
    let text = Ruleset.host(world, ready: world.readyEndpoints(), unavailable: []).fresh
    #expect(text.contains("meta l4proto . th dport vmap { tcp . 8080 : goto port-tcp-8080 }"))
    #expect(text.contains("dnat to numgen random mod 2 map { 0 : 10.255.0.11, 1 : 10.255.0.12 }:80"))
    #expect(
      text.split(separator: "\n").filter { $0.contains("masquerade") }.map { $0.drop { $0 == " " } } == [
        // Containers' own calls to ports of their host, and its loopback's; what goes out of the cluster; nothing else.
        "ct status dnat oifname \"orbr*\" ip saddr { 10.255.0.0/24, 127.0.0.0/8 } masquerade",
        "ct status dnat oifname \"orbr*\" iifname \"orup*\" masquerade",
        "ct status dnat oifname \"orup*\" ip saddr { 10.255.0.0/24, 127.0.0.0/8 } masquerade",
        "ct status dnat oifname \"orup*\" iifname \"orup*\" masquerade",
        "oifname != \"orbr*\" oifname != \"orup*\" ip saddr 10.255.0.0/24 masquerade",
        "oifname != \"orbr*\" oifname != \"orup*\" iifname \"orup*\" masquerade",
      ])
    #expect(text.contains("udp dport 4789 @th,96,24 vmap { 4096 : jump vxlan-4096, 4097 : jump vxlan-4097, 4098 : jump vxlan-4098 }"))
    #expect(
      text.contains("chain vxlan-4096 {\n    ip saddr != { 192.168.77.2 } counter counter name \"strangers\" drop\n    ip daddr != 192.168.77.1 "))
    #expect(text.contains("    udp dport { 4789 } iifname \"orup*\" counter counter name \"strangers\" drop\n"))
    #expect(text.contains("ether daddr != 02:42:0a:ff:00:fb notrack"), "equal addresses of two networks are not mixed up")
    #expect(text.split(separator: "udp dport { 4789 } notrack").count == 3, "coming and going: \(text)")
    let without = Ruleset.host(world, ready: world.readyEndpoints(), unavailable: [PublishedPort(protocol: .tcp, number: 8080)]).fresh
    #expect(!without.contains("8080"))
    let dead = Ruleset.host(world, ready: [:], unavailable: []).fresh
    #expect(dead.contains("tcp dport { 8080 } reject with tcp reset"))
  }
}
