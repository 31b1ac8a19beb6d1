import Model
import Raft
import Store

/// How messages reach other members. Called on the thread of the Raft member, so nothing here may block; bounded queues, and what
/// does not fit is lost, which Raft survives.
public protocol RaftTransport: Sendable {
  /// In order, if at all. Tell `Consensus.reportUnreachable` when they are lost for sure.
  func send(_ messages: [Message], to peer: RaftPeer)
  /// Sends the whole state; `completion` must be called exactly once, when the other side has it all or it failed.
  func send(_ snapshot: OutgoingSnapshot, to peer: RaftPeer, completion: @escaping @Sendable (Bool) -> Void)
  /// The members beside this one, whenever they change; others need no connection any longer.
  func peersChanged(_ peers: [RaftPeer])
}

/// A state on its way to a member that is too far behind for the log. Holding it costs little: the state is a persistent value.
public struct OutgoingSnapshot: Sendable {
  /// Its body is `.snapshot`.
  public var message: Message
  public var membership: Membership
  public var state: ClusterState
}

/// A state that arrived whole; hand it to `Consensus.receive`.
public struct IncomingSnapshot: Sendable {
  public var message: Message
  public var membership: Membership
  public var state: ClusterState
  public init(message: Message, membership: Membership, state: ClusterState) {
    self.message = message
    self.membership = membership
    self.state = state
  }
}
