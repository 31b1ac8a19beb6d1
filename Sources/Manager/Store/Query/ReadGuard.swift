import CSQLite

/// SQLite's authorizer for statements of users (sqlite.org/c3ref/set_authorizer.html): asked about everything that a statement does
/// while it is prepared.
///
/// A column of a table is readable through the view that reads it itself, and not otherwise. The view is told by its name, and a
/// common table expression may carry the same name: so what a view reads is learned from the views (`learnsFrom`) column by column,
/// and a statement that plays such a trick sees no more than the view shows. The number of a table's rows is no secret.
final class ReadGuard {
  static let writes = "the statement would write: orch sql only reads; change things with orch deploy, scale, update, …"

  /// While a view is prepared by ourselves: what it reads is noted.
  var learnsFrom: String?
  /// Asked now and then while a statement is prepared, where SQLite calls no progress handler.
  var isOver: () -> Bool = { false }
  /// Why the last statement was refused.
  var refusal: String?
  private(set) var readable: Set<Read> = []
  private var tables: Set<String> = []

  struct Read: Hashable {
    var view: String
    var table: String
    var column: String
  }

  /// The connection must not outlive the guard.
  func attach(to handle: OpaquePointer) {
    sqlite3_set_authorizer(
      handle,
      { context, action, first, second, schema, view in
        func text(_ pointer: UnsafePointer<CChar>?) -> String? { pointer.map { String(cString: $0) } }
        let itself = Unmanaged<ReadGuard>.fromOpaque(context!).takeUnretainedValue()
        return itself.allows(action, text(first), text(second), schema: text(schema), view: text(view)) ? SQLITE_OK : SQLITE_DENY
      }, Unmanaged.passUnretained(self).toOpaque())
  }

  private func allows(_ action: Int32, _ first: String?, _ second: String?, schema: String?, view: String?) -> Bool {
    if isOver() { return false }
    switch action {
    case SQLITE_SELECT, SQLITE_RECURSIVE: return true
    case SQLITE_READ: return reads(first ?? "", second ?? "", schema: schema, view: view)
    case SQLITE_FUNCTION:
      // Those that reach out of the statement; the rest computes.
      if ["load_extension", "fts3_tokenizer"].contains(second?.lowercased() ?? "") { return refuse("\(second!) is not allowed in orch sql") }
      return true
    case SQLITE_ATTACH, SQLITE_DETACH: return refuse("ATTACH and DETACH are not allowed: orch sql reads the cluster's views alone")
    case SQLITE_PRAGMA: return refuse("PRAGMA is not allowed: for the views and their columns ask `select * from columns`")
    case SQLITE_TRANSACTION, SQLITE_SAVEPOINT: return refuse("transactions are not needed: a statement sees one snapshot of the cluster")
    default: return refuse(Self.writes)
    }
  }

  private func reads(_ table: String, _ column: String, schema: String?, view: String?) -> Bool {
    if let learnsFrom {
      if schema == "main", let view { readable.insert(Read(view: view, table: table, column: column)) }
      if schema == "main" { tables.insert(table) }
      return view == nil || view == learnsFrom || StateView.names.contains(view!)
    }
    switch schema {
    case "temp" where StateView.names.contains(table): return true
    // Table-valued functions that compute.
    case "main" where ["json_each", "json_tree"].contains(table): return true
    case "main":
      if let view, readable.contains(Read(view: view, table: table, column: column)) { return true }
      // Rows alone (count(*)): asked without the view's name once SQLite has merged the view into the statement.
      if column.isEmpty, tables.contains(table) { return true }
    // Rows alone of a view or of a common table expression: SQLite names no schema.
    case nil where column.isEmpty && !Self.hidden.contains(table) && !table.hasPrefix("sqlite_") && !table.hasPrefix("pragma_"): return true
    default: break
    }
    let place = [schema, table].compactMap { $0 }.joined(separator: ".")
    return refuse("\(place) cannot be read: the views are \(StateView.all.map(\.name).joined(separator: ", "))")
  }

  /// Tables that no view has the name of.
  private static let hidden: Set<String> = Set(["meta", "hard_state", "raft_log", "members"] + Schema.replicatedTables).subtracting(StateView.names)

  private func refuse(_ reason: String) -> Bool {
    if refusal == nil { refusal = reason }
    return false
  }
}
