// The JSON shapes of the public API: Docker Engine API 1.45 where Docker has the object, `/orch/v1` shapes in the same style for
// the rest. Pure: Codable values and the frames of streams. Knows no HTTP, no state, no clock.
import Model

public enum APIVersion {
  /// What `/_ping` advertises; clients negotiate down to it.
  public static let current = "1.45"
  public static let minimum = "1.24"
}

/// What every error answer carries, with Content-Type exactly `application/json`.
public struct ErrorResponse: Codable, Hashable, Sendable {
  public var message: String
  public init(message: String) { self.message = message }
}

/// Docker's `Version`: the Raft index of the last change; a stale one is refused with "update out of sequence".
public struct ObjectVersion: Codable, Hashable, Sendable {
  public var index: UInt64
  public init(index: UInt64) { self.index = index }
  enum CodingKeys: String, CodingKey { case index = "Index" }
}

public struct ServiceCreateResponse: Codable, Hashable, Sendable {
  public var id: String
  public var warnings: [String]?
  public init(id: String, warnings: [String]? = nil) {
    self.id = id
    self.warnings = warnings
  }
  enum CodingKeys: String, CodingKey { case id = "ID", warnings = "Warnings" }
}

public struct ServiceUpdateResponse: Codable, Hashable, Sendable {
  public var warnings: [String]?
  public init(warnings: [String]? = nil) { self.warnings = warnings }
  enum CodingKeys: String, CodingKey { case warnings = "Warnings" }
}

public struct NetworkCreateResponse: Codable, Hashable, Sendable {
  public var id: String
  public var warning: String
  public init(id: String, warning: String = "") {
    self.id = id
    self.warning = warning
  }
  enum CodingKeys: String, CodingKey { case id = "Id", warning = "Warning" }
}

/// One line of `/events`. `status`, `id` and `from` are what clients older than 1.22 read.
public struct Event: Codable, Hashable, Sendable {
  public struct Actor: Codable, Hashable, Sendable {
    public var id: String
    public var attributes: [String: String]
    public init(id: String, attributes: [String: String]) {
      self.id = id
      self.attributes = attributes
    }
    enum CodingKeys: String, CodingKey { case id = "ID", attributes = "Attributes" }
  }
  public var type: String
  public var action: String
  public var actor: Actor
  public var scope: String
  /// Seconds, and nanoseconds, since 1970.
  public var time: Int64
  public var timeNano: Int64

  public init(type: String, action: String, actor: Actor, scope: String = "swarm", at instant: Timestamp) {
    self.type = type
    self.action = action
    self.actor = actor
    self.scope = scope
    time = instant.nanoseconds / 1_000_000_000
    timeNano = instant.nanoseconds
  }
  enum CodingKeys: String, CodingKey { case type = "Type", action = "Action", actor = "Actor", scope, time, timeNano }
}
