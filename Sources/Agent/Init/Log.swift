import CLinux

/// Docker's json-file: one object a line, `{"log":…,"stream":…,"time":…}`, rotated by size. What cannot be written (a full
/// disk) is lost rather than the container held up.
struct Log {
  private let path: UnsafePointer<CChar>
  private let limit: UInt64
  private let files: Int
  private var fd: Int32
  private var size: UInt64
  private var torn = false
  private let buffer: UnsafeMutablePointer<UInt8>
  private var count = 0
  private static var capacity: Int { 32768 }

  init(path: UnsafePointer<CChar>, limit: UInt64, files: Int) {
    self.path = path
    self.limit = limit
    self.files = files
    buffer = .allocate(capacity: Self.capacity)
    fd = clinux_open(path, O_WRONLY | O_CREAT | O_APPEND, 0o600)
    let end = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0
    size = end > 0 ? UInt64(end) : 0
  }

  mutating func record(_ bytes: UnsafePointer<UInt8>, _ length: Int, _ stream: StaticString) {
    if limit > 0, size > 0, size + UInt64(count) >= limit {
      flush()
      fd = clinux_rotate(fd, path, Int32(files))
      size = 0
    }
    put("{\"log\":\"")
    escape(bytes, length)
    put("\",\"stream\":\"")
    put(stream)
    put("\",\"time\":\"")
    time()
    put("\"}\n")
  }

  mutating func flush() {
    var done = 0
    if torn, count > 0, fd >= 0, clinux_write_byte(fd, 10) == 1 { torn = false }
    while done < count, fd >= 0, !torn {
      let written = write(fd, buffer + done, count - done)
      if written <= 0 {
        if written < 0, clinux_errno() == 4 { continue }
        torn = true
        break
      }
      done += written
    }
    size += UInt64(done)
    count = 0
  }

  private mutating func put(_ byte: UInt8) {
    if count == Self.capacity { flush() }
    buffer[count] = byte
    count += 1
  }
  private mutating func put(_ text: StaticString) {
    var position = 0
    while position < text.utf8CodeUnitCount {
      put(text.utf8Start[position])
      position += 1
    }
  }

  /// JSON's escapes, and <, >, & as Docker's encoder has them; what is not UTF-8 becomes U+FFFD.
  private mutating func escape(_ bytes: UnsafePointer<UInt8>, _ length: Int) {
    var position = 0
    while position < length {
      let byte = bytes[position]
      if byte < 0x80 {
        switch byte {
        case 34, 92:
          put(92)
          put(byte)
        case 10: put("\\n")
        case 13: put("\\r")
        case 9: put("\\t")
        case 0..<32, 60, 62, 38, 127:
          put("\\u00")
          put(hex(byte >> 4))
          put(hex(byte & 15))
        default: put(byte)
        }
        position += 1
        continue
      }
      let size = sequence(bytes + position, length - position)
      if size == 0 {
        put("\\ufffd")
        position += 1
        continue
      }
      for offset in 0..<size { put(bytes[position + offset]) }
      position += size
    }
  }
  private func hex(_ value: UInt8) -> UInt8 { value < 10 ? 48 + value : 87 + value }

  /// Length of a valid UTF-8 sequence of more than one byte (RFC 3629, table 3-7 of Unicode); 0 when it is none.
  private func sequence(_ bytes: UnsafePointer<UInt8>, _ available: Int) -> Int {
    let first = bytes[0]
    let size = first >= 0xc2 && first < 0xe0 ? 2 : first & 0xf0 == 0xe0 ? 3 : first >= 0xf0 && first < 0xf5 ? 4 : 0
    if size == 0 || size > available { return 0 }
    for offset in 1..<size where bytes[offset] & 0xc0 != 0x80 { return 0 }
    let second = bytes[1]
    switch first {
    case 0xe0: return second >= 0xa0 ? 3 : 0
    case 0xed: return second < 0xa0 ? 3 : 0
    case 0xf0: return second >= 0x90 ? 4 : 0
    case 0xf4: return second < 0x90 ? 4 : 0
    default: return size
    }
  }

  /// RFC 3339 with nanoseconds, UTC.
  private mutating func time() {
    var now = timespec()
    var parts = tm()
    clock_gettime(CLOCK_REALTIME, &now)
    gmtime_r(&now.tv_sec, &parts)
    digits(Int(parts.tm_year) + 1900, 4)
    put(45)
    digits(Int(parts.tm_mon) + 1, 2)
    put(45)
    digits(Int(parts.tm_mday), 2)
    put(84)
    digits(Int(parts.tm_hour), 2)
    put(58)
    digits(Int(parts.tm_min), 2)
    put(58)
    digits(Int(parts.tm_sec), 2)
    put(46)
    digits(now.tv_nsec, 9)
    put(90)
  }
  private mutating func digits(_ value: Int, _ width: Int) {
    var divisor = 1
    for _ in 1..<width { divisor *= 10 }
    while divisor > 0 {
      put(48 + UInt8(truncatingIfNeeded: value / divisor % 10))
      divisor /= 10
    }
  }
}
