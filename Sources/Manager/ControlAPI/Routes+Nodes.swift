import API
import Model
import Surroundings

extension ControlAPI {
  func listNodes(_ target: Target) async throws -> APIResponse {
    let filters = try Filters(target, accepted: ["id", "label", "membership", "name", "node.label", "role"])
    let state = try await backend.state()
    let managers = await managersByNode()
    let nodes = state.nodes.values.filter { node in
      filters.match("id") { node.id.description.hasPrefix($0) } && filters.match("name") { node.hostname.hasPrefix($0) }
        && filters.match("role") { node.spec.role.rawValue == $0 } && filters.match("membership") { $0 == "accepted" }
        && filters.matchLabels("node.label", node.spec.labels ?? [:]) && filters.matchLabels("label", node.description?.engine.labels ?? [:])
    }
    return .json(nodes.sorted { ($0.hostname, $0.id) < ($1.hostname, $1.id) }.map { NodeInspect($0, manager: managers[$0.id]) })
  }

  func inspectNode(_ name: String) async throws -> APIResponse {
    let managers = await managersByNode()
    let node = try await backend.state().lookUpNode(name == "self" ? await backend.info().node.description : name)
    return .json(NodeInspect(node, manager: managers[node.id]))
  }

  func updateNode(_ name: String, _ target: Target, _ request: APIRequest) async throws -> APIResponse {
    let version = try target.version()
    let spec = try await JSON.body(NodeSpec.self, of: request)
    let node = try await backend.state().lookUpNode(name)
    if request.isAgain, spec == node.spec, version < node.version { return APIResponse(status: 200) }
    if spec.role != node.spec.role { return try await changeRole(of: node, to: spec, version: version, request) }
    _ = try await backend.propose(Command(conditions: [.nodeVersion(node.id, version)], actions: [.nodeSpec(node.id, spec, at: .now)]))
    return APIResponse(status: 200)
  }

  /// docker node promote and demote. What else the spec changes is proposed with it.
  private func changeRole(of node: Node, to spec: NodeSpec, version: UInt64, _ request: APIRequest) async throws -> APIResponse {
    guard version == node.version else { throw Refusal.outOfSequence }
    var node = node
    node.spec = spec
    if spec.role == .manager {
      try await promote(node, version: version)
      return APIResponse(status: 200)
    }
    var again = request
    again.body = APIBody(bytes: JSON.encode(spec))
    let known = node
    return try await unlessLeading(node, again) {
      try await demote(known, version: version, force: false)
      return APIResponse(status: 200)
    }
  }

  func removeNode(_ name: String, force: Bool, _ request: APIRequest) async throws -> APIResponse {
    let node: Node
    do { node = try await backend.state().lookUpNode(name) } catch let error as APIError where error.status == 404 && request.isAgain {
      return APIResponse(status: 200)
    }
    if !force, node.status.state == .ready {
      throw APIError(400, "node \(node.id) is not down and can't be removed: stop its orch-agent first, or use --force")
    }
    return try await unlessLeading(node, request) {
      // Not a member any more first: a row without its member would be forgotten, a member without its row would vote on unseen.
      if node.manager != nil { try await backend.removeManager(node.id, force: force) }
      _ = try await backend.propose(Command(actions: [.removeNode(node.id)]))
      return APIResponse(status: 200)
    }
  }

  private func managersByNode() async -> [NodeID: NodeInspect.Manager] {
    var found: [NodeID: NodeInspect.Manager] = [:]
    // One without a vote is no manager to docker's clients.
    for record in await backend.managers() where record.votes {
      found[record.node] = NodeInspect.Manager(leader: record.leader ? true : nil, reachability: record.reachability, addr: record.address)
    }
    return found
  }
}
