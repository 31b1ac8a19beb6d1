import Foundation
import Testing

extension MainJobTests {
  /// Hosts that come back, after a partition or a loss of power: whole again, with all that changed while they were away. How soon: Benchmarks/network.
  @Suite(.serialized) struct Return {
    let cluster: LocalCluster
    private let folder: TemporaryFolder
    init() throws {
      cluster = try LocalCluster.shared.get()
      folder = try TemporaryFolder()
    }
    private let hosts = ["host1", "host2", "host3"]

    @Test("a host that was cut off while services and networks came, went and moved is whole again when it is heard: kernel, rules, names, traffic")
    func partition() async throws {
      defer { down() }
      try begin()
      let gone = try await network("before")
      for other in ["host1", "host2"] { try cluster.must(cluster.dev("partition", "host3", other)) }
      try await away()
      try await change()
      #expect(try on("host3", "ip -o link show orbr\(gone)").count == 1, "nobody told it")
      try cluster.must(cluster.dev("heal"))
      try await whole()
      #expect(try on("host3", "ip -o link show orbr\(gone)").isEmpty)
    }

    @Test("a host that lost its power, and every link, rule, container and file in /run with it, is whole again when it is heard")
    func reboot() async throws {
      defer { down() }
      try begin()
      try cluster.must(cluster.dev("kill", "host3"))
      try await away()
      try await change()
      try cluster.must(cluster.dev("start", "host3"))
      try await whole()
    }

    @Test(
      "two hosts that do not hear each other, in one direction, in both, on and off, have all else, and what runs between them goes on when they do",
      .enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/socat"), "needs socat"))
    func apart() async throws {
      defer {
        for host in hosts { _ = try? hear(all: host) }
        down()
      }
      try cluster.must(cluster.deploy(manifest: Self.echo, seconds: 90))
      // Followers' agents need the leader, and nobody else.
      let leader = try #require(try cluster.leader)
      let rest = hosts.filter { $0 != leader }
      let (a, b) = (rest[0], rest[1])
      let before = try cluster.running("apart_echo") + cluster.running("apart_client")
      #expect(before.count == 6)
      let others = try [(leader, a), (a, leader), (leader, b), (b, leader), (a, a), (b, b)].map { try stream($0, to: $1) }
      let between = try [(a, b), (b, a)].map { try stream($0, to: $1) }
      try await (others + between).goOn("at the beginning")
      for deaf in [[a], [b], [a, b]] {
        for host in deaf { try hear(host, not: host == a ? b : a) }
        // What was under way has come.
        try await Task.sleep(for: .milliseconds(500))
        let counts = between.map(\.count)
        try await others.goOn("while \(deaf) does not hear the other")
        #expect(between.map(\.count) == counts, "they are apart")
        for host in deaf { try hear(all: host) }
        try await between.goOn("when \(deaf) hears again", within: 5)
      }
      for _ in 1...10 {
        for host in [a, b] { try hear(host, not: host == a ? b : a) }
        try await Task.sleep(for: .milliseconds(200))
        for host in [a, b] { try hear(all: host) }
        try await Task.sleep(for: .milliseconds(200))
      }
      try await (others + between).goOn("after it came and went", within: 5)
      for stream in others + between { #expect(stream.isWhole && !stream.ended, "\(stream)") }
      // Who is heard by the leader is nobody's loss.
      let after = try cluster.running("apart_echo") + cluster.running("apart_client")
      #expect(Set(after.compactMap { $0["ID"] }) == Set(before.compactMap { $0["ID"] }))
      for host in hosts {
        for number in 1...3 {
          let answer = try cluster.on(host, "sh", "-c", "echo 1 | timeout 3 socat - TCP:192.168.77.\(number):8129,connect-timeout=2")
          #expect(answer.output == "1\n", "host\(number) from \(host): \(answer)")
        }
      }
    }

    /// `nc` as first process is not ended by SIGTERM.
    private static let echo = """
      name: apart
      services:
        echo:
          image: busybox:1
          command: [nc, -ll, -p, "7", -e, cat]
          ports: ['8129:7']
          stop_grace_period: 0s
          deploy: {mode: global}
        client: {image: "busybox:1", command: sleep 100000, stop_grace_period: 0s, deploy: {mode: global}}
      """

    /// From the client of one host to the own address of another's task.
    private func stream(_ host: String, to other: String) throws -> Socat {
      let client = try #require(try cluster.running("apart_client").first { $0["Node"] == host }?["ID"])
      let task = try #require(try cluster.running("apart_echo").first { $0["Node"] == other }?["ID"])
      let found = try rows("select address from addresses where owner_id = '\(task)' and network = 'apart_default'")
      let address = try #require(found.first?.first, "\(found)")
      return try Socat(cluster, on: host, "nsenter --net=/run/orch/agent/netns/\(client) ", "TCP:\(address):7")
    }
    /// The host does not take what the other sends; nobody is told.
    private func hear(_ host: String, not other: String) throws {
      let rules = "table ip cut { chain in { type filter hook prerouting priority -400; ip saddr 192.168.77.\(other.dropFirst(4)) drop; }; }"
      try cluster.must(cluster.on(host, "nft", rules))
    }
    private func hear(all host: String) throws { try cluster.must(cluster.on(host, "sh", "-c", "nft delete table ip cut 2>/dev/null || true")) }

    // MARK: - Scenes

    private func begin() throws {
      try deploy("before", port: 8126, replicas: 3)
      try deploy("stays", port: 8127, replicas: 4)
    }

    private func away() async throws {
      try await eventually("host3 is down and its tasks run elsewhere") {
        let nodes = try cluster.orch("nodes", "--format", "json").rows
        let running = try cluster.running("stays_shop").filter { $0["Node"] != "host3" }
        return (nodes.contains { $0["Hostname"] == "host3" && $0["Status"] == "Down" } && running.count == 4, "\(nodes) \(running)")
      }
    }

    /// A network and its services go, others come, a service grows, and its tasks are others.
    private func change() async throws {
      try cluster.must(cluster.orch("down", "-d", "before"))
      try deploy("after", port: 8128, replicas: 4)
      try cluster.must(cluster.orch("scale", "-d", "stays_shop=5"))
      try cluster.must(cluster.orch("update", "-d", "stays_shop", "--image", "web:2"))
      try await eventually("the update is through, on two hosts") {
        let tasks = try cluster.running("stays_shop")
        return (tasks.filter { $0["Image"] == "web:2" && $0["Node"] != "host3" }.count == 5, "\(tasks)")
      }
    }

    /// A second is promised, and measured in Benchmarks/network. What a comparison by time would mend is late here.
    private func whole() async throws {
      try await eventually("host3 is heard") {
        let nodes = try cluster.orch("nodes", "--format", "json").rows
        return (nodes.contains { $0["Hostname"] == "host3" && $0["Status"] == "Ready" }, "\(nodes)")
      }
      let heard = ContinuousClock.now
      var asked = heard
      try await eventually("host3 has its clients, and its kernel, rules and names are as the state says") {
        asked = .now
        guard let stays = try client("stays"), let after = try client("after") else { return (false, "\(try cluster.tasks("stays_client"))") }
        let lacks = try [kernel("host3"), inside(stays, "stays"), inside(after, "after")].compactMap { $0 }
        return (lacks.isEmpty, "\(lacks)")
      }
      print("ReturnTests: whole \(asked - heard) after it was heard")
      #expect(asked - heard < .seconds(5))
      // Traffic: by the virtual IP from its containers to every other host's tasks, and by its published ports.
      for stack in ["stays", "after"] {
        let task = try #require(try client(stack))
        let calls = """
          for i in $(seq 40); do nsenter --net=/run/orch/agent/netns/\(task) timeout 3 busybox wget -qO- \
          http://$(nsenter --net=/run/orch/agent/netns/\(task) busybox nslookup shop 127.0.0.11 | awk '/^Address/ {a=$NF} END {print a}')/ | grep host:; done
          """
        let answers = try cluster.on("host3", "sh", "-c", calls, seconds: 60).output.split(whereSeparator: \.isNewline)
        let there = Set(try cluster.running("\(stack)_shop").compactMap { $0["Node"] }.map { "host: \($0)" })
        #expect(answers.count == 40 && Set(answers.map(String.init)) == there, "\(stack): \(answers)")
      }
      for (port, host) in [(8127, "host3"), (8128, "host3"), (8128, "host1")] {
        let answer = try cluster.on(host, "timeout", "3", "busybox", "wget", "-qO-", "http://192.168.77.3:\(port)/")
        #expect(answer.code == 0, "\(port) from \(host): \(answer)")
      }
    }

    /// `shop` behind a port, and a client of it on every host.
    private func deploy(_ stack: String, port: Int, replicas: Int) throws {
      let file = "\(folder.path)/\(stack).yaml"
      try """
      name: \(stack)
      services:
        shop:
          image: web:1
          ports: ['\(port):80']
          environment: {SERVICE: "{{.Service.Name}}", HOST: "{{.Node.Hostname}}"}
          stop_grace_period: 1s
          deploy: {replicas: \(replicas)}
        client: {image: "busybox:1", command: sleep 100000, stop_grace_period: 0s, deploy: {mode: global}}
      """.write(toFile: file, atomically: true, encoding: .utf8)
      try cluster.must(cluster.orch("deploy", file))
    }

    private func down() {
      for host in hosts { _ = try? cluster.dev("start", host) }
      _ = try? cluster.dev("heal")
      for stack in ["before", "stays", "after", "apart"] { _ = try? cluster.orch("down", stack) }
    }

    // MARK: - What should be and what is

    private static let living = "t.state not in ('complete', 'shutdown', 'failed', 'rejected', 'remove', 'orphaned')"

    private func rows(_ query: String) throws -> [[String]] {
      let answer = try cluster.must(cluster.orch("sql", "--format", "csv", query)).output
      return answer.split(whereSeparator: \.isNewline).dropFirst().map { $0.split(separator: ",").map(String.init) }
    }
    private func on(_ host: String, _ script: String) throws -> Set<String> {
      Set(try cluster.on(host, "sh", "-c", script).output.split(whereSeparator: \.isNewline).map(String.init))
    }
    private func network(_ stack: String) async throws -> String {
      try #require(try rows("select vni from networks where name = '\(stack)_default'").first?.first)
    }
    /// That runs on host3.
    private func client(_ stack: String) throws -> String? {
      try cluster.running("\(stack)_client").first { $0["Node"] == "host3" }?["ID"]
    }
    private func mac(_ address: String) -> String {
      "02:42:" + address.split(separator: ".").map { String(format: "%02x", Int($0) ?? 0) }.joined(separator: ":")
    }

    /// What the host's tunnels lack or have too much: entries for the others' tasks on its networks and, on ingress, for the others; no other network.
    private func kernel(_ host: String) throws -> String? {
      let wanted = try rows(
        """
        with t as (select * from tasks t where \(Self.living)),
          mine as (select a.network_id n from addresses a join t on t.id = a.owner_id where t.node = '\(host)' union select id from networks where ingress),
          places as (select a.network_id n, a.address, t.node from addresses a join t on t.id = a.owner_id
            union select a.network_id, a.address, n.name from addresses a join nodes n on n.id = a.owner_id)
        select w.vni, p.address, h.address from places p join networks w on w.id = p.n join nodes h on h.name = p.node
          where p.n in (select n from mine) and p.node <> '\(host)'
        """)
      let tunnels = try rows(
        "select distinct w.vni from networks w join addresses a on a.network_id = w.id join tasks t on t.id = a.owner_id "
          + "where t.node = '\(host)' and \(Self.living) union select vni from networks where ingress")
      func differ(_ what: String, _ wanted: [String], _ command: String) throws -> String? {
        let difference = Set(wanted).symmetricDifference(try on(host, command))
        return difference.isEmpty ? nil : "\(what): \(difference.sorted())"
      }
      return try differ("tunnels", tunnels.map { "orvx\($0[0])" }, "ip -o link show type vxlan | cut -d: -f2 | tr -d ' '")
        ?? differ(
          "neighbours", wanted.map { "\($0[0]) \($0[1]) \(mac($0[1]))" },
          "ip -4 neigh show nud permanent | awk '$3 ~ /^orvx/ {print substr($3, 5), $1, $5}'")
        ?? differ(
          "forwarding", wanted.map { "\($0[0]) \(mac($0[1])) \($0[2])" },
          "bridge fdb show | awk '$3 ~ /^orvx/ && $4 == \"dst\" {print substr($3, 5), $1, $5}'")
    }

    /// The same of a task's rules and names.
    private func inside(_ task: String, _ stack: String) throws -> String? {
      let living = try rows(
        "select a.address, t.service, t.state from addresses a join tasks t on t.id = a.owner_id where a.network = '\(stack)_default' and \(Self.living)"
      )
      let ready = living.filter { $0[2] == "running" }
      let (all, shops) = (Set(ready.map { $0[0] }), Set(ready.filter { $0[1] == "\(stack)_shop" }.map { $0[0] }))
      let enter = "nsenter --net=/run/orch/agent/netns/\(task)"
      let alive = try on("host3", "\(enter) nft list set ip orch alive | grep -oE '[0-9]+[.][0-9]+[.][0-9]+[.][0-9]+'")
      let backends = try on("host3", "\(enter) nft list map ip orch backends | grep -oE ': [0-9][0-9.]+' | cut -c3-")
      let names = try on("host3", "\(enter) busybox nslookup tasks.shop 127.0.0.11 | awk '/^Address/ && !/:53/ {print $NF}'")
      if alive != Set(living.map { $0[0] }) { return "\(stack) alive: \(alive), not \(living)" }
      if backends != all { return "\(stack) backends: \(backends), not \(all)" }
      return names == shops ? nil : "\(stack) names: \(names), not \(shops)"
    }
  }
}
