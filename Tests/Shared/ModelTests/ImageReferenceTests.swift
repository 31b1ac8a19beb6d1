import Model
import Testing

@Suite struct References {
  static let hex = String(repeating: "a", count: 64)
  static let good: [(String, String, String)] = [
    ("web", "docker.io/library/web:latest", "web:latest"),
    ("web:1", "docker.io/library/web:1", "web:1"),
    ("user/web:1", "docker.io/user/web:1", "user/web:1"),
    ("docker.io/web", "docker.io/library/web:latest", "web:latest"),
    ("index.docker.io/library/web", "docker.io/library/web:latest", "web:latest"),
    ("localhost/web", "localhost/web:latest", "localhost/web:latest"),
    ("localhost:5000/web:1.2-x_Y", "localhost:5000/web:1.2-x_Y", "localhost:5000/web:1.2-x_Y"),
    ("registry.example.com/a/b/c", "registry.example.com/a/b/c:latest", "registry.example.com/a/b/c:latest"),
    ("web@sha256:" + hex, "docker.io/library/web@sha256:" + hex, "web@sha256:" + hex),
    ("web:1@sha256:" + hex, "docker.io/library/web:1@sha256:" + hex, "web:1@sha256:" + hex),
    ("a_b.c--d__e", "docker.io/library/a_b.c--d__e:latest", "a_b.c--d__e:latest"),
  ]
  @Test("a name is read as docker reads it", arguments: good)
  func reads(_ text: String, _ full: String, _ familiar: String) throws {
    let reference = try ImageReference(text)
    #expect(reference.description == full)
    #expect(reference.familiar == familiar)
  }

  @Test(
    "what is no name is refused",
    arguments: [
      "", "Web", "web:", "web:-x", "web@sha256:12", "web@md5:12", "/web", "web/", "a//b", "a..b", "a___b", "-a", "a-", "we b", "../x", "web:1/../x",
      "web:\(String(repeating: "t", count: 129))", "localhost:5000/", "user/UPPER",
      "Bad Image!!",
    ])
  func refuses(_ text: String) {
    #expect(throws: ReferenceError.self) { try ImageReference(text) }
  }

  @Test(
    "the reason is what is wrong, not what is next to it",
    arguments: [("user/Web", "names are lower-case"), ("we b!", "'we b!' is not lower-case letters")])
  func reason(_ text: String, _ words: String) {
    let error = #expect(throws: ReferenceError.self) { try ImageReference(text) }
    #expect(error?.description.contains(words) == true && error?.description.contains(ReferenceError.advice) == true, "\(error as Any)")
  }
}
