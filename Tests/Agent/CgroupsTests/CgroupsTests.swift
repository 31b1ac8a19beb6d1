import Glibc
import LinuxSystem
import Testing

@testable import Cgroups

@Suite struct CgroupHostTests {
  @Test("both versions are read out of mountinfo")
  func detect() throws {
    let v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
    #expect(try CgroupHost.parse(mountinfo: v2).version == .v2(root: "/sys/fs/cgroup"))
    let v1 = """
      31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
      32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
      33 30 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
      34 30 0:30 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
      """
    let host = try CgroupHost.parse(mountinfo: v1)
    let group = host.group(parent: "orch", name: "x")
    #expect(group.cloneDirectory == "/sys/fs/cgroup/unified/orch/x")
    // One join for two controllers of one hierarchy.
    #expect(
      group.joinFiles == [
        "/sys/fs/cgroup/memory/orch/x/tasks", "/sys/fs/cgroup/cpu,cpuacct/orch/x/tasks", "/sys/fs/cgroup/pids/orch/x/tasks",
      ])
    #expect(group.oomFile == "/sys/fs/cgroup/memory/orch/x/memory.oom_control")
    #expect(throws: SystemError.self) { try CgroupHost.parse(mountinfo: "") }
  }

  @Test("a CPU quota is never below the kernel's least", arguments: [(1_500_000_000, 150_000), (1, 1000), (10_000_000, 1000)] as [(Int64, Int64)])
  func quota(_ nano: Int64, _ micro: Int64) { #expect(Cgroup.quota(nano) == micro) }

  @Test("io of both versions and pressure are read")
  func counters() throws {
    let v2 = "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n253:16 \n7:1 rbytes=9 nonsense\n"
    let first = CgroupUsage.IO(major: 8, minor: 0, readBytes: 1, writeBytes: 2, reads: 3, writes: 4)
    #expect(
      CgroupFile.ioStat(v2) == [first, CgroupUsage.IO(major: 253, minor: 16), CgroupUsage.IO(major: 7, minor: 1, readBytes: 9)])
    let bytes = "8:0 Read 1\n8:0 Write 2\n8:0 Sync 3\n8:0 Total 3\nTotal 3\n"
    #expect(CgroupFile.blkio(bytes: bytes, operations: "8:0 Read 3\n8:0 Write 4\nTotal 7\n") == [first])
    #expect(CgroupFile.blkio(bytes: "Total 0\n", operations: "") == [])
    let pressure = try #require(
      CgroupUsage.Pressure(
        text: "some avg10=1.50 avg60=2.00 avg300=3.25 total=1234567\nfull avg10=0.00 avg60=0.01 avg300=0.00 total=9\n"))
    #expect(pressure.some == .init(average10: 1.5, average60: 2, average300: 3.25, total: .microseconds(1_234_567)))
    #expect(pressure.full == .init(average60: 0.01, total: .microseconds(9)))
    #expect(CgroupUsage.Pressure(text: "") == nil)
  }

  @Test("what does not freeze in time is thawed, and an error", arguments: [true, false])
  func unfrozen(_ isV2: Bool) throws {
    // Files that take what is written and never say FROZEN, as a group with a process in uninterruptible sleep.
    let root = "/tmp/orch-freezer-test-\(getpid())-\(isV2)"
    defer { try? Files.removeTree(root) }
    try Files.makeDirectories(root + "/one")
    var (terminal, device): (Int32, Int32) = (-1, -1)
    defer { for end in [terminal, device] where end >= 0 { close(end) } }
    let log = root + "/one/" + (isV2 ? "cgroup.freeze" : "freezer.state")
    if isV2 {
      try Files.writeAtomically(root + "/one/cgroup.events", "populated 1\nfrozen 0\n", durable: false)
      try Files.writeAtomically(log, "0", durable: false)
    } else {
      // A terminal without lines: its other side has what is written, and what is read is empty (termios(3), VMIN and VTIME of 0).
      var settings = termios()
      cfmakeraw(&settings)
      (settings.c_cc.5, settings.c_cc.6) = (0, 0)
      try #require(openpty(&terminal, &device, nil, &settings, nil) == 0)
      symlink(String(cString: ttyname(device)), log)
    }
    let host = CgroupHost(isV2 ? .v2(root: root) : .v1([.init(controller: "freezer", root: root)], unified: nil))
    let clock = ContinuousClock.now
    let error = #expect(throws: SystemError.self) { try host.group(parent: "", name: "one").freeze(true, within: .milliseconds(300)) }
    #expect(error?.errno == Errno(ETIMEDOUT) && clock.duration(to: .now) < .seconds(20), "\(String(describing: error))")
    if isV2 { return #expect(try Files.text(log) == "0") }
    // The kernel hands it over piece by piece.
    var text = ""
    var polled = pollfd(fd: terminal, events: Int16(POLLIN), revents: 0)
    while !text.hasSuffix("THAWED") || poll(&polled, 1, 0) > 0, poll(&polled, 1, 2000) > 0 {
      var written = [UInt8](repeating: 0, count: 4096)
      text += String(decoding: written[..<max(read(terminal, &written, 4096), 0)], as: UTF8.self)
    }
    #expect(text.hasPrefix("FROZEN") && text.hasSuffix("THAWED"), "\(text)")
  }

  @Test("a group is made with its limits, measured and removed", .enabled(if: geteuid() == 0))
  func real() throws {
    let host = try CgroupHost.detect()
    let parent = "orch-cgroup-test-\(getpid())"
    let group = host.group(parent: parent, name: "one")
    defer {
      try? group.remove()
      try? host.group(parent: parent, name: "").remove()
    }
    try group.create(CgroupLimits(memory: 32 << 20, nanoCPUs: 250_000_000, cpuShares: 512, pids: 7))
    let usage = try group.usage()
    #expect(usage.memoryLimit == 32 << 20)
    #expect(usage.pids == 0)
    #expect(usage.pidsLimit == 7)
    #expect(usage.oomKills == 0)
    // Whatever kernel: a v2 tree with pressure files has them read.
    #expect((usage.ioPressure != nil) == group.cloneDirectory.map { (try? Files.text($0 + "/io.pressure")) != nil } ?? false)
    // What a container made below its own goes with it.
    for directory in group.directories { try Files.makeDirectories(directory + "/made/inside") }
    try group.remove()
    try group.remove()
    #expect(throws: SystemError.self) { try group.usage() }
  }
}
