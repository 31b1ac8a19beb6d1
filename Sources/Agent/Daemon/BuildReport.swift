import AgentImage
import Build
import Foundation
import Model
import Transport

/// A build's events as Docker's API tells them: JSON objects, one a line (docs.docker.com/reference/api/engine, POST /build).
struct BuildReport: Sendable {
  let stream: TransportStream
  let isQuiet: Bool

  private struct Line: Encodable {
    struct Failure: Encodable {
      var code: Int
      var message: String
    }
    struct Made: Encodable {
      var ID: String
      /// The node that has it: orch's own.
      var Node: String
    }
    var stream: String?
    var aux: Made?
    var error: String?
    var errorDetail: Failure?
  }

  private func send(_ line: Line) async throws { try await stream.send(data: try JSONEncoder().encode(line) + [13, 10]) }
  private func say(_ text: String) async throws { if !isQuiet { try await send(Line(stream: text)) } }

  func tell(_ event: BuildEvent) async throws {
    switch event {
    case .step(let number, let total, let text):
      try await say("Step \(number)/\(total) : \(text.split(separator: "\n", omittingEmptySubsequences: false).first ?? "")\n")
    case .cached: try await say(" ---> Using cache\n")
    case .output(let bytes, _): try await say(String(decoding: bytes, as: UTF8.self))
    case .finished(let time):
      let (seconds, attoseconds) = time.components
      try await say(" ---> done in \(seconds).\(attoseconds / 100_000_000_000_000_000) s\n")
    case .warning(let text): try await say("warning: \(text)\n")
    }
  }

  func done(_ image: ImageRecord, names: [String], node: String) async throws {
    try await send(Line(aux: .init(ID: "\(image.id)", Node: node)))
    if isQuiet { return try await send(Line(stream: "\(image.id)\n")) }
    try await say("Successfully built \(image.id.hex.prefix(12))\n")
    for name in names { try await say("Successfully tagged \((try? ImageReference(name))?.familiar ?? name)\n") }
  }

  func failed(_ message: String, code: Int) async throws {
    try await send(Line(error: message, errorDetail: .init(code: code, message: message)))
  }
}
