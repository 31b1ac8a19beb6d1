#if DEBUG
  @testable import AgentNetwork
  import Model
  @testable import Netlink

  /// What the kernel says of networks: datagrams of netlink, and text of /proc and nft. Whatever is read lies within the bytes; a flow that was
  /// read is named again as it was told.
  func feedNetlink(_ bytes: [UInt8]) {
    let replies = NetlinkReply.split(bytes) ?? []
    promise(replies.reduce(0) { $0 + 16 + $1.payload.count } <= bytes.count, "more messages than bytes")
    let links = DriftWatch.Links([1, 2, 3, 4, 5])
    var events = DriftWatch.RuleEvents()
    for reply in replies {
      for offset in [0, 4, 8, 12, 16] {
        promise(reply.attributes(after: offset).values.reduce(0) { $0 + 4 + $1.count } <= reply.payload.count, "attributes beyond their message")
      }
      if let link = LinkInfo(reply) { promise(link.mac.count <= reply.payload.count, "a link address beyond its message") }
      if let address = AddressInfo(reply) {
        promise([4, 16].contains(address.address.count), "an address of \(address.address.count) bytes")
        _ = address.peer.map { IPv4Address(octets: $0) }
      }
      if let entry = ForwardingInfo(reply) { promise(entry.destination.count == 4, "a host of \(entry.destination.count) bytes") }
      if let neighbour = NeighbourInfo(reply) { promise([4, 16].contains(neighbour.address.count), "a neighbour of no family") }
      _ = (BridgeForwardingInfo(reply), CounterInfo(reply), FilterInfo(reply))
      if let flow = FlowInfo(reply) {
        let message = NetlinkMessage.deleteFlow(flow)
        let again = NetlinkReply.split(message.bytes)
        promise(again?.count == 1 && again?[0].attributes(after: 4)[1] == flow.original, "another flow is to be forgotten")
      }
      if let error = NetlinkSocket.refusal(reply, of: .dumpLinks()) { promise(error.errno != 0, "a refusal without a reason") }
      if let route = LinkRoute(reply) { promise([4, 16].contains(route.destination.count), "a route of no family") }
      _ = DriftWatch.isRoute(reply, to: .init([.init(bytes: [10, 255, 0, 0], length: 24)]))
      _ = (DriftWatch.concerns(reply, links, links), DriftWatch.isRoute(reply, of: links), events.foreign(reply))
    }
    let text = String(decoding: bytes, as: UTF8.self)
    for route in KernelRoute.read(text) { promise(route.destination.length <= 32, "a route of \(route.destination.length) bits") }
    for route in KernelRoute6.read(text) { promise(route.destination.length <= 128, "a route of \(route.destination.length) bits") }
    promise(Nftables.chainNames(text)?.isEmpty != true, "a table without chains is none")
    for line in text.split(separator: "\n") { _ = (PortHolder.entry(line, .tcp), PortHolder.entry(line, .udp), PortHolder.endpoint(line)) }
  }
#endif
