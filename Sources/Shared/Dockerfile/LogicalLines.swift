/// One instruction as it stands: continuations joined, comments gone, the heredocs that follow it beside it.
struct LogicalLine: Hashable {
  /// Upper case.
  var keyword: String
  /// What follows the keyword, without white space around it.
  var rest: String
  /// Where it begins.
  var number: Int
  var heredocs: [Heredoc] = []
}

/// `<<NAME`, `<<-NAME`, `<<"NAME"` and the lines up to NAME.
public struct Heredoc: Hashable, Sendable {
  public var name: String
  public var content: String
  /// Its name stands without quotes: variables in it are expanded.
  public var expands: Bool
  public var stripsTabs: Bool
}

struct LogicalLines {
  var escape: Character = "\\"
  var lines: [LogicalLine] = []
  /// Lines of the text.
  var count: Int

  init(_ text: String) throws(DockerfileError) {
    var text = Substring(text)
    if text.unicodeScalars.first == "\u{feff}" { text = Substring(text.unicodeScalars.dropFirst()) }
    let physical = text.split(omittingEmptySubsequences: false) { $0 == "\n" || $0 == "\r\n" }
    count = physical.count
    var index = try directives(physical)
    while index < physical.count {
      let start = index
      if Self.isComment(physical[index]) || Self.trim(physical[index]).isEmpty {
        index += 1
        continue
      }
      var joined = ""
      while index < physical.count {
        let line = physical[index]
        index += 1
        // Inside a continuation comments and empty lines are passed over.
        if index - 1 > start, Self.isComment(line) || Self.trim(line).isEmpty { continue }
        guard let continued = continuation(line) else {
          joined += line
          break
        }
        joined += continued
      }
      let words = Self.trim(Substring(joined))
      guard !words.isEmpty else { continue }
      let end = words.firstIndex { $0 == " " || $0 == "\t" } ?? words.endIndex
      var logical = LogicalLine(keyword: words[..<end].uppercased(), rest: String(Self.trim(words[end...])), number: start + 1)
      if ["RUN", "COPY", "ADD"].contains(Self.heredocKeyword(logical)) {
        for marker in Self.markers(logical.rest) {
          var content = ""
          var closed = false
          while index < physical.count {
            var line = physical[index]
            index += 1
            if marker.stripsTabs { line = line.drop { $0 == "\t" } }
            if line == marker.name {
              closed = true
              break
            }
            content += line + "\n"
          }
          guard closed else { throw DockerfileError(start + 1, "the heredoc <<\(marker.name) is not closed by a line '\(marker.name)'") }
          logical.heredocs.append(Heredoc(name: marker.name, content: content, expands: marker.expands, stripsTabs: marker.stripsTabs))
        }
      }
      lines.append(logical)
    }
  }

  private static func heredocKeyword(_ line: LogicalLine) -> String {
    guard line.keyword == "ONBUILD" else { return line.keyword }
    return line.rest.prefix { !$0.isWhitespace }.uppercased()
  }

  /// Parser directives stand before everything else, each once; the first line that is none ends them.
  private mutating func directives(_ lines: [Substring]) throws(DockerfileError) -> Int {
    var seen: Set<String> = []
    for (index, line) in lines.enumerated() {
      let trimmed = Self.trim(line)
      guard trimmed.first == "#" else { return index }
      let pair = trimmed.dropFirst().split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      let name = Self.trim(pair[0]).lowercased()
      guard pair.count == 2, ["escape", "syntax", "check"].contains(name) else { return index }
      guard seen.insert(name).inserted else { throw DockerfileError(index + 1, "the directive '\(name)' stands twice") }
      // `syntax` names another program that would read this file, `check` a linter's options: neither changes what is built here.
      guard name == "escape" else { continue }
      switch Self.trim(pair[1]) {
      case "\\": escape = "\\"
      case "`": escape = "`"
      case let other: throw DockerfileError(index + 1, "the escape character is \\ or `, not '\(other)'")
      }
    }
    return lines.count
  }

  /// The line without its escape character at the end; nil when there is none.
  private func continuation(_ line: Substring) -> Substring? {
    var line = line
    while let last = line.last, last == " " || last == "\t" || last == "\r" { line = line.dropLast() }
    return line.last == escape ? line.dropLast() : nil
  }

  private static func isComment(_ line: Substring) -> Bool { trim(line).first == "#" }

  static func trim(_ text: Substring) -> Substring {
    var text = text
    while let first = text.first, first.isWhitespace { text = text.dropFirst() }
    while let last = text.last, last.isWhitespace { text = text.dropLast() }
    return text
  }

  struct Marker: Equatable {
    var name: String
    var expands: Bool
    var stripsTabs: Bool
  }

  /// `<<` outside of quotes, at the beginning of a word (after an optional descriptor's number), with a name behind it. `<<<` is none.
  static func markers(_ text: String) -> [Marker] {
    var markers: [Marker] = []
    var quote: Character?
    var rest = Substring(text)
    var atStart = true
    while let character = rest.first {
      if let open = quote {
        if character == open { quote = nil }
        if character == "\\", open == "\"" { rest = rest.dropFirst() }
        rest = rest.dropFirst()
        continue
      }
      if atStart, let (marker, after) = marker(rest) {
        markers.append(marker)
        rest = after
        continue
      }
      if character == "\"" || character == "'" { quote = character }
      if character == "\\" { rest = rest.dropFirst() }
      atStart = character.isWhitespace
      rest = rest.dropFirst()
    }
    return markers
  }

  private static func marker(_ text: Substring) -> (Marker, Substring)? {
    var rest = text.drop { $0.isASCII && $0.isNumber }
    guard rest.hasPrefix("<<"), !rest.hasPrefix("<<<") else { return nil }
    rest = rest.dropFirst(2)
    let strips = rest.first == "-"
    if strips { rest = rest.dropFirst() }
    var name = ""
    var expands = true
    while let character = rest.first, !character.isWhitespace, !";&|<>()".contains(character) {
      rest = rest.dropFirst()
      if character == "\"" || character == "'" {
        expands = false
        guard let close = rest.firstIndex(of: character) else { return nil }
        name += rest[..<close]
        rest = rest[rest.index(after: close)...]
      } else {
        name.append(character)
      }
    }
    guard !name.isEmpty,
      name.unicodeScalars.allSatisfy({ $0.properties.isAlphabetic || ("0"..."9").contains($0) || "_-.".unicodeScalars.contains($0) })
    else { return nil }
    return (Marker(name: name, expands: expands, stripsTabs: strips), rest)
  }
}
