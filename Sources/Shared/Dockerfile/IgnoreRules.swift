/// A .dockerignore: patterns one a line, `#` comments, `!` takes back; the last that fits decides (docs.docker.com/build/concepts/context).
public struct IgnoreRules: Hashable, Sendable {
  private struct Rule: Hashable {
    var glob: Glob
    var takesBack: Bool
  }
  private var rules: [Rule] = []

  public static let none = IgnoreRules()
  private init() {}

  /// Bytes; a longer text is refused.
  public static let maximumSize = 1 << 20

  public init(_ text: String) throws(DockerfileError) {
    guard text.utf8.count <= Self.maximumSize else { throw DockerfileError(1, "the .dockerignore has more than \(Self.maximumSize) bytes") }
    for (index, line) in text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).enumerated() {
      // A comment begins in the first column.
      guard line.first != "#" else { continue }
      try add(index == 0 && line.unicodeScalars.first == "\u{feff}" ? Substring(line.unicodeScalars.dropFirst()) : line, ".dockerignore", index + 1)
    }
  }

  /// Patterns that stand alone, so that `#` is a name as any other: those of `--exclude`.
  /// - Parameters:
  ///   - source: whose they are, for errors.
  ///   - line: of the Dockerfile.
  public init(patterns: [String], of source: String, line: Int) throws(DockerfileError) {
    for pattern in patterns { try add(Substring(pattern), source, line) }
  }

  private mutating func add(_ text: Substring, _ source: String, _ line: Int) throws(DockerfileError) {
    var pattern = LogicalLines.trim(text)
    guard !pattern.isEmpty else { return }
    let takesBack = pattern.first == "!"
    if takesBack { pattern = LogicalLines.trim(pattern.dropFirst()) }
    guard !pattern.isEmpty else { throw DockerfileError(line, "\(source): '!' names nothing") }
    let cleaned = Self.clean(pattern)
    // "." alone and what lies above name nothing of the context.
    if cleaned.isEmpty { return }
    guard let glob = Glob(cleaned, doubleStar: true) else { throw DockerfileError(line, "\(source): the pattern '\(pattern)' does not end") }
    rules.append(Rule(glob: glob, takesBack: takesBack))
  }

  private static func clean(_ pattern: Substring) -> String {
    var parts: [Substring] = []
    for part in pattern.split(separator: "/") where part != "." {
      if part == ".." { _ = parts.popLast() } else { parts.append(part) }
    }
    return parts.joined(separator: "/")
  }

  /// Whether the path, relative and without `.`, is left out: by a pattern for itself or for a folder above it.
  public func excludes(_ path: String) -> Bool {
    var parents: [String] = []
    var current = ""
    for part in path.split(separator: "/") {
      current += current.isEmpty ? "\(part)" : "/\(part)"
      parents.append(current)
    }
    var excluded = false
    for rule in rules where rule.takesBack == excluded {
      if parents.contains(where: { rule.glob.matches($0) }) { excluded = !rule.takesBack }
    }
    return excluded
  }

  /// Something below an excluded folder may be in again.
  public var takesSomethingBack: Bool { rules.contains { $0.takesBack } }
}
