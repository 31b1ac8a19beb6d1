import Cgroups
import Foundation
import LinuxSystem
import OCI
import Testing

@testable import Bundle

@Suite struct ResourceTests {
  /// `linux.resources` and what is written, by files and values in their order, or the error.
  private static let table: [(json: String, v1: String, v2: String)] = [
    ("{}", "", ""),
    (#"{"memory": {"limit": 64, "reservation": 32}}"#, "memory.limit_in_bytes=64 memory.soft_limit_in_bytes=32", "memory.max=64 memory.low=32"),
    (#"{"memory": {"limit": 64, "swap": 96}}"#, "memory.limit_in_bytes=64 memory.memsw.limit_in_bytes=96", "memory.max=64 memory.swap.max=32?"),
    (#"{"memory": {"limit": 64, "swap": 64}}"#, "memory.limit_in_bytes=64 memory.memsw.limit_in_bytes=64", "memory.max=64 memory.swap.max=0?"),
    (#"{"memory": {"limit": -1, "swap": -1}}"#, "memory.limit_in_bytes=-1 memory.memsw.limit_in_bytes=-1", "memory.max=max memory.swap.max=max"),
    (#"{"memory": {"swap": 0}}"#, "", "memory.swap.max=0?"),
    (#"{"memory": {"swap": 64}}"#, "memory.memsw.limit_in_bytes=64", "error: linux.resources.memory.swap: needs a limit"),
    (#"{"memory": {"kernel": 1}}"#, "error: linux.resources.memory.kernel", "error: linux.resources.memory.kernel"),
    (#"{"memory": {"kernel": 0, "kernelTCP": 0}}"#, "", ""),
    (
      #"{"memory": {"swappiness": 7, "disableOOMKiller": true}}"#, "memory.swappiness=7 memory.oom_control=1",
      "error: linux.resources.memory.swappiness: cgroup v2 has none"
    ),
    (#"{"memory": {"disableOOMKiller": true}}"#, "memory.oom_control=1", "error: linux.resources.memory.disableOOMKiller: cgroup v2 has none"),
    (#"{"cpu": {"shares": 2}}"#, "cpu.shares=2", "cpu.weight=1"),
    (#"{"cpu": {"shares": 1024}}"#, "cpu.shares=1024", "cpu.weight=39"),
    (#"{"cpu": {"shares": 262144}}"#, "cpu.shares=262144", "cpu.weight=10000"),
    (#"{"cpu": {"quota": 5000, "period": 10000}}"#, "cpu.cfs_period_us=10000 cpu.cfs_quota_us=5000", "cpu.max=5000_10000"),
    (#"{"cpu": {"quota": -1}}"#, "cpu.cfs_quota_us=-1", "cpu.max=max"),
    (#"{"cpu": {"period": 10000, "burst": 100}}"#, "cpu.cfs_period_us=10000 cpu.cfs_burst_us=100", "cpu.max=max_10000 cpu.max.burst=100"),
    (#"{"cpu": {"idle": 1, "cpus": "0-1", "mems": "0"}}"#, "cpu.idle=1 cpuset.cpus=0-1 cpuset.mems=0", "cpu.idle=1 cpuset.cpus=0-1 cpuset.mems=0"),
    (
      #"{"cpu": {"realtimeRuntime": 9, "realtimePeriod": 10}}"#, "cpu.rt_period_us=10 cpu.rt_runtime_us=9",
      "error: linux.resources.cpu.realtimeRuntime: cgroup v2 has none"
    ),
    (#"{"pids": {"limit": 7}}"#, "pids.max=7", "pids.max=7"),
    (#"{"pids": {"limit": 0}}"#, "pids.max=max", "pids.max=max"),
    (
      #"{"hugepageLimits": [{"pageSize": "2MB", "limit": 9}]}"#, "hugetlb.2MB.rsvd.limit_in_bytes=9? hugetlb.2MB.limit_in_bytes=9",
      "hugetlb.2MB.rsvd.max=9? hugetlb.2MB.max=9"
    ),
    (
      #"{"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 4}, "mlx4_0": {"hcaObjects": 5}, "none": {}}}"#,
      "rdma.max=mlx4_0_hca_object=5 rdma.max=mlx5_1_hca_handle=3_hca_object=4",
      "rdma.max=mlx4_0_hca_object=5 rdma.max=mlx5_1_hca_handle=3_hca_object=4"
    ),
    (
      #"{"network": {"classID": 1048577, "priorities": [{"name": "lo", "priority": 5}]}}"#, "net_cls.classid=1048577 net_prio.ifpriomap=lo_5",
      "error: linux.resources.network: cgroup v2 has none"
    ),
    (#"{"blockIO": {"weight": 10}}"#, "blkio.weight=10|blkio.bfq.weight=10", "io.bfq.weight=10|io.weight=1"),
    (#"{"blockIO": {"weight": 1000}}"#, "blkio.weight=1000|blkio.bfq.weight=1000", "io.bfq.weight=1000|io.weight=10000"),
    (#"{"blockIO": {"leafWeight": 11}}"#, "blkio.leaf_weight=11", "error: linux.resources.blockIO.leafWeight: cgroup v2 has none"),
    (
      #"{"blockIO": {"weightDevice": [{"major": 8, "minor": 1, "weight": 500}]}}"#, "blkio.weight_device=8:1_500|blkio.bfq.weight_device=8:1_500",
      "io.bfq.weight=8:1_500"
    ),
    (
      #"{"blockIO": {"weightDevice": [{"major": 8, "minor": 1, "leafWeight": 500}]}}"#, "blkio.leaf_weight_device=8:1_500",
      "error: linux.resources.blockIO.weightDevice: cgroup v2 has no leafWeight"
    ),
    (
      #"""
      {"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}], "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 2}],
       "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 3}], "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 4}]}}
      """#,
      "blkio.throttle.read_bps_device=8:0_1 blkio.throttle.write_bps_device=8:0_2 blkio.throttle.read_iops_device=8:0_3 blkio.throttle.write_iops_device=8:0_4",
      "io.max=8:0_rbps=1 io.max=8:0_wbps=2 io.max=8:0_riops=3 io.max=8:0_wiops=4"
    ),
    (
      #"{"unified": {"memory.high": "9", "cgroup.max.depth": "2"}}"#, "error: linux.resources.unified: this host has cgroup v1",
      "cgroup.max.depth=2 memory.high=9"
    ),
    (#"{"unified": {"NOKEY": "9"}}"#, "error: has not the form CONTROLLER.VALUE `NOKEY`", "error: has not the form CONTROLLER.VALUE `NOKEY`"),
    (#"{"unified": {"../a.b": "9"}}"#, "error: is not the name of a cgroup file", "error: is not the name of a cgroup file"),
    (#"{"hugepageLimits": [{"pageSize": "/../2MB", "limit": 9}]}"#, "error: hugepageLimits[0].pageSize", "error: hugepageLimits[0].pageSize"),
    (#"{"memory": {"limit": 64, "swap": 32}}"#, "error: not less than limit", "error: not less than limit"),
  ]

  @Test("resources are written as each version of cgroups takes them, or refused by name", arguments: table)
  func writes(_ json: String, _ v1: String, _ v2: String) {
    for (wanted, isV2) in [(v1, false), (v2, true)] {
      var found: String
      do {
        let resources = try Document.read(Resources.self, Array(json.utf8))
        try resources.check()
        found = try ResourceWrites(resources, v2: isV2).writes.map { write in
          let other = write.other.map { "|\($0.file)=\($0.value)" } ?? ""
          return "\(write.file)=\(write.value)\(other)\(write.isOptional ? "?" : "")".replacing(" ", with: "_")
        }.joined(separator: " ")
      } catch { found = "error: \(error)" }
      let fits = wanted.hasPrefix("error: ") ? found.hasPrefix("error: ") && found.contains(wanted.dropFirst(7)) : found == wanted
      #expect(fits, "v2: \(isV2), \(json): \(found)")
    }
  }

  @Test("an update's zeros are nothing asked for")
  func zeros() throws {
    let resources = try Document.read(
      Resources.self,
      Array(#"{"memory": {"limit": 64, "swap": 0, "reservation": 0}, "cpu": {"shares": 0, "quota": 0}, "blockIO": {"weight": 0}}"#.utf8))
    #expect(try ResourceWrites(resources, v2: true, isUpdate: true).writes.map(\.file) == ["memory.max"])
    #expect(try ResourceWrites(resources, v2: true).writes.map(\.file) == ["memory.max", "memory.swap.max"])
    let pids = try Document.read(Resources.self, Array(#"{"pids": {"limit": 0}}"#.utf8))
    for v2 in [false, true] { #expect(try ResourceWrites(pids, v2: v2, isUpdate: true).writes.isEmpty) }
    // These can be turned off again; where the kernel has no such file, they are off.
    let off = try Document.read(Resources.self, Array(#"{"cpu": {"burst": 0, "idle": 0, "shares": 1024}}"#.utf8))
    for v2 in [false, true] {
      let writes = try ResourceWrites(off, v2: v2, isUpdate: true).writes
      #expect(writes.map(\.isOptional) == [true, false, true])
      #expect(writes.map(\.file) == ["cpu.idle", v2 ? "cpu.weight" : "cpu.shares", v2 ? "cpu.max.burst" : "cpu.cfs_burst_us"])
    }
  }

  @Test("no limit of memory is none of memory and swap together, unless swap is named", arguments: ["", #", "swap": 0"#, #", "swap": -1"#])
  func unlimited(_ swap: String) throws {
    let resources = try Document.read(Resources.self, Array(#"{"memory": {"limit": -1\#(swap)}}"#.utf8))
    for (v2, files) in [(false, ["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1"]), (true, ["memory.max=max", "memory.swap.max=max"])] {
      #expect(try ResourceWrites(resources, v2: v2, isUpdate: true).writes.map { "\($0.file)=\($0.value)" } == files)
    }
  }
}

@Suite struct UpdateTests {
  @Test(
    "an update on v2 keeps the quota that it does not name",
    arguments: [
      (#"{"cpu": {"period": 50000}}"#, "20000 100000\n", "20000 50000"), (#"{"cpu": {"period": 50000}}"#, "max 100000\n", "max 50000"),
      (#"{"cpu": {"quota": 7000}}"#, "20000 100000\n", "7000"), (#"{"cpu": {"quota": -1}}"#, "20000 100000\n", "max"),
      (#"{"cpu": {"quota": -1, "period": 50000}}"#, "20000 100000\n", "max 50000"), (#"{"cpu": {"period": 50000}}"#, "", "max 50000"),
    ])
  func quota(_ json: String, _ now: String, _ wanted: String) throws {
    let resources = try Document.read(Resources.self, Array(json.utf8))
    let writes = try ResourceWrites(resources, v2: true, isUpdate: true, cpuMax: now).writes
    #expect(writes.map(\.file) == ["cpu.max"] && writes.first?.value == wanted, "\(writes)")
  }
}

private let isV2 = if case .v2? = try? CgroupHost.detect().version { true } else { false }
/// Of 2 MB that nobody has, where a container's group can limit them.
private let freeHugePages =
  (try? Files.text("/proc/cgroups"))?.contains("\nhugetlb\t") == true
  ? (try? Files.text("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")).flatMap { Int($0.dropLast()) } ?? 0 : 0

/// On this host's own version of cgroups.
@Suite(.enabled(if: isRoot), .serialized) struct CgroupBundleTests {
  @Test("update takes runc's words: sizes with units, burst, idle, real time, and kernel memory with a warning")
  func words() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["sleep", "1000"])
    #expect(try world.call(["run", "-d", "--bundle", world.bundle, "one"]).code == 0)
    defer { _ = try? world.call(["delete", "-f", "one"]) }
    let limit = isV2 ? "memory.max" : "memory/memory.limit_in_bytes"
    let sizes: [(String, Int)] = [
      ("64M", 67_108_864), ("65536k", 67_108_864), ("67108864", 67_108_864), ("1gb", 1_073_741_824), ("32MiB", 33_554_432), ("1.5g", 1_610_612_736),
      ("0.5GiB", 536_870_912), (".25Gb", 268_435_456), ("64. m", 67_108_864), ("67108864b", 67_108_864), ("1p", 1_125_899_906_842_624),
      // The kernel keeps whole pages of these 105,591,603 bytes.
      ("100.7m", 105_590_784),
    ]
    for (text, value) in sizes {
      let result = try world.call(["update", "--memory", text, "one"])
      #expect(result.code == 0, "\(text): \(result.err)")
      #expect(try world.call(["exec", "one", "cat", "/sys/fs/cgroup/\(limit)"]).out == "\(value)\n", "\(text)")
    }
    for bad in [
      "-2", "1x", "", "-1M", "99999999999G", "8192p", "8191.9999999999999999999p", "0x10", "1e9", "1.5.0g", ".", ".g", "1.5gbb", "1i", "1bb", "1  g",
      "g",
    ] {
      let result = try world.call(["update", "--memory", bad, "one"])
      #expect(result.code != 0 && result.err.contains("--memory"), "\(bad): \(result)")
    }
    let warned = try world.call(["update", "--kernel-memory", "50M", "--pids-limit", "9", "one"])
    #expect(warned.code == 0 && warned.err.contains("warning: --kernel-memory is ignored"), "\(warned)")
    // Of the others what this kernel has, in the group that the container is in by then.
    func file(_ name: String) throws -> String? {
      let pid = try #require(try world.state("one")["pid"] as? Int)
      let groups = try Files.text("/proc/\(pid)/cgroup").split(separator: "\n")
      let mark = isV2 ? "0::" : ":cpu:"
      guard let group = groups.compactMap({ line in line.range(of: mark).map { line[$0.upperBound...] } }).first else { return nil }
      return try? Files.text("/sys/fs/cgroup" + (isV2 ? "" : "/cpu") + group + "/" + name)
    }
    for (options, name, value) in [
      (["--cpu-quota", "20000", "--cpu-burst", "1000"], isV2 ? "cpu.max.burst" : "cpu.cfs_burst_us", "1000\n"),
      // Each way round: the burst is never more than the quota, so that their order is another each time.
      (["--cpu-quota", "50000", "--cpu-burst", "40000"], isV2 ? "cpu.max.burst" : "cpu.cfs_burst_us", "40000\n"),
      (["--cpu-quota", "10000", "--cpu-burst", "5000"], isV2 ? "cpu.max.burst" : "cpu.cfs_burst_us", "5000\n"),
      (["--cpu-idle", "1"], "cpu.idle", "1\n"),
      (["--cpu-rt-period", "500000"], "cpu.rt_period_us", "500000\n"),
    ] {
      let result = try world.call(["update"] + options + ["one"])
      let now = try file(name)
      #expect(result.code == 0 ? now == value : now == nil, "\(options): \(result), \(now ?? "not there")")
    }
    if try file(isV2 ? "cpu.max.burst" : "cpu.cfs_burst_us") != nil {
      let low = try world.call(["update", "--cpu-quota", "4000", "one"])
      #expect(low.code == 1 && low.err.contains("the burst of 5000 is more: give a lower one, too"), "\(low)")
    }
  }

  @Test(
    "v1: period and quota change together below a parent that gives no more of both",
    .enabled(if: Files.exists("/sys/fs/cgroup/cpu/cpu.stat") && !isV2, "no hierarchy of cpu"), arguments: [false, true])
  func periodAndQuota(_ hasBurst: Bool) throws {
    let world = try BundleWorld()
    try world.specify()
    let parent = "orch-bundle-test-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    let folder = "/sys/fs/cgroup/cpu/\(parent)"
    try Files.makeDirectories(folder)
    defer { try? CgroupHost.detect(more: ["cpuset", "devices", "freezer"]).group(parent: "", name: parent).remove() }
    // One CPU, as a pod has it.
    try Files.writeExisting(folder + "/cpu.cfs_quota_us", "100000")
    try world.configure(["sleep", "1000"]) { config in
      config.object("linux") {
        $0["cgroupsPath"] = "/\(parent)/one"
        $0.object("resources") { $0["cpu"] = ["quota": 100_000, "period": 100_000] }
      }
    }
    #expect(try world.call(["run", "-d", "--bundle", world.bundle, "one"]).code == 0)
    let burst = hasBurst && Files.exists(folder + "/one/cpu.cfs_burst_us") ? ["--cpu-burst", "0"] : []
    for time in [50_000, 20_000, 100_000] {
      let result = try world.call(["update", "--cpu-period", "\(time)", "--cpu-quota", "\(time)"] + burst + ["one"])
      #expect(result.code == 0, "\(result)")
      for file in ["period", "quota"] { #expect(try Files.text("\(folder)/one/cpu.cfs_\(file)_us") == "\(time)\n") }
    }
    // What the parent does not give is refused as ever.
    let much = try world.call(["update", "--cpu-period", "50000", "--cpu-quota", "60000", "one"])
    #expect(much.code == 1 && much.err.contains("invalid argument"), "\(much)")
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
  }

  @Test("the group that containers without a path of their own are in goes with the last of them")
  func ownParent() throws {
    let world = try BundleWorld()
    try world.specify()
    // Below our own, in a folder that no other test uses.
    let folder = "bundle-test-\(UInt32.random(in: 0 ... .max))"
    try world.configure(["sleep", "1000"]) { config in config.object("linux") { $0["cgroupsPath"] = "\(folder)/one" } }
    func groups() throws -> [String] { try CgroupHost.detect().names(below: "orch-runtime").filter { $0 == folder } }
    for id in ["one", "two"] {
      if id == "two" { try world.configure(["sleep", "1000"]) { config in config.object("linux") { $0["cgroupsPath"] = "\(folder)/two" } } }
      let result = try world.call(["run", "-d", "--bundle", world.bundle, id])
      #expect(result.code == 0, "\(result)")
    }
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
    #expect(try groups() == [folder])
    #expect(try world.call(["delete", "-f", "two"]).code == 0)
    #expect(try groups() == [])
    // And of none at all: the kernel takes no period below 1 ms.
    try world.configure(["sleep", "1000"]) { config in
      config.object("linux") {
        $0["cgroupsPath"] = "\(folder)/three"
        $0.object("resources") { $0["cpu"] = ["quota": 1000, "period": 10] }
      }
    }
    let refused = try world.call(["create", "--bundle", world.bundle, "three"])
    #expect(refused.code == 1 && refused.err.contains("cpu"), "\(refused)")
    #expect(try groups() == [])
  }

  @Test("containerd's update, which is all of linux.resources, is taken, and changes what it names; zeros and devices stay")
  func wholeResources() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["sleep", "1000"]) { config in
      config.object("linux") { $0.object("resources") { $0["memory"] = ["limit": 64 << 20, "swap": 96 << 20] } }
    }
    #expect(try world.call(["run", "-d", "--bundle", world.bundle, "one"]).code == 0)
    defer { _ = try? world.call(["delete", "-f", "one"]) }
    let file = world.folder + "/resources.json"
    func update(_ json: String) throws -> BundleWorld.Result {
      try Files.writeAtomically(file, json, durable: false)
      return try world.call(["update", "--resources", file, "one"])
    }
    func limits() throws -> [String] {
      let v1 = ["memory/memory.limit_in_bytes", "memory/memory.memsw.limit_in_bytes", "pids/pids.max"]
      let names = isV2 ? ["memory.max", "memory.swap.max", "pids.max"] : v1
      return try world.call(["exec", "one", "cat"] + names.map { "/sys/fs/cgroup/" + $0 }).out.split(separator: "\n").map(String.init)
    }
    let own = try JSONSerialization.jsonObject(with: Data(Files.read(world.bundle + "/config.json"))) as! [String: Any]
    let devices = ((own["linux"] as! [String: Any])["resources"] as! [String: Any])["devices"]!
    let text = String(decoding: try JSONSerialization.data(withJSONObject: devices), as: UTF8.self)
    let whole = try update(
      #"{"devices": \#(text), "memory": {"limit": 67108864}, "cpu": {"shares": 204, "quota": 20000, "period": 100000}, "pids": {"limit": 44}}"#)
    #expect(whole.code == 0 && whole.err == "", "\(whole)")
    #expect(try update(#"{"devices": [{"allow": true, "access": "rwm"}]}"#).err.contains("warning: update: devices cannot be changed"))
    #expect(try update(#"{"pids": {"limit": 0}, "cpu": {"burst": 0, "idle": 0}}"#).code == 0)
    let before = try limits()
    #expect(before.first == "\(64 << 20)" && before.last == "44", "\(before)")
    // Where swap is counted it is unlimited, too, and no limit of both together stands against memory's.
    let freed = try world.call(["update", "--memory", "-1", "one"])
    #expect(freed.code == 0, "\(freed)")
    let after = try limits()
    #expect(after.count == before.count && after.dropLast().allSatisfy { $0 == "max" || Int($0) ?? 0 > 1 << 60 }, "\(after)")
  }

  @Test("a limit below what is used is refused where that is asked for")
  func checkBeforeUpdate() throws {
    let world = try BundleWorld()
    try world.specify()
    try world.configure(["sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=8 2>/dev/null; : > /tmp/made; sleep 1000"]) { config in
      config.object("linux") { $0.object("resources") { $0["memory"] = ["limit": 64 << 20] } }
    }
    #expect(try world.call(["run", "-d", "--bundle", world.bundle, "one"]).code == 0)
    let file = world.folder + "/resources.json"
    func update(_ limit: Int) throws -> BundleWorld.Result {
      try Files.writeAtomically(file, #"{"memory": {"limit": \#(limit), "checkBeforeUpdate": true}}"#, durable: false)
      return try world.call(["update", "--resources", file, "one"])
    }
    // A lower limit while it writes would end it.
    for _ in 0..<2250 where !Files.exists(world.bundle + "/rootfs/tmp/made") { usleep(20_000) }
    let refused = try update(4 << 20)
    #expect(refused.code == 1 && refused.err.contains("lower than its current usage"), "\(refused)")
    #expect(try update(63 << 20).code == 0)
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
  }

  /// Container `one`, whose cgroups are its own to change, until its script has made /tmp/made.
  private func runInWritableCgroup(_ world: BundleWorld, _ script: String) throws {
    try world.configure(["sh", "-c", script]) { config in
      config["mounts"] = (config["mounts"] as! [[String: Any]]).map {
        $0["type"] as? String == "cgroup" ? ["destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid"]] : $0
      }
    }
    #expect(try world.call(["run", "-d", "--bundle", world.bundle, "one"]).code == 0)
    for _ in 0..<2250 where !Files.exists(world.bundle + "/rootfs/tmp/made") { usleep(20_000) }
  }

  @Test("exec --cgroup goes into a group that the container made, and nowhere else")
  func execCgroup() throws {
    let world = try BundleWorld()
    try world.specify()
    // The container makes a group in each of its hierarchies.
    let make =
      "for i in /sys/fs/cgroup /sys/fs/cgroup/*/; do [ -e $i/cgroup.procs ] && mkdir -p $i/sub 2>/dev/null; done; echo made > /tmp/made; sleep 1000"
    try runInWritableCgroup(world, make)
    let own = try world.call(["exec", "one", "cat", "/proc/self/cgroup"])
    #expect(own.code == 0 && !own.out.contains("/sub"), "\(own)")
    for (path, words) in [("nowhere", "no such file or directory"), ("../..", "must not contain"), ("sub/../../x", "must not contain")] {
      let refused = try world.call(["exec", "--cgroup", path, "one", "true"])
      #expect(refused.code == 255 && refused.err.contains(words), "\(path): \(refused)")
    }
    if isV2 {
      let inside = try world.call(["exec", "--cgroup=/sub", "one", "cat", "/proc/self/cgroup"])
      #expect(inside.code == 0 && inside.out.hasSuffix("/sub\n"), "\(inside)")
    }
    for (places, words) in [
      // v2 has no controllers: it is a path.
      (["whaaat:/"], isV2 ? "no such file or directory" : "unknown controller \"whaaat\""),
      (["sub", "sub"], "CONTROLLER[,CONTROLLER]:PATH"),
      (["memory:sub", "memory:/"], isV2 ? "CONTROLLER[,CONTROLLER]:PATH" : "memory has a place already"),
      (["memory:nowhere"], "no such file or directory"), (["memory:.."], "no"),
    ] {
      let refused = try world.call(["exec"] + places.flatMap { ["--cgroup", $0] } + ["one", "true"])
      #expect(refused.code == 255 && refused.err.contains(words), "\(places): \(refused)")
    }
    if !isV2 {
      // By the forms of runc-exec(8); the hierarchies that are not named stay where the container is.
      let inside = try world.call(["exec", "--cgroup", "memory:sub", "--cgroup=cpu,cpuacct:/sub", "one", "cat", "/proc/self/cgroup"])
      var places: [String: Bool] = [:]
      for line in inside.out.split(separator: "\n") {
        let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
        try #require(parts.count == 3, "\(line)")
        for controller in parts[1].split(separator: ",") { places[String(controller)] = parts[2].hasSuffix("/sub") }
      }
      #expect(inside.code == 0 && places["memory"] == true && places["cpu"] == true && places["cpuacct"] == true, "\(inside)")
      #expect(places["pids"] == false, "\(inside)")
      let root = try world.call(["exec", "--cgroup", "/", "one", "grep", "-c", "/sub", "/proc/self/cgroup"])
      #expect(root.code == 1 && root.out == "0\n", "\(root)")
    }
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
  }

  @Test(
    "v2: exec follows a container that hands controllers to groups of its own", .enabled(if: isV2, "no host of cgroup v2 alone: scripts/test-vm.sh"))
  func handedDown() throws {
    let world = try BundleWorld()
    try world.specify()
    let script =
      "cd /sys/fs/cgroup && mkdir one && echo 1 > one/cgroup.procs && echo +pids > cgroup.subtree_control && echo made > /tmp/made; sleep 1000"
    try runInWritableCgroup(world, script)
    let inside = try world.call(["exec", "one", "cat", "/proc/self/cgroup"])
    #expect(inside.code == 0 && inside.out.hasSuffix("/one\n"), "\(inside)")
    #expect(try world.call(["delete", "-f", "one"]).code == 0)
  }

  @Test(
    "v2: unified keys and a swap of 0 are the group's; what the kernel has not is named",
    .enabled(if: isV2, "no host of cgroup v2 alone: scripts/test-vm.sh"))
  func unified() throws {
    let world = try BundleWorld()
    func run(_ resources: [String: Any]) throws -> BundleWorld.Result {
      try world.run("cd /sys/fs/cgroup; cat memory.high memory.swap.max cpu.weight") { config in
        config.object("linux") { $0["resources"] = resources }
      }
    }
    let set = try run(["unified": ["memory.high": "1073741824", "cpu.weight": "1234"], "memory": ["swap": 0]])
    #expect(set.out == "1073741824\n0\n1234\n", "\(set)")
    for (key, words) in [
      ("foo.bar", "cgroup controller `foo` is not available"), ("memory.nothing", "memory.nothing to 1: no such file or directory"),
    ] {
      let refused = try run(["unified": [key: "1"]])
      #expect(refused.code == 1 && refused.err.contains(words), "\(refused)")
    }
  }

  @Test(
    "huge pages are limited, in a new container and by update",
    .enabled(if: freeHugePages >= 4, "no 4 free huge pages here (vm.nr_hugepages): scripts/test-vm.sh has some"))
  func hugePages() throws {
    let world = try BundleWorld()
    try world.specify()
    func resources(_ pages: Int) -> [String: Any] { ["hugepageLimits": [["pageSize": "2MB", "limit": pages << 21]]] }
    try world.configure(["sleep", "1000"]) { config in
      config.append("mounts", ["destination": "/huge", "type": "hugetlbfs", "source": "hugetlbfs", "options": ["nosuid", "nodev", "pagesize=2M"]])
      config.object("linux") { $0["resources"] = resources(1) }
    }
    let made = try world.call(["run", "-d", "--bundle", world.bundle, "one"])
    try #require(made.code == 0, "\(made)")
    defer { _ = try? world.call(["delete", "-f", "one"]) }
    func fill(_ name: String) throws -> BundleWorld.Result {
      try world.call(["exec", "one", "busybox", "fallocate", "-l", "\(1 << 21)", "/huge/" + name])
    }
    func limit() throws -> String {
      let file = isV2 ? "hugetlb.2MB.max" : "hugetlb/hugetlb.2MB.limit_in_bytes"
      return try world.call(["exec", "one", "cat", "/sys/fs/cgroup/" + file]).out
    }
    #expect(try limit() == "\(1 << 21)\n")
    let (first, second) = (try fill("first"), try fill("second"))
    #expect(first.code == 0, "\(first)")
    #expect(second.code != 0 && second.err.contains("No space left on device"), "\(second)")
    let file = world.folder + "/resources.json"
    try Files.writeAtomically(file, Array(try JSONSerialization.data(withJSONObject: resources(3))), durable: false)
    let updated = try world.call(["update", "--resources", file, "one"])
    #expect(updated.code == 0, "\(updated)")
    #expect(try limit() == "\(3 << 21)\n")
    for name in ["second", "third"] {
      let filled = try fill(name)
      #expect(filled.code == 0, "\(filled)")
    }
    let fourth = try fill("fourth")
    #expect(fourth.code != 0, "\(fourth)")
  }
}
