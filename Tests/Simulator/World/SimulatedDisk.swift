import Model
import Replica

/// One manager's database: what a crash leaves. A write is a transaction: it is there whole or not at all. Rows are kept one by one, as
/// the store keeps them, so that a change that `apply` forgot to tell of is missing after a restart.
final class SimulatedDisk: ReplicaLog, @unchecked Sendable {
  struct Row: Sendable {
    var entry: StoredEntry
    var checksum: UInt64
  }

  private(set) var raftID: RaftID?
  private(set) var hardState = StoredHardState()
  private(set) var membership = Membership()
  private(set) var compacted = SnapshotPoint(index: 0, term: 0)
  private(set) var log: [Row] = []
  private(set) var appliedIndex: UInt64 = 0
  private var rows = SimulatedRows()
  /// Rows of slices whose flush is not whole, and what they were in the state before.
  private var undo: [(rows: [RowKey], before: ClusterState)] = []

  var isFull = false
  /// A bit rotted: it will be found out.
  private(set) var isCorrupt = false
  /// As it was `writesSince` transactions ago: what a write-ahead log holds that ends there.
  private var earlier: SimulatedDisk?
  private(set) var writesSince = 0
  private var isCutShort = false
  /// Planted faults change what a disk does.
  let fault: Fault?

  init(fault: Fault?) { self.fault = fault }

  var lastIndex: UInt64 { compacted.index + UInt64(log.count) }

  func entry(_ index: UInt64) -> StoredEntry? {
    index > compacted.index && index <= lastIndex ? log[Int(index - compacted.index) - 1].entry : nil
  }

  /// Durable here, itself or in a snapshot.
  func holds(_ index: UInt64, term: UInt64) -> Bool { index <= compacted.index || entry(index)?.term == term }

  func write(_ batch: WriteBatch) {
    writesSince += 1
    if let id = batch.raftID { raftID = id }
    if let snapshot = batch.snapshot { install(snapshot) }
    if var hard = batch.hardState {
      if fault == .voteNotWritten { hard.vote = hardState.term == hard.term ? hardState.vote : nil }
      if fault == .termNotWritten { hard.term = max(1, hardState.term) }
      hardState = hard
    }
    if !batch.entries.isEmpty { append(batch.entries) }
    if let applied = batch.applied { put(applied) }
    if let new = batch.membership { membership = new }
    if let point = batch.compact, point > compacted {
      log.removeFirst(Int(point.index - compacted.index))
      compacted = point
    }
  }

  private func append(_ entries: [StoredEntry]) {
    let first = entries[0].index
    precondition(first > compacted.index && first <= lastIndex + 1, "append at \(first) to a log of \(compacted.index + 1)...\(lastIndex)")
    let rows = entries.map { Row(entry: $0, checksum: $0.checksum) }
    let start = Int(first - compacted.index) - 1
    if fault == .tailNotCut, start + rows.count < log.count {
      log.replaceSubrange(start..<start + rows.count, with: rows)
    } else {
      log.replaceSubrange(start..<log.count, with: rows)
    }
  }

  private func put(_ applied: WriteBatch.Applied) {
    let state = applied.state
    precondition(state.index >= appliedIndex, "applied index \(state.index) is below \(appliedIndex)")
    if let before = applied.before {
      precondition(before.index == appliedIndex, "rows of before are of \(before.index), those on the disk of \(appliedIndex)")
      undo.append((applied.rows, before))
      rows.put(applied.rows, in: state)
      return
    }
    rows.put(applied.rows, in: state)
    undo = []
    if fault == .appliedIndexLags, state.index > appliedIndex {
      appliedIndex = max(appliedIndex, state.index - 1)
    } else {
      appliedIndex = state.index
    }
  }

  private func install(_ snapshot: WriteBatch.Snapshot) {
    let state = snapshot.state
    rows = SimulatedRows(state)
    undo = []
    log = []
    compacted = snapshot.point
    appliedIndex = snapshot.point.index
  }

  // MARK: - Reading

  /// Verifies as the store does.
  func load() throws(StoreError) -> LoadedState {
    if isCutShort {
      guard fault == .writeAheadLogCut, let earlier else { throw .damaged(table: "raft.db-wal", row: "frame", reason: "checksum") }
      take(earlier)
      isCutShort = false
    }
    var entries: [StoredEntry] = []
    for row in log {
      if row.checksum != row.entry.checksum {
        if fault == .checksumIgnored {
          entries.append(row.entry)
          continue
        }
        if fault == .damagedTailCut { break }
        throw .damaged(table: "raft_log", row: "\(row.entry.index)", reason: "checksum")
      }
      entries.append(row.entry)
    }
    if fault != .slicesKept { for slice in undo { rows.takeBack(slice.rows, to: slice.before) } }
    undo = []
    var state = ClusterState()
    state.restore(index: appliedIndex, actions: rows.actions)
    return LoadedState(raftID: raftID, hardState: hardState, membership: membership, compacted: compacted, entries: entries, state: state)
  }

  func entries(first: UInt64, last: UInt64, maxBytes: Int) throws(StoreError) -> [StoredEntry] {
    guard first > compacted.index, first <= last, last <= lastIndex else { return [] }
    var found: [StoredEntry] = []
    var rest = maxBytes
    for index in first...last {
      let row = log[Int(index - compacted.index) - 1]
      guard row.checksum == row.entry.checksum || fault == .checksumIgnored else {
        throw .damaged(table: "raft_log", row: "\(index)", reason: "checksum")
      }
      rest -= row.entry.data.count + 24
      if rest < 0, !found.isEmpty { break }
      found.append(row.entry)
    }
    return found
  }

  // MARK: - Damage

  /// A bit rots in an entry. Answers false when there is none.
  func corrupt(_ random: inout Random) -> Bool {
    let candidates = log.indices.filter { !log[$0].entry.data.isEmpty && log[$0].entry.kind == 0 }
    guard let victim = random.pickIfAny(candidates) else { return false }
    // The last byte: what is decoded is another command.
    let place = log[victim].entry.data.count - 1
    log[victim].entry.data[place] ^= 1
    isCorrupt = true
    return true
  }

  /// As `corrupt`, in the last command.
  func corruptTail() -> Bool {
    guard let victim = log.lastIndex(where: { !$0.entry.data.isEmpty && $0.entry.kind == 0 }) else { return false }
    let place = log[victim].entry.data.count - 1
    log[victim].entry.data[place] ^= 1
    isCorrupt = true
    return true
  }

  /// The transactions from here on are those that `cutShort` takes away.
  func remember() {
    let copy = SimulatedDisk(fault: fault)
    copy.take(self)
    (earlier, writesSince) = (copy, 0)
  }

  /// A bit rots in a frame of the write-ahead log; all that was written since `remember` lies behind it.
  func cutShort() { (isCutShort, isCorrupt) = (true, true) }

  private func take(_ other: SimulatedDisk) {
    (raftID, hardState, membership, compacted, log, appliedIndex) =
      (other.raftID, other.hardState, other.membership, other.compacted, other.log, other.appliedIndex)
    (rows, undo) = (other.rows, other.undo)
  }

  func wipe() {
    (earlier, isCutShort) = (nil, false)
    (raftID, hardState, membership, compacted, log, appliedIndex) = (nil, .init(), .init(), .init(index: 0, term: 0), [], 0)
    (rows, undo) = (SimulatedRows(), [])
  }
}

extension StoredEntry {
  /// FNV-1a; as good as any here.
  fileprivate var checksum: UInt64 {
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    func add(_ value: UInt64) { hash = (hash ^ value) &* 0x100_0000_01B3 }
    add(index)
    add(term)
    add(UInt64(kind))
    for byte in data { add(UInt64(byte)) }
    return hash
  }
}
