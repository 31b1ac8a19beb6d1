import Model

/// `GET /version`.
public struct Version: Codable, Hashable, Sendable {
  public struct Platform: Codable, Hashable, Sendable {
    public var name: String
    enum CodingKeys: String, CodingKey { case name = "Name" }
  }
  public struct Component: Codable, Hashable, Sendable {
    public var name: String
    public var version: String
    public var details: [String: String]
    enum CodingKeys: String, CodingKey { case name = "Name", version = "Version", details = "Details" }
  }
  public var platform: Platform
  public var components: [Component]
  public var version: String
  public var apiVersion: String
  public var minAPIVersion: String
  public var gitCommit: String
  public var goVersion: String
  public var os: String
  public var arch: String
  public var kernelVersion: String
  public var buildTime: String

  public init(version: String, os: String = "linux", arch: String, kernelVersion: String, commit: String = "", buildTime: String = "") {
    platform = Platform(name: "orch")
    self.version = version
    apiVersion = APIVersion.current
    minAPIVersion = APIVersion.minimum
    gitCommit = commit
    goVersion = "none (Swift)"
    self.os = os
    self.arch = arch
    self.kernelVersion = kernelVersion
    self.buildTime = buildTime
    components = [
      Component(
        name: "Engine", version: version,
        details: [
          "ApiVersion": apiVersion, "MinAPIVersion": minAPIVersion, "Os": os, "Arch": arch, "KernelVersion": kernelVersion,
          "GitCommit": commit, "GoVersion": goVersion, "BuildTime": buildTime, "Experimental": "false",
        ])
    ]
  }
  enum CodingKeys: String, CodingKey {
    case platform = "Platform", components = "Components", version = "Version", apiVersion = "ApiVersion", minAPIVersion = "MinAPIVersion"
    case gitCommit = "GitCommit", goVersion = "GoVersion", os = "Os", arch = "Arch", kernelVersion = "KernelVersion", buildTime = "BuildTime"
  }
}

/// `GET /info`: what the control plane can say; the counts of one host's containers are zero here.
public struct Info: Codable, Hashable, Sendable {
  public var id: String
  public var containers = 0
  public var containersRunning = 0
  public var containersPaused = 0
  public var containersStopped = 0
  public var images = 0
  public var driver = "overlay"
  public var driverStatus: [[String]] = []
  public var plugins = Plugins()
  public var memoryLimit = true
  public var swapLimit = true
  public var cpuCfsPeriod = true
  public var cpuCfsQuota = true
  public var cpuShares = true
  public var cpuSet = true
  public var pidsLimit = true
  public var ipv4Forwarding = true
  public var debug = false
  public var systemTime: Timestamp
  public var loggingDriver = "json-file"
  public var cgroupDriver = "cgroupfs"
  public var kernelVersion: String
  public var operatingSystem: String
  public var osType = "linux"
  public var architecture: String
  public var indexServerAddress = "https://index.docker.io/v1/"
  public var ncpu: Int
  public var memTotal: Int64
  public var name: String
  public var labels: [String] = []
  public var experimentalBuild = false
  public var serverVersion: String
  public var defaultRuntime = "orch"
  public var swarm: Swarm
  public var liveRestoreEnabled = true
  public var securityOptions = ["name=seccomp,profile=builtin"]
  public var warnings: [String] = []

  public struct Plugins: Codable, Hashable, Sendable {
    public var volume = ["local"]
    public var network = ["overlay", "host", "null"]
    public var log = ["json-file"]
    enum CodingKeys: String, CodingKey { case volume = "Volume", network = "Network", log = "Log" }
  }
  public struct Peer: Codable, Hashable, Sendable {
    public var nodeID: String
    public var addr: String
    public init(nodeID: String, addr: String) {
      self.nodeID = nodeID
      self.addr = addr
    }
    enum CodingKeys: String, CodingKey { case nodeID = "NodeID", addr = "Addr" }
  }
  public struct Swarm: Codable, Hashable, Sendable {
    public var nodeID: String
    public var nodeAddr: String
    public var localNodeState = "active"
    public var controlAvailable = true
    public var error: String
    public var remoteManagers: [Peer]?
    public var nodes: Int?
    public var managers: Int?
    public var cluster: SwarmInspect?
    public init(nodeID: String, nodeAddr: String, error: String = "", remoteManagers: [Peer]?, nodes: Int?, managers: Int?, cluster: SwarmInspect?) {
      self.nodeID = nodeID
      self.nodeAddr = nodeAddr
      self.error = error
      self.remoteManagers = remoteManagers
      self.nodes = nodes
      self.managers = managers
      self.cluster = cluster
    }
    enum CodingKeys: String, CodingKey {
      case nodeID = "NodeID", nodeAddr = "NodeAddr", localNodeState = "LocalNodeState", controlAvailable = "ControlAvailable"
      case error = "Error", remoteManagers = "RemoteManagers", nodes = "Nodes", managers = "Managers", cluster = "Cluster"
    }
  }

  public init(
    id: String, name: String, serverVersion: String, kernelVersion: String, operatingSystem: String, architecture: String, ncpu: Int,
    memTotal: Int64, systemTime: Timestamp, swarm: Swarm
  ) {
    self.id = id
    self.name = name
    self.serverVersion = serverVersion
    self.kernelVersion = kernelVersion
    self.operatingSystem = operatingSystem
    self.architecture = architecture
    self.ncpu = ncpu
    self.memTotal = memTotal
    self.systemTime = systemTime
    self.swarm = swarm
  }

  enum CodingKeys: String, CodingKey {
    case id = "ID", containers = "Containers", containersRunning = "ContainersRunning", containersPaused = "ContainersPaused"
    case containersStopped = "ContainersStopped", images = "Images", driver = "Driver", driverStatus = "DriverStatus", plugins = "Plugins"
    case memoryLimit = "MemoryLimit", swapLimit = "SwapLimit", cpuCfsPeriod = "CpuCfsPeriod", cpuCfsQuota = "CpuCfsQuota"
    case cpuShares = "CPUShares", cpuSet = "CPUSet", pidsLimit = "PidsLimit", ipv4Forwarding = "IPv4Forwarding", debug = "Debug"
    case systemTime = "SystemTime", loggingDriver = "LoggingDriver", cgroupDriver = "CgroupDriver", kernelVersion = "KernelVersion"
    case operatingSystem = "OperatingSystem", osType = "OSType", architecture = "Architecture", indexServerAddress = "IndexServerAddress"
    case ncpu = "NCPU", memTotal = "MemTotal", name = "Name", labels = "Labels", experimentalBuild = "ExperimentalBuild"
    case serverVersion = "ServerVersion", defaultRuntime = "DefaultRuntime", swarm = "Swarm", liveRestoreEnabled = "LiveRestoreEnabled"
    case securityOptions = "SecurityOptions", warnings = "Warnings"
  }
}

/// `GET /swarm`; inside `/info` without the tokens.
public struct SwarmInspect: Codable, Hashable, Sendable {
  public struct JoinTokens: Codable, Hashable, Sendable {
    public var worker: String
    public var manager: String
    enum CodingKeys: String, CodingKey { case worker = "Worker", manager = "Manager" }
  }
  public struct Spec: Codable, Hashable, Sendable {
    public struct Orchestration: Codable, Hashable, Sendable {
      public var taskHistoryRetentionLimit: Int
      enum CodingKeys: String, CodingKey { case taskHistoryRetentionLimit = "TaskHistoryRetentionLimit" }
    }
    public struct Raft: Codable, Hashable, Sendable {
      public var snapshotInterval = 10_000
      public var logEntriesForSlowFollowers = 500
      public var electionTick = 10
      public var heartbeatTick = 1
      enum CodingKeys: String, CodingKey {
        case snapshotInterval = "SnapshotInterval", logEntriesForSlowFollowers = "LogEntriesForSlowFollowers", electionTick = "ElectionTick"
        case heartbeatTick = "HeartbeatTick"
      }
    }
    public struct Dispatcher: Codable, Hashable, Sendable {
      public var heartbeatPeriod: Nanoseconds = 5_000_000_000
      enum CodingKeys: String, CodingKey { case heartbeatPeriod = "HeartbeatPeriod" }
    }
    public struct CAConfig: Codable, Hashable, Sendable {
      public var nodeCertExpiry: Nanoseconds = 7_776_000_000_000_000
      enum CodingKeys: String, CodingKey { case nodeCertExpiry = "NodeCertExpiry" }
    }
    public struct EncryptionConfig: Codable, Hashable, Sendable {
      public var autoLockManagers = false
      enum CodingKeys: String, CodingKey { case autoLockManagers = "AutoLockManagers" }
    }
    public struct TaskDefaults: Codable, Hashable, Sendable {}
    public var name = "default"
    public var labels: [String: String] = [:]
    public var orchestration: Orchestration
    public var raft = Raft()
    public var dispatcher = Dispatcher()
    public var caConfig = CAConfig()
    public var taskDefaults = TaskDefaults()
    public var encryptionConfig = EncryptionConfig()
    enum CodingKeys: String, CodingKey {
      case name = "Name", labels = "Labels", orchestration = "Orchestration", raft = "Raft", dispatcher = "Dispatcher", caConfig = "CAConfig"
      case taskDefaults = "TaskDefaults", encryptionConfig = "EncryptionConfig"
    }
  }
  public struct TLSInfo: Codable, Hashable, Sendable {
    public var trustRoot: String
    enum CodingKeys: String, CodingKey { case trustRoot = "TrustRoot" }
  }
  public var id: String
  public var version: ObjectVersion
  public var createdAt: Timestamp
  public var updatedAt: Timestamp
  public var spec: Spec
  public var tlsInfo: TLSInfo
  public var rootRotationInProgress = false
  public var dataPathPort: UInt32
  public var defaultAddrPool: [String]
  public var subnetSize: UInt32
  public var joinTokens: JoinTokens?

  public init(_ cluster: Cluster, tokens: Bool) {
    id = cluster.id.description
    version = ObjectVersion(index: cluster.version)
    createdAt = cluster.createdAt
    updatedAt = cluster.createdAt
    spec = Spec(orchestration: .init(taskHistoryRetentionLimit: cluster.taskHistory))
    tlsInfo = TLSInfo(trustRoot: cluster.certificateAuthority)
    dataPathPort = UInt32(cluster.dataPathPort)
    defaultAddrPool = [cluster.addressPool.description]
    subnetSize = UInt32(cluster.subnetLength)
    joinTokens = tokens ? JoinTokens(worker: cluster.workerToken, manager: cluster.managerToken) : nil
  }
  enum CodingKeys: String, CodingKey {
    case id = "ID", version = "Version", createdAt = "CreatedAt", updatedAt = "UpdatedAt", spec = "Spec", tlsInfo = "TLSInfo"
    case rootRotationInProgress = "RootRotationInProgress", dataPathPort = "DataPathPort", defaultAddrPool = "DefaultAddrPool"
    case subnetSize = "SubnetSize", joinTokens = "JoinTokens"
  }
}
