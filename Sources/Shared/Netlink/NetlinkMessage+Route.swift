import Glibc

// Messages of rtnetlink(7). Numbers are from linux/rtnetlink.h, if_link.h, neighbour.h. Addresses are network order, as they are in a
// packet: `[UInt8]` of 4 (IPv4), 16 (IPv6) or 6 (Ethernet) bytes.

public enum LinkKind: Hashable, Sendable {
  case bridge
  case vxlan(id: UInt32, local: [UInt8], port: UInt16)
}

extension NetlinkMessage {
  // MARK: Links

  private static func link(_ type: UInt16, _ flags: UInt16, index: UInt32, up: Bool?, _ operation: String, _ object: String) -> Self {
    var message = Self(type: type, flags: flags, operation: operation, object: object)
    let on: UInt32 = up == true ? 1 : 0
    message.append([UInt8(AF_UNSPEC), 0] + nativeBytes(UInt16(0)) + nativeBytes(index) + nativeBytes(on) + nativeBytes(UInt32(up == nil ? 0 : 1)))
    return message
  }

  /// EEXIST when the name is taken.
  public static func addLink(_ name: String, _ kind: LinkKind, mac: [UInt8]? = nil, mtu: UInt32? = nil, alias: String? = nil) -> Self {
    var message = link(16, NetlinkFlag.create | NetlinkFlag.exclusive, index: 0, up: nil, "add link", name)
    message.attribute(3, name)
    if let mac { message.attribute(1, mac) }
    if let mtu { message.attribute(4, mtu) }
    message.nested(18) {
      switch kind {
      case .bridge:
        $0.attribute(1, "bridge")
        $0.nested(2) {
          $0.attribute(1, UInt32(0))  // IFLA_BR_FORWARD_DELAY
          $0.attribute(23, UInt8(0))  // IFLA_BR_MCAST_SNOOPING: every multicast frame goes everywhere
        }
      case .vxlan(let id, let local, let port):
        $0.attribute(1, "vxlan")
        $0.nested(2) {
          $0.attribute(1, id)
          $0.attribute(4, local)
          $0.attribute(7, UInt8(0))  // IFLA_VXLAN_LEARNING: the committed log tells, not the packets
          $0.attribute(11, UInt8(1))  // IFLA_VXLAN_PROXY: ARP is answered here, from the neighbours, and leaves the host never
          $0.attribute(15, networkBytes(port))
          $0.attribute(18, UInt8(1))  // IFLA_VXLAN_UDP_CSUM
        }
      }
    }
    if let alias { message.attribute(20, alias) }
    return message
  }

  /// A veth whose peer is born in the namespace of `peerNamespace` (an open descriptor): 0.3 ms where moving it there takes 16.
  /// - Parameters:
  ///   - master: 0: none.
  ///   - peerMAC: nil: the kernel's choice.
  public static func addVeth(
    _ name: String, master: UInt32, mtu: UInt32, peer: String, peerMAC: [UInt8]?, peerNamespace: Int32, alias: String
  ) -> Self {
    var message = link(16, NetlinkFlag.create | NetlinkFlag.exclusive, index: 0, up: true, "add link", "\(name) with peer \(peer)")
    message.attribute(3, name)
    message.attribute(4, mtu)
    if master != 0 { message.attribute(10, master) }
    message.nested(18) {
      $0.attribute(1, "veth")
      $0.nested(2) {
        $0.nested(1) {  // VETH_INFO_PEER: an ifinfomsg and its attributes
          $0.append([UInt8](repeating: 0, count: 16))
          $0.attribute(3, peer)
          if let peerMAC { $0.attribute(1, peerMAC) }
          $0.attribute(4, mtu)
          $0.attribute(28, UInt32(bitPattern: peerNamespace))
        }
      }
    }
    message.attribute(20, alias)
    return message
  }

  public static func setLink(_ index: UInt32, _ name: String, up: Bool? = nil, master: UInt32? = nil, mtu: UInt32? = nil, mac: [UInt8]? = nil) -> Self
  {
    var message = link(16, 0, index: index, up: up, "set link", name)
    if let mac { message.attribute(1, mac) }
    if let mtu { message.attribute(4, mtu) }
    if let master { message.attribute(10, master) }
    return message
  }

  /// Of a bridge (linux/if_link.h, IFLA_BR_…): STP_STATE, VLAN_FILTERING, GROUP_FWD_MASK, MCAST_SNOOPING (every multicast frame goes everywhere).
  static let plainBridge: [UInt16: [UInt8]] = [5: [0, 0, 0, 0], 7: [0], 9: [0, 0], 23: [0]]
  /// Of a VXLAN device (IFLA_VXLAN_…): TTL, TOS, LEARNING, DF.
  static let plainTunnel: [UInt16: [UInt8]] = [5: [0], 6: [0], 7: [0], 29: [0]]
  /// Of a bridge's port (IFLA_BRPORT_…): GUARD, PROTECT, PROXYARP, PROXYARP_WIFI, MCAST_FLOOD, MCAST_TO_UCAST, VLAN_TUNNEL, BCAST_FLOOD,
  /// GROUP_FWD_MASK, NEIGH_SUPPRESS, ISOLATED, LOCKED.
  static let plainPort: [UInt16: [UInt8]] = [
    5: [0], 6: [0], 10: [0], 12: [0], 27: [1], 28: [0], 29: [0], 30: [1], 31: [0, 0], 32: [0], 33: [0], 39: [0],
  ]

  /// A VXLAN device that somebody changed is as `addLink` makes it, in what can be changed.
  public static func setPlainTunnel(_ index: UInt32, _ name: String) -> Self { setPlain(index, name, "vxlan", plainTunnel) }
  /// A bridge too. What this kernel was made without (VLANs) it refuses to be told, and then has not: in a message of its own.
  public static func setPlainBridge(_ index: UInt32, _ name: String) -> Self { setPlain(index, name, "bridge", plainBridge.filter { $0.key != 7 }) }
  public static func endVLANs(_ index: UInt32, _ name: String) -> Self {
    var message = setPlain(index, name, "bridge", plainBridge.filter { $0.key == 7 })
    message.tolerated = [EOPNOTSUPP]
    return message
  }

  private static func setPlain(_ index: UInt32, _ name: String, _ kind: String, _ attributes: [UInt16: [UInt8]]) -> Self {
    var message = link(16, 0, index: index, up: nil, "set link", name)
    message.nested(18) {
      $0.attribute(1, kind)
      $0.nested(2) { for (number, value) in attributes { $0.attribute(number, value) } }
    }
    return message
  }

  /// Frames pass it (BR_STATE_FORWARDING). The kernel refuses that, and does it itself, where the link has no carrier yet.
  public static func openBridgePort(_ index: UInt32, _ name: String) -> Self {
    var message = Self(type: 19, flags: 0, operation: "open bridge port", object: name)
    message.append([UInt8(AF_BRIDGE), 0] + nativeBytes(UInt16(0)) + nativeBytes(index) + nativeBytes(UInt32(0)) + nativeBytes(UInt32(0)))
    message.nested(0x8000 | 12) { $0.attribute(1, UInt8(3)) }
    message.tolerated = [ENODEV, ENETDOWN]
    return message
  }

  /// All else of it becomes as it was when it was made a port.
  /// - Parameters:
  ///   - hairpin: it may get frames back that it sent: with bridge-nf-call-iptables a bridge itself forwards what was translated.
  ///   - flood: it gets frames whose receiver the bridge does not know.
  public static func setBridgePort(_ index: UInt32, _ name: String, hairpin: Bool, learning: Bool, flood: Bool) -> Self {
    var message = Self(type: 19, flags: 0, operation: "set bridge port", object: name)
    message.append([UInt8(AF_BRIDGE), 0] + nativeBytes(UInt16(0)) + nativeBytes(index) + nativeBytes(UInt32(0)) + nativeBytes(UInt32(0)))
    // IFLA_PROTINFO, said to be nested; IFLA_BRPORT_MODE, IFLA_BRPORT_LEARNING, IFLA_BRPORT_UNICAST_FLOOD
    message.nested(0x8000 | 12) {
      $0.attribute(4, UInt8(hairpin ? 1 : 0))
      $0.attribute(8, UInt8(learning ? 1 : 0))
      $0.attribute(9, UInt8(flood ? 1 : 0))
      for (number, value) in plainPort { $0.attribute(number, value) }
    }
    message.tolerated = [ENODEV]
    return message
  }

  /// No IPv6 link-local address, hence none of its chatter; before the link is up. Tolerates a kernel without IPv6.
  public static func quietIPv6(_ index: UInt32, _ name: String) -> Self {
    var message = link(16, 0, index: index, up: nil, "set link", name)
    message.nested(26) { $0.nested(UInt16(AF_INET6)) { $0.attribute(8, UInt8(1)) } }
    message.tolerated = [EAFNOSUPPORT, EOPNOTSUPP, EINVAL, ENODEV]
    return message
  }

  /// A port of a bridge, or of another link that has some, is one no more. One that is gone is passed over.
  public static func releaseLink(_ index: UInt32, _ name: String) -> Self {
    var message = setLink(index, name, master: 0)
    message.tolerated = [ENODEV]
    return message
  }

  public static func deleteLink(_ index: UInt32, _ name: String) -> Self {
    var message = link(17, 0, index: index, up: nil, "delete link", name)
    message.tolerated = [ENODEV]
    return message
  }

  public static func dumpLinks() -> Self {
    link(18, NetlinkFlag.dump, index: 0, up: nil, "list", "links")
  }

  // MARK: Addresses and routes

  private static func address(
    _ type: UInt16, _ flags: UInt16, _ address: [UInt8], peer: [UInt8]?, length: UInt8, on index: UInt32, _ operation: String
  ) -> Self {
    var message = Self(
      type: type, flags: flags, operation: operation, object: "\(dotted(address))\(peer.map { " to \(dotted($0))" } ?? "")/\(length)")
    // IFA_F_NODAD: nobody else can have an IPv6 address that the cluster gave, and it is to hold at once.
    message.append([family(address), length, address.count == 16 ? 2 : 0, 0] + nativeBytes(index))
    message.attribute(2, address)
    message.attribute(1, peer ?? address)
    return message
  }
  /// - Parameter peer: who is at the other end of a link of two; `length` is of its address. The kernel makes the route to it.
  public static func addAddress(_ bytes: [UInt8], peer: [UInt8]? = nil, length: UInt8, on index: UInt32) -> Self {
    address(20, NetlinkFlag.create | NetlinkFlag.replace, bytes, peer: peer, length: length, on: index, "add address")
  }
  public static func deleteAddress(_ bytes: [UInt8], peer: [UInt8]? = nil, length: UInt8, on index: UInt32) -> Self {
    var message = address(21, 0, bytes, peer: peer, length: length, on: index, "delete address")
    message.tolerated = [EADDRNOTAVAIL, ENODEV]
    return message
  }
  /// Of every family.
  public static func dumpAddresses() -> Self {
    var message = Self(type: 22, flags: NetlinkFlag.dump, operation: "list", object: "addresses")
    message.append([UInt8(AF_UNSPEC), 0, 0, 0] + nativeBytes(UInt32(0)))
    return message
  }

  private static func family(_ address: [UInt8]) -> UInt8 { UInt8(address.count == 16 ? AF_INET6 : AF_INET) }

  /// 0.0.0.0/0 or ::/0 through `gateway`, in the main table.
  /// - Parameter index: of the link behind which a link-local gateway is.
  public static func addDefaultRoute(gateway: [UInt8], on index: UInt32? = nil) -> Self {
    var message = Self(
      type: 24, flags: NetlinkFlag.create | NetlinkFlag.replace, operation: "add route", object: "default via \(dotted(gateway))")
    // rtmsg: family, dst_len, src_len, tos, table (main), protocol (static), scope (universe), type (unicast), flags
    message.append([family(gateway), 0, 0, 0, 254, 4, 0, 1] + nativeBytes(UInt32(0)))
    message.attribute(5, gateway)
    if let index { message.attribute(4, index) }
    return message
  }

  /// To what is on a link itself (proto kernel, scope link), as the kernel makes it with an address; for one that was taken away.
  public static func addLinkRoute(_ destination: [UInt8], length: UInt8, source: [UInt8]?, on index: UInt32) -> Self {
    var message = Self(
      type: 24, flags: NetlinkFlag.create | NetlinkFlag.replace, operation: "add route", object: "\(dotted(destination))/\(length)")
    message.append([family(destination), length, 0, 0, 254, 2, 253, 1] + nativeBytes(UInt32(0)))
    message.attribute(1, destination)
    message.attribute(4, index)
    if let source { message.attribute(7, source) }
    return message
  }

  /// In place of another to the same with the same metric.
  public static func addRoute(_ route: LinkRoute, on index: UInt32) -> Self {
    var message = Self(
      type: 24, flags: NetlinkFlag.create | NetlinkFlag.replace, operation: "add route", object: "\(dotted(route.destination))/\(route.length)")
    // rtmsg: as in `addDefaultRoute`; protocol kernel, since the kernel takes those away with the address; scope host or link.
    let kind: [UInt8] = route.isLocal ? [255, 2, 254, 2] : [254, 2, 253, 1]
    message.append([family(route.destination), route.length, 0, 0] + kind + nativeBytes(UInt32(0)))
    message.attribute(1, route.destination)
    message.attribute(4, index)
    if let source = route.source { message.attribute(7, source) }
    if route.metric != 0 { message.attribute(6, route.metric) }
    return message
  }
  /// Those of one family that leave by a link alone: the kernel leaves the others out (Linux net/ipv4/fib_frontend.c, ip_valid_fib_dump_req).
  public static func dumpRoutes(_ family: Int32, on index: UInt32) -> Self {
    var message = Self(type: 26, flags: NetlinkFlag.dump, operation: "list", object: "routes")
    message.append([UInt8(family)] + [UInt8](repeating: 0, count: 11))
    message.attribute(4, index)
    return message
  }

  /// An address that the kernel takes for this namespace's own when it comes by a link (table local, scope host).
  public static func addLocalRoute(_ address: [UInt8], on index: UInt32) -> Self {
    var message = Self(type: 24, flags: NetlinkFlag.create | NetlinkFlag.exclusive, operation: "add local route", object: dotted(address))
    message.append([family(address), UInt8(8 * address.count), 0, 0, 255, 4, 254, 2] + nativeBytes(UInt32(0)))
    message.attribute(1, address)
    message.attribute(4, index)
    return message
  }

  // MARK: Forwarding entries

  private static func forwarding(
    _ type: UInt16, _ flags: UInt16, _ mac: [UInt8], to destination: [UInt8]?, on index: UInt32, owner: UInt8, state: UInt16, _ operation: String
  ) -> Self {
    let target = destination.map { " to \(dotted($0))" } ?? ""
    var message = Self(type: type, flags: flags, operation: operation, object: hex(mac) + target)
    // ndmsg: family, padding, ifindex, state, flags, type
    message.append([UInt8(AF_BRIDGE), 0, 0, 0] + nativeBytes(index) + nativeBytes(state) + [owner, 0])
    message.attribute(2, mac)
    if let destination { message.attribute(1, destination) }
    return message
  }

  /// In a VXLAN device: frames for `mac` go to the host `destination`, in place of another.
  public static func addForwarding(_ mac: [UInt8], to destination: [UInt8], on index: UInt32) -> Self {
    var message = forwarding(
      28, NetlinkFlag.create | NetlinkFlag.replace, mac, to: destination, on: index, owner: 2, state: 0xc0, "add forwarding")
    message.tolerated = [EEXIST]
    return message
  }
  public static func deleteForwarding(_ mac: [UInt8], to destination: [UInt8], on index: UInt32) -> Self {
    var message = forwarding(29, 0, mac, to: destination, on: index, owner: 2, state: 0, "delete forwarding")
    message.tolerated = [ENOENT, ENODEV]
    return message
  }
  /// In a bridge: `mac` is behind the port `index`, whatever was learned before. Goes with the port.
  public static func addBridgeForwarding(_ mac: [UInt8], port index: UInt32) -> Self {
    forwarding(28, NetlinkFlag.create | NetlinkFlag.replace, mac, to: nil, on: index, owner: 4, state: 0x40, "add bridge forwarding")
  }
  /// - Parameter isBridge: `index` is the bridge's own: frames for `mac` are the host's.
  public static func deleteBridgeForwarding(_ mac: [UInt8], port index: UInt32, isBridge: Bool = false) -> Self {
    // NTF_SELF, NTF_MASTER
    var message = forwarding(29, 0, mac, to: nil, on: index, owner: isBridge ? 2 : 4, state: 0, "delete bridge forwarding")
    message.tolerated = [ENOENT, ENODEV, EINVAL]
    return message
  }
  /// Of every link that has some.
  public static func dumpForwarding() -> Self {
    var message = Self(type: 30, flags: NetlinkFlag.dump, operation: "list", object: "forwarding entries")
    message.append([UInt8(AF_BRIDGE), 0, 0, 0] + nativeBytes(UInt32(0)) + nativeBytes(UInt16(0)) + [0, 0])
    return message
  }

  // MARK: Neighbours

  private static func neighbour(
    _ type: UInt16, _ flags: UInt16, _ address: [UInt8], _ mac: [UInt8]?, on index: UInt32, state: UInt16, _ operation: String
  ) -> Self {
    var message = Self(type: type, flags: flags, operation: operation, object: dotted(address))
    message.append([family(address), 0, 0, 0] + nativeBytes(index) + nativeBytes(state) + [0, 0])
    message.attribute(1, address)
    if let mac { message.attribute(2, mac) }
    return message
  }
  /// For good (NUD_PERMANENT); in place of another of the same address.
  public static func addNeighbour(_ address: [UInt8], _ mac: [UInt8], on index: UInt32) -> Self {
    neighbour(28, NetlinkFlag.create | NetlinkFlag.replace, address, mac, on: index, state: 0x80, "add neighbour")
  }
  public static func deleteNeighbour(_ address: [UInt8], on index: UInt32) -> Self {
    var message = neighbour(29, 0, address, nil, on: index, state: 0, "delete neighbour")
    message.tolerated = [ENOENT, ENODEV, ENXIO]
    return message
  }
  /// Of IPv4 and IPv6.
  public static func dumpNeighbours() -> Self {
    var message = Self(type: 30, flags: NetlinkFlag.dump, operation: "list", object: "neighbours")
    message.append([UInt8(AF_UNSPEC), 0, 0, 0] + nativeBytes(UInt32(0)) + nativeBytes(UInt16(0)) + [0, 0])
    return message
  }

  private static func dotted(_ address: [UInt8]) -> String {
    guard address.count == 16 else { return address.map { String($0) }.joined(separator: ".") }
    return stride(from: 0, to: 16, by: 2).map { String(UInt16(address[$0]) << 8 | UInt16(address[$0 + 1]), radix: 16) }.joined(separator: ":")
  }
  private static func hex(_ mac: [UInt8]) -> String {
    mac.map { $0 < 16 ? "0" + String($0, radix: 16) : String($0, radix: 16) }.joined(separator: ":")
  }
}
