/// Why the database could not be used. After `.diskFull` or `.io` from a write nothing of that write counts, and the store refuses
/// further writes: a failed fsync must never be followed by one that seems to work (the "fsyncgate" of PostgreSQL, 2018).
public enum StoreError: Error, Equatable, Sendable, CustomStringConvertible {
  case cannotOpen(path: String, cause: String)
  /// Another process holds the database.
  case inUse(path: String)
  /// A valid SQLite file that is not orch's.
  case foreign(path: String)
  /// Written by a newer orch.
  case tooNew(path: String, found: Int, supported: Int)
  case diskFull(operation: String, cause: String)
  case io(operation: String, cause: String)
  /// What was read is not what was written.
  case damaged(file: String = "", table: String, row: String, reason: String)
  /// An earlier write failed; the database has to be opened again.
  case failed(earlier: String)

  public var description: String {
    switch self {
    case .cannotOpen(let path, let cause): "open database \(path): \(cause)"
    case .inUse(let path): "open database \(path): another orch-manager uses it; stop that one first, or give this one a folder of its own"
    case .foreign(let path): "open database \(path): it is not a database of orch-manager"
    case .tooNew(let path, let found, let supported):
      "open database \(path): format \(found) is newer than this orch-manager's (\(supported)); run the newer version"
    case .diskFull(let operation, let cause): "\(operation): \(cause); free some space on that file system, this manager goes on by itself then"
    case .io(let operation, let cause): "\(operation): \(cause)"
    case .damaged(let file, let table, let row, let reason):
      "database \(file) is damaged: table \(table), row \(row): \(reason); stop this manager and run `orch-manager reseed` on its host: the others send it the state again (a cluster's only manager: `orch-manager init --from-backup`)"
    case .failed(let earlier): "the database accepts no more writes since one failed: \(earlier)"
    }
  }

  /// With the file that it is about.
  public func naming(_ file: String) -> StoreError {
    if case .damaged("", let table, let row, let reason) = self { .damaged(file: file, table: table, row: row, reason: reason) } else { self }
  }

  /// The disk may work again later, or have room again.
  public var mayPass: Bool {
    switch self {
    case .diskFull, .io, .failed, .cannotOpen: true
    case .inUse, .foreign, .tooNew, .damaged: false
    }
  }
}
