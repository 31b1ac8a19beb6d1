import Model

// What Docker's API says of images (Engine API v1.45, "Images").

/// The part of an image's configuration that containers take over; the same keys as in the OCI image specification's config.md.
public struct ImageSettings: Codable, Hashable, Sendable {
  public struct Nothing: Codable, Hashable, Sendable { public init() {} }
  public struct Health: Codable, Hashable, Sendable {
    public var Test: [String]?
    public var Interval: Int64?
    public var Timeout: Int64?
    public var StartPeriod: Int64?
    public var StartInterval: Int64?
    public var Retries: Int?
  }
  public var User: String?
  public var ExposedPorts: [String: Nothing]?
  public var Env: [String]?
  public var Entrypoint: [String]?
  public var Cmd: [String]?
  public var Volumes: [String: Nothing]?
  public var WorkingDir: String?
  public var Labels: [String: String]?
  public var StopSignal: String?
  public var Healthcheck: Health?
  public var Shell: [String]?
  public var OnBuild: [String]?
  public init() {}
}

/// `GET /images/NAME/json`.
public struct ImageInspect: Codable, Hashable, Sendable {
  public struct Root: Codable, Hashable, Sendable {
    public var kind = "layers"
    public var layers: [String]
    enum CodingKeys: String, CodingKey { case kind = "Type", layers = "Layers" }
  }
  public struct Driver: Codable, Hashable, Sendable {
    public var name = "overlay2"
    enum CodingKeys: String, CodingKey { case name = "Name" }
  }
  public var id: String
  public var repoTags: [String]
  public var repoDigests: [String]
  public var parent = ""
  public var comment = ""
  public var created: String
  public var author: String
  public var config: ImageSettings
  public var architecture: String
  public var variant: String?
  public var os: String
  public var size: Int64
  public var graphDriver = Driver()
  public var rootFS: Root
  /// orch's own: the host that was asked, and whether a container is made of the image there.
  public var host: String?
  public var inUse: Bool?

  enum CodingKeys: String, CodingKey {
    case id = "Id", repoTags = "RepoTags", repoDigests = "RepoDigests", parent = "Parent", comment = "Comment", created = "Created"
    case author = "Author", config = "Config", architecture = "Architecture", variant = "Variant", os = "Os", size = "Size"
    case graphDriver = "GraphDriver", rootFS = "RootFS", host = "Host", inUse = "InUse"
  }
}

/// A line of `GET /images/NAME/history`, newest first.
public struct ImageHistoryItem: Codable, Hashable, Sendable {
  public var id: String
  /// Seconds since 1970.
  public var created: Int64
  public var createdBy: String
  public var tags: [String]?
  public var size: Int64
  public var comment: String
  enum CodingKeys: String, CodingKey {
    case id = "Id", created = "Created", createdBy = "CreatedBy", tags = "Tags", size = "Size", comment = "Comment"
  }
}

/// The OCI image configuration, as far as these shapes show it.
public struct ImageDocument: Codable, Sendable {
  public struct History: Codable, Sendable {
    public var created: String?
    public var created_by: String?
    public var author: String?
    public var comment: String?
    public var empty_layer: Bool?
  }
  public struct Root: Codable, Sendable { public var diff_ids: [String] }
  public var architecture: String?
  public var variant: String?
  public var os: String?
  public var created: String?
  public var author: String?
  public var config: ImageSettings?
  public var rootfs: Root
  public var history: [History]?

  public func inspect(id: String, digest: String, names: [String], size: Int64, host: String?, inUse: Bool?) -> ImageInspect {
    ImageInspect(
      id: id, repoTags: names, repoDigests: Set(names.map { repository($0) + "@" + digest }).sorted(), created: created ?? "0001-01-01T00:00:00Z",
      author: author ?? "", config: config ?? ImageSettings(), architecture: architecture ?? "", variant: variant, os: os ?? "linux", size: size,
      rootFS: .init(layers: rootfs.diff_ids), host: host, inUse: inUse)
  }

  /// - Parameter sizes: of the layers, base first.
  public func historyItems(id: String, names: [String], sizes: [Int64]) -> [ImageHistoryItem] {
    var rest = sizes[...]
    var entries = history ?? []
    // A configuration without history still has layers.
    if entries.isEmpty { entries = sizes.map { _ in History() } }
    var items = entries.map { entry in
      ImageHistoryItem(
        id: "<missing>", created: (entry.created.flatMap { Timestamp($0) }?.nanoseconds ?? 0) / 1_000_000_000, createdBy: entry.created_by ?? "",
        tags: nil, size: entry.empty_layer == true ? 0 : rest.popFirst() ?? 0, comment: entry.comment ?? "")
    }
    items.reverse()
    if !items.isEmpty { (items[0].id, items[0].tags) = (id, names.isEmpty ? nil : names) }
    return items
  }
}

/// "web" of "web:1": the last colon that no slash follows begins the tag.
public func repository(_ name: String) -> String {
  guard let colon = name.lastIndex(of: ":"), !name[colon...].contains("/") else { return name }
  return String(name[..<colon])
}

/// A line of `GET /images/json`.
public struct ImageListItem: Codable, Hashable, Sendable {
  public var id: String
  public var parentID = ""
  public var repoTags: [String]
  public var repoDigests: [String]
  /// Seconds since 1970.
  public var created: Int64
  public var size: Int64
  public var sharedSize: Int64 = -1
  public var labels: [String: String] = [:]
  public var containers: Int64 = -1
  public init(id: String, repoTags: [String], repoDigests: [String], created: Int64, size: Int64) {
    (self.id, self.repoTags, self.repoDigests, self.created, self.size) = (id, repoTags, repoDigests, created, size)
  }
  enum CodingKeys: String, CodingKey {
    case id = "Id", parentID = "ParentId", repoTags = "RepoTags", repoDigests = "RepoDigests", created = "Created", size = "Size"
    case sharedSize = "SharedSize", labels = "Labels", containers = "Containers"
  }
}

/// One of the answers of `DELETE /images/NAME`, and of a prune.
public struct ImageDeleteItem: Codable, Hashable, Sendable {
  public var untagged: String?
  public var deleted: String?
  public init(untagged: String? = nil, deleted: String? = nil) { (self.untagged, self.deleted) = (untagged, deleted) }
  enum CodingKeys: String, CodingKey { case untagged = "Untagged", deleted = "Deleted" }
}

public struct ImagePruneReport: Codable, Hashable, Sendable {
  public var deleted: [ImageDeleteItem]
  public var spaceReclaimed: Int64
  public init(deleted: [ImageDeleteItem], spaceReclaimed: Int64) { (self.deleted, self.spaceReclaimed) = (deleted, spaceReclaimed) }
  enum CodingKeys: String, CodingKey { case deleted = "ImagesDeleted", spaceReclaimed = "SpaceReclaimed" }
}

/// A line of a pull's, push's or load's answer (moby, "jsonmessage").
public struct ImageMessage: Codable, Hashable, Sendable {
  public struct Detail: Codable, Hashable, Sendable {
    public var current: Int64?
    public var total: Int64?
    public init(current: Int64? = nil, total: Int64? = nil) { (self.current, self.total) = (current, total) }
  }
  public struct Failure: Codable, Hashable, Sendable {
    public var code: Int?
    public var message: String
    public init(code: Int? = nil, message: String) { (self.code, self.message) = (code, message) }
  }
  public struct Aux: Codable, Hashable, Sendable {
    public var Tag: String
    public var Digest: String
    public var Size: Int64
    public init(Tag: String, Digest: String, Size: Int64) { (self.Tag, self.Digest, self.Size) = (Tag, Digest, Size) }
  }
  public var status: String?
  public var stream: String?
  public var id: String?
  public var progressDetail: Detail?
  public var error: String?
  public var errorDetail: Failure?
  public var aux: Aux?
  public init(
    status: String? = nil, stream: String? = nil, id: String? = nil, progressDetail: Detail? = nil, error: String? = nil, errorDetail: Failure? = nil,
    aux: Aux? = nil
  ) {
    (self.status, self.stream, self.id, self.progressDetail) = (status, stream, id, progressDetail)
    (self.error, self.errorDetail, self.aux) = (error, errorDetail, aux)
  }
}
