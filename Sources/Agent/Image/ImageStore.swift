// Image: where an agent's images are, and how they get there.
//
// On disk, below the agent's `images` directory:
//   index.json            name:tag -> manifest digest; replaced as a whole
//   blobs/sha256/HEX      manifests, configurations, and layers as they came: what push and save send
//   layers/HEX/fs         one unpacked layer, named by its diff id; there means whole. Beside it `blob` names its packing, and `over/HEX/fs` has
//                         the folders that it has no entries for as the layers below it have them (ContentStore+Stack.swift)
//   uses/ID               manifest digest of the image that container ID is made of
//   ingest/               what is being downloaded or unpacked; emptied at start
// Invariants
// - Content is verified before it is visible: digest and size of every download, diff id of every layer.
// - A crash leaves a layer whole or not at all: a folder in `ingest`, synced, then renamed.
// - Nothing of an archive reaches outside its layer's folder.
// - What a container uses, and what is being added, is never collected.
// It refuses to know containers: who uses an image tells it (`use`, `release`).

import Glibc
import LinuxSystem
import Model
import Surroundings
import Synchronization

/// The agent's images. Its methods block no thread of the cooperative pool.
public final class ImageStore: Sendable {
  public let directory: String
  public let configuration: ImageStoreConfiguration
  let content: ContentStore
  let flights = Flights()
  let hub = ProgressHub()

  /// An image that is whole, without its names.
  struct Known: Sendable {
    var id: Digest
    var config: ImageConfig
    var architecture: String
    var layers: [Digest]
    /// Their trees, and what stands between them (`ContentStore.stack`).
    var paths: [String]
    /// Of the layers as the manifest has them.
    var packed: [Digest]
    var size: Int64
    var createdAt: Timestamp
  }
  struct State: Sendable {
    var index = IndexDocument()
    var images: [Digest: Known] = [:]
    /// Containers, and the image each is made of.
    var uses: [String: Digest] = [:]
    /// There may be more to take than could be just now.
    var needsSweep = false
    /// Layers that a build's cache keeps.
    var retained: Set<Digest> = []
  }
  let state = Mutex(State())
  /// Held while images are added, taken or claimed, and index.json is written; readers need `state` alone.
  private let writer = Mutex(())
  /// Called before index.json is written; for tests of what happens meanwhile.
  let beforeWriting = Mutex<(@Sendable () -> Void)?>(nil)

  /// Opens or makes the store, removes what a crash left, and forgets images that are not whole. Blocking, once at start.
  public init(directory: String, configuration: ImageStoreConfiguration = .init()) throws {
    self.directory = directory
    self.configuration = configuration
    content = ContentStore(
      directory: directory, maximumLayerBytes: configuration.maximumLayerBytes, maximumLayerEntries: configuration.maximumLayerEntries)
    try content.prepare()
    try Files.makeDirectories(directory + "/uses", mode: 0o700)
    for id in try Files.list(directory + "/uses") {
      guard let digest = Digest(try Files.text("\(directory)/uses/\(id)")) else { continue }
      state.withLock { $0.uses[id] = digest }
    }
    let path = directory + "/index.json"
    var entries = Files.exists(path) ? (try decode(Files.read(path), path) as IndexDocument).images : [:]
    // A container needs it, whatever happened to the index.
    for digest in Set(state.withLock { $0.uses.values }) where !entries.values.contains(where: { $0.manifest == digest.description }) {
      entries[digest.description] = .init(manifest: digest.description)
    }
    for (name, entry) in entries {
      guard let digest = Digest(entry.manifest), let known = try? known(digest) else { continue }
      state.withLock {
        $0.index.images[name] = entry
        $0.images[digest] = known
      }
    }
  }

  // MARK: - Questions

  /// The image of that name (`web:1`, `web@sha256:...`, an image id or the first digits of one), or nil when it is not here whole.
  /// Looks into memory only. Operations under way may rely on what it finds.
  /// - Parameter digits: of an id, at least. What is typed at a prompt may have any number, as docker's; in a manifest or FROM a name such as `cafe` is
  ///   a name.
  public func resolve(_ reference: String, digits: Int = 12) throws(ReferenceError) -> ImageRecord? {
    let record = try find(reference, digits: digits)
    if let record { content.pins.pin(layers: layers(of: record), blobs: [record.digest, record.id]) }
    // Taken in between, it is not pinned in time.
    return record.flatMap { record in state.withLock { $0.images[record.digest] != nil } ? record : nil }
  }

  func find(_ reference: String, digits: Int = 12) throws(ReferenceError) -> ImageRecord? {
    let state = state.withLock { $0 }
    if let digest = Digest(reference) { return find(digest, state).flatMap { record($0, reference, state) } }
    let name = try ImageReference(reference)
    if let digest = lookUp(name, state) { return record(digest, name.description, state) }
    guard reference.utf8.count >= digits else { return nil }
    let matches = state.images.filter { $0.value.id.hex.hasPrefix(reference) }
    // One image may be here by several manifests.
    if Set(matches.values.map(\.id)).count > 1 { throw ReferenceError(text: reference, reason: "several images' ids begin so: give more digits") }
    return matches.keys.min { $0.hex < $1.hex }.flatMap { record($0, reference, state) }
  }

  private func lookUp(_ name: ImageReference, _ state: State) -> Digest? {
    guard let wanted = name.digest else { return state.index.images[name.description].flatMap { Digest($0.manifest) } }
    // A digest beside a tag decides alone.
    for (key, entry) in state.index.images where key.hasPrefix(name.repository + ":") || key.hasPrefix(name.repository + "@") {
      if entry.manifest == wanted.description || entry.requested == wanted.description { return Digest(entry.manifest) }
    }
    return nil
  }

  func find(_ digest: Digest, _ state: State) -> Digest? {
    state.images[digest] != nil ? digest : state.images.first { $0.value.id == digest }?.key
  }

  func record(_ digest: Digest, _ reference: String, _ state: State) -> ImageRecord? {
    guard let known = state.images[digest] else { return nil }
    return ImageRecord(
      reference: reference, digest: digest, id: known.id, config: known.config, architecture: known.architecture,
      layerPaths: known.paths, size: known.size,
      createdAt: known.createdAt)
  }

  /// Every name, sorted; images without one last.
  public func list() -> [ImageSummary] {
    let state = state.withLock { $0 }
    return state.index.images.sorted { $0.key < $1.key }.compactMap { key, entry in
      guard let digest = Digest(entry.manifest), let known = state.images[digest] else { return nil }
      let name = (try? ImageReference(key))?.familiar
      return ImageSummary(name: Digest(key) == nil ? name : nil, digest: digest, id: known.id, size: known.size, createdAt: known.createdAt)
    }.sorted { ($0.name == nil ? 1 : 0, $0.name ?? "") < ($1.name == nil ? 1 : 0, $1.name ?? "") }
  }

  // MARK: - Changes

  /// `docker import`: a root file system's tar (plain, gzip, zstd, xz or bzip2) becomes a one-layer image.
  public func `import`(_ path: String, name: String, config: ImageConfig = .init()) async throws -> ImageRecord {
    let reference = try nameToGive(name)
    return try await adding { [self] in
      try await onOwnThread("orch-image") { [self] in
        if try FileSource(path).isEmpty { throw noArchive("it is empty") }
        // Of the others the layer is the tar inside.
        let isLayer = try ArchiveLoader(content: content).compression(of: path).isOfLayers
        let source: any ByteSource = if isLayer { try FileSource(path) } else { try InflatingSource(FileSource(path), isLayer: false) }
        let (diffID, packing) = try content.addLayer(source, diffID: nil)
        let manifest = try content.addImage(config: encode(ConfigDocument(config, diffIDs: [diffID])), layers: [packing.descriptor])
        try add(manifest, names: [reference.description])
        return try added(reference.description)
      }
    }
  }

  /// A `docker save` archive, an OCI archive (each plain, gzip, zstd, xz or bzip2) or an OCI layout's folder; all its images.
  /// `name`: for an archive whose one image has no name, or should have another. All images are named, or none.
  public func load(_ path: String, name: String? = nil) async throws -> [ImageRecord] {
    let given = try name.map { try nameToGive($0) }
    return try await adding { [self] in
      try await onOwnThread("orch-image") { [self] in
        let loaded = try ArchiveLoader(content: content).load(path, name: given)
        var records: [ImageRecord] = []
        for image in loaded {
          let names = image.names.map(\.description)
          try add(image.manifest, names: names)
          if let record = try resolve(names.first ?? image.manifest.description) { records.append(record) }
        }
        return records
      }
    }
  }

  /// The same from a stream, such as a request's body; it is kept in a file of `ingest` meanwhile: at most
  /// `maximumTransferBytes`, or it is an error.
  public func load<Chunks: AsyncSequence>(stream: Chunks, name: String? = nil) async throws -> [ImageRecord] where Chunks.Element == [UInt8] {
    try await keeping(stream) { try await self.load($0, name: name) }
  }
  public func `import`<Chunks: AsyncSequence>(stream: Chunks, name: String, config: ImageConfig = .init()) async throws -> ImageRecord
  where Chunks.Element == [UInt8] {
    _ = try nameToGive(name)
    return try await keeping(stream) { try await self.import($0, name: name, config: config) }
  }

  private func keeping<Chunks: AsyncSequence, Result>(_ stream: Chunks, _ body: (_ path: String) async throws -> Result) async throws -> Result
  where Chunks.Element == [UInt8] {
    try await makeRoom()
    let path = content.temporary()
    defer { unlink(path) }
    let writer = try await onOwnThread("orch-image") { try BlobWriter(path) }
    let limit = configuration.maximumTransferBytes
    for try await chunk in stream {
      guard Int64(chunk.count) <= limit - writer.count else {
        throw ImageError(.hostile, "read", "an archive", "it has more than \(limit) bytes")
      }
      do { try await onOwnThread("orch-image") { try writer.write(chunk) } } catch let error as SystemError where error.errno == Errno(ENOSPC) {
        // It cannot be asked for again: room is made in its midst.
        // What there was for a part of it is for the index.
        try await onOwnThread("orch-image") { try writer.retract() }
        guard try await makeRoom(down: configuration.lowWater) else { throw error }
        try await onOwnThread("orch-image") { try writer.write(chunk) }
      }
    }
    return try await body(path)
  }

  /// An image that was just named: it may have been removed since.
  func added(_ reference: String) throws -> ImageRecord {
    guard let record = try resolve(reference) else { throw ImageError(.notFound, "add", reference, "it was removed meanwhile") }
    return record
  }

  func nameToGive(_ name: String) throws -> ImageReference {
    let reference = try ImageReference(name)
    if reference.digest != nil { throw ImageError(.invalidReference, "name an image", "'\(name)'", "a digest cannot be given; write NAME:TAG") }
    return reference
  }

  // MARK: - State

  /// Names a manifest whose blobs and layers are in place; without a name it is known by its digest.
  func add(_ manifest: Digest, names: [String], requested: Digest? = nil, pulled: Bool = false, now: Timestamp = .now) throws {
    let known = try known(manifest)
    try change { state in
      state.images[manifest] = known
      for name in names {
        let entry = IndexDocument.Entry(
          manifest: manifest.description, requested: requested.flatMap { $0 == manifest ? nil : $0.description }, pulled: pulled ? true : nil,
          used: now.nanoseconds / 1_000_000_000)
        state.name(name, entry)
      }
      if !state.isNamed(manifest) {
        state.index.images[manifest.description] = .init(manifest: manifest.description, used: now.nanoseconds / 1_000_000_000)
      }
    }
  }

  /// Reads an image from disk; throws when it is not whole.
  func known(_ manifest: Digest) throws -> Known {
    let document = try ManifestDocument(content.blob(manifest), "manifest \(manifest)")
    guard let descriptor = document.config else { throw ImageError(.corrupt, "read", "manifest \(manifest)", "it has no config") }
    let id = try descriptor.checkedDigest()
    let config: ConfigDocument = try decode(content.blob(id), "config \(id)")
    let layers = try config.diffIDs("config \(id)", for: nil)
    if let missing = layers.first(where: { !content.hasLayer($0) }) {
      throw ImageError(.corrupt, "read", "image \(id)", "its layer \(missing) is missing; pull or load it again")
    }
    return Known(
      id: id, config: config.imageConfig, architecture: config.architecture ?? "", layers: layers, paths: try content.stack(layers),
      packed: (document.layers ?? []).compactMap { Digest($0.digest) },
      size: layers.reduce(0) { $0 + content.layerSize($1) },
      createdAt: config.created.flatMap { Timestamp($0) } ?? .zero)
  }

  /// Says that a container is made of the image. Not while a change is under way that may have decided to take it.
  func claim(_ record: ImageRecord, by id: String) throws {
    try writer.withLock { _ in
      try state.withLock { state in
        guard state.images[record.digest] != nil else {
          throw ImageError(.notFound, "use", record.reference, "it was removed meanwhile; pull or load it again")
        }
        state.uses[id] = record.digest
      }
    }
  }

  /// Changes memory and index.json together, or neither; `uses` is not changed by it, nor while it runs but for those that end.
  func change(_ body: (inout State) throws -> Void) throws {
    try writer.withLock { _ in
      var next = state.withLock { $0 }
      try body(&next)
      beforeWriting.withLock { $0 }?()
      try Files.writeAtomically(directory + "/index.json", encode(next.index), mode: 0o644)
      state.withLock {
        $0.index = next.index
        $0.images = next.images
        $0.needsSweep = next.needsSweep || $0.needsSweep
      }
    }
  }

  /// What `body` looks up or brings is not collected before it ends.
  func operation<Result: Sendable>(_ body: @Sendable () async throws -> Result) async throws -> Result {
    let number = content.pins.begin()
    let result: Swift.Result<Result, any Error>
    do { result = .success(try await body()) } catch {
      result = .failure(error)
      // Layers that were whole by then are no image's.
      state.withLock { $0.needsSweep = true }
    }
    content.pins.end(number)
    if state.withLock({ $0.needsSweep }) { try? await onOwnThread("orch-image") { [self] in try sweep() } }
    return try result.get()
  }

  /// Removes layers and blobs of no image; those that an operation under way relies on later.
  func sweep() throws {
    let hidden = try state.withLock { state throws -> [String] in
      guard state.knowsAllUsed else {
        state.needsSweep = true
        return []
      }
      let (hidden, isAll) = try hide(state)
      state.needsSweep = !isAll
      return hidden
    }
    for path in hidden { try Files.removeTree(path) }
  }

  private func hide(_ state: State) throws -> (hidden: [String], isAll: Bool) {
    let layers = state.retained.union(state.images.values.flatMap(\.layers))
    var blobs = Set(state.images.values.map(\.id))
    blobs.formUnion(state.images.keys)
    blobs.formUnion(state.images.values.flatMap(\.packed))
    return try content.hideAllBut(layers: layers, blobs: blobs)
  }
}

extension ImageStore.State {
  /// Else which layers are a container's is not known: none is taken before it has ended.
  var knowsAllUsed: Bool { uses.values.allSatisfy { images[$0] != nil } }
  func isNamed(_ manifest: Digest) -> Bool { index.images.values.contains { $0.manifest == manifest.description } }

  /// By their keys: names, and the digest of an image without one.
  func entries(of manifest: Digest) -> [String: IndexDocument.Entry] { index.images.filter { $0.value.manifest == manifest.description } }
  /// Names alone, sorted.
  func names(of manifest: Digest) -> [String] { entries(of: manifest).keys.filter { Digest($0) == nil }.sorted() }

  /// An image that loses its last name by this stays under its digest: a container may run from it.
  mutating func name(_ name: String, _ entry: IndexDocument.Entry) {
    let old = index.images.updateValue(entry, forKey: name)
    guard let old, old.manifest != entry.manifest, let digest = Digest(old.manifest), !isNamed(digest) else { return }
    index.images[old.manifest] = .init(manifest: old.manifest, pulled: old.pulled, used: old.used)
  }
}
