/// The bounded stream of exec's input; it lives in API because clients use it too.
@_exported import class API.Pipe
import Model

import struct API.BackupSummary
import struct API.CertificateResponse

/// What the public API needs of the daemon around it. ControlAPI knows no Raft, no store and no agent connection: the daemon
/// implements this over Consensus and Transport, tests over a `ClusterState` in memory.
///
/// Errors: a ``Model/Refusal`` from `propose` becomes 404, 409 or "update out of sequence"; an ``APIError`` is sent as it is;
/// anything else is 500 with its text.
public protocol ControlBackend: Sendable {
  /// Where a request has to be handled; asked once per request, for all but `_ping` and `version`.
  func route() async -> ControlRoute
  /// The replicated state, not older than the call (read index).
  func state() async throws -> ClusterState
  /// Proposes and waits until applied here; the entry's index. Throws ``Model/Refusal`` when it was not applied.
  func propose(_ command: Command) async throws -> UInt64
  /// A secret's content as it may be stored and sent, under this id only.
  func seal(_ content: [UInt8], as id: FileID) throws -> [UInt8]
  /// A stored file's content. Of a secret never for an answer: only to compare.
  func content(of file: StoredFile) throws -> [UInt8]
  /// What is applied from now on, with the state after it. Bounded: one that falls behind is finished.
  func watch() async -> AsyncStream<([StateChange], ClusterState)>
  /// A task's log from the host it ran on; ends at its end, or when the task ends with `follow`.
  func logs(_ task: ClusterTask, _ options: LogOptions) async throws -> AsyncThrowingStream<LogRecord, any Error>
  /// Runs a process in the task's container. The input ends when the client is gone; the output ends with `.exit`.
  func exec(_ task: ClusterTask, _ request: ExecRequest, input: Pipe<ExecInput>) async throws -> AsyncThrowingStream<ExecOutput, any Error>
  /// Streams an archive to one agent; the names it now has. `body` is read once.
  func loadImage(_ load: ImageLoad, on node: NodeID, body: APIBody) async throws -> [String]
  /// Hands the request to one host's agent, whose answer is the answer.
  func ask(_ request: APIRequest, on node: NodeID) async throws -> APIResponse
  /// Does something with one agent's images. What is refused is thrown as an ``APIError``; the command is given up when the stream is.
  func image(_ command: ImageCommand, on node: NodeID) async throws -> AsyncThrowingStream<ImageEvent, any Error>
  /// The images one agent holds.
  func images(on node: NodeID) async throws -> [ImageRecord]
  /// Which of these ports a process of that host has. Throws when the agent does not answer within a second.
  func portConflicts(_ ports: [PortConfig], on node: NodeID) async throws -> [NodeDescription.PortConflict]
  /// For the leader's allocator: hosts were asked for `asked`, of which processes have `taken`. A hint; elsewhere than on the leader nothing is done.
  func learn(asked: [PortClaim], taken: [PortClaim]) async
  /// Deletes the volume's data on one host; not an error when it has none.
  func removeVolume(_ name: String, on node: NodeID) async throws
  /// Lines of JSON (docs/sql.md), once the statement is prepared; throws 400 for one that is refused. Any manager answers; `stale`: from
  /// its own copy, however old.
  func query(_ statement: String, limit: Duration, stale: Bool) async throws -> APIBody
  /// The state as one SQLite file, made and verified before this returns. Any manager answers; `stale` as above.
  func backup(stale: Bool) async throws -> (BackupSummary, APIBody)
  /// Takes a backup in and checks all of it; throws 400 with what is wrong.
  func readBackup(_ file: APIBody) async throws -> (BackupSummary, ClusterState)
  /// The Raft group as this manager sees it. Works without a leader.
  func managers() async -> [ManagerRecord]
  /// Takes the node's manager out of the Raft group. Throws an ``APIError`` when the rest would have no majority, unless forced.
  func removeManager(_ node: NodeID, force: Bool) async throws
  /// Gives the node's manager a vote, or takes it and leaves it a copy of the state (a learner). As `removeManager`.
  func setVote(_ node: NodeID, _ votes: Bool, force: Bool) async throws
  /// On the leader: hands over to the node's manager, or to the one with the most of the log; who leads then.
  func transferLeadership(to node: NodeID?) async throws -> NodeID
  /// Signs a user's key with the cluster's authority. Throws an ``APIError`` for a name, request or time that is not taken.
  func issueCertificate(user: String, signingRequest: String, validity: Nanoseconds?) async throws -> CertificateResponse
  /// This manager. Works without a leader.
  func info() async -> ManagerInfo
}

public enum ControlRoute: Sendable {
  /// This manager leads, or answers for itself.
  case local
  /// The leader is elsewhere: the whole request goes there.
  case forward(@Sendable (APIRequest) async throws -> APIResponse)
  /// Nobody leads. The sentence goes to the user after "The swarm does not have a leader".
  case noLeader(String)
  /// Somebody leads, but this manager does not reach it. The sentence is the answer.
  case unreachable(String)
}

public struct LogOptions: Hashable, Sendable {
  public var follow = false
  public var stdout = true
  public var stderr = true
  /// Last lines only; nil: all.
  public var tail: Int?
  public var since: Timestamp?
  public var until: Timestamp?
  public init() {}
}

/// One line, with its newline when it had one.
public struct LogRecord: Hashable, Sendable {
  public enum Stream: UInt8, Sendable { case stdout = 1, stderr = 2 }
  public var stream: Stream
  public var timestamp: Timestamp
  public var bytes: [UInt8]
  public init(stream: Stream, timestamp: Timestamp, bytes: [UInt8]) {
    self.stream = stream
    self.timestamp = timestamp
    self.bytes = bytes
  }
}

public struct ExecRequest: Hashable, Sendable {
  public struct Size: Hashable, Sendable {
    public var rows: UInt16
    public var columns: UInt16
    public init(rows: UInt16, columns: UInt16) {
      self.rows = rows
      self.columns = columns
    }
  }
  public var command: [String]
  public var env: [String]
  /// Empty: as the task's.
  public var user: String
  public var workingDir: String
  public var tty: Bool
  public var stdin: Bool
  public var size: Size?
  /// To the container's own first process; `command` is empty.
  public var attach: Bool
  /// Not waited for: an exit of 0 says that it runs.
  public var detach: Bool
  public init(
    command: [String], env: [String] = [], user: String = "", workingDir: String = "",
    tty: Bool = false, stdin: Bool = false, size: Size? = nil,
    attach: Bool = false, detach: Bool = false
  ) {
    self.command = command
    self.env = env
    self.user = user
    self.workingDir = workingDir
    self.tty = tty
    self.stdin = stdin
    self.size = size
    self.attach = attach
    self.detach = detach
  }
}

public enum ExecInput: Hashable, Sendable {
  case stdin([UInt8])
  case endOfInput
  case resize(ExecRequest.Size)
  /// The process goes on without us.
  case detach
}

public enum ExecOutput: Hashable, Sendable {
  case stdout([UInt8])
  case stderr([UInt8])
  /// 0-255; 128 + signal when a signal ended it; 126 and 127 as a shell's.
  case exit(Int32)
}

public enum ImageLoad: Hashable, Sendable {
  /// `docker save` or an OCI archive; names are inside.
  case archive
  /// A root file system as tar, to be known by this name.
  case rootfs(name: String)
}

public struct ImageRecord: Hashable, Sendable {
  public var name: String
  public var id: String
  /// Of the manifest.
  public var digest: String
  public var sizeBytes: Int64
  public var createdAt: Timestamp?
  public init(name: String, id: String, digest: String = "", sizeBytes: Int64, createdAt: Timestamp? = nil) {
    self.name = name
    self.digest = digest
    self.id = id
    self.sizeBytes = sizeBytes
    self.createdAt = createdAt
  }
}

public struct ManagerRecord: Hashable, Sendable {
  public var raftID: RaftID
  public var node: NodeID
  /// "HOST:PORT" of its daemon port.
  public var address: String
  public var leader: Bool
  /// As this manager knows it, also when the others are not there.
  public var hostname: String
  public var votes: Bool
  /// The latest that the answering manager has heard of.
  public var term: UInt64
  /// nil: not known (only the leader knows).
  public var reachable: Bool?
  public var matchIndex: UInt64?
  /// Entries of the leader's log that it does not have durably; nil as above.
  public var lag: UInt64?
  public init(
    raftID: RaftID, node: NodeID, hostname: String = "", address: String, leader: Bool, votes: Bool = true, term: UInt64 = 0, reachable: Bool?,
    matchIndex: UInt64? = nil,
    lag: UInt64? = nil
  ) {
    self.raftID = raftID
    self.node = node
    self.address = address
    self.leader = leader
    self.hostname = hostname
    self.votes = votes
    self.term = term
    self.reachable = reachable
    self.matchIndex = matchIndex
    self.lag = lag
  }
}

public struct ManagerInfo: Hashable, Sendable {
  public var node: NodeID
  public var hostname: String
  /// This manager's own "HOST:PORT".
  public var address: String
  /// orch's version.
  public var version: String
  public var kernelVersion: String
  public var operatingSystem: String
  public var architecture: String
  public var cpuCount: Int
  public var memoryBytes: Int64
  public init(
    node: NodeID, hostname: String, address: String, version: String, kernelVersion: String, operatingSystem: String, architecture: String,
    cpuCount: Int, memoryBytes: Int64
  ) {
    self.node = node
    self.hostname = hostname
    self.address = address
    self.version = version
    self.kernelVersion = kernelVersion
    self.operatingSystem = operatingSystem
    self.architecture = architecture
    self.cpuCount = cpuCount
    self.memoryBytes = memoryBytes
  }
}
