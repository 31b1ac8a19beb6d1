import Replica

/// The log's entries through a connection of its own, read only. Readers and the writer do not wait for each other (SQLite's WAL); it
/// sees every transaction that `Store.write` has returned from. Used from one thread.
public final class LogFile: ReplicaLog, @unchecked Sendable {
  // Confined to whoever was given it; handed over once, from the thread that opens the store.
  private let database: Database

  init(path: String) throws(StoreError) {
    database = try Database(path: path, readOnly: true)
    database.leaveAsIs()
  }

  public func entries(first: UInt64, last: UInt64, maxBytes: Int) throws(StoreError) -> [StoredEntry] {
    guard first <= last else { return [] }
    let entries: [StoredEntry]
    do throws(StoreError) { entries = try database.logEntries(first, last, from: nil, maxBytes: maxBytes) } catch {
      throw error.naming(database.path)
    }
    // It may have been compacted away meanwhile.
    return entries.first?.index == first ? entries : []
  }
}

extension Store {
  public func reader() throws(StoreError) -> LogFile { try LogFile(path: path) }
}

extension Database {
  /// Verified. `from`: the index that the first one must have.
  func logEntries(_ first: UInt64, _ last: UInt64, from start: UInt64?, maxBytes: Int) throws(StoreError) -> [StoredEntry] {
    var entries: [StoredEntry] = []
    var expected = start
    var rest = maxBytes
    let statement = try statement("SELECT position, term, kind, data, checksum FROM raft_log WHERE position BETWEEN ? AND ? ORDER BY position")
    statement.bind(.integer(first), at: 1)
    statement.bind(.integer(last), at: 2)
    try rows(statement) { row throws(StoreError) in
      guard rest > 0 else { return false }
      let index = row.unsigned(0)
      if let expected, index != expected {
        throw .damaged(table: "raft_log", row: "\(expected)", reason: "missing; the next one is \(index)")
      }
      guard let kind = UInt8(exactly: row.integer(2)) else {
        throw .damaged(table: "raft_log", row: "\(index)", reason: "kind is \(row.integer(2))")
      }
      let entry = StoredEntry(index: index, term: row.unsigned(1), kind: kind, data: row.blob(3))
      guard row.integer(4) == Int64(entry.checksum) else {
        throw .damaged(table: "raft_log", row: "\(index)", reason: "checksum is \(entry.checksum), \(row.integer(4)) was stored")
      }
      rest -= entry.data.count + 24
      guard rest >= 0 || entries.isEmpty else { return false }
      entries.append(entry)
      expected = index + 1
      return true
    }
    return entries
  }
}
