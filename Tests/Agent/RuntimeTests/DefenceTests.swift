import AgentVolume
import Cgroups
import Glibc
import LinuxSystem
import Model
import Synchronization
import Testing

@testable import Runtime

private final class Flag: Sendable {
  private let state = Mutex(false)
  var isSet: Bool { state.withLock { $0 } }
  func set() { state.withLock { $0 = true } }
}

/// Each fails when its defence is taken out of the code (docs/runtime.md).
@Suite(.enabled(if: isRoot), .serialized) struct DefenceTests {
  private func mode(_ path: String) throws -> mode_t {
    var status = stat()
    try #require(lstat(path, &status) == 0, "\(path)")
    return status.st_mode & 0o7777
  }

  @Test("without a limit of its own a container has 4096 processes; nobody but root looks into the runtime's folders")
  func defaults() async throws {
    let world = try World()
    #expect(world.configuration.defaultPids == 4096)
    _ = try await world.runtime.start(world.config("plain", "sleep", "1000"))
    #expect(try await world.runtime.stats("plain").usage.pidsLimit == 4096)
    let (state, data) = (world.configuration.stateDirectory, world.configuration.dataDirectory)
    for folder in [state, state + "/containers", state + "/containers/plain"] { #expect(try mode(folder) == 0o700, "\(folder)") }
    // Users of containers pass through the folders of their root, and list none.
    for folder in [data, data + "/containers", data + "/containers/plain"] { #expect(try mode(folder) & 0o066 == 0, "\(folder)") }
    #expect(try mode(data + "/containers/plain/log") == 0o700)
    #expect(try mode(data + "/containers/plain/log/container.log") == 0o600)
    try await world.runtime.delete("plain")
  }

  @Test("what of /proc and /sys is masked or read-only is Docker's list, and each that this kernel has is so")
  func paths() async throws {
    // moby profiles, oci/defaults.go; of asound and sched_debug and the like a kernel has what it was built with.
    let masked = [
      "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
      "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
    ]
    let readOnly = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
    #expect(Plan.masked.sorted() == masked && Plan.readOnly.sorted() == readOnly)
    let world = try World()
    symlink("busybox", world.layer + "/bin/cut")
    _ = try await world.runtime.start(world.config("paths", "sleep", "1000"))
    var seen = 0
    for (path, isMasked) in masked.map({ ($0, true) }) + readOnly.map({ ($0, false) }) where Files.exists(path) {
      seen += 1
      // Masked: /dev/null, or an empty folder that nobody writes to. Read-only: a mount of its own that says so.
      let script =
        isMasked
        ? "if [ -d $0 ]; then ls -A $0 | wc -l; touch $0/x 2>/dev/null && echo wrote; else stat -c %t:%T $0; fi"
        : "grep \" $0 \" /proc/mounts | cut -d' ' -f4 | cut -d, -f1; if [ ! -d $0 ]; then (echo h > $0) 2>/dev/null && echo wrote; fi"
      let exec = try await world.runtime.exec("paths", ExecConfig(args: ["sh", "-c", script, path]))
      let out = String(decoding: try Files.read(descriptor: exec.stdout.rawValue, name: path), as: UTF8.self)
      _ = await exec.wait()
      if isMasked { #expect(["0\n", "1:3\n"].contains(out), "\(path): \(out)") } else { #expect(out == "ro\n", "\(path): \(out)") }
    }
    #expect(seen >= 6)
    try await world.runtime.delete("paths")
  }

  @Test("exec is in every namespace of its container, and in none of the host's but those that all share")
  func namespaces() async throws {
    let world = try World()
    let running = try await world.runtime.start(world.config("spaces", "sleep", "1000"))
    let exec = try await world.runtime.exec("spaces", ExecConfig(args: ["sleep", "1000"]))
    for name in try Files.list("/proc/self/ns") {
      let inside = try Files.link("/proc/\(exec.pid)/ns/\(name)")
      #expect(try inside == Files.link("/proc/\(running.pid)/ns/\(name)"), "\(name)")
      let isHosts = try inside == Files.link("/proc/self/ns/\(name)")
      #expect(isHosts == ["user", "time", "time_for_children"].contains(name), "\(name)")
    }
    exec.kill(SIGKILL)
    _ = await exec.wait()
    try await world.runtime.delete("spaces")
  }

  @Test("a set-id program of the image gives nothing, unless no_new_privs is given up")
  func setID() async throws {
    let world = try World()
    // busybox gives up by itself what it is not to have: coreutils' cat with its libraries.
    let program = world.layer + "/bin/suid"
    try Files.writeAtomically(program, try Files.read("/bin/cat"), mode: 0o755, durable: false)
    try #require(chmod(program, 0o6755) == 0)
    var config = world.config("suid", "/bin/suid", "/proc/self/status")
    config.mounts = ["/lib", "/lib64", "/usr/lib"].filter { Files.exists($0) }.map { .bind($0, $0, readOnly: true) }
    config.user = "app"
    func ids() async throws -> [String] {
      let (exit, out, err) = try await world.run(config)
      try #require(exit.code == 0, "\(err)")
      return out.split(separator: "\n").filter { $0.hasPrefix("Uid:") || $0.hasPrefix("Gid:") }.map(String.init)
    }
    #expect(try await ids() == ["Uid:\t1000\t1000\t1000\t1000", "Gid:\t1000\t1000\t1000\t1000"])
    config.noNewPrivileges = false
    #expect(try await ids() == ["Uid:\t1000\t0\t0\t0", "Gid:\t1000\t0\t0\t0"])
  }

  @Test("nothing is executed from a tmpfs, unless it was asked for; set-id and devices never count there", arguments: [false, true])
  func temporary(_ isExecutable: Bool) async throws {
    let world = try World()
    var config = world.shell("tmpfs", "cat /bin/busybox > /t/busybox; chmod 755 /t/busybox; /t/busybox echo ran; grep ' /t ' /proc/mounts")
    config.mounts = [.tmpfs("/t", isExecutable: isExecutable)]
    let (_, out, err) = try await world.run(config)
    #expect(out.contains("ran\n") == isExecutable && err.contains("Permission denied") != isExecutable, "\(out)\(err)")
    #expect(out.contains("rw,nosuid,nodev,") && out.contains(",noexec") != isExecutable, "\(out)")
  }

  @Test("links of the root that turn to the host and back, while it is set up, let no mount, file or device out")
  func swapped() async throws {
    let world = try World()
    let (root, outside) = (world.folder + "/root", world.folder + "/outside")
    for folder in [root, outside + "/in", root + "/inside/in", world.folder + "/volume"] { try Files.makeDirectories(folder, mode: 0o755) }
    for name in try Files.list(world.layer) where name != "tmp" {
      let pid = try ChildProcess.start("/bin/busybox", ["busybox", "cp", "-a", world.layer + "/" + name, root]) { _ in }
      try #require(ChildProcess.reap(pid) == 0)
    }
    let place = root + "/turning"
    symlink("inside", place)
    let isOver = Flag()
    await withTaskGroup(of: Void.self) { group in
      group.addTask {
        await blockingAlways {
          while !isOver.isSet {
            for goal in [outside, "inside"] {
              symlink(goal, place + ".next")
              rename(place + ".next", place)
            }
          }
        }
      }
      for turn in 0..<12 {
        var config = world.shell("turn\(turn)", "echo in > /turning/volume/x; echo in > /turning/made/x; true")
        (config.layers, config.rootDirectory) = ([], root)
        config.mounts = [.bind(world.folder + "/volume", "/turning/volume"), .tmpfs("/turning/made/deep")]
        config.files = [FileConfig(target: "/turning/in/secret", content: Array("s".utf8))]
        // It may well be refused.
        if (try? await world.runtime.start(config)) != nil { _ = try? await world.runtime.wait(config.id) }
        try? await world.runtime.delete(config.id)
      }
      isOver.set()
    }
    #expect(try Files.list(outside) == ["in"] && Files.list(outside + "/in") == [])
  }
}

/// A folder of a volume (CVE-2017-1002101, CVE-2021-25741): who writes to the volume chooses what its names lead to.
@Suite(.enabled(if: isRoot), .serialized) struct SubpathTests {
  @Test("a folder of a volume that becomes a link to the host after it was looked at is not followed out", arguments: [0, 2])
  func swapped(stubs: Int) async throws {
    let world = try World(stubs: stubs)
    _ = await world.runtime.recover()
    for _ in 0..<6000 where world.runtime.stubs.count < stubs { try await Task.sleep(for: .milliseconds(5)) }
    let canary = world.folder + "/canary"
    try Files.makeDirectories(canary)
    try Files.writeAtomically(canary + "/secret", "the host's", durable: false)
    let store = try VolumeStore(directory: world.folder + "/volumes")
    let volume = try await store.create("v", now: .zero)
    try Files.makeDirectories(volume.path + "/a/b")
    try Files.makeDirectories(volume.path + "/a/c")
    try Files.writeAtomically(volume.path + "/a/c/own", "of the volume\n", durable: false)
    func config(_ id: String, after change: () -> Void) async throws -> ContainerConfig {
      var mount = Mount(type: .volume, source: "v", target: "/x")
      mount.volumeOptions = Mount.VolumeOptions()
      mount.volumeOptions?.subpath = "a/b"
      guard case .bind(let source, let subpath, let target, _, let recursive) = try await store.resolve(mount, task: id, now: .zero) else {
        throw VolumeError(.invalid, "no bind")
      }
      change()
      var config = world.shell(id, "cat /x/secret; cat /x/own; echo > /x/written")
      config.mounts = [MountConfig(.bind(source: source, subpath: subpath, recursive: recursive), target: target)]
      return config
    }
    let place = volume.path + "/a/b"
    let outside = try await config("outside") {
      rmdir(place)
      symlink(canary, place)
    }
    await #expect { _ = try await world.runtime.start(outside) } throws: { "\($0)".contains("find the subpath in its volume: ENOENT") }
    // Back by "..", and by a link of the kernel's, which knows no root.
    for (id, goal) in [("back", "../../../../../../../../../.." + canary), ("magic", "/proc/self/root" + canary)] {
      unlink(place)
      try Files.makeDirectories(place)
      let config = try await config(id) {
        rmdir(place)
        symlink(goal, place)
      }
      await #expect(throws: RuntimeError.self, "\(id)") { _ = try await world.runtime.start(config) }
    }
    // A link to what is in the volume leads there.
    unlink(place)
    symlink("/a/c", place)
    let (exit, out, _) = try await world.run(try await config("inside") {})
    #expect(exit.code == 0 && out == "of the volume\n")
    #expect(try Files.list(canary) == ["secret"] && Files.list(volume.path + "/a/c").sorted() == ["own", "written"])
  }
}

@Suite(.enabled(if: isRoot), .serialized) struct KeepingTests {
  @Test("init reaps what its container leaves behind; without it a zombie stays", arguments: [true, false])
  func reaps(_ useInit: Bool) async throws {
    let world = try World()
    var config = world.shell("reaps", "((sleep 0.1; echo > /done) &); exec sleep 1000")
    config.useInit = useInit
    _ = try await world.runtime.start(config)
    // The first process's children: state of each.
    let script = "[ -e /done ] && cat /proc/[0-9]*/stat | grep -o '^[0-9]* ([^)]*) . 1 ' | grep -o ') . 1'; true"
    var seen = ""
    for _ in 0..<900 {
      let exec = try await world.runtime.exec("reaps", ExecConfig(args: ["sh", "-c", script]))
      seen = String(decoding: try Files.read(descriptor: exec.stdout.rawValue, name: "children"), as: UTF8.self)
      _ = await exec.wait()
      if useInit ? seen == ") S 1\n" : seen == ") Z 1\n" { break }
      try await Task.sleep(for: .milliseconds(50))
    }
    // With init the program is its child, and the orphan is gone.
    #expect(seen == (useInit ? ") S 1\n" : ") Z 1\n"))
    try await world.runtime.delete("reaps")
  }

  @Test("a disk that is full holds no container up: it writes on, and ends by itself")
  func fullDisk() async throws {
    let world = try World()
    let disk = world.folder + "/disk"
    try Files.makeDirectories(disk)
    try #require(mount("tmpfs", disk, "tmpfs", 0, "size=1m") == 0)
    defer { umount2(disk, Int32(MNT_DETACH)) }
    var configuration = world.configuration
    configuration.dataDirectory = disk + "/data"
    let runtime = try ContainerRuntime(configuration: configuration)
    defer { runtime.close() }
    var config = world.shell("full", "head -c 4000000 /dev/zero | tr '\\0' x; echo; echo last >&2; exit 5")
    symlink("busybox", world.layer + "/bin/tr")
    config.log = .init(maxSize: 100 << 20, maxFiles: 2)
    _ = try await runtime.start(config)
    let clock = ContinuousClock()
    let begun = clock.now
    let exit = try await runtime.stop("full", signal: 0, grace: .seconds(45))
    #expect(exit.code == 5 && exit.signal == nil, "after \(clock.now - begun)")
    var status = statvfs()
    #expect(statvfs(disk, &status) == 0 && status.f_bavail < 16)
    var bytes = 0
    for try await line in runtime.logs("full") { bytes += line.bytes.count }
    #expect(bytes > 100_000 && bytes < 4_000_000)
    try await runtime.delete("full")
  }

  @Test("arguments and variables are as many as the kernel takes; beyond that an error says how much there was", arguments: [false, true])
  func manyArguments(_ hasInit: Bool) async throws {
    let world = try World()
    var config = world.shell("many", "")
    let many = (0..<20_000).map { "a\($0)" }
    config.useInit = hasInit
    config.args = ["sh", "-c", "echo $# $(env | grep -c ^V)", "sh"] + many
    config.env += (0..<20_000).map { "V\($0)=" }
    #expect(try await world.run(config).stdout == "20000 20000\n")
    config.args = ["sh", "-c", "true", String(repeating: "x", count: 131_072)]
    await #expect { try await world.runtime.start(config) } throws: { "\($0)".contains("the longest of 131073") }
    try? await world.runtime.delete("many")
  }

  @Test("who else holds a container's output and writes on does not keep its end from being told", arguments: [false, true])
  func foreignWriter(_ hasTerminal: Bool) async throws {
    let world = try World()
    var config = world.shell("held", "trap 'echo last; exit 0' USR1; echo first; while :; do sleep 0.1; done")
    config.tty = hasTerminal
    // Of the flood the last is enough.
    config.log = .init(maxSize: 2 << 20, maxFiles: 2)
    let running = try await world.runtime.start(config)
    let (begun, ended) = (Flag(), Flag())
    // As one who was sent the descriptor (unix(7), SCM_RIGHTS) has it: outside of the container, which it outlives.
    let output = SharedDescriptor(owning: open("/proc/\(running.pid)/fd/1", O_WRONLY | O_NOCTTY | O_CLOEXEC))
    try #require(output.rawValue >= 0)
    signal(SIGPIPE, SIG_IGN)
    startThread("writer") {
      // As yes(1) has it: faster than anybody reads.
      let lines = [UInt8](String(repeating: "foreign\n", count: 8192).utf8)
      while !ended.isSet, write(output.rawValue, lines, lines.count) > 0 { begun.set() }
    }
    while !begun.isSet { try await Task.sleep(for: .milliseconds(1)) }
    let runtime = world.runtime
    let first = try PidDescriptor(pid: running.pid)
    let exit = await withTaskGroup { group in
      group.addTask { try? await runtime.wait("held") }
      group.addTask {
        // The flood has begun; as first process it hears none before it has said what it does then.
        while !Task.isCancelled {
          try? await Task.sleep(for: .seconds(2))
          try? first.send(SIGUSR1)
        }
        return nil
      }
      group.addTask {
        try? await Task.sleep(for: .seconds(60))
        // What would hold it for ever.
        ended.set()
        return nil
      }
      defer { group.cancelAll() }
      return await group.next() ?? nil
    }
    ended.set()
    #expect(exit?.code == 0)
    // What a terminal holds as its session ends is gone (tty_vhangup_session).
    if !hasTerminal { #expect(try await world.output("held").stdout.contains("last")) }
    try await world.runtime.delete("held")
  }

  /// - Parameter errno: of what has no instance of inotify for it.
  private func lines(_ world: World, _ id: String, _ options: LogOptions, errno number: Int32, _ asked: Flag) async throws -> [String] {
    let paths = ContainerPaths(world.configuration, id)
    let feed = LogFeed()
    let handle = LogFeed.Handle(feed)
    let reader = LogReader(path: paths.log, state: paths.state, options: options, feed: feed) {
      asked.set()
      errno = number
      return -1
    }
    startThread("reader") { reader.run() }
    var found: [String] = []
    while let line = try await handle.next() { found.append(String(decoding: line.bytes, as: UTF8.self)) }
    return found
  }
  @Test("logs are read where there is no instance of inotify left, and followed; what is not followed needs none")
  func withoutWatch() async throws {
    let world = try World()
    _ = try await world.runtime.start(world.shell("unwatched", "for i in 1 2 3 4; do echo $i; sleep 0.5; done"))
    let asked = Flag()
    let followed = try await lines(world, "unwatched", LogOptions(follow: true), errno: EMFILE, asked)
    #expect(followed == ["1\n", "2\n", "3\n", "4\n"] && asked.isSet)
    _ = try await world.runtime.wait("unwatched")
    let never = Flag()
    #expect(try await lines(world, "unwatched", LogOptions(), errno: EMFILE, never) == followed)
    #expect(!never.isSet)
    await #expect(throws: SystemError.self) { _ = try await lines(world, "unwatched", LogOptions(follow: true), errno: EACCES, never) }
    try await world.runtime.delete("unwatched")
  }

  @Test("logs --since begins with the first line of that moment")
  func since() async throws {
    let world = try World()
    _ = try await world.runtime.start(world.shell("since", "for i in 1 2 3 4; do echo $i; sleep 0.05; done"))
    _ = try await world.runtime.wait("since")
    var lines: [LogLine] = []
    for try await line in world.runtime.logs("since") { lines.append(line) }
    try #require(lines.count == 4)
    for first in lines.indices {
      var found: [LogLine] = []
      for try await line in world.runtime.logs("since", LogOptions(since: lines[first].time)) { found.append(line) }
      #expect(found == Array(lines[first...]))
    }
    for try await line in world.runtime.logs("since", LogOptions(since: Timestamp(nanoseconds: lines[3].time.nanoseconds + 1))) {
      Issue.record("\(line)")
    }
    try await world.runtime.delete("since")
  }

  @Test("logs --until ends with the last line of that moment, from which tail counts back")
  func until() async throws {
    let world = try World()
    _ = try await world.runtime.start(world.shell("until", "for i in 1 2 3 4; do echo $i; sleep 0.05; done"))
    _ = try await world.runtime.wait("until")
    func found(_ options: LogOptions) async throws -> [LogLine] {
      var found: [LogLine] = []
      for try await line in world.runtime.logs("until", options) { found.append(line) }
      return found
    }
    let lines = try await found(LogOptions())
    try #require(lines.count == 4)
    for last in lines.indices {
      #expect(try await found(LogOptions(until: lines[last].time)) == Array(lines[...last]))
      #expect(try await found(LogOptions(tail: 2, until: lines[last].time)) == Array(lines[max(0, last - 1)...last]))
      #expect(try await found(LogOptions(since: lines[1].time, until: lines[last].time)) == (last < 1 ? [] : Array(lines[1...last])))
    }
    #expect(try await found(LogOptions(until: Timestamp(nanoseconds: lines[0].time.nanoseconds - 1))).isEmpty)
    try await world.runtime.delete("until")
  }

  @Test("logs --follow --until ends at that moment, whatever comes after it, or nothing", arguments: [true, false])
  func followUntil(_ isLoud: Bool) async throws {
    let world = try World()
    let script = isLoud ? "while :; do echo x; sleep 0.1; done" : "echo x; sleep 1000"
    _ = try await world.runtime.start(world.shell("follow", script))
    var now = timespec()
    clock_gettime(CLOCK_REALTIME, &now)
    let end = Timestamp(nanoseconds: Int64(now.tv_sec) * 1_000_000_000 + Int64(now.tv_nsec) + 1_500_000_000)
    var count = 0
    for try await line in world.runtime.logs("follow", LogOptions(follow: true, until: end)) {
      #expect(line.time <= end)
      count += 1
    }
    #expect(isLoud ? count > 3 : count == 1)
    clock_gettime(CLOCK_REALTIME, &now)
    #expect(Int64(now.tv_sec) < end.nanoseconds / 1_000_000_000 + 15)
    try await world.runtime.delete("follow")
  }

  @Test("a terminal of a running exec is resized, and its program is told")
  func resize() async throws {
    let world = try World()
    _ = try await world.runtime.start(world.config("resize", "sleep", "1000"))
    var config = ExecConfig(args: ["sh", "-c", "trap 'stty size; exit 3' WINCH; echo ready; while :; do sleep 0.05; done"], tty: true)
    config.size = (24, 80)
    let exec = try await world.runtime.exec("resize", config)
    var text = ""
    var chunk = [UInt8](repeating: 0, count: 4096)
    while case let count = Glibc.read(exec.stdout.rawValue, &chunk, chunk.count), count > 0 {
      text += String(decoding: chunk[..<count], as: UTF8.self)
      if text.hasSuffix("ready\r\n") { exec.resize(rows: 50, columns: 200) }
    }
    #expect(text == "ready\r\n50 200\r\n")
    #expect(await exec.wait() == 3)
    try await world.runtime.delete("resize")
  }
}
