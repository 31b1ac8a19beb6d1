import Model
import Synchronization

/// What operations under way (pulls, loads, builds, pushes) may rely on, though no image has it: it is not collected before they end.
///
/// Who looks something up or is about to add it pins it, and need not say for which operation: it stays as long as any goes on that had begun by
/// then. So a pin lasts no longer than the operations of its time, however many follow each other.
final class Pins: Sendable {
  struct Pinned: Sendable {
    fileprivate(set) var layers: [Digest: UInt64] = [:]
    fileprivate(set) var blobs: [Digest: UInt64] = [:]
  }
  private struct State {
    var last: UInt64 = 0
    var running: Set<UInt64> = []
    var pinned = Pinned()
  }
  private let state = Mutex(State())

  /// How many operations go on.
  var operations: Int { state.withLock { $0.running.count } }

  func begin() -> UInt64 {
    state.withLock { state in
      state.last += 1
      state.running.insert(state.last)
      return state.last
    }
  }

  func end(_ operation: UInt64) {
    state.withLock { state in
      state.running.remove(operation)
      guard let first = state.running.min() else { return state.pinned = Pinned() }
      state.pinned.layers = state.pinned.layers.filter { $0.value >= first }
      state.pinned.blobs = state.pinned.blobs.filter { $0.value >= first }
    }
  }

  /// Before it is looked whether they are there.
  func pin(layers: [Digest] = [], blobs: [Digest] = []) {
    state.withLock { state in
      if state.running.isEmpty { return }
      for layer in layers { state.pinned.layers[layer] = state.last }
      for blob in blobs { state.pinned.blobs[blob] = state.last }
    }
  }

  /// Nothing is pinned while `body` collects: it must not look anything up by what pins.
  func collecting<Result>(_ body: (Pinned) throws -> Result) rethrows -> Result { try state.withLock { state in try body(state.pinned) } }

  var pinned: Pinned { state.withLock { $0.pinned } }
}
