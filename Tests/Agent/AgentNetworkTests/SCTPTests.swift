import Glibc
import Model
import Testing

@testable import AgentNetwork

/// Published ports of SCTP: their rules as text, and packets where the kernel has it (`make test-vm`'s machine does).
@Suite("SCTP", .serialized)
struct SCTPTests {
  private static let number: Int32 = 132
  private static let isThere: Bool = {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), number)
    if descriptor >= 0 { close(descriptor) }
    return descriptor >= 0 && geteuid() == 0
  }()

  @Test(
    "messages of any size come to a task by every host's port, from any client's own address, and are answered, over IPv6, too",
    .enabled(if: isThere, "this kernel has no SCTP"), arguments: [IPFamily.v4, .v6])
  func packets(family: IPFamily) async throws {
    try await NamespaceWorld.with(2) { world in
      try await world.addIPv6()
      var cluster = Cluster(hosts: 2)
      cluster.dualIngress = true
      cluster.ports = [PortConfig(targetPort: 7, publishedPort: 7700, protocol: .sctp)]
      cluster.place(1, on: 1)
      let overlays = try (1...2).map { try world.overlay($0) }
      #expect(try await cluster.apply(to: overlays) == [])
      let task = try await overlays[0].attach(cluster.network(1)).path
      let server = try await world.open(SOCK_STREAM, in: task, port: 7, protocol: Self.number, any: family == .v6 ? "::" : "0.0.0.0")
      defer { close(server) }
      for (number, path) in [(100, world.outside), (1, world.host(1)), (2, world.host(2))] {
        for host in 1...2 {
          let client = try await world.open(SOCK_STREAM, in: path, connectedTo: world.underlay(host, family), port: 7700, protocol: Self.number)
          defer { close(client) }
          var taken: Int32 = -1
          let peer = try #require(
            SocketName { name, size in
              taken = accept(server, name, &size)
              return taken >= 0
            }, "from \(number) at host \(host)")
          defer { close(taken) }
          #expect(peer.host == world.underlay(number, family), "at host \(host)")
          for length in [10, 3_000, 20_000] {
            let there = carry(length, client, taken), back = carry(length, taken, client)
            #expect(there == length && back == length, "from \(number) at host \(host), \(length) bytes: \(there), \(back)")
          }
        }
      }
    }
  }

  /// How much of a message arrives.
  private func carry(_ length: Int, _ from: Int32, _ to: Int32) -> Int {
    var limit = timeval(tv_sec: 10, tv_usec: 0)
    setsockopt(to, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    send(from, [UInt8](repeating: 7, count: length), length, Int32(MSG_NOSIGNAL))
    var bytes = [UInt8](repeating: 0, count: length)
    var sum = 0
    while sum < length, case let count = recv(to, &bytes, length, 0), count > 0 { sum += count }
    return sum
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
}
