/// Rows for people and for programs: the same cells as a table that fits the terminal, or as JSON lines with Docker's keys.
public struct Table: Sendable {
  public struct Column: Sendable {
    /// Docker's JSON key; columns without a header appear in JSON only.
    public var key: String
    public var header: String?
    /// May be cut with … when the terminal is narrow.
    public var flexible: Bool
    /// JSON's true or false; the cell says which.
    public var isBoolean: Bool
    public init(_ key: String, _ header: String?, flexible: Bool = false, isBoolean: Bool = false) {
      self.isBoolean = isBoolean
      self.key = key
      self.header = header
      self.flexible = flexible
    }
  }
  public var columns: [Column]
  public var rows: [[String]] = []
  public init(_ columns: [Column]) { self.columns = columns }

  public mutating func add(_ cells: [String]) {
    precondition(cells.count == columns.count, "a row of \(cells.count) cells in a table of \(columns.count) columns")
    rows.append(cells)
  }

  /// One JSON object a line, keys sorted as Docker's templates print them.
  public var jsonLines: [String] {
    rows.map { row in
      JSONText.line(Dictionary(uniqueKeysWithValues: zip(columns, row).map { ($0.key, $0.isBoolean ? Cell.flag($1 == "true") : .text($1)) }))
    }
  }

  /// - Parameter width: of the terminal in columns; nil cuts nothing.
  public func lines(width: Int?) -> [String] {
    var shown = columns.indices.filter { columns[$0].header != nil }
    // A cell is one line, whatever a task's error says.
    let cells = [columns.map { $0.header ?? "" }] + rows.map { $0.map(Self.oneLine) }
    var widths = columns.indices.map { column in cells.map { $0[column].count }.max() ?? 0 }
    if let width {
      func excess() -> Int { shown.reduce(3 * max(0, shown.count - 1)) { $0 + widths[$1] } - width }
      // A column in which nothing stands goes first.
      for column in shown.reversed() where excess() > 0 && !rows.isEmpty && rows.allSatisfy({ $0[column].isEmpty }) {
        shown.removeAll { $0 == column }
      }
      // Then the widest flexible column gives, a name last: it is what one types. None falls under its header or 8.
      for names in [false, true] {
        while excess() > 0,
          let widest = shown.filter({
            columns[$0].flexible && (columns[$0].key == "Name") == names && widths[$0] > max(8, columns[$0].header!.count)
          }).max(by: { widths[$0] < widths[$1] })
        {
          widths[widest] -= 1
        }
      }
    }
    return cells.map { row in
      var line = shown.map { column in
        let cell = row[column].count > widths[column] ? String(row[column].prefix(max(0, widths[column] - 1))) + "…" : row[column]
        return cell + String(repeating: " ", count: widths[column] - cell.count)
      }.joined(separator: "   ")
      while line.last == " " { line.removeLast() }
      return line
    }
  }

  private static func oneLine(_ text: String) -> String {
    String(text.map { $0.isNewline || $0 == "\t" ? " " : $0 })
  }
}

private enum Cell: Encodable {
  case text(String)
  case flag(Bool)
  func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    switch self {
    case .text(let text): try container.encode(text)
    case .flag(let flag): try container.encode(flag)
    }
  }
}
