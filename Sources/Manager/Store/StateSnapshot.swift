import Model
import Wire

/// The whole replicated state as a sequence of actions that make it again: what a snapshot carries.
extension ClusterState {
  /// How many objects it holds: the number of actions in a snapshot of it.
  public var objectCount: Int {
    (cluster == nil ? 0 : 1) + nodes.count + services.count + revisions.count + tasks.count + networks.count + volumes.count + stacks.count
      + files.count
  }

  /// Lazy: a snapshot of a large cluster is never in memory twice.
  public var actions: some Sequence<Action> {
    let parts: [AnySequence<Action>] = [
      AnySequence(CollectionOfOne(cluster).lazy.compactMap { $0 }.map(Action.putCluster)),
      AnySequence(nodes.lazy.map { .putNode($0.value) }),
      AnySequence(services.lazy.map { .putService($0.value) }),
      AnySequence(revisions.lazy.map { .putRevision($0.value) }),
      AnySequence(tasks.lazy.map { .createTask($0.value) }),
      AnySequence(networks.lazy.map { .putNetwork($0.value) }),
      AnySequence(volumes.lazy.map { .putVolume($0.value) }),
      AnySequence(stacks.lazy.map { .putStack($0.value) }),
      AnySequence(files.lazy.map { .putFile($0.value) }),
    ]
    return parts.lazy.joined()
  }
}

/// Cuts a state into chunks of serialised actions. A chunk is over `chunkBytes` only when a single action is.
public struct SnapshotWriter: Sequence, IteratorProtocol {
  public static let defaultChunkBytes = 1 << 20
  private var actions: AnyIterator<Action>
  private let chunkBytes: Int
  private var pending: [UInt8]?
  /// Set when an action could not be serialised; the sequence ends there.
  public private(set) var failure: (any Error)?

  /// `skipping`: so many objects, in the order of this very value.
  public init(_ state: ClusterState, skipping count: Int = 0, chunkBytes: Int = defaultChunkBytes) {
    actions = AnyIterator(state.actions.makeIterator())
    for _ in 0..<count { guard actions.next() != nil else { break } }
    self.chunkBytes = chunkBytes
  }

  /// The next chunk's actions.
  public mutating func next() -> [[UInt8]]? {
    var chunk: [[UInt8]] = []
    var size = 0
    if let first = pending {
      chunk.append(first)
      size = first.count
      pending = nil
    }
    while failure == nil, let action = actions.next() {
      do {
        let bytes = try action.serialized()
        if !chunk.isEmpty, size + bytes.count > chunkBytes {
          pending = bytes
          return chunk
        }
        chunk.append(bytes)
        size += bytes.count
      } catch { failure = error }
    }
    return chunk.isEmpty || failure != nil ? nil : chunk
  }
}

/// Puts the chunks together again.
public struct SnapshotReader: Sendable {
  private var restored = RestoredState()
  public init() {}
  public var count: Int { restored.rows }

  public mutating func add(_ chunk: some Sequence<[UInt8]>) throws {
    for bytes in chunk { restored.add(try Action(serialized: bytes)) }
  }

  /// nil when the objects are not the `count` that the sender had.
  public func state(at index: UInt64, count: Int) -> ClusterState? { restored.rows == count ? restored.finish(at: index) : nil }
}

/// A state as it is made again row by row.
struct RestoredState: Sendable {
  private var state = ClusterState()
  private(set) var rows = 0

  mutating func add(_ row: Action) {
    state.restore(row)
    rows += 1
  }

  /// nil when some of the rows contradicted others.
  func finish(at index: UInt64) -> ClusterState? {
    var whole = state
    whole.restored(at: index)
    return whole.objectCount == rows ? whole : nil
  }
}
