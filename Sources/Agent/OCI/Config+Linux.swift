/// config.json's `linux` (runtime-spec, config-linux.md).
public struct Linux: Codable, Hashable, Sendable {
  public var namespaces: [Namespace]?
  public var uidMappings: [Config.IDMapping]?
  public var gidMappings: [Config.IDMapping]?
  public var timeOffsets: [String: TimeOffset]?
  public var devices: [Device]?
  public var cgroupsPath: String?
  public var resources: Resources?
  public var rootfsPropagation: String?
  public var seccomp: Seccomp?
  public var sysctl: [String: String]?
  public var maskedPaths: [String]?
  public var readonlyPaths: [String]?
  public var mountLabel: String?
  public var personality: Personality?
  public var intelRdt: Anything?
  /// Of version 1.3; refused so that nobody misses it.
  public var netDevices: Anything?
  public var memoryPolicy: MemoryPolicy?

  public struct Namespace: Codable, Hashable, Sendable {
    public enum Kind: String, Codable, Hashable, Sendable, CaseIterable { case pid, network, mount, ipc, uts, user, cgroup, time }
    public var type: Kind
    /// nil: a new one.
    public var path: String?
    public init(_ type: Kind, path: String? = nil) { (self.type, self.path) = (type, path) }
  }
  public struct TimeOffset: Codable, Hashable, Sendable {
    public var secs: Int64?
    public var nanosecs: UInt32?
  }
  public struct Device: Codable, Hashable, Sendable {
    /// c, b, u (as c) or p.
    public var type: String
    public var path: String
    public var major: Int64?
    public var minor: Int64?
    public var fileMode: UInt32?
    public var uid: UInt32?
    public var gid: UInt32?
  }
  /// Of version 1.3: set_mempolicy(2).
  public struct MemoryPolicy: Codable, Hashable, Sendable {
    /// MPOL_BIND and so on.
    public var mode: String
    /// As in "0-2,5".
    public var nodes: String?
    public var flags: [String]?
  }
  public struct Personality: Codable, Hashable, Sendable {
    /// LINUX or LINUX32.
    public var domain: String
    public var flags: [String]?
  }

  public struct Seccomp: Codable, Hashable, Sendable {
    public var defaultAction: String
    public var defaultErrnoRet: UInt32?
    public var architectures: [String]?
    public var flags: [String]?
    public var listenerPath: String?
    public var listenerMetadata: String?
    public var syscalls: [Rule]?
    public struct Rule: Codable, Hashable, Sendable {
      public var names: [String]
      public var action: String
      public var errnoRet: UInt32?
      public var args: [Argument]?
    }
    public struct Argument: Codable, Hashable, Sendable {
      public var index: UInt32
      public var value: UInt64
      public var valueTwo: UInt64?
      public var op: String
    }
  }
}

/// `linux.resources`, and what `update` reads.
public struct Resources: Codable, Hashable, Sendable {
  public var devices: [DeviceRule]?
  public var memory: Memory?
  public var cpu: CPU?
  public var pids: Pids?
  public var blockIO: BlockIO?
  public var hugepageLimits: [HugepageLimit]?
  public var network: Network?
  /// Device to its limits.
  public var rdma: [String: RDMA]?
  /// cgroup v2 alone: file to value.
  public var unified: [String: String]?
  public init() {}

  public struct DeviceRule: Codable, Hashable, Sendable {
    public var allow: Bool
    /// a (all), b or c; nil is a.
    public var type: String?
    /// nil: every number.
    public var major: Int64?
    public var minor: Int64?
    /// Of r, w and m; nil: all.
    public var access: String?
    public init(allow: Bool, type: String? = nil, major: Int64? = nil, minor: Int64? = nil, access: String? = nil) {
      (self.allow, self.type, self.major, self.minor, self.access) = (allow, type, major, minor, access)
    }
  }
  /// Bytes; -1 is unlimited.
  public struct Memory: Codable, Hashable, Sendable {
    public var limit: Int64?
    public var reservation: Int64?
    /// Memory and swap together.
    public var swap: Int64?
    public var kernel: Int64?
    public var kernelTCP: Int64?
    public var swappiness: UInt64?
    public var disableOOMKiller: Bool?
    public var useHierarchy: Bool?
    /// Refuse a limit that is below what is used now.
    public var checkBeforeUpdate: Bool?
    public init() {}
  }
  public struct CPU: Codable, Hashable, Sendable {
    public var shares: UInt64?
    /// Microseconds a period; -1 is unlimited.
    public var quota: Int64?
    public var burst: UInt64?
    public var period: UInt64?
    public var realtimeRuntime: Int64?
    public var realtimePeriod: UInt64?
    public var cpus: String?
    public var mems: String?
    public var idle: Int64?
    public init() {}
  }
  public struct Pids: Codable, Hashable, Sendable {
    /// Zero and less: unlimited.
    public var limit: Int64?
    public init() {}
  }
  public struct BlockIO: Codable, Hashable, Sendable {
    public var weight: UInt16?
    public var leafWeight: UInt16?
    public var weightDevice: [Weight]?
    public var throttleReadBpsDevice: [Throttle]?
    public var throttleWriteBpsDevice: [Throttle]?
    public var throttleReadIOPSDevice: [Throttle]?
    public var throttleWriteIOPSDevice: [Throttle]?
    public init() {}
  }
  public struct Weight: Codable, Hashable, Sendable {
    public var major: Int64
    public var minor: Int64
    public var weight: UInt16?
    /// v1 alone.
    public var leafWeight: UInt16?
  }
  public struct RDMA: Codable, Hashable, Sendable {
    public var hcaHandles: UInt32?
    public var hcaObjects: UInt32?
  }
  /// v1 alone.
  public struct Network: Codable, Hashable, Sendable {
    public var classID: UInt32?
    public var priorities: [Priority]?
    public struct Priority: Codable, Hashable, Sendable {
      public var name: String
      public var priority: UInt32
    }
  }
  public struct Throttle: Codable, Hashable, Sendable {
    public var major: Int64
    public var minor: Int64
    public var rate: UInt64
  }
  public struct HugepageLimit: Codable, Hashable, Sendable {
    /// "2MB".
    public var pageSize: String
    public var limit: UInt64
  }
}

extension Linux { public static let empty = Linux() }
extension Config.Hooks { public static let empty = Config.Hooks() }

extension Resources { public static let empty = Resources() }
