import CLinux
import Glibc
import LinuxSystem

/// Copies a tree as it is: owners, modes, times, links, fifos, file capabilities. Works on descriptors and never follows a link.
/// Device nodes (an overlay's whiteouts among them) and sockets are left out. Blocking.
enum TreeCopy {
  /// What is in `source`, and the folder's own owner and mode, as Docker does when a volume is first mounted.
  static func contents(of source: String, into target: String) throws {
    let from = try OwnedDescriptor.open(source, O_RDONLY | O_NOFOLLOW)
    var status = stat()
    try check(fstat(from.rawValue, &status), "look at", source)
    guard status.st_mode & S_IFMT == S_IFDIR else { return }
    let to = try OwnedDescriptor.open(target, O_RDONLY | O_DIRECTORY)
    try folder(from.rawValue, to.rawValue, status, source, depth: 0)
    try checkResult(clinux_syncfs(to.rawValue), "sync", target)
  }

  private static func folder(_ from: Int32, _ to: Int32, _ status: stat, _ path: String, depth: Int) throws {
    guard depth < 512 else { throw SystemError("copy", path, .loop) }
    for name in try Files.names(in: from, path: path).map({ String(decoding: $0, as: UTF8.self) }) {
      var child = stat()
      try check(fstatat(from, name, &child, AT_SYMLINK_NOFOLLOW), "look at", "\(path)/\(name)")
      try member(name, from, to, child, "\(path)/\(name)", depth: depth)
    }
    try finish(to, status, path)
  }

  private static func member(_ name: String, _ from: Int32, _ to: Int32, _ status: stat, _ path: String, depth: Int) throws {
    switch status.st_mode & S_IFMT {
    case S_IFDIR:
      let source = OwnedDescriptor(owning: try check(openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), "open", path))
      try check(mkdirat(to, name, 0o700), "make directory", path)
      let target = OwnedDescriptor(owning: try check(openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), "open", path))
      try folder(source.rawValue, target.rawValue, status, path, depth: depth + 1)
    case S_IFREG:
      let source = OwnedDescriptor(owning: try check(openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC), "open", path))
      let target = OwnedDescriptor(
        owning: try check(openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600), "make file", path))
      try copyBytes(source.rawValue, target.rawValue, path)
      try finish(target.rawValue, status, path)
      try copyCapability(source.rawValue, target.rawValue, path)
    case S_IFLNK:
      var link = [CChar](repeating: 0, count: 4097)
      try check(readlinkat(from, name, &link, 4096), "read", path)
      try check(symlinkat(link, to, name), "link", path)
      if geteuid() == 0 { try check(fchownat(to, name, status.st_uid, status.st_gid, AT_SYMLINK_NOFOLLOW), "change the owner of", path) }
    case S_IFIFO: try check(mkfifoat(to, name, status.st_mode & 0o7777), "make fifo", path)
    default: break
    }
  }

  private static func finish(_ descriptor: Int32, _ status: stat, _ path: String) throws {
    if geteuid() == 0 { try check(fchown(descriptor, status.st_uid, status.st_gid), "change the owner of", path) }
    try check(fchmod(descriptor, status.st_mode & 0o7777), "set the mode of", path)
    try check(futimens(descriptor, [status.st_atim, status.st_mtim]), "set the time of", path)
  }

  private static func copyBytes(_ source: Int32, _ target: Int32, _ path: String) throws {
    var chunk = [UInt8](repeating: 0, count: 256 << 10)
    while true {
      let count = try check(read(source, &chunk, chunk.count), "read", path)
      if count == 0 { return }
      try Files.writeAll(target, count == chunk.count ? chunk : Array(chunk[..<count]), name: path)
    }
  }

  private static func copyCapability(_ source: Int32, _ target: Int32, _ path: String) throws {
    var value = [UInt8](repeating: 0, count: 64)
    let count = clinux_fgetxattr(source, "security.capability", &value, value.count)
    if count > 0 { try checkResult(clinux_fsetxattr(target, "security.capability", value, count), "set the capabilities of", path) }
  }
}
