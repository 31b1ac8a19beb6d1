import Model
import Synchronization

/// One piece of work for all who want the same at the same time.
final class Flights: Sendable {
  private let flights = Mutex<[String: Task<Void, any Error>]>([:])

  /// Runs `body`, or waits for the run under way with the same key.
  /// - Parameter alone: what another's run did wrong is tried once more by oneself; otherwise its error is everybody's.
  func join(_ key: String, orElseAlone alone: Bool = false, _ body: @escaping @Sendable () async throws -> Void) async throws {
    let (flight, isOwn) = flights.withLock { flights in
      if let flight = flights[key] { return (flight, false) }
      let flight = Task { [self] in
        defer { self.flights.withLock { $0[key] = nil } }
        try await body()
      }
      flights[key] = flight
      return (flight, true)
    }
    do { try await flight.value } catch {
      guard alone, !isOwn else { throw error }
      try await body()
    }
  }
}

/// Who wants to hear of a layer: whoever waits for it, not only who began to fetch it.
final class ProgressHub: Sendable {
  private let listeners = Mutex<(next: Int, by: [Digest: [Int: @Sendable (PullProgress) -> Void]])>((0, [:]))

  func listen(to layer: Digest, _ listener: @escaping @Sendable (PullProgress) -> Void) -> Int {
    listeners.withLock {
      $0.next += 1
      $0.by[layer, default: [:]][$0.next] = listener
      return $0.next
    }
  }
  func leave(_ layer: Digest, _ listener: Int) {
    listeners.withLock {
      $0.by[layer]?[listener] = nil
      if $0.by[layer]?.isEmpty == true { $0.by[layer] = nil }
    }
  }
  func tell(_ progress: PullProgress) {
    for listener in listeners.withLock({ Array(($0.by[progress.layer] ?? [:]).values) }) { listener(progress) }
  }
}
