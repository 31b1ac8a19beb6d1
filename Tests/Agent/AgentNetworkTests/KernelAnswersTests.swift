import Glibc
import LinuxSystem
import Model
import Testing

@testable import AgentNetwork
@testable import Netlink

@Suite("What the kernel answers", .serialized, .enabled(if: geteuid() == 0))
struct KernelAnswersTests {
  /// All that the readers take, in anything.
  private func readAll(_ bytes: [UInt8]) {
    var events = DriftWatch.RuleEvents()
    let links = DriftWatch.Links([1, 2, 3])
    for reply in NetlinkReply.split(bytes) ?? [] {
      _ = (LinkInfo(reply), AddressInfo(reply), ForwardingInfo(reply), BridgeForwardingInfo(reply), NeighbourInfo(reply), LinkRoute(reply))
      _ = (CounterInfo(reply), FilterInfo(reply))
      _ = FlowInfo(reply).map { NetlinkMessage.deleteFlow($0) }
      _ = (DriftWatch.concerns(reply, links, links), DriftWatch.isRoute(reply, of: links), events.foreign(reply))
      _ = NetlinkSocket.refusal(reply, of: .dumpLinks())
    }
    let text = String(decoding: bytes, as: UTF8.self)
    _ = (KernelRoute.read(text), KernelRoute6.read(text), Nftables.chainNames(text))
    for line in text.split(separator: "\n") { _ = (PortHolder.entry(line, .tcp), PortHolder.entry(line, .udp), PortHolder.endpoint(line)) }
  }

  /// ORCH_FUZZ_CORPUS=FOLDER keeps the answers there: they are the corpus of the fuzz target `netlink`.
  @Test("every reader finds what is there in the answers of a kernel with overlays, and no reader is trapped by them when they are changed")
  func answers() async throws {
    try await NamespaceWorld.with(2) { world in
      var cluster = Cluster(hosts: 2)
      cluster.dual = true
      cluster.ports = [PortConfig(targetPort: 53, publishedPort: 5300, protocol: .udp)]
      for number in 1...2 { cluster.place(number, on: number) }
      cluster.endpoints[2].ready = false
      cluster.endpoints[3].ready = false
      let overlay = try world.overlay(1)
      try await overlay.apply(networks: cluster.networks(of: 1), services: cluster.services, endpoints: cluster.endpoints)
      let one = try await overlay.attach(cluster.network(1))
      _ = try await overlay.attach(cluster.network(3, [cluster.web]))
      let server = try await world.open(SOCK_DGRAM, in: one.path, port: 53)
      defer { close(server) }
      let client = try await world.open(SOCK_DGRAM, in: world.outside, connectedTo: "192.168.77.1", port: 5300)
      defer { close(client) }
      send(client, "ask", 3, 0)
      #expect(world.echo(server) == "192.168.77.100")
      let listener = try await world.open(SOCK_STREAM, in: world.host(1), port: 7777)
      defer { close(listener) }

      let events = try await world.thread.run(in: world.host(1)) { [Self.listen(0, groups: 0x555), Self.listen(12, groups: 1 << 6)] }
      defer { for descriptor in events { close(descriptor) } }
      let tampering = "ip link set orbr4096 down; ip neigh del 10.77.0.12 dev orvx4096; ip route flush dev \(InterfaceName.uplink(cluster.task(3)))"
      _ = try await world.run(in: world.host(1), "sh", "-c", "\(tampering); nft add rule ip orch forward counter")
      var files = try await world.thread.run(in: world.host(1)) {
        let socket = try NetlinkSocket()
        var files: [String: [UInt8]] = [:]
        for (name, request) in [
          ("links", NetlinkMessage.dumpLinks()), ("addresses", .dumpAddresses()), ("forwarding", .dumpForwarding()),
          ("neighbours", .dumpNeighbours()),
        ] { files[name] = Self.datagram(try socket.dump(request)) }
        files["routes"] = Self.datagram(try socket.dump(.dumpRoutes(AF_INET, on: if_nametoindex("orbr4097"))))
        files["filters"] = Self.datagram(try socket.dump(.dumpIngressFilters(if_nametoindex("orvx4096"))))
        files["counter"] = Self.datagram(try NetlinkSocket(family: 12).dump(.getCounter("datagrams", table: "orch", family: AF_INET)))
        files["flows"] = Self.datagram(try NetlinkSocket(family: 12).dump(.dumpFlows(AF_INET)))
        for name in ["route", "ipv6_route", "tcp"] { files[name] = Array(UnderlayFacts.contents("/proc/thread-self/net/\(name)").utf8) }
        return files
      }
      files["chains"] = Array(try await world.run(in: world.host(1), "nft", "list", "chains", "ip").output.utf8)
      for (name, descriptor) in zip(["events-links", "events-rules"], events) { files[name] = Self.received(descriptor) }
      let found = files
      func replies(_ name: String) -> [NetlinkReply] { NetlinkReply.split(found[name] ?? []) ?? [] }
      func text(_ name: String) -> String { String(decoding: found[name] ?? [], as: UTF8.self) }

      let links = replies("links").compactMap(LinkInfo.init)
      #expect(links.contains { $0.name == "orvx4096" && $0.vxlan?.id == 4096 && $0.bridgePort?.learning == false })
      #expect(replies("addresses").compactMap(AddressInfo.init).contains { $0.address == [10, 255, 0, 251] && $0.length == 24 })
      #expect(replies("addresses").compactMap(AddressInfo.init).contains { $0.peer == [172, 28, 240, 2] })
      #expect(replies("forwarding").compactMap(ForwardingInfo.init).contains { $0.destination == [192, 168, 77, 2] })
      #expect(replies("forwarding").compactMap(BridgeForwardingInfo.init).contains { $0.mac == [2, 0x42, 10, 77, 0, 11] })
      #expect(replies("neighbours").compactMap(NeighbourInfo.init).contains { $0.address.count == 16 })
      #expect(
        replies("routes").compactMap(LinkRoute.init).sorted() == [
          LinkRoute([10, 255, 0, 251], length: 32, isLocal: true, source: [10, 255, 0, 251]),
          LinkRoute([10, 255, 0, 0], length: 24, source: [10, 255, 0, 251]),
        ])
      #expect(replies("flows").compactMap(FlowInfo.init).map(\.answerer) == [[10, 255, 0, 11]])
      #expect(KernelRoute.read(text("route")).contains { $0.destination == IPv4Prefix("192.168.77.0/24") && $0.device == "eth0" })
      #expect(KernelRoute6.read(text("ipv6_route")).contains { $0.device == InterfaceName.uplink(cluster.task(3)) })
      #expect(text("tcp").split(separator: "\n").contains { PortHolder.entry($0, .tcp)?.0.number == 7777 })
      #expect(Nftables.chainNames(text("chains"))?.contains("forward") == true)
      #expect(replies("filters").compactMap(FilterInfo.init).map(\.priority) == [HostNetwork.priority])
      #expect(replies("counter").compactMap(CounterInfo.init).map(\.packets) == [1])
      let (tunnels, uplinks) = (
        DriftWatch.Links(Set(links.filter { $0.kind == "vxlan" }.map(\.index))),
        DriftWatch.Links(Set(links.filter { InterfaceName.isUplink($0.name) }.map(\.index)))
      )
      #expect(
        replies("events-links").contains { DriftWatch.concerns($0, tunnels, DriftWatch.Links()) }
          && replies("events-links").contains { $0.type == 29 })
      #expect(replies("events-links").contains { DriftWatch.isRoute($0, of: uplinks) })
      var rules = DriftWatch.RuleEvents()
      #expect(replies("events-rules").filter { rules.foreign($0) }.count == 1)

      for (name, bytes) in files {
        #expect(!bytes.isEmpty, "\(name)")
        for _ in 1...10 {
          var changed = bytes
          for _ in 0...Int.random(in: 0...3) { changed[Int.random(in: 0..<changed.count)] = UInt8.random(in: 0...255) }
          if Int.random(in: 0...9) == 0 { changed.removeLast(Int.random(in: 0..<changed.count)) }
          readAll(changed)
        }
      }
      guard let folder = getenv("ORCH_FUZZ_CORPUS").map({ String(cString: $0) }) else { return }
      try Files.makeDirectories(folder, mode: 0o755)
      for (name, bytes) in files {
        let file = open("\(folder)/\(name)", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        #expect(file >= 0 && write(file, bytes, bytes.count) == bytes.count)
        close(file)
      }
    }
  }

  private static func datagram(_ replies: [NetlinkReply]) -> [UInt8] {
    var bytes: [UInt8] = []
    for reply in replies {
      bytes += nativeBytes(UInt32(16 + reply.payload.count)) + nativeBytes(reply.type)
      bytes += nativeBytes(reply.flags) + nativeBytes(reply.sequence)
      bytes += nativeBytes(UInt32(0)) + reply.payload
      while bytes.count % 4 != 0 { bytes.append(0) }
    }
    return bytes
  }
  /// -1 when the kernel refuses.
  private static func listen(_ family: Int32, groups: UInt32) -> Int32 {
    let descriptor = socket(AF_NETLINK, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), family)
    var address = nativeBytes(UInt16(AF_NETLINK)) + [UInt8](repeating: 0, count: 6) + nativeBytes(groups)
    let bound = address.withUnsafeMutableBytes { bind(descriptor, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), 12) }
    return bound == 0 ? descriptor : -1
  }
  private static func received(_ descriptor: Int32) -> [UInt8] {
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65_536)
    while case let count = recv(descriptor, &buffer, buffer.count, 0), count > 0 { bytes += buffer[..<count] }
    return bytes
  }
}
