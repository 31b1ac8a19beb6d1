import Cgroups
import Glibc
import LinuxSystem
import Testing

@testable import Runtime

@Suite(.enabled(if: isRoot), .serialized) struct LeftoverTests {
  /// A process that sleeps, in this group of every hierarchy.
  private func plant(in group: Cgroup) throws -> pid_t {
    try group.create(CgroupLimits())
    try group.inheritCpuset()
    let pid = try ChildProcess.start("/bin/busybox", ["busybox", "sleep", "1000"]) { _ in }
    for file in group.joinFiles + (group.cloneDirectory.map { [$0 + "/cgroup.procs"] } ?? []) { try Files.writeExisting(file, "\(pid)") }
    return pid
  }
  private func end(_ pid: pid_t) {
    kill(pid, SIGKILL)
    ChildProcess.reap(pid)
  }

  @Test("a process and a mount that no folder tells of are found and removed; a running container, a foreign group and what was mounted stay")
  func leftovers() async throws {
    let world = try World(stubs: 1)
    _ = await world.runtime.recover()
    let host = try CgroupHost.detect(more: ["cpuset"])
    let foreign = host.group(parent: world.parent + "-other", name: "gone")
    let stranger = try plant(in: foreign)
    defer {
      end(stranger)
      try? foreign.remove()
      try? host.group(parent: world.parent + "-other", name: "").remove()
    }
    _ = try await world.runtime.start(world.config("alive", "sleep", "1000"))
    let process = try plant(in: host.group(parent: world.parent, name: "gone"))
    var isReaped = false
    defer { if !isReaped { end(process) } }
    // Somebody's files below a folder of ours that is about to be removed.
    let kept = world.folder + "/kept"
    let target = world.configuration.dataDirectory + "/containers/mounted/root"
    for folder in [kept, target] { try Files.makeDirectories(folder) }
    try Files.writeAtomically(kept + "/file", "precious", durable: false)
    for _ in 0..<2 { try #require(mount(kept, target, nil, UInt(MS_BIND), nil) == 0) }
    defer { while umount2(target, Int32(MNT_DETACH)) == 0 {} }

    #expect(await world.runtime.leftovers() == ["gone", "mounted"])
    try await world.runtime.delete("mounted")
    #expect(try MountPoints.below(world.folder) == [])
    #expect(!Files.exists(world.configuration.dataDirectory + "/containers/mounted"))
    #expect(try Files.text(kept + "/file") == "precious")

    try await world.runtime.delete("gone")
    #expect(ChildProcess.exitCode(ChildProcess.reap(process)) == 128 + SIGKILL)
    isReaped = true
    #expect(await world.runtime.leftovers() == [])
    #expect(!host.names(below: world.parent).contains("gone"))
    #expect(foreign.processes() == [stranger] && kill(stranger, 0) == 0)
    #expect(try await world.runtime.stats("alive").usage.pids == 1)
    try await world.runtime.delete("alive")
  }
}
