/// What `features` prints (runtime-spec, features.md and features-linux.md): only what is done.
public struct Features: Codable, Hashable, Sendable {
  public var ociVersionMin = "1.0.0"
  public var ociVersionMax = OCI.version
  public var hooks = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
  public var mountOptions = MountOptions.names
  public var linux: OnLinux
  public var annotations: [String: String] = [:]
  /// Annotations that are obeyed and write to the host's files, loosen the container or change a unit of systemd's; with a dot at the end all that
  /// begin so. crun's first, runc's second.
  public var potentiallyUnsafeConfigAnnotations = ["run.oci.", "org.systemd.property."]

  public struct OnLinux: Codable, Hashable, Sendable {
    public var namespaces = Linux.Namespace.Kind.allCases.map(\.rawValue).sorted()
    /// Names that the kernel and libcap know.
    public var capabilities: [String]
    public var cgroup = Groups()
    public var seccomp = Filters()
    public var apparmor = Switch(enabled: true)
    public var selinux = Switch(enabled: true)
    public var intelRdt = Switch(enabled: false)
    public var mountExtensions = Extensions()
  }
  public struct Groups: Codable, Hashable, Sendable {
    public var v1 = true
    public var v2 = true
    public var systemd = false
    public var systemdUser = false
    public var rdma = true
  }
  public struct Filters: Codable, Hashable, Sendable {
    public var enabled = true
    public var actions = SeccompNames.actions.keys.sorted()
    public var operators = SeccompNames.operators.keys.sorted()
    public var archs = SeccompNames.architectures.keys.sorted()
    public var knownFlags = SeccompNames.knownFlags
    public var supportedFlags = SeccompNames.flags.keys.sorted()
  }
  public struct Extensions: Codable, Hashable, Sendable { public var idmap = Switch(enabled: true) }
  public struct Switch: Codable, Hashable, Sendable { public var enabled: Bool }

  /// `systemd`: whether it can be asked for cgroups here.
  public init(capabilities: [String], systemd: Bool) {
    linux = OnLinux(capabilities: capabilities)
    linux.cgroup.systemd = systemd
  }
}

/// The specification's names and libseccomp's numbers (seccomp.h; linux/audit.h for architectures).
public enum SeccompNames {
  /// The low 16 bits are the errno of ERRNO and the number of TRACE.
  public static let actions: [String: UInt32] = [
    "SCMP_ACT_KILL": 0, "SCMP_ACT_KILL_THREAD": 0, "SCMP_ACT_KILL_PROCESS": 0x8000_0000, "SCMP_ACT_TRAP": 0x0003_0000,
    "SCMP_ACT_ERRNO": 0x0005_0000, "SCMP_ACT_TRACE": 0x7ff0_0000, "SCMP_ACT_LOG": 0x7ffc_0000, "SCMP_ACT_ALLOW": 0x7fff_0000,
    "SCMP_ACT_NOTIFY": 0x7fc0_0000,
  ]
  public static let operators: [String: UInt32] = [
    "SCMP_CMP_NE": 1, "SCMP_CMP_LT": 2, "SCMP_CMP_LE": 3, "SCMP_CMP_EQ": 4, "SCMP_CMP_GE": 5, "SCMP_CMP_GT": 6, "SCMP_CMP_MASKED_EQ": 7,
  ]
  public static let architectures: [String: UInt32] = [
    "SCMP_ARCH_X86": 0x4000_0003, "SCMP_ARCH_X86_64": 0xc000_003e, "SCMP_ARCH_X32": 0x4000_003e, "SCMP_ARCH_ARM": 0x4000_0028,
    "SCMP_ARCH_AARCH64": 0xc000_00b7, "SCMP_ARCH_MIPS": 8, "SCMP_ARCH_MIPS64": 0x8000_0008, "SCMP_ARCH_MIPS64N32": 0xa000_0008,
    "SCMP_ARCH_MIPSEL": 0x4000_0008, "SCMP_ARCH_MIPSEL64": 0xc000_0008, "SCMP_ARCH_MIPSEL64N32": 0xe000_0008, "SCMP_ARCH_PPC": 20,
    "SCMP_ARCH_PPC64": 0x8000_0015, "SCMP_ARCH_PPC64LE": 0xc000_0015, "SCMP_ARCH_S390": 22, "SCMP_ARCH_S390X": 0x8000_0016,
    "SCMP_ARCH_RISCV64": 0xc000_00f3,
  ]
  /// SECCOMP_FILTER_FLAG_*.
  public static let flags: [String: UInt32] = [
    "SECCOMP_FILTER_FLAG_TSYNC": 1, "SECCOMP_FILTER_FLAG_LOG": 2, "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
  ]
  public static let knownFlags = [
    "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
  ]
}
