import Foundation
import Model
import Raft
import Replica
import Store
import Wire

/// A snapshot as the messages of a stream.
extension OutgoingSnapshot {
  /// `transfer` names this sending.
  public func header(transfer: UInt64) -> WireRaftSnapshotChunk {
    .with {
      $0.header.message = WireRaftMessage(message)
      $0.header.members = membership.members.values.map(WireRaftMember.init)
      $0.header.objects = UInt64(state.objectCount)
      $0.header.transfer = transfer
    }
  }

  /// Lazily all but the first `count` objects, which the receiver has; the last chunk is marked.
  public func chunks(after count: UInt64 = 0, chunkBytes: Int = SnapshotWriter.defaultChunkBytes) -> some Sequence<WireRaftSnapshotChunk> {
    let end = WireRaftSnapshotChunk.with { $0.last = true }
    let middle = SnapshotWriter(state, skipping: Int(clamping: count), chunkBytes: chunkBytes).lazy.map { actions in
      WireRaftSnapshotChunk.with { $0.actions = actions.map { Data($0) } }
    }
    return [AnySequence(middle), AnySequence(CollectionOfOne(end))].lazy.joined()
  }
}

/// Puts a sending together again, row by row: in memory is the state that it becomes, never the bytes of it.
/// A chunk missing or doubled is found by the count of objects.
public struct SnapshotAssembly: Sendable {
  private let header: WireRaftSnapshotChunk.Header
  private var reader = SnapshotReader()

  public init(_ header: WireRaftSnapshotChunk.Header) { self.header = header }

  public var transfer: UInt64 { header.transfer }
  /// So far.
  public var objects: UInt64 { UInt64(reader.count) }

  /// Not nil with the last chunk.
  public mutating func add(_ chunk: WireRaftSnapshotChunk) throws -> IncomingSnapshot? {
    try reader.add(chunk.actions.map { Array($0) })
    guard chunk.last else { return nil }
    let message = try header.message.model()
    guard case .snapshot(let metadata) = message.body else { throw WireError("a snapshot with another message") }
    guard let state = reader.state(at: metadata.index, count: Int(clamping: header.objects)) else {
      throw WireError("a snapshot that has not the \(header.objects) objects it announced")
    }
    var membership = Membership(try header.members.map { try $0.model() })
    membership.autoLeave = metadata.confState.autoLeave
    return IncomingSnapshot(message: message, membership: membership, state: state)
  }
}
