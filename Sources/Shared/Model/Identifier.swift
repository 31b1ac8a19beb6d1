/// An id of 128 random bits, written as 25 base-36 digits as Swarm's ids are. The tag makes ids of
/// different things different types; 16 bytes inline, no allocation.
public struct Identifier<Tag>: Hashable, Comparable, Sendable, LosslessStringConvertible {
  // Halves, because a UInt128 is aligned to 16 bytes: a row with several ids would be a quarter padding.
  private let high: UInt64
  private let low: UInt64

  public var value: UInt128 { UInt128(high) << 64 | UInt128(low) }

  public init(value: UInt128) {
    high = UInt64(truncatingIfNeeded: value >> 64)
    low = UInt64(truncatingIfNeeded: value)
  }

  /// Randomness is injected: a decision never draws its own.
  public static func random(using generator: inout some RandomNumberGenerator) -> Self {
    Self(value: UInt128(generator.next() as UInt64) << 64 | UInt128(generator.next() as UInt64))
  }

  /// Exactly 25 digits of [0-9a-z] that fit in 128 bits, or nil.
  public init?(_ description: String) {
    guard description.utf8.count == 25 else { return nil }
    var value: UInt128 = 0
    for byte in description.utf8 {
      let digit: UInt8
      switch byte {
      case UInt8(ascii: "0")...UInt8(ascii: "9"): digit = byte - UInt8(ascii: "0")
      case UInt8(ascii: "a")...UInt8(ascii: "z"): digit = byte - UInt8(ascii: "a") + 10
      default: return nil
      }
      let (product, overflowed) = value.multipliedReportingOverflow(by: 36)
      let (sum, carried) = product.addingReportingOverflow(UInt128(digit))
      if overflowed || carried { return nil }
      value = sum
    }
    self.init(value: value)
  }

  public var description: String {
    String(unsafeUninitializedCapacity: 25) { buffer in
      // Twelve digits at a time (36^12 < 2^64): divisions of 128 bits are dear.
      let chunk: UInt128 = 4_738_381_338_321_616_896
      let (upper, last) = value.quotientAndRemainder(dividingBy: chunk)
      let (first, middle) = upper.quotientAndRemainder(dividingBy: chunk)
      func write(_ value: UInt128, _ places: Range<Int>) {
        var rest = UInt64(value)
        for index in places.reversed() {
          let digit = UInt8(rest % 36)
          rest /= 36
          buffer[index] = digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") + digit - 10
        }
      }
      write(first, 0..<1)
      write(middle, 1..<13)
      write(last, 13..<25)
      return 25
    }
  }

  /// 16 bytes, big endian: the form on the wire and in SQLite.
  public var bytes: [UInt8] { withUnsafeBytes(of: value.bigEndian) { Array($0) } }

  public init?(bytes: some Collection<UInt8>) {
    guard bytes.count == 16 else { return nil }
    self.init(value: bytes.reduce(0) { $0 << 8 | UInt128($1) })
  }

  public static func < (a: Self, b: Self) -> Bool { (a.high, a.low) < (b.high, b.low) }
}

extension Identifier {
  /// Its first 12 digits, as people are shown it.
  public var short: String { String(description.prefix(12)) }
}

extension Identifier: TextCodable {
  public static var kindOfText: String { "an id of 25 base-36 digits" }
}

public enum ClusterTag {}
public enum NodeTag {}
public enum ServiceTag {}
public enum TaskTag {}
public enum NetworkTag {}
public enum FileTag {}

public typealias ClusterID = Identifier<ClusterTag>
public typealias NodeID = Identifier<NodeTag>
public typealias ServiceID = Identifier<ServiceTag>
public typealias TaskID = Identifier<TaskTag>
public typealias NetworkID = Identifier<NetworkTag>
/// Of a secret or a config.
public typealias FileID = Identifier<FileTag>

/// A member of the Raft group. Never zero, never used again after its member was removed.
public struct RaftID: Hashable, Comparable, Sendable, Codable, CustomStringConvertible {
  public let rawValue: UInt64
  public init(_ rawValue: UInt64) { self.rawValue = rawValue }
  public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
  public var description: String { String(rawValue) }
  public init(from decoder: any Decoder) throws { rawValue = try decoder.singleValueContainer().decode(UInt64.self) }
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(rawValue)
  }
}

/// As a dictionary key in JSON an id is its text.
extension Identifier: CodingKeyRepresentable {
  private struct Key: CodingKey {
    let stringValue: String
    var intValue: Int? { nil }
    init(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
  }
  public var codingKey: any CodingKey { Key(stringValue: description) }
  public init?<T: CodingKey>(codingKey: T) { self.init(codingKey.stringValue) }
}
