// The client of the public API: one type for calls, streams and exec; what people read (tables, progress) is made from its answers by
// pure values beside it. Talks to the public API alone: it knows no daemon's insides, and reads no environment itself.
import API
import AsyncHTTPClient
import Model
import NIOCore
import NIOPosix

/// What went wrong, as a sentence for people.
public enum ClientError: Error, Hashable, Sendable, CustomStringConvertible {
  case usage(String)
  case cannotConnect(String)
  /// The manager answered with an error: its code and message.
  case refused(status: Int, message: String)
  case broken(String)

  public var description: String {
    switch self {
    case .usage(let text), .cannotConnect(let text), .broken(let text): text
    case .refused(404, let message): message + Self.whereToLook(message)
    case .refused(_, let message): message
    }
  }
  /// The manager's words are Docker's ("service web not found") and say nothing of what to do.
  private static func whereToLook(_ message: String) -> String {
    guard message.hasSuffix(" not found"), let kind = message.split(separator: " ").first else { return "" }
    let commands = [
      "service": "orch services", "task": "orch ps", "node": "orch nodes", "network": "orch networks", "stack": "orch stacks",
      "volume": "orch volumes", "secret": "orch secrets", "config": "orch configs",
    ]
    return commands[String(kind)].map { ": see \($0)" } ?? ""
  }
  public var status: Int? {
    if case .refused(let status, _) = self { return status }
    return nil
  }
  /// Somebody else's change came first: what was read is of before. Docker answers 500 for it, and its clients look for the words.
  public var isOutOfSequence: Bool {
    if case .refused(_, let message) = self { message.contains("update out of sequence") } else { false }
  }
  /// Trying again may help: no leader, or the manager is restarting.
  public var isTransient: Bool {
    switch self {
    case .cannotConnect, .broken: true
    case .refused(let status, _): status == 503
    case .usage: false
    }
  }
}

public struct APIClient: Sendable {
  public let endpoint: Endpoint
  private static let http: HTTPClient = {
    var configuration = HTTPClient.Configuration()
    configuration.timeout.connect = .seconds(5)
    configuration.redirectConfiguration = .disallow
    // A manager that is not there is told of at once.
    configuration.connectionPool.retryConnectionEstablishment = false
    return HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
  }()

  /// Seconds for which `get` waits for its answer. What takes long is a stream, or is asked for by POST.
  private let patience: Int

  public init(endpoint: Endpoint, patience: Int = 60) { (self.endpoint, self.patience) = (endpoint, patience) }

  /// Of an answer; read once.
  public typealias Body = HTTPClientResponse.Body
  public typealias Query = [(name: String, value: String)]

  // MARK: - Calls

  public func get<Answer: Decodable>(_ path: String, _ query: Query = [], as type: Answer.Type = Answer.self) async throws -> Answer {
    try decode(type, try await call("GET", path, query, within: patience))
  }

  public func post<Answer: Decodable>(
    _ path: String, _ query: Query = [], _ body: some Encodable, headers: [(name: String, value: String)] = [], as type: Answer.Type = Answer.self
  ) async throws -> Answer {
    try decode(type, try await call("POST", path, query, JSONText.encode(body), headers: headers))
  }

  /// The answer's body; an error status is thrown.
  @discardableResult
  public func call(
    _ method: String, _ path: String, _ query: Query = [], _ body: [UInt8]? = nil, headers: [(name: String, value: String)] = [],
    within seconds: Int? = nil
  ) async throws -> [UInt8] {
    let stream = try await open(
      method, path, query, body.map { .bytes(ByteBuffer(bytes: $0)) }, type: "application/json", headers: headers, within: seconds)
    do {
      let buffer = try await stream.body.collect(upTo: 256 << 20)
      return Array(buffer.readableBytesView)
    } catch { throw broken(error) }
  }

  /// GET of a stream: its parts as they come.
  public func stream(_ path: String, _ query: Query = []) async throws -> HTTPClientResponse.Body {
    try await open("GET", path, query, nil, type: nil).body
  }

  /// GET of a stream, with one header of the answer.
  public func stream(_ path: String, _ query: Query = [], header: String) async throws -> (header: String?, body: HTTPClientResponse.Body) {
    let response = try await open("GET", path, query, nil, type: nil)
    return (response.headers.first(name: header), response.body)
  }

  /// POST of a small body that is answered with a stream.
  public func stream(_ path: String, posting body: some Encodable) async throws -> HTTPClientResponse.Body {
    try await open("POST", path, [], .bytes(ByteBuffer(bytes: JSONText.encode(body))), type: "application/json").body
  }

  /// POST without a body, with headers of its own, that is answered with a stream.
  public func stream(posting path: String, _ query: Query = [], headers: [(name: String, value: String)]) async throws -> HTTPClientResponse.Body {
    try await open("POST", path, query, nil, type: nil, headers: headers).body
  }

  /// POST of a stream; the answer comes when the manager gives it, maybe before the body has ended.
  public func upload<Source: AsyncSequence & Sendable>(
    _ path: String, _ query: Query = [], _ body: Source, length: Int64? = nil, type: String,
    headers: [(name: String, value: String)] = []
  ) async throws -> HTTPClientResponse.Body where Source.Element == ByteBuffer {
    try await open("POST", path, query, .stream(body, length: length.map { .known($0) } ?? .unknown), type: type, headers: headers).body
  }

  private func open(
    _ method: String, _ path: String, _ query: Query, _ body: HTTPClientRequest.Body?, type: String?,
    headers: [(name: String, value: String)] = [], within seconds: Int? = nil
  ) async throws -> HTTPClientResponse {
    var uri = endpoint.base + path
    if !query.isEmpty { uri += "?" + query.map { "\(percentEncoded($0.name))=\(percentEncoded($0.value))" }.joined(separator: "&") }
    var request = HTTPClientRequest(url: uri)
    request.method = .RAW(value: method)
    request.headers.add(name: "User-Agent", value: "orch")
    request.headers.add(name: "Host", value: "orch")
    if let type { request.headers.add(name: "Content-Type", value: type) }
    for header in headers { request.headers.add(name: header.name, value: header.value) }
    request.body = body
    do { request.tlsConfiguration = try endpoint.tls() } catch {
      throw ClientError.usage("the certificates in ORCH_CERT_PATH cannot be read (\(error)): it needs ca.pem, cert.pem and key.pem")
    }
    let response: HTTPClientResponse
    let deadline = seconds.map { NIODeadline.now() + .seconds(Int64($0)) } ?? .distantFuture
    do { response = try await Self.http.execute(request, deadline: deadline) } catch let error as CancellationError { throw error } catch {
      throw cannotConnect(error)
    }
    guard response.status.code >= 400 else { return response }
    let text = (try? await response.body.collect(upTo: 1 << 20)).map { Array($0.readableBytesView) } ?? []
    let message = (try? JSONText.decode(ErrorResponse.self, text))?.message ?? String(decoding: text, as: UTF8.self)
    throw ClientError.refused(status: Int(response.status.code), message: message.isEmpty ? "the manager answered \(response.status)" : message)
  }

  private func decode<Answer: Decodable>(_ type: Answer.Type, _ bytes: [UInt8]) throws -> Answer {
    do { return try JSONText.decode(type, bytes) } catch {
      throw ClientError.broken("\(endpoint) answered with something else than \(type): \(error). Is it a manager of orch?")
    }
  }

  private func broken(_ error: any Error) -> any Error {
    error is CancellationError
      ? error : ClientError.broken("the connection to \(endpoint) broke (\(error)): try again, or set ORCH_HOST to another manager")
  }

  private func cannotConnect(_ error: any Error) -> ClientError {
    if error as? HTTPClientError == .deadlineExceeded {
      return .cannotConnect("the manager at \(endpoint) did not answer: set ORCH_HOST to another, and look at this one's log")
    }
    let cause: String
    let errno = (error as? IOError)?.errnoCode
    switch (endpoint, errno) {
    case (.unix, ENOENT): cause = "there is no such socket"
    case (.unix(let path), EACCES): cause = "permission denied: use sudo, or join the group that owns \(path)"
    case (_, ECONNREFUSED): cause = "nobody listens there"
    default: cause = "\(error)"
    }
    switch endpoint {
    // The other side's alert (RFC 8446 6.2) says no more than this.
    case .https(_, _, let folder) where cause.contains("ALERT_CERTIFICATE") || cause.contains("ALERT_BAD_CERTIFICATE"):
      return .cannotConnect(
        "the manager at \(endpoint) refuses the certificate in \(folder): it is no user's, of another cluster, or its time is over; `orch cert create NAME --out DIR`, on a manager's host, makes one"
      )
    case .https(_, _, let folder) where cause.contains("CERTIFICATE_VERIFY_FAILED") || cause.contains("unableToValidateCertificate"):
      return .cannotConnect(
        "the manager at \(endpoint) is not of the cluster whose authority is \(folder)/ca.pem, or its certificate does not name this address (\(cause))"
      )
    case .http where error as? HTTPClientError == .remoteConnectionClosed:
      return .cannotConnect(
        "\(endpoint) closes the connection: if it serves TLS, set ORCH_CERT_PATH to the folder with ca.pem, cert.pem and key.pem, and use tcp:// or https://"
      )
    default: break
    }
    return .cannotConnect(
      "cannot connect to a manager at \(endpoint) (\(cause)). Is orch-manager running there? For another one set ORCH_HOST; for the local cluster run eval \"$(orch dev env)\""
    )
  }
}
