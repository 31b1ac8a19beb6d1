import Model

/// Who is in the Raft group, with the addresses that the configuration-change entries brought.
public struct Membership: Hashable, Sendable {
  public enum Role: String, Hashable, Sendable {
    case voter, learner
    /// What a joiner knows before it has the state: somebody to answer.
    case contact
    /// Kept so that its id is never used again and its messages are refused.
    case removed
    public var isMember: Bool { self == .voter || self == .learner }
  }
  public struct Member: Hashable, Sendable {
    public var raftID: RaftID
    public var node: NodeID?
    /// "HOST:PORT" of its daemon port.
    public var address: String
    public var role: Role
    /// Votes in the outgoing half of a joint configuration, whatever its role is in the incoming one (Raft section 6).
    public var isOutgoingVoter = false
    public init(raftID: RaftID, node: NodeID?, address: String, role: Role) {
      self.raftID = raftID
      self.node = node
      self.address = address
      self.role = role
    }
    /// Nothing of it counts any more.
    public var isRemoved: Bool { role == .removed && !isOutgoingVoter }
  }
  /// Whether a joint configuration is left by itself; of no meaning otherwise.
  public var autoLeave = false
  public var members: [RaftID: Member] = [:]
  public init() {}
  public init(_ members: some Sequence<Member>) { for member in members { self.members[member.raftID] = member } }

  /// Ascending.
  public func ids(_ role: Role) -> [RaftID] { members.values.filter { $0.role == role }.map(\.raftID).sorted() }
  public func address(of id: RaftID) -> String? { members[id].flatMap { $0.isRemoved ? nil : $0.address } }
}
