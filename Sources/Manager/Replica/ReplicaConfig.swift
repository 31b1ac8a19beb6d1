import Model
import Raft

public struct ReplicaConfig: Sendable {
  /// Its id is replaced by the one on the disk.
  public var raft: RaftConfig
  /// So many applied entries after the log's beginning, all but the last `keptEntries` of them are forgotten (SwarmKit's figures).
  public var snapshotEvery: UInt64
  public var keptEntries: UInt64
  /// Data of the log in bytes; over it all but the last quarter is forgotten, however few entries that leaves.
  public var logBytesMax: Int
  /// How many ticks rows wait for more of them before they are written, and how many may wait; `snapshotEvery` bounds the entries that
  /// they may be behind.
  public var rowTicks: Int
  public var rowsMax: Int
  /// So many rows come with one write at most (more where writing one can remove another).
  public var rowsSlice: Int
  /// How many ticks a read waits for a majority.
  public var readTicks: Int
  public var readMode: ReadMode

  public init(
    raft: RaftConfig, snapshotEvery: UInt64 = 10_000, keptEntries: UInt64 = 500, logBytesMax: Int = 256 << 20, rowTicks: Int = 100,
    rowsMax: Int = 8_000, rowsSlice: Int = 250, readTicks: Int = 40, readMode: ReadMode = .quorum
  ) {
    self.raft = raft
    self.snapshotEvery = snapshotEvery
    self.keptEntries = keptEntries
    self.logBytesMax = logBytesMax
    self.rowTicks = rowTicks
    self.rowsMax = rowsMax
    self.rowsSlice = rowsSlice
    self.readTicks = readTicks
    self.readMode = readMode
  }
}

/// How bytes in the log become values.
public struct ReplicaDecoder: Sendable {
  public var command: @Sendable ([UInt8]) throws -> Command
  /// Of a configuration change's context; nil when it is none.
  public var member: @Sendable ([UInt8]) -> Membership.Member?
  public init(command: @escaping @Sendable ([UInt8]) throws -> Command, member: @escaping @Sendable ([UInt8]) -> Membership.Member?) {
    self.command = command
    self.member = member
  }
}

/// The durable log, asked for entries that are no longer in memory: applied, durable and not compacted.
public protocol ReplicaLog: Sendable {
  /// Entries first...last, fewer when they are over `maxBytes`, but at least one; none when they are gone.
  func entries(first: UInt64, last: UInt64, maxBytes: Int) throws(StoreError) -> [StoredEntry]
}

/// Raft's way to the log on the disk.
final class ReplicaLogReader: LogReader, @unchecked Sendable {
  // Used by RaftCore within the steps of the one member that owns it only.
  private let log: any ReplicaLog
  var metadata: SnapshotMetadata?
  var failure: StoreError?
  init(_ log: any ReplicaLog) { self.log = log }

  func entries(first: LogIndex, last: LogIndex, maxBytes: Int) -> [Entry] {
    do throws(StoreError) {
      return try log.entries(first: first, last: last, maxBytes: maxBytes).compactMap { try? Entry($0) }
    } catch {
      failure = error
      return []
    }
  }
  func snapshot() -> SnapshotMetadata? { metadata }
}
