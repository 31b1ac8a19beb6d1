import Glibc
import LinuxSystem
import Model
import Synchronization

/// Brings the images of an archive into the content store; the store's index is not its business. Blocking.
struct ArchiveLoader {
  /// Names an image is to have, and its manifest.
  struct Loaded {
    var names: [ImageReference]
    var manifest: Digest
  }
  let content: ContentStore

  func load(_ path: String, name: ImageReference?) throws -> [Loaded] {
    var status = stat()
    try check(stat(path, &status), "open the archive", path)
    if status.st_mode & S_IFMT == S_IFDIR { return try load(FolderArchive(path: path), name) }
    if status.st_size == 0 { throw noArchive("it is empty") }
    if try compression(of: path) == .none { return try load(TarArchive(path), name) }
    let plain = content.temporary()
    defer { unlink(plain) }
    try inflate(path, plain)
    return try load(TarArchive(plain), name)
  }

  private func load(_ archive: some Archive, _ name: ImageReference?) throws -> [Loaded] {
    var loaded: [Loaded]
    if let document = try archive.document("manifest.json") {
      let images: [SavedImage] = try decode(document, "manifest.json of the archive")
      loaded = try images.map { try saved($0, archive) }
    } else if let document = try archive.document("index.json") {
      loaded = try layout(ManifestDocument(document, "index.json of the archive"), archive)
    } else {
      throw noArchive("it has neither manifest.json nor index.json")
    }
    guard !loaded.isEmpty else { throw ImageError(.notFound, "load", "the archive", "it has no image for linux/\(hostArchitecture)") }
    if let name {
      guard loaded.count == 1 else { throw ImageError(.invalidReference, "load", "the archive", "it has \(loaded.count) images; leave the name out") }
      loaded[0].names = [name]
    }
    return loaded
  }

  // MARK: - Layers

  /// One thread's at a time.
  private struct LayerJob: @unchecked Sendable {
    var source: FileSource
    var diffID: Digest
    var transferred: Digest?
  }

  /// Three at once, since one is bound by its inflating; in their order. Of several that fail the first to do so is told, when all have ended.
  private func add(_ jobs: [LayerJob]) throws -> [Packing] {
    let progress = Mutex((next: 0, added: [Int: Packing](), error: (any Error)?.none))
    let ended = Semaphore()
    let threads = min(3, jobs.count)
    for _ in 0..<threads {
      startThread("orch-image") { [content] in
        defer { ended.signal() }
        while let index = progress.withLock({ progress -> Int? in
          guard progress.error == nil, progress.next < jobs.count else { return nil }
          progress.next += 1
          return progress.next - 1
        }) {
          let job = jobs[index]
          do {
            let packing = try content.addLayer(job.source, diffID: job.diffID, transferred: job.transferred).packing
            progress.withLock { $0.added[index] = packing }
          } catch { progress.withLock { $0.error = $0.error ?? error } }
        }
      }
    }
    for _ in 0..<threads { ended.wait() }
    return try progress.withLock { progress in
      if let error = progress.error { throw error }
      return jobs.indices.map { progress.added[$0]! }
    }
  }

  // MARK: - docker save

  private func saved(_ image: SavedImage, _ archive: some Archive) throws -> Loaded {
    // What is wrong with the names is known before anything is unpacked.
    let names = try (image.RepoTags ?? []).map { try ImageReference($0) }
    guard let config = try archive.document(image.Config) else { throw missing(image.Config) }
    let diffIDs = try (decode(config, image.Config) as ConfigDocument).diffIDs(image.Config)
    let packed = image.Layers ?? []
    guard diffIDs.count == packed.count else { throw layerCount(packed.count, diffIDs.count) }
    let layers = try zip(packed, diffIDs).map { name, diffID in
      guard let source = try archive.source(name) else { throw missing(name) }
      return LayerJob(source: source, diffID: diffID, transferred: nil)
    }
    return Loaded(names: names, manifest: try content.addImage(config: config, layers: add(layers).map(\.descriptor)))
  }

  // MARK: - OCI layout

  private func layout(_ index: ManifestDocument, _ archive: some Archive) throws -> [Loaded] {
    var loaded: [Loaded] = []
    for descriptor in index.manifests ?? [] {
      if let platform = descriptor.platform, platform.os != "linux" || platform.architecture != hostArchitecture { continue }
      let names = try names(of: descriptor)
      loaded.append(Loaded(names: names, manifest: try resolve(descriptor, archive, depth: 0)))
    }
    return loaded
  }

  /// `io.containerd.image.name` is a full name; `org.opencontainers.image.ref.name` may be one, or a tag alone, which names nothing.
  private func names(of descriptor: Descriptor) throws -> [ImageReference] {
    let annotations = descriptor.annotations ?? [:]
    if let name = annotations["io.containerd.image.name"] { return [try ImageReference(name)] }
    guard let name = annotations["org.opencontainers.image.ref.name"], name.contains(":") || name.contains("/") else { return [] }
    return [try ImageReference(name)]
  }

  private func resolve(_ descriptor: Descriptor, _ archive: some Archive, depth: Int) throws -> Digest {
    let digest = try descriptor.checkedDigest()
    let bytes = try verified(digest, descriptor.size, archive)
    let manifest = try ManifestDocument(bytes, "manifest \(digest)")
    if manifest.manifests != nil {
      guard depth < 3 else { throw ImageError(.hostile, "read", "index \(digest)", "indexes are nested more than 3 deep") }
      return try resolve(manifest.choose("index \(digest)"), archive, depth: depth + 1)
    }
    guard let configDescriptor = manifest.config, let layers = manifest.layers else {
      throw ImageError(.unsupported, "read", "manifest \(digest)", "it has no config and layers")
    }
    let config = try verified(configDescriptor.checkedDigest(), configDescriptor.size, archive)
    let diffIDs = try (decode(config, "config \(configDescriptor.digest)") as ConfigDocument).diffIDs("config \(configDescriptor.digest)")
    guard diffIDs.count == layers.count else { throw layerCount(layers.count, diffIDs.count) }
    var jobs: [LayerJob] = []
    for (layer, diffID) in zip(layers, diffIDs) {
      try layer.checkIsLayer()
      let transferred = try layer.checkedDigest()
      let name = "blobs/sha256/\(transferred.hex)"
      guard let source = try archive.source(name) else {
        if content.packing(diffID) != nil { continue }
        throw missing(name)
      }
      jobs.append(LayerJob(source: source, diffID: diffID, transferred: transferred))
    }
    _ = try add(jobs)
    try content.addBlob(config)
    return try content.addBlob(bytes)
  }

  private func verified(_ digest: Digest, _ size: Int64, _ archive: some Archive) throws -> [UInt8] {
    guard let bytes = try archive.document("blobs/sha256/\(digest.hex)") else { throw missing("blobs/sha256/\(digest.hex)") }
    guard Int64(bytes.count) == size else {
      throw ImageError(.corrupt, "verify", "blob \(digest)", "it has \(bytes.count) bytes, its descriptor says \(size)")
    }
    guard Digest(of: bytes) == digest else {
      throw ImageError(.corrupt, "verify", "blob \(digest)", "its bytes have the digest \(Digest(of: bytes))")
    }
    return bytes
  }

  private func missing(_ name: String) -> ImageError { ImageError(.corrupt, "load", "the archive", "'\(name)' is missing") }
  private func layerCount(_ layers: Int, _ diffIDs: Int) -> ImageError {
    ImageError(.corrupt, "load", "the archive", "it has \(layers) layers and \(diffIDs) diff ids")
  }

  // MARK: - Compression

  func compression(of path: String) throws -> Compression {
    var magic = [UInt8](repeating: 0, count: 6)
    let source = try FileSource(path)
    let count = try magic.withUnsafeMutableBytes { try source.read(into: $0) }
    return Compression(magic[..<count])
  }

  func inflate(_ path: String, _ target: String) throws {
    let source = try InflatingSource(FileSource(path), isLayer: false)
    let file = try OwnedDescriptor.open(target, O_WRONLY | O_CREAT | O_EXCL)
    var chunk = [UInt8](repeating: 0, count: 1 << 20)
    var total: Int64 = 0
    while true {
      let count = try chunk.withUnsafeMutableBytes { try source.read(into: $0) }
      if count == 0 { return }
      total += Int64(count)
      guard total <= content.maximumLayerBytes else {
        throw ImageError(.hostile, "unpack", "the archive", "it grows beyond \(content.maximumLayerBytes) bytes")
      }
      try Files.writeAll(file.rawValue, Array(chunk[..<count]), name: target)
    }
  }
}

extension Descriptor {
  func checkIsLayer() throws {
    guard let mediaType, MediaType.layers.contains(mediaType) else {
      throw ImageError(.unsupported, "read", "layer \(digest)", "its media type is '\(mediaType ?? "")'")
    }
  }
}

extension ContentStore {
  /// A manifest of our own for an image that came without one: the same image gets the same digest on every host.
  func addImage(config: [UInt8], layers: [Descriptor]) throws -> Digest {
    let digest = try addBlob(config)
    let descriptor = Descriptor(mediaType: MediaType.ociConfig, digest: digest.description, size: Int64(config.count))
    return try addBlob(encode(ManifestDocument(schemaVersion: 2, config: descriptor, layers: layers)))
  }
}
