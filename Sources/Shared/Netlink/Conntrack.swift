import Glibc

// Messages of nfnetlink's conntrack subsystem (linux/netfilter/nfnetlink_conntrack.h).

/// A datagram flow that conntrack remembers.
public struct FlowInfo: Hashable, Sendable {
  /// Who answers, after translation; network order.
  public var answerer: [UInt8]
  /// CTA_TUPLE_ORIG as the kernel told it: what names the flow.
  public var original: [UInt8]
  /// Who answers is not who was asked.
  public var isTranslated: Bool

  /// nil when the reply is no UDP flow.
  public init?(_ reply: NetlinkReply) {
    guard reply.type == 0x100, reply.payload.count >= 4, [UInt8(AF_INET), UInt8(AF_INET6)].contains(reply.payload[0]) else { return nil }
    let attributes = reply.attributes(after: 4)
    guard let original = attributes[1], let answer = attributes[2] else { return nil }
    let tuple = splitAttributes(answer[...])
    let isIPv6 = reply.payload[0] == UInt8(AF_INET6)
    // CTA_TUPLE_IP with CTA_IP_V4_SRC or CTA_IP_V6_SRC; CTA_TUPLE_PROTO with CTA_PROTO_NUM.
    guard let source = splitAttributes((tuple[1] ?? [])[...])[isIPv6 ? 3 : 1], source.count == (isIPv6 ? 16 : 4),
      splitAttributes((tuple[2] ?? [])[...])[1]?.first == UInt8(IPPROTO_UDP)
    else { return nil }
    // CTA_IP_V4_DST or CTA_IP_V6_DST.
    let asked = splitAttributes((splitAttributes(original[...])[1] ?? [])[...])[isIPv6 ? 4 : 2]
    (answerer, self.original, isTranslated) = (source, original, asked != source)
  }
}

extension NetlinkMessage {
  // nfgenmsg: family, version, resource.
  /// UDP alone, chosen by the kernel (5.8 and newer): a busy host remembers ten thousands of TCP connections.
  static func dumpFlows(_ family: Int32) -> Self {
    var message = Self(type: 0x101, flags: NetlinkFlag.dump, operation: "list", object: "connections")
    message.append([UInt8(family), 0, 0, 0])
    // CTA_TUPLE_ORIG, CTA_TUPLE_PROTO, CTA_PROTO_NUM; CTA_FILTER, CTA_FILTER_ORIG_FLAGS: the protocol's number counts.
    message.nested(0x8001) { $0.nested(0x8002) { $0.attribute(1, UInt8(IPPROTO_UDP)) } }
    message.nested(0x8019) { $0.attribute(1, UInt32(8)) }
    return message
  }
  static func deleteFlow(_ flow: FlowInfo) -> Self {
    var message = Self(type: 0x102, flags: 0, operation: "forget", object: "a flow to \(flow.answerer.map { "\($0)" }.joined(separator: "."))")
    message.append([UInt8(flow.answerer.count == 16 ? AF_INET6 : AF_INET), 0, 0, 0])
    message.attribute(0x8001, flow.original)
    message.tolerated = [ENOENT]
    return message
  }
}

extension NetlinkSocket {
  /// Makes the socket's namespace forget the UDP flows that these addresses (network order) answered: the next datagram of each is
  /// translated anew. A flow that is never silent would otherwise stay with a task that is gone. Takes time with the flows there are. `netfilter` only.
  /// - Returns: whether flows that are translated, of these families, are left.
  @discardableResult
  public func forgetDatagrams(answeredBy addresses: Set<[UInt8]>) throws(NetlinkError) -> Bool {
    var flows: [FlowInfo] = []
    for (family, length) in [(AF_INET, 4), (AF_INET6, 16)] where addresses.contains(where: { $0.count == length }) {
      flows += try dump(.dumpFlows(family)).compactMap(FlowInfo.init)
    }
    try perform(flows.filter { addresses.contains($0.answerer) }.map { .deleteFlow($0) })
    return flows.contains { $0.isTranslated && !addresses.contains($0.answerer) }
  }
}
