import LinuxSystem
import Model

extension ImageStore {
  /// To the registry that the name says; the image must have that name. Layers that the registry has are not sent; what another repository of
  /// it is known to have is mounted. The manifest comes last: before it nobody sees anything of the push.
  /// - Returns: digest of the manifest that the registry now has.
  @discardableResult
  public func push(
    _ reference: String, credentials: RegistryCredentials? = nil, progress: @escaping @Sendable (PullProgress) -> Void = { _ in }
  ) async throws -> Digest {
    let name = try ImageReference(reference)
    guard let tag = name.tag, name.digest == nil else {
      throw ImageError(.invalidReference, "push", "'\(reference)'", "push by tag: NAME:TAG, or HOST/NAME:TAG")
    }
    guard let record = try resolve(name.description) else { throw missing("push", name.familiar) }
    let credentials = try await self.credentials(credentials, for: name)
    return try await operation { [self] in
      let configuration = configuration
      let host = try await onOwnThread("orch-image") { try RegistryHost.candidates(name, configuration, mirrors: false)[0] }
      let image = try await onOwnThread("orch-image") { [self] in try export(record.digest) }
      let siblings = siblings(of: name, image.layers.map(\.diffID))
      let client = RegistryClient(name, credentials, host, configuration, pushes: true, mountable: Set(siblings.values).sorted())
      try await withThrowingTaskGroup(of: Void.self) { group in
        var sent: Set<Digest> = []
        var index = 0
        for layer in image.layers where sent.insert(layer.packing.digest).inserted {
          if index >= max(1, configuration.concurrentDownloads) { try await group.next() }
          index += 1
          group.addTask { [content] in
            try await Self.push(layer.packing, siblings[layer.diffID], client, content, progress)
          }
        }
        try await group.waitForAll()
      }
      let config = Packing(digest: record.id, size: image.configSize, mediaType: image.configType)
      try await Self.push(config, nil, client, content) { _ in }
      try await client.put(manifest: image.manifest, image.manifestType, tag)
      return Digest(of: image.manifest)
    }
  }

  private static func push(
    _ blob: Packing, _ mountFrom: String?, _ client: RegistryClient, _ content: ContentStore, _ progress: @escaping @Sendable (PullProgress) -> Void
  ) async throws {
    let tell = { @Sendable (phase: PullProgress.Phase, done: Int64) in
      progress(PullProgress(layer: blob.digest, phase: phase, done: done, total: blob.size))
    }
    tell(.waiting, 0)
    if try await client.has(blob.digest) { return tell(.alreadyThere, blob.size) }
    let source = try await onOwnThread("orch-image") { try BlobSource(content.blobPath(blob.digest)) }
    let mounted = try await client.upload(blob.digest, source, mountFrom: mountFrom) { tell(.uploading, $0) }
    tell(mounted ? .mounted : .done, blob.size)
  }

  /// For each layer another repository of the same registry that should have it: an image of that name has the layer.
  private func siblings(of name: ImageReference, _ layers: [Digest]) -> [Digest: String] {
    let state = state.withLock { $0 }
    var result: [Digest: String] = [:]
    for (key, entry) in state.index.images.sorted(by: { $0.key < $1.key }) {
      guard Digest(key) == nil, let other = try? ImageReference(key), other.registry == name.registry, other.path != name.path, entry.pulled == true,
        let known = Digest(entry.manifest).flatMap({ state.images[$0] })
      else { continue }
      for layer in known.layers where layers.contains(layer) && result[layer] == nil { result[layer] = other.path }
    }
    return result
  }
}

/// An image as it is sent or written: with blobs that are here.
struct ExportedImage: Sendable {
  struct Layer: Sendable {
    var diffID: Digest
    var packing: Packing
  }
  var manifest: [UInt8]
  var manifestType: String
  var config: Digest
  var configSize: Int64
  var configType: String
  var layers: [Layer]
}

extension ImageStore {
  /// The image's own manifest when its blobs are here; one that names those that are, when a layer came in another packing. Blocking.
  func export(_ digest: Digest) throws -> ExportedImage {
    let bytes = try content.blob(digest)
    var document = try ManifestDocument(bytes, "manifest \(digest)")
    guard let config = document.config, let layers = document.layers else {
      throw ImageError(.corrupt, "read", "manifest \(digest)", "it has no config")
    }
    let id = try config.checkedDigest()
    let configBytes = try content.blob(id)
    let diffIDs = try (decode(configBytes, "config \(id)") as ConfigDocument).diffIDs("config \(id)")
    guard diffIDs.count == layers.count else {
      throw ImageError(.corrupt, "read", "manifest \(digest)", "it has other layers than its configuration")
    }
    var exported: [ExportedImage.Layer] = []
    var same = true
    for (layer, diffID) in zip(layers, diffIDs) {
      let named = try layer.checkedDigest()
      if Files.exists(content.blobPath(named)) {
        exported.append(.init(diffID: diffID, packing: Packing(digest: named, size: layer.size, mediaType: layer.mediaType ?? MediaType.ociLayer)))
      } else if let packing = content.packing(diffID) {
        same = false
        exported.append(.init(diffID: diffID, packing: packing))
      } else {
        throw ImageError(
          .notFound, "read", "image \(id)", "an older agent unpacked its layer \(diffID) and kept no packing: pull or load the image again")
      }
    }
    if !same { document.layers = exported.map(\.packing.descriptor) }
    return ExportedImage(
      manifest: same ? bytes : try encode(document), manifestType: document.mediaType ?? MediaType.ociManifest, config: id,
      configSize: Int64(configBytes.count), configType: config.mediaType ?? MediaType.ociConfig, layers: exported)
  }
}
