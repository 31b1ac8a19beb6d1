import CSQLite
import Model

/// Functions that the views use to say things as the CLI does. Users may call them too; they compute and nothing else.
enum SQLFunctions {
  static func register(on handle: OpaquePointer) {
    let flags = SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS
    // id_text(BLOB): the 25 digits of an id.
    sqlite3_create_function_v2(
      handle, "id_text", 1, flags, nil,
      { context, _, arguments in
        guard let argument = arguments?[0], sqlite3_value_type(argument) == SQLITE_BLOB, sqlite3_value_bytes(argument) == 16,
          let bytes = sqlite3_value_blob(argument), let id = Identifier<Never>(bytes: UnsafeRawBufferPointer(start: bytes, count: 16))
        else { return sqlite3_result_null(context) }
        result(context, id.description)
      }, nil, nil, nil)
    // time_text(INTEGER): nanoseconds since 1970 as RFC 3339 in UTC with nine decimals, so that texts sort as times do; NULL for 0.
    sqlite3_create_function_v2(
      handle, "time_text", 1, flags, nil,
      { context, _, arguments in
        guard let argument = arguments?[0], sqlite3_value_type(argument) == SQLITE_INTEGER else { return sqlite3_result_null(context) }
        let instant = sqlite3_value_int64(argument)
        if instant == 0 { return sqlite3_result_null(context) }
        result(context, Timestamp(nanoseconds: instant).withNineDecimals)
      }, nil, nil, nil)
    // state_text(INTEGER): a task state's name.
    sqlite3_create_function_v2(
      handle, "state_text", 1, flags, nil,
      { context, _, arguments in
        guard let argument = arguments?[0], let state = TaskState(rawValue: Int(sqlite3_value_int64(argument))) else {
          return sqlite3_result_null(context)
        }
        result(context, state.description)
      }, nil, nil, nil)
  }
}

private func result(_ context: OpaquePointer?, _ text: String) {
  var text = text
  text.withUTF8 { bytes in
    bytes.withMemoryRebound(to: CChar.self) { sqlite3_result_text(context, $0.baseAddress, Int32($0.count), Statement.transient) }
  }
}
