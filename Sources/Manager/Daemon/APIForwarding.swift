import ControlAPI
import FoundationEssentials
import Glibc
import NIOCore
import Transport
import Wire

/// A whole request of the public API over a stream between managers: head, body, and the same back, both ways at once.
enum APIForwarding {
  private static let chunkMax = 128 << 10

  /// On the follower; on any manager that hands a host's own requests to its agent (`hostAPI`).
  static func ask(_ connection: Connection, _ request: APIRequest, _ method: Method = .forwardAPI) async throws -> APIResponse {
    let stream = try await connection.open(method)
    var head = WireAPIMessage()
    head.request.method = request.method
    head.request.uri = request.uri
    head.request.headers = request.headers.map(header)
    try await stream.send(head)
    let upload = Task {
      do {
        try await send(request.body, on: stream)
        stream.finish()
      } catch {
        stream.cancel(StreamError(.cancelled, "the client went away"))
      }
    }
    let exchange = Exchange(stream: stream, upload: upload)
    do {
      guard case .response(let answer)? = try await stream.receive(WireAPIMessage.self)?.kind else {
        throw StreamError(.internalError, "it ended without an answer")
      }
      let body = APIBody(stream: Inbound(stream: stream, exchange: exchange))
      return APIResponse(status: Int(answer.status), headers: answer.headers.map { APIHeader($0.name, $0.value) }, body: body)
    } catch {
      exchange.end()
      throw error
    }
  }

  /// On the leader.
  static func serve(_ stream: TransportStream, _ respond: @Sendable (APIRequest) async -> APIResponse) async throws {
    guard case .request(let head)? = try await stream.receive(WireAPIMessage.self)?.kind else {
      throw StreamError(.invalidArgument, "a forwarded request begins with its head")
    }
    let request = APIRequest(
      method: head.method, uri: head.uri, headers: head.headers.map { APIHeader($0.name, $0.value) },
      body: APIBody(stream: Inbound(stream: stream, exchange: nil)))
    let response = await respond(request)
    var answer = WireAPIMessage()
    answer.response.status = UInt32(response.status)
    answer.response.headers = response.headers.map(header)
    try await stream.send(answer)
    try await send(response.body, on: stream)
    stream.finish()
  }

  private static func header(_ header: APIHeader) -> WireAPIHeader {
    WireAPIHeader.with { ($0.name, $0.value) = (header.name, header.value) }
  }

  private static func send(_ body: APIBody, on stream: TransportStream) async throws {
    for try await buffer in body {
      var rest = buffer
      while let part = rest.readSlice(length: min(rest.readableBytes, chunkMax)), part.readableBytes > 0 {
        var message = WireAPIMessage()
        message.data = Data(part.readableBytesView)
        try await stream.send(message)
      }
    }
  }

  /// What was asked, until its answer is read or nobody reads it any more: then the other side gives it up.
  private final class Exchange: Sendable {
    private let stream: TransportStream
    private let upload: Task<Void, Never>
    init(stream: TransportStream, upload: Task<Void, Never>) { (self.stream, self.upload) = (stream, upload) }
    deinit { end() }
    /// Harmless when both are over.
    func end() {
      upload.cancel()
      stream.cancel()
    }
  }

  /// The rest of a stream as a body.
  private struct Inbound: AsyncSequence, Sendable {
    let stream: TransportStream
    let exchange: Exchange?
    struct AsyncIterator: AsyncIteratorProtocol {
      let inbound: Inbound
      func next() async throws -> ByteBuffer? {
        do {
          while let message = try await inbound.stream.receive(WireAPIMessage.self) {
            if case .data(let data)? = message.kind, !data.isEmpty { return ByteBuffer(bytes: data) }
          }
          inbound.exchange?.end()
          return nil
        } catch {
          inbound.exchange?.end()
          throw error
        }
      }
    }
    func makeAsyncIterator() -> AsyncIterator { AsyncIterator(inbound: self) }
  }
}
