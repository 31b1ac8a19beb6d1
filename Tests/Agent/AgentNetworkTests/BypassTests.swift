import CLinux
import Glibc
import LinuxSystem
import Model
import Netlink
import Testing

@testable import AgentNetwork

@Suite("The way around the bridges, as a value")
struct BypassStateTests {
  private func state(_ cluster: Cluster, _ containers: [Int] = [1], on host: Int = 1) -> BypassState {
    var world = cluster.world(host)
    for number in containers { world.containers[cluster.task(number)] = cluster.network(number) }
    let numbers: [String: UInt32] = [
      "orvx4096": 10, "orvx4097": 11, InterfaceName.veth(cluster.task(1), 0): 20, InterfaceName.veth(cluster.task(1), 1): 21,
    ]
    return BypassState(world, HostState(world), world.successors) { numbers[$0] }
  }
  private var cluster: Cluster {
    var cluster = Cluster(hosts: 2)
    cluster.place(1, on: 1)
    cluster.place(2, on: 2)
    return cluster
  }

  @Test("who is here is reached by its interface, who is elsewhere by its network's tunnel; links that are not there are no doors")
  func wanted() {
    let wanted = state(cluster)
    #expect(wanted.doors == [10: 4096, 11: 4097, 20: 4097, 21: 4096])
    #expect(
      wanted.targets == [
        .init(vni: 4096, address: address("10.77.0.11")): .container(21), .init(vni: 4097, address: address("10.255.0.11")): .container(20),
        .init(vni: 4096, address: address("10.77.0.12")): .tunnel(10), .init(vni: 4097, address: address("10.255.0.12")): .tunnel(11),
        // The other host itself, whose bridge answers there.
        .init(vni: 4097, address: address("10.255.0.252")): .tunnel(11),
      ])
  }

  @Test("whose address another task has is no door any more, and its frames go to the other")
  func successor() {
    var cluster = cluster
    // The same address for a task of the other host.
    cluster.endpoints = cluster.endpoints.map { endpoint in
      var endpoint = endpoint
      if endpoint.task == cluster.task(1) { (endpoint.task, endpoint.underlay) = (cluster.task(5), cluster.underlay(2)) }
      return endpoint
    }
    let wanted = state(cluster)
    #expect(wanted.doors == [10: 4096, 11: 4097])
    #expect(wanted.targets[.init(vni: 4096, address: address("10.77.0.11"))] == .tunnel(10))
  }

  @Test("from what is there to what should be: receivers before doors, a new program in the place of an old one, and nothing from itself")
  func operations() {
    let wanted = state(cluster)
    var present = BypassPresent(targets: wanted.targets)
    for (link, vni) in wanted.doors { present.programs[link] = .init(vni: vni) }
    #expect(wanted.operations(from: present) == [])
    let place = BypassState.Place(vni: 4096, address: address("10.77.0.12"))
    let stranger = BypassState.Place(vni: 4096, address: address("10.77.0.99"))
    present.targets[place] = .container(99)
    present.targets[stranger] = .container(21)
    present.programs[20] = .init(vni: nil)
    present.programs[21] = .init(vni: 4097)
    present.programs[99] = .init(vni: 4096)
    #expect(
      wanted.operations(from: present) == [
        .remove(stranger), .set(place, .tunnel(10)), .enter(20, vni: 4097), .enter(21, vni: 4096), .leave(99),
      ])
    #expect(BypassState().operations(from: BypassPresent()) == [])
  }

  @Test("a container that goes takes its doors and entries along, and no other's")
  func removal() {
    var wanted = state(cluster)
    wanted.remove([20, 21])
    #expect(wanted.doors == [10: 4096, 11: 4097])
    #expect(wanted.targets.count == 3 && !wanted.targets.values.contains { if case .container = $0 { true } else { false } })
  }

  @Test("of more receivers than the map has room for the same ones are in it, whatever their order, those here among them; who comes later is not")
  func full() {
    var world = cluster.world(1)
    world.containers[cluster.task(1)] = cluster.network(1)
    let entries = (1...UInt32(BypassState.most + 100)).map {
      HostState.Forwarding(mac: IPv4Address(0x0a00_0000 + $0).mac, host: cluster.underlay(2))
    }
    func state(_ forwarding: Set<HostState.Forwarding>) -> BypassState {
      var state = HostState(world)
      state.tunnels[4096]!.forwarding = forwarding
      return BypassState(world, state, world.successors) { ["orvx4096": 10, InterfaceName.veth(cluster.task(1), 1): 21][$0] }
    }
    var other = Set<HostState.Forwarding>(minimumCapacity: 1 << 18)
    for entry in entries.reversed() { other.insert(entry) }
    var full = state(Set(entries))
    #expect(full == state(other))
    #expect(full.targets.count == BypassState.most)
    #expect(full.targets[.init(vni: 4096, address: address("10.77.0.11"))] == .container(21))
    full.add(cluster.network(2), world, world.successors) { $0 == InterfaceName.veth(cluster.task(2), 1) ? 22 : nil }
    #expect(full.doors == [10: 4096, 21: 4096, 22: 4096] && full.targets.count == BypassState.most)
  }

  @Test("entries are what they were, and a program's name says its network and that it is this one")
  func names() {
    let place = BypassState.Place(vni: 16_777_215, address: address("10.77.0.12"))
    #expect(BypassState.Place(bits: place.bits) == place)
    for target in [BypassState.Target.tunnel(7), .container(0x8000_0000)] { #expect(BypassState.Target(bits: target.bits) == target) }
    let name = BypassProgram.name(vni: 16_777_215)
    #expect(name.utf8.count == 15 && BypassProgram.vni(name: name) == 16_777_215 && BypassProgram.isOurs(name))
    #expect(BypassProgram.vni(name: "orch00100000000") == nil && BypassProgram.isOurs("orch00100000000"))
    #expect(!BypassProgram.isOurs("orchestra_tor_1") && !BypassProgram.isOurs(""))
  }
}

/// Somebody's that lets all pass.
private func loadOther() -> SharedDescriptor {
  let code = [UInt64(0xb4) | UInt64(0xffff_ffff) << 32, 0x95]
  return SharedDescriptor(owning: clinux_bpf_frames(code, code.count, "other"))
}
/// BPF with its classifier, and the right to load programs.
private func isAble() async -> Bool {
  guard geteuid() == 0 else { return false }
  let isHung = try? await onOwnThread("orch-test") {
    try check(clinux_new_network_namespace(), "make a namespace")
    let other = loadOther()
    try withExtendedLifetime(other) {
      try NetlinkSocket().perform([.addFilterPlace(1), .setIngressFilter(1, priority: 1, program: other.rawValue, name: "other")])
    }
    return true
  }
  return isHung == true
}

@Suite("The way around the bridges, in the kernel", .serialized, .enabled("BPF, and root") { await isAble() })
struct BypassTests {
  /// Ids of the programs at a host's link.
  private func programs(_ world: NamespaceWorld, _ host: Int, _ link: String) async throws -> [UInt32] {
    try await world.thread.run(in: world.host(host)) { try NetlinkSocket().ingressFilters(if_nametoindex(link)).map(\.program) }
  }
  private func map(of program: UInt32) -> SharedDescriptor? {
    let descriptor = SharedDescriptor(owning: clinux_bpf_open(0, program))
    var (name, id, map) = ([CChar](repeating: 0, count: 16), UInt32(0), UInt32(0))
    guard clinux_bpf_program(descriptor.rawValue, &name, &id, &map) == 0, map != 0 else { return nil }
    return SharedDescriptor(owning: clinux_bpf_open(1, map))
  }
  private func entries(_ map: SharedDescriptor) -> [BypassState.Place: BypassState.Target] {
    var (keys, values) = ([UInt64](repeating: 0, count: 1000), [UInt64](repeating: 0, count: 1000))
    let count = clinux_bpf_read(map.rawValue, &keys, &values, 1000)
    return Dictionary(uniqueKeysWithValues: (0..<max(0, Int(count))).map { (.init(bits: keys[$0]), .init(bits: values[$0])) })
  }

  /// As it is done by time.
  private func compare(_ overlay: OverlayNetwork) async throws -> [NetworkProblem] {
    await overlay.host.memory.withLock { $0.comparesAll = true }
    return try await overlay.repair()
  }

  /// Frames that a host's link was given to send: those by which its bridge reaches a container.
  private func sent(_ world: NamespaceWorld, _ host: Int, _ link: String) async throws -> Int { try await packets(world, world.host(host), link, 10) }
  private func packets(_ world: NamespaceWorld, _ path: String, _ link: String, _ column: Int) async throws -> Int {
    let text = try await world.run(in: path, "cat", "/proc/thread-self/net/dev").output
    let line = text.split(separator: "\n").first { $0.contains("\(link):") }?.split(whereSeparator: { $0 == " " || $0 == ":" }) ?? []
    return line.count > 10 ? Int(line[column]) ?? -1 : -1
  }

  /// A frame as somebody in a container writes it who may.
  private func write(_ frame: [UInt8], from path: String, _ device: String) async throws {
    let sent = try await withNetworkNamespace(path) {
      let descriptor = socket(AF_PACKET, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
      defer { close(descriptor) }
      // sockaddr_ll: family, protocol, number, …
      var to = [UInt8](repeating: 0, count: 20)
      to.withUnsafeMutableBytes { bytes in
        bytes.storeBytes(of: UInt16(AF_PACKET), as: UInt16.self)
        bytes.storeBytes(of: if_nametoindex(device), toByteOffset: 4, as: UInt32.self)
      }
      return frame.withUnsafeBytes { frame in
        to.withUnsafeBytes { sendto(descriptor, frame.baseAddress, frame.count, 0, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), 20) }
      }
    }
    #expect(sent == frame.count)
  }
  /// UDP from 10.77.0.11:9 to port 9, with a right checksum of its header.
  private func frame(to mac: [UInt8], from sender: [UInt8] = [2, 0x42, 10, 77, 0, 11], tag: [UInt8] = [], _ address: String) -> [UInt8] {
    var header: [UInt8] = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 77, 0, 11] + IPv4Address(address)!.octets
    var sum = stride(from: 0, to: 20, by: 2).reduce(UInt32(0)) { $0 + UInt32(header[$1]) << 8 + UInt32(header[$1 + 1]) }
    while sum > 0xffff { sum = sum & 0xffff + sum >> 16 }
    (header[10], header[11]) = (UInt8(~sum >> 8 & 0xff), UInt8(~sum & 0xff))
    return mac + sender + tag + [8, 0] + header + [0, 9, 0, 9, 0, 8, 0, 0] + [UInt8](repeating: 0, count: 18)
  }

  @Test(
    "datagrams between containers, to another host and on the same, do not pass the bridges; with --bridge-frames they do", arguments: [true, false])
  func around(isBypassing: Bool) async throws {
    try await NamespaceWorld.with(2) { world in
      var cluster = Cluster(hosts: 2)
      for (number, host) in [(1, 1), (2, 2), (3, 1)] { cluster.place(number, on: host) }
      let overlays = try (1...2).map { try world.overlay($0, bypassesBridges: isBypassing) }
      #expect(try await cluster.apply(to: overlays, services: []) == [])
      let one = try await overlays[0].attach(cluster.network(1)).path
      for number in 2...3 {
        let host = number == 2 ? 2 : 1
        let path = try await overlays[host - 1].attach(cluster.network(number)).path
        let link = InterfaceName.veth(cluster.task(number), 1)
        let server = try await world.open(SOCK_DGRAM, in: path, port: 7000)
        let client = try await world.open(SOCK_DGRAM, in: one, connectedTo: "10.77.0.1\(number)", port: 7000)
        defer { for socket in [server, client] { close(socket) } }
        func trip() -> Bool {
          var byte: UInt8 = 1
          return send(client, &byte, 1, 0) == 1 && world.echo(server) == "10.77.0.11" && recv(client, &byte, 1, 0) == 1
        }
        // A port of a bridge that is new may not be ready, and they are no neighbours yet.
        for _ in 1...5 where trip() { break }
        let before = try await sent(world, host, link)
        let received = try await packets(world, path, "eth1", 2)
        for _ in 1...100 where !trip() { Issue.record("no answer from task \(number)") }
        let passed = try await sent(world, host, link) - before
        #expect(isBypassing ? passed < 10 : passed >= 100, "\(passed) frames by the bridge to task \(number)")
        #expect(try await packets(world, path, "eth1", 2) - received >= 100, "its own interface counts them")
      }
    }
  }

  @Test("no frame reaches who is on another network, and what the bridge or the host's rules decide about is left to them")
  func isolation() async throws {
    try await NamespaceWorld.with(1) { world in
      var cluster = Cluster(hosts: 1)
      for number in [1, 3] { cluster.place(number, on: 1) }
      let overlay = try world.overlay(1)
      try await world.showBridgedFrames(true)
      try await overlay.apply(networks: cluster.networks(of: 1), services: [], endpoints: cluster.endpoints)
      let one = try await overlay.attach(cluster.network(1)).path
      let three = try await overlay.attach(cluster.network(3)).path
      let inside = try await overlay.attach(cluster.network(4, [cluster.inside])).path
      func watch(_ path: String, _ device: String, _ hook: String = "ingress") async throws {
        let rules = "table netdev seen { chain in { type filter hook \(hook) device \"\(device)\" priority 0; udp dport 9 counter; }; }"
        #expect(try await world.run(in: path, "nft", rules).code == 0)
      }
      try await watch(three, "eth1")
      try await watch(inside, "eth0")
      func seen(_ path: String) async throws -> Int {
        let words = try await world.run(in: path, "nft", "list", "table", "netdev", "seen").output.split(separator: " ").map(String.init)
        return words.firstIndex(of: "packets").flatMap { Int(words[$0 + 1]) } ?? -1
      }
      let (host, link) = (world.host(1), InterfaceName.veth(cluster.task(3), 1))
      try await watch(host, link, "egress")
      let (neighbour, stranger): ([UInt8], [UInt8]) = ([2, 0x42, 10, 77, 0, 13], [2, 0x42, 10, 78, 0, 14])
      /// How many it saw more, and how many came by the bridge.
      func after(_ frame: [UInt8]) async throws -> [Int] {
        let before = try await (seen(three), seen(host))
        try await write(frame, from: one, "eth1")
        try await Task.sleep(for: .milliseconds(50))
        return try await [seen(three) - before.0, seen(host) - before.1]
      }
      #expect(try await after(frame(to: neighbour, "10.77.0.13")) == [1, 0])
      #expect(try await after(frame(to: stranger, "10.78.0.14")) == [0, 0])
      #expect(try await seen(inside) == 0, "another network's")
      #expect(try await after(frame(to: neighbour, from: [3, 0, 0, 0, 0, 1], "10.77.0.13")) == [0, 0], "a sender that is a group")
      #expect(try await after(frame(to: neighbour, from: [0, 0, 0, 0, 0, 0], "10.77.0.13")) == [0, 0], "a sender that is nobody")
      let before = try await sent(world, 1, link)
      _ = try await after(frame(to: neighbour, tag: [0x81, 0, 0, 5], "10.77.0.13"))
      #expect(try await sent(world, 1, link) > before, "a tagged frame")
      if access("/proc/sys/net/bridge/bridge-nf-call-iptables", F_OK) == 0 {
        #expect(try await after(frame(to: neighbour, "127.0.0.1")) == [0, 0], "the host's rules drop it")
      }
      // Whose task ended has no door and no entry, while its namespace is still there.
      let program = try #require(try await programs(world, 1, link).first)
      let table = try #require(map(of: program))
      let place = BypassState.Place(vni: 4096, address: address("10.77.0.13"))
      #expect(entries(table)[place] != nil)
      let held = Glibc.open(three, O_RDONLY | O_CLOEXEC)
      defer { close(held) }
      try await overlay.detach(cluster.task(3))
      #expect(entries(table)[place] == nil)
      #expect(try await programs(world, 1, link) == [])
      #expect(try await compare(overlay) == [])
      #expect(await overlay.repairs["bypass"] == nil)
    }
  }

  /// The calling thread may or may not open programs that are not its own (CAP_SYS_ADMIN, CAP_BPF) from now on.
  private static func setRights(_ on: Bool) {
    typealias Call = @convention(c) (UnsafeMutableRawPointer, UnsafeMutableRawPointer) -> Int32
    func call(_ name: String) -> Call { unsafeBitCast(dlsym(nil, name)!, to: Call.self) }
    // capset(2): version 3, this thread; twice effective, permitted and inheritable ones.
    var header: [UInt32] = [0x2008_0522, 0]
    var sets = [UInt32](repeating: 0, count: 6)
    precondition(call("capget")(&header, &sets) == 0)
    for (index, bit) in [(0, UInt32(1) << 21), (3, UInt32(1) << 7)] { sets[index] = on ? sets[index] | bit : sets[index] & ~bit }
    precondition(call("capset")(&header, &sets) == 0)
  }

  @Test(
    "an agent that may not open an earlier agent's programs takes them away; one that wants its own says what is wrong, and has them when it may",
    arguments: [true, false])
  func leftBehind(isBypassing: Bool) async throws {
    try await NamespaceWorld.with(1) { world in
      var cluster = Cluster(hosts: 1)
      cluster.place(1, on: 1)
      let (networks, endpoints) = (cluster.networks(of: 1), cluster.endpoints)
      let before = try world.overlay(1)
      try await before.apply(networks: networks, services: [], endpoints: endpoints)
      _ = try await before.attach(cluster.network(1))
      let (door, tunnel) = (InterfaceName.veth(cluster.task(1), 1), "orvx4096")
      #expect(try await programs(world, 1, door).count == 1)
      let overlay = try world.overlay(1, bypassesBridges: isBypassing)
      try await overlay.host.thread.run { Self.setRights(false) }
      func isOn() async -> Bool { await overlay.metrics().contains { $0.text.contains("\norch_network_bridge_bypass 1\n") } }
      func check(_ problems: [NetworkProblem]) async throws {
        #expect(problems.map(\.object) == (isBypassing ? ["way around the bridges"] : []))
        #expect(problems.allSatisfy { $0.reason.contains("Operation not permitted; frames pass them") && $0.weight == .told }, "\(problems)")
        for link in [door, tunnel] { #expect(try await programs(world, 1, link) == []) }
        #expect(await !isOn())
      }
      for _ in 1...2 { try await check(try await overlay.apply(networks: networks, services: [], endpoints: endpoints)) }
      try await check(try await compare(overlay))
      try await overlay.host.thread.run { Self.setRights(true) }
      _ = try await overlay.recover([cluster.network(1)])
      #expect(try await compare(overlay) == [])
      for link in [door, tunnel] { #expect(try await programs(world, 1, link).count == (isBypassing ? 1 : 0)) }
      #expect(await isOn() == isBypassing)
    }
  }

  @Test("what others take away is put back and counted; others' programs stay; a new agent takes over, one that shall not takes all away")
  func drift() async throws {
    try await NamespaceWorld.with(1) { world in
      var cluster = Cluster(hosts: 2)
      for (number, host) in [(1, 1), (2, 2)] { cluster.place(number, on: host) }
      func begin(_ overlay: OverlayNetwork) async throws {
        #expect(try await overlay.apply(networks: cluster.networks(of: 1), services: cluster.services, endpoints: cluster.endpoints) == [])
      }
      var overlay = try world.overlay(1)
      try await begin(overlay)
      _ = try await overlay.attach(cluster.network(1))
      let (door, tunnel) = (InterfaceName.veth(cluster.task(1), 1), "orvx4096")
      let program = try #require(try await programs(world, 1, door).first)
      #expect(try await programs(world, 1, tunnel) == [program])
      let table = try #require(map(of: program))
      let whole = entries(table)
      #expect(whole.count == 5)
      #expect(try await compare(overlay) == [])
      #expect(await overlay.repairs == [:])

      func ask(_ message: @escaping @Sendable (UInt32) -> NetlinkMessage, _ link: String) async throws {
        try await world.thread.run(in: world.host(1)) { try NetlinkSocket().perform([message(if_nametoindex(link))]) }
      }
      let other = loadOther()
      try await ask({ .setIngressFilter($0, priority: 1, program: other.rawValue, name: "other") }, door)
      withExtendedLifetime(other) {}
      for (number, link) in [door, tunnel].enumerated() {
        try await ask({ .deleteIngressFilter($0, priority: HostNetwork.priority) }, link)
        #expect(try await compare(overlay) == [])
        #expect(try await programs(world, 1, link).contains(program), "\(link)")
        #expect(await overlay.repairs == ["bypass": UInt64(number + 1)])
      }
      let place = BypassState.Place(vni: 4096, address: address("10.77.0.12"))
      #expect(clinux_bpf_remove(table.rawValue, place.bits) == 0)
      #expect(clinux_bpf_set(table.rawValue, BypassState.Place(vni: 4096, address: address("10.77.0.99")).bits, whole[place]!.bits) == 0)
      #expect(try await compare(overlay) == [])
      #expect(entries(table) == whole)
      #expect(await overlay.repairs == ["bypass": 4])

      let both = Set(try await programs(world, 1, door))
      #expect(both.count == 2)
      overlay = try world.overlay(1)
      _ = try await overlay.recover([cluster.network(1)])
      try await begin(overlay)
      #expect(try await Set(programs(world, 1, door)) == both, "it is the same one")
      #expect(entries(table) == whole)
      #expect(await overlay.repairs["bypass"] == nil)

      overlay = try world.overlay(1, bypassesBridges: false)
      _ = try await overlay.recover([cluster.network(1)])
      try await begin(overlay)
      #expect(try await Set(programs(world, 1, door)) == both.subtracting([program]), "the other's")
      #expect(try await programs(world, 1, tunnel) == [])
    }
  }
}
