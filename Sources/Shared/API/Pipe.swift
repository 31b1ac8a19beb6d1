import Synchronization

/// A bounded queue between one writer and one reader: the writer waits while `capacity` elements wait to be read, so that the
/// slower side paces the faster. Either side may leave: after `finish` the reader gets what is left and then the end; after
/// `cancel`, or when the reader's task is cancelled, `send` returns false.
public final class Pipe<Element: Sendable>: AsyncSequence, Sendable {
  private struct State {
    var queue: [Element] = []
    var finished = false
    var error: (any Error)?
    var cancelled = false
    var reader: CheckedContinuation<Void, Never>?
    var writers: [CheckedContinuation<Void, Never>] = []

    mutating func wake() -> [CheckedContinuation<Void, Never>] {
      defer {
        reader = nil
        writers = []
      }
      return writers + (reader.map { [$0] } ?? [])
    }
  }
  private enum SendVerdict { case sent([CheckedContinuation<Void, Never>]), closed, full }
  private enum NextVerdict { case element(Element, [CheckedContinuation<Void, Never>]), end((any Error)?), wait }
  private let state = Mutex(State())
  private let capacity: Int

  /// - Parameter capacity: elements that may wait; at least 1.
  public init(capacity: Int) {
    precondition(capacity > 0)
    self.capacity = capacity
  }

  /// Another element would have to wait.
  public var isFull: Bool { state.withLock { $0.queue.count >= capacity && !$0.finished && !$0.cancelled } }

  /// Waits for room. False: the reader is gone (or the pipe was finished) and the element was dropped.
  @discardableResult
  public func send(_ element: Element) async -> Bool {
    while true {
      let verdict: SendVerdict = state.withLock { state in
        if state.finished || state.cancelled { return .closed }
        if state.queue.count >= capacity { return .full }
        state.queue.append(element)
        defer { state.reader = nil }
        return .sent(state.reader.map { [$0] } ?? [])
      }
      switch verdict {
      case .closed: return false
      case .sent(let reader):
        for one in reader { one.resume() }
        return true
      case .full:
        if Task.isCancelled { return false }
        await withTaskCancellationHandler {
          await withCheckedContinuation { continuation in
            let now = state.withLock { state in
              if state.finished || state.cancelled || state.queue.count < capacity || Task.isCancelled { return true }
              state.writers.append(continuation)
              return false
            }
            if now { continuation.resume() }
          }
        } onCancel: {
          wakeAll()
        }
      }
    }
  }

  /// No more elements; `error` is thrown to the reader after the last one.
  public func finish(throwing error: (any Error)? = nil) {
    let waiting = state.withLock { state in
      if !state.finished {
        state.finished = true
        state.error = error
      }
      return state.wake()
    }
    for one in waiting { one.resume() }
  }

  /// The reader wants no more.
  public func cancel() {
    let waiting = state.withLock { state in
      state.cancelled = true
      state.queue = []
      return state.wake()
    }
    for one in waiting { one.resume() }
  }

  private func wakeAll() {
    let waiting = state.withLock { $0.wake() }
    for one in waiting { one.resume() }
  }

  /// The next element, nil at the end or when this task is cancelled.
  public func next() async throws -> Element? {
    while true {
      let verdict: NextVerdict = state.withLock { state in
        if state.cancelled { return .end(nil) }
        if !state.queue.isEmpty {
          let element = state.queue.removeFirst()
          defer { state.writers = [] }
          return .element(element, state.writers)
        }
        if state.finished {
          defer { state.error = nil }
          return .end(state.error)
        }
        return .wait
      }
      switch verdict {
      case .element(let element, let writers):
        for one in writers { one.resume() }
        return element
      case .end(let error):
        if let error { throw error }
        return nil
      case .wait:
        if Task.isCancelled {
          cancel()
          return nil
        }
        await withTaskCancellationHandler {
          await withCheckedContinuation { continuation in
            let now = state.withLock { state in
              if state.finished || state.cancelled || !state.queue.isEmpty || Task.isCancelled { return true }
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
  }

  public struct Iterator: AsyncIteratorProtocol {
    let pipe: Pipe
    public mutating func next() async throws -> Element? { try await pipe.next() }
  }
  public func makeAsyncIterator() -> Iterator { Iterator(pipe: self) }
}
