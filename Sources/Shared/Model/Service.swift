/// One numbered, immutable state of a service's spec. Tasks point at revisions and never copy them; rollback points back.
public struct ServiceRevision: Hashable, Sendable, Codable {
  public struct Key: Hashable, Comparable, Sendable, Codable {
    public var service: ServiceID
    public var number: UInt64
    public init(_ service: ServiceID, _ number: UInt64) {
      self.service = service
      self.number = number
    }
    public static func < (a: Self, b: Self) -> Bool { (a.service, a.number) < (b.service, b.number) }
  }
  public var key: Key
  public var spec: ServiceSpec
  /// The number of the earliest revision whose tasks are the same as this one's would be (same task template and same ports):
  /// tasks carry this number, so scaling replaces nobody.
  public var template: UInt64
  public var createdAt: Timestamp

  public init(key: Key, spec: ServiceSpec, template: UInt64, createdAt: Timestamp) {
    self.key = key
    self.spec = spec
    self.template = template
    self.createdAt = createdAt
  }
}

public struct Service: Hashable, Sendable, Codable {
  public var id: ServiceID
  /// Unique in the cluster; `stack_service` for a service of a stack.
  public var name: String
  public var current: UInt64
  public var previous: UInt64?
  /// Highest revision number ever given.
  public var latest: UInt64
  public var updateStatus: UpdateStatus?
  /// What the allocator gave: published ports with their numbers, a virtual IP for each network.
  public var endpoint: Endpoint
  /// Set by removal: its tasks are shut down first, then the row goes.
  public var pendingDelete: Bool
  public var createdAt: Timestamp
  public var updatedAt: Timestamp
  /// Raft index of the last change of what the user declared; Docker's `Version.Index`.
  public var version: UInt64

  public init(id: ServiceID, name: String, createdAt: Timestamp) {
    self.id = id
    self.name = name
    self.current = 1
    self.previous = nil
    self.latest = 1
    self.updateStatus = nil
    self.endpoint = Endpoint()
    self.pendingDelete = false
    self.createdAt = createdAt
    self.updatedAt = createdAt
    self.version = 0
  }

  public struct Endpoint: Hashable, Sendable, Codable {
    public var ports: [PortConfig] = []
    public var virtualIPs: [NetworkAttachment] = []
    public init() {}
  }

  public struct UpdateStatus: Hashable, Sendable, Codable {
    public enum State: String, Sendable, Codable {
      case updating, paused, completed
      case rollbackStarted = "rollback_started", rollbackPaused = "rollback_paused", rollbackCompleted = "rollback_completed"
    }
    public var state: State
    public var startedAt: Timestamp
    public var completedAt: Timestamp?
    public var message: String
    public init(state: State, startedAt: Timestamp, completedAt: Timestamp? = nil, message: String) {
      self.state = state
      self.startedAt = startedAt
      self.completedAt = completedAt
      self.message = message
    }
  }
}

/// An address of a task, a service (virtual IP) or a node on a network.
public struct NetworkAttachment: Hashable, Sendable, Codable {
  public var network: NetworkID
  public var address: IPv4Address
  public init(network: NetworkID, address: IPv4Address) {
    self.network = network
    self.address = address
  }
}
