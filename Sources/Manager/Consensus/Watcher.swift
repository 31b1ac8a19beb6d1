import DequeModule
import Model
import Replica
import Synchronization

public enum ChangeEvent: Sendable {
  case changes(ChangeBatch)
  /// First of all, and whenever changes were left out (a slow watcher, an installed snapshot): begin again from this state.
  case resync(ClusterState)
}

/// One watcher's bounded queue. Overflow turns it into one `.resync` with the state of the moment it is read: never silence.
/// `current` is called without the watcher's lock: it takes Consensus's, under which Consensus asks its watchers.
final class Watcher: Sendable {
  private struct State {
    var queue = Deque<ChangeBatch>()
    var needsResync = true
    /// Batches up to here are in what the watcher has seen.
    var seen: UInt64 = 0
    var reader: CheckedContinuation<Void, Never>?
    var finished = false

    mutating func takeReader() -> CheckedContinuation<Void, Never>? {
      defer { reader = nil }
      return reader
    }
  }
  /// What the stream holds: when nobody has the stream any more, read or not, the watcher is over.
  final class Reader: Sendable {
    let watcher: Watcher
    init(_ watcher: Watcher) { self.watcher = watcher }
    deinit { watcher.finish() }
  }

  private let state = Mutex(State())
  private let bound: Int
  private let current: @Sendable () -> ClusterState

  init(bound: Int, current: @escaping @Sendable () -> ClusterState) {
    self.bound = bound
    self.current = current
  }

  func offer(_ batch: ChangeBatch) {
    state.withLock { state in
      if state.finished || state.needsResync || batch.index <= state.seen { return nil as CheckedContinuation<Void, Never>? }
      if state.queue.count == bound {
        state.queue.removeAll()
        state.needsResync = true
      } else {
        state.queue.append(batch)
      }
      return state.takeReader()
    }?.resume()
  }

  func resync() {
    state.withLock { state in
      state.queue.removeAll()
      state.needsResync = true
      return state.takeReader()
    }?.resume()
  }

  func finish() {
    state.withLock { state in
      state.finished = true
      return state.takeReader()
    }?.resume()
  }

  var isFinished: Bool { state.withLock { $0.finished } }

  func next() async -> ChangeEvent? {
    while true {
      enum Step { case event(ChangeEvent), resync, end, wait }
      let step = state.withLock { state -> Step in
        if state.needsResync && !state.finished {
          // What is applied from here on is queued.
          state.needsResync = false
          return .resync
        }
        if let batch = state.queue.popFirst() {
          state.seen = batch.index
          return .event(.changes(batch))
        }
        return state.finished ? .end : .wait
      }
      switch step {
      case .event(let event): return event
      case .resync:
        let now = current()
        state.withLock { state in
          state.seen = now.index
          while let first = state.queue.first, first.index <= now.index { state.queue.removeFirst() }
        }
        return .resync(now)
      case .end: return nil
      case .wait:
        await withTaskCancellationHandler {
          await withCheckedContinuation { continuation in
            let ready = state.withLock { state in
              if state.finished || state.needsResync || !state.queue.isEmpty { return true }
              precondition(state.reader == nil, "a watcher is read by one task")
              state.reader = continuation
              return false
            }
            if ready { continuation.resume() }
          }
        } onCancel: {
          finish()
        }
      }
    }
  }
}
