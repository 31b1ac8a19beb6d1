#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif
import LinuxSystem
import Model

// The JSON documents of an image: OCI image specification v1.1 (manifest.md, config.md, image-index.md), Docker image manifest v2
// schema 2, and `docker save`'s manifest.json.

enum MediaType {
  static let ociManifest = "application/vnd.oci.image.manifest.v1+json"
  static let ociIndex = "application/vnd.oci.image.index.v1+json"
  static let dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
  static let dockerList = "application/vnd.docker.distribution.manifest.list.v2+json"
  static let ociConfig = "application/vnd.oci.image.config.v1+json"
  static let ociLayer = "application/vnd.oci.image.layer.v1.tar"
  static let manifests = [ociManifest, ociIndex, dockerManifest, dockerList]
  static let layers = [
    ociLayer, ociLayer + "+gzip", ociLayer + "+zstd", "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.docker.image.rootfs.diff.tar",
  ]
  static let configs = [ociConfig, "application/vnd.docker.container.image.v1+json"]
}

struct Descriptor: Codable, Sendable {
  struct Platform: Codable, Sendable {
    var architecture: String
    var os: String
    var variant: String?
  }
  var mediaType: String?
  var digest: String
  var size: Int64
  var platform: Platform?
  var annotations: [String: String]?

  func checkedDigest() throws -> Digest {
    guard let digest = Digest(digest) else { throw ImageError(.unsupported, "read", "a descriptor", "'\(digest.prefix(80))' is not a sha256 digest") }
    return digest
  }
}

/// A manifest, or an index of them: told apart by what is there.
struct ManifestDocument: Codable, Sendable {
  var schemaVersion: Int
  var mediaType: String?
  var config: Descriptor?
  var layers: [Descriptor]?
  var manifests: [Descriptor]?

  /// Bytes; a larger one is refused before it is read.
  static let maximumSize: Int64 = 4 << 20

  init(schemaVersion: Int, config: Descriptor, layers: [Descriptor]) {
    self.schemaVersion = schemaVersion
    mediaType = MediaType.ociManifest
    self.config = config
    self.layers = layers
  }

  init(index manifests: [Descriptor]) {
    schemaVersion = 2
    mediaType = MediaType.ociIndex
    self.manifests = manifests
  }

  init(_ bytes: [UInt8], _ object: String) throws {
    self = try decode(bytes, object)
    guard schemaVersion == 2 else { throw ImageError(.unsupported, "read", object, "it has schema version \(schemaVersion), only 2 is supported") }
    if let mediaType, !MediaType.manifests.contains(mediaType) {
      throw ImageError(.unsupported, "read", object, "its media type is '\(mediaType)', which is no image")
    }
    // CVE-2021-41190: a document may not be both.
    if manifests != nil, config != nil || layers != nil {
      throw ImageError(.hostile, "read", object, "it claims to be a manifest and an index at once")
    }
  }

  /// The one for the platform: of its variants the best.
  func choose(_ object: String, _ platform: ImagePlatform = .host) throws -> Descriptor {
    let candidates = manifests ?? []
    let fitting = candidates.filter { $0.platform.map { $0.os == "linux" && $0.architecture == platform.architecture } ?? false }
    for variant in platform.variants {
      if let choice = fitting.first(where: { $0.platform?.variant ?? "" == variant }) { return choice }
    }
    if candidates.count == 1, candidates[0].platform == nil { return candidates[0] }
    let offered = candidates.compactMap {
      $0.platform.map { ["linux", $0.architecture, $0.variant].compactMap { $0 }.joined(separator: "/").replacing("linux", with: $0.os) }
    }
    .filter { !$0.hasPrefix("unknown") }.prefix(20)
    throw ImageError(.notFound, "choose from", object, "it has no image for \(platform), only for \(offered.joined(separator: ", "))")
  }
}

struct ConfigDocument: Codable {
  struct Nothing: Codable {}
  struct History: Codable {
    var created: String?
    var created_by: String?
    var author: String?
    var comment: String?
    var empty_layer: Bool?
  }
  struct Health: Codable {
    var Test: [String]?
    var Interval: Int64?
    var Timeout: Int64?
    var StartPeriod: Int64?
    var StartInterval: Int64?
    var Retries: Int?
  }
  struct Settings: Codable {
    var User: String?
    var ExposedPorts: [String: Nothing]?
    var Env: [String]?
    var Entrypoint: [String]?
    var Cmd: [String]?
    var Volumes: [String: Nothing]?
    var WorkingDir: String?
    var Labels: [String: String]?
    var StopSignal: String?
    var Healthcheck: Health?
    var Shell: [String]?
    var OnBuild: [String]?
  }
  struct Root: Codable {
    var type: String
    /// Go leaves an empty one out, or writes a null.
    var diff_ids: [String]?
  }
  var architecture: String?
  var os: String?
  var created: String?
  var author: String?
  var variant: String?
  var config: Settings?
  var rootfs: Root
  var history: [History]?

  init(_ built: BuiltImage) {
    self.init(built.config, diffIDs: built.layers)
    created = built.created.description
    author = built.author
    history = built.history.map { History(created: $0.created.description, created_by: $0.text, empty_layer: $0.isEmpty ? true : nil) }
  }

  init(_ image: ImageConfig, diffIDs: [Digest]) {
    architecture = hostArchitecture
    os = "linux"
    created = "1970-01-01T00:00:00Z"
    rootfs = Root(type: "layers", diff_ids: diffIDs.map(\.description))
    var settings = Settings()
    settings.User = image.user.isEmpty ? nil : image.user
    settings.ExposedPorts = image.exposedPorts.isEmpty ? nil : Dictionary(image.exposedPorts.map { ($0, Nothing()) }) { first, _ in first }
    settings.Env = image.env.isEmpty ? nil : image.env
    settings.Entrypoint = image.entrypoint.isEmpty ? nil : image.entrypoint
    settings.Cmd = image.cmd.isEmpty ? nil : image.cmd
    settings.Volumes = image.volumes.isEmpty ? nil : Dictionary(image.volumes.map { ($0, Nothing()) }) { first, _ in first }
    settings.WorkingDir = image.workingDir.isEmpty ? nil : image.workingDir
    settings.Labels = image.labels.isEmpty ? nil : image.labels
    settings.StopSignal = image.stopSignal
    settings.Shell = image.shell.isEmpty ? nil : image.shell
    settings.OnBuild = image.onbuild.isEmpty ? nil : image.onbuild
    if let health = image.healthcheck {
      settings.Healthcheck = Health(
        Test: health.test, Interval: health.interval?.rawValue, Timeout: health.timeout?.rawValue, StartPeriod: health.startPeriod?.rawValue,
        StartInterval: health.startInterval?.rawValue, Retries: health.retries)
    }
    config = settings
  }

  var imageConfig: ImageConfig {
    var image = ImageConfig()
    guard let config else { return image }
    image.user = config.User ?? ""
    image.exposedPorts = (config.ExposedPorts ?? [:]).keys.sorted()
    image.env = config.Env ?? []
    image.entrypoint = config.Entrypoint ?? []
    image.cmd = config.Cmd ?? []
    image.volumes = (config.Volumes ?? [:]).keys.sorted()
    image.workingDir = config.WorkingDir ?? ""
    image.labels = config.Labels ?? [:]
    image.stopSignal = config.StopSignal
    image.shell = config.Shell ?? []
    image.onbuild = config.OnBuild ?? []
    if let health = config.Healthcheck {
      var check = HealthConfig()
      check.test = health.Test
      check.interval = health.Interval.map { Nanoseconds($0) }
      check.timeout = health.Timeout.map { Nanoseconds($0) }
      check.startPeriod = health.StartPeriod.map { Nanoseconds($0) }
      check.startInterval = health.StartInterval.map { Nanoseconds($0) }
      check.retries = health.Retries
      image.healthcheck = check
    }
    return image
  }

  /// - Parameter wanted: the architecture that it must be for; nil: any.
  func diffIDs(_ object: String, for wanted: String? = hostArchitecture) throws -> [Digest] {
    if let os, !os.isEmpty, os != "linux" { throw ImageError(.unsupported, "read", object, "it is for \(os), not for linux") }
    if let architecture, !architecture.isEmpty, let wanted, architecture != wanted {
      let asked = wanted == hostArchitecture ? "this host is \(wanted)" : "\(wanted) was asked for"
      throw ImageError(.unsupported, "read", object, "it is for \(architecture), \(asked)")
    }
    return try (rootfs.diff_ids ?? []).map { text in
      guard let digest = Digest(text) else {
        throw ImageError(.unsupported, "read", object, "the diff id '\(text.prefix(80))' is not a sha256 digest")
      }
      return digest
    }
  }
}

/// One image of `docker save`.
struct SavedImage: Codable {
  var Config: String
  var RepoTags: [String]?
  /// nil, a null of docker's: the image has none.
  var Layers: [String]?
}

/// `index.json` of the store itself.
struct IndexDocument: Codable {
  struct Entry: Codable, Hashable {
    /// Of the manifest for this platform.
    var manifest: String
    /// What the name led to, when that was an index.
    var requested: String?
    /// It came from a registry, and can be had there again.
    var pulled: Bool?
    /// Seconds since 1970 of the last container made of it, or of its coming.
    var used: Int64?
  }
  var version = 1
  var images: [String: Entry] = [:]
}

func decode<T: Decodable>(_ bytes: [UInt8], _ object: String) throws -> T {
  do {
    return try JSONDecoder().decode(T.self, from: Data(bytes))
  } catch {
    throw ImageError(.corrupt, "read", object, "it is not the JSON it should be (\(reason(error)))")
  }
}

func encode(_ value: some Encodable) throws -> [UInt8] {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
  return Array(try encoder.encode(value))
}

private func reason(_ error: any Error) -> String {
  switch error {
  case DecodingError.keyNotFound(let key, _): "'\(key.stringValue)' is missing"
  case DecodingError.typeMismatch(_, let context), DecodingError.valueNotFound(_, let context):
    "'\(context.codingPath.map(\.stringValue).joined(separator: "."))' has the wrong type"
  default: "it cannot be parsed"
  }
}
