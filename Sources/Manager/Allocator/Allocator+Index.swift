import Model

extension Allocator {
  /// Everything anew from the rows. O(state).
  public mutating func reset(_ state: ClusterState) {
    let (resting, occupied) = (resting, occupied)
    self = Allocator()
    (self.resting, self.occupied) = (resting, occupied)
    for network in state.networks.values { observe(.network(old: nil, new: network), state: state) }
    for service in state.services.values { observe(.service(old: nil, new: service), state: state) }
    for node in state.nodes.values { observe(.node(old: nil, new: node), state: state) }
    for task in state.tasks.values { observe(.task(old: nil, new: task), state: state) }
  }

  /// What was freed until now is in the log: whether it rests is told by `resting`.
  public mutating func begin() { for id in spaces.keys where !spaces[id]!.released.isEmpty { spaces[id]!.released = [] } }

  /// Follows a change. Seeing the same one again (first tried on a copy, then applied) changes nothing.
  /// - Parameter state: the state after it.
  public mutating func observe(_ change: StateChange, state: ClusterState) {
    switch change {
    case .network(let old, let new):
      if let old, new == nil { forget(old) }
      if let new { learn(new) }
    case .node(let old, let new): move(old?.attachments ?? [], new?.attachments ?? [], .node((new ?? old)!.id))
    case .service(let old, let new):
      let id = (new ?? old)!.id
      move(old?.endpoint.virtualIPs ?? [], new?.endpoint.virtualIPs ?? [], .service(id))
      for port in old?.endpoint.ports ?? [] {
        guard let claim = PortClaim(port) else { continue }
        if port.publishMode == .host { hostPorts.remove(claim, id) } else { ports.remove(claim, id) }
      }
      // A service on its way out answers no port any more: the next one may have it.
      let stays = new.flatMap { $0.pendingDelete ? nil : $0 }
      for port in stays?.endpoint.ports ?? [] {
        guard let claim = PortClaim(port) else { continue }
        if port.publishMode == .host { hostPorts.insert(claim, id) } else if !ports.isTaken(claim) { ports.insert(claim, id) }
      }
      declare(id, stays.flatMap { state.spec(of: $0) })
    case .task(let old, let new):
      let id = (new ?? old)!.id
      let held = new.map { $0.status.state.isTerminal ? [] : $0.attachments } ?? []
      if old?.attachments == held { return }
      move(old?.attachments ?? [], held, .task(id))
    case .cluster, .revision, .volume, .stack, .file: break
    }
  }

  private mutating func declare(_ id: ServiceID, _ spec: ServiceSpec?) {
    let claims = spec?.ports.compactMap { PortClaim($0) } ?? []
    let before = declarations[id] ?? []
    if claims == before { return }
    for claim in before { declared.remove(claim, id) }
    for claim in claims { declared.insert(claim, id) }
    declarations[id] = claims.isEmpty ? nil : claims
  }

  private mutating func learn(_ network: Network) {
    if network.spec.ingress == true { ingress = network.id }
    if let vni = network.vni { vnis[vni] = network.id }
    subnets6[network.id] = network.subnet6
    guard let prefix = network.subnet else { return }
    subnets[network.id] = prefix
    guard spaces[network.id]?.prefix != prefix else { return }
    var space = Space(prefix, (try? DeclaredSubnet(network.spec)).flatMap { $0 })
    if let declared = (try? DeclaredSubnet6(network.spec)).flatMap({ $0 }) {
      space.reserved.formUnion(declared.reserved.compactMap { declared.prefix.counterpart(of: $0, in: prefix)?.rawValue })
    }
    spaces[network.id] = space
  }

  private mutating func forget(_ network: Network) {
    if ingress == network.id { ingress = nil }
    if let vni = network.vni, vnis[vni] == network.id { vnis[vni] = nil }
    subnets[network.id] = nil
    subnets6[network.id] = nil
    spaces[network.id] = nil
  }

  private mutating func move(_ old: [NetworkAttachment], _ new: [NetworkAttachment], _ owner: Owner) {
    if old == new && !new.isEmpty && new.allSatisfy({ spaces[$0.network]?.owners[$0.address.rawValue] == owner }) { return }
    for attachment in old where !new.contains(attachment) && release(attachment, owner) {
      spaces[attachment.network]?.released.insert(attachment.address.rawValue)
    }
    for attachment in new { spaces[attachment.network]?.claim(attachment.address.rawValue, owner) }
  }

  /// Whether it had it.
  @discardableResult
  mutating func release(_ attachment: NetworkAttachment, _ owner: Owner) -> Bool {
    guard spaces[attachment.network]?.owners[attachment.address.rawValue] == owner else { return false }
    spaces[attachment.network]?.owners[attachment.address.rawValue] = nil
    return true
  }

  /// Whether a task or a service still has an address on the network.
  public func isInUse(_ network: NetworkID) -> Bool {
    spaces[network]?.owners.values.contains { if case .node = $0 { false } else { true } } ?? false
  }
}

extension Allocator.Space {
  init(_ prefix: IPv4Prefix, _ declared: DeclaredSubnet?) {
    let range = declared?.range ?? prefix
    let first = max(prefix.first.rawValue + 2, range.first.rawValue)
    let last = min(prefix.last.rawValue - 1, range.last.rawValue)
    self.init(prefix: prefix, cursor: first, bounds: first...max(first, last))
    reserved = Set((declared?.auxiliary ?? []).map(\.rawValue) + [declared?.gateway?.rawValue].compactMap { $0 })
    // A range of the first two addresses or the broadcast alone has none to give.
    if last < first { reserved.insert(first) }
  }

  /// The first owner stays: two rows with one address can only come from outside, and the older one must keep it.
  mutating func claim(_ address: UInt32, _ owner: Allocator.Owner) {
    if owners[address] == nil { owners[address] = owner }
  }

  /// The next free address after the one given last; nil when all are in use or at rest.
  mutating func take(_ owner: Allocator.Owner, resting: Set<IPv4Address>) -> IPv4Address? {
    let (first, last) = (bounds.lowerBound, bounds.upperBound)
    var address = cursor
    for _ in 0...(last - first) {
      if address < first || address > last { address = first }
      if owners[address] == nil, !reserved.contains(address), !released.contains(address), !resting.contains(IPv4Address(address)) {
        owners[address] = owner
        cursor = address + 1
        return IPv4Address(address)
      }
      address += 1
    }
    return nil
  }
}
