import Logging
import Model
@_exported import struct RegistryLogin.RegistryCredentials

/// An image that is whole in the store: what a container needs to know of it.
public struct ImageRecord: Hashable, Sendable {
  /// The full name it was asked by, such as `docker.io/library/web:1`.
  public var reference: String
  /// Of the manifest for this platform.
  public var digest: Digest
  /// Of the configuration: Docker's image id.
  public var id: Digest
  public var config: ImageConfig
  /// Whose programs it has, as Go calls it; empty: it does not say.
  public var architecture = hostArchitecture
  /// Folders of the unpacked layers in the order of `rootfs.diff_ids`: base first. Above one that has files in folders without saying how those are
  /// stands a further one, of these folders alone. Overlayfs' `lowerdir` wants the reverse.
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
  /// What shell forms of a build on top of it run in; empty: /bin/sh -c.
  public var shell: [String] = []
  /// Instructions for builds on top of it.
  public var onbuild: [String] = []
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

/// What a pull or push is doing, for each layer.
public struct PullProgress: Hashable, Sendable {
  public enum Phase: Hashable, Sendable { case waiting, downloading, unpacking, done, alreadyThere, uploading, mounted }
  public var layer: Digest
  public var phase: Phase
  /// Bytes as transferred.
  public var done: Int64
  public var total: Int64
}

public struct ImageStoreConfiguration: Sendable {
  /// Hosts ("host:port") spoken to by plain HTTP; loopback is when it does not speak TLS.
  public var insecureRegistries: Set<String> = []
  /// For a registry's host other addresses that are asked first, each "https://HOST[:PORT][/PATH]" (or http://, which declares it); pulls only.
  /// With a path the mirror has the registry's repositories below it.
  public var mirrors: [String: [String]] = [:]
  /// Of the agent's environment.
  public var proxies = ProxySettings()
  /// Folders as docker's /etc/docker/certs.d: HOST[:PORT]/*.crt are authorities, X.cert and X.key a client's certificate. First that has the host.
  public var certificateFolders = ["/etc/orch/certs.d", "/etc/docker/certs.d"]
  /// Files of docker and podman with the host's own credentials, for tasks and mirrors; the first that has some counts. Read anew for each pull.
  public var credentialsFiles: [String] = []
  /// Bytes of one layer's files, and their number; bytes of a layer as it travels; layers of one image.
  public var maximumLayerBytes: Int64 = 64 << 30
  public var maximumLayerEntries = 4_000_000
  public var maximumTransferBytes: Int64 = 64 << 30
  public var maximumLayers = 1000
  /// Layers that one pull or push transfers at once.
  public var concurrentDownloads = 3
  /// Attempts for what the network or a busy registry is to blame for, the first included; the pause before the second, doubled for each more.
  public var attempts = 5
  public var firstPause = Duration.milliseconds(250)
  /// Longest that a registry's Retry-After is obeyed.
  public var longestPause = Duration.seconds(60)
  /// A blob of more is pushed in chunks of this many bytes.
  public var pushChunkBytes: Int64 = 64 << 20
  /// Percent of the file system that may be used before images are taken that can be pulled again, and down to what; 100: never.
  public var highWater = 85
  public var lowWater = 80
  public var log = Logger(label: "images")
  public init() {}
}
