import API
import Model
import Orchestrator
import Scheduler

// A published port answers on every host, so a process that has it on one of them is in the way. One in host mode is wanted where tasks are: by a global
// service on every host that it may be on, by others on one at least. It is refused before anything starts; what is taken later (a host that
// joins, or starts with such a process) is told in the node's description. Where the number is the allocator's to choose, hosts are asked about those that it
// may choose, and it is told what they say.
extension ControlAPI {
  /// Asks every ready host about the ports of `specs` that nobody publishes yet, all at once. A host that does not answer is left out.
  func refuseTakenPorts(_ specs: [ServiceSpec]) async throws {
    let wanted = specs.flatMap { spec in spec.ports.filter { ($0.publishMode ?? .ingress) == .ingress && ($0.publishedPort ?? 0) > 0 } }
    let onHosts = specs.filter { $0.ports.contains { $0.publishMode == .host && ($0.publishedPort ?? 0) > 0 } }
    guard !wanted.isEmpty || !onHosts.isEmpty || specs.contains(where: { $0.ports.contains(where: \.isChosen) }) else { return }
    let state = try await backend.state()
    let choices = ServiceEdits.choices(specs, state: state)
    let candidates = choices.flatMap(\.candidates)
    // Those that a service has are held by the agents, or known to be in the way.
    let held = Set(state.services.values.flatMap { $0.endpoint.ports }.compactMap { PortClaim($0) })
    let new = wanted.filter { port in PortClaim(port).map { !held.contains($0) } ?? false }
    let fixed = new + onHosts.flatMap { $0.ports.filter { $0.publishMode == .host && ($0.publishedPort ?? 0) > 0 } }
    // Several ports may have the same candidates.
    let asked = fixed + Dictionary(candidates.map { (PortClaim($0), $0) }, uniquingKeysWith: { first, _ in first }).values
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
    let taken = nodes.indices.flatMap { place in (found[place] ?? []).map { (conflict: $0, host: nodes[place].hostname) } }
    if !candidates.isEmpty { await backend.learn(asked: candidates.compactMap { PortClaim($0) }, taken: taken.map(\.conflict.claim)) }
    guard told.isEmpty else { throw Self.refusal("a published port is taken", told, "publish another port") }
    try refuseFullRanges(choices, taken)
  }

  private static func refusal(_ what: String, _ holders: [String], _ advice: String) -> APIError {
    let more = holders.count > 3 ? ", and \(holders.count - 3) more" : ""
    return APIError(409, "\(what): \(holders.prefix(3).joined(separator: ", "))\(more). Stop that process, or \(advice); nothing was changed")
  }

  /// A range of which processes have what services have not.
  private func refuseFullRanges(_ choices: [ServiceEdits.Choice], _ taken: [(conflict: NodeDescription.PortConflict, host: String)]) throws {
    var given: [PortClaim] = []
    for choice in choices {
      let claims = choice.candidates.compactMap { PortClaim($0) }
      let all = taken.map(\.conflict.claim) + given
      if let free = claims.first(where: { !$0.isAmong(all) }) {
        given.append(free)
        continue
      }
      let told = taken.filter { $0.conflict.claim.isAmong(claims) }.map { "\($0.conflict.claim) by \($0.conflict.holderText) on \($0.host)" }
      guard choice.isComplete, !told.isEmpty else { continue }
      throw Self.refusal("service \(choice.service): no port of \(choice.range) is free", told, "publish a wider range")
    }
  }
}

extension PortClaim {
  fileprivate func isAmong(_ claims: [PortClaim]) -> Bool { claims.contains(where: overlaps) }
}
