import Model

public struct ServiceInspect: Codable, Hashable, Sendable {
  public var id: String
  public var version: ObjectVersion
  public var createdAt: Timestamp
  public var updatedAt: Timestamp
  public var spec: ServiceSpec
  public var previousSpec: ServiceSpec?
  public var endpoint: Endpoint
  public var updateStatus: UpdateStatus?
  /// Only with `?status=true`.
  public var serviceStatus: Status?

  public struct Endpoint: Codable, Hashable, Sendable {
    public struct VirtualIP: Codable, Hashable, Sendable {
      public var networkID: String
      /// With the subnet's length: "10.0.1.2/24".
      public var addr: String
      enum CodingKeys: String, CodingKey { case networkID = "NetworkID", addr = "Addr" }
    }
    public var spec: EndpointSpec
    public var ports: [PortConfig]?
    public var virtualIPs: [VirtualIP]?
    enum CodingKeys: String, CodingKey { case spec = "Spec", ports = "Ports", virtualIPs = "VirtualIPs" }
  }
  public struct UpdateStatus: Codable, Hashable, Sendable {
    public var state: String
    public var startedAt: Timestamp?
    public var completedAt: Timestamp?
    public var message: String
    enum CodingKeys: String, CodingKey { case state = "State", startedAt = "StartedAt", completedAt = "CompletedAt", message = "Message" }
  }
  public struct Status: Codable, Hashable, Sendable {
    public var runningTasks: UInt64
    public var desiredTasks: UInt64
    public var completedTasks: UInt64
    public init(runningTasks: UInt64, desiredTasks: UInt64, completedTasks: UInt64) {
      self.runningTasks = runningTasks
      self.desiredTasks = desiredTasks
      self.completedTasks = completedTasks
    }
    enum CodingKeys: String, CodingKey { case runningTasks = "RunningTasks", desiredTasks = "DesiredTasks", completedTasks = "CompletedTasks" }
  }

  /// nil when the current revision is not in the state (a removal just passed).
  public init?(_ service: Service, in state: ClusterState, status: Status? = nil) {
    guard let spec = state.spec(of: service) else { return nil }
    id = service.id.description
    version = ObjectVersion(index: service.version)
    createdAt = service.createdAt
    updatedAt = service.updatedAt
    self.spec = spec.withoutLogin
    previousSpec = service.previous.flatMap { state.revision(service.id, $0)?.spec.withoutLogin }
    endpoint = Endpoint(
      spec: spec.endpointSpec ?? EndpointSpec(),
      ports: service.endpoint.ports.isEmpty ? nil : service.endpoint.ports,
      virtualIPs: service.endpoint.virtualIPs.isEmpty
        ? nil
        : service.endpoint.virtualIPs.flatMap { attachment in
          let shown = state.networks[attachment.network]?.shown(attachment.address) ?? ["\(attachment.address)/24"]
          return shown.map { Endpoint.VirtualIP(networkID: attachment.network.description, addr: $0) }
        })
    updateStatus = service.updateStatus.map {
      UpdateStatus(state: $0.state.rawValue, startedAt: $0.startedAt, completedAt: $0.completedAt, message: $0.message)
    }
    serviceStatus = status
  }

  enum CodingKeys: String, CodingKey {
    case id = "ID", version = "Version", createdAt = "CreatedAt", updatedAt = "UpdatedAt", spec = "Spec", previousSpec = "PreviousSpec"
    case endpoint = "Endpoint", updateStatus = "UpdateStatus", serviceStatus = "ServiceStatus"
  }
}
