import Model

extension Allocator {
  /// Everything anew from the rows. O(state).
  public mutating func reset(_ state: ClusterState) {
    self = Allocator()
    for network in state.networks.values { observe(.network(old: nil, new: network)) }
    for service in state.services.values { observe(.service(old: nil, new: service)) }
    for node in state.nodes.values { observe(.node(old: nil, new: node)) }
    for task in state.tasks.values { observe(.task(old: nil, new: task)) }
  }

  /// Follows a change. Seeing the same one again (first tried on a copy, then applied) changes nothing.
  public mutating func observe(_ change: StateChange) {
    switch change {
    case .network(let old, let new):
      if let old, new == nil { forget(old) }
      if let new { learn(new) }
    case .node(let old, let new): move(old?.attachments ?? [], new?.attachments ?? [], .node((new ?? old)!.id))
    case .service(let old, let new):
      let id = (new ?? old)!.id
      move(old?.endpoint.virtualIPs ?? [], new?.endpoint.virtualIPs ?? [], .service(id))
      for port in old?.endpoint.ports ?? [] { if let claim = PortClaim(ingress: port), ports[claim] == id { ports[claim] = nil } }
      // A service on its way out answers no port any more: the next one may have it.
      if let new, !new.pendingDelete {
        for port in new.endpoint.ports { if let claim = PortClaim(ingress: port), ports[claim] == nil { ports[claim] = id } }
      }
    case .task(let old, let new):
      let id = (new ?? old)!.id
      let held = new.map { $0.status.state.isTerminal ? [] : $0.attachments } ?? []
      if old?.attachments == held { return }
      move(old?.attachments ?? [], held, .task(id))
    case .cluster, .revision, .volume, .stack, .file: break
    }
  }

  private mutating func learn(_ network: Network) {
    if network.spec.ingress == true { ingress = network.id }
    if let vni = network.vni { vnis[vni] = network.id }
    guard let prefix = network.subnet else { return }
    subnets[network.id] = prefix
    guard spaces[network.id]?.prefix != prefix else { return }
    let gateway = network.spec.ipam?.config?.first?.gateway.flatMap { IPv4Address($0) }?.rawValue
    spaces[network.id] = Space(prefix: prefix, cursor: prefix.first.rawValue + 2, gateway: gateway)
  }

  private mutating func forget(_ network: Network) {
    if ingress == network.id { ingress = nil }
    if let vni = network.vni, vnis[vni] == network.id { vnis[vni] = nil }
    subnets[network.id] = nil
    spaces[network.id] = nil
  }

  private mutating func move(_ old: [NetworkAttachment], _ new: [NetworkAttachment], _ owner: Owner) {
    if old == new && !new.isEmpty && new.allSatisfy({ spaces[$0.network]?.owners[$0.address.rawValue] == owner }) { return }
    for attachment in old where !new.contains(attachment) { release(attachment, owner) }
    for attachment in new { spaces[attachment.network]?.claim(attachment.address.rawValue, owner) }
  }

  mutating func release(_ attachment: NetworkAttachment, _ owner: Owner) {
    guard spaces[attachment.network]?.owners[attachment.address.rawValue] == owner else { return }
    spaces[attachment.network]?.owners[attachment.address.rawValue] = nil
  }

  /// Whether a task or a service still has an address on the network.
  public func isInUse(_ network: NetworkID) -> Bool {
    spaces[network]?.owners.values.contains { if case .node = $0 { false } else { true } } ?? false
  }
}

extension PortClaim {
  /// nil for host mode, whose ports are a node's matter, and for a number that was not chosen yet.
  init?(ingress config: PortConfig) {
    guard (config.publishMode ?? .ingress) == .ingress else { return nil }
    self.init(config)
  }
}

extension Allocator.Space {
  /// The first owner stays: two rows with one address can only come from outside, and the older one must keep it.
  mutating func claim(_ address: UInt32, _ owner: Allocator.Owner) {
    if owners[address] == nil { owners[address] = owner }
  }

  /// The next free address after the one given last; nil when all are in use.
  mutating func take(_ owner: Allocator.Owner) -> IPv4Address? {
    let (first, last) = (prefix.first.rawValue + 2, prefix.last.rawValue - 1)
    var address = cursor
    for _ in 0...(last - first) {
      if address < first || address > last { address = first }
      if owners[address] == nil, address != gateway {
        owners[address] = owner
        cursor = address + 1
        return IPv4Address(address)
      }
      address += 1
    }
    return nil
  }
}
