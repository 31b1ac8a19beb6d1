// LinuxSystem: what both daemons need of the kernel beyond the standard library: error numbers, owned descriptors,
// files written whole, mounts, pidfds, namespaces, capabilities.
// Invariants: every failure is a `SystemError` (operation, object, errno); a descriptor has one owner; all are CLOEXEC.
// It refuses to know containers, networks and everything else of orch.
import CLinux
import Glibc

/// Operation, object, cause: `mount proc on /x: EPERM (Operation not permitted)`.
public struct SystemError: Error, Hashable, Sendable, CustomStringConvertible {
  public var operation: String
  public var object: String
  public var errno: Errno
  public init(_ operation: String, _ object: String, _ errno: Errno) {
    self.operation = operation
    self.object = object
    self.errno = errno
  }
  public var description: String {
    let advice = errno == Errno(ENOSPC) ? "; the disk of this host is full: free some space on it and try again" : ""
    return "\(operation)\(object.isEmpty ? "" : " " + object): \(errno)\(advice)"
  }
}

/// Turns the C library's `-1 and errno` into a thrown error.
@discardableResult
@inlinable
public func check<I: FixedWidthInteger & SignedInteger>(_ value: I, _ operation: @autoclosure () -> String, _ object: @autoclosure () -> String = "")
  throws(SystemError) -> I
{
  if value < 0 {
    let error = Errno.current
    throw SystemError(operation(), object(), error)
  }
  return value
}

/// Turns CLinux's `-errno` into a thrown error.
@discardableResult
public func checkResult<I: FixedWidthInteger & SignedInteger>(
  _ value: I, _ operation: @autoclosure () -> String, _ object: @autoclosure () -> String = ""
)
  throws(SystemError) -> I
{
  if value < 0 { throw SystemError(operation(), object(), Errno(Int32(-value))) }
  return value
}
