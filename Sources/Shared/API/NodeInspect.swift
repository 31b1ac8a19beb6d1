import Model

public struct NodeInspect: Codable, Hashable, Sendable {
  public var id: String
  public var version: ObjectVersion
  public var createdAt: Timestamp
  public var updatedAt: Timestamp
  public var spec: NodeSpec
  public var description: NodeDescription?
  public var status: Status
  public var managerStatus: Manager?

  public struct Status: Codable, Hashable, Sendable {
    public var state: String
    public var message: String?
    public var addr: String?
    enum CodingKeys: String, CodingKey { case state = "State", message = "Message", addr = "Addr" }
  }
  public struct Manager: Codable, Hashable, Sendable {
    public var leader: Bool?
    /// unknown, unreachable or reachable.
    public var reachability: String
    public var addr: String
    public init(leader: Bool?, reachability: String, addr: String) {
      self.leader = leader
      self.reachability = reachability
      self.addr = addr
    }
    enum CodingKeys: String, CodingKey { case leader = "Leader", reachability = "Reachability", addr = "Addr" }
  }

  public init(_ node: Node, manager: Manager? = nil) {
    id = node.id.description
    version = ObjectVersion(index: node.version)
    createdAt = node.createdAt
    updatedAt = node.updatedAt
    spec = node.spec
    description = node.description
    status = Status(
      state: node.status.state.rawValue, message: node.status.message.isEmpty ? nil : node.status.message,
      addr: node.status.address?.description)
    // One that was demoted keeps a copy of the state and is no manager to docker's clients.
    let unknown = node.spec.role == .manager ? node.manager : nil
    managerStatus = manager ?? unknown.map { Manager(leader: nil, reachability: "unknown", addr: $0.address) }
  }

  public var hostname: String { description?.hostname ?? spec.name ?? id }

  enum CodingKeys: String, CodingKey {
    case id = "ID", version = "Version", createdAt = "CreatedAt", updatedAt = "UpdatedAt", spec = "Spec", description = "Description"
    case status = "Status", managerStatus = "ManagerStatus"
  }
}
