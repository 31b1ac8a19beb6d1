import API
import Model

// A published port answers on every host, so a process that has it on one of them is in the way. It is refused before anything starts;
// what is taken later (a host that joins, or starts with such a process) is told in the node's description.
extension ControlAPI {
  /// Asks every ready host about the ports of `specs` that nobody publishes yet, all at once. A host that does not answer is left out.
  func refuseTakenPorts(_ specs: [ServiceSpec]) async throws {
    let wanted = specs.flatMap { spec in spec.ports.filter { ($0.publishMode ?? .ingress) == .ingress && ($0.publishedPort ?? 0) > 0 } }
    guard !wanted.isEmpty else { return }
    let state = try await backend.state()
    // Those that a service has are held by the agents, or known to be in the way.
    let held = Set(state.services.values.flatMap { $0.endpoint.ports }.map(Claim.init))
    let new = wanted.filter { !held.contains(Claim($0)) }
    guard !new.isEmpty else { return }
    let nodes = state.nodes.values.filter { $0.status.state == .ready }.sorted { ($0.hostname, $0.id) < ($1.hostname, $1.id) }
    let backend = backend
    let found = await withTaskGroup(of: (Int, [NodeDescription.PortConflict]).self) { group in
      for (place, node) in nodes.enumerated() {
        group.addTask { (place, (try? await backend.portConflicts(new, on: node.id)) ?? []) }
      }
      return await group.reduce(into: [Int: [NodeDescription.PortConflict]]()) { $0[$1.0] = $1.1 }
    }
    var told: [String] = []
    for (place, node) in nodes.enumerated() {
      for conflict in found[place] ?? [] {
        told.append("\(conflict.port)/\(conflict.protocol.rawValue) by \(conflict.holderText) on \(node.hostname)")
      }
    }
    guard !told.isEmpty else { return }
    let more = told.count > 3 ? ", and \(told.count - 3) more" : ""
    throw APIError(
      409,
      "a published port is taken: \(told.prefix(3).joined(separator: ", "))\(more). Stop that process, or publish another port; nothing was changed")
  }

  private struct Claim: Hashable {
    var port: UInt16
    var kind: PortConfig.PortProtocol
    init(_ config: PortConfig) { (port, kind) = (config.publishedPort ?? 0, config.protocol ?? .tcp) }
  }
}
