import CSQLite
import Glibc
import Synchronization

/// What SQLite says about failed system calls ("os_unix.c:39262: (5) full_fsync(PATH) - Input/output error"): its result codes keep
/// neither the call nor, mostly, the errno.
enum SQLiteLog {
  private static let last = Mutex<[pthread_t: String]>([:])
  private static let isInstalled: Bool =
    MemoryBudget.install()
    && csqlite_log_to { _, code, message in
      guard [SQLITE_IOERR, SQLITE_FULL, SQLITE_CANTOPEN].contains(code & 0xff), let message else { return }
      let text = String(cString: message)
      SQLiteLog.last.withLock { $0[pthread_self()] = text }
    } == SQLITE_OK

  /// Before the first connection.
  static func install() { _ = isInstalled }

  /// Of this thread, since it was last asked: "full_fsync: Input/output error, errno 5".
  static func takeFailedCall() -> String? {
    guard let text = last.withLock({ $0.removeValue(forKey: pthread_self()) }), text.hasPrefix("os_unix.c:"),
      let open = text.firstIndex(of: "("), let close = text[open...].firstIndex(of: ")"),
      let number = Int32(text[text.index(after: open)..<close])
    else { return nil }
    let call = text[text.index(after: close)...].drop { $0 == " " }.prefix { $0 != "(" }
    return "\(call): \(String(cString: strerror(number))), errno \(number)"
  }
}
