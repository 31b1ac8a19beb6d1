import Model

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// What `POST /secrets/create` and `POST /configs/create` take, what an update sends, and what a stack declares (Docker's SecretSpec and
/// ConfigSpec).
public struct FileSpec: Codable, Hashable, Sendable {
  public struct Driver: Codable, Hashable, Sendable {
    public var name: String?
    enum CodingKeys: String, CodingKey { case name = "Name" }
  }
  public var name: String
  public var labels: [String: String]?
  /// Base64 in JSON. Absent: an external store's, or a secret that is shown.
  public var data: Data?
  public var driver: Driver?
  public var templating: Driver?
  public init(name: String, labels: [String: String]? = nil, data: [UInt8]? = nil) {
    self.name = name
    self.labels = labels
    self.data = data.map { Data($0) }
  }
  enum CodingKeys: String, CodingKey { case name = "Name", labels = "Labels", data = "Data", driver = "Driver", templating = "Templating" }
}

/// A secret (without its content) or a config.
public struct FileInspect: Codable, Hashable, Sendable {
  public var id: String
  public var version: ObjectVersion
  public var createdAt: Timestamp
  public var updatedAt: Timestamp
  public var spec: FileSpec
  public init(_ file: StoredFile) {
    id = file.id.description
    version = ObjectVersion(index: file.version)
    createdAt = file.createdAt
    updatedAt = file.updatedAt
    spec = FileSpec(name: file.name, labels: file.labels, data: file.kind == .config ? file.data : nil)
  }
  enum CodingKeys: String, CodingKey { case id = "ID", version = "Version", createdAt = "CreatedAt", updatedAt = "UpdatedAt", spec = "Spec" }
}

public struct FileCreateResponse: Codable, Hashable, Sendable {
  public var id: String
  public init(id: String) { self.id = id }
  enum CodingKeys: String, CodingKey { case id = "ID" }
}
