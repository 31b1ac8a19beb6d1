import Foundation
import Testing

extension MainJobTests {
  /// The managers' state as users ask, save and bring it back. Each test leaves three managers and the cluster as it was.
  @Suite(.serialized) struct Store {
    let cluster: LocalCluster
    private let hosts = ["host1", "host2", "host3"]
    init() throws { cluster = try LocalCluster.shared.get() }

    private func deploy(_ name: String, replicas: Int = 2, image: String = "web:1", service: String = "app") throws {
      let folder = try TemporaryFolder()
      let file = try folder.write(
        "\(name).yaml",
        """
        name: \(name)
        services:
          \(service):
            image: \(image)
            stop_grace_period: 1s
            deploy: {replicas: \(replicas)}
        """)
      try cluster.must(cluster.orch("deploy", file))
    }
    private func managers(on host: String = "host1") throws -> [[String: String]] {
      try cluster.orch("managers", "--format", "json", on: host).rows
    }
    private func curl(_ method: String, _ path: String, _ body: String? = nil) throws -> Outcome {
      let socket = cluster.socket().dropFirst("unix://".count)
      return try LocalCluster.run(
        "/usr/bin/curl",
        ["-s", "-m", "20", "--unix-socket", String(socket), "-X", method, "-H", "Content-Type: application/json", "-w", "\n%{http_code}"]
          + (body.map { ["-d", $0] } ?? []) + ["http://orch\(path)"])
    }

    @Test("orch sql answers on every manager with what was acknowledged just before, in three formats; what is no question is refused")
    func sql() async throws {
      defer { _ = try? cluster.orch("down", "sql") }
      try deploy("sql", replicas: 3)
      for host in hosts {
        let rows = try cluster.must(
          cluster.orch(
            "sql", "--format", "json", "select node, count(*) n from tasks where service = 'sql_app' and state = 'running' group by node", on: host)
        ).rows
        #expect(rows.compactMap { Int($0["n"] ?? "") }.reduce(0, +) == 3 && rows.allSatisfy { hosts.contains($0["node"] ?? "") }, "\(rows)")
      }
      let table = try cluster.must(cluster.orch("sql", "select name, role from nodes order by 1", on: "host2"))
      #expect(table.output == "NAME    ROLE\nhost1   manager\nhost2   manager\nhost3   manager\n", "\(table)")
      #expect(
        try cluster.must(cluster.orch("sql", "--format", "csv", "select name, state from nodes order by 1 limit 1")).output
          == "name,state\nhost1,ready\n")
      // The ids are those of the other commands.
      let ids = try cluster.must(cluster.orch("sql", "--format", "csv", "select id from tasks where service = 'sql_app' order by id")).output
      let shown = try cluster.tasks("sql_app").compactMap { $0["ID"] }.sorted()
      #expect(ids.split(separator: "\n").dropFirst().map(String.init) == shown)
      // A change is seen at once, also by a manager that does not lead.
      for replicas in [1, 4, 2] {
        try cluster.must(cluster.orch("scale", "--detach", "sql_app=\(replicas)", on: "host1"))
        for host in hosts {
          let seen = try cluster.must(cluster.orch("sql", "--format", "csv", "select replicas from services where name = 'sql_app'", on: host))
          #expect(seen.output == "replicas\n\(replicas)\n", "\(host): \(seen)")
        }
      }
      for (statement, reason) in [
        ("delete from tasks", "would write"), ("attach '/etc/passwd' as x", "ATTACH"), ("pragma journal_mode=off", "PRAGMA"),
        ("select 1; select 2", "more than one"), ("select settings from main.cluster", "cannot be read"),
        ("select load_extension('x')", "not allowed"),
        ("selec 1", "syntax error"), ("select * from secret_things", "the views are"),
      ] {
        let refused = try cluster.orch("sql", statement)
        #expect(refused.code == 1 && refused.errors.contains(reason) && refused.output.isEmpty, "\(statement): \(refused)")
      }
      let clock = ContinuousClock()
      let start = clock.now
      let slow = try cluster.orch("sql", "--timeout", "1", "with recursive n(i) as (select 1 union all select i+1 from n) select count(*) from n")
      #expect(slow.code == 1 && slow.errors.contains("stopped after 1 s") && clock.now - start < .seconds(20), "\(slow)")
    }

    @Test("no answer, table by table, holds a join token, a private key or what the log holds")
    func noSecrets() throws {
      let token = try cluster.must(cluster.orch("join-token", "-q", "manager")).output.trimmingCharacters(in: .whitespacesAndNewlines)
      let views = try cluster.must(cluster.orch("sql", "--format", "csv", "select distinct view from columns")).output.split(separator: "\n")
        .dropFirst()
      #expect(views.count >= 10)
      for view in views {
        let all = try cluster.must(cluster.orch("sql", "--format", "json", "select * from \(view)")).output
        #expect(!all.contains(token) && !all.contains(token.suffix(25)) && !all.contains("PRIVATE KEY") && !all.contains("sealedKey"), "\(view)")
      }
    }

    @Test("60,000 rows are streamed; the manager does not grow with them")
    func streamed() throws {
      let pid = try #require(try cluster.dev("hosts", "--format", "json").rows.first { $0["Name"] == "host2" }?["Manager"])
      func resident() throws -> Int {
        let status = try String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)
        return Int(status.split(separator: "\n").first { $0.hasPrefix("VmRSS") }?.split(separator: " ").dropFirst().first ?? "") ?? 0
      }
      let query = "with recursive n(i) as (select 1 union all select i+1 from n where i < 60000) select i, hex(zeroblob(100)) from n"
      _ = try cluster.must(cluster.orch("sql", "--timeout", "60", "--format", "csv", query, on: "host2", seconds: 90))
      let before = try resident()
      let all = try cluster.must(cluster.orch("sql", "--timeout", "60", "--format", "csv", query, on: "host2", seconds: 90))
      #expect(all.output.utf8.count > 12_000_000)
      let after = try resident()
      #expect(after < before + 9_000, "kB before \(before), after \(after)")
    }

    @Test("orch managers shows term, role, log index and lag; votes are taken and given by orch and by docker; a leader hands over first")
    func votes() async throws {
      let all = try managers()
      #expect(all.count == 3 && all.filter { $0["Leader"] == "yes" }.count == 1, "\(all)")
      for manager in all {
        #expect(manager["Role"] == "voter" && manager["Reachability"] == "reachable", "\(manager)")
        #expect(Int(manager["Term"] ?? "") ?? 0 > 0 && Int(manager["Lag"] ?? "") != nil, "\(manager)")
      }
      let listedIDs = try cluster.must(cluster.orch("managers", "-q")).output.split(separator: "\n").map(String.init)
      #expect(listedIDs == all.map { $0["NodeID"]! })
      for host in ["host3", "host1"] {
        let moved = try cluster.must(cluster.orch("manager", "transfer-leadership", host, on: "host2"))
        let leader = try cluster.leader
        #expect(moved.output == "\(host) leads\n" && leader == host)
      }
      // host1 leads.
      try cluster.must(cluster.orch("manager", "demote", "host1", on: "host2"))
      func role(_ host: String) throws -> String? { try managers(on: "host2").first { $0["Hostname"] == host }?["Role"] }
      #expect(try role("host1") == "learner")
      #expect(try cluster.leader != "host1")
      // It still answers, and stays what it is.
      #expect(try cluster.must(cluster.orch("sql", "--format", "csv", "select count(*) from managers where role = 'learner'")).output.contains("1"))
      try cluster.must(cluster.docker("node", "promote", "host1", on: "host3"))
      #expect(try role("host1") == "voter")
      try cluster.must(cluster.docker("node", "demote", "host2", on: "host3"))
      #expect(try role("host2") == "learner")
      let listed = try cluster.must(cluster.docker("node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}")).output
      #expect(listed.split(separator: "\n").contains("host2 ") || listed.split(separator: "\n").contains("host2"), "\(listed)")
      try cluster.must(cluster.orch("manager", "promote", "host2"))
      #expect(try role("host2") == "voter")

      let other = try #require(hosts.first { (try? cluster.leader) != $0 && $0 != "host1" })
      let left = try #require(hosts.first { $0 != other && $0 != (try? cluster.leader) })
      try cluster.must(cluster.dev("kill", other, "--manager"))
      try await eventually("\(other) is unreachable") {
        let seen = try managers(on: left).first { $0["Hostname"] == other }?["Reachability"]
        return (seen == "unreachable", "\(seen ?? "")")
      }
      let refused = try cluster.orch("manager", "remove", left, on: left)
      #expect(refused.code == 1 && refused.errors.contains("only 1 of 2") && refused.errors.contains("--force"), "\(refused)")
      try cluster.must(cluster.dev("start", other))
      try await eventually("all are reachable") {
        let seen = try managers()
        return (seen.count == 3 && seen.allSatisfy { $0["Reachability"] == "reachable" && $0["Lag"] == "0" }, "\(seen)")
      }
    }

    @Test("a stale version is refused with docker's words: by curl, and by a docker CLI that read before another changed")
    func outOfSequence() throws {
      defer { _ = try? cluster.orch("down", "seq") }
      try deploy("seq", replicas: 1)
      let read = try cluster.must(curl("GET", "/v1.45/services/seq_app"))
      let json = try #require(JSONSerialization.jsonObject(with: Data(read.output.split(separator: "\n")[0].utf8)) as? [String: Any])
      let version = try #require((json["Version"] as? [String: Any])?["Index"] as? Int)
      let spec = String(decoding: try JSONSerialization.data(withJSONObject: try #require(json["Spec"])), as: UTF8.self)
      #expect(try curl("POST", "/v1.45/services/seq_app/update?version=\(version)", spec).output.hasSuffix("\n200"))
      let stale = try curl("POST", "/v1.45/services/seq_app/update?version=\(version)", spec)
      #expect(stale.output.contains("update out of sequence") && stale.output.hasSuffix("\n500"), "\(stale)")
      // docker update reads, edits and writes: of many at once some lose, with these words, and none is half done.
      let outcomes = try LocalCluster.run(
        "/bin/sh", ["-c", "seq 8 | xargs -P 8 -I {} docker service update -d --label-add l{}=x seq_app 2>&1; true"],
        environment: ["DOCKER_HOST": cluster.socket()], seconds: 60)
      let lost = outcomes.output.components(separatedBy: "update out of sequence").count - 1
      let labels = try cluster.must(
        cluster.orch("sql", "--format", "csv", "select count(*) from services, json_each(labels) where name = 'seq_app' and key like 'l_'"))
      #expect(labels.output == "count(*)\n\(8 - lost)\n", "\(outcomes) \(labels)")
    }

    @Test("a reader of events that does not read is cut off in the end, and changes wait for nobody")
    func slowWatcher() throws {
      let path = cluster.socket().dropFirst("unix://".count)
      let script = """
        import http.client, json, socket
        class Unix(http.client.HTTPConnection):
            def connect(self):
                self.sock = socket.socket(socket.AF_UNIX); self.sock.connect('\(path)')
        events = socket.socket(socket.AF_UNIX); events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096); events.connect('\(path)')
        events.sendall(b'GET /events HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')
        api = Unix('x')
        def ask(method, path, body=None):
            api.request(method, path, body); answer = api.getresponse(); return answer.status, answer.read()
        changes = 0
        for number in range(1000):
            made = ask('POST', '/networks/create', json.dumps({'Name': 'slow%d' % number, 'Driver': 'overlay'}))
            changes += made[0] == 201
            changes += ask('DELETE', '/networks/' + json.loads(made[1])['Id'])[0] == 204
        events.settimeout(20)
        text = b''
        while True:
            part = events.recv(1 << 20)
            if not part: break
            text += part
        print('changes', changes); print('events', text.count(b'timeNano')); print('ended')
        """
      let outcome = try cluster.must(LocalCluster.run("/usr/bin/python3", ["-c", script], seconds: 200))
      #expect(outcome.output.contains("changes 2000") && outcome.output.contains("ended"), "\(outcome)")
      let seen = Int(outcome.output.split(separator: "\n").first { $0.hasPrefix("events ") }?.dropFirst(7) ?? "") ?? 2000
      #expect(seen < 2000, "\(outcome)")
    }

    @Test(
      "a backup of a busy cluster, everything of the managers destroyed, a new one made of it: services run on with their names, ids and containers")
    func disaster() async throws {
      let scratch = try TemporaryFolder()
      let folder = scratch.path
      defer { _ = try? cluster.orch("down", "keep") }
      try deploy("keep", replicas: 3)
      let busy = Task {
        var rounds = 0
        while !Task.isCancelled {
          _ = try? cluster.orch("scale", "--detach", "keep_app=\(3 + rounds % 2)")
          rounds += 1
        }
        return rounds
      }
      try await Task.sleep(for: .seconds(1))
      let file = "\(folder)/orch.db"
      let made = try cluster.must(cluster.orch("backup", file, on: "host2"))
      #expect(made.output.contains("3 nodes") && made.output.contains(file), "\(made)")
      busy.cancel()
      #expect(await busy.value > 0)
      let mode = try FileManager.default.attributesOfItem(atPath: file)[.posixPermissions] as? Int
      #expect(mode == 0o600)
      let again = try cluster.orch("backup", file)
      #expect(again.code == 1 && again.errors.contains("--force"), "\(again)")
      try cluster.must(cluster.orch("backup", "--force", "-q", file))
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["orch.db"])
      if FileManager.default.isExecutableFile(atPath: "/usr/bin/sqlite3") {
        let names = try cluster.must(
          LocalCluster.run("/usr/bin/sqlite3", [file, "select name from services where name = 'keep_app'; pragma integrity_check"]))
        #expect(names.output == "keep_app\nok\n")
      }
      let service = try cluster.must(cluster.orch("sql", "--format", "csv", "select id from services where name = 'keep_app'")).output
      try cluster.must(cluster.orch("scale", "keep_app=3"))
      try cluster.must(cluster.orch("backup", "--force", "-q", file))
      let containers = Set(try cluster.running("keep_app").compactMap { $0["ID"] })
      #expect(containers.count == 3)

      // Everything of the managers is lost but the backup and the unlock key.
      let key = "\(folder)/unlock.key"
      try cluster.must(cluster.on("host1", "cp", "/var/lib/orch/manager/unlock.key", key))
      for host in hosts {
        try cluster.must(cluster.dev("kill", host, "--manager"))
        try cluster.must(cluster.on(host, "rm", "-rf", "/var/lib/orch/manager"))
      }
      let manager = "\(LocalCluster.programs)/orch-manager"
      let without = try cluster.on("host1", manager, "init", "--advertise-addr", "192.168.77.1:2377", "--from-backup", file)
      #expect(without.code != 0 && without.errors.contains("--unlock-key"), "\(without)")
      let wrong = "\(folder)/wrong.key"
      try Data((0..<32).map { UInt8($0) }).write(to: URL(fileURLWithPath: wrong))
      let refused = try cluster.on(
        "host1", manager, "init", "--advertise-addr", "192.168.77.1:2377", "--from-backup", file, "--unlock-key", wrong)
      #expect(refused.code != 0 && refused.errors.contains("unlock key"), "\(refused)")
      try Data("no backup".utf8).write(to: URL(fileURLWithPath: "\(folder)/text"))
      let text = try cluster.on(
        "host1", manager, "init", "--advertise-addr", "192.168.77.1:2377", "--from-backup", "\(folder)/text", "--unlock-key", key)
      #expect(text.code != 0 && text.errors.contains("not a backup of orch"), "\(text)")
      try start("host1", "init --advertise-addr 192.168.77.1:2377 --from-backup \(file) --unlock-key \(key)", folder)

      try await eventually("three nodes are ready again", seconds: 60) {
        let nodes = try cluster.orch("nodes", "--format", "json")
        let log = (try? String(contentsOfFile: "\(folder)/log-host1", encoding: .utf8)) ?? ""
        return (nodes.rows.count == 3 && nodes.rows.allSatisfy { $0["Status"] == "Ready" }, "\(nodes) \(log)")
      }
      #expect(try cluster.must(cluster.orch("sql", "--format", "csv", "select id from services where name = 'keep_app'")).output == service)
      try await eventually("the same containers run") {
        let running = Set(try cluster.running("keep_app").compactMap { $0["ID"] })
        return (running == containers, "\(running) instead of \(containers)")
      }
      #expect(try managers().map { $0["Hostname"] } == ["host1"])
      try cluster.must(cluster.orch("scale", "keep_app=5"))
      #expect(try cluster.running("keep_app").count == 5)

      // The other managers again, on their nodes of before.
      try await joinOthers(folder)
      try await handBack(folder)
    }

    @Test("the majority lost for good: the manager that is left goes on alone with everything that was acknowledged; the others join anew")
    func forceNewCluster() async throws {
      let scratch = try TemporaryFolder()
      let folder = scratch.path
      defer { _ = try? cluster.orch("down", "left") }
      try deploy("left", replicas: 3)
      let containers = Set(try cluster.running("left_app").compactMap { $0["ID"] })
      let manager = "\(LocalCluster.programs)/orch-manager"
      let running = try cluster.on("host1", manager, "init", "--force-new-cluster")
      #expect(running.code != 0 && running.errors.contains("another orch-manager uses it"), "\(running)")
      // The last word that all three have: acknowledged by two at least, so perhaps not by host1.
      try cluster.must(cluster.orch("manager", "transfer-leadership", "host1"))
      try cluster.must(cluster.orch("scale", "--detach", "left_app=4", on: "host1"))
      for host in hosts { try cluster.must(cluster.dev("kill", host, "--manager")) }
      for host in hosts.dropFirst() { try cluster.must(cluster.on(host, "rm", "-rf", "/var/lib/orch/manager")) }
      try cluster.must(cluster.dev("start", "host1"))
      try await eventually("a manager without a majority still shows what it knows") {
        let alone = try cluster.orch("sql", "--stale", "--format", "csv", "select count(*) from services where name = 'left_app'")
        return (alone.output == "count(*)\n1\n", "\(alone)")
      }
      #expect(try cluster.orch("sql", "select 1").code == 1)
      try cluster.must(cluster.dev("kill", "host1", "--manager"))
      try start("host1", "init --force-new-cluster", folder)
      try await eventually("three nodes are ready again", seconds: 60) {
        let nodes = try cluster.orch("nodes", "--format", "json")
        return (nodes.rows.count == 3 && nodes.rows.allSatisfy { $0["Status"] == "Ready" }, "\(nodes)")
      }
      try await eventually("four run, three of them as before") {
        let now = Set(try cluster.running("left_app").compactMap { $0["ID"] })
        return (now.count == 4 && now.isSuperset(of: containers), "\(now)")
      }
      try await joinOthers(folder)
      try await handBack(folder)
    }

    /// A manager by hand, in the background; its pid is kept.
    private func start(_ host: String, _ arguments: String, _ folder: String) throws {
      try cluster.must(
        cluster.on(
          host, "sh", "-c",
          "setsid \(LocalCluster.programs)/orch-manager \(arguments) >\(folder)/log-\(host) 2>&1 </dev/null & echo $! >\(folder)/pid-\(host)"))
    }

    private func joinOthers(_ folder: String) async throws {
      let token = try cluster.must(cluster.orch("join-token", "-q", "manager")).output.trimmingCharacters(in: .whitespacesAndNewlines)
      for (number, host) in hosts.enumerated().dropFirst() {
        try start(host, "join --advertise-addr 192.168.77.\(number + 1):2377 --token \(token) 192.168.77.1:2377", folder)
        try await eventually("\(host) votes") {
          let seen = try managers()
          let log = (try? String(contentsOfFile: "\(folder)/log-\(host)", encoding: .utf8)) ?? ""
          return (seen.contains { $0["Hostname"] == host && $0["Role"] == "voter" }, "\(seen) \(log)")
        }
      }
      #expect(try cluster.orch("nodes", "-q").output.split(separator: "\n").count == 3, "a manager joins as the node that its agent is")
    }

    /// orch dev finds its managers by its own records: gives it back what was started by hand.
    private func handBack(_ folder: String) async throws {
      for host in hosts {
        try cluster.must(
          cluster.on(host, "sh", "-c", "pid=$(cat \(folder)/pid-\(host)); kill $pid; while kill -0 $pid 2>/dev/null; do sleep 0.1; done"))
        try cluster.must(cluster.dev("start", host))
      }
      try await eventually("three managers vote") {
        let seen = try managers()
        return (seen.count == 3 && seen.allSatisfy { $0["Role"] == "voter" && $0["Reachability"] == "reachable" }, "\(seen)")
      }
    }

    @Test("without room on the disk neither a backup nor a restore leaves anything behind; both say what is missing")
    func noRoom() async throws {
      let small = try LocalCluster(beside: "d", ["--hosts", "1", "--managers", "1", "--manager-disk", "20M"])
      defer { _ = try? small.dev("down", seconds: 60) }
      let folder = try TemporaryFolder()
      try small.must(LocalCluster.run("/bin/mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", folder.path]))
      defer { umount2(folder.path, Int32(MNT_DETACH)) }
      let refused = try small.orch("backup", "\(folder.path)/orch.db")
      #expect(refused.code == 1 && refused.errors.contains("are free there; make room, or name a file elsewhere"), "\(refused)")
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder.path).isEmpty)

      let other = try TemporaryFolder()
      try small.must(small.orch("backup", "-q", "\(other.path)/orch.db"))
      // The manager's disk has 20 MiB, of which 16 stay free.
      let large = "\(other.path)/large.db"
      try small.must(LocalCluster.run("/usr/bin/truncate", ["-s", "8M", large]))
      let restore = try small.orch("restore", "--yes", large)
      #expect(restore.code == 1 && restore.errors.contains("nothing was restored: it needs more room"), "\(restore)")
      try small.must(small.dev("fill", "host1"))
      let full = try small.orch("backup", "--stale", "\(other.path)/full.db")
      #expect(full.code == 1 && full.errors.contains("the backup was not made: it needs more room"), "\(full)")
      try small.must(small.dev("fill", "host1", "--free"))
      #expect(try FileManager.default.contentsOfDirectory(atPath: other.path).sorted() == ["large.db", "orch.db"])
      let left = try small.on("host1", "sh", "-c", "ls /var/lib/orch/manager | grep -c backup-")
      #expect(left.output == "0\n", "\(left)")
      try await eventually("the manager goes on") { (try small.orch("config", "create", "c", other.write("c", "c")).code == 0, "") }
    }

    @Test("orch restore brings a running cluster back to its backup, asks first, and refuses what is no backup")
    func restore() async throws {
      let folder = try TemporaryFolder()
      let file = "\(folder.path)/restore.db"
      defer { for stack in ["one", "two"] { _ = try? cluster.orch("down", stack) } }
      try deploy("one", replicas: 2)
      try cluster.must(cluster.orch("backup", "-q", file))
      let id = try cluster.must(cluster.orch("services", "-q")).output
      try deploy("one", replicas: 1, image: "web:2")
      try deploy("two", replicas: 1)
      let plan = try cluster.must(cluster.orch("restore", "--dry-run", file, on: "host2"))
      #expect(plan.output.contains("update   service one_app") && plan.output.contains("remove   service two_app"), "\(plan)")
      let unasked = try cluster.orch("restore", file)
      #expect(unasked.code == 1 && unasked.errors.contains("--yes"), "\(unasked)")
      #expect(try cluster.running("two_app").count == 1)
      try cluster.must(cluster.orch("restore", "--yes", file, on: "host3"))
      let restored = try cluster.running("one_app")
      #expect(restored.count == 2 && restored.allSatisfy { $0["Image"] == "web:1" })
      try await eventually("two is gone") {
        let services = try cluster.orch("services", "-q").output
        return (services == id, services)
      }
      #expect(try cluster.must(cluster.orch("restore", "--yes", file)).output.contains("already"))
      try Data("no backup".utf8).write(to: URL(fileURLWithPath: file))
      let refused = try cluster.orch("restore", "--yes", file)
      #expect(refused.code == 1 && refused.errors.contains("not a backup of orch"), "\(refused)")
    }
  }
}
