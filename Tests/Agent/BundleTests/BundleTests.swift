import Foundation
import Glibc
import LinuxSystem
import Testing

@testable import Bundle

@Suite(.enabled(if: isRoot), .serialized) struct CommandTests {
  @Test("create, start, kill and delete go through the states, and nothing is left")
  func life() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["sleep", "1000"]) { $0["annotations"] = ["who": "me"] }
    let pidFile = world.folder + "/pid"
    #expect(try world.call(["create", "--bundle", world.bundle, "--pid-file", pidFile, "one"]).code == 0)
    var state = try world.state("one")
    #expect(state["status"] as? String == "created")
    #expect(state["bundle"] as? String == world.bundle)
    #expect((state["annotations"] as? [String: String]) == ["who": "me"])
    let pid = try #require(state["pid"] as? Int)
    #expect(try Files.text(pidFile) == "\(pid)")
    #expect(try Files.text("/proc/\(pid)/comm") != "sleep\n")
    let twice = try world.call(["create", "--bundle", world.bundle, "one"])
    #expect(twice.code == 1 && twice.err.contains("container with given ID already exists"))
    #expect(try world.call(["start", "one"]).code == 0)
    #expect(try world.state("one")["status"] as? String == "running")
    #expect(try Files.text("/proc/\(pid)/comm") == "sleep\n")
    let again = try world.call(["start", "one"])
    #expect(again.code == 1 && again.err.contains("cannot start an already running container"))
    let busy = try world.call(["delete", "one"])
    #expect(busy.code == 1 && busy.err.contains("is not stopped: running"))
    #expect(try world.call(["list", "-q"]).out == "one\n")
    #expect(try world.call(["pause", "one"]).code == 0)
    #expect(try world.state("one")["status"] as? String == "paused")
    #expect(try world.call(["exec", "one", "true"]).code == 255)
    #expect(try world.call(["resume", "one"]).code == 0)
    #expect(try world.call(["kill", "one", "KILL"]).code == 0)
    while kill(pid_t(pid), 0) == 0, try world.state("one")["status"] as? String != "stopped" { usleep(1000) }
    state = try world.state("one")
    #expect(state["status"] as? String == "stopped")
    let late = try world.call(["kill", "one"])
    #expect(late.code == 1 && late.err.contains("container not running"))
    #expect(try world.call(["delete", "one"]).code == 0)
    let gone = try world.call(["state", "one"])
    #expect(gone.code == 1 && gone.err.contains("does not exist"))
    #expect(try world.call(["delete", "--force", "one"]).code == 0)
    #expect(try Files.list(world.folder + "/root").isEmpty)
    #expect(!(try Files.text("/proc/self/mountinfo").contains(world.folder)))
  }

  @Test("run hands on output and exit code, and says why a program cannot be executed")
  func run() throws {
    let world = try BundleWorld()
    let result = try world.run("echo out; echo err >&2; exit 7")
    #expect(result.code == 7 && result.out == "out\n" && result.err == "err\n")
    try world.configure(["sleep", "1000"]) { $0.object("linux") { $0["cgroupsPath"] = "/orch-bundle-test-\(getpid())-taken" } }
    #expect(try world.call(["run", "-d", "--bundle", world.bundle, "first"]).code == 0)
    let taken = try world.call(["run", "-d", "--bundle", world.bundle, "second"])
    #expect(taken.code == 1 && taken.err.contains("is not empty"), "\(taken.err)")
    #expect(try world.state("first")["status"] as? String == "running")
    #expect(try world.call(["delete", "-f", "first"]).code == 0)
    try world.configure(["nope"])
    let missing = try world.call(["run", "--bundle", world.bundle, "x"])
    #expect(missing.code == 127 && missing.err.contains("exec \"nope\": executable file not found in $PATH"))
    try world.configure(["/etc/passwd"])
    let denied = try world.call(["create", "--bundle", world.bundle, "x"])
    #expect(denied.code == 126 && denied.err.contains("permission denied"))
    try world.configure(["true"]) { $0.object("linux") { $0["intelRdt"] = [String: Any]() } }
    #expect(try world.call(["--log", "/nowhere/log", "list"]).code != 0)
    let refused = try world.call(["run", "--bundle", world.bundle, "x"])
    #expect(refused.code == 1 && refused.err.contains("linux.intelRdt: is not supported"))
    #expect(try Files.list(world.folder + "/root").isEmpty)
  }

  @Test("exec runs beside the first process, as whom it is asked to, with the container's view")
  func exec() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["sleep", "1000"])
    #expect(try world.call(["run", "-d", "--bundle", world.bundle, "one"]).code == 0)
    #expect(try world.call(["exec", "one", "sh", "-c", "exit 3"]).code == 3)
    #expect(try world.call(["exec", "--user", "1000:1001", "one", "id"]).out.hasPrefix("uid=1000(app) gid=1001"))
    #expect(
      try world.call(["exec", "--cwd", "/etc", "--env", "A=b c", "one", "sh", "-c", "pwd; echo $A; hostname"]).out == "/etc\nb c\norch-runtime\n")
    #expect(try world.call(["exec", "one", "cat", "/proc/1/comm"]).out == "sleep\n")
    // One of a name, the later.
    #expect(
      try world.call(["exec", "-e", "TERM=x", "-e", "B=c", "one", "env"]).out.split(separator: "\n").filter { $0.hasPrefix("TERM=") } == ["TERM=x"])
    #expect(try world.call(["exec", "--cap", "CAP_NONE", "one", "true"]).err.contains("unknown, left out: CAP_NONE"))
    let missing = try world.call(["exec", "one", "nope"])
    #expect(missing.code == 127 && missing.err.contains("executable file not found in $PATH"))
    let pids = try JSONDecoder().decode([Int].self, from: Data(world.call(["ps", "-f", "json", "one"]).out.utf8))
    #expect(pids == [try world.state("one")["pid"] as? Int])
    #expect(try world.call(["ps", "one"]).out.contains("sleep 100"))
    let event = try JSONSerialization.jsonObject(with: Data(world.call(["events", "--stats", "one"]).out.utf8)) as? [String: Any]
    #expect(event?["type"] as? String == "stats" && event?["id"] as? String == "one")
    let data = try #require(event?["data"] as? [String: Any]).compactMapValues { $0 as? [String: Any] }
    #expect((event?["data"] as? [String: Any])?["network_interfaces"] is [Any])
    // The shape is runc's.
    #expect((data["cpu"]?["usage"] as? [String: Any])?["total"] as? Int ?? 0 > 0)
    #expect((data["memory"]?["usage"] as? [String: Any])?["usage"] != nil && (data["memory"]?["raw"] as? [String: Any])?["oom_kill"] as? Int == 0)
    // One that ended just now may be counted still.
    #expect((1...2).contains(data["pids"]?["current"] as? Int ?? 0))
    #expect(data["blkio"]?["ioServiceBytesRecursive"] is [Any])
    if Files.exists("/proc/pressure") { #expect((data["cpu"]?["psi"] as? [String: [String: Any]])?["some"]?["avg10"] != nil) }
    #expect(try world.call(["update", "--pids-limit", "33", "--memory", "67108864", "one"]).code == 0)
    #expect(try world.call(["exec", "one", "sh", "-c", "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null"]).out == "33\n")
    // On v1 it was made outside of this hierarchy.
    let pinned = try world.call(["update", "--cpuset-cpus", "0", "one"])
    #expect(pinned.code == 0, "\(pinned.err)")
    #expect(try world.call(["exec", "one", "grep", "Cpus_allowed_list", "/proc/1/status"]).out == "Cpus_allowed_list:\t0\n")
    #expect(try world.call(["exec", "one", "grep", "Cpus_allowed_list", "/proc/self/status"]).out == "Cpus_allowed_list:\t0\n")
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
  }

  @Test("hooks run where and when the specification says, with the state on their input")
  func hooks() throws {
    let world = try BundleWorld()
    try world.specify()
    let log = world.folder + "/log"
    func hook(_ kind: String) -> [String: Any] {
      ["path": "/bin/sh", "args": ["sh", "-c", "echo \(kind) $(grep -o '\"status\":\"[a-z]*\"') >> \(log)"]]
    }
    try world.configure(["sh", "-c", "echo program >> /log"]) { config in
      config.object("hooks") { hooks in
        for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] { hooks[kind] = [hook(kind)] }
        hooks["startContainer"] = [["path": "/bin/sh", "args": ["sh", "-c", "cat > /start"]]]
      }
    }
    #expect(try world.call(["create", "--bundle", world.bundle, "one"]).code == 0)
    let created = "prestart \"status\":\"creating\"\ncreateRuntime \"status\":\"creating\"\ncreateContainer \"status\":\"creating\"\n"
    #expect(try Files.text(log) == created)
    #expect(!Files.exists(world.bundle + "/rootfs/start"))
    #expect(try world.call(["start", "one"]).code == 0)
    #expect(try Files.text(world.bundle + "/rootfs/start").contains("\"status\":\"created\""))
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
    #expect(try Files.text(log) == created + "poststart \"status\":\"running\"\npoststop \"status\":\"stopped\"\n")
    // A hook may look at the container that is being made.
    let look = "\(world.program) --root \(world.folder)/root state three > \(world.folder)/seen"
    try world.configure(["true"]) { $0.object("hooks") { $0["createRuntime"] = [["path": "/bin/sh", "args": ["sh", "-c", look], "timeout": 10]] } }
    let three = try world.call(["run", "--bundle", world.bundle, "three"])
    #expect(three.code == 0, "\(three)")
    #expect(try Files.text(world.folder + "/seen").contains("creating"))
    // A poststart hook that fails is the end of the container.
    try world.configure(["sleep", "1000"]) { config in
      config.object("hooks") {
        $0["poststart"] = [["path": "/bin/false"]]; $0["poststop"] = [["path": "/bin/sh", "args": ["sh", "-c", "exit 4"]]]
      }
    }
    #expect(try world.call(["create", "--bundle", world.bundle, "four"]).code == 0)
    let late = try world.call(["start", "four"])
    #expect(late.code == 1 && late.err.contains("poststart hook failed with exit code 1: /bin/false"), "\(late.err)")
    #expect(late.err.contains("poststop hook failed with exit code 4: /bin/sh"))
    #expect(try world.call(["state", "four"]).err.contains("does not exist"))
    // A hook without an environment has ours.
    try world.configure(["true"]) { $0.object("hooks") { $0["createRuntime"] = [["path": "/bin/sh", "args": ["sh", "-c", "test -n \"$PATH\""]]] } }
    #expect(try world.call(["run", "--bundle", world.bundle, "five"]).code == 0)
    try world.configure(["true"]) { $0.object("hooks") { $0["createContainer"] = [["path": "/bin/false"]] } }
    let failed = try world.call(["create", "--bundle", world.bundle, "two"])
    #expect(failed.code == 1 && failed.err.contains("createContainer hook /bin/false"))
    #expect(try Files.list(world.folder + "/root").isEmpty)
  }

  @Test("a terminal is sent to the console socket")
  func console() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["sh", "-c", "tty; stty size"]) {
      $0.object("process") {
        $0["terminal"] = true
        $0["consoleSize"] = ["height": 33, "width": 77]
      }
    }
    // Without a terminal of ours, run carries the container's to its output.
    let result = try world.call(["run", "--bundle", world.bundle, "one"])
    #expect(result.out == "/dev/pts/0\r\n33 77\r\n", "\(result.err)")
    let refused = try world.call(["create", "--bundle", world.bundle, "two"])
    #expect(refused.code == 1 && refused.err.contains("--console-socket"))
  }
}
