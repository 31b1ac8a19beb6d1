import Model

// Published ports. A number that a service fixes it is given, or refused with the name of who has it; one that is chosen goes around all that is known to be in
// the way.
extension Allocator {
  /// Hosts were asked who has `asked`: processes have `taken`, as far as they answered. Kept until somebody asks for the same again.
  public mutating func learn(asked: [PortClaim], taken: [PortClaim]) {
    // A hint: without it a number is given that one of the hosts does not answer.
    if occupied.count > Self.occupiedMax { occupied = [:] }
    for claim in asked {
      let found = taken.filter(claim.overlaps)
      occupied[claim] = found.isEmpty ? nil : found
    }
  }
  static let occupiedMax = 4_096

  /// Services that have a number which `ports` fix, whatever they want by now.
  public func holders(inTheWayOf ports: [PortConfig], of service: ServiceID) -> Set<ServiceID> {
    Set(ports.flatMap { port in PortClaim(port).map { holders(of: $0, port.publishMode, besides: service) } ?? [] })
  }

  /// Host-mode ports of two services may live side by side on different hosts.
  private func holders(of claim: PortClaim, _ mode: PortConfig.PublishMode?, besides service: ServiceID) -> [ServiceID] {
    (ports.holders(overlapping: claim) + (mode == .host ? [] : hostPorts.holders(overlapping: claim))).filter { $0 != service }
  }

  mutating func publish(_ wanted: [PortConfig], for service: Service, state: ClusterState) throws(AllocationRefusal) -> [PortConfig] {
    var given: [PortConfig] = []
    let fixed = wanted.compactMap { PortClaim($0) }
    for var port in wanted {
      if port.isChosen { port.publishedPort = try number(for: port, service, avoiding: fixed + given.compactMap { PortClaim($0) }, state: state) }
      if let claim = PortClaim(port) {
        let isHost = port.publishMode == .host
        // What it has it keeps, though another should have it in host mode, too: that may be older than this rule.
        let has = service.endpoint.ports.contains { PortClaim($0) == claim && ($0.publishMode == .host) == isHost }
        let others =
          has ? ports.holders(overlapping: claim).filter { $0 != service.id && !isHost } : holders(of: claim, port.publishMode, besides: service.id)
        if let holder = others.first {
          let name = state.services[holder]?.name ?? "\(holder)"
          throw AllocationRefusal("port \(claim) is already in use by service \(name): publish another port or change that service")
        }
        if !isHost { ports.insert(claim, service.id) }
      }
      given.append(port)
    }
    return given
  }

  private mutating func number(
    for port: PortConfig, _ service: Service, avoiding: [PortClaim], state: ClusterState
  ) throws(AllocationRefusal) -> UInt16 {
    func claim(_ number: UInt16) -> PortClaim { PortClaim(number, port.protocol ?? .tcp, at: port.hostIP) }
    let had = service.endpoint.ports.filter(port.accepts).compactMap(\.publishedPort)
    let kept = had.first { number in
      let claim = claim(number)
      return ports.holders(overlapping: claim).allSatisfy { $0 == service.id } && !avoiding.contains(where: claim.overlaps)
    }
    if let kept { return kept }
    let range = port.choice
    // Of any number, another each time: what became free waits until all others had their turn.
    let first = port.publishedRange == nil ? nextPort : range.lowerBound
    let numbers = (0..<range.count).lazy.map { range.lowerBound + UInt16((Int(first - range.lowerBound) + $0) % range.count) }
    let busy = busy(state)
    // Where all that is left is some process's, its host does not answer and says so; the others do.
    for known in [busy, PortClaims()] {
      let free = numbers.first { number in
        let claim = claim(number)
        return ![ports, hostPorts, declared].contains { $0.isTaken(claim) } && !known.isTaken(claim) && !avoiding.contains(where: claim.overlaps)
      }
      guard let free else { continue }
      if port.publishedRange == nil { nextPort = free == range.upperBound ? range.lowerBound : free + 1 }
      return free
    }
    if port.publishedRange == nil { throw AllocationRefusal("no port of 30000-32767 is free: name the port to publish") }
    throw AllocationRefusal("no port of \(range.lowerBound)-\(range.upperBound) is free: publish a wider range")
  }

  /// What processes of hosts are known to have: of what hosts were asked for, and of what is published.
  private func busy(_ state: ClusterState) -> PortClaims<Bool> {
    var busy = PortClaims<Bool>()
    for claim in occupied.values.joined() { busy.insert(claim, true) }
    for node in state.nodes.values { for conflict in node.description?.portConflicts ?? [] { busy.insert(conflict.claim, true) } }
    return busy
  }
}
