// The declared state of a service, in the very shape of Docker's API (ServiceSpec of Engine API 1.45), so that what a
// client wrote comes back as written. A field that Docker may leave out is optional here; convenience is at the end.

public struct ServiceSpec: Codable, Hashable, Sendable {
  public var name: String
  public var labels: [String: String]?
  public var taskTemplate: TaskSpec
  public var mode: ServiceMode?
  public var updateConfig: UpdateConfig?
  public var rollbackConfig: UpdateConfig?
  public var endpointSpec: EndpointSpec?
  /// orch's own; never in an answer, never taken from a body.
  public var registryLogin: SealedLogin?

  public init(
    name: String, labels: [String: String]? = nil, taskTemplate: TaskSpec, mode: ServiceMode? = nil, updateConfig: UpdateConfig? = nil,
    rollbackConfig: UpdateConfig? = nil, endpointSpec: EndpointSpec? = nil
  ) {
    self.name = name
    self.labels = labels
    self.taskTemplate = taskTemplate
    self.mode = mode
    self.updateConfig = updateConfig
    self.rollbackConfig = rollbackConfig
    self.endpointSpec = endpointSpec
  }

  enum CodingKeys: String, CodingKey {
    case name = "Name", labels = "Labels", taskTemplate = "TaskTemplate", mode = "Mode", updateConfig = "UpdateConfig"
    case rollbackConfig = "RollbackConfig", endpointSpec = "EndpointSpec", registryLogin = "OrchRegistryLogin"
  }
}

extension ServiceSpec {
  /// A service's label (`orch run -d --rm`): with "1", and no restarts, the managers remove the service when all its tasks have ended.
  public static let removedWhenOver = "orch.run.rm"
}

public struct ServiceMode: Codable, Hashable, Sendable {
  public var replicated: Replicated?
  public var global: Global?
  public var replicatedJob: ReplicatedJob?
  public var globalJob: Global?

  public static func replicated(_ replicas: UInt64) -> Self {
    var mode = Self()
    mode.replicated = Replicated(replicas: replicas)
    return mode
  }
  public static var globalMode: Self {
    var mode = Self()
    mode.global = Global()
    return mode
  }
  public init() {}

  public struct Replicated: Codable, Hashable, Sendable {
    public var replicas: UInt64?
    public init(replicas: UInt64?) { self.replicas = replicas }
    enum CodingKeys: String, CodingKey { case replicas = "Replicas" }
  }
  public struct Global: Codable, Hashable, Sendable { public init() {} }
  public struct ReplicatedJob: Codable, Hashable, Sendable {
    public var maxConcurrent: UInt64?
    public var totalCompletions: UInt64?
    enum CodingKeys: String, CodingKey { case maxConcurrent = "MaxConcurrent", totalCompletions = "TotalCompletions" }
  }
  enum CodingKeys: String, CodingKey {
    case replicated = "Replicated", global = "Global", replicatedJob = "ReplicatedJob", globalJob = "GlobalJob"
  }
}

public struct TaskSpec: Codable, Hashable, Sendable {
  public var containerSpec: ContainerSpec
  public var resources: ResourceRequirements?
  public var restartPolicy: RestartPolicy?
  public var placement: Placement?
  public var networks: [NetworkAttachmentConfig]?
  public var logDriver: Driver?
  /// A counter that only makes the template different: `docker service update --force`.
  public var forceUpdate: UInt64?
  public var runtime: String?

  public init(containerSpec: ContainerSpec) { self.containerSpec = containerSpec }

  enum CodingKeys: String, CodingKey {
    case containerSpec = "ContainerSpec", resources = "Resources", restartPolicy = "RestartPolicy", placement = "Placement"
    case networks = "Networks", logDriver = "LogDriver", forceUpdate = "ForceUpdate", runtime = "Runtime"
  }
}

public struct ContainerSpec: Codable, Hashable, Sendable {
  public var image: String
  public var labels: [String: String]?
  /// Replaces the image's ENTRYPOINT (Compose `entrypoint`).
  public var command: [String]?
  /// Replaces the image's CMD (Compose `command`).
  public var args: [String]?
  public var hostname: String?
  /// What follows the hostname in /etc/hosts, and the domain of uname(2). Docker's services have none, its containers have.
  public var domainname: String?
  public var env: [String]?
  public var dir: String?
  public var user: String?
  public var groups: [String]?
  public var privileges: Privileges?
  public var initProcess: Bool?
  public var stopSignal: String?
  public var tty: Bool?
  public var openStdin: Bool?
  public var readOnly: Bool?
  public var mounts: [Mount]?
  public var stopGracePeriod: Nanoseconds?
  public var healthCheck: HealthConfig?
  /// "ADDRESS NAME" lines for /etc/hosts.
  public var hosts: [String]?
  public var dnsConfig: DNSConfig?
  public var isolation: String?
  public var sysctls: [String: String]?
  public var capabilityAdd: [String]?
  public var capabilityDrop: [String]?
  public var ulimits: [Ulimit]?
  public var oomScoreAdj: Int64?
  public var secrets: [Secret]?
  public var configs: [Config]?

  public init(image: String) { self.image = image }

  enum CodingKeys: String, CodingKey {
    case image = "Image", labels = "Labels", command = "Command", args = "Args", hostname = "Hostname", domainname = "Domainname", env = "Env", dir =
      "Dir"
    case user = "User", groups = "Groups", privileges = "Privileges", initProcess = "Init", stopSignal = "StopSignal", tty = "TTY"
    case openStdin = "OpenStdin", readOnly = "ReadOnly", mounts = "Mounts", stopGracePeriod = "StopGracePeriod"
    case healthCheck = "Healthcheck", hosts = "Hosts", dnsConfig = "DNSConfig", isolation = "Isolation", sysctls = "Sysctls"
    case capabilityAdd = "CapabilityAdd", capabilityDrop = "CapabilityDrop", ulimits = "Ulimits", oomScoreAdj = "OomScoreAdj"
    case secrets = "Secrets", configs = "Configs"
  }

  public struct Privileges: Codable, Hashable, Sendable {
    public var noNewPrivileges: Bool?
    public init(noNewPrivileges: Bool? = nil) { self.noNewPrivileges = noNewPrivileges }
    enum CodingKeys: String, CodingKey { case noNewPrivileges = "NoNewPrivileges" }
  }
  public struct DNSConfig: Codable, Hashable, Sendable {
    public var nameservers: [String]?
    public var search: [String]?
    public var options: [String]?
    public init(nameservers: [String]? = nil, search: [String]? = nil, options: [String]? = nil) {
      self.nameservers = nameservers
      self.search = search
      self.options = options
    }
    enum CodingKeys: String, CodingKey { case nameservers = "Nameservers", search = "Search", options = "Options" }
  }
  public struct Ulimit: Codable, Hashable, Sendable {
    public var name: String
    public var hard: Int64?
    public var soft: Int64?
    public init(name: String, hard: Int64?, soft: Int64?) {
      self.name = name
      self.hard = hard
      self.soft = soft
    }
    enum CodingKeys: String, CodingKey { case name = "Name", hard = "Hard", soft = "Soft" }
  }
}

public struct HealthConfig: Codable, Hashable, Sendable {
  /// ["NONE"], ["CMD", args…] or ["CMD-SHELL", line].
  public var test: [String]?
  public var interval: Nanoseconds?
  public var timeout: Nanoseconds?
  public var retries: Int?
  public var startPeriod: Nanoseconds?
  public var startInterval: Nanoseconds?
  public init() {}
  enum CodingKeys: String, CodingKey {
    case test = "Test", interval = "Interval", timeout = "Timeout", retries = "Retries", startPeriod = "StartPeriod"
    case startInterval = "StartInterval"
  }
}

public struct Mount: Codable, Hashable, Sendable {
  public enum Kind: String, Codable, Sendable { case bind, volume, tmpfs }
  public var type: Kind?
  public var source: String?
  public var target: String
  public var readOnly: Bool?
  public var bindOptions: BindOptions?
  public var volumeOptions: VolumeOptions?
  public var tmpfsOptions: TmpfsOptions?

  public init(type: Kind, source: String?, target: String, readOnly: Bool = false) {
    self.type = type
    self.source = source
    self.target = target
    self.readOnly = readOnly
  }
  /// The first whose target an earlier one has, too: by their names, "/a//b/" is "/a/b".
  public static func firstAgain(_ mounts: [Mount]) -> Mount? {
    var targets: Set<[Substring]> = []
    return mounts.first { !targets.insert($0.target.split(separator: "/").filter { $0 != "." }).inserted }
  }
  public struct BindOptions: Codable, Hashable, Sendable {
    public var propagation: String?
    public var nonRecursive: Bool?
    public var createMountpoint: Bool?
    public init() {}
    /// What is neither private nor left out.
    public var foreignPropagation: String? { propagation.flatMap { ["", "private", "rprivate"].contains($0) ? nil : $0 } }
    public static let propagationAdvice =
      "binds are private, so that mounts made later on the host do not appear in the container, nor the container's on the host"
    enum CodingKeys: String, CodingKey { case propagation = "Propagation", nonRecursive = "NonRecursive", createMountpoint = "CreateMountpoint" }
  }
  public struct VolumeOptions: Codable, Hashable, Sendable {
    public var noCopy: Bool?
    public var labels: [String: String]?
    public var driverConfig: Driver?
    public var subpath: String?
    public init() {}
    /// A driver that is not local, or a local one with options: an NFS export, say, which would become a folder of the host.
    public var isForeign: Bool { driverConfig.map { !["", "local"].contains($0.name ?? "") || $0.options?.isEmpty == false } ?? false }
    enum CodingKeys: String, CodingKey { case noCopy = "NoCopy", labels = "Labels", driverConfig = "DriverConfig", subpath = "Subpath" }
  }
  public struct TmpfsOptions: Codable, Hashable, Sendable {
    public var sizeBytes: Int64?
    public var mode: UInt32?
    /// One word an entry, as Docker's API has it since 1.46: ["exec"] or ["noexec"], which is the default; the last one counts.
    public var options: [[String]]?
    public init() {}
    enum CodingKeys: String, CodingKey { case sizeBytes = "SizeBytes", mode = "Mode", options = "Options" }

    /// Programs on it can be executed.
    public var isExecutable: Bool { options?.last { $0 == ["exec"] || $0 == ["noexec"] } == ["exec"] }
    /// The first option that is neither.
    public var unknownOption: [String]? { options?.first { $0 != ["exec"] && $0 != ["noexec"] } }
  }
  enum CodingKeys: String, CodingKey {
    case type = "Type", source = "Source", target = "Target", readOnly = "ReadOnly", bindOptions = "BindOptions"
    case volumeOptions = "VolumeOptions", tmpfsOptions = "TmpfsOptions"
  }
}

public struct Driver: Codable, Hashable, Sendable {
  public var name: String?
  public var options: [String: String]?
  public init(name: String? = nil, options: [String: String]? = nil) {
    self.name = name
    self.options = options
  }
  public var isEmpty: Bool { (name ?? "").isEmpty && (options ?? [:]).isEmpty }
  enum CodingKeys: String, CodingKey { case name = "Name", options = "Options" }
}

public struct ResourceRequirements: Codable, Hashable, Sendable {
  public var limits: Limit?
  public var reservations: Reservation?
  /// Bytes of swap on top of the limit of memory, -1: without limit; nil: none. Named as in later APIs of Docker's.
  public var swapBytes: Int64?
  public init(limits: Limit? = nil, reservations: Reservation? = nil) {
    self.limits = limits
    self.reservations = reservations
  }
  public struct Limit: Codable, Hashable, Sendable {
    /// 10^9 is one CPU.
    public var nanoCPUs: Int64?
    public var memoryBytes: Int64?
    public var pids: Int64?
    /// Relative weight, 1024 is usual; orch's own, as `cpuset`: Docker's clients leave both out when they write a spec back.
    public var cpuShares: Int64?
    /// As in "0-2,4".
    public var cpuset: String?
    public init() {}
    enum CodingKeys: String, CodingKey {
      case nanoCPUs = "NanoCPUs", memoryBytes = "MemoryBytes", pids = "Pids", cpuShares = "OrchCPUShares", cpuset = "OrchCpuset"
    }
  }
  public struct Reservation: Codable, Hashable, Sendable {
    public var nanoCPUs: Int64?
    public var memoryBytes: Int64?
    public init() {}
    enum CodingKeys: String, CodingKey { case nanoCPUs = "NanoCPUs", memoryBytes = "MemoryBytes" }
  }
  enum CodingKeys: String, CodingKey { case limits = "Limits", reservations = "Reservations", swapBytes = "SwapBytes" }

  /// "0-2,4": numbers and ranges of CPUs, as cpuset(7)'s List Format has them.
  public static func isCPUList(_ text: String) -> Bool {
    text.split(separator: ",", omittingEmptySubsequences: false).allSatisfy { part in
      let ends = part.split(separator: "-", omittingEmptySubsequences: false).map { end in
        end.utf8.allSatisfy { (48...57).contains($0) } ? Int(end) : nil
      }
      guard ends.count <= 2, let first = ends.first ?? nil, let last = ends.last ?? nil else { return false }
      return first <= last && last < 8192
    }
  }
}

public struct RestartPolicy: Codable, Hashable, Sendable {
  public enum Condition: String, Codable, Sendable { case none, onFailure = "on-failure", any }
  public var condition: Condition?
  public var delay: Nanoseconds?
  /// nil or 0: no limit.
  public var maxAttempts: UInt64?
  /// nil or 0: attempts are counted for ever.
  public var window: Nanoseconds?
  public init() {}
  enum CodingKeys: String, CodingKey { case condition = "Condition", delay = "Delay", maxAttempts = "MaxAttempts", window = "Window" }
}

public struct Placement: Codable, Hashable, Sendable {
  public var constraints: [String]?
  public var preferences: [Preference]?
  /// nil or 0: no limit.
  public var maxReplicas: UInt64?
  public var platforms: [Platform]?
  public init() {}
  public struct Preference: Codable, Hashable, Sendable {
    public var spread: Spread?
    public struct Spread: Codable, Hashable, Sendable {
      public var spreadDescriptor: String
      public init(spreadDescriptor: String) { self.spreadDescriptor = spreadDescriptor }
      enum CodingKeys: String, CodingKey { case spreadDescriptor = "SpreadDescriptor" }
    }
    public init(spreadOver descriptor: String) { spread = Spread(spreadDescriptor: descriptor) }
    enum CodingKeys: String, CodingKey { case spread = "Spread" }
  }
  enum CodingKeys: String, CodingKey {
    case constraints = "Constraints", preferences = "Preferences", maxReplicas = "MaxReplicas", platforms = "Platforms"
  }
}

public struct Platform: Codable, Hashable, Sendable {
  public var architecture: String?
  public var os: String?
  public init(architecture: String?, os: String?) {
    self.architecture = architecture
    self.os = os
  }
  enum CodingKeys: String, CodingKey { case architecture = "Architecture", os = "OS" }
}

public struct NetworkAttachmentConfig: Codable, Hashable, Sendable {
  /// Id or name as the client gave it; the API turns it into the id's text before it is stored.
  public var target: String
  public var aliases: [String]?
  public init(target: String, aliases: [String]? = nil) {
    self.target = target
    self.aliases = aliases
  }
  enum CodingKeys: String, CodingKey { case target = "Target", aliases = "Aliases" }
}

public struct UpdateConfig: Codable, Hashable, Sendable {
  public enum FailureAction: String, Codable, Sendable { case pause, `continue`, rollback }
  public enum Order: String, Codable, Sendable { case stopFirst = "stop-first", startFirst = "start-first" }
  /// 0: all at once. nil: 1.
  public var parallelism: UInt64?
  public var delay: Nanoseconds?
  public var failureAction: FailureAction?
  /// How long a new task is watched for failure. nil: 5 s.
  public var monitor: Nanoseconds?
  public var maxFailureRatio: Double?
  public var order: Order?
  public init() {}
  enum CodingKeys: String, CodingKey {
    case parallelism = "Parallelism", delay = "Delay", failureAction = "FailureAction", monitor = "Monitor"
    case maxFailureRatio = "MaxFailureRatio", order = "Order"
  }
}

public struct EndpointSpec: Codable, Hashable, Sendable {
  public enum Mode: String, Codable, Sendable { case vip, dnsrr }
  public var mode: Mode?
  public var ports: [PortConfig]?
  public init(mode: Mode? = nil, ports: [PortConfig]? = nil) {
    self.mode = mode
    self.ports = ports
  }
  enum CodingKeys: String, CodingKey { case mode = "Mode", ports = "Ports" }
}

public struct PortConfig: Codable, Hashable, Sendable {
  public enum PortProtocol: String, Codable, Sendable { case tcp, udp, sctp }
  public enum PublishMode: String, Codable, Sendable { case ingress, host }
  public var name: String?
  public var `protocol`: PortProtocol?
  public var targetPort: UInt16
  /// nil or 0: the allocator chooses one of `publishedRange`, or of 30000-32767.
  public var publishedPort: UInt16?
  /// Compose's `published: "8000-8010"`: one that is free of these, through ingress. Ours, in [first, last].
  public var publishedRange: ClosedRange<UInt16>?
  public var publishMode: PublishMode?
  /// Answered at this address of a host alone, as Compose's `host_ip`; 0.0.0.0: at all of IPv4, `::`: of IPv6; nil: at all of its addresses. Ours:
  /// Docker's services have no such thing.
  public var hostIP: IPAddress?
  public init(targetPort: UInt16, publishedPort: UInt16?, protocol: PortProtocol = .tcp, publishMode: PublishMode = .ingress) {
    self.targetPort = targetPort
    self.publishedPort = publishedPort
    self.protocol = `protocol`
    self.publishMode = publishMode
  }
  enum CodingKeys: String, CodingKey {
    case name = "Name", `protocol` = "Protocol", targetPort = "TargetPort", publishedPort = "PublishedPort", publishMode = "PublishMode"
    case publishedRange = "OrchPublishedRange", hostIP = "HostIP"
  }
}

// MARK: - Defaults (SwarmKit api/defaults/service.go; restart's first delay is ours)

extension ServiceSpec {
  /// The stack the service was deployed with, from Docker's own label.
  public var stack: String? { labels?[StackLabel.namespace] }
  /// nil for global services.
  public var replicas: UInt64? { mode?.global == nil ? (mode?.replicated?.replicas ?? 1) : nil }
  public var isGlobal: Bool { mode?.global != nil }
  public var ports: [PortConfig] { endpointSpec?.ports ?? [] }
  public var networks: [NetworkAttachmentConfig] { taskTemplate.networks ?? [] }
  /// "host", "none" or "bridge", in Docker's form: one attachment to the network of that name. nil: its networks are the cluster's, or it names none.
  public var predefinedNetwork: String? { networks.first { Network.predefinedNames.contains($0.target) }?.target }
  /// Its tasks have a way out of their hosts and no network, unless they publish through ingress. As Swarm's that name none: their containers are made
  /// with the engine's default (moby daemon/cluster/executor/container/container.go, hostConfig).
  public var isBridged: Bool { networks.isEmpty || predefinedNetwork == Network.bridgeName }
  public var endpointMode: EndpointSpec.Mode { endpointSpec?.mode ?? .vip }
  /// Its ports in host mode as one task of it has them. One without a number has any of its host, as Swarm's: drawn with the task's id, so that all
  /// who know the task know it, and none is told twice; where something else has it, the next task has another.
  public func hostPorts(of task: TaskID) -> [PortConfig] {
    // Linux' own for sockets that name none (ip_local_port_range), from which moby takes its.
    let (first, count) = (UInt64(32_768), UInt64(28_232))
    let chosen = Set(ports.lazy.filter { $0.publishMode == .host }.compactMap(\.publishedPort))
    var next = UInt64(truncatingIfNeeded: task.value) % count
    return ports.filter { $0.publishMode == .host }.map { port in
      guard (port.publishedPort ?? 0) == 0 else { return port }
      var port = port
      repeat {
        port.publishedPort = UInt16(first + next)
        next = (next + 1) % count
      } while chosen.contains(port.publishedPort!)
      return port
    }
  }
  public var publishesThroughIngress: Bool { ports.contains { ($0.publishMode ?? .ingress) == .ingress } }
}

extension ContainerSpec {
  public static let defaultStopGracePeriod: Nanoseconds = 10_000_000_000
}

/// A service's label that says where connections to its virtual IPs and ports go, in the words of Kubernetes' `trafficDistribution`.
public enum TrafficDistribution: String, Sendable {
  public static let label = "orch.traffic-distribution"
  /// To tasks on the caller's own host (of published ports: the host that was called), as long as one is ready; else to any.
  case preferSameNode = "PreferSameNode"
}

public enum StackLabel {
  /// Docker's label on everything a stack made.
  public static let namespace = "com.docker.stack.namespace"
  public static let image = "com.docker.stack.image"
  /// docker compose's.
  public static let dependsOn = "com.docker.compose.depends_on"
}
