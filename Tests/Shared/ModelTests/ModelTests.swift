import Model
import Testing

@Test("a change of a node's spec raises its version and leaves what managers learned meanwhile")
func nodeSpecKeepsStatus() throws {
  var state = ClusterState()
  let id = NodeID(value: 7)
  _ = try state.apply(Command(actions: [.putNode(Node(id: id, spec: NodeSpec(role: .worker), createdAt: .zero))]), at: 1).get()
  let read = state.nodes[id]!
  let status = NodeStatus(state: .ready, address: IPv4Address("10.0.0.1"))
  _ = try state.apply(Command(actions: [.nodeStatus(id, status)]), at: 2).get()
  let later = Timestamp(nanoseconds: 5)
  var spec = read.spec
  spec.availability = .drain
  _ = try state.apply(Command(conditions: [.nodeVersion(id, read.version)], actions: [.nodeSpec(id, spec, at: later)]), at: 3).get()
  let node = try #require(state.nodes[id])
  #expect(node.status == status)
  #expect(node.spec.availability == .drain)
  #expect((node.version, node.updatedAt) == (3, later))
  guard
    case .failure(.outOfSequence) = state.apply(
      Command(conditions: [.nodeVersion(id, read.version)], actions: [.nodeSpec(id, read.spec, at: later)]), at: 4)
  else { Issue.record("a stale version was accepted"); return }
}
