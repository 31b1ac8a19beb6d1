import Model

/// An image that is whole in the store: what a container needs to know of it.
public struct ImageRecord: Hashable, Sendable {
  /// The full name it was asked by, such as `docker.io/library/web:1`.
  public var reference: String
  /// Of the manifest for this platform.
  public var digest: Digest
  /// Of the configuration: Docker's image id.
  public var id: Digest
  public var config: ImageConfig
  /// Folders of the unpacked layers in the order of `rootfs.diff_ids`: base first. Overlayfs' `lowerdir` wants the reverse.
  /// Whiteouts are character devices 0/0, opaque folders have trusted.overlay.opaque=y. Never write to them.
  public var layerPaths: [String]
  /// Bytes of all files of all layers.
  public var size: Int64
  public var createdAt: Timestamp
}

/// The part of an image's configuration that a container takes over (OCI image specification, config.md).
public struct ImageConfig: Hashable, Sendable {
  public var entrypoint: [String] = []
  public var cmd: [String] = []
  /// "NAME=value".
  public var env: [String] = []
  public var workingDir = ""
  public var user = ""
  /// Such as "80/tcp"; sorted.
  public var exposedPorts: [String] = []
  public var labels: [String: String] = [:]
  public var stopSignal: String?
  /// Mount points that get an anonymous volume; sorted.
  public var volumes: [String] = []
  public var healthcheck: HealthConfig?
  public init() {}
}

/// One line of a list of images.
public struct ImageSummary: Hashable, Sendable {
  /// `web:1`; nil for an image that lost its names.
  public var name: String?
  public var digest: Digest
  public var id: Digest
  public var size: Int64
  public var createdAt: Timestamp
}

public struct RegistryCredentials: Hashable, Sendable {
  public var username: String
  public var password: String
  public init(username: String, password: String) {
    self.username = username
    self.password = password
  }
}

/// What a pull is doing, for each layer.
public struct PullProgress: Hashable, Sendable {
  public enum Phase: Hashable, Sendable { case waiting, downloading, unpacking, done, alreadyThere }
  public var layer: Digest
  public var phase: Phase
  /// Bytes as transferred.
  public var done: Int64
  public var total: Int64
}

public struct ImageStoreConfiguration: Hashable, Sendable {
  /// Hosts ("host:port") spoken to by plain HTTP; loopback always is.
  public var insecureRegistries: Set<String> = []
  /// Bytes of one layer's files, and their number.
  public var maximumLayerBytes: Int64 = 64 << 30
  public var maximumLayerEntries = 4_000_000
  /// Layers downloaded at once by one pull.
  public var concurrentDownloads = 3
  public init() {}
}
