import Glibc
import LinuxSystem
import Synchronization
import Testing

@testable import Runtime

/// A small real world: a busybox root in a temporary folder, a runtime with its own folders and cgroup parent.
final class World: Sendable {
  let folder: String
  let layer: String
  let configuration: RuntimeConfiguration
  let runtime: ContainerRuntime
  let parent: String

  init(stubs: Int = 0) throws {
    folder = "/tmp/orch-runtime-test-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    layer = folder + "/layer"
    parent = "orch-test-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    for name in ["bin", "etc", "tmp", "home/app"] { try Files.makeDirectories(layer + "/" + name, mode: 0o755) }
    try Files.writeAtomically(layer + "/bin/busybox", try Files.read("/bin/busybox"), mode: 0o755, durable: false)
    for name in [
      "sh", "true", "false", "sleep", "cat", "id", "env", "echo", "hostname", "ls", "pwd", "kill", "head", "dd", "mount", "grep", "touch", "mkdir",
      "seq", "tail", "stty", "test", "mknod", "unshare", "chmod", "stat", "readlink", "wc", "ps", "printf", "tty",
    ] {
      symlink("busybox", layer + "/bin/" + name)
    }
    try Files.writeAtomically(
      layer + "/etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n4242:x:0:0::/:/bin/sh\n", mode: 0o644, durable: false
    )
    try Files.writeAtomically(layer + "/etc/group", "root:x:0:\napp:x:1000:\nextra:x:2000:app\nlogs:x:3000:\n", mode: 0o644, durable: false)
    let here = CommandLine.arguments[0].split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
    let candidates = [here + "/orch-init", ".build/debug/orch-init", ".build/x86_64-unknown-linux-gnu/debug/orch-init"]
    configuration = RuntimeConfiguration(
      stateDirectory: folder + "/state", dataDirectory: folder + "/data", cgroupParent: parent,
      initPath: candidates.first { Files.exists($0) } ?? candidates[0], stubs: stubs)
    runtime = try ContainerRuntime(configuration: configuration)
  }
  deinit {
    runtime.close()
    try? Files.removeTree(folder)
    if let host = try? CgroupHost.detect(more: ["cpuset"]) { try? host.group(parent: parent, name: "").remove() }
  }

  func config(_ id: String, _ args: String...) -> ContainerConfig { ContainerConfig(id: id, layers: [layer], args: args) }
  func shell(_ id: String, _ script: String) -> ContainerConfig { ContainerConfig(id: id, layers: [layer], args: ["sh", "-c", script]) }

  func output(_ id: String) async throws -> (stdout: String, stderr: String) {
    var (out, err): ([UInt8], [UInt8]) = ([], [])
    for try await line in runtime.logs(id) { if line.stream == .stdout { out += line.bytes } else { err += line.bytes } }
    return (String(decoding: out, as: UTF8.self), String(decoding: err, as: UTF8.self))
  }
  /// Runs to the end and removes it.
  func run(_ config: ContainerConfig) async throws -> (exit: ContainerExit, stdout: String, stderr: String) {
    _ = try await runtime.start(config)
    let exit = try await runtime.wait(config.id)
    let (out, err) = try await output(config.id)
    try await runtime.delete(config.id)
    return (exit, out, err)
  }
}

import Cgroups

let isRoot = geteuid() == 0

@Suite(.enabled(if: isRoot), .serialized) struct LifeTests {
  @Test("a container runs, its exit code and output are kept, and nothing is left of it")
  func life() async throws {
    let world = try World()
    let (exit, out, err) = try await world.run(world.shell("life", "echo hello; echo oops >&2; printf rest; exit 7"))
    #expect(exit.code == 7)
    #expect(exit.signal == nil)
    #expect(!exit.oomKilled)
    #expect(out == "hello\nrest")
    #expect(err == "oops\n")
    #expect(try Files.list(world.configuration.stateDirectory + "/containers") == [])
    #expect(try Files.list(world.configuration.dataDirectory + "/containers") == [])
    let mounts = try Files.text("/proc/self/mountinfo")
    #expect(!mounts.contains(world.folder))
  }
}

@Suite(.enabled(if: isRoot), .serialized) struct FileTests {
  @Test("files are where they shall be, with owner and mode, read-only even for root, on no disk, and leave no folder behind")
  func files() async throws {
    let world = try World()
    var config = world.shell(
      "files",
      """
      cat /run/secrets/key; stat -c '%n %u:%g %a' /run/secrets/key /etc/app/conf; cat /etc/app/conf | wc -c; echo x > /run/secrets/key; \
      chmod 777 /run/secrets/key; ls -A /dev | grep files; grep ' /run/secrets/key ' /proc/mounts; sleep 1000
      """)
    let big = [UInt8](repeating: UInt8(ascii: "Q"), count: 700_000)
    config.files = [
      FileConfig(target: "/run/secrets/key", content: Array("hidden-in-tmpfs\n".utf8), uid: 1000, gid: 2000, mode: 0o440),
      FileConfig(target: "/etc/app/conf", content: big),
    ]
    _ = try await world.runtime.start(config)
    var seen = ""
    for _ in 0..<200 {
      seen = try Files.text(world.configuration.dataDirectory + "/containers/files/log/container.log")
      if seen.contains("/proc/mounts") || seen.contains("tmpfs ro") || seen.contains(" tmpfs ") { break }
      try await Task.sleep(for: .milliseconds(20))
    }
    // Neither in the container's layer nor in what the runtime keeps of it; its own output is the one place.
    var found: [String] = []
    func look(_ path: String) throws {
      for name in try Files.list(path) {
        let inside = path + "/" + name
        if (try? Files.list(inside)) != nil {
          try look(inside)
        } else if name != "container.log", let bytes = try? Files.read(inside), bytes.contains(Array("hidden-in-tmpfs".utf8)) {
          found.append(inside)
        }
      }
    }
    try look(world.configuration.stateDirectory)
    for part in ["upper", "work"] { try look(world.configuration.dataDirectory + "/containers/files/" + part) }
    #expect(found == [])
    _ = try await world.runtime.stop("files", signal: nil, grace: .zero)
    let (out, err) = try await world.output("files")
    #expect(out.hasPrefix("hidden-in-tmpfs\n/run/secrets/key 1000:2000 440\n/etc/app/conf 0:0 444\n700000\n"), "\(out)")
    #expect(out.contains(" tmpfs ") && out.contains("ro,") && !out.contains(".files"), "\(out)")
    #expect(err.contains("Read-only file system"), "\(err)")
    try await world.runtime.delete("files")
    #expect(!(try Files.text("/proc/self/mountinfo")).contains(world.folder))
  }
}

@Suite(.enabled(if: isRoot), .serialized) struct IsolationTests {
  @Test("a signal, a missing program and a program that is no file are each told apart")
  func endings() async throws {
    let world = try World()
    let killed = try await world.run(world.shell("killed", "kill -9 $$ ; (exec sh -c 'kill -SEGV $$'); echo still"))
    // pid 1 of a pid namespace cannot kill itself.
    #expect(killed.exit.code == 0)
    #expect(killed.stdout == "still\n")
    var init1 = world.shell("segv", "kill -SEGV $$")
    init1.useInit = true
    #expect(try await world.run(init1).exit.code == 139)
    await #expect {
      _ = try await world.runtime.start(world.config("none", "nosuchprogram"))
    } throws: {
      ($0 as? RuntimeError)?.description == "start container none: exec \"nosuchprogram\": executable file not found in $PATH"
        && ($0 as? RuntimeError)?.kind == .command(exitCode: 127)
    }
    await #expect {
      _ = try await world.runtime.start(world.config("dir", "/etc/passwd"))
    } throws: {
      ($0 as? RuntimeError)?.kind == .command(exitCode: 126) && "\($0)".contains("EACCES")
    }
    await #expect {
      var config = world.config("user", "true")
      config.user = "nobody-here"
      _ = try await world.runtime.start(config)
    } throws: {
      "\($0)".contains("become user nobody-here: no such user in /etc/passwd: nobody-here")
    }
    #expect(try Files.list(world.configuration.stateDirectory + "/containers") == [])
    #expect(try Files.list(world.configuration.dataDirectory + "/containers") == [])
  }

  @Test("env, cwd, user, groups and hostname are as asked for; PATH, HOME and HOSTNAME are added")
  func identity() async throws {
    let world = try World()
    var config = world.shell("identity", "id -u; id -g; id -G; pwd; hostname; echo $FOO $HOME $HOSTNAME; env | grep -c PATH=")
    config.env = ["FOO=b a r"]
    config.user = "app"
    config.groups = ["logs", "77"]
    config.cwd = "/srv/made"
    config.hostname = "web-1"
    let out = try await world.run(config).stdout.split(separator: "\n").map(String.init)
    #expect(out[0] == "1000")
    #expect(out[1] == "1000")
    #expect(Set(out[2].split(separator: " ").map(String.init)) == ["1000", "2000", "3000", "77"])
    #expect(Array(out[3...]) == ["/srv/made", "web-1", "b a r /home/app web-1", "1"])
    // A name that looks like a number is a number (CVE-2026-46680's class).
    var number = world.shell("number", "id -u")
    number.user = "4242"
    #expect(try await world.run(number).stdout == "4242\n")
    number.user = "4294967296"
    await #expect(throws: RuntimeError.self) { _ = try await world.runtime.start(number) }
  }

  @Test("capabilities, no_new_privs, seccomp, descriptors, masks and read-only paths are Docker's")
  func security() async throws {
    let world = try World()
    let script = """
      grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status
      echo fds: $(ls /proc/self/fd | wc -w)
      touch /proc/sys/kernel/hostname 2>/dev/null && echo wrote || echo ro
      cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c
      ls /sys/firmware | wc -l
      mknod /tmp/disk b 254 0 2>/dev/null; cat /tmp/disk 2>&1 | head -1
      chmod 600 /dev/null 2>/dev/null && echo changed || echo kept
      echo x > /dev/null && echo null
      unshare -n true 2>/dev/null && echo unshared || echo refused
      mount -t tmpfs x /tmp 2>/dev/null && echo mounted || echo refused
      touch /sys/fs/cgroup/x 2>/dev/null && echo wrote || echo ro
      ls /dev | sort | tr '\\n' ' '
      """
    symlink("busybox", world.layer + "/bin/sort")
    symlink("busybox", world.layer + "/bin/tr")
    let out = try await world.run(world.shell("security", script)).stdout
    let expected = """
      CapInh:\t0000000000000000
      CapPrm:\t00000000a80425fb
      CapEff:\t00000000a80425fb
      CapBnd:\t00000000a80425fb
      CapAmb:\t0000000000000000
      NoNewPrivs:\t1
      Seccomp:\t2
      fds: 4
      ro
      0
      0
      cat: can't open '/tmp/disk': Permission denied
      kept
      null
      refused
      refused
      ro
      core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero 
      """
    #expect(out == expected)
    var config = world.shell("dropped", "grep -E '^Cap(Eff|Bnd)' /proc/self/status")
    config.capabilityDrop = ["ALL"]
    config.capabilityAdd = ["NET_BIND_SERVICE"]
    #expect(try await world.run(config).stdout == "CapEff:\t0000000000000400\nCapBnd:\t0000000000000400\n")
    config.user = "app"
    #expect(try await world.run(config).stdout == "CapEff:\t0000000000000000\nCapBnd:\t0000000000000400\n")
    config = world.shell("privs", "grep -E '^(NoNewPrivs|Seccomp:)' /proc/self/status")
    config.noNewPrivileges = false
    #expect(try await world.run(config).stdout == "NoNewPrivs:\t0\nSeccomp:\t2\n")
  }

  @Test("an image whose /proc, /sys or /dev is a symbolic link is refused", arguments: ["proc", "sys", "dev"])
  func symlinkedFolders(_ name: String) async throws {
    let world = try World()
    symlink("/tmp", world.layer + "/" + name)
    await #expect {
      _ = try await world.runtime.start(world.config("evil-\(name)", "true"))
    } throws: {
      "\($0)".contains("on /\(name): refused: the image has a symbolic link")
    }
    #expect(try Files.list(world.configuration.stateDirectory + "/containers") == [])
  }

  @Test("a mount target that is a symbolic link stays inside the root; a read-only bind and root are read-only")
  func mounts() async throws {
    let world = try World()
    try Files.makeDirectories(world.folder + "/volume", mode: 0o777)
    try Files.makeDirectories(world.folder + "/outside", mode: 0o777)
    try Files.writeAtomically(world.folder + "/resolv.conf", "nameserver 10.0.0.1\n", mode: 0o644, durable: false)
    // In the image /data points at the host's folder.
    symlink(world.folder + "/outside", world.layer + "/data")
    var config = world.shell(
      "mounts",
      "echo in > /data/file; cat /etc/resolv.conf; echo x > /ro/y 2>/dev/null || echo ro; echo x > /etc/z 2>/dev/null || echo root-ro; echo t > /scratch/t && cat /scratch/t; grep -c ' /data ' /proc/mounts"
    )
    config.mounts = [
      .bind(world.folder + "/volume", "/data"), .bind(world.folder + "/volume", "/ro", readOnly: true), .tmpfs("/scratch", size: 1 << 20),
      .bind(world.folder + "/resolv.conf", "/etc/resolv.conf", readOnly: true),
    ]
    config.readOnlyRoot = true
    let result = try await world.run(config)
    #expect(result.stdout == "nameserver 10.0.0.1\nro\nroot-ro\nt\n0\n")
    #expect(try Files.text(world.folder + "/volume/file") == "in\n")
    #expect(try Files.list(world.folder + "/outside") == [])
    config.mounts = [.bind("/nonexistent/source", "/data")]
    await #expect {
      _ = try await world.runtime.start(config)
    } throws: {
      "\($0)" == "start container mounts bind /nonexistent/source to /data: look at the source: ENOENT (No such file or directory)"
    }
  }

  @Test("a target whose links lead to what is not there yet is made where they lead, inside the root", arguments: [false, true])
  func dangling(_ isFile: Bool) async throws {
    let world = try World()
    try Files.makeDirectories(world.folder + "/volume", mode: 0o777)
    try Files.makeDirectories(world.layer + "/real/sub", mode: 0o755)
    try Files.writeAtomically(world.folder + "/volume/file", "mounted\n", mode: 0o644, durable: false)
    let outside = String((world.folder + "/outside").dropFirst())
    symlink("srv/data", world.layer + "/data")
    symlink("real/sub", world.layer + "/alias")
    // Beside the folder that the first link leads to, not beside that link.
    symlink("../other/./deep", world.layer + "/real/sub/out")
    symlink("hop/", world.layer + "/first")
    symlink("/last/one", world.layer + "/hop")
    symlink("../../../../../../" + outside, world.layer + "/escape")
    symlink("loop", world.layer + "/loop")
    let goals = ["/data": "/srv/data", "/alias/out": "/real/other/deep", "/first": "/last/one", "/escape": "/" + outside]
    for (target, goal) in goals.sorted(by: { $0.key < $1.key }) {
      var config = world.shell("dangling", isFile ? "cat \(goal)" : "cat \(goal)/file")
      // A file is not a folder, which is what the name ends in.
      if isFile, target == "/first" { continue }
      config.mounts = [.bind(world.folder + "/volume" + (isFile ? "/file" : ""), target)]
      do {
        let result = try await world.run(config)
        #expect(result.stdout == "mounted\n" && result.exit.code == 0, "\(target): \(result)")
      } catch { Issue.record("\(target): \(error)") }
    }
    #expect(!Files.exists(world.folder + "/outside"))
    for target in ["/loop", "/loop/below"] {
      var config = world.config("loop", "true")
      config.mounts = [.bind(world.folder + "/volume" + (isFile ? "/file" : ""), target)]
      await #expect { _ = try await world.run(config) } throws: { "\($0)".contains("ELOOP") }
    }
  }

  @Test("groups of the image and of the service are as many as they are")
  func manyGroups() async throws {
    let world = try World()
    let lines = (0..<200).map { "g\($0):x:\(5000 + $0):app\n" }.joined() + (0..<100).map { "h\($0):x:\(6000 + $0):\n" }.joined()
    try Files.writeAtomically(
      world.layer + "/etc/group", Files.text(world.layer + "/etc/group") + lines, mode: 0o644, durable: false)
    var config = world.shell("groups", "grep ^Groups: /proc/self/status | wc -w")
    config.user = "app"
    config.groups = (0..<100).map { $0 % 2 == 0 ? "h\($0)" : "\(6000 + $0)" }
    do {
      // The word itself, 2000 of the image's own file, and app's own.
      #expect(try await world.run(config).stdout == "\(1 + 1 + 200 + 100 + 1)\n")
    } catch { Issue.record("\(error)") }
  }

  @Test("limits of memory, processes and CPU are set and seen; an OOM kill is reported")
  func limits() async throws {
    let world = try World()
    var config = world.shell(
      "limits",
      "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max"
    )
    config.resources = .init(memory: 64 << 20, nanoCPUs: 500_000_000, pids: 20)
    #expect(try await world.run(config).stdout.split(whereSeparator: \.isWhitespace).prefix(3) == ["67108864", "20", "50000"])
    config = world.shell("oom", "dd if=/dev/zero of=/dev/null bs=200M count=1")
    config.resources = .init(memory: 16 << 20)
    let oom = try await world.run(config)
    #expect(oom.exit.oomKilled)
    #expect(oom.exit.code == 137)
    config = world.shell("pids", "for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; echo all")
    config.resources = .init(pids: 5)
    let pids = try await world.run(config)
    #expect(pids.stderr.contains("fork"))
    #expect(!pids.stdout.contains("all"))
  }

  @Test("two hundred layers are one root")
  func layers() async throws {
    let world = try World()
    var config = world.shell("layers", "cat /l0 /l1 /l199; cat /last")
    for number in 0..<200 {
      let layer = world.folder + "/a-rather-long-name-for-a-layer-as-digests-have-it-\(number)"
      try Files.makeDirectories(layer, mode: 0o755)
      try Files.writeAtomically(layer + "/l\(number)", "\(number) ", mode: 0o644, durable: false)
      try Files.writeAtomically(layer + "/last", "\(number)", mode: 0o644, durable: false)
      config.layers.append(layer)
    }
    #expect(try await world.run(config).stdout == "0 1 199 199")
  }
}

@Suite(.enabled(if: isRoot), .serialized) struct SupervisionTests {
  @Test("stop sends the signal, waits, then kills")
  func stop() async throws {
    let world = try World()
    _ = try await world.runtime.start(world.shell("polite", "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done"))
    for try await _ in world.runtime.logs("polite", LogOptions(follow: true)) { break }
    let polite = try await world.runtime.stop("polite", grace: .seconds(10))
    #expect(polite.code == 3)
    #expect(try await world.output("polite").stdout == "ready\nbye\n")
    try await world.runtime.delete("polite")
    _ = try await world.runtime.start(world.config("stubborn", "sleep", "1000"))
    let clock = ContinuousClock()
    let begun = clock.now
    let stubborn = try await world.runtime.stop("stubborn", grace: .milliseconds(200))
    #expect(stubborn.code == 137 && stubborn.signal == 9)
    #expect(clock.now - begun >= .milliseconds(200))
    // It ends by itself after 1000 s.
    #expect(clock.now - begun < .seconds(900))
    try await world.runtime.delete("stubborn")
    try await world.runtime.delete("stubborn")
  }

  @Test("a new runtime object finds what runs and what ended meanwhile, with complete logs")
  func recover() async throws {
    let world = try World()
    var config = world.shell("running", "trap end=1 TERM; for i in $(seq 1 200); do echo line $i; done; until [ $end ]; do sleep 0.05; done; exit 4")
    config.labels = ["task": "a b\nc"]
    let before = try await ContainerRuntime(configuration: world.configuration).start(config)
    _ = try await ContainerRuntime(configuration: world.configuration).start(world.shell("ended", "exit 9"))
    var tries = 0
    while !Files.exists(world.configuration.stateDirectory + "/containers/ended/exit"), tries < 200 {
      try await Task.sleep(for: .milliseconds(10))
      tries += 1
    }
    let found = await world.runtime.recover()
    #expect(found.map(\.id) == ["ended", "running"])
    guard case .exited(let exit) = found[0].state, case .running(let running) = found[1].state else {
      Issue.record("found \(found)")
      return
    }
    #expect(exit.code == 9)
    #expect(found[1].labels == ["task": "a b\nc"])
    #expect(running.pid == before.pid && running.startTime == before.startTime)
    var lines = 0
    for try await line in world.runtime.logs("running", LogOptions(follow: true)) {
      // It is ready to be told.
      if lines == 0 { kill(running.pid, SIGTERM) }
      lines += 1
      #expect(String(decoding: line.bytes, as: UTF8.self) == "line \(lines)\n")
    }
    #expect(lines == 200)
    #expect(try await world.runtime.wait("running").code == 4)
    try await world.runtime.delete("running")
    try await world.runtime.delete("ended")
  }

  @Test("when the monitor is killed its container ends, and that is said")
  func lostMonitor() async throws {
    let world = try World()
    let running = try await world.runtime.start(world.config("lost", "sleep", "1000"))
    let monitor = try Files.text(world.configuration.stateDirectory + "/containers/lost/monitor").split(separator: " ")[0]
    kill(Int32(monitor)!, SIGKILL)
    let exit = try await world.runtime.wait("lost")
    #expect(exit.code == 137 && exit.note.contains("monitor"))
    try await world.runtime.delete("lost")
    // Ended: gone, or not yet reaped by its new parent.
    #expect(ProcessIdentity(pid: running.pid, startTime: running.startTime).open()?.hasEnded ?? true)
  }

  @Test("logs: rotation, follow across it, tail, long lines, bytes that are no text")
  func logs() async throws {
    let world = try World()
    var config = world.shell("rotate", "for i in $(seq 1 2000); do echo number $i; done")
    config.log = .init(maxSize: 16 << 10, maxFiles: 100)
    _ = try await world.runtime.start(config)
    var count = 0
    for try await line in world.runtime.logs("rotate", LogOptions(follow: true)) {
      count += 1
      #expect(String(decoding: line.bytes, as: UTF8.self) == "number \(count)\n")
    }
    #expect(count == 2000)
    #expect(Files.exists(world.configuration.dataDirectory + "/containers/rotate/log/container.log.3"))
    var last: [String] = []
    for try await line in world.runtime.logs("rotate", LogOptions(tail: 2)) { last.append(String(decoding: line.bytes, as: UTF8.self)) }
    #expect(last == ["number 1999\n", "number 2000\n"])
    try await world.runtime.delete("rotate")
    config = world.shell("kept", "for i in $(seq 1 2000); do echo number $i; done")
    config.log = .init(maxSize: 4 << 10, maxFiles: 2)
    _ = try await world.runtime.start(config)
    _ = try await world.runtime.wait("kept")
    #expect(try Files.list(world.configuration.dataDirectory + "/containers/kept/log") == ["container.log", "container.log.1"])
    try await world.runtime.delete("kept")
    _ = try await world.runtime.start(
      world.shell("odd", "head -c 40000 /dev/zero | tr '\\0' x; echo; printf 'a\"\\\\\\t<\\377\\303\\251\\n'"))
    _ = try await world.runtime.wait("odd")
    var pieces: [Int] = []
    var text = ""
    for try await line in world.runtime.logs("odd") {
      pieces.append(line.bytes.count)
      text = String(decoding: line.bytes, as: UTF8.self)
    }
    #expect(pieces.dropLast() == [16384, 16384, 7233])
    #expect(text == "a\"\\\t<\u{fffd}é\n")
    let raw = try Files.text(world.configuration.dataDirectory + "/containers/odd/log/container.log")
    #expect(raw.contains("{\"log\":\"a\\\"\\\\\\t\\u003c\\ufffdé\\n\",\"stream\":\"stdout\",\"time\":\"20"))
    try await world.runtime.delete("odd")
  }

  @Test("exec: code, output, input, user, the same confinement, a terminal")
  func exec() async throws {
    let world = try World()
    try Files.writeAtomically(
      world.layer + "/etc/passwd", Files.text(world.layer + "/etc/passwd") + "4294967296:x:0:0::/:\n", mode: 0o644, durable: false)
    var config = world.config("exec", "sleep", "1000")
    config.env = ["A=1"]
    config.hostname = "inside"
    _ = try await world.runtime.start(config)
    func read(_ descriptor: SharedDescriptor) throws -> String {
      var bytes: [UInt8] = []
      var chunk = [UInt8](repeating: 0, count: 4096)
      // EIO is how a terminal ends.
      while case let count = Glibc.read(descriptor.rawValue, &chunk, chunk.count), count > 0 { bytes += chunk[..<count] }
      return String(decoding: bytes, as: UTF8.self)
    }
    var process = try await world.runtime.exec(
      "exec",
      ExecConfig(
        args: [
          "sh", "-c",
          "echo $A$B $(hostname) $(id -u) $HOME; grep -E '^(CapEff|CapInh|NoNewPrivs|Seccomp:)' /proc/self/status; cat; echo err >&2; exit 5",
        ],
        env: ["B=2"], user: "app", stdin: true))
    write(process.stdin!.rawValue, "in\n", 3)
    process.closeStdin()
    #expect(
      try read(process.stdout) == "12 inside 1000 /home/app\nCapInh:\t0000000000000000\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nin\n")
    #expect(try read(process.stderr!) == "err\n")
    #expect(await process.wait() == 5)
    var terminal = ExecConfig(args: ["sh", "-c", "stty size; test -t 0 && tty; exit 6"], tty: true)
    terminal.size = (40, 132)
    process = try await world.runtime.exec("exec", terminal)
    #expect(try read(process.stdout) == "40 132\r\n/dev/pts/0\r\n")
    #expect(await process.wait() == 6)
    process = try await world.runtime.exec("exec", ExecConfig(args: ["sleep", "1000"]))
    process.kill(SIGTERM)
    #expect(await process.wait() == 143)
    await #expect {
      _ = try await world.runtime.exec("exec", ExecConfig(args: ["nope"]))
    } throws: {
      "\($0)" == "exec in container exec: exec \"nope\": executable file not found in $PATH"
    }
    // Numbers beyond what an id is, and names that look like one, are nobody (CVE-2024-40635, 2026-46680, 2026-30892).
    for user in ["4294967295", "4294967296", "0:4294967295", "18446744073709551616", "-1"] {
      await #expect("\(user)") {
        _ = try await world.runtime.exec("exec", ExecConfig(args: ["id", "-u"], user: user))
      } throws: {
        "\($0)".contains("become user \(user)")
      }
    }
    #expect(try await world.runtime.stats("exec").usage.pids == 1)
    let clock = ContinuousClock()
    var times: [Duration] = []
    for _ in 0..<20 {
      let begun = clock.now
      _ = await (try await world.runtime.exec("exec", ExecConfig(args: ["/bin/true"]))).wait()
      times.append(clock.now - begun)
    }
    print("TIME exec of /bin/true, median of 20:", times.sorted()[10])
    _ = try await world.runtime.stop("exec", grace: .zero)
    await #expect(throws: RuntimeError.self) { _ = try await world.runtime.exec("exec", ExecConfig(args: ["true"])) }
    try await world.runtime.delete("exec")
  }

  @Test("a container with a terminal")
  func terminal() async throws {
    let world = try World()
    var config = world.shell("terminal", "tty; test -t 1 && echo yes; echo $TERM; ls -l /dev/console | head -c 1")
    config.tty = true
    #expect(try await world.run(config).stdout == "/dev/pts/0\r\nyes\r\nxterm\r\nc")
  }

  @Test("a terminal is its user's, who opens it by name")
  func terminalOwner() async throws {
    let world = try World()
    var config = world.shell("owner", "stat -c %u:%g /dev/pts/0 /dev/console; echo again > /dev/stdout && echo fine")
    (config.tty, config.user) = (true, "app")
    #expect(try await world.run(config).stdout == "1000:5\r\n1000:5\r\nagain\r\nfine\r\n")
  }

  @Test("a container that cannot be watched is ended, and nothing of it is left")
  func unwatched() async throws {
    let world = try World()
    let seen = Mutex<[Int32]>([])
    let runtime = try ContainerRuntime(configuration: world.configuration) { pid throws(SystemError) in
      seen.withLock { $0.append(pid) }
      throw SystemError("open pidfd of", "\(pid)", Errno(EMFILE))
    }
    defer { runtime.close() }
    await #expect { _ = try await runtime.start(world.config("unwatched", "sleep", "1000")) } throws: { "\($0)".contains("EMFILE") }
    let monitor = try #require(seen.withLock { $0 }.first)
    #expect(kill(monitor, 0) == -1 && errno == ESRCH)
    #expect(!(try CgroupHost.detect().names(below: world.parent).contains("unwatched")))
    for folder in [world.configuration.stateDirectory, world.configuration.dataDirectory] { #expect(try Files.list(folder + "/containers") == []) }
    // The name is free again.
    #expect(try await world.run(world.config("unwatched", "true")).exit.code == 0)
  }

  @Test("a terminal that a container closes and opens again is still there, for who attaches meanwhile, too")
  func reopenedTerminal() async throws {
    let world = try World()
    var config = world.shell(
      "reopened",
      """
      exec </dev/null >/dev/null 2>&1; touch /tmp/closed; until [ -e /tmp/go ]; do sleep 0.05; done
      exec </dev/console >/dev/console 2>&1; stty -echo; echo back; read word; echo got $word
      """)
    (config.tty, config.openStdin) = (true, true)
    _ = try await world.runtime.start(config)
    func step(_ script: String) async throws {
      for _ in 0..<600 {
        if await (try world.runtime.exec("reopened", ExecConfig(args: ["sh", "-c", script]))).wait() == 0 { return }
        try await Task.sleep(for: .milliseconds(50))
      }
      throw RuntimeError(.system, "wait", script, "too long")
    }
    try await step("test -e /tmp/closed")
    try await Task.sleep(for: .milliseconds(200))
    let terminal = try await world.runtime.attach("reopened")
    #expect(isatty(try #require(terminal.input.stdin).rawValue) == 1)
    try await step("touch /tmp/go")
    let said = try await onOwnThread {
      var (all, isTold) = ("", false)
      while let piece = try terminal.next() {
        all += String(decoding: piece.bytes, as: UTF8.self)
        if !isTold, all.contains("back\r\n") {
          isTold = true
          _ = write(terminal.input.stdin!.rawValue, "word\n", 5)
        }
      }
      return all
    }
    #expect(said.contains("back\r\ngot word\r\n"), "\(said)")
    #expect(try await world.runtime.wait("reopened").code == 0)
    #expect(try await world.output("reopened").stdout.hasSuffix("got word\r\n"))
    try await world.runtime.delete("reopened")
  }

  @Test("with an init, too, the terminal is the container's: /dev/tty opens, and Ctrl-C reaches who is in the foreground", arguments: [true, false])
  func controllingTerminal(useInit: Bool) async throws {
    let world = try World()
    var config = world.shell("controlling", "echo to-tty > /dev/tty; trap 'echo told' INT; sleep 1000; echo after $?")
    (config.tty, config.openStdin, config.useInit, config.attachSeconds) = (true, true, useInit, 60)
    _ = try await world.runtime.start(config)
    let terminal = try await world.runtime.attach("controlling")
    let isOver = Task {
      try await Task.sleep(for: .seconds(30))
      try? await world.runtime.signal("controlling", SIGKILL)
    }
    let said = try await onOwnThread {
      var (all, isTold) = ("", false)
      while let piece = try terminal.next() {
        all += String(decoding: piece.bytes, as: UTF8.self)
        if !isTold, all.contains("to-tty") || all.contains("/dev/tty") {
          isTold = true
          // Not before the child is there.
          sleep(1)
          let key = "\u{3}"
          _ = write(terminal.input.stdin!.rawValue, key, 1)
        }
      }
      return all
    }
    isOver.cancel()
    #expect(said.hasPrefix("to-tty\r\n"), "\(said)")
    #expect(said.contains("told\r\n") && said.contains("after 130\r\n"), "\(said)")
    try await world.runtime.delete("controlling")
  }

  @Test("who attaches has stdin and all output from the beginning; the log has it too; leaving ends stdin, not the container")
  func attach() async throws {
    let world = try World()
    var config = world.shell("attach", "printf first; cat; echo last >&2; exit 3")
    config.openStdin = true
    config.attachSeconds = 60
    _ = try await world.runtime.start(config)
    let attached = try await world.runtime.attach("attach")
    do {
      // As long as somebody has it, it does not end.
      let input = try #require(attached.input.stdin)
      #expect(write(input.rawValue, "in\n", 3) == 3)
    }
    func read(_ attached: AttachedProcess, until end: String? = nil) async throws -> String {
      try await onOwnThread {
        var all = ""
        while end == nil || !all.hasSuffix(end!), let piece = try attached.next() {
          all += (piece.stream == .stderr ? "!" : "") + String(decoding: piece.bytes, as: UTF8.self)
        }
        return all
      }
    }
    #expect(try await read(attached, until: "in\n") == "firstin\n")
    attached.input.closeStdin()
    #expect(try await read(attached) == "!last\n")
    let exit = try await world.runtime.wait("attach")
    #expect(exit.code == 3)
    let output = try await world.output("attach")
    #expect(output.stdout == "firstin\n" && output.stderr == "last\n")
    await #expect { _ = try await world.runtime.attach("attach") } throws: { ($0 as? RuntimeError)?.kind == .notRunning }
    try await world.runtime.delete("attach")

    // A terminal: its size, another who comes after the first has left, and a container that does not care who is there.
    config = world.shell("attach-tty", "stty -echo; while read word; do stty size; echo $word; done")
    (config.tty, config.openStdin) = (true, true)
    _ = try await world.runtime.start(config)
    for word in ["one", "two"] {
      let terminal = try await world.runtime.attach("attach-tty")
      terminal.input.resize(rows: 7, columns: 9)
      let text = word + "\n"
      #expect(write(try #require(terminal.input.stdin).rawValue, text, text.utf8.count) == text.utf8.count)
      // The terminal itself may echo the word before stty has had its say.
      let said = "7 9\r\n\(word)\r\n"
      #expect(try await read(terminal, until: said).hasSuffix(said))
      terminal.leave()
    }
    #expect(try await world.runtime.stop("attach-tty", signal: SIGKILL, grace: .seconds(20)).code == 137)
    try await world.runtime.delete("attach-tty")

    // Without the option there is nobody to come to; nobody comes: output waits no longer than it was told.
    _ = try await world.runtime.start(world.config("closed", "sleep", "60"))
    await #expect { _ = try await world.runtime.attach("closed") } throws: { "\($0)".contains("stdin was not kept open") }
    try await world.runtime.delete("closed")
    config = world.shell("alone", "seq 1 100000; read word; echo never")
    (config.openStdin, config.attachSeconds) = (true, 1)
    _ = try await world.runtime.start(config)
    for try await line in world.runtime.logs("alone", LogOptions(follow: true)) where line.bytes.starts(with: Array("100000".utf8)) { break }
    try await world.runtime.delete("alone")
  }

  @Test("start to exit of /bin/true over 50 runs")
  func speed() async throws {
    let world = try World()
    var (started, ended): ([Duration], [Duration]) = ([], [])
    let clock = ContinuousClock()
    for number in 0..<50 {
      let begun = clock.now
      _ = try await world.runtime.start(world.config("true-\(number)", "/bin/true"))
      started.append(clock.now - begun)
      _ = try await world.runtime.wait("true-\(number)")
      ended.append(clock.now - begun)
      try await world.runtime.delete("true-\(number)")
    }
    started.sort()
    ended.sort()
    print("TIME start of /bin/true, median of 50:", started[25], "to exit:", ended[25], "p90:", ended[45])
    #expect(ended[25] < .seconds(5))
    _ = try await world.runtime.start(world.config("idle", "sleep", "1000"))
    let monitor = try Files.text(world.configuration.stateDirectory + "/containers/idle/monitor").split(separator: " ")[0]
    let pss = try Files.text("/proc/\(monitor)/smaps_rollup").split(separator: "\n").first { $0.hasPrefix("Pss:") } ?? ""
    print("TIME monitor", pss)
    _ = try await world.runtime.stop("idle", grace: .zero)
    try await world.runtime.delete("idle")
  }
}
