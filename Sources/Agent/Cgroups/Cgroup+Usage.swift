import LinuxSystem

/// What a group has used since it was made, with what lies below it. Counters only rise.
public struct CgroupUsage: Hashable, Sendable {
  /// Bytes that count against the limit, without inactive file cache (as docker stats shows it).
  public var memory: Int64 = 0
  /// nil: no limit.
  public var memoryLimit: Int64?
  /// The most there ever was, with cache; nil where the kernel does not keep it (v2 before Linux 5.19).
  public var memoryPeak: Int64?
  /// memory.stat, by its own names: bytes, and counts of events.
  public var memoryStat: [String: Int64] = [:]
  /// Processes that the kernel killed since the limit was reached.
  public var oomKills: Int64 = 0
  public var cpu: Duration = .zero
  public var cpuUser: Duration = .zero
  public var cpuKernel: Duration = .zero
  public var throttling = Throttling()
  public var pids: Int64 = 0
  /// nil: no limit.
  public var pidsLimit: Int64?
  /// A block device each; empty where the controller is not there. v1 counts what a process itself waits for (direct, synced), v2 written-back pages too (docs/runtime.md).
  public var io: [IO] = []
  /// nil where the kernel keeps no pressure (psi=0, or no v2 tree).
  public var cpuPressure: Pressure?
  public var memoryPressure: Pressure?
  public var ioPressure: Pressure?

  public struct Throttling: Hashable, Sendable {
    public var periods: Int64 = 0
    public var throttledPeriods: Int64 = 0
    public var time: Duration = .zero
  }
  public struct IO: Hashable, Sendable {
    public var major: UInt32
    public var minor: UInt32
    public var readBytes: Int64 = 0
    public var writeBytes: Int64 = 0
    public var reads: Int64 = 0
    public var writes: Int64 = 0
  }
  /// Pressure stall information (kernel, accounting/psi.rst).
  public struct Pressure: Hashable, Sendable {
    public struct Stall: Hashable, Sendable {
      /// Percent of the time of the last 10, 60 and 300 seconds.
      public var average10 = 0.0
      public var average60 = 0.0
      public var average300 = 0.0
      public var total: Duration = .zero
    }
    /// At least one process waited.
    public var some = Stall()
    /// All that were not idle did.
    public var full = Stall()
  }

  /// By the names of their resources; without what the kernel does not keep.
  public var pressures: [(resource: String, pressure: Pressure)] {
    [("cpu", cpuPressure), ("memory", memoryPressure), ("io", ioPressure)].compactMap { name, pressure in pressure.map { (name, $0) } }
  }
  public var readBytes: Int64 { io.reduce(0) { $0 + $1.readBytes } }
  public var writeBytes: Int64 { io.reduce(0) { $0 + $1.writeBytes } }
}

extension Cgroup {
  /// Throws when the group is gone; what this kernel does not count is zero or nil.
  public func usage() throws(SystemError) -> CgroupUsage {
    var usage = CgroupUsage()
    switch host.version {
    case .v2(let root): try readV2(path(root), &usage)
    case .v1: try readV1(&usage)
    }
    if let directory = cloneDirectory {
      usage.cpuPressure = .read(directory + "/cpu.pressure")
      usage.memoryPressure = .read(directory + "/memory.pressure")
      usage.ioPressure = .read(directory + "/io.pressure")
    }
    return usage
  }

  private func readV2(_ base: String, _ usage: inout CgroupUsage) throws(SystemError) {
    usage.memoryStat = CgroupFile.pairs(try Files.text(base + "/memory.stat"))
    usage.memory = max(0, try CgroupFile.number(base + "/memory.current") - usage.memoryStat["inactive_file", default: 0])
    // "max" is no number: no limit.
    usage.memoryLimit = CgroupFile.optional(base + "/memory.max")
    usage.memoryPeak = CgroupFile.optional(base + "/memory.peak")
    let cpu = CgroupFile.pairs(try Files.text(base + "/cpu.stat"))
    usage.cpu = .microseconds(cpu["usage_usec", default: 0])
    usage.cpuUser = .microseconds(cpu["user_usec", default: 0])
    usage.cpuKernel = .microseconds(cpu["system_usec", default: 0])
    usage.throttling = .init(
      periods: cpu["nr_periods", default: 0], throttledPeriods: cpu["nr_throttled", default: 0],
      time: .microseconds(cpu["throttled_usec", default: 0]))
    usage.pids = try CgroupFile.number(base + "/pids.current")
    usage.pidsLimit = CgroupFile.optional(base + "/pids.max")
    usage.oomKills = CgroupFile.pairs(try Files.text(oomFile))["oom_kill", default: 0]
    usage.io = CgroupFile.ioStat((try? Files.text(base + "/io.stat")) ?? "")
  }

  private func readV1(_ usage: inout CgroupUsage) throws(SystemError) {
    let (memory, pids) = (path(controller: "memory") ?? "", path(controller: "pids") ?? "")
    usage.memoryStat = CgroupFile.pairs(try Files.text(memory + "/memory.stat"))
    usage.memory = max(0, try CgroupFile.number(memory + "/memory.usage_in_bytes") - usage.memoryStat["total_inactive_file", default: 0])
    // No limit is the largest page-aligned number.
    usage.memoryLimit = CgroupFile.optional(memory + "/memory.limit_in_bytes").flatMap { $0 > Int64.max - 8192 ? nil : $0 }
    usage.memoryPeak = CgroupFile.optional(memory + "/memory.max_usage_in_bytes")
    usage.oomKills = CgroupFile.pairs(try Files.text(oomFile))["oom_kill", default: 0]
    if let base = path(controller: "cpuacct") {
      usage.cpu = .nanoseconds(try CgroupFile.number(base + "/cpuacct.usage"))
      usage.cpuUser = .nanoseconds(CgroupFile.optional(base + "/cpuacct.usage_user") ?? 0)
      usage.cpuKernel = .nanoseconds(CgroupFile.optional(base + "/cpuacct.usage_sys") ?? 0)
    }
    if let base = path(controller: "cpu"), let text = try? Files.text(base + "/cpu.stat") {
      let cpu = CgroupFile.pairs(text)
      usage.throttling = .init(
        periods: cpu["nr_periods", default: 0], throttledPeriods: cpu["nr_throttled", default: 0],
        time: .nanoseconds(cpu["throttled_time", default: 0]))
    }
    usage.pids = try CgroupFile.number(pids + "/pids.current")
    usage.pidsLimit = CgroupFile.optional(pids + "/pids.max")
    if let base = path(controller: "blkio") {
      func text(_ file: String) -> String { (try? Files.text("\(base)/blkio.throttle.\(file)_recursive")) ?? "" }
      usage.io = CgroupFile.blkio(bytes: text("io_service_bytes"), operations: text("io_serviced"))
    }
  }
}

extension CgroupUsage.Pressure {
  static func read(_ path: String) -> Self? { (try? Files.text(path)).flatMap { Self(text: $0) } }

  /// "some avg10=0.00 avg60=0.00 avg300=0.00 total=0", and the same of "full" (not of cpu before Linux 5.13).
  init?(text: String) {
    self.init()
    var isThere = false
    for line in text.split(separator: "\n") {
      let words = line.split(separator: " ")
      var stall = Stall()
      for word in words.dropFirst() {
        let pair = word.split(separator: "=").map(String.init)
        guard pair.count == 2 else { return nil }
        switch pair[0] {
        case "avg10": stall.average10 = Double(pair[1]) ?? 0
        case "avg60": stall.average60 = Double(pair[1]) ?? 0
        case "avg300": stall.average300 = Double(pair[1]) ?? 0
        case "total": stall.total = .microseconds(Int64(pair[1]) ?? 0)
        default: break
        }
      }
      switch words.first {
      case "some": (some, isThere) = (stall, true)
      case "full": full = stall
      default: break
      }
    }
    if !isThere { return nil }
  }
}

/// The shapes of a group's files.
enum CgroupFile {
  static func number(_ path: String) throws(SystemError) -> Int64 { Int64(try Files.text(path).filter { !$0.isWhitespace }) ?? 0 }
  static func optional(_ path: String) -> Int64? { (try? Files.text(path)).flatMap { Int64($0.filter { !$0.isWhitespace }) } }

  /// "name number" lines.
  static func pairs(_ text: String) -> [String: Int64] {
    text.split(separator: "\n").reduce(into: [:]) { pairs, line in
      let words = line.split(separator: " ")
      if words.count == 2, let value = Int64(words[1]) { pairs[String(words[0])] = value }
    }
  }

  private static func device(_ text: Substring) -> CgroupUsage.IO? {
    let numbers = text.split(separator: ":").compactMap { UInt32($0) }
    return numbers.count == 2 ? CgroupUsage.IO(major: numbers[0], minor: numbers[1]) : nil
  }

  /// v2: "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6".
  static func ioStat(_ text: String) -> [CgroupUsage.IO] {
    text.split(separator: "\n").compactMap { line in
      let words = line.split(separator: " ")
      guard var io = words.first.flatMap(device) else { return nil }
      for word in words.dropFirst() {
        let pair = word.split(separator: "=")
        guard pair.count == 2, let value = Int64(pair[1]) else { continue }
        switch pair[0] {
        case "rbytes": io.readBytes = value
        case "wbytes": io.writeBytes = value
        case "rios": io.reads = value
        case "wios": io.writes = value
        default: break
        }
      }
      return io
    }
  }

  /// v1: "8:0 Read 1" and "8:0 Write 2" among others.
  static func blkio(bytes: String, operations: String) -> [CgroupUsage.IO] {
    var found: [CgroupUsage.IO] = []
    func read(_ text: String, _ take: (inout CgroupUsage.IO, Substring, Int64) -> Void) {
      for line in text.split(separator: "\n") {
        let words = line.split(separator: " ")
        guard words.count == 3, let value = Int64(words[2]), let io = device(words[0]) else { continue }
        let index = found.firstIndex { ($0.major, $0.minor) == (io.major, io.minor) } ?? found.count
        if index == found.count { found.append(io) }
        take(&found[index], words[1], value)
      }
    }
    read(bytes) { io, what, value in
      if what == "Read" { io.readBytes = value } else if what == "Write" { io.writeBytes = value }
    }
    read(operations) { io, what, value in
      if what == "Read" { io.reads = value } else if what == "Write" { io.writes = value }
    }
    return found
  }
}
