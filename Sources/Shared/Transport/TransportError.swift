import Wire

/// Why there is no (longer a) connection.
public enum TransportError: Error, Hashable, Sendable, CustomStringConvertible {
  case connect(address: String, cause: String)
  case bind(address: String, cause: String)
  case closed(String)
  case timeout(Method, Duration)
  /// Bytes of a message above `Limits.message`.
  case messageTooLarge(Method, Int)

  public var description: String {
    switch self {
    case .connect(let address, let cause): "connect to \(address): \(cause)"
    case .bind(let address, let cause): "listen on \(address): \(cause)"
    case .closed(let cause): "connection closed: \(cause)"
    case .timeout(let method, let span): "\(method): no answer after \(span)"
    case .messageTooLarge(let method, let size): "\(method): a message of \(size) bytes; at most \(Limits.message) are possible"
    }
  }
}

/// How a stream ended other than by both sides having said everything; what a handler throws arrives as this at the opener.
public struct StreamError: Error, Hashable, Sendable, CustomStringConvertible {
  public enum Code: UInt32, Sendable {
    /// The other side is done and reads no more.
    case closed = 0
    case cancelled = 1
    case invalidArgument = 2
    case notFound = 3
    case permissionDenied = 4
    case failedPrecondition = 5
    /// Try again, perhaps elsewhere.
    case unavailable = 6
    case resourceExhausted = 7
    /// This daemon has no such method.
    case unimplemented = 8
    case internalError = 9
    /// `detail`: the leader's "HOST:PORT", or empty when there is none now.
    case notLeader = 10
    case timeout = 11
    case unknown = 12
  }
  public var code: Code
  public var message: String
  public var detail: String

  public init(_ code: Code, _ message: String, detail: String = "") {
    self.code = code
    self.message = message
    self.detail = detail
  }

  public var description: String { message.isEmpty ? "\(code)" : message }

  init(_ failure: WireStreamFailure) {
    self.init(Code(rawValue: failure.code) ?? .unknown, failure.message, detail: failure.detail)
  }

  var wire: WireStreamFailure {
    var failure = WireStreamFailure()
    failure.code = code.rawValue
    failure.message = String(message.prefix(2048))
    failure.detail = String(detail.prefix(256))
    return failure
  }
}
