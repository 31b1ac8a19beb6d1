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
