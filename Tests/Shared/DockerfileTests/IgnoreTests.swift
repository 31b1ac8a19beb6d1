import Testing

@testable import Dockerfile

@Suite("Patterns")
struct IgnoreTests {
  static let globs: [(pattern: String, path: String, matches: Bool)] = [
    ("*.go", "a.go", true), ("*.go", "d/a.go", false), ("a?c", "abc", true), ("a?c", "a/c", false), ("[a-c]x", "bx", true), ("[^a-c]x", "bx", false),
    ("[^a-c]x", "dx", true), ("a/*/c", "a/b/c", true), ("a/*/c", "a/b/b/c", false), ("\\*", "*", true), ("\\*", "a", false), ("*", "", true),
    ("a*b*c", "aXbYc", true), ("a*b*c", "aXcYb", false), ("[\\]]", "]", true), ("[]", "a", false),
  ]

  @Test("globs of COPY, as Go's filepath.Match", arguments: globs)
  func glob(_ example: (pattern: String, path: String, matches: Bool)) {
    #expect((Glob(example.pattern)?.matches(example.path) ?? false) == example.matches)
  }

  @Test("a pattern that would take for ever elsewhere is answered at once")
  func hostile() throws {
    let glob = try #require(Glob(String(repeating: "*a", count: 200) + "b", doubleStar: true))
    #expect(!glob.matches(String(repeating: "a", count: 2000)))
  }

  static let rules: [(text: String, path: String, excluded: Bool)] = [
    ("node_modules", "node_modules", true), ("node_modules", "node_modules/a/b", true), ("node_modules", "src/node_modules", false),
    ("**/node_modules", "src/node_modules/x", true), ("**/node_modules", "node_modules/x", true), ("/a", "a", true), ("a/", "a/b", true),
    ("./a/../b", "b", true), ("*", "anything/at/all", true), ("*.md\n!README.md", "README.md", false), ("*.md\n!README.md", "x.md", true),
    ("!README.md\n*.md", "README.md", true), ("*\n!src", "src/a.js", false), ("*\n!src\nsrc/*.tmp", "src/a.tmp", true),
    ("*\n!src\nsrc/*.tmp", "src/d/a.tmp", false), ("# a\nb", "# a", false), ("  a  ", "a", true), ("a\r\nb\r\n", "b", true), ("a/**", "a/b/c", true),
    ("a/**", "a", false), ("a/**/z", "a/z", true), ("a/**/z", "a/b/c/z", true), ("a/**/z", "a/bz", false), ("*/temp*", "x/temporary.txt", true),
    ("**", "x/y", true), ("**/*.go", "x/y.go", true), ("**/*.go", "y.go", true), (".", "a", false), ("..", "a", false), ("", "a", false),
  ]

  @Test(".dockerignore: the last pattern that fits decides, for a folder and all below", arguments: rules)
  func ignores(_ example: (text: String, path: String, excluded: Bool)) throws {
    #expect(try IgnoreRules(example.text).excludes(example.path) == example.excluded)
  }

  @Test("a pattern that does not end is told with its line")
  func bad() throws {
    #expect(throws: DockerfileError(2, ".dockerignore: the pattern '[a' does not end")) { try IgnoreRules("x\n[a") }
    #expect(throws: DockerfileError(1, ".dockerignore: '!' names nothing")) { try IgnoreRules("!") }
    #expect(throws: DockerfileError(7, "COPY --exclude: '!' names nothing")) { try IgnoreRules(patterns: ["!"], of: "COPY --exclude", line: 7) }
    #expect(try IgnoreRules(patterns: ["#x", "y"], of: "COPY --exclude", line: 7).excludes("#x"))
  }
}
