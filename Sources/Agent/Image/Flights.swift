import Model
import Synchronization

/// One piece of work for all who want the same at the same time. It is cancelled when nobody waits for it any more.
final class Flights: Sendable {
  private struct Flight {
    /// Ticket of who began it: another run may have the key by the time it ends.
    var number: UInt64
    var work: Task<Void, Never>
    var waiting: [UInt64: CheckedContinuation<Void, any Error>] = [:]
  }
  private struct State {
    var tickets: UInt64 = 0
    var flights: [String: Flight] = [:]
  }
  private let state = Mutex(State())
  /// Of a run that somebody else began.
  private struct Others: Error { var error: any Error }

  /// Runs `body`, or waits for the run under way with the same key. Who is cancelled leaves at once; with the last one the run is cancelled.
  /// - Parameter second: what another's run did wrong is tried once more, with those who then give this key; otherwise its error is everybody's.
  func join(_ key: String, orElse second: String? = nil, _ body: @escaping @Sendable () async throws -> Void) async throws {
    do { try await wait(key, body) } catch let others as Others {
      guard let second else { throw others.error }
      try await join(second, body)
    }
  }

  private func wait(_ key: String, _ body: @escaping @Sendable () async throws -> Void) async throws {
    let ticket = state.withLock { state in
      state.tickets += 1
      return state.tickets
    }
    try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        let joined = state.withLock { state in
          // Cancelled before, nobody takes the continuation; later, `leave` finds it.
          if Task.isCancelled { return false }
          if state.flights[key] == nil {
            let work = Task {
              let result: Result<Void, any Error>
              do { result = .success(try await body()) } catch { result = .failure(error) }
              end(key, ticket, result)
            }
            state.flights[key] = Flight(number: ticket, work: work)
          }
          state.flights[key]?.waiting[ticket] = continuation
          return true
        }
        if !joined { continuation.resume(throwing: CancellationError()) }
      }
    } onCancel: {
      leave(key, ticket)
    }
  }

  private func end(_ key: String, _ number: UInt64, _ result: Result<Void, any Error>) {
    let waiting = state.withLock { state -> [UInt64: CheckedContinuation<Void, any Error>] in
      guard let flight = state.flights[key], flight.number == number else { return [:] }
      state.flights[key] = nil
      return flight.waiting
    }
    for (ticket, continuation) in waiting {
      continuation.resume(with: ticket == number ? result : result.mapError { Others(error: $0) })
    }
  }

  private func leave(_ key: String, _ ticket: UInt64) {
    let (continuation, last) = state.withLock { state -> (CheckedContinuation<Void, any Error>?, Task<Void, Never>?) in
      guard let continuation = state.flights[key]?.waiting.removeValue(forKey: ticket) else { return (nil, nil) }
      guard let flight = state.flights[key], flight.waiting.isEmpty else { return (continuation, nil) }
      // Who comes now begins anew.
      state.flights[key] = nil
      return (continuation, flight.work)
    }
    last?.cancel()
    continuation?.resume(throwing: CancellationError())
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
