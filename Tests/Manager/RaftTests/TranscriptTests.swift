import Foundation
import Testing

@Suite("Conversations of cores")
struct TranscriptTests {
  static let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("testdata")
  static let names = ((try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []).filter { $0.hasSuffix(".txt") }.sorted()

  @Test("the transcripts are found")
  func found() { #expect(Self.names.count >= 48) }

  @Test("every transcript says again what it said when it was reviewed (ORCH_REWRITE=1 writes them anew)", arguments: names)
  func transcript(name: String) throws {
    let file = Self.folder.appendingPathComponent(name)
    let expected = try String(contentsOf: file, encoding: .utf8)
    let actual = Transcript.run(expected)
    if ProcessInfo.processInfo.environment["ORCH_REWRITE"] == "1" {
      try actual.write(to: file, atomically: true, encoding: .utf8)
      return
    }
    let (old, new) = (
      expected.split(separator: "\n", omittingEmptySubsequences: false), actual.split(separator: "\n", omittingEmptySubsequences: false)
    )
    let difference = zip(old, new).enumerated().first { $0.element.0 != $0.element.1 }
    let place = difference.map { "line \($0.offset + 1): expected «\($0.element.0)», got «\($0.element.1)»" } ?? "one ends before the other"
    #expect(expected == actual, "\(name) \(place)")
  }
}
