import Glibc

/// The address of a socket in the file system (unix(7)), for bind(2), connect(2) and sendto(2); with '@' first in the abstract namespace.
/// - Parameter path: 1 to 107 bytes, which the kernel has room for; else ENAMETOOLONG.
public func withUnixAddress<Result>(_ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) throws(SystemError) -> Result {
  var bytes = Array(path.utf8)
  var address = sockaddr_un()
  // A zero follows the name.
  guard let first = bytes.first, bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
    throw SystemError("address a socket at", path, Errno(ENAMETOOLONG))
  }
  let isAbstract = first == UInt8(ascii: "@")
  if isAbstract { bytes[0] = 0 }
  address.sun_family = sa_family_t(AF_UNIX)
  withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
  // An abstract name is all of the length that is given.
  let length = socklen_t(MemoryLayout<sa_family_t>.size + bytes.count + (isAbstract ? 0 : 1))
  return withUnsafePointer(to: &address) { $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) } }
}
