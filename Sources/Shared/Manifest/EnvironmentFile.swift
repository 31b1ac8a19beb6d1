#if canImport(Glibc)
  import Glibc
#else
  import Darwin
#endif

/// Lines of `KEY=VALUE` as `docker compose` reads them: comments, `export`, quotes; variables in all but single quotes.
public enum EnvironmentFile {
  /// Line (from 1) and reason.
  public struct Failure: Error, Hashable, Sendable {
    public var line: Int
    public var reason: String
  }

  /// A key without `=` takes its value from `environment`, and is left out when there is none.
  public static func parse(_ text: String, environment: [String: String]) throws(Failure) -> [(key: String, value: String)] {
    var result: [(key: String, value: String)] = []
    var known = environment
    for (index, raw) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
      var line = trim(raw)
      if line.isEmpty || line.hasPrefix("#") { continue }
      if line.hasPrefix("export ") { line = trim(line.dropFirst(7)) }
      let split = line.firstIndex(of: "=") ?? line.endIndex
      let key = String(trim(line[..<split]))
      guard !key.isEmpty, !key.contains(where: \.isWhitespace) else { throw Failure(line: index + 1, reason: "expected KEY=VALUE") }
      guard split < line.endIndex else {
        if let value = environment[key] { result.append((key, value)) }
        continue
      }
      let value = try unquote(trim(line[line.index(after: split)...]), known, index + 1)
      known[key] = value
      result.append((key, value))
    }
    return result
  }

  private static func unquote(_ text: Substring, _ environment: [String: String], _ line: Int) throws(Failure) -> String {
    var literal = text
    if let quote = text.first, quote == "\"" || quote == "'" {
      var body = ""
      var escaped = false
      var closed = false
      for character in text.dropFirst() {
        if escaped {
          let escapes: [Character: Character] = ["n": "\n", "r": "\r", "t": "\t"]
          body.append(escapes[character] ?? character)
          escaped = false
        } else if character == "\\", quote == "\"" {
          escaped = true
        } else if character == quote {
          closed = true
          break
        } else {
          body.append(character)
        }
      }
      guard closed else { throw Failure(line: line, reason: "a quote is not closed on its line") }
      if quote == "'" { return body }
      literal = body[...]
    } else if let comment = zip(text.indices, text.indices.dropFirst()).first(where: { text[$0].isWhitespace && text[$1] == "#" }) {
      literal = trim(text[..<comment.0])
    }
    var interpolation = Interpolation(environment: environment)
    do {
      return try interpolation.expand(String(literal))
    } catch {
      throw Failure(line: line, reason: "a variable is written wrongly in '\(literal)'")
    }
  }

  private static func trim(_ text: Substring) -> Substring {
    let start = text.drop { $0.isWhitespace }
    return start.lastIndex { !$0.isWhitespace }.map { start[...$0] } ?? ""
  }
}

/// A file's text, read at once.
public enum FileText {
  /// nil when it cannot be read; at most 4 MiB are taken.
  public static func read(_ path: String) -> String? {
    guard let file = fopen(path, "rbe") else { return nil }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65_536)
    while bytes.count <= Manifest.maximumSize {
      let count = fread(&chunk, 1, chunk.count, file)
      if count == 0 { break }
      bytes += chunk[..<count]
    }
    return ferror(file) != 0 ? nil : String(decoding: bytes, as: UTF8.self)
  }
}
