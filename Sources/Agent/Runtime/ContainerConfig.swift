import Model

/// What a container is to be: the subset of the OCI runtime specification's `config.json` that orch uses, by value.
public struct ContainerConfig: Hashable, Sendable {
  /// 1-128 of [A-Za-z0-9_.-], not beginning with a dot: it names folders and cgroups.
  public var id: String
  /// Unpacked layer folders, base first, as `rootfs.diff_ids` orders them. Never written to. At least one, or `rootDirectory` alone.
  public var layers: [String]
  /// nil: an overlay with its own upper folder in the runtime's data directory. Else, with no layers: this folder itself is the root
  /// (an OCI bundle's `root.path`) and is written to unless `readOnlyRoot`.
  public var rootDirectory: String?
  public var args: [String]
  /// "NAME=value". PATH, HOME, HOSTNAME (and TERM with a terminal) are added when absent, as Docker does.
  public var env: [String]
  public var cwd: String
  /// "", "name", "uid", each with ":group" or ":gid"; resolved by the image's own /etc/passwd and /etc/group.
  public var user: String
  /// Additional groups, by name or number.
  public var groups: [String]
  /// nil or empty: the first 12 characters of the id.
  public var hostname: String?
  /// Of uname(2); nil: the kernel's "(none)".
  public var domainname: String?
  public var tty: Bool
  /// stdin stays open, and `attach` leads to it; otherwise it is empty.
  public var openStdin: Bool
  /// Seconds that output waits for the first who attaches, so that they miss nothing; 0: it goes to the log at once.
  public var attachSeconds: UInt64
  public var mounts: [MountConfig]
  /// Secrets and configs: kept in a tmpfs of the container's own, in no file of the host.
  public var files: [FileConfig]
  public var network: NetworkMode
  public var resources: Resources
  /// "CAP_NET_ADMIN", "net_admin" or "ALL"; on top of Docker's default set.
  public var capabilityAdd: [String]
  public var capabilityDrop: [String]
  public var readOnlyRoot: Bool
  public var noNewPrivileges: Bool
  public var seccomp: SeccompMode
  /// "SIGTERM", "TERM" or "15".
  public var stopSignal: String
  public var ulimits: [ContainerSpec.Ulimit]
  /// Namespaced ones only (net.*, kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.*).
  public var sysctls: [String: String]
  public var oomScoreAdj: Int?
  /// A tiny init as pid 1 that forwards signals and reaps.
  public var useInit: Bool
  /// Bytes of /dev/shm.
  public var shmSize: Int64
  /// Kept for `recover`; never control metadata.
  public var labels: [String: String]
  public var log: LogConfig

  /// Docker's.
  static let defaultShmSize: Int64 = 64 << 20

  public init(id: String, layers: [String], args: [String]) {
    self.id = id
    self.layers = layers
    self.args = args
    rootDirectory = nil
    env = []
    cwd = "/"
    user = ""
    groups = []
    hostname = nil
    domainname = nil
    tty = false
    openStdin = false
    attachSeconds = 0
    mounts = []
    files = []
    network = .new
    resources = Resources()
    capabilityAdd = []
    capabilityDrop = []
    readOnlyRoot = false
    noNewPrivileges = true
    seccomp = .standard
    stopSignal = "SIGTERM"
    ulimits = []
    sysctls = [:]
    oomScoreAdj = nil
    useInit = false
    shmSize = Self.defaultShmSize
    labels = [:]
    log = LogConfig()
  }

  public enum NetworkMode: Hashable, Sendable {
    /// A new namespace in which nothing is but a loopback that is up.
    case new
    /// A namespace made by others (AgentNetwork), by its path.
    case path(String)
    case host
  }
  public enum SeccompMode: Hashable, Sendable { case standard, unconfined }

  /// As AgentNetwork hands it over: nil is `.new`.
  public var networkNamespacePath: String? {
    get { if case .path(let path) = network { path } else { nil } }
    set { network = newValue.map { .path($0) } ?? .new }
  }

  public struct Resources: Hashable, Sendable {
    /// Bytes. What goes beyond ends the whole container (v2; v1: a process).
    public var memory: Int64?
    /// Bytes of swap on top of `memory`, -1: as much as there is; nil: none.
    public var swap: Int64?
    /// Bytes that stay with it longest when the host has little memory.
    public var memoryReservation: Int64?
    /// 10^9 is one CPU.
    public var nanoCPUs: Int64?
    /// Relative weight, 1024 is usual (v1's cpu.shares; converted for v2).
    public var cpuShares: Int64?
    /// CPUs that it may run on, as in "0-2,4"; nil: all.
    public var cpuset: String?
    /// nil: `RuntimeConfiguration.defaultPids`.
    public var pids: Int64?
    public init(memory: Int64? = nil, nanoCPUs: Int64? = nil, pids: Int64? = nil) {
      self.memory = memory
      self.nanoCPUs = nanoCPUs
      self.pids = pids
    }
  }

  public struct LogConfig: Hashable, Sendable {
    /// Bytes after which a file is rotated; 0: never.
    public var maxSize: Int64
    /// Files kept, the current one included; at least 1.
    public var maxFiles: Int
    public init(maxSize: Int64 = 10 << 20, maxFiles: Int = 3) {
      self.maxSize = maxSize
      self.maxFiles = maxFiles
    }
  }
}

/// One mount of a container.
public struct MountConfig: Hashable, Sendable {
  public enum Kind: Hashable, Sendable {
    /// A host folder or file; a missing target is made. Volumes, secrets, resolv.conf, hosts and hostname are binds.
    /// With a `subpath` what is bound lies there below the source, and no link on the way leads out of it; "": the source itself.
    case bind(source: String, subpath: String = "", recursive: Bool)
    /// `size` in bytes, nil: half of memory; `mode` as chmod's. Without set-id programs and devices, and nothing on it is executed unless it says so.
    case tmpfs(size: Int64?, mode: UInt32, isExecutable: Bool = false)
  }
  public var kind: Kind
  /// Absolute path in the container; symbolic links in it are resolved inside the container's root.
  public var target: String
  public var readOnly: Bool
  public init(_ kind: Kind, target: String, readOnly: Bool = false) {
    self.kind = kind
    self.target = target
    self.readOnly = readOnly
  }
  /// Whatever of it becomes part of a plan.
  var texts: [String] { if case .bind(let source, let subpath, _) = kind { [target, source, subpath] } else { [target] } }

  public static func bind(_ source: String, _ target: String, readOnly: Bool = false) -> Self {
    Self(.bind(source: source, recursive: true), target: target, readOnly: readOnly)
  }
  public static func tmpfs(_ target: String, size: Int64? = nil, mode: UInt32 = 0o1777, isExecutable: Bool = false) -> Self {
    Self(.tmpfs(size: size, mode: mode, isExecutable: isExecutable), target: target)
  }
}

/// A read-only file whose content exists in memory alone.
public struct FileConfig: Hashable, Sendable {
  /// Absolute path in the container.
  public var target: String
  public var content: [UInt8]
  public var uid: UInt32
  public var gid: UInt32
  /// As chmod's.
  public var mode: UInt32
  public init(target: String, content: [UInt8], uid: UInt32 = 0, gid: UInt32 = 0, mode: UInt32 = 0o444) {
    self.target = target
    self.content = content
    self.uid = uid
    self.gid = gid
    self.mode = mode
  }
}

public struct ExecConfig: Hashable, Sendable {
  public var args: [String]
  /// Added to the container's own environment.
  public var env: [String]
  /// nil: the container's.
  public var cwd: String?
  /// nil: the container's.
  public var user: String?
  public var tty: Bool
  /// A pipe for stdin; without it, /dev/null. With a terminal always true.
  public var stdin: Bool
  /// Its stdio is /dev/null, but for a terminal.
  public var isDetached = false
  /// Rows and columns of the terminal at the beginning.
  public var size: (rows: UInt16, columns: UInt16)? {
    get { rows == 0 ? nil : (rows, columns) }
    set { (rows, columns) = newValue.map { ($0.rows, $0.columns) } ?? (0, 0) }
  }
  private var rows: UInt16 = 0
  private var columns: UInt16 = 0
  public init(args: [String], env: [String] = [], cwd: String? = nil, user: String? = nil, tty: Bool = false, stdin: Bool = false) {
    self.args = args
    self.env = env
    self.cwd = cwd
    self.user = user
    self.tty = tty
    self.stdin = stdin
  }
}
