import CSQLite
import Glibc
import Model
import Replica

/// A cluster's state in one plain SQLite file, for `orch backup`: the tables of a manager's database without its log, its votes and its
/// own id. The CA's key and whatever else is sealed stays sealed with the managers' unlock key, which is not inside.
///
/// It is written from a state in memory, so it holds up neither the store nor its checkpoints. Blocks; one thread at a time.
public enum StateBackup {
  public struct Summary: Hashable, Sendable {
    public var cluster: ClusterID
    public var index: UInt64
    public var takenAt: Timestamp
    public var nodes: Int
    public var stacks: Int
    public var services: Int
    public var tasks: Int
    public var networks: Int
    public var volumes: Int

    public init(_ state: ClusterState, cluster: ClusterID, takenAt: Timestamp) {
      self.cluster = cluster
      self.takenAt = takenAt
      index = state.index
      (nodes, stacks, services) = (state.nodes.count, state.stacks.count, state.services.count)
      (tasks, networks, volumes) = (state.tasks.count, state.networks.count, state.volumes.count)
    }
  }

  /// What a file holds.
  public struct Content: Sendable {
    public var state: ClusterState
    /// Raft's, of the last entry in it.
    public var term: UInt64
    public var summary: Summary
    /// Of a manager's database: what its log has beyond the state.
    public var entries: [StoredEntry]
  }

  /// Makes the file (mode 0600, synced), which must not exist; then reads it back: its structure, and how many rows each table has.
  /// What was begun is removed when it throws; `.diskFull` also when it would be larger than `bytesMax`.
  public static func write(
    _ state: ClusterState, term: UInt64, takenAt: Timestamp, to path: String, bytesMax: Int64 = .max
  ) throws(StoreError) -> Summary {
    guard let cluster = state.cluster else { throw .cannotOpen(path: path, cause: "this manager does not have the cluster's state yet") }
    do throws(StoreError) {
      defer { unlink(path + ".lock") }
      try fill(path, state, term, takenAt, bytesMax)
      try verify(path, state)
      return Summary(state, cluster: cluster.id, takenAt: takenAt)
    } catch {
      remove(path)
      throw error
    }
  }

  private static func verify(_ path: String, _ state: ClusterState) throws(StoreError) {
    let database = try Database(path: path, readOnly: true)
    let check = try database.text("PRAGMA integrity_check(1)")
    guard check == "ok" else { throw .damaged(file: path, table: "-", row: "-", reason: check) }
    let expected = [
      ("cluster", 1), ("nodes", state.nodes.count), ("services", state.services.count), ("revisions", state.revisions.count),
      ("tasks", state.tasks.count), ("networks", state.networks.count), ("volumes", state.volumes.count), ("stacks", state.stacks.count),
      ("secrets", state.files.values.count { $0.kind == .secret }), ("configs", state.files.values.count { $0.kind == .config }),
    ]
    for (table, count) in expected {
      let found = try database.text("SELECT count(*) FROM \(table)")
      guard found == String(count) else {
        throw .damaged(file: path, table: table, row: "-", reason: "\(found) rows are there, \(count) were written")
      }
    }
  }

  /// The file and what SQLite and the lock leave beside it.
  public static func remove(_ path: String) { for suffix in ["", "-wal", "-shm", "-journal", ".lock"] { unlink(path + suffix) } }

  /// Reads a backup, or the database of a manager that does not run, checking everything; brings an older format up to date in place.
  public static func read(_ path: String) throws(StoreError) -> Content {
    guard access(path, R_OK) == 0 else { throw .cannotOpen(path: path, cause: String(cString: strerror(errno))) }
    defer { unlink(path + ".lock") }
    let store = try Store(path: path)
    let loaded = try store.load()
    let check = try store.database.text("PRAGMA integrity_check(1)")
    guard check == "ok" else { throw .damaged(file: path, table: "-", row: "-", reason: check) }
    guard let cluster = loaded.state.cluster else { throw .foreign(path: path) }
    let taken = Int64(try store.database.text("SELECT value FROM meta WHERE key = 'taken_at'")) ?? 0
    try single(store.database)
    return Content(
      state: loaded.state, term: max(loaded.hardState.term, loaded.compacted.term),
      summary: Summary(loaded.state, cluster: cluster.id, takenAt: Timestamp(nanoseconds: taken)),
      entries: loaded.entries.filter { $0.index > loaded.state.index })
  }

  private static func fill(_ path: String, _ state: ClusterState, _ term: UInt64, _ takenAt: Timestamp, _ bytesMax: Int64) throws(StoreError) {
    let descriptor = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
    guard descriptor >= 0 else { throw .cannotOpen(path: path, cause: String(cString: strerror(errno))) }
    defer { close(descriptor) }
    do {
      let store = try Store(path: path)
      // What goes wrong here leaves no file: a journal would only be written for nothing.
      try store.database.execute("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
      let page = Int64(try store.database.text("PRAGMA page_size")) ?? 4096
      let pages = min(max(1, bytesMax / page), Int64(UInt32.max - 1))
      // It answers with what it set: never less than there are.
      guard Int64(try store.database.text("PRAGMA max_page_count = \(pages)")) == pages else {
        throw StoreError.diskFull(operation: "write \(path)", cause: "ENOSPC (No space left on device)")
      }
      var batch = WriteBatch()
      batch.hardState = StoredHardState(term: term, vote: nil, committed: state.index)
      batch.snapshot = .init(point: SnapshotPoint(index: state.index, term: term), state: state)
      try store.write(batch)
      try store.database.run("INSERT OR REPLACE INTO meta VALUES ('taken_at', ?)", .integer(takenAt.nanoseconds))
      try single(store.database)
    }
    guard fsync(descriptor) == 0 else { throw .io(operation: "sync \(path)", cause: String(cString: strerror(errno))) }
  }

  /// One file, which also opens where nothing may be written beside it.
  private static func single(_ database: Database) throws(StoreError) {
    guard try database.text("PRAGMA journal_mode = DELETE") == "delete" else {
      throw .io(operation: "\(database.path): leave WAL", cause: "SQLite refused")
    }
  }
}
