import Model
@_exported import struct RegistryLogin.RegistryCredentials

/// What an agent may be asked to do with its images.
public enum ImageCommand: Sendable {
  /// `platform`: linux/ARCHITECTURE[/VARIANT]; nil: the host's own.
  case pull(name: String, platform: String?, RegistryCredentials?)
  case push(name: String, RegistryCredentials?)
  case tag(source: String, target: String)
  case remove(name: String, force: Bool)
  case inspect(name: String)
  /// `all`: images with a name, too. `before`: only what was used before.
  case prune(all: Bool, before: Timestamp?)
  case save(names: [String], oci: Bool)
}

/// What it answers with; the last is no progress and no data, unless something was saved.
public enum ImageEvent: Sendable {
  public enum Phase: Sendable { case waiting, downloading, unpacking, done, alreadyThere, uploading, mounted }
  case progress(layer: String, Phase, done: Int64, total: Int64)
  case data([UInt8])
  case image(ImageDetail)
  case removed(untagged: [String], deleted: [String], bytes: Int64)
  /// What was pulled or pushed.
  case digest(String)
}

public struct ImageDetail: Hashable, Sendable {
  public var names: [String]
  public var id: String
  public var digest: String
  /// JSON of the OCI image configuration.
  public var config: [UInt8]
  public var size: Int64
  /// Base first.
  public var layerSizes: [Int64]
  public var inUse: Bool
  public init(names: [String], id: String, digest: String, config: [UInt8], size: Int64, layerSizes: [Int64], inUse: Bool) {
    (self.names, self.id, self.digest, self.config) = (names, id, digest, config)
    (self.size, self.layerSizes, self.inUse) = (size, layerSizes, inUse)
  }
}
