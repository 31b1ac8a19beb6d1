import Glibc
import Identity
import Logging
import Model
import NIOCore
import NIOPosix
import NIOSSL
import Synchronization

/// Accepts connections of the cluster's nodes, and of joiners without certificate (for methods that allow strangers).
public final class TransportServer: Sendable {
  /// "HOST:PORT" it is bound to; the port is real when 0 was asked for.
  public let address: String
  public let port: Int
  private let channel: any Channel
  private let accepted: Accepted

  private final class Accepted: Sendable {
    /// Nil once the server is closed.
    let connections = Mutex<[ObjectIdentifier: Connection]?>([:])
    let count = Mutex(0)
  }
  private static let stopping = "this daemon is stopping"

  /// Listens on `host` (an address or a name) and `port`.
  public static func bind(
    host: String, port: Int, credentials: Credentials, router: Router, log: Logger, group: any EventLoopGroup = MultiThreadedEventLoopGroup.singleton
  ) async throws -> TransportServer {
    let accepted = Accepted()
    let bootstrap = ServerBootstrap(group: group)
      .serverChannelOption(.backlog, value: 256)
      .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          let allowed = accepted.count.withLock { count in
            count += 1
            return count <= Limits.member.connections
          }
          channel.closeFuture.whenComplete { _ in accepted.count.withLock { $0 -= 1 } }
          guard allowed else { throw TransportError.closed("more than \(Limits.member.connections) connections") }
          let side = FrameHandler.Side(
            dialled: false, cluster: credentials.identity.cluster, accepts: { _ in nil }, router: router, log: log,
            ready: { result in
              guard case .success(let connection) = result else { return }
              let isKept = accepted.connections.withLock {
                $0?.updateValue(connection, forKey: ObjectIdentifier(connection)); return $0 != nil
              }
              // It shook hands while the server closed.
              guard isKept else { return connection.close(stopping) }
              channel.closeFuture.whenComplete { _ in accepted.connections.withLock { _ = $0?.removeValue(forKey: ObjectIdentifier(connection)) } }
            })
          let pipeline = channel.pipeline.syncOperations
          try pipeline.addHandler(NIOSSLServerHandler(context: credentials.server))
          try pipeline.addHandler(FrameHandler(side))
        }
      }
      .childChannelOption(.socketOption(.tcp_nodelay), value: 1)
      .childChannelOption(userTimeout, value: userTimeoutMilliseconds)
    do {
      let channel = try await bootstrap.bind(host: host, port: port).get()
      return TransportServer(channel, host: host, accepted)
    } catch {
      throw TransportError.bind(address: "\(host):\(port)", cause: explain(error))
    }
  }

  /// Whether the address can be listened on, before something is begun that needs it.
  public static func probe(host: String, port: Int) async throws {
    do {
      let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
        .serverChannelOption(.socketOption(.so_reuseaddr), value: 1).bind(host: host, port: port).get()
      try await channel.close()
    } catch {
      throw TransportError.bind(address: "\(host):\(port)", cause: explain(error))
    }
  }

  private init(_ channel: any Channel, host: String, _ accepted: Accepted) {
    self.channel = channel
    self.accepted = accepted
    port = channel.localAddress?.port ?? 0
    address = "\(channel.localAddress?.ipAddress ?? host):\(port)"
  }

  /// Those that are open now.
  public var connections: [Connection] { accepted.connections.withLock { Array(($0 ?? [:]).values) } }

  /// Accepts no more, and ends what is open.
  public func close() async {
    try? await channel.close()
    let open = accepted.connections.withLock { connections in
      defer { connections = nil }
      return connections ?? [:]
    }
    for connection in open.values { connection.close(Self.stopping) }
  }
}

/// Linux tcp(7) TCP_USER_TIMEOUT: sent data that is not acknowledged for this long breaks the connection.
let userTimeout = ChannelOptions.Types.SocketOption(level: .tcp, name: .init(rawValue: 18))
let userTimeoutMilliseconds: SocketOptionValue = 3000
