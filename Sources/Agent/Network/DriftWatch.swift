import CLinux
import Glibc
import LinuxSystem
import Netlink
import Synchronization

/// Says when somebody changed links, addresses, forwarding entries or rules of the host's namespace, so that what is ours is compared again
/// (rtnetlink(7)'s groups; NFNLGRP_NFTABLES). Our own changes are told too, except rules: one comparison more, which finds nothing.
final class DriftWatch: Sendable {
  enum Change: Hashable {
    /// Something of links, addresses or forwarding entries.
    case links
    /// Rules of a table with our name, by another program.
    case rules
    /// The same in the namespace of a container, by the host's id for it; nil: it may be any.
    case containerRules(Int32?)
    /// Interfaces, addresses or routes of a container's namespace; nil: it may be any.
    case containerLinks(Int32?)
    /// The host's route to an uplink.
    case uplinkRoutes
    /// A route to what is on a bridge, or to the host's own address there.
    case bridgeRoutes
  }
  /// Links whose neighbours are ours.
  let tunnels: Links
  /// All of ours: who sets an entry or a neighbour there for good means it.
  let links: Links
  /// Links whose routes are ours.
  let uplinks: Links
  final class Links: Sendable {
    private let indexes: Mutex<Set<UInt32>>
    init(_ indexes: Set<UInt32> = []) { self.indexes = Mutex(indexes) }
    func withLock(_ body: (inout Set<UInt32>) -> Void) { indexes.withLock { body(&$0) } }
    func contains(_ index: UInt32) -> Bool { indexes.withLock { $0.contains(index) } }
  }
  /// Where routes lead that are ours, whoever makes one there or takes it.
  let destinations: Destinations
  struct Destination: Hashable {
    /// 4 or 16.
    var bytes: [UInt8]
    var length: UInt8
  }
  final class Destinations: Sendable {
    let all: Mutex<Set<Destination>>
    init(_ all: Set<Destination> = []) { self.all = Mutex(all) }
  }
  private let stop: Int32
  /// Generations of rule sets that were heard of, by namespace.
  private let heard: Heard
  private final class Heard: Sendable { let generations = Mutex<[Int32?: UInt32]>([:]) }
  func generation(of namespace: Int32?) -> UInt32? { heard.generations.withLock { $0[namespace] } }

  /// To be made on a thread that is in the host's namespace. nil: this kernel does not tell.
  /// - Parameter changed: on a thread of the watch's own; once for all that came within 100 ms, or longer where changes do not end (`Pace`).
  init?(changed: @escaping @Sendable (Set<Change>) -> Void) {
    // RTMGRP_LINK, RTMGRP_NEIGH, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE; NFNLGRP_NFTABLES is the seventh.
    guard let routes = Self.open(0, groups: 0x555) else { return nil }
    guard let rules = Self.open(12, groups: 1 << 6) else {
      close(routes)
      return nil
    }
    // One for all containers; without RTMGRP_NEIGH, which says when one just asked for another's address.
    guard let inside = Self.open(0, groups: 0x551) else {
      close(routes)
      close(rules)
      return nil
    }
    stop = eventfd(0, Int32(EFD_CLOEXEC))
    guard stop >= 0 else {
      for descriptor in [routes, rules, inside] { close(descriptor) }
      return nil
    }
    // RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV6_NETCONF: `forwarding` and `rp_filter`; of other parameters the kernel says nothing.
    for var group: Int32 in [24, 25] { setsockopt(routes, 270, 1, &group, socklen_t(MemoryLayout<Int32>.size)) }  // NETLINK_ADD_MEMBERSHIP
    // Of the namespaces that this one knows, which are its containers', too; each message says of which.
    var on: Int32 = 1
    for descriptor in [rules, inside] {
      setsockopt(descriptor, 270, 8, &on, socklen_t(MemoryLayout<Int32>.size))  // NETLINK_LISTEN_ALL_NSID
    }
    let end = dup(stop)
    let (tunnels, links, uplinks, destinations) = (Links(), Links(), Links(), Destinations())
    (self.tunnels, self.links, self.uplinks, self.destinations) = (tunnels, links, uplinks, destinations)
    let heard = Heard()
    self.heard = heard
    startThread("orch-drift") {
      defer { for descriptor in [routes, rules, inside, end] { close(descriptor) } }
      var buffer = [UInt8](repeating: 0, count: 65_536)
      var events: [Int32?: RuleEvents] = [:]
      var seen: Set<Change> = []
      var pace = Pace()
      while true {
        var polled = [end, routes, rules, inside].map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        let count = poll(&polled, 4, pace.wait(at: Self.now()))
        // What concerns nobody may come without end.
        if pace.isDue(at: Self.now()) {
          changed(seen)
          seen = []
        }
        defer { if !seen.isEmpty { pace.began(at: Self.now()) } }
        guard count > 0 else { continue }
        if polled[0].revents != 0 { return }
        if polled[1].revents != 0 {
          let messages = Self.read(routes, &buffer)
          if messages?.contains(where: { Self.concerns($0.message, tunnels, links) }) ?? true { seen.insert(.links) }
          if messages?.contains(where: { Self.isRoute($0.message, of: uplinks) }) ?? true { seen.insert(.uplinkRoutes) }
          if messages?.contains(where: { Self.isRoute($0.message, to: destinations) }) ?? true { seen.insert(.bridgeRoutes) }
        }
        if polled[3].revents != 0 {
          let messages = Self.read(inside, &buffer)
          for (_, namespace) in messages ?? [] { if let namespace { seen.insert(.containerLinks(namespace)) } }
          if messages == nil { seen.insert(.containerLinks(nil)) }
        }
        guard polled[2].revents != 0 else { continue }
        guard let messages = Self.read(rules, &buffer) else {
          seen.formUnion([.rules, .containerRules(nil)])
          continue
        }
        for (message, namespace) in messages where events[namespace, default: RuleEvents()].foreign(message) {
          seen.insert(namespace.map { .containerRules($0) } ?? .rules)
        }
        heard.generations.withLock { known in
          for (message, namespace) in messages where RuleEvents.isLast(message) { known[namespace] = events[namespace]?.generation }
        }
      }
    }
  }
  deinit {
    eventfd_write(stop, 1)
    close(stop)
  }

  /// When what was seen is told: 100 ms after the first of it, since what one program does comes together. Where it goes on without a second's pause,
  /// a comparison costs more than it brings: twice as long each time, up to a second. In milliseconds of a clock that never goes back.
  struct Pace {
    static let (first, most, calm) = (Int64(100), Int64(1000), Int64(1000))
    private var due: Int64?
    private var told: (at: Int64, after: Int64)?

    /// Something is to be told.
    mutating func began(at now: Int64) {
      guard due == nil else { return }
      let isCalm = told.map { now - $0.at >= Self.calm } ?? true
      let pause = isCalm ? Self.first : min(told!.after * 2, Self.most)
      told = (now, pause)
      due = now + pause
    }
    /// True once for what began.
    mutating func isDue(at now: Int64) -> Bool {
      guard let due, now >= due else { return false }
      (self.due, told!.at) = (nil, now)
      return true
    }
    /// As poll(2) takes it.
    func wait(at now: Int64) -> Int32 { due.map { Int32(max(0, $0 - now)) } ?? -1 }
  }
  private static func now() -> Int64 { Int64(MonotonicClock.now / 1_000_000) }

  /// A neighbour that was learned or aged is not of our making: only entries that somebody set, of bridges and VXLAN devices, all neighbours on
  /// the latter, and on our other links those that somebody set. Our bridges learn nothing: what they learned somebody let them.
  static func concerns(_ message: NetlinkReply, _ tunnels: Links, _ links: Links) -> Bool {
    // Of IPv6 addresses those that go, and of routes ours alone: routers renew a host's own every few seconds.
    if [20, 24, 25].contains(message.type), message.payload.first == UInt8(AF_INET6) { return false }
    guard message.type == 28 || message.type == 29 else { return true }
    guard message.payload.count >= 12 else { return false }
    let index = message.payload.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 4, as: UInt32.self) }
    let isSet = (message.payload[8] | message.payload[9]) & 0xc0 != 0
    if [UInt8(AF_INET), UInt8(AF_INET6)].contains(message.payload[0]) { return tunnels.contains(index) || (isSet && links.contains(index)) }
    guard message.payload[0] == UInt8(AF_BRIDGE) else { return false }
    return message.payload[10] & 2 != 0 || isSet || links.contains(index)
  }

  /// One that was taken away (RTM_DELROUTE).
  static func isRoute(_ message: NetlinkReply, of uplinks: Links) -> Bool {
    guard message.type == 25, message.payload.count >= 12, [UInt8(AF_INET), UInt8(AF_INET6)].contains(message.payload[0]) else { return false }
    // RTA_OIF
    guard let device = message.attributes(after: 12)[4], device.count == 4 else { return false }
    return uplinks.contains(device.withUnsafeBytes { $0.loadUnaligned(as: UInt32.self) })
  }

  /// Another one to the same place may stand in for ours (`ip route replace`): that is told as one that was made (RTM_NEWROUTE).
  static func isRoute(_ message: NetlinkReply, to destinations: Destinations) -> Bool {
    guard [24, 25].contains(message.type), message.payload.count >= 12, let bytes = message.attributes(after: 12)[1] else { return false }
    return destinations.all.withLock { $0.contains(Destination(bytes: bytes, length: message.payload[1])) }
  }

  /// The rule set's events come object by object; the last of a transaction, NFT_MSG_NEWGEN, says who made it.
  struct RuleEvents {
    private var isOurs = false
    /// Of the thread that loads rules: drawn, since another agent's and whoever calls itself so are not this one. 15 bytes, as the kernel keeps.
    static let loader = "orch-nft-" + String((0..<6).map { _ in "abcdefghijklmnopqrstuvwxyz0123456789".randomElement()! })
    /// The rule set's generation after the last transaction that was heard of (NFTA_GEN_ID).
    private(set) var generation: UInt32?

    /// Of a transaction.
    static func isLast(_ message: NetlinkReply) -> Bool { message.type >> 8 == 10 && message.type & 0xff == 15 }

    mutating func foreign(_ message: NetlinkReply) -> Bool {
      guard message.type >> 8 == 10 else { return false }
      func text(_ bytes: [UInt8]?) -> String { String(decoding: (bytes ?? []).prefix { $0 != 0 }, as: UTF8.self) }
      let attributes = message.attributes(after: 4)
      if Self.isLast(message) {
        defer { isOurs = false }
        if let id = attributes[1], id.count == 4 { generation = UInt32(bigEndian: id.withUnsafeBytes { $0.loadUnaligned(as: UInt32.self) }) }
        // NFTA_GEN_PROC_NAME
        return isOurs && text(attributes[3]) != Self.loader
      }
      // The first attribute of tables, chains, rules and sets is the table's name.
      if text(attributes[1]) == "orch" { isOurs = true }
      return false
    }
  }

  private static func open(_ family: Int32, groups: UInt32) -> Int32? {
    let descriptor = socket(AF_NETLINK, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue), family)
    guard descriptor >= 0 else { return nil }
    var room: Int32 = 4 << 20
    setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &room, socklen_t(MemoryLayout<Int32>.size))
    var address = [UInt8](repeating: 0, count: 12)
    address.withUnsafeMutableBytes { bytes in
      bytes.storeBytes(of: UInt16(AF_NETLINK), as: UInt16.self)
      bytes.storeBytes(of: groups, toByteOffset: 8, as: UInt32.self)
    }
    let bound = address.withUnsafeMutableBytes { bind(descriptor, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), 12) }
    if bound == 0 { return descriptor }
    close(descriptor)
    return nil
  }

  /// nil when some were lost (ENOBUFS): anything may have changed.
  private static func read(_ descriptor: Int32, _ buffer: inout [UInt8]) -> [(message: NetlinkReply, namespace: Int32?)]? {
    var messages: [(NetlinkReply, Int32?)] = []
    var control = [UInt8](repeating: 0, count: 64)
    // The other sockets wait, and there may be more without end.
    for _ in 0..<256 {
      var given = 0
      let count = buffer.withUnsafeMutableBytes { bytes in
        control.withUnsafeMutableBytes { control in
          var part = iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)
          return withUnsafeMutablePointer(to: &part) { part in
            var header = msghdr()
            (header.msg_iov, header.msg_iovlen) = (part, 1)
            (header.msg_control, header.msg_controllen) = (control.baseAddress, control.count)
            defer { given = header.msg_controllen }
            return recvmsg(descriptor, &header, 0)
          }
        }
      }
      if count < 0 { return errno == EAGAIN || errno == EINTR ? messages : nil }
      guard let some = NetlinkReply.split(Array(buffer[..<count])) else { return nil }
      // One cmsghdr: length (8 bytes), SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, the id; none for our own namespace.
      let namespace = control.withUnsafeBytes { bytes -> Int32? in
        guard given >= 20, bytes.load(fromByteOffset: 8, as: Int32.self) == 270, bytes.load(fromByteOffset: 12, as: Int32.self) == 8 else {
          return nil
        }
        return bytes.load(fromByteOffset: 16, as: Int32.self)
      }
      messages += some.map { ($0, namespace) }
    }
    return messages
  }
}
