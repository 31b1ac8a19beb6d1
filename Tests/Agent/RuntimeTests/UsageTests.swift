import Cgroups
import Glibc
import LinuxSystem
import Testing

@testable import Runtime

@Suite(.enabled(if: isRoot), .serialized) struct UsageTests {
  /// Runs it, and waits for its success.
  private func host(_ arguments: String...) throws {
    let pid = try ChildProcess.start(arguments[0], arguments, inPath: true) { _ in }
    let code = ChildProcess.exitCode(ChildProcess.reap(pid))
    try #require(code == 0, "\(arguments)")
  }
  private func run(_ world: World, _ id: String, _ args: String...) async throws -> Int32 {
    await (try await world.runtime.exec(id, ExecConfig(args: args))).wait()
  }

  @Test("CPU, memory and processes of a container are counted, and the OOM kills")
  func usage() async throws {
    let world = try World()
    var config = world.shell("used", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; dd if=/dev/zero of=/dev/null bs=200M count=1; sleep 1000")
    config.resources = .init(memory: 16 << 20, pids: 9)
    _ = try await world.runtime.start(config)
    let deadline = ContinuousClock.now.advanced(by: .seconds(45))
    while try await world.runtime.stats("used").usage.oomKills == 0, .now < deadline { try await Task.sleep(for: .milliseconds(20)) }
    let usage = try await world.runtime.stats("used").usage
    #expect(usage.oomKills >= 1)
    #expect(usage.memoryLimit == 16 << 20 && usage.pidsLimit == 9)
    #expect(usage.cpu > .milliseconds(10) && usage.cpu < .seconds(100))
    #expect(usage.memoryPeak.map { $0 > 8 << 20 } ?? true)
    #expect(!usage.memoryStat.isEmpty)
    try await world.runtime.delete("used")
  }

  /// "254:0" of the disk, not the partition, that /tmp is on; nil where that is in memory, as in a virtual machine: no block device counts there.
  private static let disk: String? = {
    var status = stat()
    guard stat("/tmp", &status) == 0 else { return nil }
    let folder = "/sys/dev/block/\(status.st_dev >> 8 & 0xfff):\(status.st_dev & 0xff | status.st_dev >> 12 & 0xfff00)"
    let file = Files.exists(folder + "/partition") ? folder + "/../dev" : folder + "/dev"
    return (try? Files.text(file)).map { String($0.prefix { $0 != "\n" }) }
  }()

  @Test("what a container writes to a disk is counted", .enabled(if: disk != nil, "/tmp is not on a block device"))
  func io() async throws {
    let world = try World()
    // Not in its own layer: that is mounted so that no fsync reaches the disk ("volatile").
    var config = world.config("io", "sleep", "1000")
    try Files.makeDirectories(world.folder + "/volume")
    config.mounts = [.bind(world.folder + "/volume", "/data")]
    _ = try await world.runtime.start(config)
    let group = try CgroupHost.detect().group(parent: world.parent, name: "io")
    // v1 in Linux 6.10 and later counts on disks alone for which any group ever had a limit.
    if !group.isV2 { try group.write(controller: "blkio", file: "blkio.throttle.write_bps_device", "\(Self.disk!) \(1 << 40)") }
    let before = try await world.runtime.stats("io").usage
    // Past the cache: what the kernel writes back by itself, on a busy disk before any fsync, v1 counts for nobody.
    #expect(try await run(world, "io", "dd", "if=/dev/zero", "of=/data/file", "bs=64k", "count=64", "oflag=direct") == 0)
    let after = try await world.runtime.stats("io").usage
    #expect(after.writeBytes - before.writeBytes >= 4 << 20)
    #expect(after.io.reduce(0) { $0 + $1.writes } > before.io.reduce(0) { $0 + $1.writes })
    try await world.runtime.delete("io")
  }

  @Test("what comes and goes by a container's own interfaces is counted; loopback is not, and the host's network neither")
  func network() async throws {
    let world = try World()
    let one = try await world.runtime.start(world.config("one", "sleep", "1000"))
    let other = try await world.runtime.start(world.config("other", "sleep", "1000"))
    #expect(try await world.runtime.stats("one").interfaces == [])
    // From namespace to namespace: nothing of it is ever in the host's.
    try host(
      "nsenter", "-t", "\(one.pid)", "-n", "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", "\(other.pid)")
    for (pid, address) in [(one.pid, "10.9.8.1/24"), (other.pid, "10.9.8.2/24")] {
      try host("nsenter", "-t", "\(pid)", "-n", "ip", "address", "add", address, "dev", "eth0")
      try host("nsenter", "-t", "\(pid)", "-n", "ip", "link", "set", "eth0", "up")
    }
    let before = try await world.runtime.stats("one").interfaces
    #expect(before.map(\.name) == ["eth0"])
    #expect(try await run(world, "other", "busybox", "ping", "-c", "3", "-s", "1000", "-W", "5", "10.9.8.1") == 0)
    let after = try await world.runtime.stats("one").interfaces
    #expect(after[0].received.bytes - before[0].received.bytes >= 3000)
    #expect(after[0].sent.packets - before[0].sent.packets >= 3)
    var config = world.config("host", "sleep", "1000")
    config.network = .host
    _ = try await world.runtime.start(config)
    #expect(try await world.runtime.stats("host").interfaces == [])
    // All at once, without those that are not there or have ended.
    _ = try await world.runtime.stop("host", grace: .zero)
    #expect(Set(await world.runtime.stats(of: ["one", "other", "host", "nobody"]).keys) == ["one", "other"])
    for id in ["one", "other", "host"] { try await world.runtime.delete(id) }
  }
}
