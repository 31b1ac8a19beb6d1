import Foundation
import Glibc
import LinuxSystem
import Testing

/// Of the process and of the commands that concern one, what the other suites do not look at.
@Suite(.enabled(if: isRoot), .serialized) struct ProcessTests {
  private func pid(_ world: BundleWorld, _ id: String) throws -> Int { try #require(try world.state(id)["pid"] as? Int) }
  /// A container that sleeps.
  private func sleeper(_ world: BundleWorld, _ id: String = "one", _ edit: (inout [String: Any]) -> Void = { _ in }) throws -> Int {
    try world.specify()
    try world.configure(["sleep", "1000"], edit)
    let made = try world.call(["run", "-d", "--bundle", world.bundle, id])
    try #require(made.code == 0, "\(made)")
    return try pid(world, id)
  }

  @Test("a time namespace has its offsets, for exec as well")
  func time() throws {
    let world = try BundleWorld()
    _ = try sleeper(world) { config in
      config.object("linux") {
        $0.append("namespaces", ["type": "time"])
        $0["timeOffsets"] = ["boottime": ["secs": 864_000_000], "monotonic": ["secs": 86_400, "nanosecs": 5]]
      }
    }
    let inside = try world.call(["exec", "one", "sh", "-c", "cat /proc/uptime /proc/self/timens_offsets"])
    let host = Double(try Files.text("/proc/uptime").prefix { $0 != " " }) ?? 0
    let lines = inside.out.split(separator: "\n").map { $0.split(whereSeparator: \.isWhitespace) }
    try #require(lines.count == 3, "\(inside)")
    #expect(abs((Double(lines[0][0]) ?? 0) - host - 864_000_000) < 3600)
    #expect(lines[1] == ["monotonic", "86400", "5"] && lines[2] == ["boottime", "864000000", "0"])
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
  }

  @Test("the personality is the program's, and exec's", arguments: [("LINUX32", "00000008"), ("LINUX", "00000000")])
  func personality(_ domain: String, _ wanted: String) throws {
    let world = try BundleWorld()
    let pid = try sleeper(world) { config in config.object("linux") { $0["personality"] = ["domain": domain] } }
    #expect(try Files.text("/proc/\(pid)/personality") == wanted + "\n")
    #expect(try world.call(["exec", "one", "cat", "/proc/self/personality"]).out == wanted + "\n")
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
  }

  @Test("a limit above what the kernel gives anybody is lowered, with a warning")
  func limits() throws {
    let world = try BundleWorld()
    let result = try world.run("ulimit -Sn; ulimit -Hn; ulimit -Hc") { config in
      config.object("process") {
        // fs.nr_open bounds the first, root or not (proc_sys_fs(5)).
        $0["rlimits"] = [["type": "RLIMIT_NOFILE", "soft": 64, "hard": 4_000_000_000], ["type": "RLIMIT_CORE", "soft": 0, "hard": 0]]
      }
    }
    let lines = result.out.split(separator: "\n")
    try #require(result.code == 0 && lines.count == 3, "\(result)")
    #expect(lines[0] == "64" && (Int(lines[1]) ?? 0) < 4_000_000_000 && lines[2] == "0", "\(result)")
    #expect(result.err.contains("warning: ") && result.err.contains("RLIMIT_NOFILE"), "\(result)")
  }

  @Test("arguments and variables are as many as the kernel takes, of hooks and exec, too")
  func manyArguments() throws {
    let world = try BundleWorld()
    let many = (0..<20_000).map { "a\($0)" }
    let log = world.folder + "/log"
    _ = try sleeper(world) { config in
      config.object("process") {
        $0["args"] = ["sh", "-c", "echo $# $(env | grep -c ^V) > /tmp/first; sleep 1000", "sh"] + many
        $0["env"] = ["PATH=/bin"] + (0..<20_000).map { "V\($0)=" }
      }
      let args = ["sh", "-c", "echo $# >> \(log)", "sh"] + many
      config["hooks"] = ["createRuntime", "createContainer"].reduce(into: [:]) { $0[$1] = [["path": "/bin/sh", "args": args]] }
    }
    for _ in 0..<6000 where (try? Files.text(world.bundle + "/rootfs/tmp/first"))?.isEmpty ?? true { usleep(20_000) }
    #expect(try Files.text(world.bundle + "/rootfs/tmp/first") == "20000 20000\n")
    #expect(try Files.text(log) == "20000\n20000\n")
    let inside = try world.call(["exec", "one", "sh", "-c", "echo $# $(env | grep -c ^V)", "sh"] + many)
    #expect(inside.out == "20000 20000\n", "\(inside.code) \(inside.err)")
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
  }

  @Test(
    "beyond what the kernel takes it is said what is too much",
    arguments: [
      (Array(repeating: 100_000, count: 30), 8, "arguments and variables of 30"), (Array(repeating: 100_000, count: 30), 64, nil),
      ([131_072], 64, "the longest of 131073; the kernel takes 128 KiB of each"), ([131_071], 64, nil),
    ] as [([Int], Int, String?)])
  func tooMuch(_ lengths: [Int], _ stackMiB: Int, _ words: String?) throws {
    let world = try BundleWorld()
    let result = try world.run("") { config in
      config.object("process") {
        $0["args"] = ["sh", "-c", "echo $#", "sh"] + lengths.map { String(repeating: "x", count: $0) }
        $0["rlimits"] = [["type": "RLIMIT_STACK", "soft": stackMiB << 20, "hard": stackMiB << 20]]
      }
    }
    guard let words else {
      #expect(result.code == 0 && result.out == "\(lengths.count)\n", "\(result)")
      return
    }
    #expect(result.code == 126 && result.err.contains("argument list too long") && result.err.contains(words), "\(result)")
  }

  @Test("cgroup and user namespaces are joined by path")
  func joined() throws {
    let world = try BundleWorld()
    for name in ["proc", "dev", "sys"] { try Files.makeDirectories(world.bundle + "/rootfs/" + name, mode: 0o755) }
    for path in [world.folder, world.bundle] { chmod(path, 0o755) }
    let first = try sleeper(world) { config in
      config.object("linux") {
        $0.append("namespaces", ["type": "user"])
        for key in ["uidMappings", "gidMappings"] { $0[key] = [["containerID": 0, "hostID": 200_000, "size": 65536]] }
      }
    }
    let result = try world.run("readlink /proc/self/ns/user; readlink /proc/self/ns/cgroup; readlink /proc/self/ns/uts; cat /proc/self/uid_map") {
      config in
      config.object("linux") {
        $0["namespaces"] = ["mount", "pid", "ipc", "uts", "network"].map { ["type": $0] }
        $0.append("namespaces", ["type": "user", "path": "/proc/\(first)/ns/user"])
        $0.append("namespaces", ["type": "cgroup", "path": "/proc/\(first)/ns/cgroup"])
      }
    }
    let lines = result.out.split(separator: "\n").map(String.init)
    try #require(lines.count == 4, "\(result)")
    #expect(try lines[0] == Files.link("/proc/\(first)/ns/user") && lines[1] == Files.link("/proc/\(first)/ns/cgroup"))
    #expect(try lines[2] != Files.link("/proc/\(first)/ns/uts") && lines[2] != Files.link("/proc/self/ns/uts"))
    #expect(lines[3].split(separator: " ") == ["0", "200000", "65536"])
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
  }

  @Test("messages are in the log as well, as text and as JSON, errors and warnings")
  func log() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["true"]) { config in
      config.object("process") { process in process.object("capabilities") { $0["bounding"] = ["CAP_\"NO\""] } }
    }
    let (text, json) = (world.folder + "/log.txt", world.folder + "/log.json")
    for (file, format) in [(text, "text"), (json, "json")] {
      #expect(try world.call(["--log", file, "--log-format", format, "run", "--bundle", world.bundle, "one"]).code == 0)
      let failed = try world.call(["--log", file, "--log-format", format, "state", "nobody"])
      #expect(failed.code == 1 && failed.err == "orch-runtime: container \"nobody\" does not exist\n")
    }
    let lines = try Files.text(text).split(separator: "\n")
    try #require(lines.count == 2, "\(lines)")
    #expect(lines[0].contains("level=warning") && lines[0].contains("left out: CAP_"), "\(lines[0])")
    #expect(lines[1].hasPrefix("time=\"20") && lines[1].hasSuffix(#" level=error msg="container \"nobody\" does not exist""#), "\(lines[1])")
    let entries = try Files.text(json).split(separator: "\n").map { try JSONDecoder().decode([String: String].self, from: Data($0.utf8)) }
    #expect(entries.map { $0["level"] } == ["warning", "error"])
    #expect(entries.allSatisfy { Set($0.keys) == ["level", "msg", "time"] && ISO8601DateFormatter().date(from: $0["time"] ?? "") != nil })
    #expect(entries.last?["msg"] == "container \"nobody\" does not exist")
    let refused = try world.call(["--log", world.folder + "/no/such/folder", "state", "x"])
    #expect(refused.code != 0 && refused.err.contains("no such file or directory"), "\(refused)")
  }

  @Test("capabilities that cannot be granted are left out with a warning")
  func capabilities() throws {
    let world = try BundleWorld()
    let result = try world.run("grep Cap /proc/self/status") { config in
      config.object("process") { process in
        process["capabilities"] = [
          "bounding": ["CAP_CHOWN", "CAP_KILL"], "permitted": ["CAP_CHOWN"], "effective": ["CAP_CHOWN", "CAP_KILL"], "inheritable": ["CAP_KILL"],
          "ambient": ["CAP_CHOWN"],
        ]
      }
    }
    #expect(result.code == 0 && result.err.contains("process.capabilities: cannot be granted, left out: "), "\(result)")
    #expect(result.err.contains("effective CAP_KILL (not permitted); ambient CAP_CHOWN (not both permitted and inheritable)"), "\(result)")
    let all = CapabilitySet.all.subtracting(.bounding).names
    if let name = all.first {
      let outside = try world.run("true") { config in
        config.object("process") { process in process.object("capabilities") { for set in ["bounding", "permitted"] { $0[set] = [name] } } }
      }
      #expect(outside.code == 0 && outside.err.contains("bounding \(name) (not in orch-runtime's bounding set)"), "\(outside)")
    }
    let fine = try world.run("true")
    #expect(fine.err == "", "\(fine)")
  }

  @Test("each OOM kill is told when it comes, whatever the interval")
  func killsAtOnce() throws {
    let world = try BundleWorld()
    try world.specify()
    // Each time it is asked to.
    let script = "while true; do [ -e /tmp/eat ] && rm /tmp/eat && dd if=/dev/zero of=/dev/null bs=128M count=1 2>/dev/null; sleep 0.05; done"
    symlink("busybox", world.bundle + "/rootfs/bin/rm")
    try world.configure(["sh", "-c", script]) { config in
      config.object("linux") { $0["resources"] = ["memory": ["limit": 32 << 20, "swap": 32 << 20], "pids": ["limit": 20]] }
    }
    #expect(try world.call(["run", "-d", "--bundle", world.bundle, "one"]).code == 0)
    let (told, starter) = (world.folder + "/events", world.folder + "/script")
    try Files.writeAtomically(
      starter, "#!/bin/sh\nexec \(world.program) --root \(world.folder)/root events --interval 1h30m one >\(told)", mode: 0o755, durable: false)
    let done = DispatchSemaphore(value: 0)
    Thread {
      _ = try? world.call([], program: starter)
      done.signal()
    }.start()
    func count() -> Int { ((try? Files.text(told)) ?? "").split(separator: "\n").filter { $0.contains("\"oom\"") }.count }
    func kills() throws -> Int {
      let event = try JSONSerialization.jsonObject(with: Data(world.call(["events", "--stats", "one"]).out.utf8)) as? [String: Any]
      let memory = (event?["data"] as? [String: Any])?["memory"] as? [String: Any]
      return (memory?["raw"] as? [String: Any])?["oom_kill"] as? Int ?? 0
    }
    // It may begin late: the first ones are before it.
    for _ in 0..<60 where count() == 0 {
      if !Files.exists(world.bundle + "/rootfs/tmp/eat") { try Files.writeAtomically(world.bundle + "/rootfs/tmp/eat", "", durable: false) }
      usleep(500_000)
    }
    try #require(count() > 0)
    for _ in 0..<100 where Files.exists(world.bundle + "/rootfs/tmp/eat") { usleep(50_000) }
    usleep(500_000)
    let (before, counted) = (count(), try kills())
    for _ in 0..<3 {
      try Files.writeAtomically(world.bundle + "/rootfs/tmp/eat", "", durable: false)
      for _ in 0..<400 where Files.exists(world.bundle + "/rootfs/tmp/eat") { usleep(50_000) }
    }
    for _ in 0..<200 where count() < before + 3 { usleep(50_000) }
    #expect(count() - before == (try kills()) - counted && count() >= before + 3)
    #expect(try world.call(["kill", "one", "KILL"]).code == 0)
    #expect(done.wait(timeout: .now() + 45) == .success)
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
    for (text, isTaken) in [("0s", false), ("5x", false), ("-1s", false), ("1m2", false)] {
      let result = try world.call(["events", "--interval=\(text)", "one"])
      #expect(result.err.contains("a time above zero") == !isTaken, "\(text): \(result)")
    }
  }

  @Test("events tells of an OOM kill, and of usage")
  func events() throws {
    let world = try BundleWorld()
    try world.specify()
    // One after the other till the container is ended: events may begin late.
    try world.configure(["sh", "-c", "while true; do dd if=/dev/zero of=/dev/null bs=128M count=1 2>/dev/null; sleep 0.2; done"]) { config in
      config.object("linux") { $0["resources"] = ["memory": ["limit": 32 << 20, "swap": 32 << 20], "pids": ["limit": 20]] }
    }
    #expect(try world.call(["run", "-d", "--bundle", world.bundle, "one"]).code == 0)
    let told = world.folder + "/events"
    let script = world.folder + "/script"
    try Files.writeAtomically(
      script, "#!/bin/sh\nexec \(world.program) --root \(world.folder)/root events --interval 500ms one >\(told)", mode: 0o755, durable: false)
    let done = DispatchSemaphore(value: 0)
    Thread {
      _ = try? world.call([], program: script)
      done.signal()
    }.start()
    func lines() -> [[String: Any]] {
      ((try? Files.text(told)) ?? "").split(separator: "\n").compactMap { try? JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any] }
    }
    for _ in 0..<900 {
      // Read no more than needed: it grows, and a slow machine would never have read it all.
      if Set(lines().compactMap { $0["type"] as? String }).isSuperset(of: ["oom", "stats"]) { break }
      usleep(50_000)
    }
    #expect(try world.call(["kill", "one", "KILL"]).code == 0)
    // It ends with the container.
    #expect(done.wait(timeout: .now() + 45) == .success)
    let all = lines()
    #expect(all.contains { $0["type"] as? String == "oom" && $0["id"] as? String == "one" && $0["data"] == nil }, "\(all)")
    let memory = all.compactMap { ($0["data"] as? [String: Any])?["memory"] as? [String: Any] }.first?["usage"] as? [String: Any]
    #expect(memory?["limit"] as? Int == 32 << 20, "\(all)")
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
  }

  @Test("exec detached writes its pid and goes on; with a terminal it has one")
  func exec() throws {
    let world = try BundleWorld()
    let first = try sleeper(world)
    let file = world.folder + "/exec.pid"
    let detached = try world.call(["exec", "--detach", "--pid-file", file, "--env", "A=b", "--cwd", "/tmp", "one", "sleep", "1000"])
    #expect(detached.code == 0 && detached.out.isEmpty, "\(detached)")
    let second = try #require(Int(try Files.text(file)))
    #expect(try Files.link("/proc/\(second)/ns/pid") == Files.link("/proc/\(first)/ns/pid"))
    #expect(try Files.link("/proc/\(second)/cwd").hasSuffix("/tmp"))
    #expect(try Files.text("/proc/\(second)/environ").split(separator: "\0").contains("A=b"))
    #expect(try Files.text("/proc/\(second)/cgroup") == Files.text("/proc/\(first)/cgroup"))
    let terminal = try world.call(["exec", "--tty", "one", "sh", "-c", "tty; exit 7"])
    #expect(terminal.code == 7 && terminal.out.hasPrefix("/dev/pts/"), "\(terminal)")
    let refused = try world.call(["exec", "--tty", "--detach", "one", "true"])
    #expect(refused.code == 255 && refused.err.contains("--console-socket"), "\(refused)")
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
    #expect(kill(pid_t(second), 0) != 0)
  }

  @Test("what systemd hands over by LISTEN_FDS is the container's, from descriptor 3 on")
  func listenDescriptors() throws {
    let world = try BundleWorld()
    try world.specify()
    try Files.writeAtomically(world.folder + "/handed", "handed over\n", durable: false)
    try world.configure(["sh", "-c", "echo $LISTEN_FDS $LISTEN_PID; cat <&3; [ -e /proc/self/fd/4 ] || echo no more"])
    let script = world.folder + "/script"
    try Files.writeAtomically(
      script,
      """
      #!/bin/sh
      exec 3<\(world.folder)/handed
      LISTEN_FDS=1 LISTEN_PID=$$ exec \(world.program) --root \(world.folder)/root run --bundle \(world.bundle) one 4</dev/null
      """, mode: 0o755, durable: false)
    let result = try world.call([], program: script)
    #expect(result.out == "1 1\nhanded over\nno more\n", "\(result)")
  }

  @Test(
    "seccomp's actions are the kernel's",
    arguments: [
      ("SCMP_ACT_KILL", 128 + SIGSYS), ("SCMP_ACT_KILL_THREAD", 128 + SIGSYS), ("SCMP_ACT_KILL_PROCESS", 128 + SIGSYS),
      ("SCMP_ACT_TRAP", 128 + SIGSYS),
      ("SCMP_ACT_LOG", 0), ("SCMP_ACT_ALLOW", 0), ("SCMP_ACT_ERRNO", 1), ("SCMP_ACT_TRACE", 1),
    ] as [(String, Int32)])
  func actions(_ action: String, _ code: Int32) throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["mkdir", "/tmp/x"]) { config in
      config.object("linux") {
        $0["seccomp"] = ["defaultAction": "SCMP_ACT_ALLOW", "syscalls": [["names": ["mkdir", "mkdirat"], "action": action]]]
      }
    }
    let result = try world.call(["run", "--bundle", world.bundle, "one"])
    #expect(result.code == code, "\(result)")
    #expect(Files.exists(world.bundle + "/rootfs/tmp/x") == (code == 0))
    // Nobody traces: as if there were no such system call (seccomp(2)).
    if action == "SCMP_ACT_TRACE" { #expect(result.err.contains("Function not implemented"), "\(result)") }
  }
}
