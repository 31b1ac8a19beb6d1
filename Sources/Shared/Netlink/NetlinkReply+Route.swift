/// A link as RTM_NEWLINK tells it.
public struct LinkInfo: Hashable, Sendable {
  public var index: UInt32
  public var name: String
  public var up: Bool
  public var mtu: UInt32
  public var mac: [UInt8]
  /// 0: none.
  public var master: UInt32
  /// "bridge", "vxlan", "veth"; empty for others.
  public var kind: String
  public var alias: String
  public var vxlan: VXLAN?
  public struct VXLAN: Hashable, Sendable {
    public var id: UInt32
    public var local: [UInt8]
    public var port: UInt16
    /// Answers ARP from its neighbours.
    public var proxy: Bool
    /// Learns from nobody, and its packets' headers are the kernel's choice.
    public var isPlain = true
    public init(id: UInt32, local: [UInt8], port: UInt16, proxy: Bool) { (self.id, self.local, self.port, self.proxy) = (id, local, port, proxy) }
  }
  /// Of a bridge: no VLANs, no spanning tree, every multicast frame goes everywhere; true for other kinds.
  public var isPlainBridge = true
  /// nil: no port of a bridge.
  public var bridgePort: BridgePort?
  public struct BridgePort: Hashable, Sendable {
    public var hairpin: Bool
    public var learning: Bool
    public var flood: Bool
    /// All else is as it was when the link became a port, which is what `setBridgePort` makes of it; while the link runs, frames pass.
    public var isPlain = true
    public init(hairpin: Bool, learning: Bool, flood: Bool) { (self.hairpin, self.learning, self.flood) = (hairpin, learning, flood) }
  }
  /// The id that this namespace has for the one of the link's other end; nil when that is this one.
  public var peerNamespace: Int32?
  /// Frames that were given to the link and dropped by it (IFLA_STATS64's tx_dropped).
  public var dropped: UInt64

  /// nil when the reply is not a link.
  public init?(_ reply: NetlinkReply) {
    guard reply.type == 16, reply.payload.count >= 16 else { return nil }
    let attributes = reply.attributes(after: 16)
    func text(_ bytes: [UInt8]?) -> String { String(decoding: (bytes ?? []).prefix { $0 != 0 }, as: UTF8.self) }
    index = reply.payload.read(UInt32.self, at: 4)
    up = reply.payload.read(UInt32.self, at: 8) & 1 != 0
    name = text(attributes[3])
    mtu = (attributes[4] ?? []).read(UInt32.self, at: 0)
    mac = attributes[1] ?? []
    master = (attributes[10] ?? []).read(UInt32.self, at: 0)
    alias = text(attributes[20])
    let info = splitAttributes((attributes[18] ?? [])[...])
    kind = text(info[1])
    if kind == "vxlan" {
      let data = splitAttributes((info[2] ?? [])[...])
      vxlan = VXLAN(
        id: (data[1] ?? []).read(UInt32.self, at: 0), local: data[4] ?? [], port: UInt16(bigEndian: (data[15] ?? []).read(UInt16.self, at: 0)),
        proxy: data[11]?.first == 1)
      vxlan!.isPlain = Self.isAsMade(data, NetlinkMessage.plainTunnel)
    }
    if kind == "bridge" { isPlainBridge = Self.isAsMade(splitAttributes((info[2] ?? [])[...]), NetlinkMessage.plainBridge) }
    if text(info[4]) == "bridge" {
      let data = splitAttributes((info[5] ?? [])[...])
      bridgePort = BridgePort(hairpin: data[4]?.first == 1, learning: data[8]?.first == 1, flood: data[9]?.first == 1)
      // IFF_RUNNING; IFLA_BRPORT_STATE, BR_STATE_FORWARDING. One without carrier is disabled by the kernel.
      let isRunning = reply.payload.read(UInt32.self, at: 8) & 0x40 != 0
      bridgePort!.isPlain = Self.isAsMade(data, NetlinkMessage.plainPort) && (!isRunning || data[1]?.first == 3)
    }
    let statistics = attributes[23] ?? []
    dropped = statistics.count >= 64 ? statistics.read(UInt64.self, at: 56) : 0
    peerNamespace = attributes[37].map { Int32(bitPattern: $0.read(UInt32.self, at: 0)) }
  }

  /// What a kernel does not know is not told.
  private static func isAsMade(_ data: [UInt16: [UInt8]], _ made: [UInt16: [UInt8]]) -> Bool {
    made.allSatisfy { number, value in data[number].map { $0 == value } ?? true }
  }
}

/// An address as RTM_NEWADDR tells it, of IPv4 or IPv6 by the count of its bytes.
public struct AddressInfo: Hashable, Sendable {
  public var index: UInt32
  public var address: [UInt8]
  /// At the other end of a link of two.
  public var peer: [UInt8]?
  public var length: UInt8
  public init?(_ reply: NetlinkReply) {
    guard reply.type == 20, reply.payload.count >= 8, [2, 10].contains(reply.payload[0]) else { return nil }
    let attributes = reply.attributes(after: 8)
    guard let address = attributes[2] ?? attributes[1], address.count == (reply.payload[0] == 2 ? 4 : 16) else { return nil }
    self.address = address
    peer = attributes[1] == address ? nil : attributes[1]
    index = reply.payload.read(UInt32.self, at: 4)
    length = reply.payload[1]
  }
}

/// A route that the kernel makes with an address of a link: to what is on the link (table main), or to the address itself (table local).
public struct LinkRoute: Hashable, Sendable {
  /// 4 or 16 bytes.
  public var destination: [UInt8]
  public var length: UInt8
  public var isLocal: Bool
  /// What this host calls from by it; nil: as the kernel chooses.
  public var source: [UInt8]?
  public var metric: UInt32
  public init(_ destination: [UInt8], length: UInt8, isLocal: Bool = false, source: [UInt8]? = nil, metric: UInt32 = 0) {
    (self.destination, self.length, self.isLocal, self.source, self.metric) = (destination, length, isLocal, source, metric)
  }
  /// nil for those of other tables, and those with a gateway, or that hold for some packets only.
  public init?(_ reply: NetlinkReply) {
    guard reply.type == 24, reply.payload.count >= 12, [2, 10].contains(reply.payload[0]), reply.payload[2...3] == [0, 0] else { return nil }
    let attributes = reply.attributes(after: 12)
    // RTA_GATEWAY, RTA_MULTIPATH, RTA_VIA
    guard let destination = attributes[1], destination.count == (reply.payload[0] == 2 ? 4 : 16), attributes[5] == nil, attributes[9] == nil,
      attributes[18] == nil
    else { return nil }
    // rtm_table and rtm_type: main and unicast, or local and local.
    switch (reply.payload[4], reply.payload[7]) {
    case (254, 1): isLocal = false
    case (255, 2): isLocal = true
    default: return nil
    }
    (self.destination, length, source) = (destination, reply.payload[1], attributes[7])
    metric = (attributes[6] ?? []).read(UInt32.self, at: 0)
  }
}

/// To an address of this namespace's first: the others name it as their source.
extension LinkRoute: Comparable {
  public static func < (a: Self, b: Self) -> Bool {
    a.isLocal == b.isLocal ? a.destination.lexicographicallyPrecedes(b.destination) : a.isLocal
  }
}

/// A forwarding entry of a VXLAN device as RTM_NEWNEIGH tells it.
public struct ForwardingInfo: Hashable, Sendable {
  public var index: UInt32
  public var mac: [UInt8]
  public var destination: [UInt8]
  public init?(_ reply: NetlinkReply) {
    guard reply.type == 28, reply.payload.count >= 12, reply.payload[0] == 7 else { return nil }
    let attributes = reply.attributes(after: 12)
    guard let mac = attributes[2], let destination = attributes[1], destination.count == 4 else { return nil }
    index = reply.payload.read(UInt32.self, at: 4)
    self.mac = mac
    self.destination = destination
  }
}

/// An entry of a bridge: `mac` is behind the port `index`.
public struct BridgeForwardingInfo: Hashable, Sendable {
  public enum Kind: Hashable, Sendable {
    /// Somebody set it (NUD_NOARP).
    case fixed
    /// Frames for it are the host's own (NUD_PERMANENT): those of the ports themselves are such, and the bridge's, with the bridge's number.
    case local
    case learned
  }
  public var index: UInt32
  public var mac: [UInt8]
  public var kind: Kind
  public init(mac: [UInt8], port index: UInt32, _ kind: Kind = .fixed) { (self.mac, self.index, self.kind) = (mac, index, kind) }
  public init?(_ reply: NetlinkReply) {
    guard reply.type == 28, reply.payload.count >= 12, reply.payload[0] == 7 else { return nil }
    let attributes = reply.attributes(after: 12)
    // NDA_MASTER
    guard let mac = attributes[2], attributes[9] != nil else { return nil }
    let state = reply.payload.read(UInt16.self, at: 8)
    kind = state & 0x80 != 0 ? .local : state & 0x40 != 0 ? .fixed : .learned
    index = reply.payload.read(UInt32.self, at: 4)
    self.mac = mac
  }
}

/// A neighbour over IPv4 or IPv6 that somebody set for good: NUD_PERMANENT, or NUD_NOARP, which the kernel itself gives to groups alone (net/ipv4/arp.c,
/// arp_constructor; net/ipv6/ndisc.c, ndisc_constructor).
public struct NeighbourInfo: Hashable, Sendable {
  public var index: UInt32
  public var address: [UInt8]
  public var mac: [UInt8]
  public init?(_ reply: NetlinkReply) {
    guard reply.type == 28, reply.payload.count >= 12, [2, 10].contains(reply.payload[0]) else { return nil }
    let (attributes, state) = (reply.attributes(after: 12), reply.payload.read(UInt16.self, at: 8))
    guard let address = attributes[1], address.count == (reply.payload[0] == 2 ? 4 : 16), let mac = attributes[2] else { return nil }
    guard state & 0x80 != 0 || (state & 0x40 != 0 && mac.first.map { $0 & 1 == 0 } == true) else { return nil }
    index = reply.payload.read(UInt32.self, at: 4)
    self.address = address
    self.mac = mac
  }
}

extension NetlinkSocket {
  public func links() throws(NetlinkError) -> [LinkInfo] { try dump(.dumpLinks()).compactMap(LinkInfo.init) }
  public func addresses() throws(NetlinkError) -> [AddressInfo] { try dump(.dumpAddresses()).compactMap(AddressInfo.init) }
  public func forwarding() throws(NetlinkError) -> (tunnels: [ForwardingInfo], bridges: [BridgeForwardingInfo]) {
    let replies = try dump(.dumpForwarding())
    return (replies.compactMap(ForwardingInfo.init), replies.compactMap(BridgeForwardingInfo.init))
  }
  /// Of a family (AF_INET, AF_INET6), by one link.
  public func routes(_ family: Int32, on index: UInt32) throws(NetlinkError) -> [LinkRoute] {
    try dump(.dumpRoutes(family, on: index)).filter { $0.attributes(after: 12)[4] == nativeBytes(index) }.compactMap(LinkRoute.init)
  }
  public func neighbours() throws(NetlinkError) -> [NeighbourInfo] { try dump(.dumpNeighbours()).compactMap(NeighbourInfo.init) }
}
