import Cgroups
import Glibc
import LinuxSystem
import Testing

@testable import Runtime

@Suite(.enabled(if: isRoot), .serialized) struct LimitTests {
  /// A file of the container's group, by its name on v2 and its controller and name on v1.
  private func value(_ world: World, _ id: String, v2: String, v1: (controller: String, file: String)) throws -> String? {
    let group = try CgroupHost.detect(more: ["cpuset"]).group(parent: world.parent, name: id)
    return (group.isV2 ? group.read(controller: "", file: v2) : group.read(controller: v1.controller, file: v1.file)).map {
      $0.split(whereSeparator: \.isWhitespace).joined(separator: " ")
    }
  }

  @Test("swap, reservation, shares, CPUs, shared memory, groups and score are the kernel's; a pinned container is found again and leaves nothing")
  func all() async throws {
    let world = try World(stubs: 1)
    _ = await world.runtime.recover()
    var config = world.shell("all", "grep -E 'Cpus_allowed_list|Groups' /proc/self/status; cat /proc/self/oom_score_adj; sleep 1000")
    config.resources = .init(memory: 64 << 20, pids: 50)
    config.resources.swap = 32 << 20
    config.resources.memoryReservation = 16 << 20
    config.resources.cpuShares = 2048
    config.resources.cpuset = "0"
    config.groups = ["logs", "4242"]
    config.oomScoreAdj = 321
    config.shmSize = 8 << 20
    _ = try await world.runtime.start(config)
    #expect(try value(world, "all", v2: "memory.low", v1: ("memory", "memory.soft_limit_in_bytes")) == "\(16 << 20)")
    #expect(try value(world, "all", v2: "cpu.weight", v1: ("cpu", "cpu.shares")) == (try isV2() ? "79" : "2048"))
    #expect(try value(world, "all", v2: "cpuset.cpus", v1: ("cpuset", "cpuset.cpus")) == "0")
    let swap = try value(world, "all", v2: "memory.swap.max", v1: ("memory", "memory.memsw.limit_in_bytes"))
    #expect([nil, "\((try isV2() ? 32 : 96) << 20)"].contains(swap))
    if try isV2() { #expect(try value(world, "all", v2: "memory.oom.group", v1: ("", "")) == "1") }
    let exec = try await world.runtime.exec(
      "all", ExecConfig(args: ["sh", "-c", "grep Cpus_allowed_list /proc/self/status; stat -f -c '%S %b' /dev/shm"]))
    #expect(try text(exec.stdout) == "Cpus_allowed_list:\t0\n4096 2048\n")
    let (out, _) = try await world.output("all")
    let lines = out.split(separator: "\n")
    #expect(lines.contains("Cpus_allowed_list:\t0") && lines.last == "321", "\(out)")
    let groups = lines.first { $0.hasPrefix("Groups:") }?.split(whereSeparator: \.isWhitespace) ?? []
    #expect(Set(groups).isSuperset(of: ["3000", "4242"]), "\(out)")
    // Another agent finds it, and takes the group of the hierarchy that few are in with the rest.
    world.runtime.close()
    let next = try ContainerRuntime(configuration: world.configuration)
    #expect(await next.recover().map(\.id) == ["all"])
    try await next.delete("all")
    next.close()
    #expect(try CgroupHost.detect(more: ["cpuset"]).names(below: world.parent).filter { !$0.hasPrefix("stub") } == [])
  }

  @Test("an agent whose cgroup parent is another one finds the groups of containers that run")
  func moved() async throws {
    let world = try World()
    _ = try await world.runtime.start(world.config("stays", "sleep", "1000"))
    _ = try await world.runtime.start(world.config("goes", "sleep", "1000"))
    world.runtime.close()
    var configuration = world.configuration
    configuration.cgroupParent += "/below"
    let next = try ContainerRuntime(configuration: configuration)
    #expect(await next.recover().map(\.id).sorted() == ["goes", "stays"])
    #expect(try await next.stats("stays").usage.pidsLimit == 4096)
    try await next.delete("goes")
    #expect(try CgroupHost.detect().names(below: world.parent).filter { $0 != "below" } == ["stays"])
    _ = try await next.start(world.config("new", "sleep", "1000"))
    #expect(try CgroupHost.detect().names(below: configuration.cgroupParent) == ["new"])
    for id in ["new", "stays"] { try await next.delete(id) }
    next.close()
    try CgroupHost.detect().group(parent: configuration.cgroupParent, name: "").remove()
  }

  @Test("ulimits are those of exec and of health probes, too, also where another agent has found the container")
  func ulimits() async throws {
    let world = try World()
    var config = world.config("ulimits", "sleep", "1000")
    config.ulimits = [.init(name: "nofile", hard: 120, soft: 99), .init(name: "core", hard: 0, soft: 0)]
    _ = try await world.runtime.start(config)
    let other = try ContainerRuntime(configuration: world.configuration)
    _ = await other.recover()
    let script = "ulimit -n; ulimit -Hn; ulimit -c"
    for runtime in [world.runtime, other] {
      let probe = try await runtime.probe("ulimits", ["sh", "-c", script], timeout: .seconds(30), outputMax: 4096)
      #expect(String(decoding: probe.output, as: UTF8.self) == "99\n120\n0\n")
      let exec = try await runtime.exec("ulimits", ExecConfig(args: ["sh", "-c", script], user: "app"))
      var chunk = [UInt8](repeating: 0, count: 4096)
      var text: [UInt8] = []
      while case let count = Glibc.read(exec.stdout.rawValue, &chunk, chunk.count), count > 0 { text += chunk[..<count] }
      #expect(String(decoding: text, as: UTF8.self) == "99\n120\n0\n")
      #expect(await exec.wait() == 0)
    }
    other.close()
    try await world.runtime.delete("ulimits")
  }

  @Test("limits of a running container are changed in place, up and down")
  func update() async throws {
    let world = try World()
    var config = world.config("changed", "sleep", "1000")
    config.resources = .init(memory: 64 << 20, nanoCPUs: 500_000_000, pids: 20)
    _ = try await world.runtime.start(config)
    func now() async throws -> [Int64?] {
      let usage = try await world.runtime.stats("changed").usage
      return [usage.memoryLimit, usage.pidsLimit]
    }
    func cpu() throws -> String? {
      try value(world, "changed", v2: "cpu.max", v1: ("cpu", "cpu.cfs_quota_us")).map { String($0.prefix { $0 != " " }) }
    }
    for memory: Int64 in [128 << 20, 32 << 20, 256 << 20] {
      try await world.runtime.update("changed", .init(memory: memory))
      #expect(try await now() == [memory, 20])
    }
    try await world.runtime.update("changed", .init(nanoCPUs: 2_000_000_000, pids: 3))
    #expect(try await now() == [256 << 20, 3])
    #expect(try cpu() == "200000")
    // It holds at once: the shell and its two children are three.
    let exec = try await world.runtime.exec("changed", ExecConfig(args: ["sh", "-c", "sleep 1 & sleep 1 & sleep 1 & wait"]))
    #expect(try text(exec.stderr!).contains("fork"))
    try await world.runtime.update("changed", .init(memory: -1, nanoCPUs: -1, pids: -1))
    #expect(try await now() == [nil, nil])
    #expect(["max", "-1"].contains(try cpu()))
    _ = try await world.runtime.stop("changed", grace: .zero)
    await #expect(throws: RuntimeError.self) { try await world.runtime.update("changed", .init(pids: 5)) }
    try await world.runtime.delete("changed")
  }

  private func isV2() throws -> Bool { try CgroupHost.detect().group(parent: "", name: "").isV2 }
  private func text(_ descriptor: SharedDescriptor) throws -> String {
    String(decoding: try Files.read(descriptor: descriptor.rawValue, name: "output"), as: UTF8.self)
  }
}
