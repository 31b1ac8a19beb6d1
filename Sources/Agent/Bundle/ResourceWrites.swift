import Cgroups
import LinuxSystem
import OCI

/// `linux.resources` as files to write. The conversions from v1's numbers to v2's are runc's and crun's (crun.1, "CGROUP v2").
struct ResourceWrites: Hashable, Sendable {
  struct Write: Hashable, Sendable {
    var controller: String
    var file: String
    var value: String
    /// Where the kernel has not the one, by its scheduler of block devices: another file, and what that takes.
    var other: Other?
    /// Where the kernel has no such file, nothing is lost: without swap none is used.
    var isOptional = false
    struct Other: Hashable, Sendable {
      var file: String
      var value: String
    }
    var isQuota: Bool { file == "cpu.max" || file == "cpu.cfs_quota_us" }
    /// What goes with a quota.
    var isOfQuota: Bool { ["cpu.max.burst", "cpu.cfs_burst_us", "cpu.cfs_period_us"].contains(file) }
    /// What may be refused for what another file says until now.
    func isPaired(hasQuota: Bool, _ error: Errno) -> Bool {
      if file.hasPrefix("memory.memsw") || file == "memory.limit_in_bytes" { return true }
      return hasQuota && error == .invalid && isOfQuota
    }
  }
  private(set) var writes: [Write] = []
  private let v2: Bool
  private let isUpdate: Bool
  private let quotaNow: Substring
  /// A memory limit that must not be below what is used (`checkBeforeUpdate`).
  private(set) var least: Int64?

  /// Throws what this version of cgroups cannot do. `isUpdate`: docker and containerd write zeros there for all that is not asked for; in a new
  /// container's configuration a swap of 0 means none (v2).
  /// - Parameter cpuMax: v2's file of that name as it is now: what is not asked for stays, and a new container has no quota.
  init(_ resources: Resources, v2: Bool, isUpdate: Bool = false, cpuMax: String = "max") throws(BundleError) {
    quotaNow = cpuMax.split(whereSeparator: \.isWhitespace).first ?? "max"
    self.v2 = v2
    self.isUpdate = isUpdate
    if let memory = resources.memory { try self.memory(memory) }
    if let cpu = resources.cpu { try self.cpu(cpu) }
    if let limit = resources.pids?.limit, limit != 0 || !isUpdate { add("pids", "pids.max", limit > 0 ? "\(limit)" : "max") }
    if let blockIO = resources.blockIO { try self.blockIO(blockIO) }
    for (device, limit) in (resources.rdma ?? [:]).sorted(by: { $0.key < $1.key }) {
      let limits = [limit.hcaHandles.map { "hca_handle=\($0)" }, limit.hcaObjects.map { "hca_object=\($0)" }].compactMap { $0 }
      if !limits.isEmpty { add("rdma", "rdma.max", "\(device) \(limits.joined(separator: " "))") }
    }
    if let network = resources.network { try self.network(network) }
    for limit in resources.hugepageLimits ?? [] {
      let (name, value) = (v2 ? "max" : "limit_in_bytes", "\(limit.limit)")
      // Reservations where the kernel counts them, and pages that are used.
      add("hugetlb", "hugetlb.\(limit.pageSize).rsvd.\(name)", value, isOptional: true)
      add("hugetlb", "hugetlb.\(limit.pageSize).\(name)", value)
    }
    if let unified = resources.unified, !unified.isEmpty {
      guard v2 else { throw BundleError("linux.resources.unified: this host has cgroup v1") }
      for (file, value) in unified.sorted(by: { $0.key < $1.key }) { add(String(file.prefix { $0 != "." }), file, value) }
    }
  }

  /// The controllers that are used.
  var controllers: [String] {
    writes.reduce(into: []) { if !$0.contains($1.controller), $1.controller != "cgroup" { $0.append($1.controller) } }
  }

  private mutating func add(_ controller: String, _ file: String, _ value: String, other: Write.Other? = nil, isOptional: Bool = false) {
    writes.append(Write(controller: controller, file: file, value: value, other: other, isOptional: isOptional))
  }
  private func bytes(_ value: Int64) -> String { value < 0 ? (v2 ? "max" : "-1") : "\(value)" }

  private mutating func memory(_ memory: Resources.Memory) throws(BundleError) {
    // docker writes a zero where nothing is asked for.
    if (memory.kernel ?? 0) != 0 || (memory.kernelTCP ?? 0) != 0 {
      throw BundleError("linux.resources.memory.kernel: the kernel has no such limit any more")
    }
    // As with runc: without a limit of memory there is none of both together, whatever was set before.
    let isFreed = isUpdate && (memory.limit ?? 0) < 0 && (memory.swap ?? 0) == 0
    if memory.checkBeforeUpdate == true, let limit = memory.limit, limit > 0 { least = limit }
    if v2 {
      if let limit = memory.limit, limit != 0 { add("memory", "memory.max", bytes(limit)) }
      if isFreed { add("memory", "memory.swap.max", "max", isOptional: true) }
      if let swap = memory.swap, swap != 0 || !isUpdate {
        guard swap <= 0 || memory.limit.map({ $0 > 0 }) ?? false else { throw BundleError("linux.resources.memory.swap: needs a limit") }
        add("memory", "memory.swap.max", swap <= 0 ? bytes(swap) : bytes(swap - (memory.limit ?? 0)), isOptional: swap >= 0)
      }
      if let low = memory.reservation, low != 0 { add("memory", "memory.low", bytes(low)) }
      if memory.swappiness != nil { throw BundleError("linux.resources.memory.swappiness: cgroup v2 has none") }
      if memory.disableOOMKiller == true { throw BundleError("linux.resources.memory.disableOOMKiller: cgroup v2 has none") }
      return
    }
    if let limit = memory.limit, limit != 0 { add("memory", "memory.limit_in_bytes", bytes(limit)) }
    if isFreed { add("memory", "memory.memsw.limit_in_bytes", "-1", isOptional: true) }
    if let swap = memory.swap, swap != 0 { add("memory", "memory.memsw.limit_in_bytes", bytes(swap)) }
    if let soft = memory.reservation, soft != 0 { add("memory", "memory.soft_limit_in_bytes", bytes(soft)) }
    if let swappiness = memory.swappiness { add("memory", "memory.swappiness", "\(swappiness)") }
    if memory.disableOOMKiller == true { add("memory", "memory.oom_control", "1") }
  }

  private mutating func cpu(_ cpu: Resources.CPU) throws(BundleError) {
    // Zeros are what is so without being asked for: nothing is lost where the kernel has no such file. An idle group takes no weight
    // (cgroup-v2.rst, "cpu.weight"), so it is made so last, and no longer so first.
    if cpu.idle == 0 { add("cpu", "cpu.idle", "0", isOptional: true) }
    let (runtime, realtime) = (cpu.realtimeRuntime.flatMap { $0 == 0 ? nil : $0 }, cpu.realtimePeriod.flatMap { $0 == 0 ? nil : $0 })
    if runtime != nil || realtime != nil {
      guard !v2 else { throw BundleError("linux.resources.cpu.realtimeRuntime: cgroup v2 has none") }
      if let realtime { add("cpu", "cpu.rt_period_us", "\(realtime)") }
      if let runtime { add("cpu", "cpu.rt_runtime_us", "\(runtime)") }
    }
    if let shares = cpu.shares, shares != 0 {
      add("cpu", v2 ? "cpu.weight" : "cpu.shares", v2 ? "\(Cgroup.weight(shares: Int64(clamping: shares)))" : "\(shares)")
    }
    let burst = cpu.burst.map {
      Write(controller: "cpu", file: v2 ? "cpu.max.burst" : "cpu.cfs_burst_us", value: "\($0)", isOptional: $0 == 0)
    }
    let (quota, period) = (cpu.quota.flatMap { $0 == 0 ? nil : $0 }, cpu.period.flatMap { $0 == 0 ? nil : $0 })
    // It is never more than the quota: before it where both get less, again after it where both get more (as runc, libcontainer/cgroups/fs2/cpu.go).
    if quota != nil, let burst { writes.append(burst) }
    if v2 {
      if quota != nil || period != nil {
        // Of the quota alone the period stays (cgroup-v2.rst, "cpu.max"); the period cannot be written alone.
        add("cpu", "cpu.max", (quota.map { $0 > 0 ? "\($0)" : "max" } ?? "\(quotaNow)") + (period.map { " \($0)" } ?? ""))
      }
    } else {
      // Again after the quota where the old one in the new period is more than the parent gives (as runc, cgroups/fs/cpu.go).
      if let period { add("cpu", "cpu.cfs_period_us", "\(period)") }
      if let quota { add("cpu", "cpu.cfs_quota_us", "\(quota)") }
    }
    if quota == nil, let burst { writes.append(burst) }
    if let idle = cpu.idle, idle != 0 { add("cpu", "cpu.idle", "\(idle)") }
    if let cpus = cpu.cpus, !cpus.isEmpty { add("cpuset", "cpuset.cpus", cpus) }
    if let mems = cpu.mems, !mems.isEmpty { add("cpuset", "cpuset.mems", mems) }
  }

  private mutating func network(_ network: Resources.Network) throws(BundleError) {
    guard !v2 else { throw BundleError("linux.resources.network: cgroup v2 has none") }
    if let id = network.classID { add("net_cls", "net_cls.classid", "\(id)") }
    for one in network.priorities ?? [] { add("net_prio", "net_prio.ifpriomap", "\(one.name) \(one.priority)") }
  }

  private mutating func blockIO(_ io: Resources.BlockIO) throws(BundleError) {
    if let weight = io.weight, weight != 0 {
      if v2 {
        // io.weight is of 1 to 10,000, the specification's of 10 to 1000.
        add("io", "io.bfq.weight", "\(weight)", other: .init(file: "io.weight", value: "\(1 + (Int(max(weight, 10)) - 10) * 9999 / 990)"))
      } else {
        add("blkio", "blkio.weight", "\(weight)", other: .init(file: "blkio.bfq.weight", value: "\(weight)"))
      }
    }
    if let weight = io.leafWeight, weight != 0 {
      guard !v2 else { throw BundleError("linux.resources.blockIO.leafWeight: cgroup v2 has none") }
      add("blkio", "blkio.leaf_weight", "\(weight)")
    }
    for one in io.weightDevice ?? [] {
      let device = "\(one.major):\(one.minor)"
      if let weight = one.weight, weight != 0 {
        let value = "\(device) \(weight)"
        if v2 {
          add("io", "io.bfq.weight", value)
        } else {
          add("blkio", "blkio.weight_device", value, other: .init(file: "blkio.bfq.weight_device", value: value))
        }
      }
      if let weight = one.leafWeight, weight != 0 {
        guard !v2 else { throw BundleError("linux.resources.blockIO.weightDevice: cgroup v2 has no leafWeight") }
        add("blkio", "blkio.leaf_weight_device", "\(device) \(weight)")
      }
    }
    func throttle(_ list: [Resources.Throttle]?, _ v1: String, _ key: String) {
      for one in list ?? [] {
        add(v2 ? "io" : "blkio", v2 ? "io.max" : "blkio.throttle.\(v1)_device", "\(one.major):\(one.minor) \(v2 ? "\(key)=" : "")\(one.rate)")
      }
    }
    throttle(io.throttleReadBpsDevice, "read_bps", "rbps")
    throttle(io.throttleWriteBpsDevice, "write_bps", "wbps")
    throttle(io.throttleReadIOPSDevice, "read_iops", "riops")
    throttle(io.throttleWriteIOPSDevice, "write_iops", "wiops")
  }

  /// Raising memory.memsw before memory, and lowering it after: the kernel keeps the one above the other (v1). Burst and period with the quota likewise.
  func apply(to cgroup: Cgroup) throws(BundleError) {
    if let least, let used = cgroup.read(controller: "memory", file: v2 ? "memory.current" : "memory.usage_in_bytes") {
      let used = Int64(used.filter { !$0.isWhitespace }) ?? 0
      if used >= least {
        throw BundleError("linux.resources.memory.limit: cannot set the memory limit lower than its current usage: \(least), \(used) are used")
      }
    }
    var again: [Write] = []
    let hasQuota = writes.contains { $0.isQuota }
    for var write in writes where !write.isOptional || cgroup.has(controller: write.controller, file: write.file) {
      if let other = write.other, !cgroup.has(controller: write.controller, file: write.file) {
        (write.file, write.value) = (other.file, other.value)
      }
      do throws(SystemError) { try cgroup.write(controller: write.controller, file: write.file, write.value) } catch {
        if write.isPaired(hasQuota: hasQuota, error.errno), write.isOfQuota || !again.contains(where: { $0.controller == write.controller }) {
          again.append(write)
          continue
        }
        if v2, error.errno == .noEntry, write.controller != "cgroup", !cgroup.has(controller: write.controller, file: write.file),
          let there = cgroup.read(controller: write.controller, file: "cgroup.controllers")?.split(whereSeparator: \.isWhitespace),
          !there.contains(Substring(write.controller))
        {
          throw BundleError("set \(write.file): the requested cgroup controller `\(write.controller)` is not available")
        }
        throw Self.refused(write, error, cgroup)
      }
    }
    for write in again {
      do throws(SystemError) { try cgroup.write(controller: write.controller, file: write.file, write.value) } catch {
        // A kernel without swap accounting.
        if write.file.hasPrefix("memory.memsw"), !cgroup.has(controller: "memory", file: write.file) { continue }
        throw Self.refused(write, error, cgroup)
      }
    }
  }

  private static func refused(_ write: Write, _ error: SystemError, _ cgroup: Cgroup) -> BundleError {
    let burst = cgroup.read(controller: "cpu", file: write.file == "cpu.max" ? "cpu.max.burst" : "cpu.cfs_burst_us")
      .flatMap { Int($0.filter { !$0.isWhitespace }) }
    var cause = error.errno.message.lowercased()
    if write.isQuota, error.errno == .invalid, let burst, let quota = Int(write.value.prefix { $0 != " " }), burst > quota {
      cause += ", the burst of \(burst) is more: give a lower one, too"
    }
    return BundleError("set \(write.file) to \(write.value): \(cause)")
  }
}
