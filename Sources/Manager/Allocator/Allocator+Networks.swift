import Model

/// What a user declares of a network's IPv4 addresses, checked.
struct DeclaredSubnet: Equatable {
  var prefix: IPv4Prefix
  var gateway: IPv4Address?
  /// Addresses are given from here.
  var range: IPv4Prefix
  var auxiliary: Set<IPv4Address> = []

  /// nil when nothing is declared.
  init?(_ spec: NetworkSpec) throws(AllocationRefusal) {
    func refusal(_ text: String) -> AllocationRefusal { AllocationRefusal("network \(spec.name): \(text)") }
    if (spec.ipam?.config ?? []).count(where: { !$0.isIPv6 }) > 1 { throw refusal("more than one IPv4 subnet is not supported") }
    guard let config = spec.declared4 else { return nil }
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

/// The same of its IPv6 addresses. Who has the n-th IPv4 address of the network has the n-th of these: there is nothing to give from a range.
struct DeclaredSubnet6: Equatable {
  var prefix: IPv6Prefix
  /// Given to nobody: the gateway and the auxiliary addresses.
  var reserved: Set<IPv6Address> = []

  init?(_ spec: NetworkSpec) throws(AllocationRefusal) {
    func refusal(_ text: String) -> AllocationRefusal { AllocationRefusal("network \(spec.name): \(text)") }
    if (spec.ipam?.config ?? []).count(where: \.isIPv6) > 1 { throw refusal("more than one IPv6 subnet is not supported") }
    guard let config = spec.declared6 else { return nil }
    guard let text = config.subnet, !text.isEmpty else { throw refusal("an IPv6 gateway or range needs an IPv6 subnet: give one") }
    guard spec.enableIPv6 == true else { throw refusal("\(text) is an IPv6 subnet: say that the network has IPv6 (enable_ipv6: true, --ipv6)") }
    guard let prefix = IPv6Prefix(text) else { throw refusal("\(text) is not an IPv6 subnet like fd00:1::/64") }
    // ::/8 has the loopback and what is none; fe80::/10 is of each link, ff00::/8 multicast (RFC 4291 2.4).
    let taken = ["::/8", "fe80::/10", "ff00::/8"].compactMap { IPv6Prefix($0) }
    guard (16...120).contains(prefix.length), !taken.contains(where: { $0.overlaps(prefix) }) else {
      throw refusal("subnet \(text) must be between /16 and /120, and neither link-local nor multicast")
    }
    if config.range?.isEmpty == false {
      throw refusal("an IPv6 range is not supported: IPv6 addresses follow the IPv4 ones, whose range may be given")
    }
    self.prefix = prefix
    let others =
      (config.gateway.flatMap { $0.isEmpty ? nil : [("gateway", $0)] } ?? [])
      + (config.auxiliary ?? [:]).map { ("auxiliary address \($0.key)", $0.value) }
    for (name, text) in others {
      guard let address = IPv6Address(text), prefix.contains(address) else { throw refusal("\(name) \(text) is not in \(prefix)") }
      reserved.insert(address)
    }
  }

  /// Whether every address of an IPv4 subnet of that length has its own here.
  func fits(_ length: UInt8) -> Bool { 128 - prefix.length >= 32 - length }
}

extension Allocator {
  /// What a spec declares of its subnets. Others may have the same: they are apart, and no task is on both (`checkApart`).
  /// - Throws: when it is malformed, too small, or overlaps that of ingress, which every host is on, or a host's route.
  public static func check(_ spec: NetworkSpec, state: ClusterState) throws(AllocationRefusal) {
    try check6(spec, state: state)
    guard let wanted = try DeclaredSubnet(spec)?.prefix else { return }
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
  }

  private static func check6(_ spec: NetworkSpec, state: ClusterState) throws(AllocationRefusal) {
    guard let wanted = try DeclaredSubnet6(spec) else { return }
    let length = try DeclaredSubnet(spec)?.prefix.length ?? state.cluster?.subnetLength ?? 24
    guard wanted.fits(length) else {
      throw AllocationRefusal(
        "network \(spec.name): IPv6 subnet \(wanted.prefix) has fewer addresses than the IPv4 one (/\(length)): give a larger one, a /64")
    }
  }

  /// A task has one namespace, in which an address has one meaning.
  public static func checkApart(_ service: String, _ networks: [Network]) throws(AllocationRefusal) {
    func subnets(_ network: Network) -> NetworkSubnets {
      NetworkSubnets(
        v4: network.subnet ?? (try? DeclaredSubnet(network.spec)).flatMap { $0 }?.prefix,
        v6: network.subnet6 ?? (try? DeclaredSubnet6(network.spec)).flatMap { $0 }?.prefix)
    }
    for (number, one) in networks.enumerated() {
      for other in networks[..<number] {
        guard let (own, taken) = subnets(one).overlap(with: subnets(other)) else { continue }
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
    let declared6 = try DeclaredSubnet6(network.spec)
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
    if network.spec.enableIPv6 == true, network.subnet6 == nil {
      network.subnet6 = try subnet6(declared6, for: network, cluster: cluster)
    }
    observe(.network(old: nil, new: network), state: state)
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

  /// What it declares, or a /64 of the cluster's own (RFC 4193), the one with its VNI's number if nobody has that.
  private func subnet6(_ declared: DeclaredSubnet6?, for network: Network, cluster: Cluster?) throws(AllocationRefusal) -> IPv6Prefix {
    if let declared {
      guard let subnet = network.subnet, declared.fits(subnet.length) else {
        throw AllocationRefusal(
          "network \(network.name): IPv6 subnet \(declared.prefix) has fewer addresses than the IPv4 one: give a larger one, a /64")
      }
      return declared.prefix
    }
    guard let cluster else { throw AllocationRefusal("network \(network.name): the cluster has no id yet") }
    let own = IPv6Prefix.uniqueLocal(of: cluster.id)
    let taken = subnets6.filter { $0.key != network.id && $0.value.overlaps(own) }.map(\.value)
    let first = UInt16(truncatingIfNeeded: network.vni ?? 0)
    for step in 0...UInt16.max {
      let candidate = IPv6Prefix(IPv6Address(own.address.rawValue | UInt128(first &+ step) << 64), length: 64)!
      if !taken.contains(where: { $0.overlaps(candidate) }) { return candidate }
    }
    throw AllocationRefusal("network \(network.name): no /64 of \(own) is free: remove a network or declare an IPv6 subnet")
  }

  private func freeVNI(for network: Network) throws(AllocationRefusal) -> UInt32 {
    if let free = (Self.firstVNI...Self.lastVNI).first(where: { vnis[$0] == nil && !resting.vnis.contains($0) }) { return free }
    throw AllocationRefusal("network \(network.name): all VXLAN ids are in use: remove a network")
  }
}
