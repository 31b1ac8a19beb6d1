import APIClient
import Model

/// When to look again: once the watch stands, and after every event of the cluster of these types. What is read after a pulse has what
/// the pulse told of. A watch ends with its manager: the next one begins half a second later, with a pulse, until `end`.
final class Pulses: Sendable {
  let stream: AsyncStream<Void>
  private let signal: AsyncStream<Void>.Continuation
  private let listener: Task<Void, Never>

  init(_ client: APIClient, types: [String]) {
    // One that waits stands for all that came since.
    let (stream, signal) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    (self.stream, self.signal) = (stream, signal)
    listener = Task {
      let filter = JSONText.line(["type": types])
      while !Task.isCancelled {
        if let body = try? await client.stream("/events", [("filters", filter)]) {
          signal.yield()
          do { for try await _ in body { signal.yield() } } catch {}
        } else {
          // Nobody answers: whoever waits asks himself, and tells why.
          signal.yield()
        }
        try? await Task.sleep(for: .milliseconds(500))
      }
    }
  }

  func now() { signal.yield() }
  func end() {
    listener.cancel()
    signal.finish()
  }
}
