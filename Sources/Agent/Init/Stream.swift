import CLinux

/// One output of the container, cut into lines as Docker cuts them: a line beyond 16 KiB becomes several records without a newline.
struct Stream {
  private(set) var fd: Int32
  private let name: StaticString
  private let kind: UInt8
  private let buffer: UnsafeMutablePointer<UInt8>
  private var count = 0
  private static var capacity: Int { 16384 }

  /// - Parameter kind: of its records to whoever is attached.
  init(_ fd: Int32, name: StaticString, kind: UInt8) {
    self.fd = fd
    self.name = name
    self.kind = kind
    buffer = .allocate(capacity: fd < 0 ? 1 : Self.capacity)
    if fd >= 0 { _ = clinux_nonblocking(fd) }
  }

  /// All that has been written by now: who was handed the other end (SCM_RIGHTS) may go on writing for ever.
  mutating func drain(into log: inout Log, _ attachment: inout Attachment) {
    var left = Int(clinux_unread_max(fd))
    while left > 0, case let got = read(into: &log, &attachment), got > 0 { left -= got }
  }

  /// Reads once: how many bytes; 0 when there is nothing now or no more.
  @discardableResult mutating func read(into log: inout Log, _ attachment: inout Attachment) -> Int {
    if fd < 0 { return 0 }
    let got = CLinux.read(fd, buffer + count, Self.capacity - count)
    if got < 0, clinux_errno() == 11 || clinux_errno() == 4 { return 0 }
    if got <= 0 {
      // The end; EIO is a terminal's way to say so.
      finish(into: &log)
      close(fd)
      fd = -1
      return 0
    }
    attachment.send(kind, buffer + count, got)
    let end = count + got
    var start = 0
    var position = count
    while position < end {
      if buffer[position] == 10 {
        log.record(buffer + start, position + 1 - start, name)
        start = position + 1
      }
      position += 1
    }
    if start == 0, end == Self.capacity {
      // Not through the middle of a character.
      var cut = end
      var back = 0
      while back < 3, buffer[cut - 1 - back] & 0xc0 == 0x80 { back += 1 }
      if buffer[cut - 1 - back] >= 0xc0 { cut -= back + 1 }
      log.record(buffer, cut, name)
      start = cut
    }
    count = end - start
    if start > 0, count > 0 { memmove(buffer, buffer + start, count) }
    return got
  }

  mutating func finish(into log: inout Log) {
    if count > 0 { log.record(buffer, count, name) }
    count = 0
  }
}
