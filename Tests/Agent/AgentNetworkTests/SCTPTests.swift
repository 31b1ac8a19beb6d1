import Glibc
import Model
import Testing

@testable import AgentNetwork

/// Published ports of SCTP. Packets need a kernel that has it (Debian's: `modprobe sctp`; `make test-vm` loads it).
@Suite("SCTP", .serialized)
struct SCTPTests {
  private static let number: Int32 = 132  // IPPROTO_SCTP
  private static var isThere: Bool {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), number)
    if descriptor >= 0 { close(descriptor) }
    return descriptor >= 0
  }

  @Test("its ports have rules of their own, beside those of TCP with the same number; with no task behind them they are refused")
  func rules() {
    var cluster = Cluster(hosts: 2)
    cluster.ports = [
      PortConfig(targetPort: 7, publishedPort: 7700, protocol: .sctp), PortConfig(targetPort: 8, publishedPort: 7700, protocol: .tcp),
    ]
    cluster.place(1, on: 1)
    let world = cluster.world(1)
    let text = Ruleset.host(world, ready: world.readyEndpoints(), unavailable: []).fresh
    #expect(text.contains("sctp . 7700 : goto port-sctp-7700") && text.contains("tcp . 7700 : goto port-tcp-7700"))
    #expect(text.contains("chain port-sctp-7700 {\n    meta l4proto sctp dnat to 10.255.0.11:7\n"))
    let closed = Ruleset.host(world, ready: [:], unavailable: []).fresh
    #expect(closed.contains("    sctp dport { 7700 } reject\n") && !closed.contains("goto port-"))
    let taken = Ruleset.host(world, ready: world.readyEndpoints(), unavailable: [PublishedPort(protocol: .sctp, number: 7700)]).fresh
    #expect(!taken.contains("port-sctp-7700") && taken.contains("goto port-tcp-7700"))
  }

  @Test("who has a port is read of the kernel's list of endpoints")
  func endpoints() {
    let line = "ffff8e2f0a3c5800 ffff8e2f0b6c1a40 2   10  40   7700      0 31337 0.0.0.0 "
    #expect(PortHolder.endpoint(line[...]).map { $0.0.description == "7700/sctp" && $0.1 == 31337 } == true)
    for other in ["", " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS", "ffff8e2f0a3c5800 ffff8e2f0b6c1a40 2 10 40 99999 0 1 0.0.0.0"] {
      #expect(PortHolder.endpoint(other[...]) == nil)
    }
  }

  @Test(
    "associations to a published port and a virtual IP arrive with their client's address, from outside, hosts and containers; taken ports are told",
    .enabled("this kernel has SCTP and this is root") { geteuid() == 0 && isThere }, arguments: [false, true])
  func packets(bridgeNetfilter: Bool) async throws {
    try await NamespaceWorld.with(2) { world in
      try await world.showBridgedFrames(bridgeNetfilter)
      var cluster = Cluster(hosts: 2)
      cluster.ports = [PortConfig(targetPort: 7, publishedPort: 7700, protocol: .sctp)]
      cluster.place(1, on: 1)
      let overlays = try (1...2).map { try world.overlay($0) }
      func apply() async throws -> [NetworkProblem] {
        var problems: [NetworkProblem] = []
        for (index, overlay) in overlays.enumerated() {
          problems += try await overlay.apply(networks: cluster.networks(of: index + 1), services: cluster.services, endpoints: cluster.endpoints)
        }
        return problems
      }
      #expect(try await apply() == [])
      let server = try await world.open(SOCK_STREAM, in: try await overlays[0].attach(cluster.network(1)).path, port: 7, protocol: Self.number)
      defer { close(server) }
      let near = try await overlays[0].attach(cluster.network(3, [cluster.web])).path
      let far = try await overlays[1].attach(cluster.network(4, [cluster.web])).path
      let calls = [
        (world.outside, "192.168.77.1", UInt16(7700), "192.168.77.100"), (world.outside, "192.168.77.2", 7700, "192.168.77.100"),
        (world.host(1), "192.168.77.1", 7700, "192.168.77.1"), (world.host(2), "192.168.77.2", 7700, "192.168.77.2"),
        (world.host(2), "192.168.77.1", 7700, "192.168.77.2"), (near, "10.77.0.2", 7, "10.77.0.13"), (far, "10.77.0.2", 7, "10.77.0.14"),
        (far, "10.77.0.11", 7, "10.77.0.14"),
      ]
      for (path, target, port, client) in calls {
        guard let seen = try await call(world, server, from: path, target, port) else {
          Issue.record("\(client) to \(target):\(port): no answer, errno \(errno)")
          continue
        }
        #expect(seen == client, "\(target):\(port)")
      }
      cluster.endpoints = []
      #expect(try await apply() == [])
      await #expect(throws: (any Error).self) {
        close(try await world.open(SOCK_STREAM, in: world.outside, connectedTo: "192.168.77.2", port: 7700, protocol: Self.number))
      }
      let other = try await world.open(SOCK_STREAM, in: world.host(2), port: 7701, protocol: Self.number)
      cluster.ports.append(PortConfig(targetPort: 7, publishedPort: 7701, protocol: .sctp))
      #expect(try await apply().map(\.object) == ["port 7701/sctp"])
      #expect(try await overlays[1].conflicts(on: cluster.ports).map(\.port) == [7701])
      close(other)
      #expect(try await apply() == [])
    }
  }

  /// The client's address as the server sees it; nil: no message came, or no answer.
  private func call(_ world: NamespaceWorld, _ server: Int32, from path: String, _ target: String, _ port: UInt16) async throws -> String? {
    guard let client = try? await world.open(SOCK_STREAM, in: path, connectedTo: target, port: port, protocol: Self.number) else { return nil }
    defer { close(client) }
    // What was too large is sent again after 3 s (RFC 9260 16, RTO.Initial).
    var limit = timeval(tv_sec: 20, tv_usec: 0)
    for descriptor in [server, client] { setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size)) }
    var peer = sockaddr_in()
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let accepted = withUnsafeMutablePointer(to: &peer) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { accept(server, $0, &size) }
    }
    guard accepted >= 0 else { return nil }
    defer { close(accepted) }
    var bytes = [UInt8](repeating: 0, count: 4096)
    for (from, to, count) in [(client, accepted, 16), (accepted, client, 16), (client, accepted, 3000), (accepted, client, 3000)] {
      guard send(from, bytes, count, Int32(MSG_NOSIGNAL)) == count, recv(to, &bytes, bytes.count, 0) > 0 else {
        print("SCTP: \(count) bytes to \(to == accepted ? "the server" : "the client"): errno \(errno)")
        return nil
      }
    }
    return "\(IPv4Address(UInt32(bigEndian: peer.sin_addr.s_addr)))"
  }
}
