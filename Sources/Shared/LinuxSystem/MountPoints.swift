import Glibc

/// Mounts that this process sees (proc_pid_mountinfo(5)).
public enum MountPoints {
  /// At `path` and below it, in the order of mounting. By its real name; none where there is no such path.
  public static func below(_ path: String) throws(SystemError) -> [String] {
    guard let real = realpath(path, nil) else { return [] }
    defer { free(real) }
    return parse(try Files.text("/proc/self/mountinfo"), below: String(cString: real))
  }

  /// Takes away everything that is mounted there, the last first, without waiting for who uses it; what it covers, and its sources, stay.
  public static func detach(below path: String) throws(SystemError) {
    for point in try below(path).reversed() {
      // With one above, or with its tree, it may be gone already.
      guard umount2(point, Int32(MNT_DETACH) | Int32(UMOUNT_NOFOLLOW)) < 0 else { continue }
      let error = Errno.current
      if error != .invalid, error != .noEntry { throw SystemError("unmount", point, error) }
    }
  }

  static func parse(_ text: String, below path: String) -> [String] {
    text.split(separator: "\n").compactMap { line in
      let fields = line.split(separator: " ", maxSplits: 5)
      guard fields.count > 4 else { return nil }
      let point = unescaped(fields[4])
      return point == path || point.hasPrefix(path + "/") ? point : nil
    }
  }

  /// Blank, tab, newline and backslash are a backslash and three octal digits.
  private static func unescaped(_ text: Substring) -> String {
    guard text.utf8.contains(92) else { return String(text) }
    var bytes: [UInt8] = []
    var rest = Array(text.utf8)[...]
    while let byte = rest.popFirst() {
      if byte == 92, rest.count >= 3, let value = UInt8(String(decoding: rest.prefix(3), as: UTF8.self), radix: 8) {
        bytes.append(value)
        rest = rest.dropFirst(3)
      } else {
        bytes.append(byte)
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}
