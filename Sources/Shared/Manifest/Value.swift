/// A manifest's tree after aliases, merges and interpolation; every value knows where it stands.
struct Value {
  enum Kind {
    case null
    /// `quoted`: by quotes or as a block, so surely text.
    case scalar(String, quoted: Bool)
    case list([Value])
    case map([Entry])
  }
  struct Entry {
    var key: String
    var position: Position
    var value: Value
  }
  struct Position: Hashable {
    var line: Int
    var column: Int
    static let none = Position(line: 0, column: 0)
  }
  var kind: Kind
  var position: Position
  var path: String

  /// For a sentence: "found text 'two'".
  var found: String {
    switch kind {
    case .null: return "nothing"
    case .list: return "a list"
    case .map: return "a map"
    case .scalar(let text, let quoted):
      if !quoted, isNumber(text) || text == "true" || text == "false" { return text }
      return "text '\(text.count > 60 ? text.prefix(57) + "..." : text[...])'"
    }
  }
  var isNull: Bool { if case .null = kind { true } else { false } }
}

func isNumber(_ text: String) -> Bool {
  let digits = text.hasPrefix("-") || text.hasPrefix("+") ? text.dropFirst() : text[...]
  return digits.utf8.contains { $0 >= 48 && $0 <= 57 } && digits.utf8.allSatisfy { ($0 >= 48 && $0 <= 57) || $0 == 46 }
}
