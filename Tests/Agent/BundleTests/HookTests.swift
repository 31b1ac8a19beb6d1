import Foundation
import Glibc
import LinuxSystem
import Testing

/// Hooks beside other commands, and after failures.
@Suite(.enabled(if: isRoot), .serialized) struct HookTests {
  private func hook(_ script: String, timeout: Int? = 60) -> [[String: Any]] {
    var hook: [String: Any] = ["path": "/bin/sh", "args": ["sh", "-c", script]]
    hook["timeout"] = timeout
    return [hook]
  }

  @Test(
    "after a create that failed, poststop hooks run, once",
    arguments: [
      (["true"], "createRuntime", "exit 3", "createRuntime hook failed with exit code 3"),
      (["true"], "createContainer", "exit 3", "createContainer hook"),
      (["nosuch"], "createRuntime", "true", "executable file not found"),
    ])
  func poststop(_ args: [String], _ kind: String, _ script: String, _ words: String) throws {
    let world = try BundleWorld()
    try world.specify()
    let log = world.folder + "/log"
    try world.configure(args) { config in
      config.object("hooks") {
        $0[kind] = hook(script)
        $0["poststop"] = hook("grep -o '\"status\":\"[a-z]*\"' >> \(log); exit 4")
      }
    }
    let failed = try world.call(["create", "--bundle", world.bundle, "one"])
    #expect(failed.code == (args == ["nosuch"] ? 127 : 1) && failed.err.contains(words), "\(failed)")
    #expect(failed.err.contains("poststop hook failed with exit code 4"), "\(failed)")
    #expect((try? Files.text(log)) == "\"status\":\"stopped\"\n")
    #expect(try Files.list(world.folder + "/root").filter { !$0.hasPrefix("@") }.isEmpty)
  }

  @Test("hooks may use the container: createRuntime and poststart call update, kill and, once it runs, exec")
  func commands() throws {
    let world = try BundleWorld()
    try world.specify()
    let log = world.folder + "/log"
    let runtime = "\(world.program) --root \(world.folder)/root"
    try world.configure(["sleep", "1000"]) { config in
      config.object("hooks") {
        $0["createRuntime"] = hook("\(runtime) update --pids-limit 50 one && \(runtime) kill one CONT && echo made >> \(log)")
        $0["poststart"] = hook("\(runtime) update --pids-limit 60 one && \(runtime) exec one echo inside >> \(log)")
      }
    }
    let made = try world.call(["create", "--bundle", world.bundle, "one"])
    #expect(made.code == 0 && (try? Files.text(log)) == "made\n", "\(made)")
    let started = try world.call(["start", "one"])
    #expect(started.code == 0 && (try? Files.text(log)) == "made\ninside\n", "\(started)")
    let event = try JSONSerialization.jsonObject(with: Data(world.call(["events", "--stats", "one"]).out.utf8)) as? [String: Any]
    #expect(((event?["data"] as? [String: Any])?["pids"] as? [String: Any])?["limit"] as? Int == 60)
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
  }

  @Test("hooks of a run in the foreground can be sent any signal: none is blocked or ignored in them")
  func signals() throws {
    let world = try BundleWorld()
    try world.specify()
    let log = world.folder + "/log"
    let kinds = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
    try world.configure(["true"]) { config in
      config.object("hooks") { hooks in
        for kind in kinds {
          // The container sees its own of them beside its root.
          let file = kind == "startContainer" ? "/tmp/log" : log
          hooks[kind] = hook(
            "while read name value; do case $name in SigBlk:|SigIgn:) echo \(kind) $name $value;; esac; done < /proc/self/status >> \(file)")
        }
      }
    }
    let run = try world.call(["run", "--bundle", world.bundle, "one"])
    #expect(run.code == 0, "\(run)")
    let lines = try (Files.text(log) + Files.text(world.bundle + "/rootfs/tmp/log")).split(separator: "\n").map { $0.split(separator: " ") }
    #expect(Set(lines.map { $0[0] + " " + $0[1] }) == Set(kinds.flatMap { ["\($0) SigBlk:", "\($0) SigIgn:"] }))
    // 32 and 33 are the C library's, which posix_spawn(3) ignores in a child; busybox's shell ignores SIGQUIT by itself.
    for line in lines { #expect(UInt64(line[2], radix: 16).map { $0 & ~(3 << 31 | 1 << 2) } == 0, "\(line.joined(separator: " "))") }
  }

  static let kinds = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"]
  static func isOfCreate(_ kind: String) -> Bool { ["prestart", "createRuntime", "createContainer"].contains(kind) }
  /// The container's own process waits for it, in the container's pid namespace: it ends with it.
  static func isInside(_ kind: String) -> Bool { kind == "createContainer" || kind == "startContainer" }

  /// Create or start of `one`, whose hook of this kind has no timeout and waits for `go`, beside this test.
  private final class Hanging {
    let world: BundleWorld
    let kind: String
    let log: String
    private let done = DispatchSemaphore(value: 0)
    private let result = Box()

    init(_ kind: String, _ hook: (String) -> [[String: Any]], poststop: (String) -> [[String: Any]]) throws {
      self.kind = kind
      let world = try BundleWorld()
      self.world = world
      try world.specify()
      log = world.folder + "/log"
      // In the container's root, which its own hook sees as well; it ends by itself.
      let rootfs = kind == "startContainer" ? "" : world.bundle + "/rootfs"
      let script = "echo > \(rootfs)/tmp/waits; i=0; while [ $i -lt 200 ] && ! [ -e \(rootfs)/tmp/go ]; do sleep 0.1; i=$((i+1)); done"
      let last = poststop("grep -o '\"status\":\"[a-z]*\"' >> \(log)")
      try world.configure(["sleep", "1000"]) { config in
        config.object("hooks") {
          $0[kind] = hook(script)
          $0["poststop"] = last
        }
      }
      let isOfCreate = HookTests.isOfCreate(kind)
      if !isOfCreate { #expect(try world.call(["create", "--bundle", world.bundle, "one"]).code == 0) }
      let (done, result) = (done, result)
      Thread {
        result.value = try? world.call(isOfCreate ? ["create", "--bundle", world.bundle, "one"] : ["start", "one"])
        done.signal()
      }.start()
      for _ in 0..<2000 where !Files.exists(world.bundle + "/rootfs/tmp/waits") { usleep(20_000) }
    }
    var isWaiting: Bool {
      if done.wait(timeout: .now()) == .timedOut { return true }
      done.signal()
      return false
    }
    /// Of the command that hung.
    func end(releasing: Bool = true) throws -> BundleWorld.Result {
      if releasing { try Files.writeAtomically(world.bundle + "/rootfs/tmp/go", "", durable: false) }
      try #require(done.wait(timeout: .now() + 60) == .success)
      return try #require(result.value)
    }
    var isLeft: Bool { get throws { try !Files.list(world.folder + "/root").filter { !$0.hasPrefix("@") }.isEmpty } }
  }

  @Test("a hook that hangs holds up no other command, and none that deletes its container", arguments: kinds)
  func deleted(_ kind: String) throws {
    let hanging = try Hanging(kind, { hook($0, timeout: nil) }, poststop: { hook($0) })
    let world = hanging.world
    let status = Self.isOfCreate(kind) ? "creating" : kind == "startContainer" ? "created" : "running"
    #expect(try world.state("one")["status"] as? String == status)
    #expect(try world.call(["kill", "one", "0"]).code == 0)
    #expect(try world.call(["update", "--pids-limit", "50", "one"]).code == 0)
    let removed = try world.call(["delete", "--force", "one"])
    #expect(removed.code == 0, "\(removed)")
    if !Self.isInside(kind) { #expect(hanging.isWaiting, "a command waited for the hook") }
    #expect(try world.call(["state", "one"]).err.contains("does not exist"))
    let result = try hanging.end(releasing: !Self.isInside(kind))
    if kind == "poststart" {
      #expect(result.code == 0, "\(result)")
    } else {
      #expect(result.code == 1 && result.err.contains("deleted while its hooks ran"), "\(result)")
    }
    #expect((try? Files.text(hanging.log)) == "\"status\":\"stopped\"\n")
    #expect(try !hanging.isLeft)
  }

  @Test("a container that is killed while its hooks run is neither created nor started", arguments: kinds)
  func killed(_ kind: String) throws {
    let hanging = try Hanging(kind, { hook($0, timeout: nil) }, poststop: { hook($0) })
    let world = hanging.world
    #expect(try world.call(["kill", "one", "KILL"]).code == 0)
    // runc and crun wait for a hook of theirs, too.
    if !Self.isInside(kind) { #expect(hanging.isWaiting, "kill waited for the hook") }
    let result = try hanging.end(releasing: !Self.isInside(kind))
    if Self.isOfCreate(kind) {
      #expect(result.code == 1 && result.err.contains("first process was killed while it was made"), "\(result)")
      #expect((try? Files.text(hanging.log)) == "\"status\":\"stopped\"\n")
      #expect(try !hanging.isLeft)
      return
    }
    if kind == "startContainer" {
      #expect(result.code == 1 && result.err.contains("first process was killed while startContainer hooks ran"), "\(result)")
    } else {
      // The program had been executed before.
      #expect(result.code == 0, "\(result)")
    }
    #expect(try world.state("one")["status"] as? String == "stopped")
    #expect(try world.call(["delete", "one"]).code == 0)
  }

  @Test("a hook is killed at its timeout, which fails what it belongs to", arguments: kinds + ["poststop"])
  func timeout(_ kind: String) throws {
    let world = try BundleWorld()
    try world.specify()
    let pidFile = (kind == "startContainer" ? "" : world.bundle + "/rootfs") + "/tmp/pid"
    try world.configure(["sleep", "1000"]) { config in
      config.object("hooks") { $0[kind] = hook("echo $$ > \(pidFile); exec sleep 1000", timeout: 1) }
    }
    let words = "was killed at its timeout"
    let made = try world.call(["create", "--bundle", world.bundle, "one"])
    if Self.isOfCreate(kind) {
      #expect(made.code == 1 && made.err.contains(words), "\(made)")
    } else {
      #expect(made.code == 0, "\(made)")
      if kind != "poststop" {
        let started = try world.call(["start", "one"])
        #expect(started.code == 1 && started.err.contains(words), "\(started)")
      }
      if kind == "startContainer" { #expect(try world.state("one")["status"] as? String == "stopped") }
      if kind != "poststart" {
        let deleted = try world.call(["delete", "one"])
        #expect(deleted.code == 0 && deleted.err.contains(words) == (kind == "poststop"), "\(deleted)")
      }
    }
    #expect(try world.call(["state", "one"]).err.contains("does not exist"))
    // A number of the container's own namespace says nothing here; that namespace is gone.
    let pid = try #require(Int32(try Files.text(world.bundle + "/rootfs/tmp/pid").dropLast()))
    if !Self.isInside(kind) { #expect(kill(pid, 0) < 0 && Errno.current == .noProcess) }
  }
}

final class Box: @unchecked Sendable {
  // Written before a semaphore's signal, read after its wait.
  var value: BundleWorld.Result?
}
