import Model
import Netlink

/// The host's end of a container's interface: a veth that is named as ours are.
public struct ContainerLink: Hashable, Sendable {
  public var name: String
  var index: UInt32
  /// The last digits of its task's id.
  private var suffix: Substring

  init?(_ link: LinkInfo) {
    let uplink = InterfaceName.isUplink(link.name)
    guard link.kind == "veth", uplink || link.name.hasPrefix(InterfaceName.vethPrefix) else { return nil }
    let rest = link.name.dropFirst(uplink ? InterfaceName.uplinkPrefix.count : InterfaceName.vethPrefix.count)
    let number = rest.dropFirst(InterfaceName.digits)
    let isID = rest.prefix(InterfaceName.digits).utf8.allSatisfy { (48...57).contains($0) || (97...122).contains($0) }
    guard rest.count >= InterfaceName.digits, isID, uplink ? number.isEmpty : UInt8(number) != nil else { return nil }
    (name, index, suffix) = (link.name, link.index, rest.prefix(InterfaceName.digits))
  }

  public func isOf(_ task: TaskID) -> Bool { task.description.hasSuffix(suffix) }
}

extension OverlayNetwork {
  /// Of tasks that are here and of those that a crash left.
  public func containerLinks() async throws -> [ContainerLink] {
    try await host.thread.run { try NetlinkSocket().links().compactMap(ContainerLink.init) }
  }

  /// With the other end, wherever that is. One that is gone already is passed over.
  public func remove(_ links: [ContainerLink]) async throws {
    try await host.thread.run {
      let socket = try NetlinkSocket()
      // An index may be another's by now; a link that was renamed is nobody's leftover.
      let there = Set(try socket.links().compactMap(ContainerLink.init))
      for link in links where there.contains(link) { try socket.perform([.deleteLink(link.index, link.name)]) }
    }
  }
}
