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

  @Test("a start that was cut short is ended by the numbers it wrote; numbers that are another process's by now end nobody")
  func numbers() async throws {
    let world = try World()
    let pids = try (0..<3).map { _ in try ChildProcess.start("/bin/busybox", ["busybox", "sleep", "1000"]) { _ in } }
    var isReaped = false
    defer { for pid in pids.dropFirst(isReaped ? 1 : 0) { end(pid) } }
    func write(_ id: String, _ file: String, _ numbers: [UInt64]) throws {
      let folder = "\(world.configuration.stateDirectory)/containers/\(id)"
      try Files.makeDirectories(folder)
      try Files.writeAtomically("\(folder)/\(file)", numbers.map(String.init).joined(separator: " "), durable: false)
    }
    let began = try pids.map { pid in try #require(ProcessIdentity.of(pid)).startTime }
    try write("half", "monitor", [UInt64(pids[0]), began[0]])
    try write("other", "monitor", [UInt64(pids[1]), began[1] - 1])
    try write("ran", "pid", [UInt64(pids[2]), began[2] - 1, UInt64(pids[2]), began[2] - 1])
    try write("torn", "pid", [UInt64(pids[2])])

    let found = await world.runtime.recover()
    #expect(found.map(\.id) == ["half", "other", "ran", "torn"])
    for container in found {
      if case .running = container.state { Issue.record("\(container.id) is taken for one that runs") }
      try await world.runtime.delete(container.id)
    }
    #expect(ChildProcess.exitCode(ChildProcess.reap(pids[0])) == 128 + SIGKILL)
    isReaped = true
    #expect(pids.dropFirst().allSatisfy { kill($0, 0) == 0 })
    #expect(try Files.list(world.configuration.stateDirectory + "/containers") == [])
  }

  @Test("a group with frozen processes in groups of its own, and one that a crash left in one hierarchy alone, go whole")
  func groups() async throws {
    let world = try World()
    _ = await world.runtime.recover()
    let host = try CgroupHost.detect(more: ["cpuset"])
    let (nested, partial) = (host.group(parent: world.parent, name: "nested"), host.group(parent: world.parent, name: "partial"))
    try nested.create(CgroupLimits())
    try nested.inheritCpuset()
    let pids = [try plant(in: nested.below("inner").below("most")), try ChildProcess.start("/bin/busybox", ["busybox", "sleep", "1000"]) { _ in }]
    var isReaped = false
    defer { if !isReaped { for pid in pids { end(pid) } } }
    if nested.cloneDirectory != nil { try nested.freeze(true) }
    let v1 = partial.joinFiles.first.map { String($0.dropLast("/tasks".count)) }
    let first = try #require(v1 ?? partial.cloneDirectory)
    try Files.makeDirectories(first)
    try Files.writeExisting(first + "/cgroup.procs", "\(pids[1])")

    #expect(await world.runtime.leftovers() == ["nested", "partial"])
    for id in ["nested", "partial"] { try await world.runtime.delete(id) }
    for pid in pids { #expect(ChildProcess.exitCode(ChildProcess.reap(pid)) == 128 + SIGKILL) }
    isReaped = true
    #expect(host.names(below: world.parent) == [])
  }

  @Test("a link below our folders goes, and what it leads to stays as it is, mounted and filled; a name that is a path is refused")
  func links() async throws {
    let world = try World()
    _ = await world.runtime.recover()
    let kept = world.folder + "/kept"
    try Files.makeDirectories(kept + "/below")
    try #require(mount("kept", kept + "/below", "tmpfs", 0, nil) == 0)
    defer { umount2(kept + "/below", Int32(MNT_DETACH)) }
    try Files.writeAtomically(kept + "/below/file", "precious", durable: false)
    let (state, data) = (world.configuration.stateDirectory + "/containers", world.configuration.dataDirectory + "/containers")
    for folder in [state, data] { try Files.makeDirectories(folder) }
    for path in [data + "/linked", state + "/other"] { try #require(symlink(kept, path) == 0) }

    #expect(await world.runtime.leftovers() == ["linked", "other"])
    for id in ["linked", "other"] { try await world.runtime.delete(id) }
    #expect(try Files.list(data) == [] && Files.list(state) == [])
    #expect(try MountPoints.below(kept) == [kept + "/below"])
    #expect(try Files.text(kept + "/below/file") == "precious")
    for id in ["../../kept", "..", "/", "", "linked/../../kept"] {
      let refused = await #expect(throws: RuntimeError.self) { try await world.runtime.delete(id) }
      #expect(refused?.kind == .invalid, "\(id)")
    }
    #expect(try Files.text(kept + "/below/file") == "precious")
  }
}
