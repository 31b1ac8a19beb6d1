import API
import Model
import NIOCore

/// What one host answers, and this manager hands on.
extension ControlAPI {
  /// POST /build, Docker's. The host: `node`, else that of the manager that was asked, else any that is ready.
  func build(_ target: Target, _ request: APIRequest) async throws -> APIResponse {
    let node = try await hostToBuild(target["node"], asked: request.header(Self.askedHeader))
    var response = try await backend.ask(request, on: node.id)
    // It answers when it has the whole context; from then on the client's leaving ends the build.
    response.hasReadRequest = true
    return response
  }

  func hostToBuild(_ target: Target) async throws -> Node { try await hostToBuild(target["node"], asked: nil) }

  /// On a request that another manager was asked: that one's node.
  static let askedHeader = "Orch-Asked"

  private func hostToBuild(_ name: String?, asked: String?) async throws -> Node {
    let state = try await backend.state()
    func isReady(_ node: Node) -> Bool { node.status.state == .ready }
    if let name, !name.isEmpty {
      let node = try state.lookUpNode(name)
      guard isReady(node) else { throw APIError(503, "host \(node.hostname) is \(node.status.state): build on another") }
      return node
    }
    var own = asked.flatMap { NodeID($0) }
    if own == nil { own = await backend.info().node }
    if let own, let node = state.nodes[own], isReady(node) { return node }
    guard let node = state.nodes.values.filter(isReady).min(by: { $0.hostname < $1.hostname }) else {
      throw APIError(503, "no host is ready to build: look at orch nodes")
    }
    return node
  }

  /// Brings an image that one host has to every other that is ready: one JSON line a host, as for an image that is loaded.
  func distributeImage(_ target: Target) async throws -> APIResponse {
    guard let name = target["name"], !name.isEmpty, let from = target["from"], !from.isEmpty else {
      throw APIError(400, "name the image and the host that has it: /orch/v1/images/distribute?name=NAME&from=NODE")
    }
    let state = try await backend.state()
    let source = try state.lookUpNode(from)
    let others = state.nodes.values.filter { $0.status.state == .ready && $0.id != source.id }.sorted { $0.hostname < $1.hostname }
    if others.isEmpty { return APIResponse(status: 200, headers: [APIHeader("Content-Type", "application/json")], body: .empty) }
    return try await spread(.archive, savedImages([name], oci: true, on: source), to: others)
  }
}
