import Model
import Raft

/// A state on its way to a member that is too far behind for the log. Holding it costs little: the state is a persistent value.
public struct OutgoingSnapshot: Sendable {
  /// Its body is `.snapshot`.
  public var message: Message
  public var membership: Membership
  public var state: ClusterState
  public init(message: Message, membership: Membership, state: ClusterState) {
    self.message = message
    self.membership = membership
    self.state = state
  }
}

/// A state that arrived whole.
public struct IncomingSnapshot: Sendable {
  /// Its body is `.snapshot`.
  public var message: Message
  public var membership: Membership
  public var state: ClusterState
  public init(message: Message, membership: Membership, state: ClusterState) {
    self.message = message
    self.membership = membership
    self.state = state
  }

  var metadata: SnapshotMetadata? { if case .snapshot(let metadata) = message.body { metadata } else { nil } }
}
