import Glibc

// Messages of nfnetlink's nf_tables subsystem (linux/netfilter/nf_tables.h): what is asked often, without libnftables, which first reads the whole
// table with every element of its sets.

extension NetlinkMessage {
  // With an acknowledgement, which ends the answer.
  static func getRuleGeneration() -> Self {
    // NFT_MSG_GETGEN.
    var message = Self(type: 0xa10, flags: 0, operation: "read", object: "the rule set's generation")
    message.wantAcknowledgement()
    message.append([0, 0, 0, 0])
    return message
  }
  static func getCounter(_ name: String, table: String, family: Int32) -> Self {
    // NFT_MSG_GETOBJ with NFTA_OBJ_TABLE, NFTA_OBJ_NAME, NFTA_OBJ_TYPE: NFT_OBJECT_COUNTER.
    var message = Self(type: 0xa13, flags: 0, operation: "read", object: "counter \(name) of table \(table)")
    message.wantAcknowledgement()
    message.append([UInt8(truncatingIfNeeded: family), 0, 0, 0])
    message.attribute(1, table)
    message.attribute(2, name)
    message.attribute(3, networkBytes(UInt32(1)))
    return message
  }
}

/// A counter that has a name.
public struct CounterInfo: Hashable, Sendable {
  public var packets: UInt64

  /// nil when the reply is no counter.
  public init?(_ reply: NetlinkReply) {
    // NFT_MSG_NEWOBJ; NFTA_OBJ_DATA, NFTA_COUNTER_PACKETS.
    guard reply.type == 0xa12, reply.attributes(after: 4)[3] == networkBytes(UInt32(1)), let data = reply.attributes(after: 4)[4],
      let packets = splitAttributes(data[...])[2], packets.count == 8
    else { return nil }
    self.packets = UInt64(bigEndian: packets.read(UInt64.self, at: 0))
  }
}

extension NetlinkSocket {
  /// NETLINK_NETFILTER. Closing it waits until the kernel has let go of what transactions replaced, whoever made them, and holds those up that come: a
  /// grace period of RCU, 10 to 20 ms (Linux net/netfilter/nf_tables_api.c, nft_rcv_nl_event).
  public static func netfilter() throws(NetlinkError) -> NetlinkSocket { try NetlinkSocket(family: 12) }

  /// Of the socket's namespace: the kernel raises it with every transaction of nftables, whoever makes it. `netfilter` only.
  public func ruleGeneration() throws(NetlinkError) -> UInt32 {
    // NFT_MSG_NEWGEN, NFTA_GEN_ID.
    guard let id = try dump(.getRuleGeneration()).first(where: { $0.type == 0xa0f })?.attributes(after: 4)[1], id.count == 4 else {
      throw NetlinkError(operation: "read", object: "the rule set's generation", errno: ENOMSG)
    }
    return UInt32(bigEndian: id.read(UInt32.self, at: 0))
  }

  /// Of the socket's namespace; ENOENT when there is none. `netfilter` only.
  /// - Parameter family: of the table, as AF_INET.
  public func counter(_ name: String, table: String, family: Int32) throws(NetlinkError) -> CounterInfo {
    guard let counter = try dump(.getCounter(name, table: table, family: family)).lazy.compactMap(CounterInfo.init).first else {
      throw NetlinkError(operation: "read", object: "counter \(name) of table \(table)", errno: ENOMSG)
    }
    return counter
  }
}
