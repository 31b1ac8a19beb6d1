// Image: where an agent's images are, and how they get there.
//
// On disk, below the agent's `images` directory:
//   index.json            name:tag -> manifest digest; replaced as a whole
//   blobs/sha256/HEX      manifests and configurations (layers are kept unpacked only)
//   layers/HEX            one folder per layer, named by its diff id; there means whole
//   ingest/               what is being downloaded or unpacked; emptied at start
// Invariants
// - Content is verified before it is visible: digest and size of every download, diff id of every layer.
// - A crash leaves a layer whole or not at all: a folder in `ingest`, synced, then renamed.
// - Nothing of an archive reaches outside its layer's folder.
// It refuses to know containers: who uses an image is told to it by `inUse`.

/// The agent's images. Its methods block no thread of the cooperative pool.
public final class ImageStore: Sendable {
  public let directory: String
  public let configuration: ImageStoreConfiguration

  /// Opens or makes the store and removes what a crash left. Blocking, once at start.
  public init(directory: String, configuration: ImageStoreConfiguration = .init()) throws {
    self.directory = directory
    self.configuration = configuration
  }

  /// The image of that name (`web:1`, `web@sha256:...`, an image id), or nil when it is not here whole. Looks into memory only.
  public func resolve(_ reference: String) throws(ImageError) -> ImageRecord? { fatalError("13:20") }
  public func list() -> [ImageSummary] { fatalError("13:20") }
  /// Takes the name away, and the layers that no other image has. `inUse`: digests (of `ImageRecord`) that containers need.
  public func remove(_ reference: String, inUse: Set<Digest> = []) async throws { fatalError("13:20") }
  /// `docker import`: a root file system's tar (gzip or plain) becomes a one-layer image.
  public func `import`(_ path: String, name: String, config: ImageConfig = .init()) async throws -> ImageRecord { fatalError("13:20") }
  /// A `docker save` archive, an OCI archive (each gzip or plain) or an OCI layout's folder; all its images.
  /// `name`: for an archive whose one image has no name.
  public func load(_ path: String, name: String? = nil) async throws -> [ImageRecord] { fatalError("13:20") }
  /// From a registry (OCI distribution specification), unless it is here already (`always` asks the registry nevertheless).
  public func pull(
    _ reference: String, credentials: RegistryCredentials? = nil, always: Bool = false,
    progress: @escaping @Sendable (PullProgress) -> Void = { _ in }
  ) async throws -> ImageRecord { fatalError("13:35") }
}
