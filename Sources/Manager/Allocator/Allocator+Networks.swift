import Model

extension Allocator {
  /// The subnet a spec asks for, or nil when any will do.
  /// - Throws: when it is malformed, too small, or overlaps another network's.
  public static func subnet(of spec: NetworkSpec, state: ClusterState, alsoTaken: [IPv4Prefix] = []) throws(AllocationRefusal) -> IPv4Prefix? {
    guard let wanted = try declaredSubnet(of: spec) else { return nil }
    for other in state.networks.values where other.name != spec.name {
      guard let taken = other.subnet ?? other.spec.ipam?.config?.first?.subnet.flatMap({ IPv4Prefix($0) }), taken.overlaps(wanted) else { continue }
      throw AllocationRefusal("network \(spec.name): subnet \(wanted) overlaps \(taken) of network \(other.name): choose another subnet")
    }
    for taken in alsoTaken where taken.overlaps(wanted) {
      throw AllocationRefusal("network \(spec.name): subnet \(wanted) overlaps \(taken) of another network in the same manifest")
    }
    return wanted
  }

  static func declaredSubnet(of spec: NetworkSpec) throws(AllocationRefusal) -> IPv4Prefix? {
    let configs = spec.ipam?.config ?? []
    if configs.count > 1 { throw AllocationRefusal("network \(spec.name): more than one subnet is not supported") }
    guard let text = configs.first?.subnet, !text.isEmpty else { return nil }
    guard let prefix = IPv4Prefix(text) else { throw AllocationRefusal("network \(spec.name): \(text) is not an IPv4 subnet like 10.0.1.0/24") }
    guard (8...29).contains(prefix.length) else {
      throw AllocationRefusal("network \(spec.name): subnet \(text) must be between /8 and /29")
    }
    if let gateway = configs.first?.gateway, !gateway.isEmpty {
      guard let address = IPv4Address(gateway), prefix.contains(address) else {
        throw AllocationRefusal("network \(spec.name): gateway \(gateway) is not an address of \(text)")
      }
    }
    return prefix
  }
}

extension Allocator {
  /// Gives a network its VNI and subnet; what it has already it keeps.
  public mutating func allocate(_ network: Network, cluster: Cluster?, state: ClusterState) throws(AllocationRefusal) -> Network {
    var network = network
    if network.subnet == nil {
      if let declared = try Self.declaredSubnet(of: network.spec) {
        if let (id, taken) = subnets.first(where: { $0.key != network.id && $0.value.overlaps(declared) }) {
          throw AllocationRefusal(
            "network \(network.name): subnet \(declared) overlaps \(taken) of network \(state.networks[id]?.name ?? "\(id)"): choose another subnet")
        }
        network.subnet = declared
      } else {
        network.subnet = try freeSubnet(for: network, cluster: cluster)
      }
    }
    if network.vni == nil { network.vni = try freeVNI(for: network) }
    observe(.network(old: nil, new: network))
    return network
  }

  private func freeSubnet(for network: Network, cluster: Cluster?) throws(AllocationRefusal) -> IPv4Prefix {
    let pool = cluster?.addressPool ?? IPv4Prefix("10.0.0.0/8")!
    let length = cluster?.subnetLength ?? 24
    let size = UInt64(1) << (32 - UInt64(length))
    let ingress = network.spec.ingress == true
    // The pool's first subnet is ingress's.
    var start = UInt64(pool.first.rawValue) + (ingress ? 0 : size)
    while start + size - 1 <= UInt64(pool.last.rawValue) {
      let candidate = IPv4Prefix(IPv4Address(UInt32(start)), length: length)!
      if !subnets.values.contains(where: { $0.overlaps(candidate) }) { return candidate }
      start += size
    }
    throw AllocationRefusal("network \(network.name): no subnet of \(pool) is free: remove a network or declare a subnet outside of it")
  }

  private func freeVNI(for network: Network) throws(AllocationRefusal) -> UInt32 {
    if let free = (Self.firstVNI...Self.lastVNI).first(where: { vnis[$0] == nil }) { return free }
    throw AllocationRefusal("network \(network.name): all VXLAN ids are in use: remove a network")
  }
}
