import ArgumentParser
import Bundle
import LinuxSystem
import OCI

struct Update: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "update", abstract: "Change a container's limits in place.")
  @ParentCommand var parent: OrchRuntime
  @Option(name: [.short, .customLong("resources")], help: "A file in the shape of linux.resources, - for stdin; other options are then ignored.")
  var resources: String?
  @Option(name: .customLong("blkio-weight"), help: "10 to 1000.") var blkioWeight: UInt16?
  @Option(name: .customLong("cpu-period"), help: "Microseconds.") var cpuPeriod: UInt64?
  @Option(name: .customLong("cpu-quota"), parsing: .unconditional, help: "Microseconds a period; -1: unlimited.") var cpuQuota: Int64?
  @Option(name: .customLong("cpu-burst"), help: "Microseconds saved from periods before.") var cpuBurst: UInt64?
  @Option(name: .customLong("cpu-share"), help: "Relative weight.") var cpuShare: UInt64?
  @Option(name: .customLong("cpu-idle"), parsing: .unconditional, help: "1: only what nobody else wants; 0.") var cpuIdle: Int64?
  @Option(name: .customLong("cpu-rt-period"), help: "Microseconds (v1).") var realtimePeriod: UInt64?
  @Option(name: .customLong("cpu-rt-runtime"), parsing: .unconditional, help: "Microseconds a period (v1).") var realtimeRuntime: Int64?
  @Option(name: .customLong("cpuset-cpus"), help: "As in 0-2,5.") var cpusetCpus: String?
  @Option(name: .customLong("cpuset-mems"), help: "As in 0.") var cpusetMems: String?
  @Option(parsing: .unconditional, help: "Bytes, or as in 512M and 1.5g; -1: unlimited.") var memory: Bytes?
  @Option(name: .customLong("memory-reservation"), parsing: .unconditional, help: "Bytes.") var memoryReservation: Bytes?
  @Option(name: .customLong("memory-swap"), parsing: .unconditional, help: "Bytes of memory and swap together; -1: unlimited.") var memorySwap: Bytes?
  @Option(name: .customLong("kernel-memory"), parsing: .unconditional, help: "Ignored: no kernel has it any more.") var kernelMemory: String?
  @Option(name: .customLong("kernel-memory-tcp"), parsing: .unconditional, help: "Ignored: no kernel has it any more.") var kernelMemoryTCP: String?
  @Option(name: .customLong("pids-limit"), parsing: .unconditional, help: "-1: unlimited.") var pidsLimit: Int64?
  @Option(name: .customLong("l3-cache-schema"), help: "Refused, as linux.intelRdt is.") var cacheSchema: String?
  @Option(name: .customLong("mem-bw-schema"), help: "Refused, as linux.intelRdt is.") var bandwidthSchema: String?
  @Argument var id: String

  /// As runc reads them (docker/go-units, `RAMInBytes`): a number, whole or with a fraction, perhaps a blank, then b, or k, m, g, t or p for powers of
  /// 1024 with or without b or ib, in either case; what is less than a byte is dropped. -1 stays.
  struct Bytes: ExpressibleByArgument {
    private static let shifts: [String: Int64] = ["": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50]
    var value: Int64

    init?(argument: String) {
      if argument == "-1" {
        value = -1
        return
      }
      let number = argument.prefix { $0 == "." || $0.isASCII && $0.isNumber }
      var unit = argument.dropFirst(number.count).lowercased()
      if unit.hasPrefix(" ") { unit.removeFirst() }
      if unit == "b" {
        unit = ""
      } else if let end = ["ib", "b"].first(where: { unit.count == $0.count + 1 && unit.hasSuffix($0) }) {
        unit.removeLast(end.count)
      }
      let parts = number.split(separator: ".", maxSplits: 1, omittingEmptySubsequences: false)
      guard number.contains(where: \.isNumber), let shift = Self.shifts[unit], let whole = Int64(parts[0].isEmpty ? "0" : parts[0]),
        let fraction = Double(parts.count > 1 ? "0.\(parts[1])0" : "0"), whole <= Int64.max >> shift
      else { return nil }
      let (sum, isTooMuch) = (whole << shift).addingReportingOverflow(Int64(fraction * Double(Int64(1) << shift)))
      if isTooMuch { return nil }
      value = sum
    }
  }

  func run() throws {
    for (name, given) in [("kernel-memory", kernelMemory), ("kernel-memory-tcp", kernelMemoryTCP)] where given != nil {
      Log.warning("--\(name) is ignored: the kernel has no such limit any more")
    }
    for (name, given) in [("l3-cache-schema", cacheSchema), ("mem-bw-schema", bandwidthSchema)] where !(given ?? "").isEmpty {
      throw BundleError("--\(name): is not supported, as linux.intelRdt is not")
    }
    var wanted = Resources.empty
    if let resources {
      do {
        let bytes = resources == "-" ? try Files.read(descriptor: 0, name: "stdin") : try Files.read(resources)
        wanted = try Document.read(Resources.self, bytes)
      } catch { throw BundleError("--resources \(resources): \(error)") }
    } else {
      wanted = given
    }
    for warning in try parent.bundles().update(id, wanted) { Log.warning(warning) }
  }

  private var given: Resources {
    var memory = Resources.Memory()
    (memory.limit, memory.reservation, memory.swap) = (self.memory?.value, memoryReservation?.value, memorySwap?.value)
    var cpu = Resources.CPU()
    (cpu.shares, cpu.quota, cpu.period, cpu.cpus, cpu.mems) = (cpuShare, cpuQuota, cpuPeriod, cpusetCpus, cpusetMems)
    (cpu.burst, cpu.idle, cpu.realtimePeriod, cpu.realtimeRuntime) = (cpuBurst, cpuIdle, realtimePeriod, realtimeRuntime)
    var wanted = Resources.empty
    (wanted.memory, wanted.cpu) = (memory, cpu)
    if let pidsLimit {
      var pids = Resources.Pids()
      pids.limit = pidsLimit
      wanted.pids = pids
    }
    if let blkioWeight {
      var io = Resources.BlockIO()
      io.weight = blkioWeight
      wanted.blockIO = io
    }
    return wanted
  }
}
