import CLinux
import Glibc

/// Small files, whole. Blocking: call from a thread of your own.
public enum Files {
  public static func read(_ path: String, limit: Int = 16 << 20) throws(SystemError) -> [UInt8] {
    let file = try OwnedDescriptor.open(path, O_RDONLY)
    return try read(descriptor: file.rawValue, name: path, limit: limit)
  }

  public static func text(_ path: String) throws(SystemError) -> String { String(decoding: try read(path), as: UTF8.self) }

  /// Reads to the end; EFBIG beyond `limit` bytes.
  public static func read(descriptor: Int32, name: String, limit: Int = 16 << 20) throws(SystemError) -> [UInt8] {
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 16384)
    while true {
      let count = Glibc.read(descriptor, &chunk, chunk.count)
      if count < 0 {
        if Errno.current == .interrupted { continue }
        throw SystemError("read", name, .current)
      }
      if count == 0 { return bytes }
      bytes.append(contentsOf: chunk[..<count])
      if bytes.count > limit { throw SystemError("read", name, Errno(EFBIG)) }
    }
  }

  public static func writeAll(_ descriptor: Int32, _ bytes: [UInt8], name: String) throws(SystemError) {
    let written: Result<Void, SystemError> = bytes.withUnsafeBytes { bytes in
      do throws(SystemError) { return .success(try writeAll(descriptor, bytes, name: name)) } catch { return .failure(error) }
    }
    try written.get()
  }

  public static func writeAll(_ descriptor: Int32, _ bytes: UnsafeRawBufferPointer, name: String) throws(SystemError) {
    var done = 0
    while done < bytes.count {
      let count = Glibc.write(descriptor, bytes.baseAddress! + done, bytes.count - done)
      if count < 0 {
        if Errno.current == .interrupted { continue }
        throw SystemError("write", name, .current)
      }
      done += count
    }
  }

  /// One write(2) to a file that is there (a control file of the kernel).
  public static func writeExisting(_ path: String, _ text: String) throws(SystemError) {
    let file = try OwnedDescriptor.open(path, O_WRONLY)
    let bytes = Array(text.utf8)
    try check(Glibc.write(file.rawValue, bytes, bytes.count), "write \"\(text)\" to", path)
  }

  /// Readers see the old content or the new, never a part; after return it also survives power loss (`durable`).
  public static func writeAtomically(_ path: String, _ bytes: [UInt8], mode: mode_t = 0o600, durable: Bool = true) throws(SystemError) {
    let temporary = path + ".tmp\(getpid()).\(clinux_gettid())"
    do throws(SystemError) {
      let file = try OwnedDescriptor.open(temporary, O_WRONLY | O_CREAT | O_TRUNC, mode: mode)
      try check(fchmod(file.rawValue, mode), "set the mode of", temporary)
      try writeAll(file.rawValue, bytes, name: temporary)
      if durable { try check(fsync(file.rawValue), "sync", temporary) }
    } catch {
      unlink(temporary)
      throw error
    }
    try check(rename(temporary, path), "rename \(temporary) to", path)
    if durable {
      let folder = path.lastIndex(of: "/").map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
      let directory = try OwnedDescriptor.open(folder, O_RDONLY | O_DIRECTORY)
      try check(fsync(directory.rawValue), "sync", folder)
    }
  }

  public static func writeAtomically(_ path: String, _ text: String, mode: mode_t = 0o600, durable: Bool = true) throws(SystemError) {
    try writeAtomically(path, Array(text.utf8), mode: mode, durable: durable)
  }

  /// mkdir -p; the mode is that of what is made.
  public static func makeDirectories(_ path: String, mode: mode_t = 0o700) throws(SystemError) {
    if mkdir(path, mode) == 0 { return }
    switch Errno.current {
    case .exists:
      var status = stat()
      try check(stat(path, &status), "look at", path)
      if status.st_mode & S_IFMT != S_IFDIR { throw SystemError("make directory", path, .notDirectory) }
    case .noEntry:
      guard let slash = path.lastIndex(of: "/"), slash != path.startIndex else { throw SystemError("make directory", path, .noEntry) }
      try makeDirectories(String(path[..<slash]), mode: mode)
      if mkdir(path, mode) < 0, Errno.current != .exists { throw SystemError("make directory", path, .current) }
    case let error: throw SystemError("make directory", path, error)
    }
  }

  /// rm -rf without following links; fine when it is not there.
  public static func removeTree(_ path: String) throws(SystemError) {
    try checkResult(clinux_remove_tree(AT_FDCWD, path), "remove", path)
  }

  /// readlink(2).
  public static func link(_ path: String) throws(SystemError) -> String {
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = buffer.withUnsafeMutableBytes { readlink(path, $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count) }
    return String(decoding: buffer[..<Int(try check(count, "read link", path))], as: UTF8.self)
  }

  public static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

  /// Names without `.` and `..`, sorted; empty when the folder is not there.
  public static func list(_ path: String) throws(SystemError) -> [String] {
    guard let directory = opendir(path) else {
      if Errno.current == .noEntry { return [] }
      throw SystemError("list", path, .current)
    }
    return names(directory).map { String(decoding: $0, as: UTF8.self) }.sorted()
  }

  /// Names in an open folder as they are, bytes of any kind, in no order. `path`: for errors.
  public static func names(in folder: Int32, path: String) throws(SystemError) -> [[UInt8]] {
    // fdopendir takes its descriptor over.
    let own = try check(openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), "open", path)
    guard let directory = fdopendir(own) else {
      let error = Errno.current
      close(own)
      throw SystemError("list", path, error)
    }
    return names(directory)
  }

  private static func names(_ directory: OpaquePointer) -> [[UInt8]] {
    defer { closedir(directory) }
    var names: [[UInt8]] = []
    while let entry = readdir(directory) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) { Array($0.prefix { $0 != 0 }) }
      if name != [46], name != [46, 46] { names.append(name) }
    }
    return names
  }
}
