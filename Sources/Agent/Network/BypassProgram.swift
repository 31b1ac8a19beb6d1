import LinuxSystem
import Model

/// What the kernel does with a frame that comes in by a door of a network (BypassState): who is in the map gets it at once, all else passes the bridge
/// as it would without.
///
/// A frame's place is known by its receiver alone, as the bridge knows it. What the bridge or the host's rules would not let pass is left to them:
/// frames for a group and of unknown receivers, what is not IP (ARP, tagged frames), senders that are none (br_handle_frame), and 127.0.0.0/8
/// (Ruleset.host, `inside`).
enum BypassProgram {
  /// - Parameter map: descriptor of the map from `BypassState.Place` to `BypassState.Target`.
  static func code(vni: UInt32, map: Int32) -> BPFCode {
    var code = BPFCode()
    // linux/bpf.h, struct __sk_buff: mark 8, vlan_present 20, ifindex 40, data 76, data_end 80.
    code.add(0xbf, 6, 1)
    code.add(0x61, 2, 6, offset: 20)
    code.leave(0x55, 2, immediate: 0)
    code.add(0x61, 2, 6, offset: 76)
    code.add(0x61, 3, 6, offset: 80)
    // Both headers, as far as IPv4's receiver.
    code.add(0xbf, 4, 2)
    code.add(0x07, 4, immediate: 34)
    code.leave(0x2d, 4, 3)
    code.add(0x69, 5, 2, offset: 12)
    code.add(0x15, 5, offset: 3, immediate: UInt32(UInt16(0x86dd).bigEndian))
    code.leave(0x55, 5, immediate: UInt32(UInt16(0x0800).bigEndian))
    code.add(0x71, 5, 2, offset: 30)
    code.leave(0x15, 5, immediate: 127)
    // A sender that is a group, or nobody.
    code.add(0x71, 5, 2, offset: 6)
    code.add(0x57, 5, immediate: 1)
    code.leave(0x55, 5, immediate: 0)
    code.add(0x61, 5, 2, offset: 6)
    code.add(0x69, 4, 2, offset: 10)
    code.add(0x4f, 5, 4)
    code.leave(0x15, 5, immediate: 0)
    // 02:42 and the address.
    code.add(0x69, 5, 2)
    code.leave(0x55, 5, immediate: UInt32(UInt16(0x0242).bigEndian))
    code.add(0x61, 5, 2, offset: 2)
    code.add(0x62, 10, offset: UInt64(bitPattern: -8), immediate: vni)
    code.add(0x63, 10, 5, offset: UInt64(bitPattern: -4))
    code.add(0x18, 1, 1, immediate: UInt32(bitPattern: map))
    code.add(0, 0)
    code.add(0xbf, 2, 10)
    code.add(0x07, 2, immediate: UInt32(bitPattern: -8))
    code.add(0x85, 0, immediate: 1)  // bpf_map_lookup_elem
    code.leave(0x15, 0, immediate: 0)
    code.add(0x61, 1, 0)
    code.add(0x61, 7, 0, offset: 4)
    // Not back to where it came from: what the bridge does then depends on the port.
    code.add(0x61, 3, 6, offset: 40)
    code.leave(0x1d, 1, 3)
    // A host's rules may have marked VXLAN's packet, which no container sees: a veth takes the mark away, bpf_redirect_peer does not.
    code.add(0xb7, 4, immediate: 0)
    code.add(0x63, 6, 4, offset: 8)
    code.add(0xb7, 2, immediate: 0)
    code.add(0x15, 7, offset: 2, immediate: 0)
    code.add(0x85, 0, immediate: 155)  // bpf_redirect_peer: to the other end of the veth
    code.add(0x95, 0)
    code.add(0x85, 0, immediate: 23)  // bpf_redirect
    code.add(0x95, 0)
    code.land()
    code.add(0xb4, 0, immediate: UInt32(bitPattern: -1))  // TC_ACT_UNSPEC: the next filter, if there is one
    code.add(0x95, 0)
    return code
  }

  /// At most 15 bytes (BPF_OBJ_NAME_LEN): which network it is of, and that it is this program and no other agent's.
  static func name(vni: UInt32) -> String { prefix + hex(vni, 6) + version }
  /// nil: not of this program.
  static func vni(name: String) -> UInt32? {
    guard name.count == 15, name.hasPrefix(prefix), name.hasSuffix(version) else { return nil }
    return UInt32(name.dropFirst(4).prefix(6), radix: 16)
  }
  /// Of any version.
  static func isOurs(_ name: String) -> Bool { name.count == 15 && name.hasPrefix(prefix) && name.dropFirst(4).allSatisfy(\.isHexDigit) }

  private static let prefix = "orch"
  private static let version: String = {
    let bytes = code(vni: 0, map: 0).instructions.flatMap { instruction in (0..<8).map { UInt8(truncatingIfNeeded: instruction >> (8 * $0)) } }
    return hex(UInt32(truncatingIfNeeded: FNV1a.hash(bytes)) & 0xfffff, 5)
  }()
  private static func hex(_ number: UInt32, _ digits: Int) -> String {
    let text = String(number, radix: 16)
    return String(repeating: "0", count: max(0, digits - text.count)) + text
  }
}
