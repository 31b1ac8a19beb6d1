/// One change of the replicated state: the finest that two writers may interleave.
public enum Action: Hashable, Sendable {
  case putCluster(Cluster)
  case putNode(Node)
  /// What a user declares of a node, and when: raises Docker's version and leaves everything that managers learned alone.
  case nodeSpec(NodeID, NodeSpec, at: Timestamp)
  /// What the manager learned about a node; leaves the user's spec alone.
  case nodeStatus(NodeID, NodeStatus)
  case nodeDescription(NodeID, NodeDescription)
  case nodeAttachments(NodeID, [NetworkAttachment])
  case nodeManager(NodeID, ManagerStatus?)
  case removeNode(NodeID)
  case putService(Service)
  case putRevision(ServiceRevision)
  /// Progress of an update and the allocator's endpoint; neither raises Docker's version.
  case serviceUpdateStatus(ServiceID, Service.UpdateStatus?)
  case serviceEndpoint(ServiceID, Service.Endpoint)
  case removeService(ServiceID)
  case removeRevision(ServiceRevision.Key)
  case createTask(ClusterTask)
  /// NEW -> PENDING (node nil, with the reason in the status) or -> ASSIGNED. Refused when the task is already assigned.
  case assignTask(TaskID, node: NodeID?, attachments: [NetworkAttachment], status: TaskStatus)
  /// Desired states only rise, but for a task waiting in READY that is let run: READY(desired) -> RUNNING.
  case taskDesiredState(TaskID, TaskState)
  /// Ignored when it would lower the state.
  case taskStatus(TaskID, TaskStatus)
  case removeTask(TaskID)
  case putNetwork(Network)
  case removeNetwork(NetworkID)
  case putVolume(Volume)
  case removeVolume(String)
  case putStack(Stack)
  case removeStack(String)
  /// Refused when another of its kind has the name.
  case putFile(StoredFile)
  /// Refused while a service uses it.
  case removeFile(FileID)
}

/// What must hold when the command is applied; otherwise nothing of it happens.
public enum Condition: Hashable, Sendable {
  /// The object's `version` is exactly this.
  case nodeVersion(NodeID, UInt64)
  case serviceVersion(ServiceID, UInt64)
  case networkVersion(NetworkID, UInt64)
  case clusterVersion(UInt64)
  /// The stack is at this revision; 0: there is none.
  case stackRevision(String, UInt64)
  case serviceExists(ServiceID)
  case networkExists(NetworkID)
  case fileVersion(FileID, UInt64)
  case fileExists(FileID)
}

/// The payload of one Raft entry: applied whole or not at all.
public struct Command: Hashable, Sendable {
  public var conditions: [Condition]
  public var actions: [Action]
  public init(conditions: [Condition] = [], actions: [Action]) {
    self.conditions = conditions
    self.actions = actions
  }
}

/// Why a command was not applied. The same on every manager: it follows from the state alone.
public enum Refusal: Error, Hashable, Sendable, CustomStringConvertible {
  /// Docker's words: "update out of sequence".
  case outOfSequence
  case nameTaken(kind: String, name: String)
  case notFound(kind: String, id: String)
  case inUse(kind: String, name: String, by: String)

  public var description: String {
    switch self {
    case .outOfSequence: "update out of sequence"
    case .nameTaken(let kind, let name): "name conflicts with an existing object: \(kind) \(name) already exists"
    case .notFound(let kind, let id): "\(kind) \(id) not found"
    case .inUse(let kind, let name, let by): "\(kind) \(name) is in use by \(by)"
    }
  }
}

/// What an applied command changed; the food of watches and cores. Old values come with it because handlers ask what changed.
public enum StateChange: Hashable, Sendable {
  case cluster
  case node(old: Node?, new: Node?)
  case service(old: Service?, new: Service?)
  case revision(ServiceRevision.Key)
  case task(old: ClusterTask?, new: ClusterTask?)
  case network(old: Network?, new: Network?)
  case volume(old: Volume?, new: Volume?)
  case stack(old: Stack?, new: Stack?)
  case file(old: StoredFile?, new: StoredFile?)
}
