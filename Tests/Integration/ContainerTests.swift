import Foundation
import Testing

extension MainJobTests {
  /// What issue 2 asks of containers, seen through the public commands on real hosts.
  @Suite struct ContainerTests {
    let cluster: LocalCluster
    private let scratch: TemporaryFolder
    private var folder: String { scratch.path }
    static let stack = "box"
    init() throws {
      cluster = try LocalCluster.shared.get()
      scratch = try TemporaryFolder()
    }

    /// Deploys services as the stack `box`, from a relative path as a user types it, and removes it all in the end.
    private func with(_ services: String, top: String = "", _ body: () async throws -> Void) async throws {
      try FileManager.default.createDirectory(atPath: "\(folder)/bound", withIntermediateDirectories: true)
      try "beside\n".write(toFile: "\(folder)/bound/file", atomically: true, encoding: .utf8)
      try "name: \(Self.stack)\nservices:\n\(services)\n\(top)\n".write(toFile: "\(folder)/box.yaml", atomically: true, encoding: .utf8)
      let here = FileManager.default.currentDirectoryPath
      _ = FileManager.default.changeCurrentDirectoryPath(folder)
      defer { _ = FileManager.default.changeCurrentDirectoryPath(here) }
      do {
        try cluster.must(cluster.orch("deploy", "box.yaml", "--detach"))
        try await body()
      } catch {
        _ = try? cluster.orch("down", Self.stack, "--volumes")
        throw error
      }
      let down = try cluster.must(cluster.orch("down", Self.stack, "--volumes"))
      #expect(down.errors.isEmpty, "\(down)")
      try await eventually("every trace is gone") {
        let left = try remains(); return (left.isEmpty, left)
      }
    }

    /// Cgroups of containers, their state and data, their mounts and namespaces on every host: none, once the stack is gone.
    private func remains() throws -> String {
      // A stub that waits has a process; the cgroup of one that became a container has its name and none any more. A host has four at most.
      var left = try LocalCluster.run(
        "/bin/sh",
        [
          "-c",
          "find /sys/fs/cgroup -type d -path '*/orch-dev-\(LocalCluster.name)/*/containers/*' | while read -r group; do "
            + "case $group in */stub-*) grep -q . $group/cgroup.procs && continue;; esac; echo $group; done; "
            + "find /sys/fs/cgroup -type d -path '*/orch-dev-\(LocalCluster.name)/*/containers' | while read -r parent; do "
            + "count=$(ls -d $parent/stub-* 2>/dev/null | wc -l); [ $count -le 4 ] || echo $count stubs in $parent; done",
        ]
      ).output
      for host in ["host1", "host2", "host3"] {
        left += try cluster.on(
          host, "sh", "-c",
          "find /var/lib/orch/agent/containers/containers /run/orch/agent/containers/containers /run/orch/agent/tasks /run/orch/agent/netns "
            + "/var/lib/orch/agent/volumes -mindepth 1; grep -E ' /(var/lib|run)/orch/agent/' /proc/mounts"
        ).output
      }
      return left
    }

    private func logs(_ service: String) throws -> String {
      let log = try cluster.orch("logs", "box_\(service)", "--no-task-ids")
      return log.output + log.errors
    }
    private func running(_ service: String) async throws -> (id: String, host: String) {
      try await eventually("\(service) runs") {
        let tasks = try cluster.tasks("box_\(service)")
        return (try !cluster.running("box_\(service)").isEmpty, "\(tasks)")
      }
      let task = try #require(try cluster.running("box_\(service)").first)
      return (try #require(task["ID"]), try #require(task["Node"]))
    }
    private func ended(_ service: String, _ state: String) async throws -> [String: String] {
      var task: [String: String] = [:]
      try await eventually("\(service) has \(state)") {
        task = try cluster.tasks("box_\(service)").first { ($0["CurrentState"] ?? "").hasPrefix(state) } ?? [:]
        return (!task.isEmpty, "\(try cluster.tasks("box_\(service)"))")
      }
      return task
    }

    @Test("5: user, folder, hostname, capabilities, seccomp, masks, a read-only root, tmpfs, bind and named volume are as the manifest says")
    func t01surroundings() async throws {
      let script = """
        echo host=$$(hostname) id=$$(id -u):$$(id -g) pwd=$$(pwd); grep -E '^(NoNewPrivs|Seccomp|CapEff|CapBnd):' /proc/self/status; \
        touch /x; touch /scratch/x && echo scratch written; dd if=/dev/zero of=/scratch/big bs=64k count=64; \
        cat /bound/file; touch /bound/y; echo kept > /keep/file; cat /proc/timer_list | wc -c; echo 1 > /proc/sys/kernel/printk; \
        mount -t tmpfs x /scratch; ls /dev | xargs echo dev; exec sleep 1000
        """
      let services = """
          facts:
            image: busybox:1
            hostname: box-7
            user: "1000:1000"
            working_dir: /srv
            read_only: true
            tmpfs: ["/scratch:size=1m,mode=1777"]
            cap_drop: [ALL]
            cap_add: [NET_BIND_SERVICE]
            volumes: ["./bound:/bound:ro", "keep:/keep"]
            command: ["sh", "-c", "\(script.replacing("\\", with: "\\\\"))"]
          keeper:
            image: busybox:1
            volumes: ["keep:/keep"]
            command: ["sh", "-c", "chmod 777 /keep; exec sleep 1000"]
            stop_grace_period: 1s
        """
      try await with(services, top: "volumes:\n  keep: {}") {
        _ = try await running("facts")
        try await eventually("it has told") {
          let log = try logs("facts"); return (log.contains("dev "), log)
        }
        let log = try logs("facts")
        let lines = log.split(separator: "\n").map { $0.replacing("\t", with: " ") }
        for expected in [
          "host=box-7 id=1000:1000 pwd=/srv", "NoNewPrivs: 1", "Seccomp: 2", "CapEff: 0000000000000000", "CapBnd: 0000000000000400",
          "touch: /x: Read-only file system", "scratch written", "dd: error writing '/scratch/big': No space left on device", "beside",
          "touch: /bound/y: Read-only file system", "0", "sh: can't create /proc/sys/kernel/printk: Read-only file system",
          "dev core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero",
        ] { #expect(lines.contains { $0.hasSuffix(expected) }, "no '\(expected)' in\n\(log)") }
      }
    }

    @Test("5: limits are the cgroup's; a container over its memory is killed and that is said; a fork over the limit fails")
    func t02limits() async throws {
      let services = """
          tight:
            image: busybox:1
            command: ["sh", "-c", "while :; do sleep 1; done"]
            stop_grace_period: 1s
            deploy: {resources: {limits: {memory: 64M, cpus: "0.25", pids: 12}}}
          greedy:
            image: busybox:1
            command: ["sh", "-c", "echo before; x=a; while :; do x=$$x$$x; done"]
            deploy: {resources: {limits: {memory: 16M}}, restart_policy: {condition: on-failure, max_attempts: 1}}
        """
      try await with(services) {
        let tight = try await running("tight")
        // Its own, or that of the stub which became it.
        let config = "/run/orch/agent/containers/containers/\(tight.id)/config"
        let stored = try ["host1", "host2", "host3"].map { try cluster.on($0, "sh", "-c", "cat \(config) 2>/dev/null").output }.joined()
        let group = stored.split(separator: "\n").first { $0.hasPrefix("cgroup ") }.map { String($0.dropFirst("cgroup ".count)) } ?? tight.id
        func value(_ names: String...) throws -> String {
          for name in names {
            let found = try LocalCluster.run("/usr/bin/find", ["/sys/fs/cgroup", "-path", "*/containers/\(group)/\(name)"])
            if let path = found.output.split(separator: "\n").first, let text = try? String(contentsOfFile: String(path), encoding: .utf8) {
              return text.trimmingCharacters(in: .whitespacesAndNewlines)
            }
          }
          return "no \(names)"
        }
        #expect(try value("memory.limit_in_bytes", "memory.max") == "67108864")
        #expect(try ["25000", "25000 100000"].contains(value("cpu.cfs_quota_us", "cpu.max")))
        #expect(try value("pids.max") == "12")
        let forks = try cluster.orch("exec", tight.id, "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done; wait")
        #expect(forks.code != 0 && (forks.output + forks.errors).contains("fork"), "\(forks)")
        let greedy = try await ended("greedy", "Failed")
        #expect(greedy["Error"]?.contains("out of memory") == true && greedy["Error"]?.contains("137") == true, "\(greedy)")
        try await eventually("tried once more and no more") {
          let tasks = try cluster.tasks("box_greedy")
          return (tasks.count == 2 && tasks.allSatisfy { $0["CurrentState"]?.hasPrefix("Failed") == true }, "\(tasks)")
        }
      }
    }

    @Test("5: a container gets its stop signal and its grace, then SIGKILL; the exit code is kept, and the last words")
    func t03stop() async throws {
      let services = """
          polite:
            image: busybox:1
            stop_signal: SIGUSR1
            stop_grace_period: 1m
            command: ["sh", "-c", "trap 'echo got USR1; exit 9' USR1; echo up; while :; do sleep 0.1; done"]
          stubborn:
            image: busybox:1
            stop_grace_period: 1s
            command: ["sh", "-c", "trap 'echo got TERM' TERM; echo up; while :; do sleep 0.1; done"]
        """
      try await with(services) {
        for (service, words, code) in [("polite", "got USR1", 9), ("stubborn", "got TERM", 137)] {
          let task = try await running(service)
          try await eventually("it has set its trap") {
            let log = try logs(service); return (log.contains("up"), log)
          }
          let began = ContinuousClock.now
          try cluster.must(cluster.orch("update", "box_\(service)", "--env-add", "NEW=1"))
          #expect(ContinuousClock.now - began < .seconds(45), "less than the polite one's grace")
          #expect(try logs(service).contains(words))
          let inspect = try cluster.must(cluster.orch("inspect", task.id)).output
          #expect(inspect.contains("\"ExitCode\": \(code)"), "\(inspect)")
        }
      }
    }

    @Test("5: exit codes follow the restart policy; what cannot be started says why and is tried with growing delay")
    func t04exit() async throws {
      let services = """
          three:
            image: busybox:1
            command: ["sh", "-c", "echo last words; exit 3"]
            deploy: {restart_policy: {condition: none}}
          done:
            image: busybox:1
            command: ["true"]
            deploy: {restart_policy: {condition: on-failure}}
          missing:
            image: busybox:1
            command: ["/no/such/program"]
            deploy: {restart_policy: {condition: none}}
          nowhere:
            image: busybox:1
            command: ["sleep", "1000"]
            volumes: ["/no/such/folder:/x"]
        """
      try await with(services) {
        #expect(try await ended("three", "Failed")["Error"] == "task: non-zero exit (3)")
        #expect(try logs("three").contains("last words"))
        #expect(try await ended("done", "Complete")["Error"] == "")
        #expect(try await ended("missing", "Failed")["Error"]?.contains("/no/such/program") == true)
        #expect(try await ended("nowhere", "Rejected")["Error"]?.contains("/no/such/folder") == true)
        try await Task.sleep(for: .seconds(2))
        let attempts = try ["host1", "host2", "host3"].reduce(0) { count, host in
          let log = "/var/lib/orch/dev/\(LocalCluster.name)/\(host)/log/orch-agent.log"
          return count + (try String(contentsOfFile: log, encoding: .utf8).components(separatedBy: "prepare task box_nowhere").count - 1)
        }
        #expect((3...9).contains(attempts), "\(attempts)")
        for service in ["three", "done", "missing"] { #expect(try cluster.tasks("box_\(service)").count == 1) }
      }
    }

    /// Folders of volumes on a host.
    private func volumes(_ host: String) throws -> [String] {
      try cluster.on(host, "ls", "/var/lib/orch/agent/volumes").output.split(separator: "\n").map(String.init).sorted()
    }

    @Test("5: volumes without a name go with their tasks: those of a run, of a service that fails again and again, and what a crash left")
    func t08anonymous() async throws {
      let before = try volumes("host2")
      let run = try cluster.must(cluster.orch("run", "--rm", "--node", "host2", "-v", "/data", "busybox:1", "sh", "-c", "echo x >/data/f; ls /data"))
      #expect(run.output == "f\n", "\(run)")
      try await eventually("the run's volume is gone") {
        let left = try volumes("host2"); return (left == before, "\(left)")
      }
      let services = """
          loops:
            image: busybox:1
            volumes: ["/data"]
            command: ["sh", "-c", "touch /data/f; exit 3"]
            deploy: {restart_policy: {delay: 100ms}, placement: {constraints: ["node.hostname == host2"]}}
        """
      try await with(services) {
        try await eventually("it fails again and again") {
          let tasks = try cluster.tasks("box_loops"); return (tasks.count >= 3, "\(tasks)")
        }
        try cluster.must(cluster.orch("scale", "box_loops=0"))
        try await eventually("no more volumes than tasks") {
          let (volumes, tasks) = (try volumes("host2").count - before.count, try cluster.tasks("box_loops").count)
          return (volumes <= tasks, "\(volumes) volumes of \(tasks) tasks")
        }
      }
      // As an agent leaves them that is killed while it removes a task, and one that somebody named so.
      let folder = "/var/lib/orch/agent/volumes"
      let (task, named) = ("3w5e11264sgtx4oh7nz8q4w5k", "3w5e11264sgtx4oh7nz8q4w5k-kept")
      let made = try cluster.on(
        "host2", "sh", "-c",
        "mkdir -p \(folder)/\(task)-1/_data \(folder)/\(named)/_data; echo '{\"createdAt\":\"2026-01-01T00:00:00Z\",\"labels\":{},\"task\":\"\(task)\"}' >\(folder)/\(task)-1/volume.json"
      )
      #expect(made.code == 0, "\(made)")
      try cluster.must(cluster.dev("kill", "host2", "--agent"))
      try cluster.must(cluster.dev("start", "host2"))
      try await eventually("what was left is gone, and nothing else") {
        let left = try volumes("host2"); return (left == (before + [named]).sorted(), "\(left)")
      }
      _ = try cluster.on("host2", "rm", "-r", "\(folder)/\(named)")
    }

    @Test("5: a volume by a name with placeholders keeps its data while its task stops, though its service is gone")
    func t08inUse() async throws {
      defer {
        _ = try? cluster.orch("rm", "holds")
        _ = try? cluster.docker("volume", "rm", "held-1")
      }
      try cluster.must(cluster.docker("volume", "create", "held-1"))
      let made = try cluster.docker(
        "service", "create", "-d", "--name", "holds", "--constraint", "node.hostname==host2", "--stop-grace-period", "6s",
        "--mount", "type=volume,source=held-{{.Task.Slot}},target=/data", "busybox:1", "sh", "-c",
        "trap '' TERM; echo x > /data/x; while :; do sleep 1; done")
      try cluster.must(made)
      let file = "/var/lib/orch/agent/volumes/held-1/_data/x"
      try await eventually("the task has written") {
        let look = try cluster.on("host2", "cat", file); return (look.output == "x\n", "\(look)")
      }
      let refused = try cluster.docker("volume", "rm", "held-1")
      #expect(refused.code == 1 && refused.errors.contains("in use by service holds"), "\(refused)")
      try cluster.must(cluster.docker("service", "rm", "holds"))
      // Its service is no user any more; the agent knows that its container still is.
      let kept = try cluster.docker("volume", "rm", "held-1")
      #expect(kept.code == 1 && kept.errors.contains("a container uses it"), "\(kept)")
      #expect(try cluster.on("host2", "cat", file).output == "x\n")
      #expect(try cluster.docker("volume", "ls", "-q").output.contains("held-1\n"), "what is there is listed")
      try await eventually("the container is gone, and the volume may go") {
        let gone = try cluster.docker("volume", "rm", "held-1"); return (gone.code == 0, "\(gone)")
      }
      #expect(try cluster.on("host2", "ls", "/var/lib/orch/agent/volumes/held-1").code != 0)
    }

    @Test("5: placeholders stand for themselves in a mount's target and a volume's labels; what leaves its place or meets another by them is refused")
    func t09templates() async throws {
      let services = """
          slotted:
            image: busybox:1
            stop_grace_period: 1s
            volumes:
            - {type: volume, source: slots, target: "/data/{{.Task.Slot}}", volume: {labels: {slot: "{{.Task.Slot}} of {{.Service.Name}}"}}}
            command: ["sh", "-c", "ls /data; exec sleep 1000"]
          leaving:
            image: busybox:1
            command: ["sleep", "1000"]
            volumes: [{type: volume, source: slots, target: '/data{{index .Service.Labels "goal"}}'}]
            deploy: {labels: {goal: "/../etc"}}
          meeting:
            image: busybox:1
            command: ["sleep", "1000"]
            volumes: [{type: tmpfs, target: "/data/1"}, {type: volume, source: slots, target: "/data/{{.Task.Slot}}"}]
        """
      try await with(services, top: "volumes: {slots: {}}") {
        let task = try await running("slotted")
        try await eventually("it has told") {
          let log = try logs("slotted"); return (!log.isEmpty, log)
        }
        let log = try logs("slotted")
        #expect(log.split(separator: " ").last == "1\n", "\(log)")
        let document = "/var/lib/orch/dev/\(LocalCluster.name)/\(task.host)/lib/agent/volumes/box_slots/volume.json"
        #expect(try String(contentsOfFile: document, encoding: .utf8).contains(#""slot":"1 of box_slotted""#))
        #expect(try await ended("leaving", "Rejected")["Error"]?.contains("mount '/data/../etc': a target is an absolute path without '..'") == true)
        #expect(
          try await ended("meeting", "Rejected")["Error"]?.contains(
            "mount '/data/1': another mount has this target once its placeholders are filled in")
            == true)
      }
    }

    @Test("5: an agent killed and started again finds what runs and what ended meanwhile, with complete logs and exit codes")
    func t05agentAway() async throws {
      let services = """
          steady:
            image: busybox:1
            hostname: rock
            stop_grace_period: 1s
            command: ["sh", "-c", "i=0; while :; do i=$$((i+1)); echo tick $$i; sleep 0.05; done"]
            deploy: {placement: {constraints: ["node.hostname == host2"]}}
          brief:
            image: busybox:1
            command: ["sh", "-c", "until [ -e /bound/go ]; do sleep 0.05; done; echo final words; exit 42"]
            volumes: ["./bound:/bound"]
            deploy: {restart_policy: {condition: none}, placement: {constraints: ["node.hostname == host2"]}}
        """
      try await with(services) {
        let steady = try await running("steady")
        _ = try await running("brief")
        try cluster.must(cluster.dev("kill", "host2", "--agent"))
        _ = FileManager.default.createFile(atPath: "\(folder)/bound/go", contents: nil)
        try await Task.sleep(for: .milliseconds(500))
        try cluster.must(cluster.dev("start", "host2"))
        #expect(try await ended("brief", "Failed")["Error"] == "task: non-zero exit (42)")
        #expect(try logs("brief").contains("final words"))
        #expect(try await running("steady").id == steady.id)
        // Its names are served again, its own too.
        let named = try cluster.orch("exec", steady.id, "sh", "-c", "nslookup rock && hostname -i")
        let address = named.output.split(separator: "\n").last.map(String.init) ?? "-"
        #expect(named.code == 0 && named.output.components(separatedBy: address).count == 3, "\(named)")
        let ticks = try logs("steady").split(separator: "\n").compactMap { $0.split(separator: " ").last.flatMap { Int($0) } }
        #expect(ticks.count > 10 && ticks == Array(1...ticks.count), "\(ticks)")
      }
    }

    @Test("9: what an exec started ends when its client is killed or its manager is lost, though it reads nothing of what it is sent")
    func t07execLeft() async throws {
      let services = """
          idle: {image: "busybox:1", stop_grace_period: 1s, command: ["sleep", "1000"]}
        """
      try await with(services) {
        let task = try await running("idle")
        let leader = try #require(try cluster.leader)
        func processes() throws -> Outcome { try cluster.orch("exec", task.id, "ps", on: leader) }
        // By the manager that leads, and by one that does not.
        for host in [leader, leader == "host1" ? "host2" : "host1"] {
          let script = """
            "$0" exec -i "$1" sleep 778 </dev/zero >/dev/null 2>&1 &
            until "$0" exec "$1" ps | grep -q 'sleep 778'; do sleep 0.2; done
            sleep 0.5; kill -9 $!; wait $!; echo "ended $?"
            """
          let killed = try LocalCluster.run(
            "/bin/bash", ["-c", script, "\(LocalCluster.programs)/orch", task.id], environment: ["ORCH_HOST": cluster.socket(host)], seconds: 60)
          #expect(killed.output.contains("ended 137"), "\(killed)")
          try await eventually("what \(host) was asked for is gone") {
            let seen = try processes()
            return (seen.code == 0 && !seen.output.contains("sleep 778"), "\(seen)")
          }
        }
        let client = Task.detached { [cluster] in
          try LocalCluster.run(
            "/bin/bash", ["-c", "\"$0\" exec -i \"$1\" sleep 777 </dev/zero", "\(LocalCluster.programs)/orch", task.id],
            environment: ["ORCH_HOST": cluster.socket(leader)])
        }
        try await eventually("it runs") { (try processes().output.contains("sleep 777"), "") }
        // Its input is full by then.
        try await Task.sleep(for: .milliseconds(500))
        try cluster.must(cluster.dev("kill", leader, "--manager"))
        #expect(try await client.value.code != 0)
        try cluster.must(cluster.dev("start", leader))
        try await eventually("it is gone") {
          let seen = try processes()
          return (seen.code == 0 && !seen.output.contains("sleep 777"), "\(seen)")
        }
      }
    }

    @Test("5: logs rotate at 10 MiB, or as the service says, keep stdout and stderr apart, and the end of them can be asked for")
    func t06logs() async throws {
      let services = """
          loud:
            image: busybox:1
            stop_grace_period: 1s
            command: ["sh", "-c", "yes \(String(repeating: "a", count: 1000)) | head -n 40000; echo the end; echo complaint >&2; exec sleep 1000"]
          modest:
            image: busybox:1
            stop_grace_period: 1s
            logging: {driver: json-file, options: {max-size: 100k, max-file: 2}}
            command: ["sh", "-c", "yes \(String(repeating: "b", count: 1000)) | head -n 1000; echo the end; exec sleep 1000"]
        """
      try await with(services) {
        let task = try await running("loud")
        try await eventually("it has said all, each on its own stream") {
          // Two pipes: which of the last lines was written first is not known.
          let log = try cluster.orch("logs", "box_loud", "--tail", "200")
          let holds = log.output.contains("the end") && log.errors.contains("complaint") && !log.output.contains("complaint")
          return (holds && log.output.split(separator: "\n").count < 200, String(log.description.suffix(400)))
        }
        let modest = try await running("modest")
        try await eventually("it has said all") {
          let log = try cluster.orch("logs", "box_modest", "--tail", "1"); return (log.output.contains("the end"), "\(log)")
        }
        for (host, id, names, size) in [
          (task.host, task.id, ["container.log", "container.log.1", "container.log.2"], 10 << 20),
          (modest.host, modest.id, ["container.log", "container.log.1"], 100 << 10),
        ] {
          let log = "/var/lib/orch/dev/\(LocalCluster.name)/\(host)/lib/agent/containers/containers/\(id)/log"
          let sizes = try FileManager.default.contentsOfDirectory(atPath: log).sorted().map { name in
            (name, try FileManager.default.attributesOfItem(atPath: "\(log)/\(name)")[.size] as? Int ?? 0)
          }
          #expect(sizes.map(\.0) == names)
          #expect(sizes.allSatisfy { $0.1 < size + 65_536 }, "\(sizes)")
        }
      }
    }
  }
}
