import Glibc
import Testing

@testable import Netlink

private func bytes(_ annotated: String) -> [UInt8] {
  annotated.split(separator: "\n").flatMap { line in line.prefix { $0 != "|" }.split(separator: " ").map { UInt8($0, radix: 16)! } }
}

@Suite("Netlink messages, byte by byte")
struct NetlinkMessageTests {
  @Test("a bridge is asked for")
  func bridge() {
    let message = NetlinkMessage.addLink("br7", .bridge, mac: [2, 0x42, 10, 0, 0, 1], mtu: 1450)
    let expected = """
      60 00 00 00  10 00 01 06  00 00 00 00  00 00 00 00 | length 96, RTM_NEWLINK, REQUEST|CREATE|EXCL
      00 00 00 00  00 00 00 00  00 00 00 00  00 00 00 00 | ifinfomsg
      08 00 03 00  62 72 37 00                           | IFLA_IFNAME br7
      0a 00 01 00  02 42 0a 00  00 01 00 00              | IFLA_ADDRESS, padded
      08 00 04 00  aa 05 00 00                           | IFLA_MTU 1450
      24 00 12 00                                        | IFLA_LINKINFO
      0b 00 01 00  62 72 69 64  67 65 00 00              | IFLA_INFO_KIND bridge
      14 00 02 00                                        | IFLA_INFO_DATA
      08 00 01 00  00 00 00 00                           | IFLA_BR_FORWARD_DELAY
      05 00 17 00  00 00 00 00                           | IFLA_BR_MCAST_SNOOPING
      """
    #expect(message.bytes == bytes(expected))
  }

  @Test("a forwarding entry of a VXLAN device, and a neighbour that it answers for")
  func forwarding() {
    let expected = """
      30 00 00 00  1c 00 01 05  00 00 00 00  00 00 00 00 | length 48, RTM_NEWNEIGH, REQUEST|CREATE|REPLACE
      07 00 00 00  05 00 00 00  c0 00 02 00              | AF_BRIDGE, link 5, PERMANENT|NOARP, NTF_SELF
      0a 00 02 00  02 42 0a 4d  00 0c 00 00              | NDA_LLADDR
      08 00 01 00  c0 a8 4d 02                           | NDA_DST
      """
    #expect(NetlinkMessage.addForwarding([2, 0x42, 10, 77, 0, 12], to: [192, 168, 77, 2], on: 5).bytes == bytes(expected))
    let neighbour = """
      30 00 00 00  1c 00 01 05  00 00 00 00  00 00 00 00 | length 48, RTM_NEWNEIGH, REQUEST|CREATE|REPLACE
      02 00 00 00  05 00 00 00  80 00 00 00              | AF_INET, link 5, PERMANENT
      08 00 01 00  0a 4d 00 0c                           | NDA_DST
      0a 00 02 00  02 42 0a 4d  00 0c 00 00              | NDA_LLADDR
      """
    #expect(NetlinkMessage.addNeighbour([10, 77, 0, 12], [2, 0x42, 10, 77, 0, 12], on: 5).bytes == bytes(neighbour))
  }

  @Test("a refusal carries errno and the kernel's words, with and without the request repeated")
  func refusal() {
    let message = NetlinkMessage.deleteLink(3, "x")
    let words: [UInt8] = [9, 0, 1, 0] + Array("nope".utf8) + [0, 0, 0, 0]
    let header = [UInt8](repeating: 0, count: 16)
    let capped = NetlinkReply(type: 2, flags: 0x300, sequence: 1, payload: nativeBytes(Int32(-EPERM)) + header + words)
    #expect(NetlinkSocket.refusal(capped, of: message) == NetlinkError(operation: "delete link", object: "x", errno: EPERM, detail: "nope"))
    let request = nativeBytes(UInt32(20)) + [UInt8](repeating: 0, count: 16)
    let whole = NetlinkReply(type: 2, flags: 0x200, sequence: 1, payload: nativeBytes(Int32(-EPERM)) + request + words)
    #expect(NetlinkSocket.refusal(whole, of: message)?.detail == "nope")
    #expect(NetlinkSocket.refusal(NetlinkReply(type: 2, flags: 0, sequence: 1, payload: nativeBytes(Int32(0)) + header), of: message) == nil)
    // No kernel says so; nothing is trapped by it.
    #expect(NetlinkSocket.refusal(NetlinkReply(type: 2, flags: 0, sequence: 1, payload: nativeBytes(Int32.min) + header), of: message) != nil)
  }

  @Test("no bytes from outside trap the reader")
  func garbage() {
    var generator = SystemRandomNumberGenerator()
    for _ in 0..<20_000 {
      var datagram = (0..<Int.random(in: 0...96)).map { _ in UInt8.random(in: 0...255, using: &generator) }
      if datagram.count >= 4 { datagram.replaceSubrange(0..<4, with: nativeBytes(UInt32(datagram.count))) }
      for reply in NetlinkReply.split(datagram) ?? [] {
        for type in [UInt16(2), 16, 20, 24, 28, 0x100] {
          var other = reply
          other.type = type
          _ = (LinkInfo(other), AddressInfo(other), ForwardingInfo(other), NetlinkSocket.refusal(other, of: .dumpLinks()))
          _ = (BridgeForwardingInfo(other), NeighbourInfo(other), FlowInfo(other), LinkRoute(other))
        }
      }
    }
  }
}

@Suite("Netlink and the kernel", .serialized, .enabled(if: geteuid() == 0))
struct NetlinkSocketTests {
  private func inNewNamespace<T: Sendable>(_ body: @escaping @Sendable (NetlinkSocket) throws -> T) async throws -> T {
    let thread = try NetworkThread(name: "test")
    return try await thread.run { try thread.insideNew { try body(NetlinkSocket()) } }
  }

  @Test("links, ports, addresses, forwarding entries and neighbours are read back as they were made")
  func roundTrip() async throws {
    try await inNewNamespace { socket in
      try socket.perform([
        .addLink("orbr9", .bridge, mac: [2, 0x42, 10, 9, 0, 1], mtu: 1450),
        .addLink("orvx9", .vxlan(id: 9, local: [10, 1, 1, 1], port: 4789), mtu: 1450),
      ])
      let bridge = try #require(try socket.links().first { $0.name == "orbr9" })
      let tunnel = try #require(try socket.links().first { $0.name == "orvx9" })
      #expect(bridge.kind == "bridge" && bridge.mac == [2, 0x42, 10, 9, 0, 1] && bridge.mtu == 1450 && !bridge.up)
      #expect(tunnel.vxlan == .init(id: 9, local: [10, 1, 1, 1], port: 4789, proxy: true))
      let entries = (1...200).map { (mac: [UInt8(2), 0, 0, 0, 0, UInt8($0)], host: [UInt8(10), 0, 0, UInt8($0)]) }
      try socket.perform(
        [
          .quietIPv6(bridge.index, "orbr9"), .setLink(tunnel.index, "orvx9", up: true, master: bridge.index),
          .setLink(bridge.index, "orbr9", up: true),
          .addAddress([10, 9, 0, 1], length: 24, on: bridge.index),
        ] + entries.map { .addForwarding($0.mac, to: $0.host, on: tunnel.index) } + [
          .setBridgePort(tunnel.index, "orvx9", hairpin: true, learning: false, flood: false),
          .addBridgeForwarding([2, 0, 0, 0, 1, 1], port: tunnel.index),
          .addNeighbour([10, 9, 0, 7], [2, 0, 0, 0, 0, 7], on: tunnel.index), .addNeighbour([10, 9, 0, 7], [2, 0, 0, 0, 0, 8], on: tunnel.index),
          .addNeighbour([10, 9, 0, 8], [2, 0, 0, 0, 0, 9], on: tunnel.index), .deleteNeighbour([10, 9, 0, 8], on: tunnel.index),
          .deleteNeighbour([10, 9, 0, 8], on: tunnel.index),
        ])
      let addresses = try socket.addresses()
      #expect(addresses.contains { $0.index == bridge.index && $0.address == [10, 9, 0, 1] && $0.length == 24 })
      let read = try socket.forwarding()
      #expect(read.tunnels.count == 200 && read.tunnels.allSatisfy { $0.index == tunnel.index })
      #expect(
        Set(read.bridges) == [
          BridgeForwardingInfo(mac: [2, 0, 0, 0, 1, 1], port: tunnel.index), BridgeForwardingInfo(mac: tunnel.mac, port: tunnel.index, .local),
          BridgeForwardingInfo(mac: bridge.mac, port: bridge.index, .local),
        ])
      let neighbours = try socket.neighbours()
      #expect(neighbours.map(\.address) == [[10, 9, 0, 7]] && neighbours.map(\.mac) == [[2, 0, 0, 0, 0, 8]])
      let port = try socket.links().first { $0.name == "orvx9" }
      #expect(port?.master == bridge.index && port?.bridgePort == .init(hairpin: true, learning: false, flood: false))
      // One with attributes that others set is not as it was made, and is made so again.
      let links = try socket.links()
      #expect(port?.vxlan?.isPlain == true && links.first { $0.name == "orbr9" }?.isPlainBridge == true)
      try socket.perform([
        .setPlainTunnel(tunnel.index, "orvx9"), .setPlainBridge(bridge.index, "orbr9"), .endVLANs(bridge.index, "orbr9"),
      ])
      try socket.perform([.openBridgePort(tunnel.index, "orvx9")])
      var again = try socket.links().first { $0.name == "orvx9" }
      // The kernel itself sends now and then.
      if let port { again?.dropped = port.dropped }
      #expect(again == port)
      try socket.perform([.deleteLink(tunnel.index, "orvx9"), .deleteLink(tunnel.index, "orvx9")])
      let names = try socket.links().map(\.name)
      #expect(!names.contains("orvx9"))
    }
  }

  @Test("a refusal names operation, object and cause; the other messages of the batch are done")
  func errors() async throws {
    try await inNewNamespace { socket in
      let error = #expect(throws: NetlinkError.self) {
        try socket.perform([.addLink("a", .bridge), .addLink("a", .bridge), .addLink("b", .bridge)])
      }
      #expect(error?.errno == EEXIST && error?.operation == "add link" && error?.object == "a")
      let names = try socket.links().map(\.name)
      #expect(names.contains("b"))
      let unknown = #expect(throws: NetlinkError.self) { try socket.perform([.setLink(4242, "ghost", up: true)]) }
      #expect(unknown?.errno == ENODEV)
    }
  }

  @Test("the thread is home again after work elsewhere, also when that failed")
  func home() async throws {
    let thread = try NetworkThread(name: "test")
    @Sendable func inode() -> UInt64 {
      var status = stat()
      stat("/proc/thread-self/ns/net", &status)
      return UInt64(status.st_ino)
    }
    let before = try await thread.run { inode() }
    let inside = try await thread.run { try thread.insideNew { inode() } }
    #expect(inside != before)
    struct Failure: Error {}
    await #expect(throws: Failure.self) { try await thread.run { try thread.insideNew { throw Failure() } } }
    #expect(try await thread.run { inode() } == before)
    await #expect(throws: NetlinkError.self) { try await thread.run(in: "/proc/self/ns/uts") {} }
    await #expect(throws: NetlinkError.self) { try await thread.run(in: "/does/not/exist") {} }
  }
}
