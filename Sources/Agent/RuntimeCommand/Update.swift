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
  @Option(name: .customLong("cpu-share"), help: "Relative weight.") var cpuShare: UInt64?
  @Option(name: .customLong("cpuset-cpus"), help: "As in 0-2,5.") var cpusetCpus: String?
  @Option(name: .customLong("cpuset-mems"), help: "As in 0.") var cpusetMems: String?
  @Option(parsing: .unconditional, help: "Bytes; -1: unlimited.") var memory: Int64?
  @Option(name: .customLong("memory-reservation"), parsing: .unconditional, help: "Bytes.") var memoryReservation: Int64?
  @Option(name: .customLong("memory-swap"), parsing: .unconditional, help: "Bytes of memory and swap together; -1: unlimited.") var memorySwap: Int64?
  @Option(name: .customLong("pids-limit"), parsing: .unconditional, help: "-1: unlimited.") var pidsLimit: Int64?
  @Argument var id: String

  func run() throws {
    var wanted = Resources.empty
    if let resources {
      do {
        let bytes = resources == "-" ? try Files.read(descriptor: 0, name: "stdin") : try Files.read(resources)
        wanted = try Document.read(Resources.self, bytes)
      } catch { throw BundleError("--resources \(resources): \(error)") }
    } else {
      wanted = given
    }
    try parent.bundles().update(id, wanted)
  }

  private var given: Resources {
    var memory = Resources.Memory()
    (memory.limit, memory.reservation, memory.swap) = (self.memory, memoryReservation, memorySwap)
    var cpu = Resources.CPU()
    (cpu.shares, cpu.quota, cpu.period, cpu.cpus, cpu.mems) = (cpuShare, cpuQuota, cpuPeriod, cpusetCpus, cpusetMems)
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
