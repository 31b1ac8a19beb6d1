/// Operation, object, cause, and what the user can do.
public struct ImageError: Error, Hashable, Sendable, CustomStringConvertible {
  public enum Kind: Hashable, Sendable {
    /// The registry or the store has no such image.
    case notFound
    /// The registry wants other credentials.
    case unauthorized
    /// Content that is not what its digest, size or format says; nothing of it is kept.
    case corrupt
    /// Content that tries to leave its place, or exceeds a bound; nothing of it is kept.
    case hostile
    /// A format, compression or media type that orch does not read.
    case unsupported
    /// A name that is none.
    case invalidReference
    case inUse
    case network
    case system
  }
  public var kind: Kind
  public var operation: String
  public var object: String
  public var cause: String
  public init(_ kind: Kind, _ operation: String, _ object: String, _ cause: String) {
    self.kind = kind
    self.operation = operation
    self.object = object
    self.cause = cause
  }
  public var description: String { "\(operation) \(object): \(cause)" }
}
