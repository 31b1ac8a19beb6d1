import Glibc
import LinuxSystem
import Model
import Synchronization
import Testing

@testable import AgentImage

/// Images of podman, buildah, umoci and skopeo come here, and ours go there: by every form of file, and by a registry. Each tool keeps its things in
/// the test's own folder.
@Suite(.serialized, .enabled(if: geteuid() == 0, "needs root")) struct Counterparts {
  let folder = Folder()
  private func open(_ name: String = "images") throws -> ImageStore { try ImageStore(directory: "\(folder.path)/\(name)") }
  private func must(_ words: [String]) throws {
    let result = run(words)
    try #require(result.code == 0, "\(words.joined(separator: " ")): \(result.output)")
  }
  /// Of podman and buildah, which share their storage.
  private var storage: [String] { ["--root", folder.path + "/storage", "--runroot", folder.path + "/run", "--storage-driver", "vfs"] }
  private func podman(_ words: String...) throws { try must(["podman"] + storage + words) }
  private func buildah(_ words: String...) throws { try must(["buildah"] + storage + words) }

  /// Two layers, the second over the first: a file replaced, one taken away, a link, a name of 150 bytes.
  private static let long = String(repeating: "n", count: 150)
  private func archive() throws -> String {
    var base = TarWriter()
    base.folder("etc")
    base.add("etc/one", "1")
    base.add("etc/two", "2")
    var top = TarWriter()
    top.folder("etc")
    top.add("etc/one", "replaced")
    top.add("etc/.wh.two", "")
    top.add("etc/link", type: "2", link: "one")
    top.pax([("path", Array("etc/\(Self.long)".utf8))])
    top.add("x", "long")
    return try folder.write(
      "web.tar", savedImage(layers: [base.finished(), top.finished()], name: "web:1", config: "{\"Cmd\":[\"x\"],\"Labels\":{\"a\":\"b\"}}"))
  }
  private func look(_ root: String) throws {
    #expect(try Files.text(root + "/etc/one") == "replaced")
    #expect(status(root + "/etc/two") == nil && status(root + "/etc/link").map { $0.st_mode & S_IFMT == S_IFLNK } == true)
    #expect(try Files.text("\(root)/etc/\(Self.long)") == "long")
  }
  private func save(_ store: ImageStore, _ format: ArchiveFormat) async throws -> String {
    let bytes = Mutex<[UInt8]>([])
    try await store.save(["web:1"], format: format) { part in bytes.withLock { $0 += part } }
    return try folder.write("\(format).tar", bytes.withLock { $0 })
  }
  private func content(_ record: ImageRecord, _ path: String) -> String? {
    record.layerPaths.reversed().lazy.compactMap { try? Files.text("\($0)/\(path)") }.first
  }

  @Test(
    "podman reads our archives and what we pushed; we read its archives, its layout and what it pushed",
    .enabled(if: installed("podman") && installed("docker-registry"), "podman or docker-registry is not installed"))
  func podmans() async throws {
    let store = try open()
    let record = try #require(try await store.load(archive()).first)
    let registry = try Registry()
    try await store.tag("web:1", as: "\(registry.host)/ours:1")
    try await store.push("\(registry.host)/ours:1")
    for source in [
      "docker-archive:" + (try await save(store, .docker)), "oci-archive:" + (try await save(store, .oci)), "docker://\(registry.host)/ours:1",
    ] {
      try podman("pull", "--tls-verify=false", source)
      let name = source.hasPrefix("docker://") ? "\(registry.host)/ours:1" : "web:1"
      let found = run(["podman"] + storage + ["image", "inspect", "--format", "{{.Id}} {{.Labels.a}}", name])
      #expect(found.output.contains("\(record.id.hex) b"), "\(source): \(found.output)")
      let root = run(["podman"] + storage + ["image", "mount", name]).output.split(separator: "\n").last.map(String.init) ?? ""
      try look(root)
      try podman("image", "unmount", "--all")
    }
    for format in ["docker-archive", "oci-archive", "oci-dir"] {
      let path = "\(folder.path)/podman-\(format)"
      try podman("save", "--format", format, "-o", path, "\(registry.host)/ours:1")
      let loaded = try #require(try await open("from-\(format)").load(path).first)
      #expect(loaded.id == record.id && loaded.config == record.config, "\(format)")
      #expect(content(loaded, "etc/one") == "replaced")
    }
    for format in ["v2s2", "oci"] {
      try podman("push", "--tls-verify=false", "--format", format, "\(registry.host)/ours:1", "docker://\(registry.host)/theirs:\(format)")
      let pulled = try await open("pulled-\(format)").pull("\(registry.host)/theirs:\(format)")
      #expect(pulled.config == record.config && content(pulled, "etc/one") == "replaced", "\(format)")
    }
  }

  @Test(
    "what buildah built is pulled and loaded; buildah builds on what we pushed",
    .enabled(if: installed("buildah") && installed("docker-registry"), "buildah or docker-registry is not installed"))
  func buildahs() async throws {
    let registry = try Registry()
    try folder.write("file", Array("theirs".utf8))
    try buildah("from", "--name", "w", "scratch")
    try buildah("copy", "w", folder.path + "/file", "/d/file")
    try buildah("config", "--cmd", "[\"y\"]", "--env", "A=b c", "--user", "7:8", "--workingdir", "/d", "--port", "80/tcp", "--volume", "/v", "w")
    for format in ["oci", "docker"] {
      try buildah("commit", "--format", format, "w", "built:\(format)")
      try buildah("push", "--tls-verify=false", "built:\(format)", "docker://\(registry.host)/built:\(format)")
      try buildah("push", "built:\(format)", "oci-archive:\(folder.path)/\(format).tar:built:1")
      let pulled = try await open(format).pull("\(registry.host)/built:\(format)")
      let loaded = try #require(try await open(format + "-loaded").load("\(folder.path)/\(format).tar").first)
      for record in [pulled, loaded] {
        #expect(record.config.cmd == ["y"] && record.config.env.contains("A=b c") && record.config.user == "7:8" && record.config.workingDir == "/d")
        #expect(record.config.exposedPorts == ["80/tcp"] && record.config.volumes == ["/v"] && content(record, "d/file") == "theirs")
      }
    }
    let store = try open()
    _ = try await store.load(archive(), name: "\(registry.host)/base:1")
    try await store.push("\(registry.host)/base:1")
    try buildah("from", "--tls-verify=false", "--name", "on", "docker://\(registry.host)/base:1")
    try buildah("copy", "on", folder.path + "/file", "/etc/one")
    try buildah("commit", "on", "upon:1")
    try buildah("push", "--tls-verify=false", "upon:1", "docker://\(registry.host)/upon:1")
    let upon = try await store.pull("\(registry.host)/upon:1")
    #expect(upon.layerPaths.count == 3 && content(upon, "etc/one") == "theirs" && upon.config.cmd == ["x"])
  }

  @Test("umoci unpacks our layout and changes it; we load what it made, from nothing too", .enabled(if: installed("umoci"), "umoci is not installed"))
  func umocis() async throws {
    let store = try open()
    _ = try await store.load(archive())
    try Files.makeDirectories(folder.path + "/ours")
    try must(["tar", "-C", folder.path + "/ours", "-xf", try await save(store, .oci)])
    try must(["umoci", "unpack", "--image", folder.path + "/ours:1", folder.path + "/bundle"])
    try look(folder.path + "/bundle/rootfs")
    try Files.writeAtomically(folder.path + "/bundle/rootfs/new", "n")
    unlink(folder.path + "/bundle/rootfs/etc/one")
    try must(["umoci", "repack", "--image", folder.path + "/ours:2", folder.path + "/bundle"])
    try must(["umoci", "config", "--image", folder.path + "/ours:2", "--config.cmd", "changed"])
    try must(["umoci", "rm", "--image", folder.path + "/ours:1"])
    let changed = try #require(try await open("changed").load(folder.path + "/ours").first)
    #expect(changed.config.cmd == ["changed"] && changed.layerPaths.count == 3)
    let top = changed.layerPaths[2]
    #expect(try Files.text(top + "/new") == "n" && status(top + "/etc/one").map { $0.st_mode & S_IFMT == S_IFCHR && $0.st_rdev == 0 } == true)

    try folder.write("file", Array("theirs".utf8))
    let layout = folder.path + "/new"
    for words in [
      ["init", "--layout", layout], ["new", "--image", layout + ":1"], ["insert", "--image", layout + ":1", folder.path + "/file", "/d/file"],
      ["config", "--image", layout + ":1", "--config.cmd", "z"],
    ] { try must(["umoci"] + words) }
    let made = try #require(try await open("made").load(layout).first)
    #expect(made.config.cmd == ["z"] && content(made, "d/file") == "theirs")
  }

  @Test(
    "skopeo copies what we pushed and saved into every form, and we read each",
    .enabled(
      if: installed("skopeo") && installed("docker-registry"), "skopeo or docker-registry is not installed"))
  func skopeos() async throws {
    let store = try open()
    let record = try #require(try await store.load(archive()).first)
    let registry = try Registry()
    try await store.tag("web:1", as: "\(registry.host)/ours:1")
    try await store.push("\(registry.host)/ours:1")
    for (number, options) in [["--format", "v2s2"], ["--format", "oci"], ["--dest-compress-format", "zstd", "--dest-compress"]].enumerated() {
      for target in ["docker://\(registry.host)/copy:\(number)", "oci-archive:\(folder.path)/\(number).tar:copy:1"] {
        try must(
          ["skopeo", "copy", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false"] + options
            + ["docker://\(registry.host)/ours:1", target])
      }
      let stores = try ["pulled", "loaded"].map { try open("\($0)-\(number)") }
      let pulled = try await stores[0].pull("\(registry.host)/copy:\(number)")
      let loaded = try #require(try await stores[1].load("\(folder.path)/\(number).tar").first)
      for copy in [pulled, loaded] { #expect(copy.config == record.config && content(copy, "etc/one") == "replaced", "\(options)") }
    }
  }
}
