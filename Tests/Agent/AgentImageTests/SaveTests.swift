import Glibc
import LinuxSystem
import Model
import Synchronization
import Testing

@testable import AgentImage

@Suite(.enabled(if: geteuid() == 0)) struct Saves {
  let folder = Folder()
  private func open(_ name: String = "images") throws -> ImageStore { try ImageStore(directory: "\(folder.path)/\(name)") }
  private func save(_ store: ImageStore, _ names: [String], _ format: ArchiveFormat, _ file: String) async throws -> String {
    let bytes = Mutex<[UInt8]>([])
    try await store.save(names, format: format) { part in bytes.withLock { $0 += part } }
    return try folder.write(file, bytes.withLock { $0 })
  }

  @Test("what is saved is loaded again with the same names, ids and content; packed layers too", arguments: ArchiveFormat.allCases, [false, true])
  func roundTrip(format: ArchiveFormat, packed: Bool) async throws {
    let store = try open()
    let base = Stores.layer([("base", "1")])
    let top = Stores.layer([("top", "22")])
    _ = try await store.load(
      folder.write(
        "in.tar",
        savedImage(layers: packed ? [gzip(base), zstd(top)] : [base, top], name: "web:1", diffIDs: [base, top].map { Digest(of: $0).description })))
    _ = try await store.import(folder.write("root.tar", gzip(base)), name: "second")
    try await store.tag("web:1", as: "web:alias")
    let path = try await save(store, ["web:1", "second", "web:alias"], format, "out.tar")
    let other = try open("other")
    _ = try await other.load(path)
    #expect(other.list().map(\.name) == ["second:latest", "web:1", "web:alias"])
    for name in ["web:1", "web:alias", "second"] {
      let (mine, theirs) = (try #require(try store.resolve(name)), try #require(try other.resolve(name)))
      #expect(mine.id == theirs.id && mine.config == theirs.config)
      if format == .oci || !packed { #expect(name == "second" || mine.digest == theirs.digest) }
    }
    #expect(try Files.text(#require(try other.resolve("web:1")).layerPaths[1] + "/top") == "22")
    await #expect(throws: ImageError.self) { try await save(store, ["nothing:1"], format, "none.tar") }
  }

  @Test("skopeo and umoci read what is saved", .enabled(if: installed("skopeo") && installed("umoci")))
  func counterparts() async throws {
    let store = try open()
    _ = try await store.load(
      folder.write(
        "in.tar",
        savedImage(layers: [gzip(Stores.layer([("base", "1")]))], name: "web:1", diffIDs: [Digest(of: Stores.layer([("base", "1")])).description])))
    let docker = try await save(store, ["web:1"], .docker, "docker.tar")
    let oci = try await save(store, ["web:1"], .oci, "oci.tar")
    let copied = run(["skopeo", "copy", "--insecure-policy", "docker-archive:" + docker, "oci:\(folder.path)/layout:1"])
    #expect(copied.code == 0, "\(copied.output)")
    #expect(run(["skopeo", "inspect", "oci-archive:" + oci]).code == 0)
    try Files.makeDirectories(folder.path + "/own")
    #expect(run(["tar", "-C", folder.path + "/own", "-xf", oci]).code == 0)
    let unpacked = run(["umoci", "unpack", "--image", folder.path + "/own:1", folder.path + "/bundle"])
    #expect(unpacked.code == 0, "\(unpacked.output)")
    #expect(try Files.text(folder.path + "/bundle/rootfs/base") == "1")
    let loaded = try await open("other").load(folder.path + "/own")
    #expect(try loaded.map(\.digest) == [#require(try store.resolve("web:1")).digest])
  }

  @Test("layers that a builder adds become an image; what is held is not collected")
  func commits() async throws {
    let store = try open()
    let tar = try folder.write("layer.tar", zstd(Stores.layer([("built", "x")])))
    let record = try await store.holding {
      let layer = try await store.addLayer(tar: tar)
      #expect(layer.mediaType.hasSuffix("zstd"))
      // Something else is collected meanwhile.
      _ = try await store.prune(all: true)
      let config =
        "{\"architecture\":\"\(hostArchitecture)\",\"os\":\"linux\",\"config\":{\"Cmd\":[\"built\"]},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"\(layer.diffID)\"]},\"history\":[{\"created_by\":\"COPY\"}]}"
      return try await store.commit(config: Array(config.utf8), names: ["built:1", "built:2"])
    }
    #expect(record.config.cmd == ["built"])
    #expect(try Files.text(record.layerPaths[0] + "/built") == "x")
    #expect(store.list().map(\.name) == ["built:1", "built:2"])
    let missing = "{\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\"sha256:\(String(repeating: "0", count: 64))\"]}}"
    await #expect(throws: ImageError.self) { try await store.commit(config: Array(missing.utf8), names: ["bad:1"]) }
    // A layer that nothing names goes with the next sweep.
    _ = try await store.addLayer(tar: folder.write("orphan.tar", Stores.layer([("orphan", "x")])))
    _ = try await store.prune()
    #expect(try Files.list(store.directory + "/layers").count == 1)
  }
}
