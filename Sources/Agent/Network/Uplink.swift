import Model

/// How a container that is not on ingress reaches what is outside of its overlays, and how this host reaches its host-mode ports: a veth of two
/// addresses between its namespace and the host's, routed and masqueraded there. Hosts so need no address on overlays, and no route to them;
/// networks with equal subnets meet nowhere. (CNI's ptp has such links; Swarm's docker_gwbridge is a bridge, whose frames br_netfilter
/// would show to the host's rules, and whose containers would have to be kept apart.)
struct Uplink: Hashable, Sendable {
  /// The container's end.
  var address: IPv4Address
  /// The host's end, the same for many.
  var gateway: IPv4Address

  /// The container's end, where it has IPv6: of a /64 that is the same everywhere and is seen nowhere else, since it is translated.
  var address6: IPv6Address { Self.address6(beside: address) }
  static func address6(beside address: IPv4Address) -> IPv6Address { IPv6Address(subnet6.address.rawValue | UInt128(address.rawValue)) }
  /// "orchu" as the global id of unique local addresses (RFC 4193 3.1).
  static let subnet6 = IPv6Prefix("fd6f:7263:6875::/64")!
  /// The host's end: no subnet of anybody has it.
  static let gateway6 = IPv6Address("fe80::1")!
}

/// Where uplinks' addresses come from: they are this host's own matter, seen by nobody outside.
struct UplinkPool: Sendable {
  var subnets: [IPv4Prefix]
  /// The one given last: a freed address waits until all others had their turn.
  private var last: IPv4Address?

  /// Private ranges (RFC 1918) that are seldom used.
  static let usual = ((16...28).reversed() + [29, 30, 31]).map { "172.\($0).240.0/20" } + ["192.168.240.0/20", "10.255.240.0/20"]

  /// - Parameter subnet: the only one to be used; nil: a usual one that is free.
  init(_ subnet: IPv4Prefix? = nil) { subnets = subnet.map { [$0] } ?? Self.usual.map { IPv4Prefix($0)! } }

  /// nil when none is free.
  /// - Parameters:
  ///   - taken: subnets that containers or the host have to reach.
  ///   - used: addresses of other uplinks.
  mutating func take(avoiding taken: [IPv4Prefix], used: Set<IPv4Address>) -> Uplink? {
    for subnet in subnets where !taken.contains(where: { $0.overlaps(subnet) }) {
      let gateway = IPv4Address(subnet.first.rawValue + 1)
      let (first, end) = (gateway.rawValue + 1, subnet.last.rawValue)
      guard first < end else { continue }
      let start = last.map { subnet.contains($0) ? $0.rawValue + 1 : first } ?? first
      for offset in 0..<(end - first) {
        let address = IPv4Address(first + (start - first + offset) % (end - first))
        if used.contains(address) { continue }
        last = address
        return Uplink(address: address, gateway: gateway)
      }
    }
    return nil
  }
}
