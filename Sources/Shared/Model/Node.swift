public enum NodeRole: String, Sendable, Codable { case worker, manager }
public enum NodeAvailability: String, Sendable, Codable { case active, pause, drain }
public enum NodeState: String, Sendable, Codable { case unknown, down, ready, disconnected }

/// What the user declares of a node, in the shape of Docker's NodeSpec.
public struct NodeSpec: Hashable, Sendable, Codable {
  public var name: String?
  public var labels: [String: String]?
  public var role: NodeRole
  public var availability: NodeAvailability
  public init(role: NodeRole, availability: NodeAvailability = .active) {
    self.role = role
    self.availability = availability
  }
  enum CodingKeys: String, CodingKey { case name = "Name", labels = "Labels", role = "Role", availability = "Availability" }
}

/// What the node says of itself, in the shape of Docker's NodeDescription.
public struct NodeDescription: Hashable, Sendable, Codable {
  public var hostname: String
  public var platform: Platform
  public var resources: Resources
  public var engine: Engine
  /// orch's own: published ports that this node cannot answer, because a process of the host has them. Sorted; at most 100.
  public var portConflicts: [PortConflict]?
  /// orch's own: what other programs changed of the overlay on this node and was repaired, by kind, since its agent began.
  public var networkRepairs: [String: UInt64]?
  /// orch's own: where the host sends what, without its default route, its own overlays, and what a broader route covers. Sorted; at most
  /// `routesMax`, the broadest.
  public var routes: [HostRoute]?
  /// orch's own: of the link that VXLAN packets leave by; bytes.
  public var underlayMTU: Int?
  /// orch's own: true where the kernel has no IPv6 (`ipv6.disable=1`).
  public var lacksIPv6: Bool?
  public static let routesMax = 200

  public init(hostname: String, platform: Platform, resources: Resources, engine: Engine) {
    self.hostname = hostname
    self.platform = platform
    self.resources = resources
    self.engine = engine
  }
  public struct PortConflict: Hashable, Comparable, Sendable, Codable {
    public var port: UInt16
    public var `protocol`: PortConfig.PortProtocol
    /// Of the host's, the only one that is published; nil: all.
    public var address: IPAddress?
    /// nil when nobody could be found.
    public var holder: Holder?
    public init(port: UInt16, protocol: PortConfig.PortProtocol, address: IPAddress? = nil, holder: Holder?) {
      self.port = port
      self.protocol = `protocol`
      self.address = address
      self.holder = holder
    }
    public var claim: PortClaim { PortClaim(port, `protocol`, at: address) }
    public static func < (a: Self, b: Self) -> Bool {
      (a.port, a.protocol.rawValue, a.address?.description ?? "") < (b.port, b.protocol.rawValue, b.address?.description ?? "")
    }
    /// "nginx (pid 123)".
    public var holderText: String { holder.map { "\($0.command) (pid \($0.pid))" } ?? "another process" }
    enum CodingKeys: String, CodingKey { case port = "Port", `protocol` = "Protocol", address = "Address", holder = "Holder" }
  }
  /// A process of the host, by the name of its executable.
  public struct Holder: Hashable, Sendable, Codable {
    public var command: String
    public var pid: Int32
    public init(command: String, pid: Int32) {
      self.command = command
      self.pid = pid
    }
    enum CodingKeys: String, CodingKey { case command = "Command", pid = "PID" }
  }
  public struct HostRoute: Hashable, Comparable, Sendable, Codable {
    public var destination: IPv4Prefix
    public var device: String
    public init(destination: IPv4Prefix, device: String) {
      self.destination = destination
      self.device = device
    }
    public static func < (a: Self, b: Self) -> Bool {
      (a.destination.length, a.destination.address, a.device) < (b.destination.length, b.destination.address, b.device)
    }
    enum CodingKeys: String, CodingKey { case destination = "Destination", device = "Device" }
  }
  public struct Resources: Hashable, Sendable, Codable {
    public var nanoCPUs: Int64
    public var memoryBytes: Int64
    public init(nanoCPUs: Int64, memoryBytes: Int64) {
      self.nanoCPUs = nanoCPUs
      self.memoryBytes = memoryBytes
    }
    enum CodingKeys: String, CodingKey { case nanoCPUs = "NanoCPUs", memoryBytes = "MemoryBytes" }
  }
  public struct Engine: Hashable, Sendable, Codable {
    public var engineVersion: String
    public var labels: [String: String]?
    public init(engineVersion: String, labels: [String: String]? = nil) {
      self.engineVersion = engineVersion
      self.labels = labels
    }
    enum CodingKeys: String, CodingKey { case engineVersion = "EngineVersion", labels = "Labels" }
  }
  enum CodingKeys: String, CodingKey {
    case hostname = "Hostname", platform = "Platform", resources = "Resources", engine = "Engine", portConflicts = "PortConflicts"
    case networkRepairs = "NetworkRepairs", routes = "Routes", underlayMTU = "UnderlayMTU", lacksIPv6 = "LacksIPv6"
  }
}

public struct NodeStatus: Hashable, Sendable, Codable {
  public var state: NodeState
  public var message: String
  /// Where the other hosts send VXLAN to; nil until the agent has told.
  public var address: IPv4Address?
  public init(state: NodeState, message: String = "", address: IPv4Address? = nil) {
    self.state = state
    self.message = message
    self.address = address
  }
}

public struct ManagerStatus: Hashable, Sendable, Codable {
  public var raftID: RaftID
  /// "HOST:PORT" of its daemon port.
  public var address: String
  public init(raftID: RaftID, address: String) {
    self.raftID = raftID
    self.address = address
  }
}

public struct Node: Hashable, Sendable, Codable {
  public var id: NodeID
  public var spec: NodeSpec
  /// nil until its agent connected for the first time.
  public var description: NodeDescription?
  public var status: NodeStatus
  /// Set for members of the Raft group.
  public var manager: ManagerStatus?
  /// The node's own address on ingress: gateway of its containers there and source of what it forwards into it.
  public var attachments: [NetworkAttachment]
  public var createdAt: Timestamp
  public var updatedAt: Timestamp
  /// Raft index of the last change of the spec; Docker's `Version.Index`.
  public var version: UInt64

  public init(id: NodeID, spec: NodeSpec, createdAt: Timestamp) {
    self.id = id
    self.spec = spec
    self.description = nil
    self.status = NodeStatus(state: .unknown)
    self.manager = nil
    self.attachments = []
    self.createdAt = createdAt
    self.updatedAt = createdAt
    self.version = 0
  }

  public var hostname: String { description?.hostname ?? spec.name ?? id.description }
}
