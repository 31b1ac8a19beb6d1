import Model

/// What a user declares of a network's addresses, checked.
struct DeclaredSubnet: Equatable {
  var prefix: IPv4Prefix
  var gateway: IPv4Address?
  /// Addresses are given from here.
  var range: IPv4Prefix
  var auxiliary: Set<IPv4Address> = []

  /// nil when nothing is declared.
  init?(_ spec: NetworkSpec) throws(AllocationRefusal) {
    func refusal(_ text: String) -> AllocationRefusal { AllocationRefusal("network \(spec.name): \(text)") }
    let configs = spec.ipam?.config ?? []
    if configs.count > 1 { throw refusal("more than one subnet is not supported") }
    guard let config = configs.first else { return nil }
    guard let text = config.subnet, !text.isEmpty else {
      if config.gateway?.isEmpty == false || config.range?.isEmpty == false || config.auxiliary?.isEmpty == false {
        throw refusal("a gateway, an IP range and auxiliary addresses need a subnet: give one")
      }
      return nil
    }
    guard let prefix = IPv4Prefix(text) else { throw refusal("\(text) is not an IPv4 subnet like 10.0.1.0/24") }
    guard (8...29).contains(prefix.length) else { throw refusal("subnet \(text) must be between /8 and /29") }
    self.prefix = prefix
    if let gateway = config.gateway, !gateway.isEmpty {
      guard let address = IPv4Address(gateway), prefix.contains(address) else { throw refusal("gateway \(gateway) is not an address of \(text)") }
      self.gateway = address
    }
    range = prefix
    if let part = config.range, !part.isEmpty {
      guard let range = IPv4Prefix(part), range.length >= prefix.length, prefix.contains(range.address) else {
        throw refusal("IP range \(part) is not a part of \(text), written like \(prefix.address)/\(min(32, prefix.length + 1))")
      }
      self.range = range
    }
    for (name, text) in config.auxiliary ?? [:] {
      guard let address = IPv4Address(text), prefix.contains(address) else { throw refusal("auxiliary address \(name) \(text) is not in \(prefix)") }
      auxiliary.insert(address)
    }
  }
}

extension Allocator {
  /// The subnet a spec asks for, or nil when any will do. Others may have the same: they are apart, and no task is on both (`checkApart`).
  /// - Throws: when it is malformed, too small, or overlaps that of ingress, which every host is on, or a host's route.
  public static func subnet(of spec: NetworkSpec, state: ClusterState) throws(AllocationRefusal) -> IPv4Prefix? {
    guard let wanted = try DeclaredSubnet(spec)?.prefix else { return nil }
    for other in state.networks.values where other.spec.ingress == true && other.name != spec.name {
      guard let taken = other.subnet, taken.overlaps(wanted) else { continue }
      throw AllocationRefusal("network \(spec.name): subnet \(wanted) overlaps \(taken) of network \(other.name): choose another subnet")
    }
    for node in state.nodes.values.sorted(by: { $0.hostname < $1.hostname }) {
      guard let route = node.description?.routes?.first(where: { $0.destination.overlaps(wanted) }) else { continue }
      throw AllocationRefusal(
        "network \(spec.name): subnet \(wanted) overlaps the route \(route.destination) dev \(route.device) of host \(node.hostname): "
          + "choose another subnet, or remove that route")
    }
    return wanted
  }

  /// A task has one namespace, in which an address has one meaning.
  public static func checkApart(_ service: String, _ networks: [Network]) throws(AllocationRefusal) {
    func subnet(_ network: Network) -> IPv4Prefix? { network.subnet ?? (try? DeclaredSubnet(network.spec)).flatMap { $0 }?.prefix }
    for (number, one) in networks.enumerated() {
      guard let own = subnet(one) else { continue }
      for other in networks[..<number] {
        guard let taken = subnet(other), taken.overlaps(own) else { continue }
        throw AllocationRefusal(
          "service \(service): subnet \(own) of network \(one.name) overlaps \(taken) of network \(other.name), and one task cannot be on both: "
            + "name one of them, or make one anew with another subnet")
      }
    }
  }

  /// Gives a network its VNI and subnet; what it has already it keeps.
  public mutating func allocate(_ network: Network, cluster: Cluster?, state: ClusterState) throws(AllocationRefusal) -> Network {
    var network = network
    if resting.isClosed, network.subnet == nil || network.vni == nil {
      throw AllocationRefusal(
        "network \(network.name) waits until the hosts have told the new leader that they left what was removed before (5 s at most)")
    }
    if network.subnet == nil {
      if let declared = try DeclaredSubnet(network.spec)?.prefix {
        if let id = ingress, id != network.id, let taken = subnets[id], taken.overlaps(declared) {
          throw AllocationRefusal(
            "network \(network.name): subnet \(declared) overlaps \(taken) of network \(state.networks[id]?.name ?? "\(id)"): choose another subnet")
        }
        network.subnet = declared
      } else {
        network.subnet = try freeSubnet(for: network, cluster: cluster, state: state)
      }
    }
    if network.vni == nil { network.vni = try freeVNI(for: network) }
    observe(.network(old: nil, new: network))
    return network
  }

  private func freeSubnet(for network: Network, cluster: Cluster?, state: ClusterState) throws(AllocationRefusal) -> IPv4Prefix {
    let pool = cluster?.addressPool ?? IPv4Prefix("10.0.0.0/8")!
    let length = cluster?.subnetLength ?? 24
    let size = UInt64(1) << (32 - UInt64(length))
    let ingress = network.spec.ingress == true
    // One that covers the whole pool cannot be avoided: the networks' own routes are narrower and win on the host.
    let routes = Set(state.nodes.values.flatMap { $0.description?.routes ?? [] }.map(\.destination)).filter {
      $0.overlaps(pool) && $0.length > pool.length
    }
    // The pool's first subnet is ingress's.
    var start = UInt64(pool.first.rawValue) + (ingress ? 0 : size)
    while start + size - 1 <= UInt64(pool.last.rawValue) {
      let candidate = IPv4Prefix(IPv4Address(UInt32(start)), length: length)!
      let taken =
        routes.first { $0.overlaps(candidate) } ?? subnets.values.first { $0.overlaps(candidate) } ?? resting.subnets.first { $0.overlaps(candidate) }
      guard let taken else {
        return candidate
      }
      start = max(start + size, UInt64(taken.last.rawValue) + 1)
    }
    throw AllocationRefusal(
      "network \(network.name): no subnet of \(pool) is free\(routes.isEmpty ? "" : " beside the hosts' routes"): remove a network or declare a subnet "
        + "outside of it")
  }

  private func freeVNI(for network: Network) throws(AllocationRefusal) -> UInt32 {
    if let free = (Self.firstVNI...Self.lastVNI).first(where: { vnis[$0] == nil && !resting.vnis.contains($0) }) { return free }
    throw AllocationRefusal("network \(network.name): all VXLAN ids are in use: remove a network")
  }
}
