import Model
import Transport

extension Consensus {
  /// Throws unless a message of `sender` may come with `node`'s certificate. A certificate speaks for its own node only, and a member's
  /// node is known from the entry that added it, or earlier from the node's row.
  ///
  /// A member may be behind, and the leader one that it was never told of: so an id that it does not know is believed, but only while it
  /// follows nobody that it knows, or has no vote to give (a joiner, a learner).
  func check(_ sender: RaftID, node: NodeID?) throws(StreamError) {
    let view = view
    if let known = view.membership.members[sender] {
      if known.isRemoved { throw StreamError(.failedPrecondition, "manager \(sender) was removed from the cluster", detail: "removed") }
      guard known.node == nil || known.node == node else { throw StreamError(.permissionDenied, "manager \(sender) is another node's") }
      return
    }
    if let holder = view.state.nodes.values.first(where: { $0.manager?.raftID == sender }) {
      guard holder.id == node else { throw StreamError(.permissionDenied, "manager \(sender) is another node's") }
      return
    }
    guard let leader = view.leader, view.membership.members[leader.id] != nil, let id, view.membership.members[id]?.role == .voter else { return }
    throw StreamError(.permissionDenied, "manager \(sender) is not known here: no entry of the log added it")
  }
}
