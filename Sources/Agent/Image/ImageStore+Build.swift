import CLinux
import Glibc
import LinuxSystem
import Model
import TreeArchive

/// What a build needs of the store.
extension ImageStore {
  /// Of the images that this host runs, as the OCI names it.
  public static var architecture: String { hostArchitecture }
  /// How an image came to be, oldest first; steps without a layer included.
  public func history(of record: ImageRecord) async throws -> [BuiltImage.Step] {
    let bytes = try await configuration(of: record)
    let document: ConfigDocument = try decode(bytes, "config \(record.id)")
    return (document.history ?? []).map {
      .init(created: $0.created.flatMap { Timestamp($0) } ?? .zero, text: $0.created_by ?? "", isEmpty: $0.empty_layer ?? false)
    }
  }

  /// Layers that stay though no image has them, from now on. What was kept before goes with the next sweep.
  public func retain(_ layers: Set<Digest>) {
    state.withLock {
      if !$0.retained.isSubset(of: layers) { $0.needsSweep = true }
      $0.retained = layers
    }
  }

  /// Layers that images have.
  public var imageLayers: Set<Digest> { state.withLock { Set($0.images.values.flatMap(\.layers)) } }
  /// Removes what nothing holds any more; later when something is being added just now. Blocking.
  public func collect() throws { try sweep() }

  /// A folder of `ingest`, which is emptied at every start; the caller removes it.
  public func workFolder() throws -> String {
    let path = content.temporary()
    try Files.makeDirectories(path, mode: 0o755)
    return path
  }

  /// A layer of what an overlay's upper folder, or any other folder, holds. Blocking.
  public func addLayer(_ tree: TreeArchive) throws -> Digest { try content.addLayer(TreeSource(tree), diffID: nil).diffID }

  /// SHA-256 of the stream, without unpacking it. Blocking.
  public static func digest(_ tree: TreeArchive) throws -> Digest {
    let source = HashingSource(TreeSource(tree))
    try source.drain()
    return source.digest
  }
  public static func digest(_ bytes: [UInt8]) -> Digest { Digest(of: bytes) }

  /// Puts the stream's members into the folder, replacing what is there; no name leads out of it. Blocking.
  public static func unpack(_ tree: TreeArchive, into folder: Int32) throws {
    try LayerUnpacker(folder: "/proc/self/fd/\(folder)", isLayer: false).unpack(TarReader(TreeSource(tree)))
  }

  /// The same of a tar file, plain, gzip, zstd, xz or bzip2. Blocking.
  public static func unpack(file path: String, into folder: Int32, maximumBytes: Int64 = .max, maximumEntries: Int = .max) throws {
    let unpacker = try LayerUnpacker(
      folder: "/proc/self/fd/\(folder)", maximumBytes: maximumBytes, maximumEntries: maximumEntries, isLayer: false)
    try unpacker.unpack(TarReader(InflatingSource(FileSource(path), isLayer: false)))
  }

  /// Whether ADD unpacks it: it begins as a tar does, plain, gzip, zstd, xz or bzip2. What is merely packed, or damaged, is a file like any other, as
  /// BuildKit has it. Blocking.
  public static func isArchive(_ path: String) throws -> Bool {
    do {
      return try TarReader(InflatingSource(FileSource(path), isLayer: false)).next() != nil
    } catch let error as ImageError where [.corrupt, .unsupported].contains(error.kind) { return false }
  }
}

/// What a build made.
public struct BuiltImage: Hashable, Sendable {
  public var config: ImageConfig
  /// Base first.
  public var layers: [Digest]
  public var created: Timestamp
  public var author: String?
  public var history: [Step]
  public struct Step: Hashable, Sendable {
    public var created: Timestamp
    public var text: String
    public var isEmpty: Bool
    public init(created: Timestamp, text: String, isEmpty: Bool) { (self.created, self.text, self.isEmpty) = (created, text, isEmpty) }
  }
  public init(config: ImageConfig, layers: [Digest], created: Timestamp, author: String? = nil, history: [Step] = []) {
    (self.config, self.layers, self.created, self.author, self.history) = (config, layers, created, author, history)
  }
  /// As JSON (OCI image specification, config.md): what `ImageStore.commit` takes.
  public func configuration() throws -> [UInt8] { try encode(ConfigDocument(self)) }
}

private final class TreeSource: ByteSource {
  private let tree: TreeArchive
  init(_ tree: TreeArchive) { self.tree = tree }
  func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int { try tree.read(into: buffer) }
}
