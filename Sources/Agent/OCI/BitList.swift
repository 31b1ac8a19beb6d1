/// A list of CPUs or NUMA nodes as the kernel writes it, "0-2,5" (cpuset(7), "List format"), as its mask.
public struct BitList: Hashable, Sendable {
  /// Whole 64-bit words, little endian; empty for an empty list.
  public private(set) var mask: [UInt8] = []
  static let most = 4096

  /// nil: no such list, or a number of 4096 and above.
  public init?(_ text: String) {
    for part in text.split(separator: ",", omittingEmptySubsequences: false) where !part.isEmpty {
      let ends = part.split(separator: "-", omittingEmptySubsequences: false).map { Int($0.filter { $0 != " " }) }
      guard (1...2).contains(ends.count), let first = ends[0], let last = ends[ends.count - 1], 0 <= first, first <= last, last < Self.most else {
        return nil
      }
      while mask.count * 8 <= last { mask += Array(repeating: 0, count: 8) }
      for bit in first...last { mask[bit / 8] |= 1 << (bit % 8) }
    }
  }
}

extension Linux.MemoryPolicy {
  /// linux/mempolicy.h.
  static let modes: [String: UInt64] = [
    "MPOL_DEFAULT": 0, "MPOL_PREFERRED": 1, "MPOL_BIND": 2, "MPOL_INTERLEAVE": 3, "MPOL_LOCAL": 4, "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
  ]
  static let flagNames: [String: UInt64] = ["MPOL_F_NUMA_BALANCING": 1 << 13, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_STATIC_NODES": 1 << 15]

  public var number: UInt64 { (flags ?? []).reduce(Self.modes[mode] ?? 0) { $0 | (Self.flagNames[$1] ?? 0) } }
  public var mask: [UInt8] { BitList(nodes ?? "")?.mask ?? [] }

  func check() throws(OCIError) {
    guard Self.modes[mode] != nil else {
      throw OCIError("linux.memoryPolicy.mode", "\"\(mode)\" is unknown: none of \(Self.modes.keys.sorted().joined(separator: ", "))")
    }
    for (index, flag) in (flags ?? []).enumerated() where Self.flagNames[flag] == nil {
      throw OCIError("linux.memoryPolicy.flags[\(index)]", "\"\(flag)\" is unknown")
    }
    if BitList(nodes ?? "") == nil { throw OCIError("linux.memoryPolicy.nodes", "\"\(nodes ?? "")\" is no list of nodes as in 0-2,5") }
  }
}
