/// A task: one container, once. Called ClusterTask because Swift's own Task is everywhere; everything that a person reads says task.
public struct ClusterTask: Hashable, Sendable, Codable {
  public var id: TaskID
  public var service: ServiceID
  /// `ServiceRevision.template` of the revision it was made from.
  public var revision: UInt64
  /// 1… for replicated services; 0 for global ones, whose slot is the node.
  public var slot: UInt64
  public var node: NodeID?
  public var desiredState: TaskState
  public var status: TaskStatus
  public var attachments: [NetworkAttachment]
  public var createdAt: Timestamp
  /// How many tasks of this slot failed before this one without a healthy stretch between: the restart delay grows with it.
  public var restartCount: UInt32
  /// Do not start before this instant (restart delay, update delay); zero: at once.
  public var startAfter: Timestamp
  /// Raft index of the last change.
  public var version: UInt64

  public init(id: TaskID, service: ServiceID, revision: UInt64, slot: UInt64, desiredState: TaskState = .running, createdAt: Timestamp) {
    self.id = id
    self.service = service
    self.revision = revision
    self.slot = slot
    self.node = nil
    self.desiredState = desiredState
    self.status = TaskStatus(state: .new, timestamp: createdAt, message: "created")
    self.attachments = []
    self.createdAt = createdAt
    self.restartCount = 0
    self.startAfter = .zero
    self.version = 0
  }

  /// Runs, should run, is not unhealthy: may be sent work.
  public var isServing: Bool { status.state == .running && desiredState == .running && status.health?.status != .unhealthy }
}

public struct TaskStatus: Hashable, Sendable, Codable {
  public var state: TaskState
  public var timestamp: Timestamp
  /// What happened, for people: "started", "preparing".
  public var message: String
  /// Why it is not running: "no suitable node (insufficient memory on 3 nodes)", "task: non-zero exit (137)". Empty when well.
  public var error: String
  public var containerID: String?
  public var pid: Int32?
  public var exitCode: Int32?
  public var oomKilled: Bool
  /// nil: it has no health check, or was not started.
  public var health: TaskHealth?

  public init(
    state: TaskState, timestamp: Timestamp, message: String, error: String = "", containerID: String? = nil, pid: Int32? = nil,
    exitCode: Int32? = nil, oomKilled: Bool = false, health: TaskHealth? = nil
  ) {
    self.state = state
    self.timestamp = timestamp
    self.message = message
    self.error = error
    self.containerID = containerID
    self.pid = pid
    self.exitCode = exitCode
    self.oomKilled = oomKilled
    self.health = health
  }
}
