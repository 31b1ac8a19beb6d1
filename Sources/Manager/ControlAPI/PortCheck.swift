import API
import Model
import Scheduler

// A published port answers on every host, so a process that has it on one of them is in the way. One in host mode is wanted where tasks are: by a global
// service on every host that it may be on, by others on one at least. It is refused before anything starts; what is taken later (a host that
// joins, or starts with such a process) is told in the node's description.
extension ControlAPI {
  /// Asks every ready host about the ports of `specs` that nobody publishes yet, all at once. A host that does not answer is left out.
  func refuseTakenPorts(_ specs: [ServiceSpec]) async throws {
    let wanted = specs.flatMap { spec in spec.ports.filter { ($0.publishMode ?? .ingress) == .ingress && ($0.publishedPort ?? 0) > 0 } }
    let onHosts = specs.filter { $0.ports.contains { $0.publishMode == .host && ($0.publishedPort ?? 0) > 0 } }
    guard !wanted.isEmpty || !onHosts.isEmpty else { return }
    let state = try await backend.state()
    // Those that a service has are held by the agents, or known to be in the way.
    let held = Set(state.services.values.flatMap { $0.endpoint.ports }.compactMap { PortClaim($0) })
    let new = wanted.filter { port in PortClaim(port).map { !held.contains($0) } ?? false }
    let asked = new + onHosts.flatMap { $0.ports.filter { $0.publishMode == .host && ($0.publishedPort ?? 0) > 0 } }
    guard !asked.isEmpty else { return }
    let nodes = state.nodes.values.filter { $0.status.state == .ready }.sorted { ($0.hostname, $0.id) < ($1.hostname, $1.id) }
    let backend = backend
    let found = await withTaskGroup(of: (Int, [NodeDescription.PortConflict]).self) { group in
      for (place, node) in nodes.enumerated() {
        group.addTask { (place, (try? await backend.portConflicts(asked, on: node.id)) ?? []) }
      }
      return await group.reduce(into: [Int: [NodeDescription.PortConflict]]()) { $0[$1.0] = $1.1 }
    }
    var told: [String] = []
    let everywhere = new.compactMap { PortClaim($0) }
    let needed = onHosts.map { spec in
      let constraints = (spec.taskTemplate.placement?.constraints ?? []).compactMap { try? Constraint($0) }
      let possible = nodes.indices.filter { place in
        nodes[place].spec.availability == .active && constraints.allSatisfy { $0.admits(nodes[place]) }
      }
      let claims = spec.ports.filter { $0.publishMode == .host }.compactMap { PortClaim($0) }
      let taken = possible.filter { place in (found[place] ?? []).contains { $0.claim.isAmong(claims) } }
      return (claims, spec.isGlobal || taken.count == possible.count ? Set(taken) : [])
    }
    for (place, node) in nodes.enumerated() {
      for conflict in found[place] ?? [] {
        let claim = conflict.claim
        guard claim.isAmong(everywhere) || needed.contains(where: { claim.isAmong($0.0) && $0.1.contains(place) }) else { continue }
        told.append("\(claim) by \(conflict.holderText) on \(node.hostname)")
      }
    }
    guard !told.isEmpty else { return }
    let more = told.count > 3 ? ", and \(told.count - 3) more" : ""
    throw APIError(
      409,
      "a published port is taken: \(told.prefix(3).joined(separator: ", "))\(more). Stop that process, or publish another port; nothing was changed")
  }
}

extension PortClaim {
  fileprivate func isAmong(_ claims: [PortClaim]) -> Bool { claims.contains(where: overlaps) }
}
