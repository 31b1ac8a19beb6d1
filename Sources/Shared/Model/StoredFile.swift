/// A file that the cluster keeps for its services: a secret or a config. Its bytes never change; another content is another file.
public struct StoredFile: Hashable, Sendable {
  public enum Kind: String, Hashable, Sendable, Codable, CaseIterable {
    case secret, config

    /// Bytes of content must be fewer (swarmkit `api/validation`: MaxSecretSize, MaxConfigSize).
    public var sizeBound: Int { self == .secret ? 500 << 10 : 1000 << 10 }
    /// Where a name without a folder is found in a container.
    public var folder: String { self == .secret ? "/run/secrets/" : "/" }
  }

  public var kind: Kind
  public var id: FileID
  /// Unique among its kind.
  public var name: String
  public var labels: [String: String]
  /// Of a config: the content. Of a secret: the content as Identity sealed it; the open bytes exist in no state, log or snapshot.
  public var data: [UInt8]
  public var createdAt: Timestamp
  public var updatedAt: Timestamp
  public var version: UInt64

  public init(kind: Kind, id: FileID, name: String, labels: [String: String] = [:], data: [UInt8], createdAt: Timestamp) {
    self.kind = kind
    self.id = id
    self.name = name
    self.labels = labels
    self.data = data
    self.createdAt = createdAt
    self.updatedAt = createdAt
    self.version = 0
  }

  /// Its name among all that the cluster keeps.
  public struct Name: Hashable, Sendable {
    public var kind: Kind
    public var name: String
    public init(_ kind: Kind, _ name: String) {
      self.kind = kind
      self.name = name
    }
  }
  public var fullName: Name { Name(kind, name) }
}

/// What a service wants of a stored file, in the shape of Docker's SecretReference and ConfigReference without the kind's own keys.
public struct FileReference: Hashable, Sendable {
  public var kind: StoredFile.Kind
  public var target: FileTarget?
  /// The id's text; empty in what a client wrote by name alone.
  public var id: String
  public var name: String

  public init(kind: StoredFile.Kind, target: FileTarget?, id: String, name: String) {
    self.kind = kind
    self.target = target
    self.id = id
    self.name = name
  }

  /// Absolute path in the container.
  public var path: String {
    let name = target?.name.isEmpty == false ? target!.name : self.name
    return name.hasPrefix("/") ? name : kind.folder + name
  }
}

/// Docker's `File` of a reference.
public struct FileTarget: Codable, Hashable, Sendable {
  public var name: String
  /// Numbers as text; "" is "0".
  public var uid: String?
  public var gid: String?
  /// As chmod's; nil: 0444.
  public var mode: UInt32?
  public init(name: String, uid: String? = nil, gid: String? = nil, mode: UInt32? = nil) {
    self.name = name
    self.uid = uid
    self.gid = gid
    self.mode = mode
  }
  public static let defaultMode: UInt32 = 0o444
  enum CodingKeys: String, CodingKey { case name = "Name", uid = "UID", gid = "GID", mode = "Mode" }
}

extension ContainerSpec {
  public struct Secret: Codable, Hashable, Sendable {
    public var file: FileTarget?
    public var id: String?
    public var name: String?
    enum CodingKeys: String, CodingKey { case file = "File", id = "SecretID", name = "SecretName" }
  }
  public struct Config: Codable, Hashable, Sendable {
    public var file: FileTarget?
    public var id: String?
    public var name: String?
    enum CodingKeys: String, CodingKey { case file = "File", id = "ConfigID", name = "ConfigName" }
  }

  /// Secrets, then configs, in their order.
  public var files: [FileReference] {
    get {
      (secrets ?? []).map { FileReference(kind: .secret, target: $0.file, id: $0.id ?? "", name: $0.name ?? "") }
        + (configs ?? []).map { FileReference(kind: .config, target: $0.file, id: $0.id ?? "", name: $0.name ?? "") }
    }
    set {
      let secrets = newValue.filter { $0.kind == .secret }.map { Secret(file: $0.target, id: $0.id, name: $0.name) }
      let configs = newValue.filter { $0.kind == .config }.map { Config(file: $0.target, id: $0.id, name: $0.name) }
      self.secrets = secrets.isEmpty ? nil : secrets
      self.configs = configs.isEmpty ? nil : configs
    }
  }
}

extension ServiceSpec {
  public func uses(_ file: FileID) -> Bool {
    let id = file.description
    let container = taskTemplate.containerSpec
    return container.secrets?.contains { $0.id == id } == true || container.configs?.contains { $0.id == id } == true
  }
}
