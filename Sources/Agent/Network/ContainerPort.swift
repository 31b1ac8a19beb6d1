import Model

/// One interface of a container: ethN in its namespace, a veth in the host's.
struct ContainerPort: Equatable, Sendable {
  var number: Int
  /// The host's end.
  var name: String
  /// nil: the uplink.
  var attachment: NetworkAttachment?
  /// 0: none, the uplink.
  var vni: UInt32
  var mac: [UInt8]?
  var address: IPv4Address
  /// At the other end of an uplink.
  var peer: IPv4Address?
  var length: UInt8
  /// Where the network has IPv6; of an uplink: `NetworkWorld.needsUplink6`.
  var address6: IPv6Address?
  var length6: UInt8 = 128
  var mtu: UInt32
  var inner: String { "eth\(number)" }
  /// What the kernel routes to the interface itself.
  var prefix: IPv4Prefix { IPv4Prefix(peer ?? address, length: length)! }
  var prefix6: IPv6Prefix? { address6.flatMap { IPv6Prefix($0, length: length6) } }
}

extension NetworkWorld {
  /// In the order of the attachments, the uplink last.
  func ports(of container: TaskNetwork) -> [ContainerPort] {
    var ports = container.attachments.enumerated().compactMap { number, attachment -> ContainerPort? in
      guard let network = network(attachment.network) else { return nil }
      return ContainerPort(
        number: number, name: InterfaceName.veth(container.task, number), attachment: attachment, vni: network.vni, mac: attachment.address.mac,
        address: attachment.address, length: network.subnet.length, address6: network.counterpart(of: attachment.address),
        length6: network.subnet6?.length ?? 128, mtu: UInt32(clamping: network.mtu))
    }
    if let uplink = uplinks[container.task] {
      ports.append(
        ContainerPort(
          number: container.attachments.count, name: InterfaceName.uplink(container.task), vni: 0, address: uplink.address, peer: uplink.gateway,
          length: 32, address6: needsUplink6(container) ? uplink.address6 : nil, mtu: uplinkMTU))
    }
    return ports
  }
}
