import Glibc
import Model
import Netlink

/// The way back of what processes of this host call by ::1, since IPv6 has no `route_localnet`: the kernel takes a packet to ::1 from a link only where
/// a route says that ::1 is behind it, and one that bridges show to conntrack (bridge-nf-call-ip6tables) is translated too early for that (Linux
/// net/ipv6: ip6_input.c, ip6_rcv_core; route.c, rt6_need_strict). So tasks see such callers as an address that leads to a veth of two ends here: on the
/// way to it answers are not tracked, and where they come out they are, and are for ::1.
enum LoopbackDetour {
  /// Answers go in by the first.
  static let links = ["orlo0", "orlo1"]
  private static let mac: [UInt8] = [0x02, 0x4f, 0, 0, 0, 1]
  /// Beside uplinks' (Uplink.subnet6), which is of no network either.
  static let subnet = IPv6Prefix("fd6f:7263:6875:1::/64")!
  /// As tasks see who calls this host by ::1.
  static func address(of world: NetworkWorld) -> IPv6Address { IPv6Address(subnet.address.rawValue | UInt128(world.underlay.rawValue)) }

  /// Makes what is missing, all of it anew; in the host's namespace.
  /// - Returns: whether anything was.
  static func keep(_ address: IPv6Address, _ socket: NetlinkSocket, _ present: [LinkInfo], _ neighbours: [NeighbourInfo]) throws -> Bool {
    let own = links.compactMap { name in present.first { $0.name == name && $0.kind == "veth" } }
    if own.count == 2, own.allSatisfy(\.up), own[1].mac == mac, isWhole(address, neighbours, own[0].index) { return false }
    try remove(socket, present)
    let namespace = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)
    guard namespace >= 0 else { throw NetlinkError(operation: "open namespace", object: "of this host", errno: errno) }
    defer { close(namespace) }
    // Nothing is cut on the way: the networks' own packets are smaller.
    try socket.perform([
      .addVeth(links[0], master: 0, mtu: 65_535, peer: links[1], peerMAC: mac, peerNamespace: namespace, alias: "orch: answers to ::1")
    ])
    let made = try socket.links()
    let indexes = try links.map { name in
      guard let link = made.first(where: { $0.name == name }) else { throw NetlinkError(operation: "find link", object: name, errno: ENODEV) }
      return link.index
    }
    try socket.perform(zip(indexes, links).map { .quietIPv6($0, $1) })
    for name in links { try HostNetwork.setOwnParameters6(name) }
    try socket.perform([
      .setLink(indexes[0], links[0], up: true), .setLink(indexes[1], links[1], up: true),
      .addLinkRoute(address.octets, length: 128, source: nil, on: indexes[0]), .addNeighbour(address.octets, mac, on: indexes[0]),
      .addLocalRoute(loopback.octets, on: indexes[1]),
    ])
    return true
  }

  private static func isWhole(_ address: IPv6Address, _ neighbours: [NeighbourInfo], _ index: UInt32) -> Bool {
    let routes = UnderlayFacts.contents("/proc/thread-self/net/ipv6_route")
    guard KernelRoute6.read(routes).contains(where: { $0.destination.address == address && $0.destination.length == 128 && $0.device == links[0] }),
      routes.split(separator: "\n").contains(where: { $0.hasPrefix(String(repeating: "0", count: 31) + "1 80 ") && $0.hasSuffix(" \(links[1])") })
    else { return false }
    return neighbours.contains { $0.index == index && $0.address == address.octets && $0.mac == mac }
  }
  private static let loopback = IPv6Address(1)

  /// One that is not there is none to remove.
  static func remove(_ socket: NetlinkSocket, _ present: [LinkInfo]) throws {
    // The other end goes with it.
    guard let link = present.first(where: { links.contains($0.name) && $0.kind == "veth" }) else { return }
    try socket.perform([.deleteLink(link.index, link.name)])
  }
}
