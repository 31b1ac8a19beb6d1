import Model
import Store

extension Consensus {
  /// The state as one plain SQLite file at `path`, which must not exist. Takes no lock and stops no write: the state is a value.
  /// - Parameter stale: this member's own, however old; otherwise everything acknowledged anywhere before the call is in it.
  /// - Parameter bytesMax: `StoreError.diskFull` if the file would be larger.
  public func backup(to path: String, stale: Bool, takenAt: Timestamp, bytesMax: Int64 = .max) async throws -> StateBackup.Summary {
    let state = stale ? snapshot : try await linearizableState()
    let term = try await status().term
    return try await blocking("backup") { try StateBackup.write(state, term: term, takenAt: takenAt, to: path, bytesMax: bytesMax) }
  }

  /// What a file holds that is a backup, or a database of a manager that does not run. It is brought up to date in place. Of a manager's
  /// log all is applied.
  public static func readBackup(_ path: String) async throws -> StateBackup.Content {
    try await blocking("backup") {
      var content = try StateBackup.read(path)
      content.term = max(content.term, content.entries.last?.term ?? 0)
      try apply(content.entries, to: &content.state, path)
      content.entries = []
      content.summary = StateBackup.Summary(content.state, cluster: content.summary.cluster, takenAt: content.summary.takenAt)
      return content
    }
  }

  private func blocking<Value: Sendable>(_ name: String, _ body: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await Self.blocking(name, body)
  }

  private static func blocking<Value: Sendable>(_ name: String, _ body: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
      startThread(name) { continuation.resume(with: Result { try body() }) }
    }
  }
}
