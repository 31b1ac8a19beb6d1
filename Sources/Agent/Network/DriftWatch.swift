import CLinux
import Glibc
import LinuxSystem
import Netlink

/// Says when somebody changed links, addresses, forwarding entries or rules of the host's namespace, so that what is ours is compared again
/// (rtnetlink(7)'s groups; NFNLGRP_NFTABLES). Our own changes are told too, except rules: one comparison more, which finds nothing.
final class DriftWatch: Sendable {
  enum Change {
    /// Something of links, addresses or forwarding entries.
    case links
    /// Rules of a table with our name, by another program.
    case rules
  }
  private let stop: Int32

  /// To be made on a thread that is in the host's namespace. nil: this kernel does not tell.
  /// - Parameter changed: on a thread of the watch's own; once for all that came until nothing came for 100 ms.
  init?(changed: @escaping @Sendable (Set<Change>) -> Void) {
    // RTMGRP_LINK, RTMGRP_NEIGH, RTMGRP_IPV4_IFADDR; NFNLGRP_NFTABLES is the seventh.
    guard let routes = Self.open(0, groups: 0x15) else { return nil }
    guard let rules = Self.open(12, groups: 1 << 6) else {
      close(routes)
      return nil
    }
    stop = eventfd(0, Int32(EFD_CLOEXEC))
    guard stop >= 0 else {
      close(routes)
      close(rules)
      return nil
    }
    let end = dup(stop)
    startThread("orch-drift") {
      defer { for descriptor in [routes, rules, end] { close(descriptor) } }
      var buffer = [UInt8](repeating: 0, count: 65_536)
      var own = RuleEvents()
      var seen: Set<Change> = []
      while true {
        var polled = [end, routes, rules].map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        let count = poll(&polled, 3, seen.isEmpty ? -1 : 100)
        if count == 0 {
          changed(seen)
          seen = []
        }
        guard count > 0 else { continue }
        if polled[0].revents != 0 { return }
        if polled[1].revents != 0, Self.read(routes, &buffer)?.contains(where: Self.concerns) ?? true { seen.insert(.links) }
        if polled[2].revents != 0, Self.read(rules, &buffer).map({ own.foreign($0) }) ?? true { seen.insert(.rules) }
      }
    }
  }
  deinit {
    eventfd_write(stop, 1)
    close(stop)
  }

  /// A neighbour that was learned or aged is not of our making: only entries that somebody set, of bridges and VXLAN devices.
  private static func concerns(_ message: NetlinkReply) -> Bool {
    guard message.type == 28 || message.type == 29 else { return true }
    guard message.payload.count >= 12, message.payload[0] == UInt8(AF_BRIDGE) else { return false }
    return message.payload[10] & 2 != 0 || (message.payload[8] | message.payload[9]) & 0xc0 != 0
  }

  /// The rule set's events come object by object; the last of a transaction, NFT_MSG_NEWGEN, says who made it.
  struct RuleEvents {
    private var isOurs = false
    /// Of the thread that loads rules.
    static let loader = "orch-network"

    mutating func foreign(_ messages: [NetlinkReply]) -> Bool {
      var found = false
      for message in messages where message.type >> 8 == 10 {
        func text(_ bytes: [UInt8]?) -> String { String(decoding: (bytes ?? []).prefix { $0 != 0 }, as: UTF8.self) }
        let attributes = message.attributes(after: 4)
        if message.type & 0xff == 15 {
          // NFTA_GEN_PROC_NAME
          if isOurs, text(attributes[3]) != Self.loader { found = true }
          isOurs = false
        } else if text(attributes[1]) == "orch" {
          // The first attribute of tables, chains, rules and sets is the table's name.
          isOurs = true
        }
      }
      return found
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
  private static func read(_ descriptor: Int32, _ buffer: inout [UInt8]) -> [NetlinkReply]? {
    var messages: [NetlinkReply] = []
    while true {
      let count = recv(descriptor, &buffer, buffer.count, 0)
      if count < 0 { return errno == EAGAIN || errno == EINTR ? messages : nil }
      guard let some = NetlinkReply.split(Array(buffer[..<count])) else { return nil }
      messages += some
    }
  }
}
