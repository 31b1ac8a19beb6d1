import LinuxSystem
import Synchronization

/// Between who writes rows and who asks in SQL. In the middle of a flush the tables hold rows of two states: nobody begins to read then,
/// and no flush begins while somebody is just beginning. Who has begun has a snapshot, and neither waits for the other any more.
public final class RowGate: Sendable {
  private struct State {
    var isClosed = false
    var failure: StoreError?
    var beginning = 0
    var readers: [Semaphore] = []
    var writer: Semaphore?
  }
  private let state = Mutex(State())

  public init() {}

  /// Waits until all rows are of one state; for as long as `begin` runs they stay so. Throws when the writer failed before they were.
  func pass(_ begin: () throws(StoreError) -> Void) throws(StoreError) {
    let turn = Semaphore()
    let waits = state.withLock { state in
      if state.isClosed, state.failure == nil {
        state.readers.append(turn)
        return true
      }
      state.beginning += 1
      return false
    }
    if waits { turn.wait() }
    defer { leave() }
    if let failure = state.withLock({ $0.isClosed ? $0.failure : nil }) { throw .failed(earlier: "\(failure)") }
    try begin()
  }

  private func leave() {
    state.withLock { state -> Semaphore? in
      state.beginning -= 1
      guard state.beginning == 0 else { return nil }
      defer { state.writer = nil }
      return state.writer
    }?.signal()
  }

  // MARK: - The one writer

  /// Waits for those who are beginning, a fraction of a millisecond.
  func close() {
    let turn = Semaphore()
    let waits = state.withLock { state in
      state.isClosed = true
      state.writer = state.beginning > 0 ? turn : nil
      return state.beginning > 0
    }
    if waits { turn.wait() }
  }

  func open() { admit { ($0.isClosed, $0.failure) = (false, nil) } }

  /// Nobody waits for rows that may never come. Until `open`.
  func fail(_ failure: StoreError) { admit { $0.failure = failure } }

  private func admit(_ change: (inout State) -> Void) {
    let readers = state.withLock { state in
      change(&state)
      state.beginning += state.readers.count
      defer { state.readers = [] }
      return state.readers
    }
    for reader in readers { reader.signal() }
  }
}
