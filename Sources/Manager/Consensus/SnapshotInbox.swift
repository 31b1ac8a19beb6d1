import Model
import Replica
import Synchronization
import Transport
import Wire

/// What arrived of a snapshot. At most one: another sending takes its place. When its connection breaks it is kept for `patience`, so that
/// the sender goes on where it was; on the new connection, even if the old one has not noticed yet.
final class SnapshotInbox: Sendable {
  static let patience: Duration = .seconds(60)

  private struct Partial {
    var assembly: SnapshotAssembly
    /// The stream that may add to it.
    var stream: UInt64
  }
  private struct State {
    var partial: Partial?
    var lastStream: UInt64 = 0
    var resumed: UInt64 = 0
  }
  private let state = Mutex(State())

  /// Objects that did not have to be sent again, so far.
  var resumedObjects: UInt64 { state.withLock { $0.resumed } }

  /// A stream begins: its number, and how many objects are here already.
  func begin(_ header: WireRaftSnapshotChunk.Header) -> (stream: UInt64, objects: UInt64) {
    state.withLock { state in
      state.lastStream += 1
      if state.partial?.assembly.transfer != header.transfer { state.partial = Partial(assembly: SnapshotAssembly(header), stream: 0) }
      state.partial!.stream = state.lastStream
      let objects = state.partial!.assembly.objects
      state.resumed += objects
      return (state.lastStream, objects)
    }
  }

  /// Not nil with the last chunk. Decodes under the lock, which only streams of snapshots take.
  func add(_ chunk: WireRaftSnapshotChunk, from stream: UInt64) throws -> IncomingSnapshot? {
    try state.withLock { state in
      guard state.partial?.stream == stream else { throw StreamError(.cancelled, "the snapshot goes on in another stream") }
      do {
        let whole = try state.partial!.assembly.add(chunk)
        if whole != nil { state.partial = nil }
        return whole
      } catch {
        state.partial = nil
        throw error
      }
    }
  }

  /// The stream broke.
  func interrupted(_ stream: UInt64) {
    Task {
      try? await Task.sleep(for: Self.patience)
      state.withLock { state in if state.partial?.stream == stream { state.partial = nil } }
    }
  }
}
