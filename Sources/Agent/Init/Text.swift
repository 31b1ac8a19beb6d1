import CLinux

/// A short text in place: no allocation.
struct Text {
  private var bytes = InlineArray<128, UInt8>(repeating: 0)
  private var count = 0

  mutating func byte(_ value: UInt8) {
    if count < 128 {
      bytes[count] = value
      count += 1
    }
  }
  mutating func number(_ value: UInt64) {
    var divisor: UInt64 = 1
    while value / divisor >= 10 { divisor *= 10 }
    while divisor > 0 {
      byte(48 + UInt8(truncatingIfNeeded: value / divisor % 10))
      divisor /= 10
    }
  }
  /// Written beside, then renamed: a reader sees all of it or nothing.
  func save(folder: UnsafePointer<CChar>, name: StaticString) {
    withUnsafeBytes(of: bytes) { raw in
      name.withUTF8Buffer { name in
        _ = clinux_save(folder, UnsafeRawPointer(name.baseAddress!).assumingMemoryBound(to: CChar.self), raw.baseAddress!, count)
      }
    }
  }
}
