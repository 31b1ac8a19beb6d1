import CLinux
import Glibc

/// A file descriptor with one owner; closed when the owner ends.
public struct OwnedDescriptor: ~Copyable, Sendable {
  public let rawValue: Int32
  /// Takes ownership of an open descriptor.
  public init(owning rawValue: Int32) { self.rawValue = rawValue }
  deinit { close(rawValue) }
  /// Gives ownership to the caller.
  public consuming func take() -> Int32 {
    let value = rawValue
    discard self
    return value
  }
  /// A second descriptor for the same open file.
  public func duplicate() throws(SystemError) -> OwnedDescriptor {
    OwnedDescriptor(owning: try check(fcntl(rawValue, F_DUPFD_CLOEXEC, 0), "duplicate descriptor", "\(rawValue)"))
  }
}

/// A descriptor that several holders share; closed when the last is gone.
public final class SharedDescriptor: Sendable {
  public let rawValue: Int32
  public init(_ descriptor: consuming OwnedDescriptor) { rawValue = descriptor.take() }
  public init(owning rawValue: Int32) { self.rawValue = rawValue }
  deinit { close(rawValue) }
}

extension OwnedDescriptor {
  /// open(2) with O_CLOEXEC and O_NOCTTY: a terminal that is opened is not taken for our own.
  public static func open(_ path: String, _ flags: Int32, mode: mode_t = 0o600) throws(SystemError) -> OwnedDescriptor {
    OwnedDescriptor(owning: try check(Glibc.open(path, flags | O_CLOEXEC | O_NOCTTY, mode), "open", path))
  }
  /// openat2(2) with RESOLVE_IN_ROOT: no symbolic link and no `..` leads out of `root`, no magic link is followed.
  public static func open(inRoot root: Int32, _ path: String, _ flags: Int32, mode: UInt64 = 0) throws(SystemError) -> OwnedDescriptor {
    let resolve = UInt64(CLINUX_RESOLVE_IN_ROOT | CLINUX_RESOLVE_NO_MAGICLINKS)
    return OwnedDescriptor(
      owning: try checkResult(clinux_openat2(root, path, UInt64(UInt32(bitPattern: flags | O_CLOEXEC)), mode, resolve), "open in the root", path))
  }
  public static func pipe() throws(SystemError) -> (read: Int32, write: Int32) {
    var ends: [Int32] = [-1, -1]
    try checkResult(clinux_pipe(&ends, 0), "make a pipe")
    return (ends[0], ends[1])
  }
  /// A file in memory (memfd_create(2)).
  public static func memoryFile(_ name: String) throws(SystemError) -> OwnedDescriptor {
    OwnedDescriptor(owning: try checkResult(clinux_memory_file(name), "make a memory file", name))
  }
}
