import Glibc

/// A kernel parameter (sysctl) of the calling thread's network namespace.
struct KernelParameter: Hashable {
  /// Below /proc/sys/net.
  var path: String
  var value: String
  init(_ path: String, _ value: String) { (self.path, self.value) = (path, value) }

  /// Of most the kernel tells nobody when they change: it is read, and written where it is otherwise.
  /// - Returns: whether it was.
  @discardableResult
  func keep() throws(NetworkProblem) -> Bool {
    if Self.get(path) == value { return false }
    if let problem = Self.set(path, value) { throw problem }
    return true
  }

  /// nil when it has the value afterwards; else what is wrong. A read-only /proc/sys is no problem when the value is there already.
  static func set(_ path: String, _ value: String) -> NetworkProblem? {
    let file = "/proc/sys/net/\(path)"
    let descriptor = open(file, O_RDWR | O_CLOEXEC)
    var failure = errno
    if descriptor >= 0 {
      defer { close(descriptor) }
      if write(descriptor, value, value.utf8.count) == value.utf8.count { return nil }
      failure = errno
    }
    if get(path) == value { return nil }
    return NetworkProblem("set \(file) to \(value)", String(cString: strerror(failure)))
  }

  static func get(_ path: String) -> String? {
    let descriptor = open("/proc/sys/net/\(path)", O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    var buffer = [UInt8](repeating: 0, count: 64)
    let count = read(descriptor, &buffer, buffer.count)
    return count > 0 ? String(decoding: buffer[..<count].prefix { $0 > 32 }, as: UTF8.self) : nil
  }
}
