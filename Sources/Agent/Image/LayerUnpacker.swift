import CLinux
import Glibc
import LinuxSystem
import TreeArchive

/// Writes a layer's members into a folder, in overlayfs' form (OCI image specification, layer.md; kernel, overlayfs.rst).
/// Every parent is opened beneath the folder with no symbolic link followed, and every name is made by an *at call in that parent:
/// nothing an archive says can reach outside. Blocking.
final class LayerUnpacker {
  private let root: OwnedDescriptor
  private let isRoot = geteuid() == 0
  private let isLayer: Bool
  private let maximumBytes: Int64
  private let maximumEntries: Int
  private(set) var bytes: Int64 = 0
  private var entries = 0
  /// What folders get last, by their paths: writing into them changes their times, and what is made in them would inherit.
  private var folders: [[UInt8]: (modified: (seconds: Int, nanoseconds: Int), defaultList: [UInt8]?)] = [:]
  /// Folders of a layer that it has no entry for: how they are is for the layers below to say. After `unpack`, in the order of a walk.
  private(set) var implicit: Set<[UInt8]> = []
  private var implicitBytes = 0
  private let implicitBytesMax: Int
  /// Of their names together. One member of 4 KiB may bring 2,000 of them.
  static let implicitBytesMax = 64 << 20
  /// Parent of the last member, kept open: members come folder by folder.
  private var lastParent: (path: [UInt8], descriptor: SharedDescriptor)?
  private var buffer = [UInt8](repeating: 0, count: 256 << 10)
  private var current = ""

  /// - Parameter isLayer: false: a plain tree, in which a name that looks like a whiteout is a name.
  init(
    folder: String, maximumBytes: Int64 = .max, maximumEntries: Int = .max, isLayer: Bool = true,
    implicitBytesMax: Int = LayerUnpacker.implicitBytesMax
  ) throws {
    self.isLayer = isLayer
    self.implicitBytesMax = implicitBytesMax
    root = try OwnedDescriptor.open(folder, O_RDONLY | O_DIRECTORY)
    self.maximumBytes = maximumBytes
    self.maximumEntries = maximumEntries
  }

  func unpack(_ tar: TarReader) throws {
    while let entry = try tar.next() {
      current = text(entry.name)
      entries += 1
      guard entries <= maximumEntries else { throw hostile("the layer has more than \(maximumEntries) members") }
      try write(entry, tar)
    }
    for (path, last) in folders {
      // A later member may have replaced the folder.
      guard let folder = try? open(path, O_RDONLY | O_DIRECTORY) else { continue }
      current = text(path)
      if let list = last.defaultList { try set(ExtendedAttributes.defaultList, list, of: folder.rawValue) }
      try setTimes(folder.rawValue, nil, last.modified)
    }
    implicit = implicit.filter { (try? open($0, O_RDONLY | O_DIRECTORY)) != nil }
    try tar.drain()
    // One call for all files of the layer; the rename that makes it visible comes after.
    try checkResult(clinux_syncfs(root.rawValue), "sync", "the layer")
  }

  private func hostile(_ why: String) -> ImageError { ImageError(.hostile, "unpack", "'\(current)'", why) }

  // MARK: - Names

  /// Components without "." and empty ones.
  private func components(_ name: [UInt8]) throws -> [[UInt8]] {
    guard name.count <= 4096 else { throw hostile("its name has \(name.count) bytes, at most 4096 are possible") }
    guard name.first != 47 else { throw hostile("its name is absolute") }
    let parts = name.split(separator: 47).map(Array.init).filter { $0 != [46] }
    for part in parts {
      if part == [46, 46] { throw hostile("its name leads out of the layer") }
      if part.count > 255 { throw hostile("a part of its name has more than 255 bytes") }
      if part.contains(0) { throw hostile("its name has a zero byte") }
    }
    return parts
  }

  private func open(_ path: [UInt8], _ flags: Int32) throws -> OwnedDescriptor {
    let descriptor = openBeneath(root.rawValue, path, flags)
    guard descriptor >= 0 else {
      switch Errno(-descriptor) {
      case .loop: throw hostile("a part of its path is a symbolic link")
      case .notDirectory: throw hostile("a part of its path is no folder")
      case let error: throw SystemError("open", current, error)
      }
    }
    return OwnedDescriptor(owning: descriptor)
  }

  /// The folder that holds the last of `parts`, made if it is missing.
  private func parent(_ parts: ArraySlice<[UInt8]>) throws -> SharedDescriptor {
    let path = Array(parts.joined(separator: [47]))
    if let last = lastParent, last.path == path { return last.descriptor }
    // From the deepest that is there downwards, in a loop: 2,000 levels of calls are more than a thread's stack holds.
    var there = parts.count
    var opened: SharedDescriptor?
    while opened == nil {
      do {
        opened = SharedDescriptor(try open(Array(parts.prefix(there).joined(separator: [47])), O_RDONLY | O_DIRECTORY))
      } catch let error as SystemError where error.errno == .noEntry && there > 0 { there -= 1 }
    }
    var folder = opened!
    var made = Array(parts.prefix(there).joined(separator: [47]))
    for depth in there..<parts.count {
      let name = parts[parts.startIndex + depth]
      if !made.isEmpty { made.append(47) }
      made += name
      try note(implicit: made)
      try check(withName(name) { mkdirat(folder.rawValue, $0, 0o755) }, "make directory", current)
      let next = SharedDescriptor(
        owning: try check(withName(name) { openat(folder.rawValue, $0, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) }, "open", current))
      // Not the process's umask decides.
      try check(fchmod(next.rawValue, 0o755), "set the mode of", current)
      folder = next
    }
    lastParent = (path, folder)
    return folder
  }

  private func note(implicit path: [UInt8]) throws {
    guard isLayer else { return }
    implicitBytes += path.count
    guard implicitBytes <= implicitBytesMax else {
      throw hostile("the folders that the layer has no entries for have names of more than \(implicitBytesMax) bytes")
    }
    implicit.insert(path)
  }

  // MARK: - Members

  private func write(_ entry: TarEntry, _ tar: TarReader) throws {
    let parts = try components(entry.name)
    guard let name = parts.last else {
      // "./": the layer's own root.
      if entry.kind == .directory { try finish(folder: root.rawValue, entry, []) }
      return
    }
    for part in parts.dropLast() where isWhiteout(part) { throw hostile("a part of its path is a whiteout") }
    let folder = try parent(parts.dropLast())
    if isWhiteout(name) { return try whiteout(name, folder.rawValue, parts.dropLast()) }
    switch entry.kind {
    case .directory: try directory(name, folder.rawValue, entry, Array(parts.joined(separator: [47])))
    case .file: try file(name, folder.rawValue, entry, tar)
    case .symbolicLink:
      guard !entry.linkName.isEmpty, entry.linkName.count < 4096 else { throw hostile("its target has \(entry.linkName.count) bytes") }
      try clear(name, folder.rawValue)
      try check(withName(entry.linkName) { target in withName(name) { symlinkat(target, folder.rawValue, $0) } }, "link", current)
      try finish(name, folder.rawValue, entry, changesMode: false)
    case .hardLink:
      let target = try components(entry.linkName)
      guard let last = target.last else { throw hostile("it links to nothing") }
      if target == parts { return }
      if target.contains(where: isWhiteout) { throw hostile("it links to a whiteout") }
      let from = SharedDescriptor(try open(Array(target.dropLast().joined(separator: [47])), O_RDONLY | O_DIRECTORY))
      try clear(name, folder.rawValue)
      // Without AT_SYMLINK_FOLLOW: a symbolic link is linked itself, never followed.
      let linked = withName(last) { old in withName(name) { linkat(from.rawValue, old, folder.rawValue, $0, 0) } }
      if linked < 0 {
        let error = Errno.current
        throw ImageError(.corrupt, "unpack", "'\(current)'", "cannot be linked to '\(text(entry.linkName))': \(error)")
      }
    case .fifo:
      try clear(name, folder.rawValue)
      try check(withName(name) { mkfifoat(folder.rawValue, $0, mode_t(entry.mode)) }, "make fifo", current)
      try finish(name, folder.rawValue, entry, changesMode: true)
    case .characterDevice, .blockDevice:
      // A container gets its devices from the runtime; those of an image would be somebody else's disks.
      break
    }
  }

  private func directory(_ name: [UInt8], _ folder: Int32, _ entry: TarEntry, _ path: [UInt8]) throws {
    var status = stat()
    let there = withName(name) { fstatat(folder, $0, &status, AT_SYMLINK_NOFOLLOW) } == 0
    let replacesWhiteout = there && isWhiteout(status)
    if there, status.st_mode & S_IFMT != S_IFDIR { try clear(name, folder) }
    if !there || status.st_mode & S_IFMT != S_IFDIR {
      try check(withName(name) { mkdirat(folder, $0, 0o700) }, "make directory", current)
    }
    let made = SharedDescriptor(try open(path, O_RDONLY | O_DIRECTORY))
    if replacesWhiteout { try makeOpaque(made.rawValue) }
    try finish(folder: made.rawValue, entry, path)
  }

  private func file(_ name: [UInt8], _ folder: Int32, _ entry: TarEntry, _ tar: TarReader) throws {
    bytes += entry.size
    guard bytes <= maximumBytes else { throw hostile("the layer's files have more than \(maximumBytes) bytes") }
    try clear(name, folder)
    let file = OwnedDescriptor(
      owning: try check(withName(name) { openat(folder, $0, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600) }, "make file", current))
    for segment in entry.segments ?? [0..<entry.size] {
      if entry.segments != nil { try check(lseek(file.rawValue, off_t(segment.lowerBound), SEEK_SET), "seek in", current) }
      try copy(tar, to: file.rawValue, segment.upperBound - segment.lowerBound)
    }
    if entry.segments != nil { try check(ftruncate(file.rawValue, off_t(entry.size)), "set the size of", current) }
    // The owner first: chown takes set-id bits and capabilities away.
    if isRoot { try check(fchown(file.rawValue, entry.uid, entry.gid), "change the owner of", current) }
    try check(fchmod(file.rawValue, mode_t(entry.mode)), "set the mode of", current)
    try setAttributes(file.rawValue, entry)
    try setTimes(file.rawValue, nil, entry.modified)
  }

  private func copy(_ tar: TarReader, to file: Int32, _ count: Int64) throws {
    var left = count
    while left > 0 {
      let count = try buffer.withUnsafeMutableBytes {
        try tar.read(into: UnsafeMutableRawBufferPointer(rebasing: $0[..<Int(min(left, Int64($0.count)))]))
      }
      if count == 0 { break }
      try buffer.withUnsafeBytes { try Files.writeAll(file, UnsafeRawBufferPointer(rebasing: $0[..<count]), name: current) }
      left -= Int64(count)
    }
  }

  /// Takes away what an earlier member of the same name left; links are not followed.
  private func clear(_ name: [UInt8], _ folder: Int32) throws {
    if withName(name, { unlinkat(folder, $0, 0) }) == 0 { return }
    switch Errno.current {
    case .noEntry: return
    case .isDirectory, .perm:
      try checkResult(withName(name) { clinux_remove_tree(folder, $0) }, "replace", current)
    case let error: throw SystemError("replace", current, error)
    }
  }

  // MARK: - Whiteouts

  private static let whiteoutPrefix = Array(".wh.".utf8)
  private func isWhiteout(_ name: [UInt8]) -> Bool { isLayer && name.starts(with: Self.whiteoutPrefix) }

  private func whiteout(_ name: [UInt8], _ folder: Int32, _ parts: ArraySlice<[UInt8]>) throws {
    let hidden = Array(name.dropFirst(4))
    if hidden == Array(".wh..opq".utf8) { return try makeOpaque(folder) }
    // Other names with the doubled prefix are aufs' own bookkeeping.
    if hidden.starts(with: Self.whiteoutPrefix) { return }
    if hidden.isEmpty || hidden == [46] || hidden == [46, 46] { throw hostile("the whiteout names nothing") }
    var status = stat()
    if withName(hidden, { fstatat(folder, $0, &status, AT_SYMLINK_NOFOLLOW) }) == 0 {
      // This layer has its own; what lies below is hidden by it, a folder's content by opacity.
      if status.st_mode & S_IFMT == S_IFDIR {
        let own = OwnedDescriptor(
          owning: try check(withName(hidden) { openat(folder, $0, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) }, "open", current))
        try makeOpaque(own.rawValue)
        // It is another than the one below.
        implicit.remove(Array((parts + [hidden]).joined(separator: [47])))
      }
      return
    }
    try check(withName(hidden) { mknodat(folder, $0, S_IFCHR, 0) }, "make whiteout", current)
  }

  private func isWhiteout(_ status: stat) -> Bool { status.st_mode & S_IFMT == S_IFCHR && status.st_rdev == 0 }

  private func makeOpaque(_ folder: Int32) throws {
    try checkResult(clinux_fsetxattr(folder, "trusted.overlay.opaque", "y", 1), "make opaque", current)
  }

  // MARK: - Attributes

  private func finish(folder: Int32, _ entry: TarEntry, _ path: [UInt8]) throws {
    if isRoot { try check(fchown(folder, entry.uid, entry.gid), "change the owner of", current) }
    try check(fchmod(folder, mode_t(entry.mode)), "set the mode of", current)
    try setAttributes(folder, entry)
    folders[path] = (entry.modified, entry.attributes.last { $0.name == ExtendedAttributes.defaultList }?.value)
    implicit.remove(path)
  }

  private func finish(_ name: [UInt8], _ folder: Int32, _ entry: TarEntry, changesMode: Bool) throws {
    if isRoot { try check(withName(name) { fchownat(folder, $0, entry.uid, entry.gid, AT_SYMLINK_NOFOLLOW) }, "change the owner of", current) }
    if changesMode { try check(withName(name) { fchmodat(folder, $0, mode_t(entry.mode), 0) }, "set the mode of", current) }
    try setTimes(folder, name, entry.modified)
  }

  /// After owner and mode: an access control list is kept in the mode, too.
  private func setAttributes(_ descriptor: Int32, _ entry: TarEntry) throws {
    // A folder gets its default list last, and nothing else has one.
    for (name, value) in entry.attributes where ExtendedAttributes.isKept(name) && name != ExtendedAttributes.defaultList {
      try set(name, value, of: descriptor)
    }
  }

  private func set(_ name: String, _ value: [UInt8], of descriptor: Int32) throws {
    guard name.utf8.count <= 255, value.count <= 65_536 else { throw hostile("an extended attribute is too long") }
    let result = clinux_fsetxattr(descriptor, name, value, value.count)
    guard result < 0 else { return }
    switch Errno(-result) {
    // The file system has none.
    case .unsupported: return
    case .perm where !isRoot: return
    case .invalid where name == ExtendedAttributes.accessList || name == ExtendedAttributes.defaultList:
      throw hostile("its \(name) is no access control list")
    case let error: throw SystemError("set \(name) of", current, error)
    }
  }

  private func setTimes(_ descriptor: Int32, _ name: [UInt8]?, _ modified: (seconds: Int, nanoseconds: Int)) throws {
    let time = timespec(tv_sec: modified.seconds, tv_nsec: modified.nanoseconds)
    let times = [time, time]
    if let name {
      try check(withName(name) { utimensat(descriptor, $0, times, AT_SYMLINK_NOFOLLOW) }, "set the time of", current)
    } else {
      try check(futimens(descriptor, times), "set the time of", current)
    }
  }
}

/// openat2(2) of a path below the folder, no symbolic link followed; empty: the folder itself. Below zero: -errno.
func openBeneath(_ folder: Int32, _ path: [UInt8], _ flags: Int32) -> Int32 {
  let resolve = UInt64(CLINUX_RESOLVE_BENEATH | CLINUX_RESOLVE_NO_SYMLINKS | CLINUX_RESOLVE_NO_MAGICLINKS)
  return withName(path.isEmpty ? [46] : path) { clinux_openat2(folder, $0, UInt64(UInt32(bitPattern: flags | O_CLOEXEC)), 0, resolve) }
}

/// A name as the kernel wants it. Names are bytes: a String would mend what is not UTF-8.
func withName<Result>(_ name: [UInt8], _ body: (UnsafePointer<CChar>) throws -> Result) rethrows -> Result {
  try (name + [0]).withUnsafeBufferPointer { try $0.withMemoryRebound(to: CChar.self) { try body($0.baseAddress!) } }
}
