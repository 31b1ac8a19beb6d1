import CLinux
import Glibc

/// An error number of the kernel (errno(3)).
public struct Errno: Error, RawRepresentable, Hashable, Sendable, CustomStringConvertible {
  public var rawValue: Int32
  public init(rawValue: Int32) { self.rawValue = rawValue }
  public init(_ rawValue: Int32) { self.rawValue = rawValue }
  /// The calling thread's errno; read it directly after the call that failed.
  public static var current: Errno { Errno(Glibc.errno) }
  /// "ENOENT".
  public var name: String { String(cString: clinux_errno_name(rawValue)) }
  /// "No such file or directory".
  public var message: String { String(cString: clinux_errno_message(rawValue)) }
  public var description: String { "\(name) (\(message))" }

  public static let perm = Errno(EPERM)
  public static let noEntry = Errno(ENOENT)
  public static let noProcess = Errno(ESRCH)
  public static let interrupted = Errno(EINTR)
  public static let access = Errno(EACCES)
  public static let busy = Errno(EBUSY)
  public static let exists = Errno(EEXIST)
  public static let notDirectory = Errno(ENOTDIR)
  public static let isDirectory = Errno(EISDIR)
  public static let invalid = Errno(EINVAL)
  public static let loop = Errno(ELOOP)
  public static let notEmpty = Errno(ENOTEMPTY)
  public static let unsupported = Errno(EOPNOTSUPP)
}
