import DequeModule
import Model
import SwiftProtobuf
import Synchronization

/// A numbered conversation on a connection: messages both ways, each side ends its own when it likes.
/// One task reads at a time; any number may send.
public final class TransportStream: Sendable {
  public let method: Method
  public let connection: Connection
  let id: UInt32
  private let state: Mutex<State>

  private struct State {
    var inbound = Deque<[UInt8]>()
    /// The other side has said everything.
    var inboundEnded = false
    var outboundEnded = false
    var failure: (any Error)?
    var reader: (ticket: UInt64, continuation: CheckedContinuation<Void, any Error>)?
    var senders: [(ticket: UInt64, continuation: CheckedContinuation<Void, any Error>)] = []
    var nextTicket: UInt64 = 0
    /// What we may send, what the other side may send; negative by at most one message.
    var sendCredit: Int
    var receiveCredit: Int
    var consumed = 0
    var handler: Task<Void, Never>?

    var over: Bool { failure != nil || (inboundEnded && outboundEnded) }
    mutating func takeSenders() -> [CheckedContinuation<Void, any Error>] {
      defer { senders.removeAll() }
      return senders.map(\.continuation)
    }
    mutating func takeReader() -> CheckedContinuation<Void, any Error>? {
      defer { reader = nil }
      return reader?.continuation
    }
  }

  /// `payload`, `end`: what goes with the opening frame.
  init(id: UInt32, method: Method, connection: Connection, payload: [UInt8]? = nil, end: Bool = false) {
    self.id = id
    self.method = method
    self.connection = connection
    let window = connection.limits.window
    state = Mutex(
      State(outboundEnded: end, sendCredit: window - (payload.map { $0.count + Limits.messageOverhead } ?? 0), receiveCredit: window))
  }

  // MARK: - Sending

  /// Returns when the message is queued; waits while the other side is behind by a window. `end`: nothing follows.
  public func send(_ bytes: [UInt8], end: Bool = false) async throws {
    while try !trySend(bytes, end: end) {
      try await wait { state, ticket, continuation in
        if state.sendCredit > 0 || state.failure != nil { return false }
        state.senders.append((ticket, continuation))
        return true
      }
    }
  }

  /// Queues the message unless the other side is behind by a window; from any thread.
  public func trySend(_ bytes: [UInt8], end: Bool = false) throws -> Bool {
    try connection.checkSize(of: bytes, method)
    let queued = try state.withLock { state -> Bool in
      if let failure = state.failure { throw failure }
      if state.outboundEnded { throw StreamError(.closed, "\(method): sent after its end") }
      guard state.sendCredit > 0 else { return false }
      state.sendCredit -= bytes.count + Limits.messageOverhead
      if end { state.outboundEnded = true }
      connection.enqueue(.data(id, bytes, end: end))
      return true
    }
    if queued && end { retireIfOver() }
    return queued
  }

  public func send(_ message: some SwiftProtobuf.Message, end: Bool = false) async throws {
    try await send(message.serializedBytes() as [UInt8], end: end)
  }

  /// Nothing more will be sent; the other side may go on. Harmless when repeated or after the stream's end.
  public func finish() {
    let first = state.withLock { state in
      if state.outboundEnded || state.failure != nil { return false }
      state.outboundEnded = true
      connection.enqueue(.end(id))
      return true
    }
    if first { retireIfOver() }
  }

  /// Ends both directions at once; harmless when the stream is over already.
  public func cancel(_ error: StreamError = StreamError(.cancelled, "cancelled")) {
    fail(error, tell: error)
  }

  // MARK: - Reading

  /// The messages of the other side, in order; ends when it has said everything, throws when the stream failed.
  public var inbound: Inbound { Inbound(stream: self) }

  public struct Inbound: AsyncSequence, Sendable {
    public typealias Element = [UInt8]
    let stream: TransportStream
    public struct AsyncIterator: AsyncIteratorProtocol {
      let stream: TransportStream
      public func next() async throws -> [UInt8]? { try await stream.receive() }
    }
    public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(stream: stream) }
  }

  /// The next message; nil after the last.
  public func receive() async throws -> [UInt8]? {
    while true {
      enum Step { case message([UInt8]), end, wait }
      let step = try state.withLock { state -> Step in
        if let bytes = state.inbound.popFirst() {
          state.consumed += bytes.count + Limits.messageOverhead
          if state.consumed >= connection.limits.window / 2 && !state.inboundEnded && state.failure == nil {
            connection.enqueue(.credit(id, UInt32(state.consumed)))
            state.receiveCredit += state.consumed
            state.consumed = 0
          }
          return .message(bytes)
        }
        if state.inboundEnded { return .end }
        if let failure = state.failure { throw failure }
        return .wait
      }
      switch step {
      case .message(let bytes): return bytes
      case .end: return nil
      case .wait:
        try await wait { state, ticket, continuation in
          if !state.inbound.isEmpty || state.inboundEnded || state.failure != nil { return false }
          precondition(state.reader == nil, "two tasks read stream \(self.method)")
          state.reader = (ticket, continuation)
          return true
        }
      }
    }
  }

  public func receive<Message: SwiftProtobuf.Message>(_: Message.Type) async throws -> Message? {
    guard let bytes = try await receive() else { return nil }
    do { return try Message(serializedBytes: bytes) } catch {
      let refusal = StreamError(.invalidArgument, "\(method): a message is not a \(Message.protoMessageName): \(error)")
      cancel(refusal)
      throw refusal
    }
  }

  // MARK: - From the connection (on its event loop)

  /// false: the other side had no credit for it.
  func received(_ bytes: [UInt8]?, end: Bool) -> Bool {
    let (accepted, reader) = state.withLock { state -> (Bool, CheckedContinuation<Void, any Error>?) in
      if state.failure != nil { return (true, nil) }
      if state.inboundEnded { return (false, nil) }
      if let bytes {
        guard state.receiveCredit > 0 else { return (false, nil) }
        state.receiveCredit -= bytes.count + Limits.messageOverhead
        state.inbound.append(bytes)
      }
      if end { state.inboundEnded = true }
      return (true, state.takeReader())
    }
    reader?.resume()
    if end { retireIfOver() }
    return accepted
  }

  func granted(_ credit: Int) {
    let senders = state.withLock { state in
      state.sendCredit = min(state.sendCredit + credit, connection.limits.window)
      return state.takeSenders()
    }
    for sender in senders { sender.resume() }
  }

  /// The first failure counts. `tell`: the other side does not know yet.
  func fail(_ error: any Error, tell: StreamError? = nil) {
    let (reader, senders, handler) = state.withLock {
      state -> (CheckedContinuation<Void, any Error>?, [CheckedContinuation<Void, any Error>], Task<Void, Never>?) in
      if state.over { return (nil, [], nil) }
      state.failure = error
      if let tell { connection.enqueue(.failure(id, tell)) }
      return (state.takeReader(), state.takeSenders(), state.handler)
    }
    reader?.resume()
    for sender in senders { sender.resume() }
    handler?.cancel()
    retireIfOver()
  }

  /// Runs the handler of a stream that the other side opened.
  func serve(_ handler: @escaping Router.Handler, on executor: EventLoopExecutor?) {
    let task = Task(executorPreference: executor) { [self] in
      do {
        try await handler(connection.peer, self)
        finish()
        // The handler reads no more: the other side need not send.
        fail(StreamError(.closed, "\(method): the handler has returned"), tell: StreamError(.closed, "\(method): the other side has finished"))
      } catch let error as StreamError {
        fail(error, tell: error)
      } catch is CancellationError {
        cancel()
      } catch let error as TransportError {
        connection.log.debug("\(method) ended", metadata: ["peer": "\(connection.remote)", "error": "\(error)"])
        fail(error, tell: StreamError(.unavailable, "\(error)"))
      } catch {
        connection.log.warning("\(method) failed", metadata: ["peer": "\(connection.remote)", "error": "\(error)"])
        // Our own words are for our own daemons only.
        fail(error, tell: StreamError(.internalError, connection.peer == nil ? "internal error" : "\(error)"))
      }
    }
    let late = state.withLock { state in
      state.handler = task
      return state.failure != nil
    }
    if late { task.cancel() }
  }

  private func retireIfOver() {
    if state.withLock({ $0.over }) { connection.retire(id) }
  }

  /// Suspends until resumed, the stream's failure, or the task's cancellation. `register` may find that there is nothing to wait for.
  private func wait(_ register: @Sendable (inout State, UInt64, CheckedContinuation<Void, any Error>) -> Bool) async throws {
    let ticket = state.withLock { state in
      state.nextTicket += 1
      return state.nextTicket
    }
    try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
        enum Outcome { case waiting, ready, cancelled }
        let outcome = state.withLock { state -> Outcome in
          if Task.isCancelled { return .cancelled }
          return register(&state, ticket, continuation) ? .waiting : .ready
        }
        switch outcome {
        case .waiting: break
        case .ready: continuation.resume()
        case .cancelled: continuation.resume(throwing: CancellationError())
        }
      }
    } onCancel: {
      let waiting = state.withLock { state -> CheckedContinuation<Void, any Error>? in
        if state.reader?.ticket == ticket { return state.takeReader() }
        guard let place = state.senders.firstIndex(where: { $0.ticket == ticket }) else { return nil }
        return state.senders.remove(at: place).continuation
      }
      waiting?.resume(throwing: CancellationError())
    }
  }
}
