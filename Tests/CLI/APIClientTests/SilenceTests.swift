import APIClient
import Foundation
import Glibc
import LinuxSystem
import Testing

@Suite struct SilenceTests {
  @Test("a manager that takes a question and never answers is told of as one that cannot be reached, and may be asked again")
  func silence() async throws {
    let path = "\(NSTemporaryDirectory())orch-silent-\(UUID())"
    let listener = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    defer {
      close(listener)
      unlink(path)
    }
    let bound = try withUnixAddress(path) { bind(listener, $0, $1) }
    // The kernel takes the connection and the question; nobody reads them.
    try #require(bound == 0 && listen(listener, 8) == 0)
    let client = APIClient(endpoint: .unix(path: path), patience: 1)
    let clock = ContinuousClock()
    let start = clock.now
    await #expect { _ = try await client.get("/services/x", as: String.self) } throws: {
      guard let error = $0 as? ClientError else { return false }
      return error.isTransient && "\(error)".contains("did not answer")
    }
    #expect(clock.now - start < .seconds(30))
  }
}
