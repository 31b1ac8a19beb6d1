public struct IPv6Address: Hashable, Comparable, Sendable, LosslessStringConvertible {
  // Halves, as an identifier has: a UInt128 is aligned to 16 bytes.
  private let high, low: UInt64
  public var rawValue: UInt128 { UInt128(high) << 64 | UInt128(low) }
  public init(_ rawValue: UInt128) {
    high = UInt64(truncatingIfNeeded: rawValue >> 64)
    low = UInt64(truncatingIfNeeded: rawValue)
  }

  /// As RFC 4291 2.2 has it, the last 32 bits as an IPv4 address too; no zone, no brackets.
  public init?(_ description: String) {
    var text = description
    if text.contains("."), let colon = text.lastIndex(of: ":") {
      guard let last = IPv4Address(String(text[text.index(after: colon)...])) else { return nil }
      text = "\(text[...colon])\(String(last.rawValue >> 16, radix: 16)):\(String(last.rawValue & 0xffff, radix: 16))"
    }
    func groups(_ part: Substring) -> [UInt16]? {
      if part.isEmpty { return [] }
      var groups: [UInt16] = []
      for group in part.split(separator: ":", omittingEmptySubsequences: false) {
        guard (1...4).contains(group.utf8.count), group.utf8.allSatisfy({ $0 != UInt8(ascii: "+") && $0 != UInt8(ascii: "-") }),
          let value = UInt16(group, radix: 16)
        else { return nil }
        groups.append(value)
      }
      return groups
    }
    let all: [UInt16]
    if let gap = text.firstRange(of: "::") {
      guard let left = groups(text[..<gap.lowerBound]), let right = groups(text[gap.upperBound...]), left.count + right.count < 8 else {
        return nil
      }
      all = left + Array(repeating: 0, count: 8 - left.count - right.count) + right
    } else {
      guard let whole = groups(text[...]) else { return nil }
      all = whole
    }
    guard all.count == 8 else { return nil }
    self.init(all.reduce(0) { $0 << 16 | UInt128($1) })
  }

  /// Of 16 bytes in network order; zero otherwise.
  public init(octets: [UInt8]) { self.init(octets.count == 16 ? octets.reduce(0) { $0 << 8 | UInt128($1) } : 0) }
  public var octets: [UInt8] { (0..<16).map { UInt8(truncatingIfNeeded: rawValue >> UInt128(120 - 8 * $0)) } }

  /// RFC 5952: small letters, no leading zeros, the first of the longest runs of two zeros or more as `::`.
  public var description: String {
    let groups = (0..<8).map { UInt16(truncatingIfNeeded: rawValue >> UInt128(112 - 16 * $0)) }
    var (start, length, index) = (0, 1, 0)
    while index < 8 {
      var end = index
      while end < 8, groups[end] == 0 { end += 1 }
      if end - index > length { (start, length) = (index, end - index) }
      index = max(end, index + 1)
    }
    func text(_ part: some Sequence<UInt16>) -> String { part.map { String($0, radix: 16) }.joined(separator: ":") }
    return length < 2 ? text(groups) : text(groups[..<start]) + "::" + text(groups[(start + length)...])
  }
  public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
}

/// A subnet in CIDR form; the address keeps no host bits.
public struct IPv6Prefix: Hashable, Sendable, LosslessStringConvertible {
  public let address: IPv6Address
  public let length: UInt8

  /// nil when `length` is over 128.
  public init?(_ address: IPv6Address, length: UInt8) {
    guard length <= 128 else { return nil }
    self.length = length
    self.address = IPv6Address(address.rawValue & Self.mask(length))
  }

  public init?(_ description: String) {
    let parts = description.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 2, let address = IPv6Address(String(parts[0])), let length = UInt8(parts[1]) else { return nil }
    self.init(address, length: length)
  }

  private static func mask(_ length: UInt8) -> UInt128 { length == 0 ? 0 : UInt128.max << (128 - UInt128(length)) }
  public var description: String { "\(address)/\(length)" }
  public func contains(_ other: IPv6Address) -> Bool { other.rawValue & Self.mask(length) == address.rawValue }
  public func overlaps(_ other: IPv6Prefix) -> Bool { contains(other.address) || other.contains(address) }

  /// Which of its addresses `other` is, from 0; nil: none.
  public func offset(of other: IPv6Address) -> UInt128? { contains(other) ? other.rawValue - address.rawValue : nil }

  /// Who has the n-th address of the IPv4 subnet has the n-th of this one, too: nothing has to be given, kept or told twice.
  public func counterpart(of other: IPv4Address, in subnet: IPv4Prefix) -> IPv6Address {
    IPv6Address(address.rawValue | UInt128(other.rawValue &- subnet.first.rawValue) & ~Self.mask(length))
  }
  /// The way back; nil: nobody's.
  public func counterpart(of other: IPv6Address, in subnet: IPv4Prefix) -> IPv4Address? {
    guard let offset = offset(of: other), offset < UInt128(subnet.size) else { return nil }
    return IPv4Address(subnet.first.rawValue + UInt32(offset))
  }

  /// The cluster's own /48 of unique local addresses (RFC 4193 3): `fd` and 40 bits of its id.
  public static func uniqueLocal(of cluster: ClusterID) -> Self {
    let id = cluster.value ^ cluster.value >> 40 ^ cluster.value >> 80 ^ cluster.value >> 120
    return Self(IPv6Address(UInt128(0xfd) << 120 | (id & 0xff_ffff_ffff) << 80), length: 48)!
  }
}

/// What a network has of either family.
public struct NetworkSubnets: Hashable, Sendable {
  public var v4: IPv4Prefix?
  public var v6: IPv6Prefix?
  public init(v4: IPv4Prefix?, v6: IPv6Prefix?) { (self.v4, self.v6) = (v4, v6) }

  /// Those of the first family in which addresses of the one are the other's, too.
  public func overlap(with other: Self) -> (own: String, taken: String)? {
    if let own = v4, let taken = other.v4, taken.overlaps(own) { return ("\(own)", "\(taken)") }
    if let own = v6, let taken = other.v6, taken.overlaps(own) { return ("\(own)", "\(taken)") }
    return nil
  }
}

/// An address of either kind.
public enum IPAddress: Hashable, Comparable, Sendable, LosslessStringConvertible {
  case v4(IPv4Address)
  case v6(IPv6Address)
  /// Of 4 or 16 bytes in network order.
  public init(octets: [UInt8]) {
    self = octets.count == 16 ? .v6(IPv6Address(octets: octets)) : .v4(IPv4Address(octets.reduce(0) { $0 << 8 | UInt32($1) }))
  }
  public init?(_ text: String) {
    if let address = IPv4Address(text) { self = .v4(address) } else if let address = IPv6Address(text) { self = .v6(address) } else { return nil }
  }
  public var octets: [UInt8] {
    switch self {
    case .v4(let address): address.octets
    case .v6(let address): address.octets
    }
  }
  public var description: String {
    switch self {
    case .v4(let address): address.description
    case .v6(let address): address.description
    }
  }
  public var family: IPFamily {
    switch self {
    case .v4: .v4
    case .v6: .v6
    }
  }
  /// 0.0.0.0 or `::`: all addresses of a family.
  public static func any(_ family: IPFamily) -> Self { family == .v4 ? .v4(IPv4Address(0)) : .v6(IPv6Address(0)) }
  /// 0.0.0.0 or `::`.
  public var isUnspecified: Bool { octets.allSatisfy { $0 == 0 } }
}

public enum IPFamily: String, CaseIterable, Hashable, Sendable { case v4, v6 }

extension IPAddress: TextCodable {
  public static var kindOfText: String { "an IPv4 or IPv6 address" }
}

extension IPv6Prefix: TextCodable {
  public static var kindOfText: String { "an IPv6 subnet like fd00:1::/64" }
}
