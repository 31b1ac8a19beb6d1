import Glibc
import LinuxSystem
import Model
import TreeArchive

/// How images are written into one file.
public enum ArchiveFormat: String, Hashable, Sendable, CaseIterable {
  /// `docker save`'s, that every tool reads: layers as plain tars.
  case docker
  /// An OCI image layout (OCI image specification, image-layout.md) in a tar file: blobs as they are.
  case oci
}

extension ImageStore {
  /// Writes images, with the names they are asked by, into one tar file that `load`, docker, podman and skopeo read.
  /// - Parameter write: takes the file's bytes in order, at most 1 MiB at once; called on a thread of its own, and may block.
  public func save(_ references: [String], format: ArchiveFormat = .docker, write: @escaping @Sendable ([UInt8]) throws -> Void) async throws {
    guard !references.isEmpty else { throw ImageError(.invalidReference, "save", "nothing", "name an image") }
    // Nothing is swept until it is written.
    try await operation { [self] in
      var images: [(names: [ImageReference], record: ImageRecord)] = []
      for reference in references {
        guard let record = try resolve(reference, digits: 1) else { throw missing("save", reference) }
        // By digest or id: what is saved has no name.
        let name =
          Digest(reference) == nil
          ? (try? ImageReference(reference)).flatMap { $0.digest == nil && $0.description == record.reference ? $0 : nil } : nil
        if let index = images.firstIndex(where: { $0.record.digest == record.digest }) {
          images[index].names += [name].compactMap { $0 }
        } else {
          images.append(([name].compactMap { $0 }, record))
        }
      }
      let chosen = images
      try await onOwnThread("orch-image") { [self] in
        let exports = try chosen.map { (names: $0.names, image: try export($0.record.digest)) }
        let writer = ArchiveWriter(content: content, write: write)
        switch format {
        case .docker: try writer.docker(exports)
        case .oci: try writer.oci(exports)
        }
      }
    }
  }
}

/// What `inspect` shows of an image.
public struct ImageDescription: Sendable {
  public var record: ImageRecord
  /// As people write them.
  public var names: [String]
  /// JSON of the OCI image configuration.
  public var configuration: [UInt8]
  /// Bytes of each layer's files, base first.
  public var layerSizes: [Int64]
  public var inUse: Bool
}

extension ImageStore {
  public func inspect(_ reference: String) async throws -> ImageDescription {
    guard let record = try resolve(reference, digits: 1) else { throw missing("inspect", reference) }
    let (names, inUse, layers) = state.withLock { state in
      (
        state.names(of: record.digest).compactMap { (try? ImageReference($0))?.familiar }.sorted(),
        state.uses.values.contains(record.digest), state.images[record.digest]?.layers ?? []
      )
    }
    return try await onOwnThread("orch-image") { [content] in
      ImageDescription(
        record: record, names: names, configuration: try content.blob(record.id), layerSizes: layers.map(content.layerSize), inUse: inUse)
    }
  }
}

/// Writes the two forms of archives. Blocking.
final class ArchiveWriter {
  typealias Images = [(names: [ImageReference], image: ExportedImage)]
  private let content: ContentStore
  private let write: ([UInt8]) throws -> Void
  private var written: Set<String> = []

  init(content: ContentStore, write: @escaping ([UInt8]) throws -> Void) { (self.content, self.write) = (content, write) }

  func docker(_ images: Images) throws {
    var documents: [SavedImage] = []
    for (names, image) in images {
      let config = "\(image.config.hex).json"
      try member(config, content.blob(image.config))
      for layer in image.layers {
        // Plain, since docker-archive's readers expect the diff id's bytes.
        try member("\(layer.diffID.hex).tar", blob: layer.packing, plain: true)
      }
      documents.append(
        SavedImage(Config: config, RepoTags: names.isEmpty ? nil : names.map(\.familiar), Layers: image.layers.map { "\($0.diffID.hex).tar" }))
    }
    try member("manifest.json", encode(documents))
    try end()
  }

  func oci(_ images: Images) throws {
    struct Layout: Codable { var imageLayoutVersion = "1.0.0" }
    try member("oci-layout", encode(Layout()))
    var descriptors: [Descriptor] = []
    for (names, image) in images {
      for layer in image.layers { try member("blobs/sha256/\(layer.packing.digest.hex)", blob: layer.packing, plain: false) }
      try member("blobs/sha256/\(image.config.hex)", content.blob(image.config))
      let digest = Digest(of: image.manifest)
      try member("blobs/sha256/\(digest.hex)", image.manifest)
      let plain = Descriptor(mediaType: image.manifestType, digest: digest.description, size: Int64(image.manifest.count))
      if names.isEmpty { descriptors.append(plain) }
      for name in names {
        var named = plain
        named.annotations = ["io.containerd.image.name": name.description, "org.opencontainers.image.ref.name": name.tag ?? "latest"]
        descriptors.append(named)
      }
    }
    try member("index.json", encode(ManifestDocument(index: descriptors)))
    try end()
  }

  // MARK: - Members

  private func end() throws { try write([UInt8](repeating: 0, count: 1024)) }

  private func member(_ name: String, _ bytes: [UInt8]) throws {
    guard written.insert(name).inserted else { return }
    try write(TreeArchive.header(file: name, size: Int64(bytes.count)) + bytes + padding(Int64(bytes.count)))
  }

  private func member(_ name: String, blob: Packing, plain: Bool) throws {
    guard written.insert(name).inserted else { return }
    let path = content.blobPath(blob.digest)
    let open = { () -> any ByteSource in plain ? try InflatingSource(FileSource(path)) : try FileSource(path) }
    // A tar member's size comes before it: what is packed is counted first.
    let size: Int64
    if plain, ["gzip", "zstd"].contains(where: blob.mediaType.hasSuffix) {
      let counter = HashingSource(try open())
      try counter.drain()
      size = counter.count
    } else {
      var status = stat()
      try check(stat(path, &status), "look at", path)
      size = Int64(status.st_size)
    }
    try write(TreeArchive.header(file: name, size: size))
    let source = try open()
    var chunk = [UInt8](repeating: 0, count: 1 << 20)
    var left = size
    while left > 0 {
      let count = try chunk.withUnsafeMutableBytes {
        try source.read(into: UnsafeMutableRawBufferPointer(rebasing: $0[..<Int(min(left, Int64($0.count)))]))
      }
      guard count > 0 else { throw ImageError(.corrupt, "read", "blob \(blob.digest)", "it is shorter than it was") }
      try write(Array(chunk[..<count]))
      left -= Int64(count)
    }
    try write(padding(size))
  }

  private func padding(_ size: Int64) -> [UInt8] { [UInt8](repeating: 0, count: Int((512 - size % 512) % 512)) }
}
