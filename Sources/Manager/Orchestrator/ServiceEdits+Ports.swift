import Model

// Published ports of specs, against one another and against what services have. What is accepted here the allocator can give, but for what is accepted
// at the same moment.
extension ServiceEdits {
  static func checkPorts(_ spec: ServiceSpec, id: ServiceID?, state: ClusterState, leaving: Set<ServiceID>) throws(EditError) {
    var seen = PortClaims<PortConfig.PublishMode>()
    for port in spec.ports {
      if port.targetPort == 0 { throw .invalid("service \(spec.name): a port's target must be 1 to 65535") }
      if spec.endpointMode == .dnsrr, (port.publishMode ?? .ingress) == .ingress {
        throw .invalid("service \(spec.name): ports published in ingress mode need endpoint mode vip, not dnsrr; publish in host mode or change it")
      }
      if let range = port.publishedRange {
        let text = "\(range.lowerBound)-\(range.upperBound)"
        if range.lowerBound == 0 || (port.publishedPort ?? 0) != 0 {
          throw .invalid("service \(spec.name): the range of ports \(text) begins at 1 at least, and goes with no published port beside it")
        }
        if port.publishMode == .host {
          throw .invalid("service \(spec.name): a range of ports (\(text)) is not supported in host mode: publish one port, or leave the number out")
        }
      }
      guard let claim = PortClaim(port) else { continue }
      if seen.isTaken(claim) { throw .invalid("service \(spec.name): port \(claim) is published twice") }
      seen.insert(claim, port.publishMode ?? .ingress)
    }
    guard !seen.isEmpty else { return }
    for other in state.services.values where other.id != id && !other.pendingDelete && !leaving.contains(other.id) {
      let held = (state.spec(of: other)?.ports ?? []) + other.endpoint.ports
      for port in held {
        guard let claim = PortClaim(port) else { continue }
        // Host-mode ports of two services may live side by side on different nodes.
        guard seen.holders(overlapping: claim).contains(where: { $0 != .host || port.publishMode != .host }) else { continue }
        throw .conflict("port \(claim) is already in use by service \(other.name): publish another port or change that service")
      }
    }
  }

  /// Of one stack, as they are to be: what they fix, and what was chosen for them before and stays.
  static func checkPortsTogether(_ services: [ServiceSpec], state: ClusterState) throws(EditError) {
    var holders = PortClaims<PortOwner>()
    for spec in services {
      for port in spec.ports {
        guard let claim = PortClaim(port) else { continue }
        let own = PortOwner(spec.name, port)
        if let other = holders.other(than: own, at: claim) { throw .conflict("port \(claim) is published by both \(other) and \(spec.name)") }
        holders.insert(claim, own)
      }
    }
    for spec in services {
      for port in spec.ports.kept(of: given(spec, state)) {
        guard let claim = PortClaim(port), let other = holders.other(than: PortOwner(spec.name, port), at: claim) else { continue }
        throw .conflict(
          "port \(claim) is already in use by service \(spec.name), for which it was chosen: publish another port in \(other), or change that service"
        )
      }
    }
  }

  /// A range in which nothing is free would leave its service without a port.
  /// - Parameter leaving: services that the same command removes or updates.
  static func checkRanges(_ specs: [ServiceSpec], state: ClusterState, leaving: Set<ServiceID>) throws(EditError) {
    let wanted = specs.flatMap { spec in unchosen(spec, state).filter { $0.publishedRange != nil }.map { (spec.name, $0) } }
    guard !wanted.isEmpty else { return }
    var taken = claims(state, leaving: leaving)
    for spec in specs {
      for claim in (spec.ports + spec.ports.kept(of: given(spec, state))).compactMap({ PortClaim($0) }) { taken.insert(claim, spec.name) }
    }
    for (name, port) in wanted {
      let all = port.choice.lazy.map { PortClaim($0, port.protocol ?? .tcp, at: port.hostIP) }
      guard let free = all.first(where: { !taken.isTaken($0) }) else {
        let holders = Set(all.flatMap { taken.holders(overlapping: $0) }).sorted()
        let more = holders.count > 3 ? " and others" : ""
        throw .conflict(
          "service \(name): no port of \(port.choice.lowerBound)-\(port.choice.upperBound) is free, they are in use by service "
            + "\(holders.prefix(3).joined(separator: ", "))\(more): publish a wider range")
      }
      taken.insert(free, name)
    }
  }

  /// One port of a spec that has no number yet.
  public struct Choice: Sendable {
    public var service: String
    /// With the numbers that no service has, in the order in which they may be given: the first 64.
    public var candidates: [PortConfig]
    /// No other number may be given.
    public var isComplete: Bool
    /// "8000-8010".
    public var range: String
  }

  /// Where the allocator is to choose a number, what it may choose.
  public static func choices(_ specs: [ServiceSpec], state: ClusterState) -> [Choice] {
    let open = specs.flatMap { spec in unchosen(spec, state).map { (spec.name, $0) } }
    guard !open.isEmpty else { return [] }
    var taken = claims(state, leaving: [])
    for spec in specs { for claim in spec.ports.compactMap({ PortClaim($0) }) { taken.insert(claim, spec.name) } }
    return open.map { name, port in
      let range = port.choice
      func candidates(from first: UInt16, _ most: Int) -> [PortConfig] {
        let all = (0..<range.count).lazy.map { range.lowerBound + UInt16((Int(first - range.lowerBound) + $0) % range.count) }.filter { number in
          number > 0 && !taken.isTaken(PortClaim(number, port.protocol ?? .tcp, at: port.hostIP))
        }
        return all.prefix(most).map {
          var fixed = port
          (fixed.publishedPort, fixed.publishedRange) = ($0, nil)
          return fixed
        }
      }
      let text = "\(range.lowerBound)-\(range.upperBound)"
      guard port.publishedRange == nil else {
        let found = candidates(from: range.lowerBound, candidatesMost + 1)
        return Choice(service: name, candidates: Array(found.prefix(candidatesMost)), isComplete: found.count <= candidatesMost, range: text)
      }
      // The allocator goes on behind what it gave last, which is the highest mostly; a new leader's begins at the first.
      let last = state.services.values.flatMap { $0.endpoint.ports }.compactMap(\.publishedPort).filter(range.contains).max()
      let found = candidates(from: last ?? range.lowerBound, candidatesMost / 2) + candidates(from: range.lowerBound, candidatesMost / 2)
      return Choice(service: name, candidates: found, isComplete: false, range: text)
    }
  }
  static let candidatesMost = 64

  private static func given(_ spec: ServiceSpec, _ state: ClusterState) -> [PortConfig] {
    state.service(named: spec.name).flatMap { $0.pendingDelete ? nil : $0 }?.endpoint.ports ?? []
  }

  private static func unchosen(_ spec: ServiceSpec, _ state: ClusterState) -> [PortConfig] {
    var kept = spec.ports.kept(of: given(spec, state))
    return spec.ports.filter { port in
      guard port.isChosen else { return false }
      guard let place = kept.firstIndex(where: port.accepts) else { return true }
      kept.remove(at: place)
      return false
    }
  }

  /// What services have or fix, with their names.
  private static func claims(_ state: ClusterState, leaving: Set<ServiceID>) -> PortClaims<String> {
    var claims = PortClaims<String>()
    for service in state.services.values where !service.pendingDelete && !leaving.contains(service.id) {
      for port in (state.spec(of: service)?.ports ?? []) + service.endpoint.ports {
        if let claim = PortClaim(port) { claims.insert(claim, service.name) }
      }
    }
    return claims
  }
}
