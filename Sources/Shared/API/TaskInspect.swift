import Model

public struct TaskInspect: Codable, Hashable, Sendable {
  public var id: String
  public var version: ObjectVersion
  public var createdAt: Timestamp
  public var updatedAt: Timestamp
  public var labels: [String: String]
  public var spec: TaskSpec
  public var serviceID: String
  /// 0 (absent) for global services.
  public var slot: UInt64?
  public var nodeID: String?
  public var status: Status
  public var desiredState: String
  public var networksAttachments: [Attachment]?

  public struct Status: Codable, Hashable, Sendable {
    public struct Container: Codable, Hashable, Sendable {
      public var containerID: String?
      public var pid: Int32?
      public var exitCode: Int32?
      /// orch's own: the kernel killed it for memory.
      public var oomKilled: Bool?
      /// In the shape that Docker's inspection of a container has.
      public var health: TaskHealth?
      enum CodingKeys: String, CodingKey {
        case containerID = "ContainerID", pid = "PID", exitCode = "ExitCode", oomKilled = "OOMKilled", health = "Health"
      }
    }
    public struct Ports: Codable, Hashable, Sendable {
      public var ports: [PortConfig]?
      enum CodingKeys: String, CodingKey { case ports = "Ports" }
    }
    public var timestamp: Timestamp
    public var state: String
    public var message: String
    public var err: String?
    public var containerStatus: Container?
    public var portStatus: Ports?
    enum CodingKeys: String, CodingKey {
      case timestamp = "Timestamp", state = "State", message = "Message", err = "Err", containerStatus = "ContainerStatus"
      case portStatus = "PortStatus"
    }
  }
  public struct Attachment: Codable, Hashable, Sendable {
    public struct NetworkObject: Codable, Hashable, Sendable {
      public var id: String
      public var version: ObjectVersion
      public var spec: NetworkSpec
      enum CodingKeys: String, CodingKey { case id = "ID", version = "Version", spec = "Spec" }
    }
    public var network: NetworkObject
    public var addresses: [String]
    enum CodingKeys: String, CodingKey { case network = "Network", addresses = "Addresses" }
  }

  /// nil when the task's revision is not in the state (a removal just passed).
  public init?(_ task: ClusterTask, in state: ClusterState) {
    guard let spec = state.spec(of: task) else { return nil }
    id = task.id.description
    version = ObjectVersion(index: task.version)
    createdAt = task.createdAt
    updatedAt = task.status.timestamp
    labels = [:]
    self.spec = spec.taskTemplate
    serviceID = task.service.description
    slot = task.slot == 0 ? nil : task.slot
    nodeID = task.node?.description
    let old = task.status
    let hostPorts = spec.hostPorts(of: task.id)
    status = Status(
      timestamp: old.timestamp, state: old.state.description, message: old.message, err: old.error.isEmpty ? nil : old.error,
      containerStatus: old.containerID == nil && old.exitCode == nil
        ? nil
        : Status.Container(
          containerID: old.containerID, pid: old.pid, exitCode: old.exitCode, oomKilled: old.oomKilled ? true : nil,
          health: old.health),
      portStatus: Status.Ports(ports: hostPorts.isEmpty ? nil : hostPorts))
    desiredState = task.desiredState.description
    let attachments = task.attachments.compactMap { attachment -> Attachment? in
      guard let network = state.networks[attachment.network] else { return nil }
      return Attachment(
        network: .init(id: network.id.description, version: ObjectVersion(index: network.version), spec: network.spec),
        addresses: network.shown(attachment.address))
    }
    networksAttachments = attachments.isEmpty ? nil : attachments
  }

  enum CodingKeys: String, CodingKey {
    case id = "ID", version = "Version", createdAt = "CreatedAt", updatedAt = "UpdatedAt", labels = "Labels", spec = "Spec"
    case serviceID = "ServiceID", slot = "Slot", nodeID = "NodeID", status = "Status", desiredState = "DesiredState"
    case networksAttachments = "NetworksAttachments"
  }
}
