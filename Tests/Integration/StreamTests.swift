import Foundation
import Testing

extension MainJobTests {
  /// Connections that stay open. Nested, so that it takes turns with the rest.
  @Suite(.serialized, .enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/socat"), "needs socat")) struct Streams {
    let cluster: LocalCluster
    init() throws { cluster = try LocalCluster.shared.get() }
    private let hosts = ["host1", "host2", "host3"]

    @Test(
      "open connections lose no byte while all about them changes, breaks and is killed; they have the grace period when their own task is to end")
    func held() async throws {
      defer {
        for host in hosts { _ = try? cluster.dev("start", host) }
        _ = try? cluster.orch("down", "hold")
      }
      try cluster.must(cluster.deploy(manifest: Self.manifest, seconds: 90))
      let streams = try open()
      try await streams.goOn("at the beginning")
      try cluster.must(cluster.orch("scale", "echo=6", "other=4"))
      try cluster.must(cluster.orch("scale", "other=1"))
      try cluster.must(cluster.orch("update", "other", "--image", "web:2"))
      try await streams.goOn("while services grow, shrink and roll")
      try tamper("host2")
      try await streams.goOn("after links, entries and neighbours of host2 were spoilt")
      for host in hosts {
        for part in ["--agent", "--manager"] {
          try cluster.must(cluster.dev("kill", host, part))
          try await streams.goOn("without the \(part.dropFirst(2)) of \(host)")
          try cluster.must(cluster.dev("start", host))
        }
      }
      try await streams.goOn("after every daemon was killed")
      // An agent that has no session yet goes on by what it knew.
      try await cluster.nodesAreReady()

      try cluster.must(cluster.orch("scale", "-d", "echo=0"))
      try await eventually("nobody is to run any more") {
        let tasks = try cluster.tasks("echo").filter { $0["DesiredState"] == "Running" }
        return (tasks.isEmpty, "\(tasks)")
      }
      try await streams.goOn("in the grace period")
      try await eventually("a new connection is not answered") {
        let new = try cluster.on("host1", "sh", "-c", "echo 1 | timeout 2 socat - TCP:192.168.77.1:8094,connect-timeout=1")
        return (!new.output.contains("1"), "\(new)")
      }
      try await eventually("no task runs any more") {
        let tasks = try cluster.tasks("echo").filter { $0["CurrentState"]?.hasPrefix("Running") == true }
        return (tasks.isEmpty, "\(tasks)")
      }
      for stream in streams { #expect(stream.isWhole, "\(stream)") }
    }

    /// `nc` as first process is not ended by SIGTERM.
    private static let manifest = """
      name: hold
      services:
        echo:
          image: busybox:1
          command: [nc, -ll, -p, "7", -e, cat]
          ports: ["8094:7"]
          stop_grace_period: 15s
          deploy: {replicas: 3}
        other:
          image: web:1
          stop_grace_period: 1s
          deploy: {replicas: 2, update_config: {monitor: 100ms}}
        client:
          image: busybox:1
          command: [sleep, "100000"]
          stop_grace_period: 0s
      """

    /// At every host's port, and from a task at the virtual IP and at every task's own address.
    private func open() throws -> [Socat] {
      let client = try #require(try cluster.running("client").first)
      let (task, host) = (try #require(client["ID"]), try #require(client["Node"]))
      func addresses(_ name: String) throws -> [String] {
        let found = try cluster.must(cluster.orch("exec", task, "nslookup", name, "127.0.0.11")).output
        let words = found.split(whereSeparator: \.isWhitespace).map(String.init)
        return words.filter { $0.hasPrefix("10.") }
      }
      let inside = "nsenter --net=/run/orch/agent/netns/\(task) "
      let (virtual, own) = (try addresses("echo"), try addresses("tasks.echo"))
      #expect(virtual.count == 1 && own.count == 3, "\(virtual) \(own)")
      var all: [Socat] = []
      for (number, host) in hosts.enumerated() { all.append(try Socat(cluster, on: host, "", "TCP:192.168.77.\(number + 1):8094")) }
      for address in virtual + virtual + virtual + own { all.append(try Socat(cluster, on: host, inside, "TCP:\(address):7")) }
      return all
    }

    /// What an administrator's slip does: the agent puts it right, and connections wait for it. (Without the tables of nftables they do not: what is no
    /// longer translated is answered with a reset by the kernel.)
    private func tamper(_ host: String) throws {
      let spoil = """
        for link in $(ip -o link show type vxlan | cut -d: -f2); do bridge fdb show dev $link | grep dst | while read mac dst address rest; do
          bridge fdb del $mac dev $link dst $address self; done; ip link set $link down; done
        ip neigh flush nud permanent
        """
      try cluster.must(cluster.on(host, "sh", "-c", spoil))
    }
  }
}
