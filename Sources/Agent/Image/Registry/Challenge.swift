/// One challenge of a WWW-Authenticate header (RFC 9110 11.6.1).
struct Challenge: Equatable {
  /// In lower case.
  var scheme: String
  var parameters: [String: String]

  /// All challenges of all headers: a header may hold several, `Basic realm="a", Bearer realm="b",scope="c"`.
  static func all(_ headers: [String]) -> [Challenge] {
    var challenges: [Challenge] = []
    for header in headers {
      var rest = header[...]
      while true {
        rest = rest.drop { $0 == " " || $0 == "," || $0 == "\t" }
        guard !rest.isEmpty else { break }
        let word = rest.prefix { !" =,\t".contains($0) }
        rest = rest.dropFirst(word.count)
        let afterSpaces = rest.drop { $0 == " " || $0 == "\t" }
        if afterSpaces.first == "=", !challenges.isEmpty, !word.isEmpty {
          rest = afterSpaces.dropFirst().drop { $0 == " " || $0 == "\t" }
          challenges[challenges.count - 1].parameters[word.lowercased()] = value(&rest)
        } else if word.isEmpty {
          // Neither scheme nor parameter: nothing that could be read.
          rest = rest.dropFirst()
        } else {
          challenges.append(Challenge(scheme: word.lowercased(), parameters: [:]))
        }
      }
    }
    return challenges
  }

  /// A token, or a quoted string with backslashes taken out.
  private static func value(_ rest: inout Substring) -> String {
    guard rest.first == "\"" else {
      let value = rest.prefix { $0 != "," && $0 != " " }
      rest = rest.dropFirst(value.count)
      return String(value)
    }
    rest = rest.dropFirst()
    var result = ""
    while let character = rest.popFirst() {
      if character == "\"" { break }
      if character == "\\", let escaped = rest.popFirst() { result.append(escaped) } else { result.append(character) }
    }
    return result
  }
}
