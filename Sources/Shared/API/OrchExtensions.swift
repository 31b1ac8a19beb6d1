// What only orch has: /orch/v1/…
import Model

/// Body of `POST /orch/v1/stacks/{name}`: the whole stack as the manifest declares it; one Raft entry.
public struct StackDeployRequest: Codable, Hashable, Sendable {
  /// The manifest's text, kept with the stack's revision.
  public var manifest: String
  /// Full names (`stack_web`); network targets are names.
  public var services: [ServiceSpec]
  public var networks: [NetworkSpec]
  public var volumes: [VolumeSpec]
  public var secrets: [FileSpec]?
  public var configs: [FileSpec]?
  /// By a service's full name, as in docker's X-Registry-Auth: what its hosts pull its image with.
  public var registryLogins: [String: String]?
  public init(
    manifest: String, services: [ServiceSpec], networks: [NetworkSpec], volumes: [VolumeSpec], secrets: [FileSpec] = [], configs: [FileSpec] = []
  ) {
    self.manifest = manifest
    self.services = services
    self.networks = networks
    self.volumes = volumes
    self.secrets = secrets.isEmpty ? nil : secrets
    self.configs = configs.isEmpty ? nil : configs
  }
  enum CodingKeys: String, CodingKey {
    case manifest = "Manifest", services = "Services", networks = "Networks", volumes = "Volumes", secrets = "Secrets", configs = "Configs"
    case registryLogins = "RegistryLogins"
  }
}

/// Each line is "service stack_web", "network stack_default", "volume stack_data".
public struct StackDeployResponse: Codable, Hashable, Sendable {
  public var name: String
  /// The stack's revision after the deploy; unchanged when nothing differed.
  public var revision: UInt64
  public var created: [String]
  public var updated: [String]
  public var unchanged: [String]
  public var removed: [String]
  public var warnings: [String]
  public init(
    name: String, revision: UInt64, created: [String] = [], updated: [String] = [], unchanged: [String] = [], removed: [String] = [],
    warnings: [String] = []
  ) {
    self.name = name
    self.revision = revision
    self.created = created
    self.updated = updated
    self.unchanged = unchanged
    self.removed = removed
    self.warnings = warnings
  }
  enum CodingKeys: String, CodingKey {
    case name = "Name", revision = "Revision", created = "Created", updated = "Updated", unchanged = "Unchanged", removed = "Removed"
    case warnings = "Warnings"
  }
}

public struct StackInspect: Codable, Hashable, Sendable {
  public var name: String
  public var revision: UInt64
  public var services: [String]
  public var networks: [String]
  public var volumes: [String]
  public var createdAt: Timestamp
  public var updatedAt: Timestamp
  public var manifest: String?
  public init(_ stack: Stack, in state: ClusterState, manifest: Bool = false) {
    name = stack.name
    revision = stack.revision
    services = stack.services.keys.compactMap { state.services[$0]?.name }.sorted()
    networks = stack.networks.compactMap { state.networks[$0]?.name }.sorted()
    volumes = stack.volumes.sorted()
    createdAt = stack.createdAt
    updatedAt = stack.updatedAt
    self.manifest = manifest ? stack.manifest : nil
  }
  enum CodingKeys: String, CodingKey {
    case name = "Name", revision = "Revision", services = "Services", networks = "Networks", volumes = "Volumes", createdAt = "CreatedAt"
    case updatedAt = "UpdatedAt", manifest = "Manifest"
  }
}

public struct StackRemoveResponse: Codable, Hashable, Sendable {
  public var removed: [String]
  public var warnings: [String]
  public init(removed: [String], warnings: [String] = []) {
    self.removed = removed
    self.warnings = warnings
  }
  enum CodingKeys: String, CodingKey { case removed = "Removed", warnings = "Warnings" }
}

public struct ScaleResponse: Codable, Hashable, Sendable {
  public struct Item: Codable, Hashable, Sendable {
    public var name: String
    public var id: String
    public var from: UInt64
    public var to: UInt64
    public init(name: String, id: String, from: UInt64, to: UInt64) {
      self.name = name
      self.id = id
      self.from = from
      self.to = to
    }
    enum CodingKeys: String, CodingKey { case name = "Name", id = "ID", from = "From", to = "To" }
  }
  public var services: [Item]
  public init(services: [Item]) { self.services = services }
  enum CodingKeys: String, CodingKey { case services = "Services" }
}

public struct ManagerInspect: Codable, Hashable, Sendable {
  public enum Role: String, Codable, Sendable {
    /// Counts for majorities.
    case voter
    /// Has a copy and no vote: it is catching up, or was demoted.
    case learner
  }
  public var raftID: UInt64
  public var nodeID: String
  public var hostname: String
  public var addr: String
  public var leader: Bool
  public var role: Role
  /// Raft's, the latest that the answering manager has heard of.
  public var term: UInt64
  public var reachability: String
  /// Highest log index known to be on its disk; nil when not known to the answering manager.
  public var matchIndex: UInt64?
  /// How many entries it is behind the leader; nil as above.
  public var lag: UInt64?
  public init(
    raftID: UInt64, nodeID: String, hostname: String, addr: String, leader: Bool, role: Role, term: UInt64, reachability: String,
    matchIndex: UInt64?, lag: UInt64?
  ) {
    self.raftID = raftID
    self.nodeID = nodeID
    self.hostname = hostname
    self.addr = addr
    self.leader = leader
    self.role = role
    self.term = term
    self.reachability = reachability
    self.matchIndex = matchIndex
    self.lag = lag
  }
  enum CodingKeys: String, CodingKey {
    case raftID = "RaftID", nodeID = "NodeID", hostname = "Hostname", addr = "Addr", leader = "Leader", role = "Role", term = "Term"
    case reachability = "Reachability", matchIndex = "MatchIndex", lag = "Lag"
  }
}

/// Body of `POST /orch/v1/managers/transfer-leadership`, and its answer: who leads now.
public struct LeadershipTransfer: Codable, Hashable, Sendable {
  /// Hostname or id; nil in a request: whoever has the most of the log.
  public var node: String?
  public init(node: String?) { self.node = node }
  enum CodingKeys: String, CodingKey { case node = "Node" }
}

/// Body of `POST /orch/v1/sql`; the answer is lines of JSON (docs/sql.md).
public struct QueryRequest: Codable, Hashable, Sendable {
  public var query: String
  /// Seconds, at most 600; nil: 10.
  public var timeout: Double?
  /// From the answering manager's own copy, however old.
  public var stale: Bool?
  public init(query: String, timeout: Double? = nil, stale: Bool? = nil) {
    self.query = query
    self.timeout = timeout
    self.stale = stale
  }
  enum CodingKeys: String, CodingKey { case query = "Query", timeout = "Timeout", stale = "Stale" }
}

/// What a backup holds: the header `Orch-Backup` of `GET /orch/v1/backup`, and a part of `RestoreResponse`.
public struct BackupSummary: Codable, Hashable, Sendable {
  public static let header = "Orch-Backup"
  public var cluster: String
  /// Raft index of the state.
  public var index: UInt64
  public var takenAt: Timestamp
  /// Of the file.
  public var bytes: Int64
  /// CRC-32C of the file.
  public var checksum: UInt32
  public var nodes: Int
  public var stacks: Int
  public var services: Int
  public var tasks: Int
  public var networks: Int
  public var volumes: Int
  public init(
    cluster: String, index: UInt64, takenAt: Timestamp, bytes: Int64, checksum: UInt32, nodes: Int, stacks: Int, services: Int, tasks: Int,
    networks: Int, volumes: Int
  ) {
    self.cluster = cluster
    self.index = index
    self.takenAt = takenAt
    self.bytes = bytes
    self.checksum = checksum
    self.nodes = nodes
    self.stacks = stacks
    self.services = services
    self.tasks = tasks
    self.networks = networks
    self.volumes = volumes
  }
  enum CodingKeys: String, CodingKey {
    case cluster = "Cluster", index = "Index", takenAt = "TakenAt", bytes = "Bytes", checksum = "CRC32C", nodes = "Nodes", stacks = "Stacks"
    case services = "Services", tasks = "Tasks", networks = "Networks", volumes = "Volumes"
  }
}

/// Answer of `POST /orch/v1/restore`; each line is "service stack_web", "stack demo", …
public struct RestoreResponse: Codable, Hashable, Sendable {
  public var backup: BackupSummary
  /// False: nothing was changed yet.
  public var applied: Bool
  public var created: [String] = []
  public var updated: [String] = []
  public var unchanged: [String] = []
  public var removed: [String] = []
  /// Not in the backup, and left alone.
  public var kept: [String] = []
  public init(backup: BackupSummary, applied: Bool) {
    self.backup = backup
    self.applied = applied
  }
  enum CodingKeys: String, CodingKey {
    case backup = "Backup", applied = "Applied", created = "Created", updated = "Updated", unchanged = "Unchanged", removed = "Removed", kept = "Kept"
  }
}

/// Body of `POST /orch/v1/certificates`: a certificate for a user of the API over TCP.
public struct CertificateRequest: Codable, Hashable, Sendable {
  public var name: String
  /// PEM (RFC 2986); its key stays with who asks.
  public var signingRequest: String
  /// nil: 90 days.
  public var validSeconds: Int64?
  public init(name: String, signingRequest: String, validSeconds: Int64? = nil) {
    self.name = name
    self.signingRequest = signingRequest
    self.validSeconds = validSeconds
  }
  enum CodingKeys: String, CodingKey { case name = "Name", signingRequest = "SigningRequest", validSeconds = "ValidSeconds" }
}

/// PEM of the user's certificate and of the cluster's authority.
public struct CertificateResponse: Codable, Hashable, Sendable {
  public var certificate: String
  public var authority: String
  public var notAfter: Timestamp
  public init(certificate: String, authority: String, notAfter: Timestamp) {
    self.certificate = certificate
    self.authority = authority
    self.notAfter = notAfter
  }
  enum CodingKeys: String, CodingKey { case certificate = "Certificate", authority = "Authority", notAfter = "NotAfter" }
}

/// One JSON line of `/orch/v1/images/load`, `/orch/v1/images/import`: a host's result.
public struct ImageLoadResult: Codable, Hashable, Sendable {
  public var host: String
  public var nodeID: String
  public var images: [String]?
  public var error: String?
  public init(host: String, nodeID: String, images: [String]? = nil, error: String? = nil) {
    self.host = host
    self.nodeID = nodeID
    self.images = images
    self.error = error
  }
  enum CodingKeys: String, CodingKey { case host = "Host", nodeID = "NodeID", images = "Images", error = "Error" }
}

/// One image on one host, for `GET /orch/v1/images`.
public struct ImageSummary: Codable, Hashable, Sendable {
  public var host: String
  public var name: String
  public var id: String
  public var size: Int64
  public var createdAt: Timestamp?
  public init(host: String, name: String, id: String, size: Int64, createdAt: Timestamp? = nil) {
    self.host = host
    self.name = name
    self.id = id
    self.size = size
    self.createdAt = createdAt
  }
  enum CodingKeys: String, CodingKey { case host = "Host", name = "Name", id = "ID", size = "Size", createdAt = "CreatedAt" }
}

/// First frame of an exec's request body.
public struct ExecStart: Codable, Hashable, Sendable {
  public struct Size: Codable, Hashable, Sendable {
    public var rows: UInt16
    public var columns: UInt16
    public init(rows: UInt16, columns: UInt16) {
      self.rows = rows
      self.columns = columns
    }
    enum CodingKeys: String, CodingKey { case rows = "Rows", columns = "Columns" }
  }
  public var command: [String]
  public var env: [String]?
  public var user: String?
  public var workingDir: String?
  public var tty: Bool
  public var stdin: Bool
  public var size: Size?
  /// To the container's own first process, which was started with its stdin open; there is no command then.
  public var attach: Bool?
  /// Answered with an exit of 0 once it runs; its stdio leads nowhere.
  public var detach: Bool?
  public init(
    command: [String], env: [String]? = nil, user: String? = nil, workingDir: String? = nil,
    tty: Bool = false, stdin: Bool = false,
    size: Size? = nil, attach: Bool? = nil, detach: Bool? = nil
  ) {
    self.command = command
    self.env = env
    self.user = user
    self.workingDir = workingDir
    self.tty = tty
    self.stdin = stdin
    self.size = size
    self.attach = attach
    self.detach = detach
  }
  enum CodingKeys: String, CodingKey {
    case command = "Cmd"
    case env = "Env"
    case user = "User"
    case workingDir = "WorkingDir"
    case tty = "Tty"
    case stdin = "AttachStdin"
    case size = "Size"
    case attach = "Attach"
    case detach = "Detach"
  }
}

/// Last frame of an exec's response body.
public struct ExecExit: Codable, Hashable, Sendable {
  public var exitCode: Int32
  public var error: String?
  public init(exitCode: Int32, error: String? = nil) {
    self.exitCode = exitCode
    self.error = error
  }
  enum CodingKeys: String, CodingKey { case exitCode = "ExitCode", error = "Error" }
}
