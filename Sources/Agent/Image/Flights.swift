import Synchronization

/// One piece of work for all who want the same at the same time.
final class Flights: Sendable {
  private let flights = Mutex<[String: Task<Void, any Error>]>([:])

  /// Runs `body`, or waits for the run under way with the same key. Its error is everybody's.
  func join(_ key: String, _ body: @escaping @Sendable () async throws -> Void) async throws {
    let flight = flights.withLock { flights in
      if let flight = flights[key] { return flight }
      let flight = Task { [self] in
        defer { self.flights.withLock { $0[key] = nil } }
        try await body()
      }
      flights[key] = flight
      return flight
    }
    try await flight.value
  }
}
