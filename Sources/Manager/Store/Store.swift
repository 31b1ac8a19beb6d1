import CSQLite
import Glibc
import Model
@_exported import Replica

/// Store: a manager's one database file. It holds Raft's log, hard state and membership, and the replicated state at the applied index.
///
/// Invariants:
/// - `write` is one transaction and one fsync (WAL, synchronous=FULL): all of a batch is on the disk when it returns, or none of it.
/// - The applied index is written in the transaction that writes the rows of that index, or the last slice of them; what the rows of earlier
///   slices were is kept till then, and `load` puts it back.
/// - A log entry's checksum is verified whenever it is read; damage is an error that names the row, never a shorter log. That goes for
///   the write-ahead log, too, but for its last transaction (`WriteAheadLog`).
/// - After a failed write or checkpoint the store accepts no other: nobody can mistake a lost write for a kept one.
///
/// It refuses to know Raft's rules (Consensus does) and what may change (Model's `ClusterState.apply` does). It is confined to one
/// thread, that of Consensus, since every call may block on the disk.
public final class Store {
  public let path: String
  /// Of the library that runs.
  public static var sqliteVersion: String { String(cString: sqlite3_libversion()) }
  let database: Database
  /// Held as long as this process uses the file; the kernel frees it however the process ends.
  private let lock: Int32
  private let checkpointer: Checkpointer
  private var logRoom: LogRoom
  private var failure: StoreError?
  /// Of a checkpoint: the next write hears of it as it was.
  private var untold: StoreError?
  /// The log's last index, to know what an append has to truncate.
  var lastIndex: UInt64 = 0
  var compacted = SnapshotPoint(index: 0, term: 0)
  var appliedIndex: UInt64 = 0
  /// Slices are in the tables, and the last one is not.
  var isFlushing = false
  let gate: RowGate

  /// Opens the file or makes it (mode 0600), verifies WAL and synchronous=FULL, and brings an older format up to date.
  public init(path: String, gate: RowGate = RowGate()) throws(StoreError) {
    self.path = path
    self.gate = gate
    lock = try Self.lock(path)
    do throws(StoreError) {
      try WriteAheadLog.verify(database: path)
      database = try Database(path: path)
      try Self.prepare(database)
    } catch {
      close(lock)
      throw error
    }
    checkpointer = Checkpointer(path: path)
    logRoom = LogRoom(database: path)
    database.countLogPages()
  }

  deinit {
    checkpointer.close()
    close(lock)
  }

  /// One transaction. When it throws, nothing of the batch is kept and the store is done for.
  public func write(_ batch: WriteBatch) throws(StoreError) {
    if let untold {
      self.untold = nil
      throw untold
    }
    if let failure { throw .failed(earlier: "\(failure)") }
    guard !batch.isEmpty else { return }
    let (last, compacted, applied, wasFlushing) = (lastIndex, compacted, appliedIndex, isFlushing)
    if batch.applied?.before != nil, !isFlushing { gate.close() }
    do throws(StoreError) {
      try database.transaction { () throws(StoreError) in
        if let id = batch.raftID { try putMeta("raft_id", id.rawValue) }
        if let snapshot = batch.snapshot { try install(snapshot) }
        if let hardState = batch.hardState { try put(hardState) }
        if !batch.entries.isEmpty { try append(batch.entries) }
        if let applied = batch.applied { try put(applied) }
        if let membership = batch.membership { try put(membership) }
        if let point = batch.compact { try compact(point) }
      }
    } catch {
      (lastIndex, self.compacted, appliedIndex, isFlushing) = (last, compacted, applied, wasFlushing)
      failure = error
      if isFlushing { gate.fail(error) } else { gate.open() }
      database.leaveAsIs()
      throw error
    }
    if !isFlushing { gate.open() }
    logRoom.follow(pages: Int(database.logPages))
    // What is written stays acknowledged; the next write hears of it.
    do throws(StoreError) {
      if try checkpointer.committed(pages: database.logPages) { try database.checkpoint() }
    } catch {
      (failure, untold) = (error, error)
      database.leaveAsIs()
    }
  }

  private func put(_ state: StoredHardState) throws(StoreError) {
    try database.run(
      "INSERT OR REPLACE INTO hard_state (one, term, vote, committed, checksum) VALUES (1, ?, ?, ?, ?)", .integer(state.term),
      .integer(state.vote?.rawValue ?? 0), .integer(state.committed), .integer(state.checksum))
  }

  private func append(_ entries: [StoredEntry]) throws(StoreError) {
    let first = entries[0].index
    precondition(first > compacted.index && first <= lastIndex + 1, "append at \(first) to a log of \(compacted.index + 1)...\(lastIndex)")
    if first <= lastIndex { try database.run("DELETE FROM raft_log WHERE position >= ?", .integer(first)) }
    var expected = first
    for entry in entries {
      precondition(entry.index == expected, "entry \(entry.index) where \(expected) belongs")
      try database.run(
        "INSERT INTO raft_log VALUES (?, ?, ?, ?, ?)", .integer(entry.index), .integer(entry.term), .integer(entry.kind), .blob(entry.data),
        .integer(entry.checksum))
      expected += 1
    }
    lastIndex = expected - 1
  }

  private func put(_ applied: WriteBatch.Applied) throws(StoreError) {
    let index = applied.state.index
    precondition(index >= appliedIndex, "applied index \(index) is below \(appliedIndex)")
    if let before = applied.before {
      try keep(applied.rows, in: before)
      try putRows(applied.rows, in: applied.state)
    } else {
      try putRows(applied.rows, in: applied.state)
      if isFlushing { try database.run("DELETE FROM undo") }
      try putMeta("applied_index", index)
      appliedIndex = index
    }
    isFlushing = applied.before != nil
  }

  private func put(_ membership: Membership) throws(StoreError) {
    try database.run("DELETE FROM members")
    for member in membership.members.values {
      try database.run(
        "INSERT INTO members VALUES (?, ?, ?, ?)", .integer(member.raftID.rawValue), .optional(member.node) { .blob($0.bytes) },
        .text(member.address), .text(member.role.rawValue + (member.isOutgoingVoter ? Self.outgoingMark : "")))
    }
    try putMeta("auto_leave", membership.autoLeave ? 1 : 0)
  }

  /// After the role of a member that votes in the outgoing half of a joint configuration.
  static let outgoingMark = "+outgoing"

  private func install(_ snapshot: WriteBatch.Snapshot) throws(StoreError) {
    for table in Schema.replicatedTables + ["raft_log", "undo"] { try database.run("DELETE FROM \(table)") }
    try putEverything(in: snapshot.state)
    try putMeta("applied_index", snapshot.point.index)
    try putCompacted(snapshot.point)
    appliedIndex = snapshot.point.index
    lastIndex = snapshot.point.index
    isFlushing = false
  }

  private func compact(_ point: SnapshotPoint) throws(StoreError) {
    precondition(point.index <= appliedIndex, "compaction to \(point.index), beyond the applied index \(appliedIndex)")
    guard point > compacted else { return }
    try database.run("DELETE FROM raft_log WHERE position <= ?", .integer(point.index))
    try putCompacted(point)
  }

  private func putCompacted(_ point: SnapshotPoint) throws(StoreError) {
    try putMeta("compacted_index", point.index)
    try putMeta("compacted_term", point.term)
    compacted = point
  }

  private func putMeta(_ key: String, _ value: UInt64) throws(StoreError) {
    try database.run("INSERT OR REPLACE INTO meta VALUES (?, ?)", .text(key), .integer(value))
  }
}

extension Store {
  /// An advisory lock beside the file: SQLite itself would let two managers share one log.
  static func lock(_ path: String) throws(StoreError) -> Int32 {
    let descriptor = open(path + ".lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw .cannotOpen(path: path + ".lock", cause: String(cString: strerror(errno))) }
    guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
      close(descriptor)
      throw .inUse(path: path)
    }
    return descriptor
  }

  private static func prepare(_ database: Database) throws(StoreError) {
    // The CA's sealed key is inside; SQLite gives the WAL and its index the database's mode.
    chmod(database.path, 0o600)
    let application = try database.text("PRAGMA application_id")
    let tables = try database.text("SELECT count(*) FROM sqlite_master")
    guard application == String(Schema.applicationID) || (application == "0" && tables == "0") else { throw .foreign(path: database.path) }
    let found = Int(try database.text("PRAGMA user_version")) ?? 0
    guard found <= Schema.migrations.count else {
      throw .tooNew(path: database.path, found: found, supported: Schema.migrations.count)
    }

    try database.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -16000")
    let mode = (try database.text("PRAGMA journal_mode"), try database.text("PRAGMA synchronous"))
    guard mode == ("wal", "2") else {
      throw .cannotOpen(path: database.path, cause: "journal_mode is \(mode.0) and synchronous \(mode.1) instead of wal and 2 (FULL)")
    }
    guard found < Schema.migrations.count else { return }
    try database.transaction { () throws(StoreError) in
      for migration in Schema.migrations[found...] { try database.execute(migration) }
      try database.execute("PRAGMA application_id = \(Schema.applicationID); PRAGMA user_version = \(Schema.migrations.count)")
    }
  }
}
