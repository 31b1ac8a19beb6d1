import Glibc
import Identity
import Logging
import Model
import NIOCore
import NIOPosix
import NIOSSL
import NIOTLS
import Wire

/// The last handler of a channel, after TLS: bytes to frames, the greeting, the pulse.
final class FrameHandler: ChannelInboundHandler {
  typealias InboundIn = ByteBuffer

  static let version: UInt32 = 1

  /// What the two ends do differently.
  struct Side: Sendable {
    var dialled: Bool
    /// The cluster whose certificates are expected; nil for a joiner (its TLS has compared the token's digest).
    var cluster: ClusterID?
    /// The joiner's own limits are a stranger's.
    var strangerItself = false
    /// Only these may be at the other end; nil stands for no certificate.
    var accepts: @Sendable (PeerIdentity?) -> String?
    var router: Router
    var log: Logger
    /// Once: when the other side's greeting has arrived, or instead the failure.
    var ready: @Sendable (Result<Connection, TransportError>) -> Void
  }

  private let side: Side
  private var connection: Connection?
  private var greeted = false
  private var buffer = ByteBuffer()
  private var silentSeconds = 0
  private var pulse: RepeatedTask?
  private var deadline: Scheduled<Void>?
  private var cause: String?

  init(_ side: Side) { self.side = side }

  func handlerAdded(context: ChannelHandlerContext) {
    let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
    deadline = context.eventLoop.scheduleTask(in: .seconds(Limits.handshakeSeconds)) {
      let (handler, context) = bound.value
      if !handler.greeted { handler.end("no greeting within \(Limits.handshakeSeconds) s", context) }
    }
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    if case .handshakeCompleted = event as? TLSUserEvent { secured(context) }
    context.fireUserInboundEventTriggered(event)
  }

  /// TLS has verified the chain, if there is one.
  private func secured(_ context: ChannelHandlerContext) {
    var peer: PeerIdentity?
    do {
      if let certificate = try context.pipeline.syncOperations.nioSSL_peerCertificate() {
        peer = try PeerIdentity(verifiedDER: certificate.toDERBytes())
      }
    } catch {
      return end("the other side's \(error)", context)
    }
    if let cluster = side.cluster, let peer, peer.cluster != cluster {
      return end("the other side (\(peer)) belongs to cluster \(peer.cluster), this node to \(cluster)", context)
    }
    if let refusal = side.accepts(peer) { return end(refusal, context) }
    let limits: Limits = peer == nil || side.strangerItself ? .stranger : .member
    let connection = Connection(channel: context.channel, peer: peer, limits: limits, router: side.router, dialled: side.dialled, log: side.log)
    self.connection = connection
    // At once: a peer of another version must learn that even when what it sent ends the connection.
    connection.greet(.hello(version: Self.version))
    let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
    pulse = context.eventLoop.scheduleRepeatedTask(initialDelay: .seconds(1), delay: .seconds(1)) { _ in
      let (handler, context) = bound.value
      handler.beat(context)
    }
  }

  /// Counted in beats, not by a clock: a process that was stopped itself does not take its peers for dead.
  private func beat(_ context: ChannelHandlerContext) {
    silentSeconds += 1
    if silentSeconds > Limits.silentSeconds { return end("the other side was silent for \(Limits.silentSeconds) s", context) }
    connection?.ping()
  }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    var bytes = unwrapInboundIn(data)
    silentSeconds = 0
    // Before TLS is up nothing but TLS speaks, so there is a connection.
    guard let connection, cause == nil else { return }
    if buffer.readableBytes == 0 { buffer = bytes } else { buffer.writeBuffer(&bytes) }
    while let length: UInt32 = buffer.getInteger(at: buffer.readerIndex) {
      guard length <= connection.limits.frame else {
        return end("a frame of \(length) bytes: at most \(connection.limits.frame) are allowed", context)
      }
      guard buffer.readableBytes >= 4 + Int(length) else { break }
      let frame: InboundFrame
      do {
        frame = try buffer.readWithUnsafeReadableBytes {
          (4 + Int(length), try InboundFrame(UnsafeRawBufferPointer(rebasing: $0[4..<4 + Int(length)])))
        }
      } catch {
        return end("a malformed frame: \(error)", context)
      }
      if let violation = greeted ? connection.received(frame) : greet(frame, connection) { return end(violation, context) }
    }
    if buffer.readableBytes == 0 { buffer = ByteBuffer() } else { buffer.discardReadBytes() }
  }

  private func greet(_ frame: InboundFrame, _ connection: Connection) -> String? {
    guard frame.kind == .hello else { return "its first frame is not a greeting" }
    guard frame.version == Self.version else { return "it speaks version \(frame.version) of the protocol, this daemon version \(Self.version)" }
    greeted = true
    deadline?.cancel()
    side.ready(.success(connection))
    return nil
  }

  func errorCaught(context: ChannelHandlerContext, error: any Error) { end(explain(error), context) }

  func channelInactive(context: ChannelHandlerContext) {
    if buffer.readableBytes > 0 && cause == nil { side.log.debug("connection lost within a frame", metadata: ["peer": "\(remote(context))"]) }
    end("the other side has gone", context)
    context.fireChannelInactive()
  }

  /// The first cause counts.
  private func end(_ reason: String, _ context: ChannelHandlerContext) {
    guard cause == nil else { return }
    let ours = connection?.closeReason
    cause = reason
    pulse?.cancel()
    deadline?.cancel()
    connection?.ended(.closed(reason))
    if !greeted { side.ready(.failure(.closed(reason))) }
    if ours == nil {
      // Whoever dialled hears it from its call.
      let quiet = side.dialled || (greeted && !context.channel.isActive)
      side.log.log(level: quiet ? .debug : .notice, "connection closed", metadata: ["peer": "\(remote(context))", "reason": "\(reason)"])
    }
    context.close(promise: nil)
  }

  private func remote(_ context: ChannelHandlerContext) -> String {
    context.remoteAddress.map { "\($0.ipAddress ?? "?"):\($0.port ?? 0)" } ?? "?"
  }
}

/// BoringSSL's words in ours.
func explain(_ error: any Error) -> String {
  let text = "\(error)"
  if text.contains("CERTIFICATE_VERIFY_FAILED") {
    return "the other side's certificate is not valid in this cluster: signed by another authority, or expired"
  }
  if text.contains("UNKNOWN_CA") || text.contains("BAD_CERTIFICATE") || text.contains("CERTIFICATE_UNKNOWN") || text.contains("CERTIFICATE_EXPIRED") {
    return "the other side refused this node's certificate: it belongs to another cluster, or the certificate has expired"
  }
  if text.contains("WRONG_VERSION_NUMBER") || text.contains("HTTP_REQUEST") { return "the other side does not speak TLS" }
  if let error = error as? NIOSSLError, case .uncleanShutdown = error { return "the other side has gone" }
  if let error = error as? NIOConnectionError {
    return error.connectionErrors.first.map { explain($0.error) } ?? "the name \(error.host) is not known"
  }
  if let error = error as? ChannelError, case .connectTimeout = error { return "no answer in time" }
  if let error = error as? IOError { return String(cString: strerror(error.errnoCode)) }
  return text
}
