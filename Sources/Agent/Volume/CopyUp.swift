import Glibc
import LinuxSystem

/// Copies what an image has at a path into a new volume. The layers are an image's: no name in them may lead outside.
enum CopyUp {
  /// Nothing happens when the layer has nothing there, or no folder.
  static func copy(_ target: String, of layer: String, to destination: String) throws {
    let root = try OwnedDescriptor.open(layer, O_RDONLY | O_DIRECTORY)
    let source: OwnedDescriptor
    do throws(SystemError) {
      source = try OwnedDescriptor.open(inRoot: root.rawValue, target, O_RDONLY | O_DIRECTORY)
    } catch {
      if [Errno.noEntry, .notDirectory, .loop].contains(error.errno) { return }
      throw error
    }
    let folder = try OwnedDescriptor.open(destination, O_RDONLY | O_DIRECTORY)
    try keep(source.rawValue, folder.rawValue, target)
    try children(of: source.rawValue, to: folder.rawValue, target)
  }

  private static func children(of source: Int32, to destination: Int32, _ path: String) throws {
    guard let stream = fdopendir(dup(source)) else { throw SystemError("read", path, .current) }
    defer { closedir(stream) }
    rewinddir(stream)
    while let entry = readdir(stream) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) {
        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name == "." || name == ".." { continue }
      try copy(name, from: source, to: destination, "\(path)/\(name)")
    }
  }

  private static func copy(_ name: String, from source: Int32, to destination: Int32, _ path: String) throws {
    var status = stat()
    try check(fstatat(source, name, &status, AT_SYMLINK_NOFOLLOW), "stat", path)
    switch status.st_mode & S_IFMT {
    case S_IFDIR:
      if mkdirat(destination, name, 0o700) != 0, errno != EEXIST { throw SystemError("make folder", path, .current) }
      let from = try open(source, name, O_RDONLY | O_DIRECTORY, path)
      let to = try open(destination, name, O_RDONLY | O_DIRECTORY, path)
      try keep(from.rawValue, to.rawValue, path)
      try children(of: from.rawValue, to: to.rawValue, path)
    case S_IFREG:
      unlinkat(destination, name, 0)
      let from = try open(source, name, O_RDONLY, path)
      let to = try open(destination, name, O_WRONLY | O_CREAT | O_EXCL, path)
      while true {
        let count = try checkResult(sendfile(to.rawValue, from.rawValue, nil, 1 << 24), "copy", path)
        if count == 0 { break }
      }
      try keep(from.rawValue, to.rawValue, path)
    case S_IFLNK:
      var text = [UInt8](repeating: 0, count: 4097)
      let count = text.withUnsafeMutableBytes { readlinkat(source, name, $0.baseAddress!, 4096) }
      try check(count, "read link", path)
      unlinkat(destination, name, 0)
      try check(symlinkat(String(decoding: text[..<count], as: UTF8.self), destination, name), "make link", path)
      fchownat(destination, name, status.st_uid, status.st_gid, AT_SYMLINK_NOFOLLOW)
    case S_IFCHR where status.st_rdev == 0:
      // A whiteout of overlayfs: this layer takes the name away.
      try remove(name, in: destination, path)
    default: break
    }
  }

  private static func remove(_ name: String, in folder: Int32, _ path: String) throws {
    if unlinkat(folder, name, 0) == 0 || errno == ENOENT { return }
    try Files.removeTree("/proc/self/fd/\(folder)/\(name)")
  }

  private static func open(_ folder: Int32, _ name: String, _ flags: Int32, _ path: String) throws -> OwnedDescriptor {
    OwnedDescriptor(owning: try checkResult(openat(folder, name, flags | O_NOFOLLOW | O_CLOEXEC, 0o600), "open", path))
  }

  private static func keep(_ source: Int32, _ destination: Int32, _ path: String) throws {
    var status = stat()
    try check(fstat(source, &status), "stat", path)
    try check(fchown(destination, status.st_uid, status.st_gid), "chown", path)
    try check(fchmod(destination, status.st_mode & 0o7777), "chmod", path)
    let times = [status.st_atim, status.st_mtim]
    try check(futimens(destination, times), "set times of", path)
  }
}
