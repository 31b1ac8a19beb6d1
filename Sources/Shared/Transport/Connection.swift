import Identity
import Logging
import Model
import NIOCore
import SwiftProtobuf
import Synchronization
import Wire

/// A conversation with one peer over TLS, the same from both ends: either may open streams.
public final class Connection: Sendable {
  /// Of the verified certificate; nil for a joiner without one.
  public let peer: PeerIdentity?
  /// "HOST:PORT", for logs.
  public let remote: String
  /// This end's own address, without the port.
  public var localHost: String { channel.localAddress?.ipAddress ?? "" }
  let log: Logger
  let limits: Limits
  /// Of one message on this connection.
  let maxMessage: Int
  private let channel: any Channel
  private let executor: EventLoopExecutor
  private let router: Router
  private let dialled: Bool
  private let state: Mutex<State>

  private struct State {
    var streams: [UInt32: TransportStream] = [:]
    /// Odd for the side that dialled.
    var nextID: UInt32
    var lastPeerID: UInt32 = 0
    var peerStreams = 0
    var outbound: [OutboundFrame] = []
    var flushScheduled = false
    var closed: TransportError?
  }

  init(channel: any Channel, peer: PeerIdentity?, limits: Limits, router: Router, dialled: Bool, log: Logger) {
    self.channel = channel
    executor = EventLoopExecutor(channel.eventLoop)
    self.peer = peer
    self.limits = limits
    self.router = router
    self.dialled = dialled
    self.log = log
    maxMessage = min(Limits.message, limits.frame - 1024)
    remote = channel.remoteAddress.map { "\($0.ipAddress ?? "?"):\($0.port ?? 0)" } ?? "?"
    state = Mutex(State(nextID: dialled ? 1 : 2))
  }

  // MARK: - Use

  public var isOpen: Bool { state.withLock { $0.closed == nil } }

  /// Opens a conversation. Returns at once; a refusal shows at the first read.
  public func open(_ method: Method) async throws -> TransportStream { try open(method, payload: nil, end: false) }

  /// Opens a conversation, and ends it when `body` is done, however it is done.
  public func withStream<Result: Sendable>(
    _ method: Method, _ body: @Sendable (TransportStream) async throws -> Result
  ) async throws -> Result {
    let stream = try await open(method)
    defer { stream.cancel() }
    return try await body(stream)
  }

  /// One request, one response. Throws `StreamError` when the other side refuses, `TransportError` when the connection is lost or
  /// nothing came in time (the other side is told to stop then).
  public func call<Response: Message>(
    _ method: Method, _ request: some Message, returning: Response.Type = Response.self, timeout: Duration = .seconds(10)
  ) async throws -> Response {
    let bytes: [UInt8] = try request.serializedBytes()
    try checkSize(of: bytes, method)
    let stream = try open(method, payload: bytes, end: true)
    let alarm = channel.eventLoop.scheduleTask(in: TimeAmount(timeout)) {
      stream.fail(TransportError.timeout(method, timeout), tell: StreamError(.timeout, "the caller waited no longer"))
    }
    defer {
      alarm.cancel()
      stream.cancel()
    }
    guard let response = try await stream.receive(Response.self) else {
      throw StreamError(.internalError, "\(method): the other side ended without an answer")
    }
    return response
  }

  /// A sender that makes such messages is wrong and would make them again: it is said here, whatever becomes of the error.
  func checkSize(of message: [UInt8], _ method: Method) throws(TransportError) {
    if message.count <= maxMessage { return }
    let error = TransportError.messageTooLarge(method, message.count)
    log.error("a message was not sent", metadata: ["peer": "\(remote)", "error": "\(error)"])
    throw error
  }

  /// What is queued is still sent; every stream fails with `reason`.
  public func close(_ reason: String = "closed by this side") {
    ended(.closed(reason))
    flushSoon()
    channel.eventLoop.execute { self.channel.close(mode: .all, promise: nil) }
  }

  /// Why it ended; nil while it is open.
  public var closeReason: TransportError? { state.withLock { $0.closed } }

  // MARK: - Streams

  private func open(_ method: Method, payload: [UInt8]?, end: Bool) throws -> TransportStream {
    precondition(method.rawValue.utf8.count <= 64)
    let stream = try state.withLock { state -> TransportStream in
      if let closed = state.closed { throw closed }
      let id = state.nextID
      // Two billion streams later: a new connection.
      guard id < .max - 2 else { throw TransportError.closed("out of stream numbers") }
      state.nextID += 2
      let stream = TransportStream(id: id, method: method, connection: self, payload: payload, end: end)
      state.streams[id] = stream
      state.outbound.append(.open(id, method, payload: payload, end: end))
      return stream
    }
    flushSoon()
    return stream
  }

  func retire(_ id: UInt32) {
    state.withLock { state in
      if state.streams.removeValue(forKey: id) != nil, isPeers(id) { state.peerStreams -= 1 }
    }
  }

  private func isPeers(_ id: UInt32) -> Bool { (id & 1 == 1) != dialled }

  // MARK: - Outbound

  /// From any thread. Frames leave in this order; those that wait together leave in one write.
  func enqueue(_ frame: OutboundFrame) {
    let queued = state.withLock { state in
      if state.closed != nil { return false }
      state.outbound.append(frame)
      return true
    }
    if queued { flushSoon() }
  }

  private func flushSoon() {
    let first = state.withLock { state in
      if state.flushScheduled || state.outbound.isEmpty { return false }
      state.flushScheduled = true
      return true
    }
    if first { channel.eventLoop.execute { self.flush() } }
  }

  /// On the event loop.
  private func flush() {
    let frames = state.withLock { state in
      state.flushScheduled = false
      defer { state.outbound.removeAll(keepingCapacity: state.outbound.count < 256) }
      return state.outbound
    }
    guard !frames.isEmpty else { return }
    var buffer = channel.allocator.buffer(capacity: frames.reduce(0) { $0 + $1.bytes.count })
    for frame in frames { buffer.writeBytes(frame.bytes) }
    channel.writeAndFlush(buffer, promise: nil)
  }

  // MARK: - Inbound (on the event loop)

  /// What the other side did wrong, if it did.
  func received(_ frame: InboundFrame) -> String? {
    switch frame.kind {
    case .ping: return nil
    case .hello: return "a second hello"
    case .open: return opened(frame)
    case .data, .end, .error, .credit: break
    case .UNRECOGNIZED(let kind): return "an unknown kind of frame: \(kind)"
    }
    let (stream, known) = state.withLock { state in
      (state.streams[frame.stream], frame.stream > 0 && (isPeers(frame.stream) ? frame.stream <= state.lastPeerID : frame.stream < state.nextID))
    }
    // A stream that has just ended here: what was under way for it means nothing any more.
    guard let stream else { return known ? nil : "a \(frame.kind) for stream \(frame.stream), which was never opened" }
    switch frame.kind {
    case .data: if !stream.received(frame.payload, end: frame.end) { return "\(stream.method): data beyond its credit or its end" }
    case .end: if !stream.received(nil, end: true) { return "\(stream.method): a second end" }
    case .error: stream.fail(StreamError(frame.failure))
    case .credit: stream.granted(Int(frame.credit))
    default: break
    }
    return nil
  }

  private func opened(_ frame: InboundFrame) -> String? {
    let method = Method(rawValue: frame.method)
    let id = frame.stream
    guard isPeers(id), id > 0 else { return "stream \(id) is not the other side's to open" }
    guard frame.method.utf8.count <= 64 else { return "a method's name of \(frame.method.utf8.count) bytes" }
    enum Outcome { case violation(String), refused, new(TransportStream), closed }
    let outcome = state.withLock { state -> Outcome in
      if state.closed != nil { return .closed }
      guard id > state.lastPeerID else { return .violation("stream \(id) opened after stream \(state.lastPeerID)") }
      state.lastPeerID = id
      guard state.peerStreams < limits.streams else { return .refused }
      state.peerStreams += 1
      let stream = TransportStream(id: id, method: method, connection: self)
      state.streams[id] = stream
      return .new(stream)
    }
    switch outcome {
    case .violation(let reason): return reason
    case .closed: return nil
    case .refused:
      // A peer that opens without reading our refusals would fill our memory with them.
      guard channel.isWritable else { return "streams opened beyond the limit of \(limits.streams)" }
      enqueue(.failure(id, StreamError(.resourceExhausted, "more than \(limits.streams) streams are open on this connection")))
      return nil
    case .new(let stream):
      if frame.withPayload || frame.end { _ = stream.received(frame.withPayload ? frame.payload : nil, end: frame.end) }
      switch router.handler(for: method, peer: peer) {
      case .success(let entry): stream.serve(entry.handler, on: entry.onEventLoop ? executor : nil)
      case .failure(let refusal):
        log.notice("stream refused", metadata: ["peer": "\(remote)", "method": "\(method)", "reason": "\(refusal)"])
        guard channel.isWritable else { return "refused streams are not read" }
        stream.fail(refusal, tell: refusal)
      }
      return nil
    }
  }

  /// The first frame of all.
  func greet(_ hello: OutboundFrame) {
    state.withLock { $0.outbound.append(hello) }
    flush()
  }

  func ping() { enqueue(.ping) }

  /// The first cause counts.
  func ended(_ cause: TransportError) {
    let streams = state.withLock { state -> [TransportStream] in
      if state.closed == nil { state.closed = cause }
      defer { state.streams.removeAll() }
      return Array(state.streams.values)
    }
    for stream in streams { stream.fail(cause) }
  }
}

/// Runs a task's jobs on an event loop.
final class EventLoopExecutor: TaskExecutor {
  private let loop: any EventLoop
  init(_ loop: any EventLoop) { self.loop = loop }

  func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    loop.execute { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
  }
}

extension TimeAmount {
  init(_ duration: Duration) {
    let (seconds, attoseconds) = duration.components
    self = .nanoseconds(seconds * 1_000_000_000 + attoseconds / 1_000_000_000)
  }
}
