import Glibc
import LinuxSystem
import Model

extension ImageStore {
  /// To the registry that the name says; the image must have that name. Layers that the registry has are not sent; what another repository of
  /// it is known to have is mounted. Plain layers of images that came from no registry are sent as gzip, as docker does. The manifest comes last:
  /// before it nobody sees anything of the push.
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
      // What came from a registry keeps its digest.
      let isPulled = state.withLock { $0.entries(of: record.digest).values.contains { $0.pulled == true } }
      let packed = isPulled ? [:] : self.packed(for: name, image)
      let mountable = Set(siblings.values).union(packed.values.compactMap(\.mountFrom))
      let client = RegistryClient(name, credentials, host, configuration, pushes: true, mountable: mountable.sorted())
      let sent = try await withThrowingTaskGroup(of: (Digest, Packing).self) { group in
        var (begun, sent): (Set<Digest>, [Digest: Packing]) = ([], [:])
        for (index, layer) in image.layers.filter({ begun.insert($0.packing.digest).inserted }).enumerated() {
          if index >= max(1, configuration.concurrentDownloads), let (blob, packing) = try await group.next() { sent[blob] = packing }
          group.addTask { [self] in
            let blob = layer.packing.digest
            guard let packed = packed[blob] else {
              return (blob, try await push(layer.packing, siblings[layer.diffID], client, progress))
            }
            return (blob, try await push(layer, packed, siblings[layer.diffID], client, progress))
          }
        }
        for try await (blob, packing) in group { sent[blob] = packing }
        return sent
      }
      let config = Packing(digest: record.id, size: image.configSize, mediaType: image.configType)
      _ = try await push(config, nil, client) { _ in }
      let manifest = try image.manifest(with: sent)
      try await client.put(manifest: manifest, image.manifestType, tag)
      return Digest(of: manifest)
    }
  }

  /// Of plain blobs: what they were pushed as before, if they were.
  private struct Packed {
    var before: PushedLayer?
    var mountFrom: String?
  }
  private func packed(for name: ImageReference, _ image: ExportedImage) -> [Digest: Packed] {
    var packed: [Digest: Packed] = [:]
    for layer in image.layers where layer.packing.mediaType.hasSuffix(".tar") {
      let before = content.pushed(layer.diffID)
      let other = before?.repositories.first { $0.hasPrefix(name.registry + "/") && $0 != name.repository }
      packed[layer.packing.digest] = Packed(before: before, mountFrom: other.map { String($0.dropFirst(name.registry.count + 1)) })
    }
    return packed
  }

  /// - Returns: what the registry now has.
  private func push(
    _ blob: Packing, _ mountFrom: String?, _ client: RegistryClient, from path: String? = nil, shownAs shown: Digest? = nil,
    _ progress: @escaping @Sendable (PullProgress) -> Void
  ) async throws -> Packing {
    let tell = { @Sendable (phase: PullProgress.Phase, done: Int64) in
      progress(PullProgress(layer: shown ?? blob.digest, phase: phase, done: done, total: blob.size))
    }
    tell(.waiting, 0)
    if try await client.has(blob.digest) {
      tell(.alreadyThere, blob.size)
      return blob
    }
    let source = try await onOwnThread("orch-image") { [content] in try BlobSource(path ?? content.blobPath(blob.digest)) }
    let mounted = try await client.upload(blob.digest, source, mountFrom: mountFrom) { tell(.uploading, $0) }
    tell(mounted ? .mounted : .done, blob.size)
    return blob
  }

  /// A plain layer: as it is where the registry has it so, else its gzip, which is made only when the registry has not that either.
  private func push(
    _ layer: ExportedImage.Layer, _ packed: Packed, _ sibling: String?, _ client: RegistryClient,
    _ progress: @escaping @Sendable (PullProgress) -> Void
  ) async throws -> Packing {
    let plain = layer.packing
    let tell = { @Sendable (phase: PullProgress.Phase, blob: Packing) in
      progress(PullProgress(layer: plain.digest, phase: phase, done: phase == .waiting ? 0 : blob.size, total: blob.size))
    }
    tell(.waiting, plain)
    // Saves the next push work; the registry has the blob without it.
    func remember(_ packing: Packing) async {
      do {
        try await onOwnThread("orch-image") { [content] in try content.remember(layer.diffID, packing, in: client.name.repository) }
      } catch {
        configuration.log.warning(
          "layer \(plain.digest) was pushed to \(client.name.repository), which is not noted: \(error); the next push packs it anew")
      }
    }
    if let before = packed.before?.packing {
      if try await client.has(before.digest) {
        await remember(before)
        tell(.alreadyThere, before)
        return before
      }
      if let other = packed.mountFrom, try await client.mount(before.digest, from: other) {
        await remember(before)
        tell(.mounted, before)
        return before
      }
    }
    // Another's image of the same registry has it as it is.
    if sibling != nil { return try await push(plain, sibling, client, progress) }
    if try await client.has(plain.digest) {
      tell(.alreadyThere, plain)
      return plain
    }
    let (path, gzip) = try await onOwnThread("orch-image") { [content] in try content.gzip(plain.digest) }
    defer { unlink(path) }
    _ = try await push(gzip, nil, client, from: path, shownAs: plain.digest, progress)
    await remember(gzip)
    return gzip
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
  var document: ManifestDocument
  var manifestType: String
  var config: Digest
  var configSize: Int64
  var configType: String
  var layers: [Layer]

  /// Its manifest where layers went in other packings, by the digests of those that are here.
  func manifest(with sent: [Digest: Packing]) throws -> [UInt8] {
    let packings = layers.map { sent[$0.packing.digest] ?? $0.packing }
    if packings == layers.map(\.packing) { return manifest }
    var document = document
    document.layers = packings.map(\.descriptor)
    return try encode(document)
  }
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
    let diffIDs = try (decode(configBytes, "config \(id)") as ConfigDocument).diffIDs("config \(id)", for: nil)
    guard diffIDs.count == layers.count else {
      throw ImageError(.corrupt, "read", "manifest \(digest)", "it has other layers than its configuration")
    }
    var exported: [ExportedImage.Layer] = []
    var same = true
    for (layer, diffID) in zip(layers, diffIDs) {
      let named = try layer.checkedDigest()
      content.pins.pin(layers: [diffID])
      if content.hasBlob(named) {
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
      manifest: same ? bytes : try encode(document), document: document, manifestType: document.mediaType ?? MediaType.ociManifest, config: id,
      configSize: Int64(configBytes.count), configType: config.mediaType ?? MediaType.ociConfig, layers: exported)
  }
}
