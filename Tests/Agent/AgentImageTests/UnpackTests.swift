import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import AgentImage

@Suite(.enabled(if: geteuid() == 0)) struct Unpacking {
  /// The layer's folder after unpacking, or the error.
  private func unpack(_ tar: TarWriter, limit: Int64 = .max, entries: Int = .max) throws -> (Folder, String) {
    let folder = Folder()
    try Files.makeDirectories(folder.path + "/outside")
    try folder.write("outside/secret", Array("secret".utf8))
    try Files.makeDirectories(folder.path + "/layer", mode: 0o755)
    let unpacker = try LayerUnpacker(folder: folder.path + "/layer", maximumBytes: limit, maximumEntries: entries)
    try unpacker.unpack(TarReader(MemorySource(tar.finished())))
    return (folder, folder.path + "/layer")
  }

  @Test("modes, owners, times, links, capabilities")
  func attributes() throws {
    var tar = TarWriter()
    tar.folder("./", mode: 0o711)
    tar.folder("tmp/", mode: 0o1777)
    tar.add("tmp/su", Array("x".utf8), mode: 0o4755, uid: 12, gid: 34, mtime: 999)
    tar.add("tmp/link", type: "2", link: "/etc/passwd", uid: 5)
    tar.add("tmp/hard", type: "1", link: "tmp/su")
    tar.add("tmp/pipe", type: "6", mode: 0o600)
    tar.add("made/by/the/way", "y")
    tar.pax([
      ("SCHILY.xattr.security.capability", [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
      ("SCHILY.xattr.trusted.overlay.opaque", [121]),
    ])
    tar.add("ping", "z")
    let (_folder, layer) = try unpack(tar)
    let file = status(layer + "/tmp/su")!
    #expect(file.st_mode == S_IFREG | 0o4755)
    #expect((file.st_uid, file.st_gid, file.st_mtim.tv_sec, file.st_nlink) == (12, 34, 999, 2))
    #expect(status(layer)!.st_mode & 0o7777 == 0o711)
    #expect(status(layer + "/tmp")!.st_mode & 0o7777 == 0o1777)
    #expect(status(layer + "/tmp")!.st_mtim.tv_sec == 1000)
    #expect(status(layer + "/tmp/link")!.st_mode & S_IFMT == S_IFLNK)
    #expect(status(layer + "/tmp/link")!.st_uid == 5)
    #expect(status(layer + "/tmp/pipe")!.st_mode == S_IFIFO | 0o600)
    #expect(status(layer + "/made/by")!.st_mode & 0o7777 == 0o755)
    #expect(clinux_lgetxattr(layer + "/ping", "security.capability", nil, 0) == 20)
    #expect(clinux_lgetxattr(layer + "/ping", "trusted.overlay.opaque", nil, 0) < 0)
    _ = _folder
  }

  @Test("access control lists and users' attributes are kept; a default list is for what containers make, and not for the layer's own members")
  func lists() throws {
    var tar = TarWriter()
    tar.pax([("SCHILY.xattr.system.posix_acl_access", accessList), ("SCHILY.xattr.system.posix_acl_default", accessList)])
    tar.folder("d/", mode: 0o2770)
    tar.add("d/plain", "x")
    tar.pax([("SCHILY.xattr.system.posix_acl_access", accessList), ("SCHILY.xattr.user.x", [1])])
    tar.add("d/listed", Array("x".utf8), mode: 0o4770, uid: 5, mtime: 999)
    // Of a file it says nothing.
    tar.pax([("SCHILY.xattr.system.posix_acl_default", accessList)])
    tar.add("d/odd", "x")
    tar.folder("d/sub/", mode: 0o700)
    tar.add("d/way/x", "x")
    // Named again, the last counts.
    tar.pax([("SCHILY.xattr.system.posix_acl_default", accessList)])
    tar.folder("twice/", mode: 0o700)
    tar.add("twice/", type: "5", mode: 0o711, mtime: 700)
    let (_folder, layer) = try unpack(tar)
    let (access, byDefault) = ("system.posix_acl_access", "system.posix_acl_default")
    #expect(attribute(access, of: layer + "/d") == accessList && attribute(byDefault, of: layer + "/d") == accessList)
    #expect(attribute(access, of: layer + "/d/listed") == accessList && attribute("user.x", of: layer + "/d/listed") == [1])
    for name in ["plain", "odd", "sub", "way", "way/x"] {
      #expect(attribute(access, of: layer + "/d/" + name) == nil && attribute(byDefault, of: layer + "/d/" + name) == nil, "\(name)")
    }
    let (listed, twice) = (status(layer + "/d/listed")!, status(layer + "/twice")!)
    #expect((listed.st_mode, listed.st_uid, listed.st_mtim.tv_sec) == (S_IFREG | 0o4770, 5, 999))
    #expect(status(layer + "/d")!.st_mode & 0o7777 == 0o2770 && status(layer + "/d")!.st_mtim.tv_sec == 1000)
    #expect((twice.st_mode & 0o7777, twice.st_mtim.tv_sec) == (0o711, 700) && attribute(byDefault, of: layer + "/twice") == nil)
    _ = _folder
  }

  @Test("whiteouts and opaque folders take overlayfs' form")
  func whiteouts() throws {
    var tar = TarWriter()
    tar.folder("d")
    tar.add("d/.wh.gone", "")
    tar.folder("opaque")
    tar.add("opaque/.wh..wh..opq", "")
    tar.add("opaque/kept", "k")
    tar.add(".wh..wh.plnk", "")
    tar.add("both", "new")
    tar.add(".wh.both", "")
    tar.add(".wh.dir", "")
    tar.folder("dir")
    let (_folder, layer) = try unpack(tar)
    #expect(status(layer + "/d/gone")!.st_mode & S_IFMT == S_IFCHR)
    #expect(status(layer + "/d/gone")!.st_rdev == 0)
    #expect(status(layer + "/d/.wh.gone") == nil)
    var value: UInt8 = 0
    #expect(clinux_lgetxattr(layer + "/opaque", "trusted.overlay.opaque", &value, 1) == 1 && value == 121)
    #expect(status(layer + "/opaque/kept") != nil)
    #expect(status(layer + "/.wh..wh.plnk") == nil)
    #expect(status(layer + "/both")!.st_mode & S_IFMT == S_IFREG)
    #expect(clinux_lgetxattr(layer + "/dir", "trusted.overlay.opaque", &value, 1) == 1)
    _ = _folder
  }

  @Test("a later member replaces an earlier one of another kind, and no link is followed")
  func replaces() throws {
    var tar = TarWriter()
    tar.add("a", type: "2", link: "../outside/secret")
    tar.add("a", "mine")
    tar.folder("b")
    tar.add("b/c", "c")
    tar.add("b", "file")
    tar.add("d", "file")
    tar.folder("d")
    tar.add("d/e", "e")
    let (folder, layer) = try unpack(tar)
    #expect(try Files.text(layer + "/a") == "mine")
    #expect(try Files.text(folder.path + "/outside/secret") == "secret")
    #expect(try Files.text(layer + "/b") == "file")
    #expect(try Files.text(layer + "/d/e") == "e")
  }

  @Test("device nodes are left out")
  func devices() throws {
    var tar = TarWriter()
    tar.add("null", type: "3")
    tar.add("disk", type: "4")
    tar.add("file", "x")
    let (folder, layer) = try unpack(tar)
    #expect(try Files.list(layer) == ["file"])
    _ = folder
  }

  @Test(
    "sparse files of GNU tar keep their content, size and holes",
    arguments: ["--format=gnu", "--format=pax --sparse-version=0.0", "--format=pax --sparse-version=0.1", "--format=pax --sparse-version=1.0"])
  func sparse(format: String) throws {
    let folder = Folder()
    try Files.makeDirectories(folder.path + "/in")
    try Files.makeDirectories(folder.path + "/layer", mode: 0o755)
    // 40 pieces of data: more than the old form's header holds.
    let file = open(folder.path + "/in/holes", O_RDWR | O_CREAT, 0o644)
    for index in 0..<40 { pwrite(file, "piece \(index)", 8, off_t(index) << 20) }
    ftruncate(file, 50 << 20)
    close(file)
    try folder.write("in/after", Array("after".utf8))
    let made = run(["sh", "-c", "cd \(folder.path)/in && tar --sparse \(format) -cf ../a.tar holes after"])
    #expect(made.code == 0, "\(made.output)")
    #expect(status(folder.path + "/a.tar")!.st_size < 2 << 20)
    try LayerUnpacker(folder: folder.path + "/layer").unpack(TarReader(FileSource(folder.path + "/a.tar")))
    #expect(run(["cmp", folder.path + "/in/holes", folder.path + "/layer/holes"]).code == 0)
    #expect(try Files.text(folder.path + "/layer/after") == "after")
    let holes = status(folder.path + "/layer/holes")!
    #expect(holes.st_size == 50 << 20 && holes.st_blocks * 512 < 5 << 20)
  }

  static let hostile: [(String, [(String, Character, String)])] = [
    ("out of the layer", [("../x", "0", "")]),
    ("out of the layer", [("a/../../x", "0", "")]),
    ("is absolute", [("/etc/x", "0", "")]),
    ("symbolic link", [("l", "2", "/tmp"), ("l/x", "0", "")]),
    ("symbolic link", [("l", "2", "../outside"), ("l/secret", "0", "")]),
    ("symbolic link", [("d", "5", ""), ("d/l", "2", "../../outside"), ("d/l/new/deep", "0", "")]),
    ("out of the layer", [("h", "1", "../outside/secret")]),
    ("symbolic link", [("l", "2", "../outside"), ("h", "1", "l/secret")]),
    ("is absolute", [("h", "1", "/etc/passwd")]),
    ("cannot be linked", [("h", "1", "nothing")]),
    ("symbolic link", [("l", "2", "../outside"), ("l/.wh.secret", "0", "")]),
    ("symbolic link", [("l", "2", "../outside"), ("l/.wh..wh..opq", "0", "")]),
    ("names nothing", [(".wh.", "0", "")]),
    ("names nothing", [(".wh...", "0", "")]),
    ("is a whiteout", [(".wh.d/x", "0", "")]),
    ("no folder", [("f", "0", ""), ("f/x", "0", "")]),
    ("", [("l", "2", "")]),
  ]
  @Test("what leads outside is refused, and nothing outside has changed", arguments: hostile)
  func refuses(_ reason: String, _ members: [(String, Character, String)]) {
    var tar = TarWriter()
    for (name, type, link) in members { tar.add(name, type: type, link: link) }
    let folder = Folder()
    try? Files.makeDirectories(folder.path + "/outside")
    try? Files.makeDirectories(folder.path + "/layer", mode: 0o755)
    _ = try? folder.write("outside/secret", Array("secret".utf8))
    let error = #expect(throws: ImageError.self) {
      let unpacker = try LayerUnpacker(folder: folder.path + "/layer")
      try unpacker.unpack(TarReader(MemorySource(tar.finished())))
    }
    #expect(error?.cause.contains(reason) == true || reason.isEmpty)
    #expect((try? Files.list(folder.path + "/outside")) == ["secret"])
    #expect(status(folder.path + "/outside/secret")?.st_nlink == 1)
    #expect(clinux_lgetxattr(folder.path + "/outside", "trusted.overlay.opaque", nil, 0) < 0)
  }

  @Test("long names, too many bytes and too many members are refused")
  func bounds() throws {
    var long = TarWriter()
    long.pax([("path", [UInt8](repeating: 97, count: 300))])
    long.add("x", "")
    #expect(throws: ImageError.self) { try unpack(long) }
    var deep = TarWriter()
    deep.pax([("path", Array(String(repeating: "d/", count: 2100).utf8) + [97])])
    deep.add("x", "")
    #expect(throws: ImageError.self) { try unpack(deep) }
    var kilobytes = TarWriter()
    kilobytes.pax([("path", Array(String(repeating: "dir/", count: 750).utf8) + [97])])
    kilobytes.add("x", "")
    _ = try unpack(kilobytes)
    var big = TarWriter()
    big.add("a", [UInt8](repeating: 0, count: 2000))
    #expect(throws: ImageError.self) { try unpack(big, limit: 1000) }
    #expect(throws: ImageError.self) { try unpack(big, entries: 0) }
  }
}
