import Glibc
import Synchronization

/// Makes fdatasync, SQLite's fsync, fail for the files below a folder: our definition goes before the C library's for the whole process.
enum FailingSync {
  fileprivate static let state = Mutex<(folders: Set<String>, failures: Int)>(([], 0))

  static func begin(below folder: String) { state.withLock { _ = $0.folders.insert(folder) } }
  static func end(below folder: String) { state.withLock { _ = $0.folders.remove(folder) } }
  /// So far, of all folders.
  static var failures: Int { state.withLock { $0.failures } }

  fileprivate static func fails(_ descriptor: Int32) -> Bool {
    state.withLock { state in
      guard !state.folders.isEmpty else { return false }
      var buffer = [CChar](repeating: 0, count: 4096)
      let count = readlink("/proc/self/fd/\(descriptor)", &buffer, buffer.count - 1)
      guard count > 0 else { return false }
      let path = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
      guard state.folders.contains(where: { path.hasPrefix($0) }) else { return false }
      state.failures += 1
      return true
    }
  }
}

@_cdecl("fdatasync")
func failingDataSync(_ descriptor: Int32) -> Int32 {
  if FailingSync.fails(descriptor) {
    errno = EIO
    return -1
  }
  return fsync(descriptor)
}
