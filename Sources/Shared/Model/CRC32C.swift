/// CRC-32C (Castagnoli polynomial, RFC 3720 appendix B.4): the checksum of log entries and of backups under way.
public struct CRC32C: Sendable {
  private static let table: [UInt32] = (0..<256).map { index in
    var value = UInt32(index)
    for _ in 0..<8 { value = value & 1 == 1 ? value >> 1 ^ 0x82F6_3B78 : value >> 1 }
    return value
  }

  private var state: UInt32 = ~0
  public init() {}
  public var value: UInt32 { ~state }

  public mutating func add(_ bytes: UnsafeRawBufferPointer) {
    var state = state
    Self.table.withUnsafeBufferPointer { table in
      for byte in bytes { state = table[Int(UInt8(truncatingIfNeeded: state) ^ byte)] ^ state >> 8 }
    }
    self.state = state
  }

  public mutating func add(_ bytes: [UInt8]) { bytes.withUnsafeBytes { add($0) } }

  /// Eight bytes, little endian.
  public mutating func add(_ number: UInt64) {
    var state = state
    for shift in stride(from: 0, to: 64, by: 8) {
      state = Self.table[Int(UInt8(truncatingIfNeeded: state) ^ UInt8(truncatingIfNeeded: number >> UInt64(shift)))] ^ state >> 8
    }
    self.state = state
  }
}
