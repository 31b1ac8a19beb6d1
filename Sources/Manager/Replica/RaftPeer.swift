import Model

/// Where a member of the Raft group is reached.
public struct RaftPeer: Hashable, Sendable {
  public var id: RaftID
  /// "HOST:PORT" of its daemon port.
  public var address: String
  public init(id: RaftID, address: String) {
    self.id = id
    self.address = address
  }
}
