public struct IPv4Address: Hashable, Comparable, Sendable, LosslessStringConvertible {
  public let rawValue: UInt32
  public init(_ rawValue: UInt32) { self.rawValue = rawValue }

  public init?(_ description: String) {
    var value: UInt32 = 0
    var octet: UInt32 = 0
    var (digits, octets) = (0, 0)
    for byte in description.utf8 {
      switch byte {
      case UInt8(ascii: "0")...UInt8(ascii: "9") where digits < 3:
        octet = octet * 10 + UInt32(byte - UInt8(ascii: "0"))
        digits += 1
        if octet > 255 { return nil }
      case UInt8(ascii: ".") where digits > 0 && octets < 3:
        value = value << 8 | octet
        octets += 1
        (octet, digits) = (0, 0)
      default: return nil
      }
    }
    guard octets == 3, digits > 0 else { return nil }
    rawValue = value << 8 | octet
  }

  public var octets: [UInt8] { [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: rawValue >> $0) } }
  public var description: String { "\(rawValue >> 24).\(rawValue >> 16 & 255).\(rawValue >> 8 & 255).\(rawValue & 255)" }
  public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }

  /// The MAC of the interface that has this address: 02:42 and the address, as Docker's. Nobody has to learn or store it.
  public var mac: [UInt8] { [0x02, 0x42] + octets }
}

/// A subnet in CIDR form; the address keeps no host bits.
public struct IPv4Prefix: Hashable, Sendable, LosslessStringConvertible {
  public let address: IPv4Address
  public let length: UInt8

  /// nil when `length` is over 32.
  public init?(_ address: IPv4Address, length: UInt8) {
    guard length <= 32 else { return nil }
    self.length = length
    self.address = IPv4Address(address.rawValue & Self.mask(length))
  }

  public init?(_ description: String) {
    let parts = description.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 2, let address = IPv4Address(String(parts[0])), let length = UInt8(parts[1]) else { return nil }
    self.init(address, length: length)
  }

  private static func mask(_ length: UInt8) -> UInt32 { length == 0 ? 0 : UInt32.max << (32 - UInt32(length)) }
  public var description: String { "\(address)/\(length)" }
  public var size: UInt64 { 1 << (32 - UInt64(length)) }
  public var first: IPv4Address { address }
  public var last: IPv4Address { IPv4Address(address.rawValue | ~Self.mask(length)) }
  public func contains(_ other: IPv4Address) -> Bool { other.rawValue & Self.mask(length) == address.rawValue }
  public func overlaps(_ other: IPv4Prefix) -> Bool { contains(other.address) || other.contains(address) }
}

extension IPv4Address: TextCodable {
  public static var kindOfText: String { "an IPv4 address" }
}

extension IPv4Prefix: TextCodable {
  public static var kindOfText: String { "an IPv4 subnet like 10.0.1.0/24" }
}
