import Cgroups
import LinuxSystem

/// One line of `events`, in the shape of runc's (types/events.go).
public struct BundleEvent: Encodable, Sendable {
  public var type: String
  public var id: String
  public var data: Usage?

  public struct Usage: Encodable, Sendable {
    public struct Stall: Encodable, Sendable {
      /// Percent.
      public var avg10: Double
      public var avg60: Double
      public var avg300: Double
      /// Microseconds.
      public var total: Int64
    }
    public struct Pressure: Encodable, Sendable {
      public var some: Stall
      public var full: Stall
    }
    public struct CPU: Encodable, Sendable {
      /// Nanoseconds.
      public struct Total: Encodable, Sendable {
        public var total: Int64
        public var kernel: Int64
        public var user: Int64
      }
      public struct Throttling: Encodable, Sendable {
        public var periods: Int64
        public var throttledPeriods: Int64
        /// Nanoseconds.
        public var throttledTime: Int64
      }
      public var usage: Total
      public var throttling: Throttling
      public var psi: Pressure?
    }
    /// Bytes.
    public struct Memory: Encodable, Sendable {
      public struct Amount: Encodable, Sendable {
        public var usage: Int64
        public var limit: Int64?
        public var max: Int64?
      }
      public var cache: Int64
      public var usage: Amount
      /// memory.stat, and `oom_kill`.
      public var raw: [String: Int64]
      public var psi: Pressure?
    }
    public struct Pids: Encodable, Sendable {
      public var current: Int64
      public var limit: Int64?
    }
    public struct BlockIO: Encodable, Sendable {
      public struct Entry: Encodable, Sendable {
        public var major: UInt32
        public var minor: UInt32
        public var op: String
        public var value: Int64
      }
      public var ioServiceBytesRecursive: [Entry]
      public var ioServicedRecursive: [Entry]
      public var psi: Pressure?
    }
    /// runc's has no names of its own in JSON: those of Go.
    public struct Interface: Encodable, Sendable {
      public var Name: String
      public var RxBytes, RxPackets, RxErrors, RxDropped: UInt64
      public var TxBytes, TxPackets, TxErrors, TxDropped: UInt64
    }
    public var cpu: CPU
    public var memory: Memory
    public var pids: Pids
    public var blkio: BlockIO
    /// Of the container's own network namespace, without loopback; empty in the host's.
    public var network_interfaces: [Interface]
  }
}

extension BundleEvent.Usage {
  init(_ usage: CgroupUsage, _ interfaces: [InterfaceCounters]) {
    cpu = CPU(
      usage: .init(total: usage.cpu.nanoseconds, kernel: usage.cpuKernel.nanoseconds, user: usage.cpuUser.nanoseconds),
      throttling: .init(
        periods: usage.throttling.periods, throttledPeriods: usage.throttling.throttledPeriods, throttledTime: usage.throttling.time.nanoseconds),
      psi: usage.cpuPressure.map(Pressure.init))
    memory = Memory(
      cache: usage.memoryStat["file"] ?? usage.memoryStat["total_cache"] ?? 0,
      usage: .init(usage: usage.memory, limit: usage.memoryLimit, max: usage.memoryPeak),
      raw: usage.memoryStat.merging(["oom_kill": usage.oomKills]) { $1 }, psi: usage.memoryPressure.map(Pressure.init))
    pids = Pids(current: usage.pids, limit: usage.pidsLimit)
    func entries(_ read: (CgroupUsage.IO) -> Int64, _ write: (CgroupUsage.IO) -> Int64) -> [BlockIO.Entry] {
      usage.io.flatMap { io in
        [("Read", read(io)), ("Write", write(io))].map { .init(major: io.major, minor: io.minor, op: $0.0, value: $0.1) }
      }
    }
    blkio = BlockIO(
      ioServiceBytesRecursive: entries(\.readBytes, \.writeBytes), ioServicedRecursive: entries(\.reads, \.writes),
      psi: usage.ioPressure.map(Pressure.init))
    network_interfaces = interfaces.map {
      Interface(
        Name: $0.name, RxBytes: $0.received.bytes, RxPackets: $0.received.packets, RxErrors: $0.received.errors, RxDropped: $0.received.dropped,
        TxBytes: $0.sent.bytes, TxPackets: $0.sent.packets, TxErrors: $0.sent.errors, TxDropped: $0.sent.dropped)
    }
  }
}

extension BundleEvent.Usage.Pressure {
  init(_ pressure: CgroupUsage.Pressure) {
    func stall(_ stall: CgroupUsage.Pressure.Stall) -> BundleEvent.Usage.Stall {
      .init(avg10: stall.average10, avg60: stall.average60, avg300: stall.average300, total: stall.total.nanoseconds / 1000)
    }
    (some, full) = (stall(pressure.some), stall(pressure.full))
  }
}
