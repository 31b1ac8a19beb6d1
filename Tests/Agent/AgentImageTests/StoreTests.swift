import Glibc
import LinuxSystem
import Model
import Testing

@testable import AgentImage

@Suite(.enabled(if: geteuid() == 0)) struct Stores {
  static func layer(_ files: [(String, String)]) -> [UInt8] {
    var tar = TarWriter()
    for (name, content) in files { tar.add(name, content) }
    return tar.finished()
  }
  let folder = Folder()
  private func open() throws -> ImageStore { try ImageStore(directory: folder.path + "/images") }
  private var ingest: [String] { (try? Files.list(folder.path + "/images/ingest")) ?? [] }

  @Test("a blob that the disk changed is not believed: the image is gone until it is loaded again")
  func changedOnDisk() async throws {
    let folder = Folder()
    let archive = try folder.write("web.tar", savedImage(layers: [Stores.layer([("base", "1")])], name: "web:1"))
    let record = try #require(try await ImageStore(directory: folder.path + "/images").load(archive).first)
    let path = "\(folder.path)/images/blobs/sha256/\(record.id.hex)"
    let bytes = try Files.read(path)
    // Still JSON, and another.
    try Files.writeAtomically(path, bytes + [32], mode: 0o644, durable: false)
    #expect(try ImageStore(directory: folder.path + "/images").list().isEmpty)
    try Files.writeAtomically(path, bytes, mode: 0o644, durable: false)
    #expect(try ImageStore(directory: folder.path + "/images").resolve("web:1")?.id == record.id)
  }

  @Test("a docker save archive is loaded, resolved by name and id, and there again after a restart", arguments: [false, true])
  func saved(compressed: Bool) async throws {
    let config =
      "{\"Entrypoint\":[\"/bin/x\"],\"Cmd\":[\"a\"],\"Env\":[\"A=1\"],\"User\":\"7\",\"WorkingDir\":\"/w\",\"ExposedPorts\":{\"80/tcp\":{}},\"StopSignal\":\"SIGINT\",\"Healthcheck\":{\"Test\":[\"CMD\",\"x\"],\"Interval\":5}}"
    let archive = savedImage(layers: [Self.layer([("base", "1")]), Self.layer([("top", "22")])], name: "web:1", config: config)
    let path = try folder.write("web.tar", compressed ? gzip(archive) : archive)
    let store = try open()
    let records = try await store.load(path)
    #expect(records.map(\.reference) == ["docker.io/library/web:1"])
    for store in [store, try open()] {
      let record = try #require(try store.resolve("web:1"))
      #expect(record.layerPaths.count == 2)
      #expect(try Files.text(record.layerPaths[0] + "/base") == "1")
      #expect(try Files.text(record.layerPaths[1] + "/top") == "22")
      #expect(record.config.entrypoint == ["/bin/x"])
      #expect(record.config.cmd == ["a"])
      #expect(record.config.env == ["A=1"])
      #expect(record.config.exposedPorts == ["80/tcp"])
      #expect(record.config.healthcheck?.test == ["CMD", "x"])
      #expect(record.size == 3)
      #expect(try store.resolve(record.id.description) != nil)
      #expect(try store.resolve(String(record.id.hex.prefix(12))) != nil)
      #expect(try store.resolve("web@\(record.digest)")?.id == record.id)
      #expect(try store.resolve("other@\(record.digest)") == nil)
      #expect(try store.resolve("web:2") == nil)
      #expect(store.list().map(\.name) == ["web:1"])
    }
    #expect(ingest.isEmpty)
  }

  @Test("a root file system is imported with a configuration; removal takes its layers, but not those of others")
  func imports() async throws {
    let shared = Self.layer([("a", "1")])
    let path = try folder.write("root.tar", gzip(shared))
    let store = try open()
    var config = ImageConfig()
    config.cmd = ["/a"]
    let record = try await store.import(path, name: "base", config: config)
    #expect(record.reference == "docker.io/library/base:latest")
    #expect(record.config == config)
    _ = try await store.load(folder.write("two.tar", savedImage(layers: [shared, Self.layer([("b", "2")])], name: "two:1")))
    #expect(try Files.list(folder.path + "/images/layers").count == 2)
    let two = try #require(try store.resolve("two:1"))
    try await store.use(two, by: "container1")
    await #expect(throws: ImageError.self) { try await store.remove("two:1") }
    #expect(try await store.prune(all: true).untagged == ["base:latest"])
    _ = try await store.import(path, name: "base", config: config)
    // Forced: the name goes, what the container is made of stays, until it is gone.
    let forced = try await store.remove("two:1", force: true)
    #expect(forced.untagged == ["two:1"] && forced.deleted.isEmpty)
    #expect(try open().resolve(two.digest.description)?.layerPaths.allSatisfy { Files.exists($0) } == true)
    #expect(try await store.prune().deleted.isEmpty)
    await store.release("container1")
    #expect(try await store.prune().deleted == [two.id])
    #expect(try Files.list(folder.path + "/images/layers").count == 1)
    #expect(try store.resolve("base") != nil)
    try await store.remove("base")
    #expect(try Files.list(folder.path + "/images/layers").isEmpty)
    #expect(try Files.list(folder.path + "/images/blobs/sha256").isEmpty)
    await #expect(throws: ImageError.self) { try await store.remove("base") }
  }

  @Test("a wrong diff id, a missing layer and an unknown archive leave nothing")
  func corrupt() async throws {
    let layer = Self.layer([("a", "1")])
    let store = try open()
    let wrong = savedImage(layers: [layer], name: "x", diffIDs: ["sha256:" + String(repeating: "0", count: 64)])
    let hostile = { () -> [UInt8] in
      var tar = TarWriter()
      tar.add("../x", "y")
      return savedImage(layers: [tar.finished()], name: "x")
    }()
    let none = { () -> [UInt8] in
      var tar = TarWriter()
      tar.add("readme", "y")
      return tar.finished()
    }()
    for bytes in [wrong, hostile, none, Array(wrong[..<700]), Array("not a tar".utf8), []] {
      let path = try folder.write("bad.tar", bytes)
      await #expect(throws: (any Error).self) { try await store.load(path) }
    }
    #expect(store.list().isEmpty)
    #expect(ingest.isEmpty)
    #expect(try Files.list(folder.path + "/images/layers").isEmpty)
  }

  @Test("what a crash left in ingest is gone at the next start, and an image without its layer is forgotten")
  func crash() async throws {
    let store = try open()
    _ = try await store.load(folder.write("x.tar", savedImage(layers: [Self.layer([("a", "1")])], name: "x")))
    try Files.makeDirectories(folder.path + "/images/ingest/half/fs")
    let layer = try #require(try store.resolve("x")).layerPaths[0]
    try Files.removeTree(String(layer.dropLast(3)))
    let again = try open()
    #expect(ingest.isEmpty)
    #expect(try again.resolve("x") == nil)
    _ = try await again.load(folder.path + "/x.tar")
    #expect(try again.resolve("x") != nil)
  }

  @Test("a name that moves leaves the old image under its digest")
  func moves() async throws {
    let store = try open()
    _ = try await store.load(folder.write("1.tar", savedImage(layers: [Self.layer([("a", "1")])], name: "x")))
    let old = try #require(try store.resolve("x"))
    _ = try await store.load(folder.write("2.tar", savedImage(layers: [Self.layer([("a", "2")])], name: "x")))
    #expect(try store.resolve("x")?.digest != old.digest)
    #expect(try store.resolve(old.digest.description) != nil)
    #expect(store.list().map(\.name) == ["x:latest", nil])
  }

  @Test("loads of one archive at the same time end well")
  func together() async throws {
    let store = try open()
    let path = try folder.write("x.tar", savedImage(layers: [Self.layer((0..<50).map { ("f\($0)", "x") })], name: "x"))
    try await withThrowingTaskGroup(of: Void.self) { group in
      for _ in 0..<8 { group.addTask { _ = try await store.load(path) } }
      try await group.waitForAll()
    }
    #expect(store.list().count == 1)
    #expect(ingest.isEmpty)
  }

  @Test("archives in xz and bzip2 are loaded and imported; the layer is the tar inside", .enabled(if: installed("xz") && installed("bzip2")))
  func archives() async throws {
    let store = try open()
    for (command, ending) in [("xz", "xz"), ("bzip2", "bz2")] {
      try folder.write("root-\(ending).tar", Self.layer([("a", ending)]))
      try folder.write("image-\(ending).tar", savedImage(layers: [Self.layer([("b", ending)])], name: "loaded:\(ending)"))
      for name in ["root", "image"] { #expect(run([command, "\(folder.path)/\(name)-\(ending).tar"]).code == 0) }
      let imported = try await store.import("\(folder.path)/root-\(ending).tar.\(ending)", name: "imported:\(ending)")
      #expect(try Files.text(imported.layerPaths[0] + "/a") == ending)
      #expect(imported.layerPaths[0].contains(Digest(of: Self.layer([("a", ending)])).hex))
      _ = try await store.load("\(folder.path)/image-\(ending).tar.\(ending)")
      #expect(try Files.text(#require(try store.resolve("loaded:\(ending)")).layerPaths[0] + "/b") == ending)
    }
    #expect(ingest.isEmpty)
  }

  @Test("an image without layers is loaded, with null for them as Go writes none, and with none at all")
  func noLayers() async throws {
    let store = try open()
    for (name, layers, root) in [("null", "null", "{\"type\":\"layers\",\"diff_ids\":null}"), ("none", "[]", "{\"type\":\"layers\"}")] {
      var tar = TarWriter()
      tar.add("config.json", "{\"architecture\":\"\(hostArchitecture)\",\"os\":\"linux\",\"config\":{\"Cmd\":[\"\(name)\"]},\"rootfs\":\(root)}")
      tar.add("manifest.json", "[{\"Config\":\"config.json\",\"RepoTags\":[\"\(name):1\"],\"Layers\":\(layers)}]")
      let record = try #require(try await store.load(folder.write("\(name).tar", tar.finished())).first)
      #expect(record.layerPaths.isEmpty && record.config.cmd == [name])
    }
    let again = try open()
    #expect(again.list().map(\.name) == ["none:1", "null:1"])
  }

  @Test("an id is known by as many digits as tell it from others, where a person types it; in FROM and manifests short ones are names")
  func shortIDs() async throws {
    let store = try open()
    var images: [ImageRecord] = []
    // Of 17 images two begin alike.
    for index in 0..<17 {
      let path = try folder.write("x.tar", savedImage(layers: [], name: "x:\(index)", config: "{\"Cmd\":[\"\(index)\"]}"))
      images += try await store.load(path)
    }
    func alike(_ one: ImageRecord, _ other: ImageRecord) -> Int { zip(one.id.hex, other.id.hex).prefix { $0 == $1 }.count }
    let (image, digits) = images.map { image in (image, images.filter { $0.id != image.id }.map { alike(image, $0) }.max()!) }.max { $0.1 < $1.1 }!
    let (common, own) = (String(image.id.hex.prefix(digits)), String(image.id.hex.prefix(digits + 1)))
    #expect(digits > 0)
    let error = await #expect(throws: ReferenceError.self) { try await store.inspect(common) }
    #expect(error?.description.contains("give more digits") == true)
    await #expect(throws: ReferenceError.self) { try await store.remove(common) }
    #expect(try await store.inspect(own).record.id == image.id)
    #expect(try store.resolve(own) == nil)
    try await store.tag(own, as: "\(own):1")
    // A name is looked for first.
    try await store.tag(images.first { $0.id != image.id }!.id.description, as: "\(own):latest")
    #expect(try await store.inspect(own).record.id != image.id)
    #expect(try await store.remove(own).untagged == ["\(own):latest"])
    #expect(try await store.remove(own, force: true).deleted == [image.id])
  }

  @Test("an OCI archive and layout made by skopeo are loaded", .enabled(if: installed("skopeo")))
  func skopeo() async throws {
    let path = try folder.write("web.tar", savedImage(layers: [Self.layer([("base", "1")])], name: "web:1"))
    let oci = folder.path + "/oci.tar"
    let layout = folder.path + "/layout"
    for target in ["oci-archive:\(oci):web:1", "oci:\(layout):web:1"] {
      let result = run(["skopeo", "copy", "--insecure-policy", "docker-archive:" + path, target])
      #expect(result.code == 0, "\(result.output)")
    }
    let store = try open()
    #expect(try await store.load(oci).map(\.reference) == ["docker.io/library/web:1"])
    #expect(try await store.load(layout, name: "other:2").map(\.reference) == ["docker.io/library/other:2"])
    #expect(try Files.text(#require(try store.resolve("other:2")).layerPaths[0] + "/base") == "1")
    #expect(try Files.list(folder.path + "/images/layers").count == 1)
  }
}
