import Foundation
import Testing

extension MainJobTests {
  /// A host that is lost with all that runs on it, while others call its tasks. Nested, so that it takes turns with the rest.
  @Suite(.serialized, .enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/socat"), "needs socat")) struct Lost {
    let cluster: LocalCluster
    init() throws { cluster = try LocalCluster.shared.get() }

    @Test(
      "a host is lost: datagrams from one socket, by virtual IP and port, are answered by another task soon after it is down; connections are reset")
    func lost() async throws {
      var servers: [Int32] = []
      defer {
        for pid in servers { kill(pid, SIGKILL) }
        _ = try? cluster.dev("start", "host3")
        cluster.removeOutside()
        _ = try? cluster.orch("down", "lost")
      }
      try cluster.must(cluster.deploy(manifest: Self.manifest, seconds: 90))
      // busybox answers streams, by itself; datagrams are answered beside it, as the task.
      for task in try cluster.running("echo") {
        let (host, id) = (try #require(task["Node"]), try #require(task["ID"]))
        servers.append(
          try cluster.start(
            on: host,
            "nsenter --net=/run/orch/agent/netns/\(id) socat UDP4-RECVFROM:5300,fork SYSTEM:'read x; echo \(host)' < /dev/null > /dev/null 2>&1"))
      }
      #expect(servers.count == 2)
      let client = try #require(try cluster.running("client").first?["ID"])
      let found = try cluster.must(cluster.orch("exec", client, "nslookup", "echo", "127.0.0.11")).output
      let virtual = try #require(found.split(whereSeparator: \.isWhitespace).last { $0.hasPrefix("10.") })
      let inside = "nsenter --net=/run/orch/agent/netns/\(client) "
      let places = [
        ("host1", inside, "\(virtual):7", "\(virtual):5300"), (LocalCluster.outside, "", "192.168.77.1:8131", "192.168.77.1:8132"),
        ("host2", "", "192.168.77.2:8131", "192.168.77.2:8132"),
      ]
      var streams: [Socat] = []
      var flows: [Socat] = []
      for (host, enter, stream, flow) in places {
        streams.append(try await callsHost3 { _ in try Socat(cluster, on: host, enter, "TCP4:\(stream)", pause: "0.2") })
        // Connected to nobody, so that no refusal ends it.
        flows.append(try await callsHost3 { try Socat(cluster, on: host, enter, "UDP4-SENDTO:\(flow),bind=:\(6000 + $0)", pause: "0.2") })
      }

      try cluster.must(cluster.dev("kill", "host3"))
      let began = ContinuousClock.now
      try await eventually("host3 is down") {
        let nodes = try cluster.orch("nodes", "--format", "json").rows
        return (nodes.contains { $0["Hostname"] == "host3" && $0["Status"] == "Down" }, "\(nodes)")
      }
      let down = ContinuousClock.now
      try await eventually("host2 answers each socket", seconds: 5) { (flows.allSatisfy { $0.lines.last == "host2" }, "\(flows)") }
      let answered = ContinuousClock.now
      // What the lost tasks said last has 10 s to arrive; then the next retransmission, whose pauses double, is answered.
      try await eventually("each connection is reset", seconds: 60) { (streams.allSatisfy(\.ended), "\(streams)") }
      print("lost: down after \(down - began), datagrams answered after \(answered - began), connections reset after \(ContinuousClock.now - began)")
      // A write after the reset has EPIPE (tcp(7)); one that nobody answered would have ETIMEDOUT, many minutes later.
      let words = ["Connection reset by peer", "Broken pipe"]
      for stream in streams { #expect(words.contains { stream.errors.contains($0) }, "\(stream)") }
      for flow in flows { #expect(!flow.ended, "\(flow)") }
    }

    /// The first line of what comes back is the name of the host that answers. Backends are drawn at random: until it is one on host3.
    private func callsHost3(_ open: (Int) throws -> Socat) async throws -> Socat {
      for number in 1...40 {
        let call = try open(number)
        try await eventually("an answer") { (!call.lines.isEmpty, "\(call)") }
        if call.lines.first == "host3" { return call }
      }
      throw LocalCluster.Failure("no task on host3 was called in 40 tries")
    }

    private static let manifest = """
      name: lost
      services:
        echo:
          image: busybox:1
          command: [nc, -ll, -p, "7", -e, sh, -c, "echo $$HOST; exec cat"]
          environment: {HOST: "{{.Node.Hostname}}"}
          ports: ["8131:7", "8132:5300/udp"]
          stop_grace_period: 0s
          deploy: {mode: global, placement: {constraints: ["node.hostname != host1"]}}
        client:
          image: busybox:1
          command: [sleep, "100000"]
          stop_grace_period: 0s
          deploy: {placement: {constraints: ["node.hostname == host1"]}}
      """
  }
}
