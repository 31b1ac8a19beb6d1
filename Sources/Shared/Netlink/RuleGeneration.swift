import Glibc

// One message of nfnetlink's nf_tables subsystem (linux/netfilter/nf_tables.h).

extension NetlinkMessage {
  static func getRuleGeneration() -> Self {
    // NFT_MSG_GETGEN. With an acknowledgement, which ends the answer.
    var message = Self(type: 0xa10, flags: 0, operation: "read", object: "the rule set's generation")
    message.wantAcknowledgement()
    message.append([0, 0, 0, 0])
    return message
  }
}

extension NetlinkSocket {
  /// That of the calling thread's namespace: the kernel raises it with every transaction of nftables, whoever makes it.
  public static func ruleGeneration() throws(NetlinkError) -> UInt32 {
    let socket = try NetlinkSocket(family: 12)  // NETLINK_NETFILTER
    // NFT_MSG_NEWGEN, NFTA_GEN_ID.
    guard let id = try socket.dump(.getRuleGeneration()).first(where: { $0.type == 0xa0f })?.attributes(after: 4)[1], id.count == 4 else {
      throw NetlinkError(operation: "read", object: "the rule set's generation", errno: ENOMSG)
    }
    return UInt32(bigEndian: id.read(UInt32.self, at: 0))
  }
}
