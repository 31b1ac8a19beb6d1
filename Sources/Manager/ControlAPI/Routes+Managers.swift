import API
import Model
import NIOCore
import Surroundings

/// The members of the Raft group. `role` in a node's spec says whether its manager shall vote: `manager` or, for one that only keeps a
/// copy (a learner), `worker`. So docker's `node promote` and `node demote` do what `orch manager promote` and `demote` do.
extension ControlAPI {
  func managers() async throws -> APIResponse {
    let list = await backend.managers().map { record in
      ManagerInspect(
        raftID: record.raftID.rawValue, nodeID: record.node.description, hostname: record.hostname, addr: record.address,
        leader: record.leader, role: record.votes ? .voter : .learner, term: record.term, reachability: record.reachability,
        matchIndex: record.matchIndex, lag: record.lag)
    }
    return .json(list)
  }

  func promoteManager(_ name: String) async throws -> APIResponse {
    try await promote(try await backend.state().lookUpNode(name), version: nil)
    return .noContent
  }

  func demoteManager(_ name: String, force: Bool, _ request: APIRequest) async throws -> APIResponse {
    let node = try await backend.state().lookUpNode(name)
    return try await unlessLeading(node, request) {
      try await demote(node, version: nil, force: force)
      return .noContent
    }
  }

  /// Its manager stops; the node stays in the cluster as a worker.
  func removeManager(_ name: String, force: Bool, _ request: APIRequest) async throws -> APIResponse {
    let node = try await backend.state().lookUpNode(name)
    // A removal that was interrupted after its first step goes on.
    let isMember = await isMember(node)
    guard isMember || node.manager != nil else {
      if request.isAgain, node.spec.role == .worker { return .noContent }
      throw APIError(409, "node \(node.hostname) is no manager: see orch managers")
    }
    return try await unlessLeading(node, request) {
      try await backend.removeManager(node.id, force: force)
      _ = try await backend.propose(Command(actions: [.nodeManager(node.id, nil)]))
      try await setRole(.worker, of: node, version: nil)
      return .noContent
    }
  }

  func transferLeadership(_ request: APIRequest) async throws -> APIResponse {
    let wanted = try await JSON.body(LeadershipTransfer.self, of: request).node
    let state = try await backend.state()
    var target = try wanted.map { try state.lookUpNode($0).id }
    if target == nil, request.isAgain { target = await backend.info().node }
    let leader = try await backend.transferLeadership(to: target)
    return .json(LeadershipTransfer(node: state.nodes[leader]?.hostname ?? leader.description))
  }

  // MARK: - Roles

  func promote(_ node: Node, version: UInt64?) async throws {
    guard await isMember(node) else {
      throw APIError(
        409,
        "node \(node.hostname) runs no orch-manager, and none can be started from here: on that host run the command that `orch manager add` prints; "
          + "it becomes a manager by itself")
    }
    try await setRole(.manager, of: node, version: version)
    try await backend.setVote(node.id, true, force: false)
  }

  func demote(_ node: Node, version: UInt64?, force: Bool) async throws {
    guard await isMember(node) else { throw APIError(409, "node \(node.hostname) is no manager: see orch managers") }
    // First the wish, or the leader would promote it again at once.
    try await setRole(.worker, of: node, version: version)
    do { try await backend.setVote(node.id, false, force: force) } catch {
      // It keeps its vote, and what users see says so.
      try? await setRole(.manager, of: node, version: nil)
      throw error
    }
  }

  /// - Parameter version: the user's, with the rest of `node.spec`; nil: the role alone, of the node as it is by now.
  private func setRole(_ role: NodeRole, of node: Node, version: UInt64?) async throws {
    if let version {
      var spec = node.spec
      spec.role = role
      _ = try await backend.propose(Command(conditions: [.nodeVersion(node.id, version)], actions: [.nodeSpec(node.id, spec, at: .now)]))
      return
    }
    try await edit { state in
      guard let now = state.nodes[node.id] else { throw APIError(404, "node \(node.id) not found") }
      var spec = now.spec
      spec.role = role
      if spec == now.spec { return (Command(actions: []), ()) }
      return (Command(conditions: [.nodeVersion(now.id, now.version)], actions: [.nodeSpec(now.id, spec, at: .now)]), ())
    }
  }

  private func isMember(_ node: Node) async -> Bool { await backend.managers().contains { $0.node == node.id } }

  /// A leader cannot take its own vote: it hands over first, and whoever leads then is given the request.
  func unlessLeading(_ node: Node, _ request: APIRequest, _ body: () async throws -> APIResponse) async throws -> APIResponse {
    let managers = await backend.managers()
    guard managers.contains(where: { $0.node == node.id && $0.leader }) else { return try await body() }
    guard managers.contains(where: { $0.votes && $0.node != node.id }) else {
      throw APIError(409, "manager \(node.hostname) is the only one with a vote, and a cluster needs one: add another first (orch manager add)")
    }
    _ = try await backend.transferLeadership(to: nil)
    return await serve(request)
  }
}

extension APIRequest {
  /// Whoever sent it does not know whether it was carried out.
  var isAgain: Bool { header(ControlAPI.again.name) != nil }
}

extension ManagerRecord {
  var reachability: String { reachable.map { $0 ? "reachable" : "unreachable" } ?? "unknown" }
}
