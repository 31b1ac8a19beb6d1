import CSQLite

/// Rows as lines of JSON, written from SQLite's memory without a value in between.
public enum JSONLine {
  static func row(of pointer: OpaquePointer, columns: Int32, into line: inout [UInt8]) {
    line.append(UInt8(ascii: "["))
    for column in 0..<columns {
      if column > 0 { line.append(UInt8(ascii: ",")) }
      switch sqlite3_column_type(pointer, column) {
      case SQLITE_NULL: line += Array("null".utf8)
      case SQLITE_INTEGER: line += Array(String(sqlite3_column_int64(pointer, column)).utf8)
      case SQLITE_FLOAT:
        // JSON knows no infinity.
        let number = sqlite3_column_double(pointer, column)
        line += Array((number.isFinite ? "\(number)" : "null").utf8)
      case SQLITE_BLOB:
        let bytes = UnsafeRawBufferPointer(start: sqlite3_column_blob(pointer, column), count: Int(sqlite3_column_bytes(pointer, column)))
        let digits = Array("0123456789abcdef".utf8)
        line.append(UInt8(ascii: "\""))
        for byte in bytes { line += [digits[Int(byte >> 4)], digits[Int(byte & 15)]] }
        line.append(UInt8(ascii: "\""))
      default:
        let start = sqlite3_column_text(pointer, column)
        string(UnsafeBufferPointer(start: start, count: Int(sqlite3_column_bytes(pointer, column))), into: &line)
      }
    }
    line += [UInt8(ascii: "]"), UInt8(ascii: "\n")]
  }

  /// RFC 8259. What is no UTF-8 is replaced.
  static func string(_ bytes: UnsafeBufferPointer<UInt8>, into line: inout [UInt8]) {
    line.append(UInt8(ascii: "\""))
    if bytes.allSatisfy({ $0 >= 32 && $0 < 127 && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") }) {
      line += bytes
    } else {
      for byte in String(decoding: bytes, as: UTF8.self).utf8 { escape(byte, into: &line) }
    }
    line.append(UInt8(ascii: "\""))
  }

  public static func string(_ text: String, into line: inout [UInt8]) {
    var text = text
    text.withUTF8 { string($0, into: &line) }
  }

  private static func escape(_ byte: UInt8, into line: inout [UInt8]) {
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"): line += [UInt8(ascii: "\\"), byte]
    case 8: line += Array("\\b".utf8)
    case 9: line += Array("\\t".utf8)
    case 10: line += Array("\\n".utf8)
    case 12: line += Array("\\f".utf8)
    case 13: line += Array("\\r".utf8)
    case 0..<32:
      let digits = Array("0123456789abcdef".utf8)
      line += Array("\\u00".utf8) + [digits[Int(byte >> 4)], digits[Int(byte & 15)]]
    default: line.append(byte)
    }
  }
}
