import Model

extension Allocator {
  /// What a service should have: its ports with numbers, a virtual IP on each of its networks. Keeps what it has.
  /// - Throws: when a port is another's or a network is full; nothing is given then.
  public mutating func endpoint(for service: Service, spec: ServiceSpec, state: ClusterState) throws(AllocationRefusal) -> Service.Endpoint {
    let before = self
    do throws(AllocationRefusal) {
      try Self.checkApart(service.name, networks(of: spec).compactMap { state.networks[$0] })
      var endpoint = Service.Endpoint()
      endpoint.ports = try publish(spec.ports, for: service, state: state)
      if spec.endpointMode == .vip {
        endpoint.virtualIPs = try attach(networks(of: spec), .service(service.id), keeping: service.endpoint.virtualIPs, state: state)
      }
      return endpoint
    } catch {
      self = before
      throw error
    }
  }

  /// A task's addresses, one on each of its service's networks (and ingress when it publishes there).
  public mutating func attachments(for task: TaskID, spec: ServiceSpec, state: ClusterState) throws(AllocationRefusal) -> [NetworkAttachment] {
    try attach(networks(of: spec), .task(task), keeping: [], state: state)
  }

  /// A node's own address on each of `networks`, keeping those it has.
  public mutating func attachments(
    for node: Node, on networks: [NetworkID], state: ClusterState
  ) throws(AllocationRefusal) -> [NetworkAttachment] {
    try attach(networks, .node(node.id), keeping: node.attachments, state: state)
  }

  /// In the spec's order, ingress last.
  public func networks(of spec: ServiceSpec) -> [NetworkID] {
    var ids = spec.networks.compactMap { NetworkID($0.target) }
    if spec.publishesThroughIngress, let ingress, !ids.contains(ingress) { ids.append(ingress) }
    return ids
  }

  /// Takes back what was given to a task that gets no place after all.
  public mutating func withdraw(_ attachments: [NetworkAttachment], from task: TaskID) {
    for attachment in attachments { release(attachment, .task(task)) }
  }

  private mutating func attach(
    _ networks: [NetworkID], _ owner: Owner, keeping: [NetworkAttachment], state: ClusterState
  ) throws(AllocationRefusal) -> [NetworkAttachment] {
    var given: [NetworkAttachment] = []
    for id in networks {
      if let kept = keeping.first(where: { $0.network == id }), spaces[id]?.owners[kept.address.rawValue] == owner {
        given.append(kept)
        continue
      }
      let rests = resting.networks.contains(id)
      guard !rests, let address = spaces[id]?.take(owner, resting: resting.addresses[id] ?? []) else {
        for attachment in given where !keeping.contains(attachment) { release(attachment, owner) }
        throw AllocationRefusal(noAddress(on: id, state: state))
      }
      given.append(NetworkAttachment(network: id, address: address))
    }
    return given
  }

  private func noAddress(on id: NetworkID, state: ClusterState) -> String {
    guard let network = state.networks[id] else { return "network \(id) does not exist any more: update the service" }
    guard let space = spaces[id] else { return "network \(network.name) has no subnet yet" }
    if resting.networks.contains(id) {
      return "network \(network.name) gives no address until its hosts have told the new leader that they dropped what was freed before (5 s at most)"
    }
    let atRest = (resting.addresses[id]?.count ?? 0) + space.released.count
    if atRest > 0 {
      return "network \(network.name) has no free address (\(space.owners.count) of \(space.prefix) are in use, \(atRest) just became free and are "
        + "given again when every host has dropped them, 5 s at most): a larger subnet would not have to wait"
    }
    return "network \(network.name) has no free address (\(space.owners.count) of \(space.prefix) are in use): give it a larger subnet"
  }
}
