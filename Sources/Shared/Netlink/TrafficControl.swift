import Glibc

// Messages of rtnetlink(7) about traffic control: programs that see the frames which come in by a link (tc-bpf(8); linux/pkt_sched.h, pkt_cls.h).

extension NetlinkMessage {
  /// tcmsg: family, link, handle, parent, info.
  private static func traffic(
    _ type: UInt16, _ flags: UInt16, _ link: UInt32, handle: UInt32, parent: UInt32, info: UInt32 = 0, _ operation: String, _ object: String
  ) -> Self {
    var message = Self(type: type, flags: flags, operation: operation, object: "\(object) of link \(link)")
    message.append([UInt8(AF_UNSPEC), 0, 0, 0] + nativeBytes(link) + nativeBytes(handle) + nativeBytes(parent) + nativeBytes(info))
    return message
  }
  /// TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS).
  private static let ingress: UInt32 = 0xffff_fff2
  /// Every protocol's (ETH_P_ALL, network order).
  private static func info(_ priority: UInt16) -> UInt32 { UInt32(priority) << 16 | UInt32(UInt16(3).bigEndian) }

  /// The place where filters hang; no error when there is one.
  public static func addFilterPlace(_ link: UInt32) -> Self {
    var message = traffic(36, NetlinkFlag.create | NetlinkFlag.exclusive, link, handle: 0xffff_0000, parent: 0xffff_fff1, "add", "qdisc clsact")
    message.attribute(1, "clsact")
    message.tolerated = [EEXIST]
    return message
  }
  /// Takes the place of one with that priority, between two frames. ENOENT: the kernel has no BPF classifier.
  /// - Parameters:
  ///   - priority: at least 1; the lowest sees frames first.
  ///   - program: a descriptor of BPF_PROG_TYPE_SCHED_CLS; what it returns is done.
  ///   - name: as `tc filter` shows it.
  public static func setIngressFilter(_ link: UInt32, priority: UInt16, program: Int32, name: String) -> Self {
    var message = traffic(44, NetlinkFlag.create, link, handle: 1, parent: ingress, info: info(priority), "set", "the ingress filter")
    message.attribute(1, "bpf")
    message.nested(2) {
      $0.attribute(6, UInt32(bitPattern: program))
      $0.attribute(7, name)
      $0.attribute(8, UInt32(1))  // TCA_BPF_FLAG_ACT_DIRECT
    }
    return message
  }
  /// No error when there is none, or no such link.
  public static func deleteIngressFilter(_ link: UInt32, priority: UInt16) -> Self {
    var message = traffic(45, 0, link, handle: 0, parent: ingress, info: info(priority), "delete", "the ingress filter")
    message.tolerated = [ENOENT, ENODEV, EINVAL]
    return message
  }
  public static func dumpIngressFilters(_ link: UInt32) -> Self {
    traffic(46, NetlinkFlag.dump, link, handle: 0, parent: ingress, "list", "ingress filters")
  }
}

/// A filter with a BPF program, as RTM_NEWTFILTER tells it.
public struct FilterInfo: Hashable, Sendable {
  public var priority: UInt16
  /// The program's number (BPF_PROG_GET_FD_BY_ID).
  public var program: UInt32

  /// nil when the reply is no such filter.
  public init?(_ reply: NetlinkReply) {
    guard reply.type == 44, reply.payload.count >= 20 else { return nil }
    let options = splitAttributes((reply.attributes(after: 20)[2] ?? [])[...])
    // TCA_BPF_ID.
    guard let program = options[11], program.count == 4 else { return nil }
    self.program = program.read(UInt32.self, at: 0)
    priority = UInt16(truncatingIfNeeded: reply.payload.read(UInt32.self, at: 16) >> 16)
  }
}

extension NetlinkSocket {
  /// Those with BPF programs at a link's clsact, the lowest priority first; none when there is no such link.
  public func ingressFilters(_ link: UInt32) throws(NetlinkError) -> [FilterInfo] {
    do { return try dump(.dumpIngressFilters(link)).compactMap(FilterInfo.init) } catch {
      if [ENODEV, EINVAL].contains(error.errno) { return [] }
      throw error
    }
  }
}
