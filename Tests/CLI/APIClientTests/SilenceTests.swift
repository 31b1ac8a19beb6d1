import APIClient
import Foundation
import Glibc
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
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    let bound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(listener, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
    }
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
