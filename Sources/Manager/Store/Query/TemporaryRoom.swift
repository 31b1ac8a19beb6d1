import Glibc

/// Room on the file system of SQLite's temporary files, to which a statement that sorts or groups much writes. SQLite deletes them when it
/// has opened them, so they are gone with the statement.
struct TemporaryRoom {
  /// The one that SQLite takes (sqlite.org/tempfiles.html, 5).
  let folder: String
  /// What a statement leaves free: a tenth of the file system, and at least so many bytes.
  let bytesMin: UInt64
  /// So much a statement may take where less is free.
  let allowance: UInt64
  private let freeBefore: UInt64?

  init(bytesMin: UInt64 = 1 << 30, allowance: UInt64 = 64 << 20) {
    let named: [String] = ["SQLITE_TMPDIR", "TMPDIR"].compactMap { (name: String) in getenv(name).map { String(cString: $0) } }
    folder = (named + ["/var/tmp", "/usr/tmp", "/tmp"]).first(where: Self.isUsable) ?? "."
    (self.bytesMin, self.allowance) = (bytesMin, allowance)
    freeBefore = Self.look(folder)?.free
  }

  var isShort: Bool {
    guard let freeBefore, let now = Self.look(folder), now.free < max(bytesMin, now.total / 10) else { return false }
    return now.free + allowance < freeBefore
  }

  private static func isUsable(_ folder: String) -> Bool {
    var status = stat()
    return stat(folder, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR && access(folder, W_OK | X_OK) == 0
  }

  private static func look(_ folder: String) -> (free: UInt64, total: UInt64)? {
    var status = statvfs()
    guard statvfs(folder, &status) == 0 else { return nil }
    return (UInt64(status.f_bavail) * UInt64(status.f_frsize), UInt64(status.f_blocks) * UInt64(status.f_frsize))
  }
}
