import Identity
import Logging
import Model
import Synchronization

/// One peer that this daemon dials when it needs it: the open connection, or a new one. After a failure the next dial waits
/// 50 ms, then twice as long each time up to 1 s, with jitter of a half.
public final class PeerLink: Sendable {
  public let host: String
  public let port: Int
  private let dial: @Sendable () async throws -> Connection
  private let state = Mutex(State())

  private struct State {
    var connection: Connection?
    var dialling: Task<Connection, any Error>?
    var failures = 0
    var earliest: ContinuousClock.Instant?
    var closed = false
  }

  public init(
    host: String, port: Int, credentials: Credentials, router: Router = Router(), timeout: Duration = .seconds(2), log: Logger
  ) {
    self.host = host
    self.port = port
    dial = {
      try await TransportClient.connect(host: host, port: port, credentials: credentials, router: router, timeout: timeout, log: log)
    }
  }

  /// The connection if there is one; dials nothing.
  public var current: Connection? { state.withLock { $0.connection.flatMap { $0.isOpen ? $0 : nil } } }

  /// The open connection, or the outcome of one dial, which callers at the same time share.
  public func connection() async throws -> Connection {
    enum Step { case open(Connection), wait(Task<Connection, any Error>) }
    let step = try state.withLock { state -> Step in
      if state.closed { throw TransportError.closed("the link was closed") }
      if let connection = state.connection, connection.isOpen { return .open(connection) }
      if let task = state.dialling { return .wait(task) }
      state.connection = nil
      let earliest = state.earliest
      let task = Task {
        if let earliest { try await Task.sleep(until: earliest, clock: .continuous) }
        return try await self.attempt()
      }
      state.dialling = task
      return .wait(task)
    }
    switch step {
    case .open(let connection): return connection
    case .wait(let task): return try await task.value
    }
  }

  private func attempt() async throws -> Connection {
    let result: Result<Connection, any Error>
    do { result = .success(try await dial()) } catch { result = .failure(error) }
    let late = state.withLock { state -> Bool in
      state.dialling = nil
      switch result {
      case .success(let connection):
        state.failures = 0
        // A peer that accepts and drops at once is not dialled in a busy loop.
        state.earliest = .now + .milliseconds(50)
        if state.closed { return true }
        state.connection = connection
      case .failure:
        let delay = min(1000, 50 << min(state.failures, 5))
        state.failures += 1
        state.earliest = .now + .milliseconds(Int.random(in: delay / 2...delay))
      }
      return false
    }
    if late, case .success(let connection) = result { connection.close("the link was closed") }
    return try result.get()
  }

  /// For good.
  public func close() {
    let (connection, task) = state.withLock { state in
      state.closed = true
      return (state.connection, state.dialling)
    }
    task?.cancel()
    connection?.close()
  }
}
