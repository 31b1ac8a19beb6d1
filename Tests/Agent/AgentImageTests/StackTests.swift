import Glibc
import LinuxSystem
import Model
import Testing

@testable import AgentImage

@Suite("Stacks of layers", .serialized, .enabled(if: geteuid() == 0)) struct Stacks {
  let folder = Folder()
  private func open() throws -> ImageStore { try ImageStore(directory: folder.path + "/images") }

  /// What a container sees of it: the layers, as they are given to one, mounted.
  private func mounted<Result>(_ layers: [String], _ body: (String) throws -> Result) throws -> Result {
    let target = folder.path + "/mount"
    try Files.makeDirectories(target)
    try Files.makeDirectories(folder.path + "/empty")
    let data = "lowerdir=" + (layers.reversed() + [folder.path + "/empty"]).joined(separator: ":")
    try check(mount("overlay", target, "overlay", 0, data), "mount", data)
    defer { umount2(target, Int32(MNT_DETACH)) }
    return try body(target)
  }

  /// "MODE USER:GROUP TIME".
  private func look(_ path: String) -> String {
    guard let status = status(path) else { return "none" }
    return "\(String(status.st_mode & 0o7777, radix: 8)) \(status.st_uid):\(status.st_gid) \(status.st_mtim.tv_sec)"
  }

  private static func base(_ mode: Int) -> [UInt8] {
    var tar = TarWriter()
    func folder(_ name: String, _ mode: Int, uid: Int = 0, gid: Int = 0, mtime: Int = 1000) {
      tar.add(name, type: "5", mode: mode, uid: uid, gid: gid, mtime: mtime)
    }
    folder("tmp/", mode, mtime: 500)
    folder("root/", 0o700)
    folder("var/", 0o711)
    folder("var/lib/", 0o711)
    tar.pax([("SCHILY.xattr.system.posix_acl_access", accessList)])
    folder("var/lib/app/", 0o770, uid: 1000, gid: 1001, mtime: 600)
    folder("remade/", 0o700)
    folder("emptied/", 0o700)
    folder("emptied/in/", 0o700)
    tar.add("lib", type: "2", link: "usr/lib")
    return tar.finished()
  }
  /// Files, and no folder of its own but one.
  private static let top: [UInt8] = {
    var tar = TarWriter()
    tar.add("tmp/x", "x")
    tar.add("root/.wh.was", "")
    tar.add("var/lib/app/z", "z")
    tar.add("remade/new", "new")
    tar.add(".wh.remade", "")
    tar.add("emptied/.wh..wh..opq", "")
    tar.add("emptied/in/new", "new")
    tar.add("lib/x", "x")
    tar.add("own/a/b", "b")
    tar.add("said/later/x", "x")
    tar.folder("said/", mode: 0o750)
    return tar.finished()
  }()

  private func expected(_ path: String, _ mode: String) {
    #expect(look(path + "/tmp") == "\(mode) 0:0 500")
    #expect(look(path + "/root").hasPrefix("700 0:0 1000"))
    #expect(look(path + "/var").hasPrefix("711 0:0 1000") && look(path + "/var/lib").hasPrefix("711 0:0 1000"))
    #expect(look(path + "/var/lib/app") == "770 1000:1001 600")
    #expect(attribute("system.posix_acl_access", of: path + "/var/lib/app") == accessList)
    // It is another than the one below; so is what lies in one that hides all below.
    #expect(look(path + "/remade").hasPrefix("755 0:0"))
    #expect(look(path + "/emptied").hasPrefix("700 0:0") && look(path + "/emptied/in").hasPrefix("755 0:0"))
    #expect(look(path + "/lib").hasPrefix("755 0:0") && look(path + "/own/a").hasPrefix("755 0:0"))
    #expect(look(path + "/said").hasPrefix("750 0:0"))
    for file in ["tmp/x", "var/lib/app/z", "remade/new", "emptied/in/new", "lib/x", "own/a/b", "said/later/x"] {
      #expect(Files.exists("\(path)/\(file)"))
    }
  }

  @Test("a folder that a layer has no entry for is as the layers below have it, on each of them, and after a restart")
  func implicit() async throws {
    var third = TarWriter()
    third.add("tmp/deep/er", "x")
    third.add("var/lib/app/deep/er", "x")
    let store = try open()
    for (name, mode) in [("one", 0o1777), ("two", 0o711)] {
      let archive = savedImage(layers: [Self.base(mode), Self.top, third.finished()], name: name)
      _ = try await store.load(try folder.write(name, archive))
    }
    for store in [store, try open()] {
      for (name, mode) in [("one", "1777"), ("two", "711")] {
        let record = try #require(try store.resolve(name))
        try mounted(record.layerPaths) { path in
          expected(path, mode)
          #expect(look(path + "/tmp/deep").hasPrefix("755 0:0"))
        }
      }
    }
    // What is made for one image alone is gone with it, what both have stays.
    try await store.remove("one")
    try mounted(try #require(try store.resolve("two")).layerPaths) { expected($0, "711") }
    try await store.remove("two")
    #expect(try Files.list(folder.path + "/images/layers").isEmpty && Files.list(folder.path + "/images/ingest").isEmpty)
  }

  @Test("it does not matter which layer comes first, nor that several come at once")
  func order() async throws {
    let store = try open()
    let (base, top) = (try folder.write("base", Self.base(0o1777)), try folder.write("top", Self.top))
    let record = try await store.holding {
      var layers = [try await store.addLayer(tar: top).diffID]
      layers.insert(try await store.addLayer(tar: base).diffID, at: 0)
      let ids = layers.map { "\"\($0)\"" }.joined(separator: ",")
      let config = "{\"architecture\":\"\(hostArchitecture)\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\(ids)]}}"
      let record = try await store.commit(config: Array(config.utf8), names: ["x"])
      // All at once make the same.
      let (content, wanted) = (store.content, layers)
      try await withThrowingTaskGroup(of: [String].self) { group in
        try? Files.removeTree(content.layerFolder(wanted[1]) + "/over")
        for _ in 0..<8 { group.addTask { try await onOwnThread { try content.stack(wanted) } } }
        for try await paths in group { #expect(paths == record.layerPaths) }
      }
      return record
    }
    #expect(record.layerPaths.count == 3)
    try mounted(record.layerPaths) { expected($0, "1777") }
  }

  @Test("nothing stands between layers that say how their folders are, and the first layer's folders are as ever")
  func none() async throws {
    var top = TarWriter()
    top.folder("tmp/", mode: 0o700)
    top.add("tmp/x", "x")
    top.add("new/x", "x")
    let archive = savedImage(layers: [Self.layer, top.finished()], name: "x")
    let record = try #require(try await open().load(try folder.write("x", archive)).first)
    #expect(record.layerPaths.count == 2)
    try mounted(record.layerPaths) { path in
      #expect(look(path + "/tmp").hasPrefix("700 0:0 1000") && look(path + "/made").hasPrefix("755 0:0"))
    }
  }
  private static let layer: [UInt8] = {
    var tar = TarWriter()
    tar.add("made/x", "x")
    tar.folder("tmp/", mode: 0o1777)
    return tar.finished()
  }()

  @Test("a layer that an image has twice is mounted once, where it is uppermost")
  func twice() async throws {
    let empty = TarWriter().finished()
    var middle = TarWriter()
    middle.add("tmp/.wh.x", "")
    middle.add("made", "a file")
    let archive = savedImage(layers: [empty, Self.top, empty, middle.finished(), Self.top, empty], name: "x")
    let record = try #require(try await open().load(try folder.write("x", archive)).first)
    try mounted(record.layerPaths) { path in
      let (hidden, made) = (try Files.text(path + "/tmp/x"), try Files.text(path + "/made"))
      #expect(hidden == "x" && made == "a file")
    }
  }

  @Test("names of 2,000 folders a member are bounded")
  func bounds() throws {
    let folder = Folder()
    try Files.makeDirectories(folder.path + "/layer", mode: 0o755)
    var tar = TarWriter()
    // Each brings 4 MB of them.
    for index in 0..<2 {
      tar.pax([("path", Array("\(index)".utf8) + Array(String(repeating: "/d", count: 2000).utf8) + Array("/f".utf8))])
      tar.add("x", "")
    }
    let long = #expect(throws: ImageError.self) {
      try LayerUnpacker(folder: folder.path + "/layer", implicitBytesMax: 6 << 20).unpack(TarReader(MemorySource(tar.finished())))
    }
    #expect(long?.description.contains("names of more than") == true)
  }
}
