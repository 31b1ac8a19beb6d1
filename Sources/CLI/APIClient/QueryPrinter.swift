/// An answer of `/orch/v1/sql` as text, printed while it comes. A table's columns are measured by its first `measuredRows` rows, or
/// `measuredBytes` of them: no more of an answer is ever in memory.
public struct QueryPrinter {
  public enum Format: Sendable { case table, json, csv }
  static let measuredRows = 1000
  static let measuredBytes = 1 << 20

  private let format: Format
  private let width: Int?
  private let print: (String) -> Void
  private var lines = Lines()
  private var columns: [String] = []
  private var keys: [String] = []
  private var measured: [[String]] = []
  private var measuredSize = 0
  private var widths: [Int]?
  /// Set by the last line of a whole answer.
  public private(set) var rows: Int?

  /// - Parameter width: of the terminal; nil cuts nothing.
  public init(_ format: Format, width: Int?, print: @escaping (String) -> Void) {
    self.format = format
    self.width = width
    self.print = print
  }

  public mutating func add(_ bytes: some Sequence<UInt8>) throws(ClientError) {
    for line in lines.add(bytes) { try self.line(line) }
  }

  /// Throws when the answer was cut off.
  public mutating func finish() throws(ClientError) {
    flush()
    if rows == nil { throw .broken("the answer was cut off: the manager stopped, or the connection to it broke; ask again") }
  }

  private mutating func line(_ line: ArraySlice<UInt8>) throws(ClientError) {
    if line.first == UInt8(ascii: "[") { return row(try JSONRow(line)) }
    struct Mark: Decodable {
      var columns: [String]?
      var rows: Int?
      var error: String?
    }
    guard let mark = try? JSONText.decode(Mark.self, Array(line)) else { throw .broken("the manager answered with something else than rows") }
    if let names = mark.columns { begin(names) }
    rows = mark.rows
    if let error = mark.error {
      flush()
      throw .broken(error)
    }
  }

  private mutating func begin(_ names: [String]) {
    columns = names
    switch format {
    case .table: measured = [names.map { $0.uppercased() }]
    case .csv: print(names.map(Self.quoted).joined(separator: ","))
    case .json:
      // Keys of an object must differ.
      var seen: [String: Int] = [:]
      keys = names.map { name in
        seen[name, default: 0] += 1
        return JSONText.line(seen[name]! == 1 ? name : "\(name)_\(seen[name]!)")
      }
    }
  }

  private mutating func row(_ row: JSONRow) {
    switch format {
    case .json: print("{" + zip(keys, row.values).map { "\($0):\($1.json)" }.joined(separator: ",") + "}")
    case .csv: print(row.values.map { Self.quoted($0.text) }.joined(separator: ","))
    case .table:
      let cells = row.values.map { String($0.text.map { $0.isNewline || $0 == "\t" ? " " : $0 }) }
      if let widths { return print(Self.line(cells, widths)) }
      measured.append(cells)
      measuredSize += cells.reduce(0) { $0 + $1.utf8.count }
      if measured.count > Self.measuredRows || measuredSize > Self.measuredBytes { flush() }
    }
  }

  private mutating func flush() {
    guard format == .table, widths == nil, !columns.isEmpty else { return }
    var widths = columns.indices.map { column in measured.map { $0[column].count }.max() ?? 0 }
    var cut: Set<Int> = []
    // The widest gives, as in other tables; none falls under 8 or its header. The others pad, and cut nothing that comes later.
    while let width, widths.reduce(3 * (widths.count - 1), +) > width,
      let widest = widths.indices.filter({ widths[$0] > max(8, columns[$0].count) }).max(by: { widths[$0] < widths[$1] })
    {
      widths[widest] -= 1
      cut.insert(widest)
    }
    let final = widths.indices.map { cut.contains($0) ? widths[$0] : -widths[$0] }
    self.widths = final
    for cells in measured { print(Self.line(cells, final)) }
    measured = []
  }

  /// A negative width pads and does not cut.
  private static func line(_ cells: [String], _ widths: [Int]) -> String {
    var line = zip(cells, widths).map { cell, width in
      let count = cell.count
      if width > 0, count > width { return String(cell.prefix(width - 1)) + "…" }
      return cell + String(repeating: " ", count: max(0, abs(width) - count))
    }.joined(separator: "   ")
    while line.last == " " { line.removeLast() }
    return line
  }

  /// RFC 4180, with a newline alone at the end of a row.
  private static func quoted(_ text: String) -> String {
    guard text.utf8.contains(where: { [UInt8(ascii: "\""), UInt8(ascii: ","), 10, 13].contains($0) }) else { return text }
    var result = "\""
    for character in text.unicodeScalars {
      if character == "\"" { result.unicodeScalars.append(character) }
      result.unicodeScalars.append(character)
    }
    return result + "\""
  }
}

/// One row of an answer: a JSON array of texts, numbers and nulls.
struct JSONRow {
  struct Value {
    /// As it came.
    var json: String
    /// Empty for null.
    var text: String
  }
  var values: [Value] = []

  init(_ line: ArraySlice<UInt8>) throws(ClientError) {
    var index = line.startIndex + 1
    while index < line.endIndex, line[index] != UInt8(ascii: "]") {
      let start = index
      if line[index] == UInt8(ascii: "\"") {
        index += 1
        var isPlain = true
        while index < line.endIndex, line[index] != UInt8(ascii: "\"") {
          if line[index] == UInt8(ascii: "\\") {
            isPlain = false
            index += 1
          }
          index += 1
        }
        guard index < line.endIndex else { break }
        index += 1
        let json = String(decoding: line[start..<index], as: UTF8.self)
        let text = isPlain ? String(decoding: line[start + 1..<index - 1], as: UTF8.self) : try? JSONText.decode(String.self, Array(json.utf8))
        guard let text else { throw Self.malformed }
        values.append(Value(json: json, text: text))
      } else {
        while index < line.endIndex, line[index] != UInt8(ascii: ","), line[index] != UInt8(ascii: "]") { index += 1 }
        let json = String(decoding: line[start..<index], as: UTF8.self)
        values.append(Value(json: json, text: json == "null" ? "" : json))
      }
      if index < line.endIndex, line[index] == UInt8(ascii: ",") { index += 1 }
    }
    guard index == line.endIndex - 1 else { throw Self.malformed }
  }

  private static var malformed: ClientError { .broken("the manager answered with something else than rows") }
}
