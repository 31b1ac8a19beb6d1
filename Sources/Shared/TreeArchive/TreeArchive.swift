// TreeArchive: folders as a tar stream in a fixed order, the same bytes for the same tree: a build's context, what COPY copies, a layer.
//
// Invariants: members are in the order of their names' bytes; times are whole seconds; nothing is opened but what was listed, by descriptor
// and without following a link. It refuses to know images and builds.
import CLinux
import Glibc
import LinuxSystem

/// A pull: whoever reads paces it. Blocking; one thread at a time.
public final class TreeArchive {
  /// Something to put in: what it is, and its name in the archive.
  public struct Root {
    /// Where `path` is looked up.
    public var folder: SharedDescriptor
    /// Relative, without `..`, no link in it; empty: the folder itself.
    public var path: String
    /// Empty: only what is in the folder, under its own names.
    public var name: String
    /// In place of what is at `path`.
    fileprivate var content: [UInt8]?
    public init(_ folder: SharedDescriptor, _ path: String, as name: String) { (self.folder, self.path, self.name) = (folder, path, name) }
    /// A file that is nowhere, of mode 0644 and no time.
    public init(content: [UInt8], as name: String) {
      (folder, path, self.name, self.content) = (SharedDescriptor(owning: -1), name, name, content)
    }
  }

  public struct Options {
    /// Whether a member is put in; asked with its path below its root's `folder`. A folder that is left out is still looked into if `descends`.
    public var includes: (_ path: String) -> Bool = { _ in true }
    public var descends = false
    /// An overlay's upper folder: whiteouts and opaque folders become those of a layer (OCI image specification, layer.md).
    public var isOverlay = false
    /// Of every member; nil: its own.
    public var owner: (uid: UInt32, gid: UInt32)?
    /// Permission bits of every member that is no link; nil: its own.
    public var mode: UInt32?
    /// Seconds since 1970 that no time exceeds.
    public var latest: Int?
    /// All times are 0: for a digest that does not depend on them.
    public var timeless = false
    /// Access control lists, too; of a file its capabilities are always put in.
    public var keepsLists = false
    /// Files, folders and links put in; more are refused.
    public var maximumMembers = 4_000_000
    public init() {}
  }

  private struct Item {
    var name: String
    var path: String
    var folder: SharedDescriptor
    /// In `folder`.
    var entry: String
    var content: [UInt8]?
  }

  private let options: Options
  /// What is next, last first.
  private var waiting: [Item] = []
  private var buffer: [UInt8] = []
  private var start = 0
  private var file: (descriptor: SharedDescriptor, left: Int64, name: String)?
  private var padding = 0
  private var links: [Inode: String] = [:]
  private var ended = false
  private(set) public var members = 0
  private struct Inode: Hashable {
    var device: UInt64
    var number: UInt64
  }

  public init(_ roots: [Root], _ options: Options = .init()) throws(SystemError) {
    self.options = options
    for root in roots.reversed() {
      if let content = root.content {
        waiting.append(Item(name: root.name, path: root.path, folder: root.folder, entry: "", content: content))
        continue
      }
      if root.path.isEmpty {
        precondition(root.name.isEmpty, "a whole folder has no name")
        try list(root.folder, name: "", path: "")
        continue
      }
      var folder = root.folder
      var entry = root.path
      if let slash = root.path.lastIndex(of: "/") {
        folder = SharedDescriptor(try .open(inRoot: root.folder.rawValue, String(root.path[..<slash]), O_RDONLY | O_DIRECTORY))
        entry = String(root.path[root.path.index(after: slash)...])
      }
      if root.name.isEmpty {
        let inside = try Self.open(folder.rawValue, entry, O_RDONLY | O_DIRECTORY, root.path)
        try list(inside, name: "", path: root.path)
      } else {
        waiting.append(Item(name: root.name, path: root.path, folder: folder, entry: entry))
      }
    }
  }

  /// Fills from the start and returns how many bytes; 0 at the end.
  public func read(into target: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int {
    guard !target.isEmpty else { return 0 }
    while true {
      if start < buffer.count {
        let count = min(target.count, buffer.count - start)
        buffer.withUnsafeBytes { target.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[start..<start + count])) }
        start += count
        if start == buffer.count { (buffer, start) = ([], 0) }
        return count
      }
      if let open = file {
        if open.left == 0 {
          file = nil
          buffer = [UInt8](repeating: 0, count: padding)
          continue
        }
        let count = try check(Glibc.read(open.descriptor.rawValue, target.baseAddress, Int(min(Int64(target.count), open.left))), "read", open.name)
        // One that shrinks while it is read is filled up: its size has been said.
        if count == 0 { throw SystemError("read", "\(open.name) (it became shorter meanwhile)", Errno(EIO)) }
        file?.left -= Int64(count)
        return count
      }
      if let item = waiting.popLast() {
        try add(item)
      } else if !ended {
        ended = true
        buffer = [UInt8](repeating: 0, count: 1024)
      } else {
        return 0
      }
    }
  }

  // MARK: - The tree

  private static func open(_ folder: Int32, _ entry: String, _ flags: Int32, _ path: String) throws(SystemError) -> SharedDescriptor {
    SharedDescriptor(owning: try check(openat(folder, entry, flags | O_NOFOLLOW | O_CLOEXEC), "open", path))
  }

  private func list(_ folder: SharedDescriptor, name: String, path: String) throws(SystemError) {
    let names = try Files.names(in: folder.rawValue, path: path).sorted { $0.lexicographicallyPrecedes($1) }
    for bytes in names.reversed() {
      guard let entry = String(validating: bytes, as: UTF8.self) else {
        throw SystemError("archive a name that is not UTF-8 in", path.isEmpty ? "." : path, Errno(EILSEQ))
      }
      waiting.append(
        Item(name: name.isEmpty ? entry : "\(name)/\(entry)", path: path.isEmpty ? entry : "\(path)/\(entry)", folder: folder, entry: entry))
    }
  }

  private func add(_ item: Item) throws(SystemError) {
    var status = stat()
    if let content = item.content {
      members += 1
      status.st_mode = S_IFREG | 0o644
      header(item.name, "0", status, size: Int64(content.count))
      buffer += content + [UInt8](repeating: 0, count: (512 - content.count % 512) % 512)
      return
    }
    try check(fstatat(item.folder.rawValue, item.entry, &status, AT_SYMLINK_NOFOLLOW), "look at", item.path)
    let isIn = options.includes(item.path)
    guard isIn || options.descends && status.st_mode & S_IFMT == S_IFDIR else { return }
    if isIn {
      members += 1
      if members > options.maximumMembers { throw SystemError("archive more than \(options.maximumMembers) members, at", item.path, Errno(E2BIG)) }
    }
    switch status.st_mode & S_IFMT {
    case S_IFDIR:
      let folder = try Self.open(item.folder.rawValue, item.entry, O_RDONLY | O_DIRECTORY, item.path)
      if isIn {
        header(item.name + "/", "5", status, attributes: options.keepsLists ? try ExtendedAttributes.named(of: folder.rawValue) : [])
        if options.isOverlay {
          if hasAttribute(folder.rawValue, "trusted.overlay.redirect") { throw SystemError("archive the renamed folder", item.path, Errno(EXDEV)) }
          if hasAttribute(folder.rawValue, "trusted.overlay.opaque") { empty(item.name + "/.wh..wh..opq", status) }
        }
      }
      try list(folder, name: item.name, path: item.path)
    case S_IFREG:
      let inode = Inode(device: UInt64(status.st_dev), number: UInt64(status.st_ino))
      if status.st_nlink > 1 {
        if let first = links[inode] { return header(item.name, "1", status, link: first) }
        links[inode] = item.name
      }
      let opened = try Self.open(item.folder.rawValue, item.entry, O_RDONLY, item.path)
      // Read here it is zeros: the content is in a lower layer (Documentation/filesystems/overlayfs.rst, "Metadata only copy up").
      if options.isOverlay, hasAttribute(opened.rawValue, "trusted.overlay.metacopy") {
        throw SystemError("archive the file without its content", item.path, Errno(ENODATA))
      }
      header(item.name, "0", status, size: Int64(status.st_size), attributes: try attributes(of: opened.rawValue))
      file = (opened, Int64(status.st_size), item.path)
      padding = (512 - Int(status.st_size % 512)) % 512
    case S_IFLNK:
      var target = [CChar](repeating: 0, count: 4097)
      let count = try check(readlinkat(item.folder.rawValue, item.entry, &target, 4096), "read", item.path)
      header(item.name, "2", status, link: String(decoding: target[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self))
    case S_IFIFO: header(item.name, "6", status)
    case S_IFCHR where options.isOverlay && status.st_rdev == 0:
      let slash = item.name.lastIndex(of: "/")
      let parent = slash.map { String(item.name[...$0]) } ?? ""
      empty(parent + ".wh." + item.name.dropFirst(parent.count), status)
    // Sockets and devices: a container gets its own.
    default: break
    }
  }

  private func hasAttribute(_ descriptor: Int32, _ name: String) -> Bool {
    var value = [UInt8](repeating: 0, count: 256)
    return clinux_fgetxattr(descriptor, name, &value, value.count) >= 0
  }

  private func attributes(of file: Int32) throws(SystemError) -> [(name: String, value: [UInt8])] {
    if options.keepsLists { return try ExtendedAttributes.named(of: file) }
    return try ExtendedAttributes.value(ExtendedAttributes.capability, of: file).map { [(ExtendedAttributes.capability, $0)] } ?? []
  }

  // MARK: - Headers (POSIX ustar, pax for what does not fit)

  private func empty(_ name: String, _ status: stat) {
    var plain = status
    plain.st_mode = S_IFREG | 0o600
    header(name, "0", plain)
  }

  private func header(
    _ name: String, _ type: Character, _ status: stat, link: String = "", size: Int64 = 0, attributes: [(name: String, value: [UInt8])] = []
  ) {
    var pax: [UInt8] = []
    func record(_ key: String, _ value: [UInt8]) { pax += Self.record(key, value) }
    if name.utf8.count > 100 { record("path", Array(name.utf8)) }
    if link.utf8.count > 100 { record("linkpath", Array(link.utf8)) }
    if size >= 1 << 33 { record("size", Array(String(size).utf8)) }
    let (uid, gid) = options.owner ?? (status.st_uid, status.st_gid)
    if uid >= 1 << 21 { record("uid", Array(String(uid).utf8)) }
    if gid >= 1 << 21 { record("gid", Array(String(gid).utf8)) }
    for (name, value) in attributes {
      // It would have the last word on a mode that was asked for.
      if name == ExtendedAttributes.accessList, options.mode != nil { continue }
      record("SCHILY.xattr.\(name)", value)
    }
    var time = options.timeless ? 0 : status.st_mtim.tv_sec
    if let latest = options.latest { time = min(time, latest) }
    if time < 0 || time >= 1 << 33 { record("mtime", Array(String(time).utf8)) }
    let mode = type == "2" ? 0o777 : options.mode ?? UInt32(status.st_mode & 0o7777)
    buffer += Self.extended(pax)
    buffer += Self.block(
      name, type, mode: mode, uid: uid >= 1 << 21 ? 0 : uid, gid: gid >= 1 << 21 ? 0 : gid, size: size >= 1 << 33 ? 0 : size,
      time: (0..<1 << 33).contains(time) ? time : 0, link: link)
  }

  /// What goes before the content of a plain file of mode 0644 that is in no folder. The name has at most 100 bytes; the content is filled
  /// up to 512.
  public static func header(file name: String, size: Int64) -> [UInt8] {
    precondition(name.utf8.count <= 100, "an archive's own names are short")
    let isLarge = size >= 1 << 33
    return extended(isLarge ? record("size", Array(String(size).utf8)) : [])
      + block(name, "0", mode: 0o644, uid: 0, gid: 0, size: isLarge ? 0 : size, time: 0, link: "")
  }

  private static func record(_ key: String, _ value: [UInt8]) -> [UInt8] {
    let body = Array(" \(key)=".utf8) + value + [10]
    // The length counts its own digits.
    var length = body.count + 1
    while String(length).utf8.count + body.count != length { length = String(length).utf8.count + body.count }
    return Array(String(length).utf8) + body
  }

  private static func extended(_ records: [UInt8]) -> [UInt8] {
    if records.isEmpty { return [] }
    return block("pax", "x", mode: 0o644, uid: 0, gid: 0, size: Int64(records.count), time: 0, link: "") + records
      + [UInt8](repeating: 0, count: (512 - records.count % 512) % 512)
  }

  private static func block(
    _ name: String, _ type: Character, mode: UInt32, uid: UInt32, gid: UInt32, size: Int64, time: Int, link: String
  ) -> [UInt8] {
    var block = [UInt8](repeating: 0, count: 512)
    func put(_ text: some Collection<UInt8>, _ offset: Int, _ width: Int) {
      for (index, byte) in text.prefix(width).enumerated() { block[offset + index] = byte }
    }
    func octal(_ value: Int64, _ offset: Int, _ width: Int) {
      let digits = String(value, radix: 8)
      put((String(repeating: "0", count: max(0, width - 1 - digits.utf8.count)) + digits).utf8, offset, width - 1)
    }
    put(name.utf8, 0, 100)
    octal(Int64(mode), 100, 8)
    octal(Int64(uid), 108, 8)
    octal(Int64(gid), 116, 8)
    octal(size, 124, 12)
    octal(Int64(time), 136, 12)
    block[156] = type.asciiValue!
    put(link.utf8, 157, 100)
    put("ustar\u{0}00".utf8, 257, 8)
    octal(0, 329, 8)
    octal(0, 337, 8)
    put("        ".utf8, 148, 8)
    let sum = block.reduce(0) { $0 + Int64($1) }
    octal(sum, 148, 7)
    block[154] = 0
    block[155] = 32
    return block
  }
}
