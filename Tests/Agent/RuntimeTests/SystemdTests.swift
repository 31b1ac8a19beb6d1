import Cgroups
import Glibc
import LinuxSystem
import Testing

@testable import Runtime

private let hasSystemd = if case .v2? = try? CgroupHost.detect().version { Files.exists("/run/systemd/system") } else { false }

/// In the virtual machine: `make test-vm` runs it with systemd as first process.
@Suite(.enabled(if: isRoot && hasSystemd, "systemd does not run here, or not with cgroup v2"), .serialized) struct SystemdTests {
  private static let unit = "orch-containers.service"
  private static let parent = "orch.slice/" + unit
  private static let folder = "/sys/fs/cgroup/" + parent

  @Test("in the cgroup of orch-containers.service limits outlive reloads, an OOM kill ends its container alone, and stopping the unit ends all")
  func unit() async throws {
    let file = "/run/systemd/system/" + Self.unit
    let source = "/" + #filePath.split(separator: "/").prefix { $0 != "Tests" }.joined(separator: "/") + "/deploy/systemd/" + Self.unit
    try Files.writeAtomically(file, try Files.text(source), mode: 0o644, durable: false)
    defer {
      _ = try? systemctl("stop", Self.unit)
      unlink(file)
      _ = try? systemctl("daemon-reload")
    }
    try #require(try systemctl("daemon-reload") == 0)
    try #require(try systemctl("start", Self.unit) == 0)
    // Its process has left the group itself.
    try #require(try Files.text(Self.folder + "/cgroup.procs").isEmpty && !Files.text(Self.folder + "/holder/cgroup.procs").isEmpty)

    let world = try World()
    var configuration = world.configuration
    configuration.cgroupParent = Self.parent
    let runtime = try ContainerRuntime(configuration: configuration)
    var config = world.shell("limited", "trap 'exit 7' TERM; while :; do sleep 1; done")
    config.resources = .init(memory: 64 << 20, nanoCPUs: 500_000_000, pids: 20)
    let first = try await runtime.start(config)
    func limits() throws -> [String] {
      try ["memory.max", "cpu.max", "pids.max"].map { try Files.text("\(Self.folder)/limited/\($0)").split(separator: "\n").joined() }
    }
    let wanted = ["\(64 << 20)", "50000 100000", "20"]
    #expect(try limits() == wanted)
    // Other units come and go, with controllers of their own.
    let other = "/run/systemd/system/orch-test-other.service"
    try Files.writeAtomically(other, "[Service]\nExecStart=/bin/sleep 1000\nCPUWeight=50\nIOWeight=50\n", mode: 0o644, durable: false)
    defer { unlink(other) }
    for verbs in [["daemon-reload"], ["start", "orch-test-other"], ["daemon-reload"], ["stop", "orch-test-other"], ["daemon-reexec"]] {
      #expect(try systemctl(verbs) == 0, "\(verbs)")
      #expect(try limits() == wanted, "\(verbs)")
    }
    // `dd` holds its block in memory.
    var hungry = world.shell("hungry", "dd if=/dev/zero of=/dev/null bs=200M count=1; sleep 1000")
    hungry.resources = .init(memory: 32 << 20)
    _ = try await runtime.start(hungry)
    #expect(try await runtime.wait("hungry").oomKilled)
    try await runtime.delete("hungry")
    sleep(1)
    #expect(try systemctl("is-active", "--quiet", Self.unit) == 0)
    #expect(kill(first.pid, 0) == 0)

    #expect(try systemctl("stop", Self.unit) == 0)
    #expect(try await runtime.wait("limited").code == 7)
    try await runtime.delete("limited")
    runtime.close()
  }

  private func systemctl(_ arguments: String...) throws -> Int32 { try systemctl(arguments) }
  private func systemctl(_ arguments: [String]) throws -> Int32 {
    ChildProcess.exitCode(ChildProcess.reap(try ChildProcess.start("/usr/bin/systemctl", ["systemctl"] + arguments) { _ in }))
  }
}
