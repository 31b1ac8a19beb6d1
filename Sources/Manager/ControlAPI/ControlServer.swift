import Hummingbird
import HummingbirdCore
import HummingbirdTLS
import Logging
import NIOCore
import NIOPosix
import NIOSSL

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Serves a ``ControlAPI`` on a unix socket or on TCP with mutual TLS. One server an endpoint; `run` returns on graceful shutdown.
public struct ControlServer: Sendable {
  public enum Endpoint: Sendable {
    /// Made with mode 0660. A file left by a dead daemon is replaced; one that answers is somebody's, and `run` throws.
    case unix(path: String)
    /// nil only for tests on loopback.
    case tcp(host: String, port: Int, tls: TLS?)
  }

  /// Mutual TLS: the configuration asks for a client's certificate, `admit` alone decides whether it is let in (DER, its own first).
  public struct TLS: Sendable {
    var configuration: TLSConfiguration
    var admit: @Sendable ([[UInt8]]) async -> Bool
    public init(_ configuration: TLSConfiguration, admit: @escaping @Sendable ([[UInt8]]) async -> Bool) {
      self.configuration = configuration
      self.admit = admit
    }
  }

  let api: ControlAPI
  let endpoint: Endpoint
  let logger: Logger
  let onReady: @Sendable (SocketAddress?) async -> Void

  /// - Parameter onReady: called once with the bound address.
  public init(_ api: ControlAPI, on endpoint: Endpoint, logger: Logger, onReady: @escaping @Sendable (SocketAddress?) async -> Void = { _ in }) {
    self.api = api
    self.endpoint = endpoint
    self.logger = logger
    self.onReady = onReady
  }

  public enum Problem: Error, CustomStringConvertible {
    case inUse(path: String)
    case notASocket(path: String)
    public var description: String {
      switch self {
      case .inUse(let path): "listen on \(path): another daemon answers there; stop it or choose another socket"
      case .notASocket(let path): "listen on \(path): the file exists and is no socket; move it away or choose another path"
      }
    }
  }

  /// Serves until the surrounding service group shuts down or the task is cancelled.
  public func run() async throws {
    let address: BindAddress
    let http = HTTPServerBuilder.http1(configuration: .init(additionalChannelHandlers: [ClientWatch()]))
    var builder = http
    switch endpoint {
    case .unix(let path):
      try await Self.clear(path)
      address = .unixDomainSocket(path: path)
    case .tcp(let host, let port, let tls):
      address = .hostname(host, port: port)
      if let tls {
        builder = try .tls(
          http,
          configuration: TLSChannelConfiguration(tlsConfiguration: tls.configuration) { chain in
            await tls.admit(chain.map { (try? $0.toDERBytes()) ?? [] }) ? .certificateVerified : .failed
          })
      }
    }
    let endpoint = endpoint
    let onReady = onReady
    var quiet = logger
    quiet.logLevel = max(logger.logLevel, .notice)
    let application = Application(
      responder: CallbackResponder<ConnectionContext> { request, context in try await Self.respond(to: request, on: context.channel, api) },
      server: builder,
      configuration: ApplicationConfiguration(address: address, serverName: "orch"),
      onServerRunning: { channel in
        // Until here the mode is the umask's, in which nobody but the owner may write, that is connect.
        if case .unix(let path) = endpoint { _ = chmod(path, 0o660) }
        await onReady(channel.localAddress)
      }, logger: quiet)
    try await application.run()
  }

  private static func clear(_ path: String) async throws {
    var status = stat()
    guard lstat(path, &status) == 0 else { return }
    guard status.st_mode & S_IFMT == S_IFSOCK else { throw Problem.notASocket(path: path) }
    if let channel = try? await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton).connect(unixDomainSocketPath: path).get() {
      try? await channel.close()
      throw Problem.inUse(path: path)
    }
    unlink(path)
  }

  private static func respond(to request: Request, on channel: any Channel, _ api: ControlAPI) async throws -> Response {
    let response = await api.serve(
      APIRequest(
        method: request.method.rawValue, uri: request.head.path ?? "/",
        headers: request.headers.map { APIHeader($0.name.rawName, $0.value) }, body: APIBody(stream: request.body)))
    var headers = HTTPFields()
    for header in response.headers where header.hasValidName { headers[.init(header.name)!] = header.value }
    let status = HTTPResponse.Status(code: response.status)
    if let buffer = response.body.buffer {
      return Response(status: status, headers: headers, body: buffer.readableBytes == 0 ? .init() : .init(byteBuffer: buffer))
    }
    // A stream may be silent for long: the client's leaving must end it, and only a reader of the connection hears of that.
    // An exec reads its request itself.
    headers[.connection] = "close"
    let readsRequest = request.method == .post && !response.hasReadRequest
    let body = response.body
    return Response(
      status: status, headers: headers,
      body: ResponseBody { writer in
        if readsRequest {
          try await stream(body, to: writer, whileOpen: channel)
        } else {
          try await stream(body, of: request, to: writer)
        }
      })
  }

  /// Who reads the request may be waiting for somebody to take what came before (an exec whose process does not read), and then never comes to the end
  /// of a client that is gone: that is heard from the connection itself.
  private static func stream(_ body: APIBody, to writer: any ResponseBodyWriter, whileOpen channel: any Channel) async throws {
    nonisolated(unsafe) var writer = writer
    let closed = try await ClientWatch.closed(of: channel)
    try await withThrowingTaskGroup(of: Bool.self) { group in
      group.addTask {
        for try await part in body { try await writer.write(part) }
        return true
      }
      group.addTask {
        for await _ in closed {}
        return false
      }
      // What feeds the body ends with its reader.
      let isWhole = try await group.next() ?? false
      group.cancelAll()
      if !isWhole { throw CancellationError() }
    }
    try await writer.finish(nil)
  }

  private static func stream(_ body: APIBody, of request: Request, to writer: any ResponseBodyWriter) async throws {
    nonisolated(unsafe) var writer = writer
    try await request.body.consumeWithCancellationOnInboundClose { rest in
      // Nobody reads what is left of the request. Said so, or the library ends the process (a precondition of NIO's sequences) when the
      // response is over before it has seen the request's end, or the client leaves in between.
      _ = rest.makeAsyncIterator()
      for try await part in body { try await writer.write(part) }
      try await writer.finish(nil)
    }
  }
}

extension APIHeader {
  /// A token of RFC 9110 5.6.2.
  fileprivate var hasValidName: Bool {
    !name.isEmpty
      && name.utf8.allSatisfy {
        (48...57).contains($0) || (65...90).contains($0) || (97...122).contains($0) || "!#$%&'*+-.^_`|~".utf8.contains($0)
      }
  }
}
