import LinuxSystem
import Model

/// A layer that is whole in the store.
public struct StoredLayer: Hashable, Sendable {
  /// Digest of the plain tar: what a configuration's `rootfs.diff_ids` names.
  public var diffID: Digest
  /// Digest, bytes and media type of the packing that is kept and pushed.
  public var digest: Digest
  public var size: Int64
  public var mediaType: String
  /// Bytes of its files.
  public var unpackedSize: Int64
  /// The unpacked tree, in overlayfs' form. Never write to it.
  public var path: String
}

// What a builder needs: layers in, an image out. Inside `holding` nothing of it is collected.
extension ImageStore {
  /// Runs `body`; what it adds is not collected before it ends, though no image names it yet.
  public func holding<Result: Sendable>(_ body: @Sendable () async throws -> Result) async throws -> Result {
    try await makeRoom()
    return try await operation(body)
  }

  /// Adds a layer from a tar file (plain, gzip or zstd; whiteouts as the OCI image specification's layer.md has them). The file is copied.
  /// - Parameter diffID: what its plain tar must be; nil: whatever it is.
  public func addLayer(tar path: String, diffID: Digest? = nil) async throws -> StoredLayer {
    try await onOwnThread("orch-image") { [self] in
      let (diffID, packing) = try content.addLayer(FileSource(path), diffID: diffID)
      return stored(diffID, packing)
    }
  }

  /// A layer that is here, by its diff id.
  public func layer(_ diffID: Digest) -> StoredLayer? {
    content.whole(diffID).map { stored(diffID, $0) }
  }

  /// Layers of this store as overlayfs is to have them, base first: as ``ImageRecord/layerPaths``. Blocking.
  public func stack(_ layers: [Digest]) throws -> [String] {
    if let missing = layers.first(where: { content.whole($0) == nil }) {
      throw ImageError(.notFound, "stack", "layer \(missing)", "it is not in the store any more")
    }
    return try content.stack(layers)
  }

  /// Makes an image of a configuration (OCI image specification, config.md; its `rootfs.diff_ids` name layers of this store, base first) and
  /// names it. Without a name it is known by its digest. A name that another image had moves.
  public func commit(config: [UInt8], names: [String] = []) async throws -> ImageRecord {
    let references = try names.map { try nameToGive($0) }
    return try await operation { [self] in
      try await onOwnThread("orch-image") { [self] in
        let document: ConfigDocument = try decode(config, "a configuration")
        let layers = try document.diffIDs("a configuration").map { diffID in
          guard let packing = content.whole(diffID) else {
            throw ImageError(.notFound, "commit", references.first?.familiar ?? "an image", "its layer \(diffID) is not in the store")
          }
          return packing.descriptor
        }
        let manifest = try content.addImage(config: config, layers: layers)
        try add(manifest, names: references.map(\.description))
        return try added(references.first?.description ?? manifest.description)
      }
    }
  }

  /// The configuration of an image as it is stored: JSON whose digest is the image's id.
  public func configuration(of record: ImageRecord) async throws -> [UInt8] {
    try await onOwnThread("orch-image") { [content] in try content.blob(record.id) }
  }

  /// An image's diff ids, base first.
  public func layers(of record: ImageRecord) -> [Digest] { state.withLock { $0.images[record.digest]?.layers ?? [] } }

  private func stored(_ diffID: Digest, _ packing: Packing) -> StoredLayer {
    StoredLayer(
      diffID: diffID, digest: packing.digest, size: packing.size, mediaType: packing.mediaType, unpackedSize: content.layerSize(diffID),
      path: content.layerPath(diffID))
  }
}
