import struct Crypto.SHA256
import Glibc
import LinuxSystem
import Model
import Synchronization

/// A file that is written from the start while its SHA-256 is kept. Blocking.
final class BlobWriter: Sendable {
  private struct State {
    var hash = SHA256()
    var count: Int64 = 0
  }
  private let file: SharedDescriptor
  private let path: String
  private let state = Mutex(State())

  init(_ path: String) throws {
    self.path = path
    file = SharedDescriptor(try OwnedDescriptor.open(path, O_WRONLY | O_CREAT | O_TRUNC))
  }
  func write(_ bytes: [UInt8]) throws {
    try Files.writeAll(file.rawValue, bytes, name: path)
    state.withLock {
      $0.hash.update(data: bytes)
      $0.count += Int64(bytes.count)
    }
  }
  /// Forgets what a write that failed wrote nevertheless.
  func retract() throws {
    try check(ftruncate(file.rawValue, off_t(count)), "shorten", path)
    try check(lseek(file.rawValue, 0, SEEK_END), "rewind", path)
  }
  /// Forgets what was written.
  func restart() throws {
    try check(ftruncate(file.rawValue, 0), "empty", path)
    try check(lseek(file.rawValue, 0, SEEK_SET), "rewind", path)
    state.withLock { $0 = State() }
  }
  var count: Int64 { state.withLock { $0.count } }
  var digest: Digest { state.withLock { Digest($0.hash.finalize()) } }
}
