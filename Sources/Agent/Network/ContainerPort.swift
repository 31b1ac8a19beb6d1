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
  /// nil: as it was made.
  var mtu: UInt32?
  var inner: String { "eth\(number)" }
  /// What the kernel routes to the interface itself.
  var prefix: IPv4Prefix { IPv4Prefix(peer ?? address, length: length)! }
}

extension NetworkWorld {
  /// In the order of the attachments, the uplink last.
  func ports(of container: TaskNetwork) -> [ContainerPort] {
    var ports = container.attachments.enumerated().compactMap { number, attachment -> ContainerPort? in
      guard let network = network(attachment.network) else { return nil }
      return ContainerPort(
        number: number, name: InterfaceName.veth(container.task, number), attachment: attachment, vni: network.vni, mac: attachment.address.mac,
        address: attachment.address, length: network.subnet.length, mtu: UInt32(clamping: network.mtu))
    }
    if let uplink = uplinks[container.task] {
      ports.append(
        ContainerPort(
          number: container.attachments.count, name: InterfaceName.uplink(container.task), vni: 0, address: uplink.address, peer: uplink.gateway,
          length: 32))
    }
    return ports
  }
}
