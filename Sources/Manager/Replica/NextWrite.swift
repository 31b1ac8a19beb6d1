import Model
import Raft

/// What one write will bring to the disk, and what happens once it is there.
struct NextWrite {
  var hardState: StoredHardState?
  var entries: [StoredEntry] = []
  var snapshot: IncomingSnapshot?
  /// Something is promised upon it: it goes out as soon as the disk is free.
  var isDue = false
  /// The last `Ready` it covers; 0: none.
  var ready: UInt64 = 0
  /// Leave once it is durable.
  var messages: [Message] = []

  /// As it went out.
  var number: UInt64 = 0
  /// What all rows are of once it is durable, when that changes.
  var flushed: ClusterState?
  var compact: SnapshotPoint?

  /// In place of whatever was at the first one's index and after it.
  mutating func append(_ new: [Entry]) {
    guard let first = new.first?.index else { return }
    while let last = entries.last, last.index >= first { entries.removeLast() }
    entries.append(contentsOf: new.lazy.map(StoredEntry.init))
  }
}
