import NIOCore

/// A request as parsed values: what the server shell makes of HTTP, and what a follower sends to its leader.
public struct APIRequest: Sendable {
  public var method: String
  /// Path and query, percent-encoded as it came.
  public var uri: String
  public var headers: [APIHeader]
  public var body: APIBody
  public init(method: String, uri: String, headers: [APIHeader] = [], body: APIBody = .empty) {
    self.method = method
    self.uri = uri
    self.headers = headers
    self.body = body
  }
  /// First value of the header; names are compared without case.
  public func header(_ name: String) -> String? { headers.first { $0.name.lowercased() == name.lowercased() }?.value }
}

public struct APIResponse: Sendable {
  public var status: Int
  public var headers: [APIHeader]
  public var body: APIBody
  /// The handler has read all of a POST's body, and its answer is a stream: the client's leaving ends it, as that of a GET does.
  public var hasReadRequest: Bool
  public init(status: Int, headers: [APIHeader] = [], body: APIBody = .empty, hasReadRequest: Bool = false) {
    self.status = status
    self.headers = headers
    self.body = body
    self.hasReadRequest = hasReadRequest
  }
}

public struct APIHeader: Hashable, Sendable {
  public var name: String
  public var value: String
  public init(_ name: String, _ value: String) {
    self.name = name
    self.value = value
  }
}

/// A body: bytes that are there, or a stream to be read once.
public struct APIBody: AsyncSequence, Sendable {
  public typealias Element = ByteBuffer
  enum Storage: Sendable {
    case buffer(ByteBuffer)
    case stream(@Sendable () -> Iterator)
  }
  let storage: Storage

  public static let empty = APIBody(ByteBuffer())
  public init(_ buffer: ByteBuffer) { storage = .buffer(buffer) }
  public init(bytes: some Sequence<UInt8>) { storage = .buffer(ByteBuffer(bytes: bytes)) }
  public init(string: String) { storage = .buffer(ByteBuffer(string: string)) }
  /// Iterated at most once.
  public init<Source: AsyncSequence & Sendable>(stream source: Source) where Source.Element == ByteBuffer {
    storage = .stream {
      nonisolated(unsafe) var iterator = source.makeAsyncIterator()
      return Iterator { try await iterator.next() }
    }
  }

  /// Set when the whole body is already there.
  public var buffer: ByteBuffer? {
    if case .buffer(let buffer) = storage { return buffer }
    return nil
  }

  public struct Iterator: AsyncIteratorProtocol {
    let read: () async throws -> ByteBuffer?
    init(_ read: @escaping () async throws -> ByteBuffer?) { self.read = read }
    public mutating func next() async throws -> ByteBuffer? { try await read() }
  }

  public func makeAsyncIterator() -> Iterator {
    switch storage {
    case .stream(let make): return make()
    case .buffer(let buffer):
      var rest: ByteBuffer? = buffer.readableBytes > 0 ? buffer : nil
      return Iterator {
        defer { rest = nil }
        return rest
      }
    }
  }

  /// The whole body. Throws 413 as soon as more than `limit` bytes have come.
  public func collect(upTo limit: Int) async throws -> ByteBuffer {
    var whole = ByteBuffer()
    for try await var part in self {
      guard whole.readableBytes + part.readableBytes <= limit else {
        throw APIError(413, "the request's body is over the limit of \(limit) bytes")
      }
      whole.writeBuffer(&part)
    }
    return whole
  }
}

/// An answer that is an error: Docker's code and text.
public struct APIError: Error, Hashable, Sendable, CustomStringConvertible {
  public var status: Int
  public var message: String
  public init(_ status: Int, _ message: String) {
    self.status = status
    self.message = message
  }
  public var description: String { message }
}
