/// Splitting and expanding as the Dockerfile reference has it ("Environment replacement", "Escape"): quotes, the escape character, $NAME,
/// ${NAME}, ${NAME:-word}, ${NAME:+word}, ${NAME:?word} and the three without the colon.
public struct Words: Sendable {
  public var escape: Character
  public init(escape: Character = "\\") { self.escape = escape }

  /// Words as they stand, quotes and escapes in them; white space in quotes does not part.
  func split(_ text: String) -> [String] {
    var words: [String] = []
    var word = ""
    var isOpen = false
    var quote: Character?
    var iterator = text.makeIterator()
    while let character = iterator.next() {
      if quote == nil, character.isWhitespace {
        if isOpen { words.append(word) }
        (word, isOpen) = ("", false)
        continue
      }
      isOpen = true
      word.append(character)
      if let open = quote {
        if character == open { quote = nil } else if character == escape, open == "\"", let next = iterator.next() { word.append(next) }
      } else if character == "\"" || character == "'" {
        quote = character
      } else if character == escape, let next = iterator.next() {
        word.append(next)
      }
    }
    if isOpen { words.append(word) }
    return words
  }

  /// A problem of one word; the caller knows its line.
  struct Problem: Error {
    var message: String
  }

  /// Quotes and escapes gone, variables replaced; one that is not set is empty.
  func expand(_ text: String, _ variable: (String) -> String?) throws(Problem) -> String {
    var scanner = Scanner(rest: Substring(text), escape: escape)
    return try scanner.word(until: nil, variable)
  }

  /// The same, and a variable outside of quotes may be several words, or none (BuildKit's shell.Lex.ProcessWords).
  func expandWords(_ text: String, _ variable: (String) -> String?) throws(Problem) -> [String] {
    var scanner = Scanner(rest: Substring(text), escape: escape)
    scanner.parts = true
    return try scanner.word(until: nil, variable).split(separator: Scanner.gap).map(String.init)
  }

  /// Variables replaced and nothing else: quotes stay (heredocs).
  func expandVariables(_ text: String, _ variable: (String) -> String?) throws(Problem) -> String {
    var scanner = Scanner(rest: Substring(text), escape: escape)
    scanner.keepsQuotes = true
    return try scanner.word(until: nil, variable)
  }

  private struct Scanner {
    var rest: Substring
    let escape: Character
    var keepsQuotes = false
    /// White space of variables outside of quotes becomes a gap, which no environment can hold.
    var parts = false
    static let gap: Character = "\0"
    var depth = 0

    mutating func word(until end: Character?, _ variable: (String) -> String?) throws(Problem) -> String {
      var result = ""
      while let character = rest.first {
        if character == end { return result }
        rest = rest.dropFirst()
        switch character {
        case "'" where !keepsQuotes:
          guard let close = rest.firstIndex(of: "'") else { throw Problem(message: "a single quote is not closed") }
          result += rest[..<close]
          rest = rest[rest.index(after: close)...]
        case "\"" where !keepsQuotes: result += try quoted(variable)
        case "$":
          let value = try dollar(variable)
          result += parts ? String(value.map { $0.isWhitespace ? Self.gap : $0 }) : value
        case escape:
          guard let next = rest.first else { return result + (keepsQuotes ? String(escape) : "") }
          if keepsQuotes, next != "$", next != escape {
            result.append(escape)
            continue
          }
          result.append(next)
          rest = rest.dropFirst()
        default: result.append(character)
        }
      }
      if let end { throw Problem(message: "'\(end)' is missing at the end of a variable") }
      return result
    }

    private mutating func quoted(_ variable: (String) -> String?) throws(Problem) -> String {
      var result = ""
      while let character = rest.first {
        rest = rest.dropFirst()
        switch character {
        case "\"": return result
        case "$": result += try dollar(variable)
        case escape:
          guard let next = rest.first else { break }
          if next == "\"" || next == "$" || next == escape {
            result.append(next)
            rest = rest.dropFirst()
          } else {
            result.append(escape)
          }
        default: result.append(character)
        }
      }
      throw Problem(message: "a double quote is not closed")
    }

    private mutating func dollar(_ variable: (String) -> String?) throws(Problem) -> String {
      guard rest.first == "{" else {
        let name = self.name()
        return name.isEmpty ? "$" : variable(name) ?? ""
      }
      rest = rest.dropFirst()
      let name = self.name()
      guard !name.isEmpty else { throw Problem(message: "'${' is followed by no name") }
      depth += 1
      defer { depth -= 1 }
      guard depth <= 32 else { throw Problem(message: "variables are nested more than 32 deep") }
      guard let next = rest.first else { throw Problem(message: "'}' is missing after '${\(name)'") }
      rest = rest.dropFirst()
      if next == "}" { return variable(name) ?? "" }
      var operation = next
      // With the colon an empty value counts as none.
      var value = variable(name)
      if next == ":" {
        if value?.isEmpty == true { value = nil }
        guard let second = rest.first else { throw Problem(message: "'}' is missing after '${\(name):'") }
        operation = second
        rest = rest.dropFirst()
      }
      guard "-+?".contains(operation) else {
        throw Problem(
          message:
            "the modifier '\(next == ":" ? ":" : "")\(operation)' of '${\(name)' is not supported: -, + and ? are, each with or without a colon")
      }
      let word = try self.word(until: "}", variable)
      rest = rest.dropFirst()
      switch operation {
      case "-": return value ?? word
      case "+": return value == nil ? "" : word
      default:
        guard let value else { throw Problem(message: "\(name): \(word.isEmpty ? "not set" : word)") }
        return value
      }
    }

    private mutating func name() -> String {
      // $1 and the like are one character long.
      if let first = rest.first, first.isASCII, first.isNumber {
        rest = rest.dropFirst()
        return String(first)
      }
      let name = rest.prefix { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") }
      rest = rest[name.endIndex...]
      return String(name)
    }
  }

  /// A JSON array of texts (RFC 8259), the exec form; nil when the text is none.
  static func jsonArray(_ text: String) -> [String]? {
    var rest = text.unicodeScalars[...]
    func space() { while let scalar = rest.first, [" ", "\t", "\n", "\r"].contains(scalar) { rest = rest.dropFirst() } }
    guard rest.first == "[" else { return nil }
    rest = rest.dropFirst()
    var result: [String] = []
    space()
    if rest.first == "]" { return ends(rest.dropFirst()) ? [] : nil }
    while true {
      space()
      guard let item = jsonText(&rest) else { return nil }
      result.append(item)
      space()
      guard let next = rest.first else { return nil }
      rest = rest.dropFirst()
      if next == "]" { return ends(rest) ? result : nil }
      guard next == "," else { return nil }
    }
  }

  private static func ends(_ rest: String.UnicodeScalarView.SubSequence) -> Bool { rest.allSatisfy { $0.properties.isWhitespace } }

  private static func jsonText(_ rest: inout String.UnicodeScalarView.SubSequence) -> String? {
    guard rest.first == "\"" else { return nil }
    rest = rest.dropFirst()
    var result = String.UnicodeScalarView()
    while let scalar = rest.first {
      rest = rest.dropFirst()
      switch scalar {
      case "\"": return String(result)
      case "\\":
        guard let next = rest.first else { return nil }
        rest = rest.dropFirst()
        switch next {
        case "\"", "\\", "/": result.append(next)
        case "n": result.append("\n")
        case "t": result.append("\t")
        case "r": result.append("\r")
        case "b": result.append("\u{8}")
        case "f": result.append("\u{c}")
        case "u":
          guard var code = hex(&rest) else { return nil }
          if (0xd800..<0xdc00).contains(code), rest.starts(with: "\\u".unicodeScalars) {
            var ahead = rest.dropFirst(2)
            if let low = hex(&ahead), (0xdc00..<0xe000).contains(low) {
              code = 0x10000 + (code - 0xd800) << 10 + (low - 0xdc00)
              rest = ahead
            }
          }
          result.append(Unicode.Scalar(code) ?? "\u{fffd}")
        default: return nil
        }
      default:
        guard scalar.value >= 32 else { return nil }
        result.append(scalar)
      }
    }
    return nil
  }

  private static func hex(_ rest: inout String.UnicodeScalarView.SubSequence) -> UInt32? {
    guard rest.count >= 4, let value = UInt32(String(rest.prefix(4)), radix: 16) else { return nil }
    rest = rest.dropFirst(4)
    return value
  }
}
