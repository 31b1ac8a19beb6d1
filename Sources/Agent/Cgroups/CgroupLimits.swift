import LinuxSystem

/// What a group may use. nil: as it is, which in a new group is unlimited; negative: unlimited.
public struct CgroupLimits: Hashable, Sendable {
  /// Bytes.
  public var memory: Int64?
  /// Bytes of swap on top of `memory`, which it needs; nil: none where there is a limit of memory.
  public var swap: Int64?
  /// Bytes that are taken away from it last when the host has little left (v2 memory.low, v1 the soft limit).
  public var memoryReservation: Int64?
  /// An OOM kill ends all of it and not one process (v2 memory.oom.group; v1 has none, which is passed over).
  public var oomGroup: Bool?
  /// 10^9 is one CPU.
  public var nanoCPUs: Int64?
  /// Relative weight, 1024 is usual (v1's cpu.shares; converted for v2).
  public var cpuShares: Int64?
  /// As in "0-2,4"; v1: the group's host must have been detected with cpuset.
  public var cpuset: String?
  public var pids: Int64?
  public init(memory: Int64? = nil, nanoCPUs: Int64? = nil, cpuShares: Int64? = nil, pids: Int64? = nil) {
    self.memory = memory
    self.nanoCPUs = nanoCPUs
    self.cpuShares = cpuShares
    self.pids = pids
  }
}

extension Cgroup {
  private static let period: Int64 = 100_000
  /// Microseconds per period; the kernel's least is 1000.
  static func quota(_ nanoCPUs: Int64) -> Int64 { max(1000, nanoCPUs / 10_000) }

  /// v2's weight, 1 to 10,000, of v1's shares, 2 to 262,144, as runc and crun convert them.
  public static func weight(shares: Int64) -> Int64 { 1 + (min(max(shares, 2), 262_144) - 2) * 9999 / 262_142 }

  /// Of a group that is there. v1 refuses a limit of memory below what is in use (EBUSY); v2 takes memory back, and kills where that does not help.
  public func limit(_ limits: CgroupLimits) throws(SystemError) {
    if limits.swap.map({ $0 >= 0 }) == true, limits.memory.map({ $0 >= 0 }) != true {
      throw SystemError("limit swap without memory of", name, .invalid)
    }
    if let cpuset = limits.cpuset {
      try enableControllers(["cpuset"])
      try inheritCpuset()
      try write(controller: "cpuset", file: "cpuset.cpus", cpuset)
    }
    if case .v2(let root) = host.version { try limitV2(path(root), limits) } else { try limitV1(limits) }
  }

  private func limitV2(_ base: String, _ limits: CgroupLimits) throws(SystemError) {
    func set(_ file: String, _ value: Int64) throws(SystemError) { try Files.writeExisting("\(base)/\(file)", value < 0 ? "max" : "\(value)") }
    if let low = limits.memoryReservation { try set("memory.low", max(0, low)) }
    if let memory = limits.memory {
      try set("memory.max", memory)
      let swap = limits.swap ?? (memory < 0 ? -1 : 0)
      // A kernel without swap has no such file, and gives none.
      if swap > 0 || Files.exists(base + "/memory.swap.max") { try set("memory.swap.max", swap) }
    } else if let swap = limits.swap {
      try set("memory.swap.max", swap)
    }
    if let group = limits.oomGroup, Files.exists(base + "/memory.oom.group") { try set("memory.oom.group", group ? 1 : 0) }
    if let cpus = limits.nanoCPUs { try Files.writeExisting(base + "/cpu.max", "\(cpus < 0 ? "max" : "\(Self.quota(cpus))") \(Self.period)") }
    if let shares = limits.cpuShares { try set("cpu.weight", Self.weight(shares: shares)) }
    if let pids = limits.pids { try set("pids.max", pids) }
  }

  private func limitV1(_ limits: CgroupLimits) throws(SystemError) {
    if let soft = limits.memoryReservation { try write(controller: "memory", file: "memory.soft_limit_in_bytes", "\(max(-1, soft))") }
    if let memory = limits.memory {
      let (file, both) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
      let (sum, isTooMuch) = memory.addingReportingOverflow(limits.swap ?? 0)
      let total = memory < 0 || isTooMuch || limits.swap.map { $0 < 0 } == true ? -1 : sum
      let isSwapCounted = has(controller: "memory", file: both)
      if !isSwapCounted, let swap = limits.swap, swap > 0 {
        throw SystemError("set \(both), which this kernel does not count, of", name, .unsupported)
      }
      // The kernel keeps the one above the other: what is raised begins with the sum, what is lowered ends with it.
      do throws(SystemError) { try write(controller: "memory", file: file, "\(max(-1, memory))") } catch {
        guard error.errno == .invalid, isSwapCounted else { throw error }
        try write(controller: "memory", file: both, "\(total)")
        try write(controller: "memory", file: file, "\(max(-1, memory))")
      }
      if isSwapCounted { try write(controller: "memory", file: both, "\(total)") }
    } else if limits.swap != nil {
      try write(controller: "memory", file: "memory.memsw.limit_in_bytes", "-1")
    }
    if let cpus = limits.nanoCPUs {
      try write(controller: "cpu", file: "cpu.cfs_period_us", "\(Self.period)")
      try write(controller: "cpu", file: "cpu.cfs_quota_us", "\(cpus < 0 ? -1 : Self.quota(cpus))")
    }
    if let shares = limits.cpuShares { try write(controller: "cpu", file: "cpu.shares", "\(shares)") }
    if let pids = limits.pids { try write(controller: "pids", file: "pids.max", pids < 0 ? "max" : "\(pids)") }
  }
}
