import DequeModule
import Dispatch
import Model
import Store
import Synchronization

/// Questions in SQL to this member's database, each on a thread and a read-only connection of its own. Answers are lines of JSON:
/// `{"columns":[…]}`, an array for each row, and at last `{"rows":N}`, or `{"error":"…"}` for an answer that ended early.
public final class StateQueries: Sendable {
  /// Each holds a thread and a snapshot of the database.
  public static let runningMax = 8
  public static let limitMax = Duration.seconds(600)

  private let consensus: Consensus
  private let running = Mutex(0)

  public init(_ consensus: Consensus) { self.consensus = consensus }

  /// Returns when the statement is prepared. Throws `QueryError` for what is refused, `ConsensusError` when the managers' majority does
  /// not confirm in time that the answer is not old (never when `stale`).
  public func ask(_ statement: String, limit: Duration, stale: Bool) async throws -> QueryAnswer {
    let admitted = running.withLock { running in
      guard running < Self.runningMax else { return false }
      running += 1
      return true
    }
    guard admitted else { throw ConsensusError.busy("\(Self.runningMax) statements run already") }
    do {
      if stale {
        // A disk that takes no writes still shows what it has.
        try? await consensus.flush()
      } else {
        _ = try await consensus.linearizableState()
        try await consensus.flush()
      }
    } catch {
      running.withLock { $0 -= 1 }
      throw error
    }
    let (path, gate) = (consensus.configuration.path, consensus.gate)
    let answer = QueryAnswer(limit: min(max(limit, .milliseconds(1)), Self.limitMax))
    try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
      startThread("sql") { [self] in
        answer.run(statement, path, gate) { continuation.resume(with: $0) }
        running.withLock { $0 -= 1 }
      }
    }
    return answer
  }
}

/// The lines of an answer in chunks; for one reader. A reader that leaves ends the statement.
public final class QueryAnswer: AsyncSequence, Sendable {
  private static let chunkBytes = 32 << 10
  /// Chunks that may wait for the reader; the statement waits for it then.
  private static let chunksMax = 4

  private struct State {
    var chunks = Deque<[UInt8]>()
    var isEnded = false
    var isCancelled = false
    var reader: CheckedContinuation<Void, Never>?
  }
  private let state = Mutex(State())
  private let room = DispatchSemaphore(value: 0)
  private let limit: Duration

  fileprivate init(limit: Duration) {
    self.limit = limit
    // Counted up by hand: a semaphore must not die with less than it was made with.
    for _ in 0..<Self.chunksMax { room.signal() }
  }

  // MARK: - The thread

  fileprivate func run(_ statement: String, _ path: String, _ gate: RowGate, prepared: (Result<Void, any Error>) -> Void) {
    let deadline = DispatchTime.now() + limit / .seconds(1)
    let rows: StateReader.Rows
    do {
      rows = try StateReader(path: path, gate: gate).prepare(statement, limit: limit) { [self] in isCancelled }
    } catch {
      return prepared(.failure((error as? StoreError).map { ConsensusError.storage($0) } ?? error))
    }
    prepared(.success(()))
    var chunk = Array(#"{"columns":["#.utf8)
    for (index, name) in rows.columns.enumerated() {
      if index > 0 { chunk.append(UInt8(ascii: ",")) }
      JSONLine.string(name, into: &chunk)
    }
    chunk += Array("]}\n".utf8)
    var count = 0
    do throws(QueryError) {
      while try rows.next(into: &chunk) {
        count += 1
        guard chunk.count >= Self.chunkBytes else { continue }
        if room.wait(timeout: deadline) == .timedOut { throw .tooSlow(seconds: limit / .seconds(1)) }
        put(chunk)
        chunk.removeAll(keepingCapacity: true)
      }
      chunk += Array("{\"rows\":\(count)}\n".utf8)
    } catch {
      chunk += Array(#"{"error":"#.utf8)
      JSONLine.string(error.description, into: &chunk)
      chunk += Array("}\n".utf8)
    }
    put(chunk, isLast: true)
  }

  private var isCancelled: Bool { state.withLock { $0.isCancelled } }

  private func put(_ chunk: [UInt8], isLast: Bool = false) {
    state.withLock { state in
      state.chunks.append(chunk)
      state.isEnded = isLast
      defer { state.reader = nil }
      return state.reader
    }?.resume()
  }

  // MARK: - The reader

  private func next() async -> [UInt8]? {
    while true {
      let (chunk, ended) = state.withLock { ($0.chunks.popFirst(), $0.isEnded || $0.isCancelled) }
      if let chunk {
        room.signal()
        return chunk
      }
      if ended { return nil }
      await withTaskCancellationHandler {
        await withCheckedContinuation { continuation in
          let now = state.withLock { state in
            if !state.chunks.isEmpty || state.isEnded || state.isCancelled { return true }
            precondition(state.reader == nil, "an answer is read by one task")
            state.reader = continuation
            return false
          }
          if now { continuation.resume() }
        }
      } onCancel: {
        cancel()
      }
    }
  }

  private func cancel() {
    state.withLock { state in
      state.isCancelled = true
      state.chunks = []
      defer { state.reader = nil }
      return state.reader
    }?.resume()
    room.signal()
  }

  public final class AsyncIterator: AsyncIteratorProtocol {
    private let answer: QueryAnswer
    fileprivate init(_ answer: QueryAnswer) { self.answer = answer }
    public func next() async -> [UInt8]? { await answer.next() }
    deinit { answer.cancel() }
  }
  public func makeAsyncIterator() -> AsyncIterator { AsyncIterator(self) }
}
