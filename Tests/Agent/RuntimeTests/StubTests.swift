import Cgroups
import Glibc
import LinuxSystem
import Testing

@testable import Runtime

@Suite(.enabled(if: isRoot), .serialized) struct StubTests {
  private func world() async throws -> World {
    let world = try World(stubs: 2)
    _ = await world.runtime.recover()
    return world
  }
  private func stubs(_ world: World, _ count: Int) async throws -> [Int32] {
    for turn in 1...9000 {
      if world.runtime.stubs.count >= count { return world.runtime.stubs }
      // Given up for lack of memory: a start has them made again.
      if turn % 2000 == 0 { _ = try await world.run(world.config("again-\(turn)", "true")) }
      try await Task.sleep(for: .milliseconds(5))
    }
    throw RuntimeError(.system, "wait for stubs", "\(count)", "there are \(world.runtime.stubs.count)")
  }
  private func groups(_ world: World) throws -> [String] { try CgroupHost.detect().names(below: world.parent) }
  private func cgroupName(_ world: World, _ id: String) throws -> String? {
    StoredContainer(text: try Files.text("\(world.configuration.stateDirectory)/containers/\(id)/config")).cgroup
  }

  /// All by which a process can see how it is confined, without what differs from one container to the next.
  private static let look = """
    cd /; grep -E '^(Uid|Gid|Groups|NSpid|NSpgid|NSsid|Cap|NoNewPrivs|Seccomp|SigPnd|SigBlk|SigIgn|SigCgt|Umask|Shd|Threads|TracerPid)' /proc/self/status
    cat /proc/self/limits /proc/self/oom_score_adj /proc/self/cgroup /proc/self/uid_map
    while read id parent device rest; do echo "mount $rest"; done < /proc/self/mountinfo
    ls -l /proc/self/fd | while read a b c d e f g h what; do echo "$what"; done | grep -v -e /proc/ -e pipe
    ls -la /dev /dev/shm /dev/pts /sys/fs/cgroup | while read mode links owner group rest; do echo "$mode $owner $group"; done
    ls -l / | while read mode links owner group size month day time name; do echo "$mode $owner $name"; done
    for f in /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range /proc/sys/kernel/hostname; do cat $f; done
    cat /proc/net/dev | wc -l; cat /proc/net/route /proc/net/if_inet6; echo $$; env; hostname; all=$(ps); echo "$all" | wc -l
    for f in /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max; do cat $f; done
    echo x > /proc/sys/kernel/domainname; mount -t tmpfs t /mnt; mknod /tmp/n b 8 0; unshare -m true; cat /proc/kcore | wc -c; ls /sys/class/net
    """

  @Test("a container that a stub became is confined as one made from nothing", arguments: ["own", "given"])
  func confinement(network: String) async throws {
    let (cold, pooled) = (try World(), try await world())
    // Whose network namespace is joined: the host's would change under the test.
    let holder = try await cold.runtime.start(cold.config("holder", "sleep", "1000"))
    var seen: [String] = []
    for world in [cold, pooled] {
      if world === pooled { _ = try await stubs(world, 2) }
      var config = world.shell("look", Self.look)
      config.hostname = "looker"
      config.resources = .init(memory: 64 << 20, pids: 32)
      config.mounts = [.bind(world.layer + "/tmp", "/shared", readOnly: true), .tmpfs("/scratch", size: 1 << 20)]
      config.ulimits = [.init(name: "nofile", hard: 100, soft: 99)]
      config.oomScoreAdj = 55
      if network == "given" { config.network = .path("/proc/\(holder.pid)/ns/net") }
      _ = try await world.runtime.start(config)
      _ = try await world.runtime.wait("look")
      #expect((try cgroupName(world, "look") != nil) == (world === pooled), "made in another way than meant")
      let (out, err) = try await world.output("look")
      // Its last name alone where /tmp is a file system of its own.
      let name = world.folder.split(separator: "/").last.map { "/" + $0 } ?? world.folder
      seen.append((out + err).replacing(world.folder, with: "FOLDER").replacing(name, with: "FOLDER").replacing(world.parent, with: "PARENT"))
      try await world.runtime.delete("look")
    }
    #expect(seen[0].contains("NoNewPrivs:\t1") && seen[0].contains("Seccomp:\t2") && seen[0].contains("looker"), "\(seen[0])")
    // The kernel lists mounts by their age.
    let (lines, others) = (Self.sortingMounts(seen[0]), Self.sortingMounts(seen[1]))
    for (line, other) in zip(lines, others) where line != other { Issue.record("from nothing: \(line)\nof a stub:    \(other)") }
    #expect(lines.count == others.count)
    try await cold.runtime.delete("holder")
  }

  private static func sortingMounts(_ text: String) -> [Substring] {
    let lines = text.split(separator: "\n")
    return lines.filter { !$0.hasPrefix("mount ") } + lines.filter { $0.hasPrefix("mount ") }.sorted()
  }

  @Test("what the host mounted after the stub was made is there; its namespaces are not the host's, nor another container's")
  func hostMounts() async throws {
    let world = try await world()
    _ = try await stubs(world, 2)
    let folder = world.folder + "/late"
    try Files.makeDirectories(folder)
    #expect(mount("late", folder, "tmpfs", 0, nil) == 0)
    defer { umount2(folder, Int32(MNT_DETACH)) }
    try Files.writeAtomically(folder + "/file", "mounted late\n", durable: false)
    let spaces = "for n in pid net ipc uts mnt cgroup; do readlink /proc/self/ns/$n; done"
    var inside: [[Substring]] = []
    for id in ["one", "two"] {
      _ = try await stubs(world, 1)
      var config = world.shell(id, "cat /late/file; \(spaces); echo done; exec sleep 1000")
      config.mounts = [.bind(folder, "/late")]
      // Both live: a namespace's number is given again.
      _ = try await world.runtime.start(config)
      var out = ""
      for _ in 1...9000 where !out.hasSuffix("done\n") {
        try await Task.sleep(for: .milliseconds(5))
        out = try await world.output(id).0
      }
      #expect(out.hasPrefix("mounted late\n"))
      inside.append(out.split(separator: "\n").dropFirst().dropLast().map { $0 })
    }
    for id in ["one", "two"] {
      _ = try await world.runtime.stop(id, signal: SIGKILL, grace: .seconds(20))
      try await world.runtime.delete(id)
    }
    let host = ["pid", "net", "ipc", "uts", "mnt", "cgroup"].map { Substring((try? Files.link("/proc/self/ns/\($0)")) ?? "") }
    for kind in host.indices { #expect(Set([host[kind], inside[0][kind], inside[1][kind]]).count == 3) }
  }

  @Test("a stub is one container's: limits, exec, statistics and recovery find its cgroup, and nothing of it is left")
  func life() async throws {
    let world = try await world()
    let before = Set(try await stubs(world, 2))
    var config = world.config("held", "sleep", "1000")
    config.resources = .init(memory: 32 << 20, pids: 16)
    let running = try await world.runtime.start(config)
    let monitor = try #require(ProcessIdentity.parent(of: running.pid))
    #expect(before.contains(monitor) && !world.runtime.stubs.contains(monitor))
    let name = try #require(try cgroupName(world, "held"))
    let statistics = try await world.runtime.stats("held").usage
    #expect(statistics.memoryLimit == 32 << 20)
    #expect(statistics.pids == 1)
    let process = try await world.runtime.exec("held", ExecConfig(args: ["true"]))
    #expect(await process.wait() == 0)
    // Another agent finds it with its cgroup, and takes that of no running container for a leftover.
    let next = try ContainerRuntime(configuration: world.configuration)
    #expect(await next.recover().map(\.id) == ["held"])
    #expect(try await next.stats("held").usage.pids == 1)
    _ = try await next.stop("held", grace: .zero)
    try await next.delete("held")
    #expect(!(try groups(world)).contains(name))
  }

  @Test("a stub that was killed is no matter: the container is made from nothing; one whose program is missing leaves nothing")
  func killed() async throws {
    let world = try await world()
    for stub in try await stubs(world, 2) { kill(stub, SIGSTOP) }
    // Stopped, they are still there when one is taken; then they die with the plan unread.
    let stopped = world.runtime.stubs
    let start = Task { try await world.run(world.shell("killed", "echo made")) }
    try await Task.sleep(for: .milliseconds(50))
    for stub in stopped { kill(stub, SIGKILL) }
    let (exit, out, _) = try await start.value
    #expect(exit.code == 0)
    #expect(out == "made\n")
    _ = try await stubs(world, 1)
    await #expect {
      _ = try await world.runtime.start(world.config("missing", "no-such-program"))
    } throws: {
      ($0 as? RuntimeError)?.kind == .command(exitCode: 127)
    }
    #expect(try Files.list(world.configuration.stateDirectory + "/containers") == [])
    #expect(try groups(world).allSatisfy { $0.hasPrefix("stub-") })
  }

  @Test("a terminal and an open stdin are made from nothing")
  func unfit() async throws {
    let world = try await world()
    _ = try await stubs(world, 2)
    var config = world.shell("tty", "tty")
    config.tty = true
    _ = try await world.runtime.start(config)
    #expect(try await world.runtime.wait("tty").code == 0)
    #expect(try cgroupName(world, "tty") == nil)
    try await world.runtime.delete("tty")
  }

  @Test("stubs end with their agent, and the next one removes their cgroups")
  func agentGone() async throws {
    let world = try World()
    let host = try CgroupHost.detect()
    var monitors: [Int32] = []
    do {
      var configuration = world.configuration
      configuration.stubs = 1
      let runtime = try ContainerRuntime(configuration: configuration)
      _ = await runtime.recover()
      for _ in 0..<9000 where runtime.stubs.count < 2 { try await Task.sleep(for: .milliseconds(5)) }
      monitors = runtime.stubs
      #expect(monitors.count == 2)
    }
    for monitor in monitors { #expect(ProcessIdentity.of(monitor) == nil) }
    #expect(try groups(world) == [])
    // As after kill -9: the group is there, nobody in it. Another agent's is not ours to remove.
    let state = world.configuration.stateDirectory
    let left = StubPool.prefix(of: state) + "left", foreign = StubPool.prefix(of: state + "2") + "left"
    for name in [left, foreign] { try host.group(parent: world.parent, name: name).create(CgroupLimits()) }
    defer { try? host.group(parent: world.parent, name: foreign).remove() }
    _ = await world.runtime.recover()
    #expect(try groups(world) == [foreign])
  }

  @Test("what stubs left below a parent that the agent had before is removed, too; nobody else's is, nor the parent")
  func formerParent() async throws {
    let world = try World()
    let host = try CgroupHost.detect()
    let prefix = StubPool.prefix(of: world.configuration.stateDirectory)
    // As each agent does that begins.
    _ = await world.runtime.recover()
    for name in [prefix + "left", prefix + "used", "stub-foreign", "other"] {
      try host.group(parent: world.parent, name: name).create(CgroupLimits())
    }
    defer { for name in [prefix + "used", "stub-foreign", "other"] { try? host.group(parent: world.parent, name: name).remove() } }
    let kept = world.configuration.stateDirectory + "/containers/kept"
    try Files.makeDirectories(kept)
    try Files.writeAtomically(kept + "/config", "cgroup \(prefix)used\nparent \(world.parent)\n", durable: false)
    var configuration = world.configuration
    configuration.cgroupParent += "-second"
    defer { try? host.group(parent: "", name: configuration.cgroupParent).remove() }
    for _ in 0..<2 {
      _ = await (try ContainerRuntime(configuration: configuration)).recover()
      #expect(try groups(world) == ["other", prefix + "used", "stub-foreign"].sorted())
    }
    try Files.removeTree(kept)
  }
}
