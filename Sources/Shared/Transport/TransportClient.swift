import Identity
import Logging
import Model
import NIOCore
import NIOPosix
import NIOSSL
import Synchronization

/// Dials.
public enum TransportClient {
  /// Returns when both sides have accepted each other. The other side must be a manager of this cluster (`accepts` says otherwise).
  /// `router` answers the streams that the other side opens.
  public static func connect(
    host: String, port: Int, credentials: Credentials, router: Router = Router(), timeout: Duration = .seconds(5), log: Logger,
    accepts: @escaping @Sendable (PeerIdentity) -> String? = { $0.role == .manager ? nil : "the other side is a \($0.role.rawValue), not a manager" },
    group: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton
  ) async throws -> Connection {
    let cluster = credentials.identity.cluster
    return try await dial(host, port, timeout, group) { ready in
      FrameHandler.Side(
        dialled: true, cluster: cluster, accepts: { $0.map(accepts) ?? "the other side showed no certificate" }, router: router, log: log,
        ready: ready)
    } tls: { _ in
      try NIOSSLClientHandler(context: credentials.client, serverHostname: nil)
    }
  }

  /// For a node that has only a token: the other side must be a manager whose authority has the token's digest, which is verified before
  /// anything is sent. Only methods that allow strangers answer.
  public static func join(
    host: String, port: Int, credentials: JoinCredentials, timeout: Duration = .seconds(5), log: Logger,
    group: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton
  ) async throws -> Connection {
    try await dial(host, port, timeout, group) { ready in
      FrameHandler.Side(
        dialled: true, cluster: nil, strangerItself: true, accepts: { $0 == nil ? "the other side showed no certificate" : nil }, router: Router(),
        log: log, ready: ready)
    } tls: { heard in
      try NIOSSLClientHandler(
        context: credentials.client, serverHostname: nil,
        customVerificationCallback: credentials.verifier { heard.set("\($0)") })
    }
  }

  /// Hears why TLS refused the other side, where BoringSSL says only that it did.
  final class Reason: Sendable {
    private let text = Mutex<String?>(nil)
    func set(_ reason: String) { text.withLock { $0 = reason } }
    var value: String? { text.withLock { $0 } }
  }

  private static func dial(
    _ host: String, _ port: Int, _ timeout: Duration, _ group: any EventLoopGroup,
    side: @escaping @Sendable (@escaping @Sendable (Result<Connection, TransportError>) -> Void) -> FrameHandler.Side,
    tls: @escaping @Sendable (Reason) throws -> NIOSSLClientHandler
  ) async throws -> Connection {
    let address = "\(host):\(port)"
    let reason = Reason()
    let loop = group.next()
    let promise = loop.makePromise(of: Connection.self)
    let settled = Mutex(false)
    let settle: @Sendable (Result<Connection, any Error>) -> Void = { result in
      if settled.withLock({ settled in
        defer { settled = true }
        return !settled
      }) {
        promise.completeWith(result)
      } else if case .success(let connection) = result {
        connection.close("came too late")
      }
    }
    let bootstrap = ClientBootstrap(group: loop)
      .connectTimeout(TimeAmount(timeout))
      .channelOption(.socketOption(.tcp_nodelay), value: 1)
      .channelOption(userTimeout, value: userTimeoutMilliseconds)
      .channelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          let pipeline = channel.pipeline.syncOperations
          try pipeline.addHandler(tls(reason))
          try pipeline.addHandler(FrameHandler(side { settle($0.mapError { $0 as any Error }) }))
        }
      }
    let alarm = loop.scheduleTask(in: TimeAmount(timeout)) { settle(.failure(TransportError.closed("no answer within \(timeout)"))) }
    let dialling = bootstrap.connect(host: host, port: port)
    dialling.whenFailure { settle(.failure($0)) }
    defer { alarm.cancel() }
    return try await withTaskCancellationHandler {
      do { return try await promise.futureResult.get() } catch let error as CancellationError {
        throw error
      } catch {
        dialling.whenSuccess { $0.close(promise: nil) }
        if let heard = reason.value { throw TransportError.connect(address: address, cause: heard) }
        if case .closed(let cause) = error as? TransportError { throw TransportError.connect(address: address, cause: cause) }
        throw TransportError.connect(address: address, cause: explain(error))
      }
    } onCancel: {
      settle(.failure(CancellationError()))
      dialling.whenSuccess { $0.close(promise: nil) }
    }
  }
}
