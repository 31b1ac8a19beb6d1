import Model
import Raft
import Replica

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
