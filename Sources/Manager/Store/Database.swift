import CSQLite
import Glibc
import Replica

/// A thin layer over SQLite: one connection, statements prepared once, values bound and read with their types.
/// Used from one thread at a time (SQLITE_OPEN_NOMUTEX); not Sendable on purpose.
/// Why not a library: one row per transaction costs the same, a batch of 100 rows is a third faster (docs/dependencies.md).
final class Database {
  let path: String
  let handle: OpaquePointer
  private var statements: [String: Statement] = [:]
  /// Pages in the write-ahead log as of this connection's last commit; counted once `countLogPages` was called.
  private(set) var logPages: Int32 = 0

  init(path: String, readOnly: Bool = false) throws(StoreError) {
    self.path = path
    SQLiteLog.install()
    var handle: OpaquePointer?
    let access = readOnly ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE
    let code = sqlite3_open_v2(path, &handle, access | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, nil)
    guard code == SQLITE_OK, let handle else {
      sqlite3_close_v2(handle)
      throw .cannotOpen(path: path, cause: String(cString: sqlite3_errstr(code)) + (SQLiteLog.takeFailedCall().map { " (\($0))" } ?? ""))
    }
    self.handle = handle
    // A person may look into the file with the sqlite3 command while the manager runs.
    sqlite3_busy_timeout(handle, 5000)
  }

  deinit {
    statements.removeAll()
    sqlite3_close_v2(handle)
  }

  /// In place of SQLite's own checkpoints, which use the same hook (sqlite3_wal_hook).
  func countLogPages() {
    sqlite3_wal_hook(
      handle,
      { context, _, _, pages in
        Unmanaged<Database>.fromOpaque(context!).takeUnretainedValue().logPages = pages
        return SQLITE_OK
      }, Unmanaged.passUnretained(self).toOpaque())
  }

  /// Several statements without parameters.
  func execute(_ sql: String) throws(StoreError) {
    let code = sqlite3_exec(handle, sql, nil, nil, nil)
    guard code == SQLITE_OK else { throw error(code, sql) }
  }

  func statement(_ sql: String) throws(StoreError) -> Statement {
    if let known = statements[sql] {
      known.reset()
      return known
    }
    var pointer: OpaquePointer?
    let code = sqlite3_prepare_v3(handle, sql, -1, UInt32(SQLITE_PREPARE_PERSISTENT), &pointer, nil)
    guard code == SQLITE_OK, let pointer else { throw error(code, sql) }
    let statement = Statement(pointer, self)
    statements[sql] = statement
    return statement
  }

  /// Binds, runs to the end, expects no rows.
  func run(_ sql: String, _ values: Value...) throws(StoreError) {
    let statement = try statement(sql)
    for (index, value) in values.enumerated() { statement.bind(value, at: Int32(index + 1)) }
    while try statement.step() {}
    statement.reset()
  }

  /// Until `body` returns false.
  func rows(_ statement: Statement, _ body: (Statement) throws(StoreError) -> Bool) throws(StoreError) {
    defer { statement.reset() }
    while try statement.step(), try body(statement) {}
  }

  /// The first column of the first row, as text.
  func text(_ sql: String) throws(StoreError) -> String {
    let statement = try statement(sql)
    defer { statement.reset() }
    return try statement.step() ? statement.text(0) : ""
  }

  /// Copies what is committed in the write-ahead log into the database, as far as nobody reads what was before.
  /// - Returns: so many pages of the log are in the database now; nil when no more are than `before`: somebody reads, or checkpoints
  ///   (sqlite.org/pragma.html#pragma_wal_checkpoint).
  @discardableResult
  func checkpoint(after before: Int32 = 0) throws(StoreError) -> Int32? {
    let statement = try statement("PRAGMA wal_checkpoint(PASSIVE)")
    defer { statement.reset() }
    guard try statement.step(), statement.integer(0) == 0 else { return nil }
    let copied = Int32(truncatingIfNeeded: statement.integer(2))
    return copied > before ? copied : nil
  }

  func transaction<Result>(_ body: () throws(StoreError) -> Result) throws(StoreError) -> Result {
    try run("BEGIN IMMEDIATE")
    do throws(StoreError) {
      let result = try body()
      try run("COMMIT")
      return result
    } catch {
      // Fails harmlessly when SQLite has rolled back by itself (full disk, I/O error).
      sqlite3_exec(handle, "ROLLBACK", nil, nil, nil)
      throw error
    }
  }

  /// From now on closing changes nothing on the disk: what it holds is to be looked at again.
  func leaveAsIs() { _ = csqlite_no_checkpoint_on_close(handle) }

  func error(_ code: Int32, _ sql: String) -> StoreError {
    let statement = sql.prefix(48).split(whereSeparator: \.isNewline).joined(separator: " ")
    let message = String(cString: sqlite3_errmsg(handle))
    let number = sqlite3_system_errno(handle)
    let call = SQLiteLog.takeFailedCall() ?? (number == 0 ? nil : Self.name(number))
    // SQLite keeps no errno for the full disk that it recognises.
    let isFull = code & 0xff == SQLITE_FULL || (code & 0xff == SQLITE_IOERR && (number == ENOSPC || number == EDQUOT))
    let operation = "\(Self.operation(code)) \(path) (\(statement))"
    if isFull { return .diskFull(operation: operation, cause: Self.name(number == EDQUOT ? EDQUOT : ENOSPC)) }
    switch code & 0xff {
    case SQLITE_CORRUPT: return .damaged(file: path, table: "-", row: "-", reason: "\(message) (SQLite \(code))")
    case SQLITE_NOTADB: return .foreign(path: path)
    default: return .io(operation: operation, cause: "\(message) (SQLite \(code)\(call.map { "; \($0)" } ?? ""))")
    }
  }

  private static func name(_ number: Int32) -> String { "errno \(number), \(String(cString: strerror(number)))" }

  /// What was done to the file (SQLite's extended result codes).
  private static func operation(_ code: Int32) -> String {
    switch (code & 0xff, code >> 8) {
    case (SQLITE_IOERR, 1), (SQLITE_IOERR, 2): "read"
    case (SQLITE_IOERR, 3), (SQLITE_FULL, _): "write"
    case (SQLITE_IOERR, 4), (SQLITE_IOERR, 5): "fsync"
    case (SQLITE_IOERR, 6): "truncate"
    case (SQLITE_IOERR, 18), (SQLITE_IOERR, 19), (SQLITE_IOERR, 20), (SQLITE_IOERR, 21): "map the WAL's index of"
    default: "use"
    }
  }
}

/// What a column can hold.
enum Value {
  case null
  case integer(Int64)
  case text(String)
  case blob([UInt8])

  /// A 64-bit number keeps its bits.
  static func integer(_ value: some FixedWidthInteger) -> Self { .integer(Int64(truncatingIfNeeded: value)) }
  static func bool(_ value: Bool) -> Self { .integer(value ? 1 : 0) }
  static func optional<T>(_ value: T?, _ make: (T) -> Value) -> Self { value.map(make) ?? .null }
}

/// A prepared statement; columns are read between `step` and the next `step` or `reset`.
final class Statement {
  private let pointer: OpaquePointer
  private unowned let database: Database

  init(_ pointer: OpaquePointer, _ database: Database) {
    self.pointer = pointer
    self.database = database
  }
  deinit { sqlite3_finalize(pointer) }

  /// 1 is the first parameter. SQLite copies the bytes.
  func bind(_ value: Value, at index: Int32) {
    let code =
      switch value {
      case .null: sqlite3_bind_null(pointer, index)
      case .integer(let number): sqlite3_bind_int64(pointer, index, number)
      case .text(var text): text.withUTF8 { bindText($0, at: index) }
      case .blob(let bytes):
        bytes.isEmpty ? sqlite3_bind_zeroblob(pointer, index, 0) : sqlite3_bind_blob64(pointer, index, bytes, UInt64(bytes.count), Self.transient)
      }
    precondition(code == SQLITE_OK, "bind parameter \(index): SQLite \(code)")
  }

  /// With its length: a text may hold a NUL.
  private func bindText(_ bytes: UnsafeBufferPointer<UInt8>, at index: Int32) -> Int32 {
    guard let start = bytes.baseAddress else { return sqlite3_bind_text(pointer, index, "", 0, Self.transient) }
    return start.withMemoryRebound(to: CChar.self, capacity: bytes.count) {
      sqlite3_bind_text(pointer, index, $0, Int32(bytes.count), Self.transient)
    }
  }

  /// SQLITE_TRANSIENT (SQLite copies), a cast that the importer does not bring over.
  static var transient: sqlite3_destructor_type { unsafeBitCast(-1, to: sqlite3_destructor_type.self) }

  /// True when there is a row.
  func step() throws(StoreError) -> Bool {
    switch sqlite3_step(pointer) {
    case SQLITE_ROW: return true
    case SQLITE_DONE: return false
    case let code:
      let failure = database.error(code, String(cString: sqlite3_sql(pointer)))
      sqlite3_reset(pointer)
      throw failure
    }
  }

  func reset() {
    sqlite3_reset(pointer)
    sqlite3_clear_bindings(pointer)
  }

  var columnCount: Int32 { sqlite3_column_count(pointer) }
  func columnName(_ column: Int32) -> String { sqlite3_column_name(pointer, column).map { String(cString: $0) } ?? "" }
  func isNull(_ column: Int32) -> Bool { sqlite3_column_type(pointer, column) == SQLITE_NULL }
  func integer(_ column: Int32) -> Int64 { sqlite3_column_int64(pointer, column) }
  func unsigned(_ column: Int32) -> UInt64 { UInt64(bitPattern: integer(column)) }
  func bool(_ column: Int32) -> Bool { integer(column) != 0 }
  func text(_ column: Int32) -> String {
    guard let start = sqlite3_column_text(pointer, column) else { return "" }
    return String(decoding: UnsafeBufferPointer(start: start, count: Int(sqlite3_column_bytes(pointer, column))), as: UTF8.self)
  }
  func blob(_ column: Int32) -> [UInt8] {
    guard let start = sqlite3_column_blob(pointer, column) else { return [] }
    return Array(UnsafeRawBufferPointer(start: start, count: Int(sqlite3_column_bytes(pointer, column))))
  }
  /// An id, big endian; nil when the blob has not 16 bytes.
  func bits128(_ column: Int32) -> UInt128? {
    guard let start = sqlite3_column_blob(pointer, column), sqlite3_column_bytes(pointer, column) == 16 else { return nil }
    return UInt128(bigEndian: UnsafeRawPointer(start).loadUnaligned(as: UInt128.self))
  }
  func optional<T>(_ column: Int32, _ read: (Int32) throws(StoreError) -> T) throws(StoreError) -> T? { isNull(column) ? nil : try read(column) }
}
