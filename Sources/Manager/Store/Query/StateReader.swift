import CSQLite
import LinuxSystem
import Model

/// Answers one SQL statement from a manager's database, on a read-only connection of its own: what `orch sql` stands on.
///
/// Invariants:
/// - A statement sees the documented views (docs/sql.md) and nothing else. `ReadGuard` refuses every other table, writing, ATTACH,
///   PRAGMA and load_extension while SQLite prepares the statement; key material is in no view.
/// - A statement sees one snapshot (WAL) and never holds the writer up. It holds back checkpoints, so it ends at its deadline.
/// - Rows are handed over one by one: neither side of it holds more than a row.
///
/// Confined to one thread; every call may block on the disk.
public final class StateReader {
  /// Longest text, blob or row in bytes; a manifest is at most 3 MiB.
  public static let valueBytesMax = 8 << 20
  static let statementBytesMax = 1 << 20
  /// What SQLite may allocate for a statement, in bytes. One of 1 MiB that lists numbers takes a quarter of it.
  static let memoryBytesMax = 128 << 20

  private let database: Database
  private let guardian: ReadGuard
  /// What the views read of the tables.
  var readable: Set<ReadGuard.Read> { guardian.readable }
  private let limit: Limit
  private var memory = MemoryBudget(bytes: memoryBytesMax)

  /// Shared with the progress handler, which runs on the reader's thread.
  private final class Limit {
    var deadline: UInt64 = .max
    var isCancelled: () -> Bool = { false }
    var cause: QueryError?
    var seconds: Double = 0
    var room: TemporaryRoom?
    private var nextLook: UInt64 = 0

    func check() -> Bool {
      let now = MonotonicClock.now
      if isCancelled() { cause = .cancelled } else if now >= deadline { cause = .tooSlow(seconds: seconds) }
      if cause == nil, now >= nextLook, let room {
        // A disk takes a few megabytes in this time.
        nextLook = now + 10_000_000
        if room.isShort {
          cause = .refused("the statement was stopped: its temporary files leave too little room in \(room.folder); sort or group less at once")
        }
      }
      return cause != nil
    }
  }

  /// Opens the file and makes the views, in the connection's own TEMP schema: about a millisecond. With a gate all that it reads is of one
  /// state, the one that the rows have when it opens.
  public init(path: String, gate: RowGate? = nil) throws(StoreError) {
    database = try Database(path: path, readOnly: true)
    guardian = ReadGuard()
    limit = Limit()
    let handle = database.handle
    SQLFunctions.register(on: handle)
    // Sorting and grouping of many rows go to files that SQLite deletes at once.
    try database.execute("PRAGMA temp_store = FILE; PRAGMA cell_size_check = ON; PRAGMA trusted_schema = OFF")
    for view in StateView.all { try database.execute(view.definition) }
    try database.execute(StateView.columnsView(try columns()))
    try database.execute("PRAGMA query_only = ON")
    for (kind, bound) in [
      (SQLITE_LIMIT_LENGTH, Self.valueBytesMax), (SQLITE_LIMIT_SQL_LENGTH, Self.statementBytesMax), (SQLITE_LIMIT_ATTACHED, 0),
      (SQLITE_LIMIT_COLUMN, 500), (SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1000), (SQLITE_LIMIT_WORKER_THREADS, 0),
    ] { sqlite3_limit(handle, kind, Int32(bound)) }
    try gate?.pass { () throws(StoreError) in
      try database.execute("BEGIN")
      _ = try database.text("SELECT count(*) FROM meta")
    }
    try learn()
    guardian.isOver = { [limit] in limit.check() }
    sqlite3_progress_handler(
      handle, 1000, { Unmanaged<Limit>.fromOpaque($0!).takeUnretainedValue().check() ? 1 : 0 }, Unmanaged.passUnretained(limit).toOpaque())
  }

  /// What the views themselves read is what a statement may reach through them.
  private func learn() throws(StoreError) {
    guardian.attach(to: database.handle)
    for view in StateView.all.map(\.name) + [StateView.columnsName] {
      guardian.learnsFrom = view
      _ = try database.statement("SELECT * FROM temp.\(view) LIMIT 0").step()
    }
    guardian.learnsFrom = nil
  }

  private func columns() throws(StoreError) -> [(view: String, columns: [String])] {
    var result: [(view: String, columns: [String])] = []
    for view in StateView.all {
      let statement = try database.statement("SELECT * FROM temp.\(view.name) LIMIT 0")
      result.append((view.name, statement.columnNames))
    }
    return result
  }

  /// Prepares the statement. Throws `QueryError` for what is wrong or refused.
  /// - Parameters:
  ///   - limit: wall-clock time for all of it, waiting of `row` included.
  ///   - isCancelled: asked now and then from within SQLite.
  public func prepare(_ sql: String, limit: Duration, isCancelled: @escaping () -> Bool = { false }) throws(QueryError) -> Rows {
    try prepare(sql, limit: limit, room: TemporaryRoom(), isCancelled: isCancelled)
  }

  func prepare(
    _ sql: String, limit: Duration, room: TemporaryRoom, isCancelled: @escaping () -> Bool = { false }
  ) throws(QueryError) -> Rows {
    self.limit.room = room
    memory = MemoryBudget(bytes: Self.memoryBytesMax)
    self.limit.seconds = limit / .seconds(1)
    self.limit.deadline = MonotonicClock.now &+ UInt64(max(0, limit / .nanoseconds(1)))
    self.limit.isCancelled = isCancelled
    self.limit.cause = nil
    guard sql.utf8.count <= Self.statementBytesMax else { throw .refused("the statement has \(sql.utf8.count) bytes; 1 MiB is the most") }
    if sql.utf8.contains(0) { throw .refused("the statement holds a NUL character") }
    guardian.refusal = nil
    var pointer: OpaquePointer?
    var rest = ""
    let code = sql.withCString { text in
      var tail: UnsafePointer<CChar>?
      let code = memory.enforced { sqlite3_prepare_v3(database.handle, text, -1, 0, &pointer, &tail) }
      if let tail { rest = String(cString: tail) }
      return code
    }
    guard code == SQLITE_OK else { throw failure(code) }
    guard let pointer else { throw .refused("there is no statement: give one SELECT") }
    let statement = Statement(pointer, database)
    guard sqlite3_stmt_readonly(pointer) != 0 else { throw .refused(ReadGuard.writes) }
    guard isBlank(rest) else { throw .refused("more than one statement: give one SELECT at a time") }
    guard sqlite3_column_count(pointer) > 0 else { throw .refused("the statement gives no rows: give one SELECT") }
    return Rows(statement, pointer, self)
  }

  /// Comments, white space and semicolons alone. SQLite says what a statement is.
  private func isBlank(_ rest: String) -> Bool {
    if rest.isEmpty { return true }
    var pointer: OpaquePointer?
    var tail: UnsafePointer<CChar>?
    return rest.withCString { text in
      let code = memory.enforced { sqlite3_prepare_v3(database.handle, text, -1, 0, &pointer, &tail) }
      sqlite3_finalize(pointer)
      guard code == SQLITE_OK, pointer == nil, let tail else { return false }
      // A lone semicolon ends an empty statement.
      return tail == text || isBlank(String(cString: tail))
    }
  }

  fileprivate func failure(_ code: Int32) -> QueryError {
    if let cause = limit.cause { return cause }
    if memory.isSpent {
      return .refused("the statement needs more than \(Self.memoryBytesMax >> 20) MiB of memory: ask in simpler words, or for less at once")
    }
    if let refusal = guardian.refusal { return .refused(refusal) }
    let message = String(cString: sqlite3_errmsg(database.handle))
    switch code & 0xff {
    case SQLITE_ERROR, SQLITE_AUTH, SQLITE_RANGE, SQLITE_MISMATCH:
      if message.hasPrefix("cannot modify") { return .refused(ReadGuard.writes) }
      let views = StateView.all.map(\.name).joined(separator: ", ")
      return .refused(message + (message.hasPrefix("no such table") ? "; the views are \(views)" : ""))
    case SQLITE_TOOBIG: return .refused("a value or the statement is larger than \(Self.valueBytesMax >> 20) MiB")
    case SQLITE_READONLY: return .refused(ReadGuard.writes)
    case SQLITE_INTERRUPT: return .cancelled
    default: return .storage(database.error(code, "orch sql"))
    }
  }

  /// The statement's rows, one at a time.
  public final class Rows {
    public let columns: [String]
    private let statement: Statement
    private let pointer: OpaquePointer
    private let reader: StateReader

    fileprivate init(_ statement: Statement, _ pointer: OpaquePointer, _ reader: StateReader) {
      self.statement = statement
      self.pointer = pointer
      self.reader = reader
      columns = statement.columnNames
    }

    /// Appends the next row as a JSON array and a newline; false at the end.
    public func next(into line: inout [UInt8]) throws(QueryError) -> Bool {
      // The progress handler does not run while the reader of the rows is slow.
      if reader.limit.check() { throw reader.limit.cause! }
      switch reader.memory.enforced({ sqlite3_step(pointer) }) {
      case SQLITE_ROW:
        JSONLine.row(of: pointer, columns: Int32(columns.count), into: &line)
        return true
      case SQLITE_DONE: return false
      case let code: throw reader.failure(code)
      }
    }
  }
}

/// Why a statement was not answered, or not to its end.
public enum QueryError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The statement itself: its syntax, or what it asks for.
  case refused(String)
  case tooSlow(seconds: Double)
  /// The one who asked has gone.
  case cancelled
  case storage(StoreError)

  public var description: String {
    switch self {
    case .refused(let reason): reason
    case .tooSlow(let seconds):
      "the statement was stopped after \(seconds == seconds.rounded() ? "\(Int(seconds))" : "\(seconds)") s: ask for less, or give it more time with --timeout"
    case .cancelled: "the statement was cancelled"
    case .storage(let error): "\(error)"
    }
  }
}

extension Statement {
  var columnNames: [String] { (0..<columnCount).map { columnName($0) } }
}
