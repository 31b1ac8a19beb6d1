import Glibc
import LinuxSystem
import Model
import Synchronization
import Testing

@testable import AgentImage

/// What is collected while something else goes on.
@Suite(.enabled(if: geteuid() == 0)) struct Collections {
  private let folder = Folder()
  private func open(_ change: (inout ImageStoreConfiguration) -> Void = { _ in }) throws -> ImageStore {
    var configuration = ImageStoreConfiguration()
    change(&configuration)
    return try ImageStore(directory: folder.path + "/images", configuration: configuration)
  }
  /// An image of one layer with a file of its own; `pulled`: as if a registry had it.
  @discardableResult
  private func image(_ name: String, in store: ImageStore, bytes: Int = 1, pulled: Bool = false) async throws -> ImageRecord {
    let layer = Stores.layer([(name, String(repeating: "x", count: bytes))])
    let record = try #require(try await store.load(folder.write("\(name).tar", savedImage(layers: [layer], name: name))).first)
    if pulled { try store.change { $0.index.images[record.reference]?.pulled = true } }
    return record
  }

  @Test("a container that claims an image while it is collected gets it whole, or is told that it is gone")
  func claimed() async throws {
    let store = try open()
    for round in 0..<4 {
      let record = try await image("x", in: store, pulled: true)
      let claim = Mutex<Task<Bool, Never>?>(nil)
      store.beforeWriting.withLock {
        $0 = {
          store.beforeWriting.withLock { $0 = nil }
          claim.withLock { $0 = Task { (try? await store.use(record, by: "container")) != nil } }
          usleep(200_000)
        }
      }
      switch round {
      case 0: _ = try await store.prune(all: true)
      case 1: _ = try? await store.remove("x", force: true)
      case 2: _ = try? await store.remove("x")
      default:
        _ = try await store.makeRoom(down: 0)
      }
      let claimed = await claim.withLock { $0! }.value
      #expect(claimed == record.layerPaths.allSatisfy { Files.exists($0) }, "\(round)")
      #expect(try claimed == (store.resolve("\(record.digest)") != nil), "\(round)")
      await store.release("container")
      _ = try await store.prune(all: true)
    }
  }

  @Test("an image that is removed while it gets a second name has none afterwards")
  func taggedMeanwhile() async throws {
    let store = try open()
    try await image("x", in: store)
    let tagging = Mutex<Task<Bool, Never>?>(nil)
    store.beforeWriting.withLock {
      $0 = {
        store.beforeWriting.withLock { $0 = nil }
        tagging.withLock { $0 = Task { (try? await store.tag("x", as: "y")) != nil } }
        // Long enough to look the image up, and to wait for the removal.
        usleep(200_000)
      }
    }
    try await store.remove("x")
    let isTagged = await tagging.withLock { $0! }.value
    #expect(!isTagged)
    #expect(try store.resolve("y") == nil && store.list().isEmpty)
    try await image("x", in: store)
    try await store.tag("x", as: "y")
    #expect(store.list().count == 2)
  }

  @Test("a container keeps its image over a start that finds no index, or the image's configuration broken", arguments: ["index.json", "config"])
  func lost(_ what: String) async throws {
    var store = try open()
    let record = try await image("x", in: store)
    try await store.use(record, by: "container")
    let config = "\(folder.path)/images/blobs/sha256/\(record.id.hex)"
    if what == "config" { try Files.writeAtomically(config, "{", durable: false) } else { unlink("\(folder.path)/images/\(what)") }
    store = try open()
    await store.recover(users: ["container"])
    #expect(Files.exists(record.layerPaths[0] + "/x"))
    #expect(try (store.resolve("\(record.digest)") != nil) == (what == "index.json"))
    await store.release("container")
    _ = try await store.prune(all: true)
    #expect(!Files.exists(record.layerPaths[0] + "/x"))
  }

  @Test("prune takes what has no name, or all, but nothing that came or was used later than it is told, nor what a container uses")
  func prune() async throws {
    let store = try open()
    let now = Timestamp.now
    func ago(_ hours: Int64) -> Timestamp { Timestamp(nanoseconds: now.nanoseconds - hours * 3_600_000_000_000) }
    func age(_ record: ImageRecord, _ hours: Int64) throws {
      try store.change { state in
        for name in state.entries(of: record.digest).keys { state.index.images[name]?.used = ago(hours).nanoseconds / 1_000_000_000 }
      }
    }
    var records: [String: ImageRecord] = [:]
    for name in ["fresh", "old", "used", "replaced", "again"] { records[name] = try await image(name, in: store) }
    // A name that goes on to another image leaves one without a name.
    try await store.tag("again", as: "replaced")
    for name in ["old", "used", "replaced"] { try age(records[name]!, 48) }
    try await store.use(records["used"]!, by: "container", now: ago(48))
    func names() -> [String] { store.list().map { $0.name ?? "" }.sorted() }
    let all = ["", "again:latest", "fresh:latest", "old:latest", "replaced:latest", "used:latest"]
    #expect(names() == all)
    for isAll in [false, true] {
      let none = try await store.prune(all: isAll, before: ago(72))
      #expect(none.untagged == [] && none.deleted == [] && none.bytes == 0)
    }
    #expect(names() == all)
    let unnamed = try await store.prune(before: ago(24))
    #expect(unnamed.untagged == [] && unnamed.deleted == [records["replaced"]!.id] && unnamed.bytes > 0)
    let old = try await store.prune(all: true, before: ago(24))
    #expect(old.untagged == ["old:latest"] && old.deleted == [records["old"]!.id])
    #expect(names() == ["again:latest", "fresh:latest", "replaced:latest", "used:latest"])
    await store.release("container")
    #expect(try await store.prune(all: true, before: ago(24)).untagged == ["used:latest"])
  }

  @Test("room is made while other images are pulled, built or saved; what these need stays")
  func roomMeanwhile() async throws {
    let store = try open { $0.highWater = 100 }
    let (old, base) = (try await image("old", in: store, pulled: true), try await image("base", in: store, pulled: true))
    try await store.holding {
      // As a build takes its base.
      let layers = store.layers(of: base)
      #expect(layers.compactMap(store.layer).count == 1)
      let mine = try await store.addLayer(tar: folder.write("made.tar", Stores.layer([("made", "1")]))).diffID
      #expect(try await store.makeRoom(down: 0))
      #expect(try store.resolve("old") == nil && !Files.exists(old.layerPaths[0]))
      #expect(try store.resolve("base") != nil && Files.exists(base.layerPaths[0] + "/base"))
      #expect(try await store.remove("base").untagged == ["base:latest"])
      #expect(Files.exists(base.layerPaths[0] + "/base"))
      #expect(store.layer(mine) != nil)
      let config = try BuiltImage(config: .init(), layers: layers + [mine], created: .now).configuration()
      let built = try await store.commit(config: config, names: ["built"])
      #expect(built.layerPaths.allSatisfy { Files.exists($0) })
      try await store.remove("built")
    }
    // Nobody needs it any more.
    #expect(try Files.list(folder.path + "/images/layers").isEmpty)
    #expect(try Files.list(folder.path + "/images/blobs/sha256").isEmpty)
  }

  @Test("room is made for what is loaded, imported and built, too, when the disk is over its mark")
  func roomBefore() async throws {
    for way in 0..<3 {
      let store = try open { ($0.highWater, $0.lowWater) = (1, 0) }
      let old = try await image("old", in: store, pulled: true)
      try #require(store.usedPercent() > 1)
      switch way {
      case 0: try await image("new", in: store)
      case 1: _ = try await store.import(folder.write("root.tar", Stores.layer([("a", "1")])), name: "new")
      default:
        try await store.holding {
          let there = try store.resolve("old")
          #expect(there == nil)
        }
      }
      #expect(try store.resolve("old") == nil && !Files.exists(old.layerPaths[0]), "\(way)")
      _ = try await store.prune(all: true)
    }
  }

  @Test("a load that finds the disk full takes what can be pulled again, and tries once more")
  func full() async throws {
    let disk = folder.path + "/images"
    try Files.makeDirectories(disk)
    try check(mount("tmpfs", disk, "tmpfs", UInt(MS_NODEV), "size=8m"), "mount", disk)
    defer { umount2(disk, Int32(MNT_DETACH)) }
    let store = try open { ($0.highWater, $0.lowWater) = (100, 0) }
    // Each twice: packed and unpacked.
    try await image("old", in: store, bytes: 2_000_000, pulled: true)
    let new = try await image("new", in: store, bytes: 3_000_000)
    #expect(try Files.read(new.layerPaths[0] + "/new").count == 3_000_000)
    #expect(try store.resolve("old") == nil)
    let error = await #expect(throws: ImageError.self) { try await image("huge", in: store, bytes: 5_000_000) }
    #expect(error?.description.contains("make room on this host") == true)
    try await store.remove("new")
    // Full while it comes.
    try await image("old", in: store, bytes: 3_200_000, pulled: true)
    let bytes = savedImage(layers: [Stores.layer([("sent", String(repeating: "y", count: 2_400_000))])], name: "sent")
    let chunks = stride(from: 0, to: bytes.count, by: 300_000).map { Array(bytes[$0..<min(bytes.count, $0 + 300_000)]) }
    let sent = try await store.load(stream: Chunks(left: chunks))
    #expect(try Files.read(#require(sent.first).layerPaths[0] + "/sent").count == 2_400_000)
  }

  // MARK: - Streams

  private struct Chunks: AsyncSequence, AsyncIteratorProtocol {
    var left: [[UInt8]]
    var look: @Sendable () -> Void = {}
    mutating func next() async -> [UInt8]? {
      look()
      return left.isEmpty ? nil : left.removeFirst()
    }
    func makeAsyncIterator() -> Self { self }
  }

  @Test("what comes as a stream is kept in ingest, which a start empties, and is bounded", arguments: [false, true])
  func stream(imports: Bool) async throws {
    let store = try open { $0.maximumTransferBytes = 100_000 }
    let ingest = folder.path + "/images/ingest"
    let seen = Mutex(false)
    let whole = imports ? Stores.layer([("a", "1")]) : savedImage(layers: [Stores.layer([("a", "1")])], name: "x")
    let chunks = Chunks(left: [Array(whole[..<1000]), Array(whole[1000...])]) {
      if (try? Files.list(ingest))?.isEmpty == false { seen.withLock { $0 = true } }
    }
    let records = imports ? [try await store.import(stream: chunks, name: "x")] : try await store.load(stream: chunks)
    #expect(try Files.text(#require(records.first).layerPaths[0] + "/a") == "1")
    #expect(seen.withLock { $0 })
    let endless = Chunks(left: [[UInt8]](repeating: [UInt8](repeating: 1, count: 60_000), count: 3))
    let error = await #expect(throws: ImageError.self) {
      if imports { _ = try await store.import(stream: endless, name: "y") } else { _ = try await store.load(stream: endless) }
    }
    #expect(error?.kind == .hostile, "\(String(describing: error))")
    #expect(try Files.list(ingest).isEmpty)
  }
}
