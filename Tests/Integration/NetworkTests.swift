import Foundation
import Testing

extension MainJobTests {
  /// Published ports that others have, and silence of many hosts. Nested, so that it takes turns with the rest.
  @Suite(.serialized) struct Network {
    let cluster: LocalCluster
    init() throws { cluster = try LocalCluster.shared.get() }

    private func deploy(_ ports: String = "", replicas: Int = 1) throws -> Outcome {
      let manifest = """
        name: net
        services:
          shop:
            image: web:1
            \(ports)
            stop_grace_period: 1s
            deploy: {replicas: \(replicas)}
        """
      return try cluster.deploy(manifest: manifest)
    }
    private func down() { _ = try? cluster.orch("down", "net") }

    /// A process of the host that listens; its pid. It goes into the background by itself.
    private func listen(_ host: String, _ port: Int) throws -> Int32 {
      try cluster.must(cluster.on(host, "busybox", "httpd", "-p", "\(port)", "-h", "/etc"))
      let found = try cluster.must(LocalCluster.run("/usr/bin/pgrep", ["-fx", "busybox httpd -p \(port) -h /etc"])).output
      return try #require(Int32(found.trimmingCharacters(in: .whitespacesAndNewlines)))
    }

    @Test("a port that a process of one host has is refused before anything starts, with host and process")
    func refused() throws {
      defer { down() }
      let pid = try listen("host2", 8095)
      defer { kill(pid, SIGKILL) }
      let refused = try deploy("ports: ['8095:80']")
      #expect(refused.code == 1 && refused.errors.contains("8095/tcp by busybox (pid \(pid)) on host2"), "\(refused)")
      #expect(try !cluster.orch("services").output.contains("net_shop"))
      #expect(try !cluster.orch("networks").output.contains("net_default"))
      let docker = try cluster.docker("service", "create", "-d", "--name", "net_direct", "-p", "8095:80", "web:1", on: "host3")
      #expect(docker.code != 0 && docker.errors.contains("busybox (pid \(pid)) on host2"), "\(docker)")
      kill(pid, SIGKILL)
      try cluster.must(deploy("ports: ['8095:80']"))
    }

    @Test("a port that a process took while the agent was away is told by nodes, services, ps and scale, and taken back when it is free")
    func conflict() async throws {
      defer { down() }
      try cluster.must(deploy("ports: ['8096:80']"))
      try cluster.must(cluster.dev("kill", "host2", "--agent"))
      let pid = try listen("host2", 8096)
      defer { kill(pid, SIGKILL) }
      try cluster.must(cluster.dev("start", "host2"))
      let told = "host2: port 8096/tcp of net_shop is held by busybox (pid \(pid))"
      try await eventually("services tells") {
        let shown = try cluster.orch("services")
        return (shown.errors.contains(told), "\(shown)")
      }
      #expect(try cluster.orch("ps").errors.contains(told))
      #expect(try cluster.orch("nodes").errors.contains("host2: port 8096/tcp is held by busybox (pid \(pid))"))
      #expect(try cluster.orch("nodes", "--format", "json").rows.count == 3)
      let scaled = try cluster.must(cluster.orch("scale", "shop=2", on: "host3"))
      #expect(scaled.errors.contains(told), "\(scaled)")
      #expect(
        try cluster.must(cluster.on("host3", "timeout", "3", "busybox", "wget", "-qO-", "http://127.0.0.1:8096/")).output.contains("version: 1"))
      kill(pid, SIGKILL)
      try await eventually("it is free and host2 answers") {
        let shown = try cluster.orch("nodes")
        let answer = try cluster.on("host2", "timeout", "3", "busybox", "wget", "-qO-", "http://127.0.0.1:8096/")
        return (shown.errors.isEmpty && answer.output.contains("version: 1"), "\(shown) \(answer)")
      }
    }

    @Test(
      "a task in host mode is rejected where a process has its port, which its error names; none comes there any more until the port is free")
    func hostMode() async throws {
      defer { down() }
      let pid = try listen("host2", 8098)
      defer { kill(pid, SIGKILL) }
      let reason = "port 8098/tcp: busybox (pid \(pid)) has it on this host"
      // Two hosts are left for it, so that it is not refused at once.
      let deployed = try deploy("ports: [{target: 80, published: 8098, mode: host}]", replicas: 3)
      #expect(deployed.code == 1 && deployed.output.contains(reason), "\(deployed)")
      #expect(deployed.errors.contains("host-mode port already in use on 3 nodes"), "\(deployed)")
      try await eventually("rejected on host2, and two run") {
        let tasks = try cluster.tasks("shop")
        let rejected = tasks.filter {
          $0["Node"] == "host2" && ($0["CurrentState"] ?? "").hasPrefix("Rejected") && ($0["Error"] ?? "").contains(reason)
        }
        return (try !rejected.isEmpty && Set(cluster.running("shop").compactMap { $0["Node"] }) == ["host1", "host3"], "\(tasks)")
      }
      try await eventually("the third waits, and is told why") {
        let (why, nodes) = (try cluster.orch("why", "shop"), try cluster.orch("nodes"))
        return (
          why.output.contains("host-mode port already in use on 3 nodes")
            && nodes.errors.contains("host2: port 8098/tcp is held by busybox (pid \(pid))"),
          "\(why) \(nodes)"
        )
      }
      let before = try cluster.tasks("shop").count
      try await Task.sleep(for: .seconds(7))
      #expect(try cluster.tasks("shop").count == before, "no further task was tried there")
      kill(pid, SIGKILL)
      try await eventually("host2 runs one, and answers") {
        let answer = try cluster.on("host2", "timeout", "3", "busybox", "wget", "-qO-", "http://127.0.0.1:8098/")
        return (
          try cluster.running("shop").contains { $0["Node"] == "host2" } && answer.output.contains("version: 1"),
          "\(try cluster.tasks("shop")) \(answer)"
        )
      }
    }

    @Test("when all agents fall silent at once no task is replaced: their nodes are unknown until they are heard again")
    func silence() async throws {
      defer { down() }
      try cluster.must(deploy(replicas: 3))
      let before = Set(try cluster.running("shop").compactMap { $0["ID"] })
      let hosts = ["host1", "host2", "host3"]
      // At once: one that is silent alone for five seconds is lost.
      let pauses =
        hosts.map { "\(LocalCluster.programs)/orch dev pause \($0) --agent & pids=\"$pids $!\";" } + [
          "for pid in $pids; do wait $pid || exit 1; done"
        ]
      try cluster.must(LocalCluster.run("/bin/sh", ["-c", pauses.joined(separator: " ")], environment: ["ORCH_DEV_CLUSTER": cluster.name]))
      defer { for host in hosts { _ = try? cluster.dev("resume", host) } }
      try await eventually("all are unknown") {
        let nodes = try cluster.orch("nodes", "--format", "json")
        return (nodes.rows.allSatisfy { $0["Status"] == "Unknown" } && nodes.errors.contains("its tasks are left alone"), "\(nodes)")
      }
      for host in hosts { try cluster.must(cluster.dev("resume", host)) }
      try await eventually("all are ready") {
        let nodes = try cluster.orch("nodes", "--format", "json")
        return (nodes.rows.allSatisfy { $0["Status"] == "Ready" }, "\(nodes)")
      }
      #expect(Set(try cluster.running("shop").compactMap { $0["ID"] }) == before)
      #expect(try cluster.tasks("shop").count == 3)
    }

    @Test("while no manager lives, ports, names and virtual IPs go on as before on every host")
    func withoutManagers() async throws {
      let hosts = ["host1", "host2", "host3"]
      defer {
        for host in hosts { _ = try? cluster.dev("start", host) }
        down()
      }
      try cluster.must(deploy("ports: ['8097:80']", replicas: 3))
      let tasks = try cluster.running("shop")
      for host in hosts { try cluster.must(cluster.dev("kill", host, "--manager")) }
      #expect(try cluster.orch("nodes", seconds: 20).code != 0)
      for host in hosts {
        // Namespaces of earlier tests' tasks may still be on their way out.
        let task = try #require(tasks.first { $0["Node"] == host }?["ID"])
        let inside = """
          n=/run/orch/agent/netns/\(task)
          vip=$(nsenter --net=$n busybox nslookup shop 127.0.0.11 | awk '/^Address/ {a=$NF} END {print a}')
          for i in 1 2 3 4 5 6; do nsenter --net=$n timeout 3 busybox wget -qO- http://$vip/ | grep host:; done
          for i in 1 2 3; do timeout 3 busybox wget -qO- http://127.0.0.1:8097/ | grep host:; done
          """
        let said = try cluster.on(host, "sh", "-c", inside, seconds: 40)
        #expect(said.output.split(separator: "\n").count == 9, "\(host): \(said)")
        #expect(Set(said.output.split(separator: "\n")).count > 1, "\(host) reaches one host only: \(said)")
      }
      for host in hosts { try cluster.must(cluster.dev("start", host)) }
      try await cluster.nodesAreReady()
    }

    @Test("a subnet that ingress or a host's route has is refused by name; network_mode host and none are what they say")
    func networks() async throws {
      defer {
        down()
        _ = try? cluster.orch("network", "rm", "own")
      }
      let route = try cluster.orch("network", "create", "--subnet", "192.168.0.0/16", "own")
      #expect(route.code == 1 && route.errors.contains("overlaps the route 192.168.") && route.errors.contains("of host host1"), "\(route)")
      try cluster.must(cluster.orch("network", "create", "--subnet", "10.250.0.0/24", "--ip-range", "10.250.0.64/26", "--attachable", "own"))
      let other = try cluster.docker("network", "create", "-d", "overlay", "--subnet", "10.0.0.0/16", "other")
      #expect(other.code != 0 && other.errors.contains("overlaps 10.0.0.0/24 of network ingress"), "\(other)")
      try await full()
      let sealed = try cluster.docker("network", "create", "-d", "overlay", "--opt", "encrypted", "other")
      #expect(sealed.code != 0 && sealed.errors.contains("orch does not encrypt networks yet"), "\(sealed)")
      let once = try cluster.orch(
        "run", "--rm", "--network", "own", "busybox:1", "sh", "-c", "ip -o -4 address show eth0; cat /sys/class/net/eth0/mtu")
      #expect(once.output.contains("inet 10.250.0.6") || once.output.contains("inet 10.250.0.7"), "\(once)")

      let manifest = """
        name: net
        services:
          bare: {image: "busybox:1", command: sleep 1000, network_mode: none, stop_grace_period: 1s}
          shared: {image: "busybox:1", command: sleep 1000, network_mode: host, stop_grace_period: 1s, dns: [192.0.2.53, "fd00::53"]}
          named:
            image: busybox:1
            command: sleep 1000
            stop_grace_period: 1s
            hostname: own
            domainname: example.org
            extra_hosts: ["other.example:192.0.2.8"]
            dns: 127.0.0.1
            dns_search: [a.example, b.example]
            dns_opt: ["timeout:1"]
        """
      try cluster.must(cluster.deploy(manifest: manifest))
      func interfaces(_ task: String) throws -> [String] {
        let table = try cluster.must(cluster.orch("exec", task, "cat", "/proc/net/dev")).output
        return table.split(separator: "\n").dropFirst(2).compactMap { $0.split(separator: ":").first.map { $0.trimmingCharacters(in: .whitespaces) } }
      }
      #expect(try interfaces("bare.1") == ["lo"])
      // A container of its own has an eth0, too: it is the namespace that tells.
      let place = try #require(try cluster.running("net_shared").first?["Node"])
      func namespace(_ outcome: Outcome) throws -> String { try cluster.must(outcome).output.trimmingCharacters(in: .whitespacesAndNewlines) }
      let own = try namespace(cluster.on(place, "readlink", "/proc/self/ns/net"))
      #expect(own.hasPrefix("net:["))
      #expect(try namespace(cluster.orch("exec", "shared.1", "readlink", "/proc/self/ns/net")) == own)
      #expect(try namespace(cluster.orch("exec", "bare.1", "readlink", "/proc/self/ns/net")) != own)
      let hosts = try cluster.must(cluster.orch("exec", "shared.1", "sh", "-c", "grep ^nameserver /etc/resolv.conf")).output
      #expect(hosts.split(whereSeparator: \.isNewline).map(String.init) == ["nameserver 192.0.2.53", "nameserver fd00::53"], "\(hosts)")
      let named = try cluster.must(
        cluster.orch(
          "exec", "named.1", "sh", "-c",
          """
          cat /etc/hostname /proc/sys/kernel/domainname; hostname; cat /etc/resolv.conf; grep -E 'own|other' /etc/hosts | sed 's/^[0-9.]*//'
          timeout 5 nslookup -type=a own.example.org 127.0.0.11 | awk '/^Address/ && !/:53/ {print $NF}'
          """)
      ).output.split(whereSeparator: \.isNewline).map { $0.replacing("\t", with: " ") }
      #expect(
        named.dropLast() == [
          "own", "example.org", "own", "search a.example b.example", "nameserver 127.0.0.11", "options ndots:0 timeout:1",
          " other.example", " own.example.org own",
        ] && named.last?.hasPrefix("10.") == true, "\(named)")
      // Tampered with, repaired, counted, told.
      let host = try #require(try cluster.running("net_named").first?["Node"])
      try cluster.must(cluster.on(host, "nft", "delete", "table", "ip", "orch"))
      try await eventually("inspect tells of the repair") {
        let shown = try cluster.orch("inspect", "--type", "node", host)
        let repairs = shown.output.split(separator: "\"NetworkRepairs\"").last?.prefix { $0 != "}" } ?? ""
        return (shown.output.contains("\"NetworkRepairs\"") && repairs.contains("\"rules\""), "\(shown)")
      }
      let docker = try cluster.docker("service", "create", "-d", "--name", "net_direct", "--network", "host", "busybox:1", "sleep", "1000")
      #expect(docker.code == 0, "\(docker)")
      _ = try cluster.orch("rm", "net_direct")
    }

    /// A subnet with five addresses to give: a virtual IP and four tasks have them, the others wait and say why, until one is free again.
    private func full() async throws {
      try cluster.must(cluster.orch("network", "create", "--subnet", "10.251.0.0/29", "small"))
      defer {
        _ = try? cluster.orch("rm", "crowd")
        _ = try? cluster.orch("network", "rm", "small")
      }
      try cluster.must(
        cluster.docker("service", "create", "-d", "--name", "crowd", "--network", "small", "--replicas", "9", "busybox:1", "sleep", "1000"))
      func running() throws -> [String] { try cluster.running("crowd").compactMap { $0["ID"] } }
      try await eventually("four run, and the others are told why not") {
        let why = try cluster.orch("why", "crowd")
        let reason = "network small has no free address (5 of 10.251.0.0/29 are in use): give it a larger subnet"
        return (try why.output.contains(reason) && running().count == 4, "\(why)")
      }
      try cluster.must(cluster.orch("scale", "crowd=3"))
      try await eventually("three run") { (try running().count == 3, "\(try cluster.tasks("crowd"))") }
      try cluster.must(cluster.orch("scale", "crowd=4"))
      try await eventually("the fourth has the address that became free") { (try running().count == 4, "\(try cluster.tasks("crowd"))") }
      #expect(try !cluster.orch("why", "crowd").output.contains("no free address"))
    }

    @Test("three stacks with one subnet: each reaches its own by name, virtual IP and port, and the outside; none another's")
    func equalSubnets() async throws {
      let stacks = ["one", "two", "three"]
      var files: [URL] = []
      defer {
        for stack in stacks { _ = try? cluster.orch("down", stack) }
        for file in files { try? FileManager.default.removeItem(at: file) }
      }
      func manifest(_ stack: String, _ number: Int, networks: String = "[default]", more: String = "") throws -> URL {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("net-\(UUID()).yaml")
        files.append(file)
        try """
        name: \(stack)
        services:
          shop:
            image: web:1
            ports: ['\(8110 + number):80']
            networks: \(networks)
            environment: {SERVICE: "{{.Service.Name}}", HOST: "{{.Node.Hostname}}"}
            stop_grace_period: 1s
            deploy: {mode: global}
          client:
            image: busybox:1
            command: sleep 1000
            networks: \(networks)
            stop_grace_period: 1s
            deploy: {mode: global}
        networks:
          default:
            ipam: {config: [{subnet: 10.66.0.0/24}]}
        \(more)
        """.write(to: file, atomically: true, encoding: .utf8)
        return file
      }
      for (number, stack) in stacks.enumerated() { try cluster.must(cluster.orch("deploy", manifest(stack, number).path)) }
      let hosts = ["host1", "host2", "host3"]
      for (number, stack) in stacks.enumerated() {
        for client in try cluster.running("\(stack)_client") {
          let (host, id) = (try #require(client["Node"]), try #require(client["ID"]))
          // By virtual IP, by every task's address, by the names that the others have, by the published port.
          let inside = """
            ip -o -4 address show eth0 | grep -c 10.66.0.
            vip=$(busybox nslookup shop 127.0.0.11 | awk '/^Address/ && !/:53/ {print $NF}')
            for i in $(seq 10); do timeout 3 busybox wget -qO- http://$vip/; done | grep service: | sort -u
            for i in $(busybox nslookup tasks.shop 127.0.0.11 | awk '/^Address/ && !/:53/ {print $NF}'); do
              timeout 3 busybox wget -qO- http://$i/; done | grep -E '^(service|host):' | sort -u
            for i in \(stacks.filter { $0 != stack }.map { "\($0)_shop" }.joined(separator: " ")); do
              busybox nslookup $i 127.0.0.11 >/dev/null 2>&1 && echo found $i; done
            timeout 3 busybox wget -qO- http://192.168.77.\(host.last!):\(8110 + number)/ | grep service:
            """
          let said = try cluster.on(host, "nsenter", "--net=/run/orch/agent/netns/\(id)", "sh", "-c", inside, seconds: 60).output
          let wanted = ["1", "service: \(stack)_shop"] + hosts.map { "host: \($0)" } + ["service: \(stack)_shop", "service: \(stack)_shop"]
          #expect(said.split(separator: "\n").map(String.init) == wanted, "\(stack) on \(host): \(said)")
        }
        for host in hosts {
          let answer = try cluster.on(host, "timeout", "3", "busybox", "wget", "-qO-", "http://127.0.0.1:\(8110 + number)/")
          #expect(answer.output.contains("service: \(stack)_shop"), "\(answer)")
        }
      }
      let both = try cluster.orch(
        "deploy",
        manifest("both", 3, networks: "[default, theirs]", more: "  theirs: {external: true, name: one_default}").path)
      #expect(
        both.code == 1 && both.errors.contains("overlaps 10.66.0.0/24 of network") && both.errors.contains("one task cannot be on both"), "\(both)")
    }

    @Test("a service on a network with IPv6: found by AAAA, called by name and virtual IP from every host, published over both, and it reaches out")
    func dualStack() throws {
      let hosts = ["host1", "host2", "host3"]
      defer {
        down()
        _ = try? cluster.orch("network", "rm", "both6")
        for host in hosts { _ = try? cluster.on(host, "ip", "address", "del", "fd00:9::\(host.last!)/64", "dev", "eth0") }
      }
      for host in hosts { try cluster.must(cluster.on(host, "ip", "address", "add", "fd00:9::\(host.last!)/64", "dev", "eth0", "nodad")) }
      try cluster.must(cluster.orch("network", "create", "--ipv6", "--subnet", "10.79.0.0/24", "--subnet", "fd00:79::/64", "both6"))
      let manifest = """
        name: net
        services:
          shop:
            image: busybox:1
            command: httpd -f -p 80 -h /etc
            networks: [both, theirs]
            ports: ['8121:80']
            stop_grace_period: 1s
            deploy: {mode: global}
        networks:
          both: {enable_ipv6: true}
          theirs: {external: true, name: both6}
        """
      try cluster.must(cluster.deploy(manifest: manifest))
      let inspected = try cluster.must(cluster.orch("network", "inspect", "net_both", "both6")).output
      #expect(inspected.components(separatedBy: "\"EnableIPv6\": true").count == 3, "\(inspected)")
      #expect(inspected.contains("\"Subnet\": \"fd00:79::/64\"") && inspected.components(separatedBy: "\"Subnet\": \"fd").count == 3, "\(inspected)")
      let tasks = try cluster.running("net_shop")
      #expect(tasks.count == 3)
      for task in tasks {
        let (host, id) = (try #require(task["Node"]), try #require(task["ID"]))
        let other = hosts.first { $0 != host }!
        // By the task's own resolver, whose file is bound over the host's in a mount namespace of the shell's.
        let said = try cluster.on(
          host, "nsenter", "--net=/run/orch/agent/netns/\(id)", "unshare", "-m", "sh", "-c",
          """
          mount --bind /run/orch/agent/tasks/\(id)/resolv.conf /etc/resolv.conf
          ask() { timeout 5 busybox wget -qO- "http://[$1]/hostname" || echo "nobody at $1"; }
          address() { busybox nslookup -type=aaaa $1 127.0.0.11 | awk '/^Address/ && !/:53/ {print $NF}' | sort; }
          for a in $(address tasks.shop); do ask $a; done | sort -u | wc -l
          vip=$(address shop)
          for i in 1 2 3 4 5 6 7 8 9 10 11 12; do ask $vip; done | sort -u | tr '\\n' ' ' | wc -w
          getent ahostsv6 shop | awk '{print $1}' | sort -u | cut -c1-2
          getent hosts $(address tasks.shop | head -n 1) | grep -c shop
          timeout 5 busybox ping -6 -c1 -W3 fd00:9::\(other.last!) | grep -c '1 packets received'
          """, seconds: 60
        ).output.split(separator: "\n").map { $0.filter { $0 != " " } }
        #expect(said == ["3", "3", "fd", "1", "1"], "\(host): \(said)")
        let own = try cluster.must(cluster.orch("exec", id, "sh", "-c", "grep -c \"^fd.*$(cat /etc/hostname)\" /etc/hosts")).output
        // Two networks and ingress.
        #expect(own.hasPrefix("3"), "\(own)")
      }
      for host in hosts {
        for target in ["127.0.0.1", "[::1]"] + hosts.map({ "[fd00:9::\($0.last!)]" }) {
          let answer = try cluster.on(host, "timeout", "3", "busybox", "wget", "-qO-", "http://\(target):8121/hostname")
          #expect(answer.code == 0 && !answer.output.isEmpty, "\(target) from \(host): \(answer)")
        }
      }
    }

    @Test("an agent whose disk does not take what it is assigned does not say that it lives by it, and does when the disk takes it again")
    func kept() async throws {
      let file = "/var/lib/orch/agent/assignments"
      defer {
        _ = try? cluster.on("host3", "sh", "-c", "[ ! -d \(file) ] || rm -r \(file)")
        down()
      }
      try cluster.must(deploy(replicas: 4))
      // A folder that is not empty is replaced by no file.
      try cluster.must(cluster.on("host3", "sh", "-c", "rm \(file) && mkdir \(file) && echo > \(file)/x"))
      let leader = try #require(try cluster.leader)
      func complaints() throws -> Int {
        let log = "/var/lib/orch/dev/\(cluster.name)/\(leader)/log/orch-manager.log"
        let text = String(decoding: FileManager.default.contents(atPath: log) ?? Data(), as: UTF8.self)
        return text.components(separatedBy: "though host3 did not say that nobody is sent to it any more").count
      }
      let before = try complaints()
      try cluster.must(cluster.orch("scale", "shop=2"))
      try await eventually("the leader waited for host3 in vain") {
        let now = try complaints(); return (now > before, "\(before) \(now)")
      }
      try cluster.must(cluster.on("host3", "rm", "-r", file))
      // Tried again, though nothing changes.
      try await eventually("what host3 is assigned is on its disk") {
        let look = try cluster.on("host3", "test", "-f", file); return (look.code == 0, "\(look)")
      }
      let after = try complaints()
      try cluster.must(cluster.orch("scale", "shop=1"))
      #expect(try complaints() == after)
    }

    @Test("an agent that starts removes what a crash left of tasks, and nothing else; tasks go on though what it kept of them cannot be read")
    func sweep() async throws {
      defer { down() }
      try cluster.must(deploy(replicas: 3))
      let mine = "0000000000000000000000abc"
      // Of a task that no manager knows; of nobody; and a running one's.
      try cluster.must(
        cluster.on(
          "host2", "sh", "-c",
          """
          set -e
          for f in /run/orch/agent/tasks /var/lib/orch/agent/containers/containers; do mkdir -p $f/\(mine)/mounted $f/keep.me; done
          mkdir -p /run/orch/agent/netns/keep.me /run/orch/agent/kept; touch /run/orch/agent/netns/\(mine)
          unshare --net=/run/orch/agent/netns/\(mine) true
          echo precious > /run/orch/agent/kept/file; mount --bind /run/orch/agent/kept /run/orch/agent/tasks/\(mine)/mounted
          ip link add ov\(mine.suffix(10))0 type veth peer name left0; ip link add ovkeep type veth peer name keep0
          """))
      // Processes in a group of each.
      let groups = try cluster.must(
        LocalCluster.run(
          "/bin/sh",
          [
            "-ec",
            """
            for id in \(mine) keep.me; do
              sleep 1000 >/dev/null 2>&1 & echo $!
              for root in /sys/fs/cgroup /sys/fs/cgroup/*; do
                group=$root/orch-dev-\(cluster.name)/host2/containers
                [ -d $group ] || continue
                # It would have no CPUs there.
                [ ! -e $root/release_agent ] || [ ! -e $group/cpuset.cpus ] || continue
                mkdir $group/$id
                echo $! > $group/$id/cgroup.procs
              done
            done
            """,
          ]))
      let processes = groups.output.split(separator: "\n").compactMap { Int32($0) }
      defer {
        for process in processes { kill(process, SIGKILL) }
        _ = try? LocalCluster.run(
          "/bin/sh",
          [
            "-c",
            "sleep 0.2; rmdir /sys/fs/cgroup/orch-dev-\(cluster.name)/host2/containers/keep.me /sys/fs/cgroup/*/orch-dev-\(cluster.name)/host2/containers/keep.me",
          ])
      }
      try #require(processes.count == 2, "\(groups)")
      try cluster.must(cluster.on("host2", "sh", "-c", "echo nothing of it > /var/lib/orch/agent/assignments"))
      try cluster.must(cluster.dev("kill", "host2", "--agent"))
      try cluster.must(cluster.dev("start", "host2"))
      try await eventually("only ours is gone") {
        let left = try cluster.on("host2", "sh", "-c", "ls -d /run/orch/agent/*/* /var/lib/orch/agent/containers/containers/*").output
        let links = try cluster.on("host2", "ip", "-o", "link").output
        return (
          !left.contains(mine) && left.components(separatedBy: "keep.me").count == 4 && !links.contains("left0") && links.contains("ovkeep"),
          left + links
        )
      }
      #expect(try cluster.on("host2", "cat", "/run/orch/agent/kept/file").output == "precious\n")
      #expect(try !cluster.on("host2", "cat", "/proc/self/mountinfo").output.contains(mine))
      // It may be a while until its parent reaps the killed one.
      let states = processes.map { (try? String(contentsOfFile: "/proc/\($0)/stat", encoding: .utf8)) ?? ") Z " }
      #expect(states[0].contains(") Z ") && states[1].contains(") S "), "\(states)")
      let left = try LocalCluster.run("/bin/sh", ["-c", "find /sys/fs/cgroup -path '*/orch-dev-\(cluster.name)/host2/containers/*' -type d"]).output
      #expect(left.contains("/keep.me") && !left.contains(mine), "\(left)")
      _ = try cluster.on(
        "host2", "sh", "-c",
        "ip link del ovkeep; rm -rf /run/orch/agent/kept /run/orch/agent/*/keep.me /var/lib/orch/agent/containers/containers/keep.me")
      // A host that was away for more than 3 s has other tasks then.
      try await eventually("names and virtual IPs answer in its tasks") {
        guard let task = try cluster.running("shop").first(where: { $0["Node"] == "host2" })?["ID"] else {
          return (false, "\(try cluster.tasks("shop"))")
        }
        let said = try cluster.on(
          "host2", "sh", "-c",
          """
          n=/run/orch/agent/netns/\(task)
          vip=$(nsenter --net=$n busybox nslookup shop 127.0.0.11 | awk '/^Address/ {a=$NF} END {print a}')
          nsenter --net=$n timeout 3 busybox wget -qO- http://$vip/
          """)
        return (said.output.contains("version: 1"), "\(said)")
      }
    }
  }
}
