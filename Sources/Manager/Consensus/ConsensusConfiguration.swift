import Model
import Raft
import Replica

public struct ConsensusConfiguration: Sendable {
  /// The database file.
  public var path: String
  public var tick: Duration
  /// A follower that hears nothing for this many ticks up to twice as many (random) stands for election.
  public var electionTicks: Int
  public var heartbeatTicks: Int
  /// So many applied entries after the log's beginning, all but the last `keptEntries` of them are forgotten (SwarmKit's figures).
  public var snapshotEvery: UInt64
  public var keptEntries: UInt64
  /// Data of the log in bytes; over it the log is cut to its last quarter, however few entries that leaves.
  public var logBytesMax: Int
  /// How long the rows of applied changes wait for more of them, and how many may; whoever asks in SQL has them written at once.
  public var rowsDelay: Duration
  public var rowsMax: Int
  /// Rows that come with one write; entries wait for so many.
  public var rowsSlice: Int
  /// Of one command; it has to fit into one message between managers.
  public var commandBytesMax: Int
  /// Of proposals that wait for the thread.
  public var waitingBytesMax: Int
  /// Batches that a watcher may lag behind before it has to resync.
  public var watcherBatchesMax: Int
  /// How long a read waits for a majority.
  public var readTimeout: Duration
  /// After a full disk: it goes on when so many bytes can be had again.
  public var roomBytes: Int
  /// After a failure of the disk it is tried again so much later, then twice as long after every failure, up to `retryMax`.
  public var retryFirst: Duration
  public var retryMax: Duration
  /// The same for a disk that is full.
  public var retryRoomMax: Duration
  /// For the randomised election timeouts.
  public var seed: UInt64

  /// The defaults notice a dead leader after 0.5 to 1 s; a heartbeat leaves every 100 ms.
  public init(path: String, tick: Duration = .milliseconds(50), electionTicks: Int = 10, heartbeatTicks: Int = 2) {
    self.path = path
    self.tick = tick
    self.electionTicks = electionTicks
    self.heartbeatTicks = heartbeatTicks
    snapshotEvery = 10_000
    keptEntries = 500
    logBytesMax = 256 << 20
    rowsDelay = .seconds(5)
    rowsMax = 8_000
    rowsSlice = 250
    commandBytesMax = 3 << 20
    waitingBytesMax = 32 << 20
    watcherBatchesMax = 256
    readTimeout = .seconds(2)
    roomBytes = 16 << 20
    retryFirst = .milliseconds(250)
    retryMax = .seconds(30)
    retryRoomMax = .seconds(1)
    seed = UInt64.random(in: .min ... .max)
  }

  var replica: ReplicaConfig {
    ReplicaConfig(
      raft: RaftConfig(id: RaftID(1), electionTicks: electionTicks, heartbeatTicks: heartbeatTicks, tellsCommitsLate: true, seed: seed),
      snapshotEvery: snapshotEvery,
      keptEntries: keptEntries, logBytesMax: logBytesMax, rowTicks: max(1, Int(rowsDelay / tick)), rowsMax: rowsMax,
      rowsSlice: rowsSlice,
      readTicks: Int(readTimeout / tick))
  }
}
