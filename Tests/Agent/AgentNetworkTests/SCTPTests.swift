import Model
import Testing

@testable import AgentNetwork

/// Published ports of SCTP, as text.
@Suite("SCTP")
struct SCTPTests {
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
