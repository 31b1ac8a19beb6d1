// Worker: what an agent decides. Assignments and the fates of containers come in, orders to the shell and reports to the
// manager go out.
//
// Invariants: a task's reported state only rises; a container is started at most once for a task; a task that the manager no
// longer assigns is stopped and removed; after a restart nothing begins before the manager has spoken; nothing is reported twice unless the session was renewed.
// Refuses to know: images, namespaces, sockets, clocks. `now` comes with every input.
// After moby/swarmkit agent/{worker,task}.go, but as one value instead of a goroutine a task.
import Model

public struct Worker: Sendable {
  /// One assigned task as this host sees it.
  struct Entry: Sendable {
    var task: ClusterTask
    var phase: Phase
    var status: TaskStatus
    /// Whether the manager has been told `status` in this session.
    var reported: Bool
    /// The manager asked for its end before it ended.
    var stopRequested: Bool
    /// Its health check ended it.
    var isUnhealthy = false
    /// The manager forgot it: remove everything of it as soon as it has stopped.
    var forgotten: Bool
  }

  /// What the shell is doing, or has done, for a task.
  enum Phase: Sendable {
    case idle, preparing, ready, starting, running, stopping, ended
  }

  private(set) var entries: [TaskID: Entry] = [:]
  private var items: [AssignmentItem.Key: AssignmentItem] = [:]
  /// Of before the restart, without a container: the host went down. They wait for what the manager says of them.
  private var remembered: Set<TaskID> = []
  /// What a crash left was looked for.
  private var hasSwept = false
  /// Ordered to start once, in this life or an earlier one: never again.
  private var begun: Set<TaskID> = []
  /// Of the last assignments; nil before the first of a session.
  public private(set) var sequence: UInt64?

  static let errorBytesMax = 16 << 10
  /// What a manager that can be reached needs at most: it waits 2 s for hosts that do not answer.
  public static let withdrawalMax = Nanoseconds.seconds(3)

  public init() {}

  // MARK: - Questions

  /// Everything the manager assigned, for keeping on disk: all but secrets, configs and registry logins, which it tells again. What was begun is at least
  /// starting there.
  public var assignments: AssignmentsMessage {
    var kept = items.values.filter { if case .file = $0 { false } else { true } }
    for position in kept.indices {
      if case .revision(var revision) = kept[position] {
        revision.spec.registryLogin = nil
        kept[position] = .revision(revision)
      }
      guard case .task(var task) = kept[position], begun.contains(task.id), task.status.state < .starting else { continue }
      task.status.state = .starting
      kept[position] = .task(task)
    }
    return AssignmentsMessage(complete: true, appliesTo: 0, resultsIn: sequence ?? 0, updates: kept, removals: [])
  }
  public func file(_ id: FileID) -> StoredFile? {
    guard case .file(let file)? = items[.file(id)] else { return nil }
    return file
  }
  public func task(_ id: TaskID) -> ClusterTask? { entries[id]?.task }
  public func spec(of task: ClusterTask) -> ServiceSpec? {
    guard case .revision(let revision)? = items[.revision(ServiceRevision.Key(task.service, task.revision))] else { return nil }
    return revision.spec
  }
  public func service(_ id: ServiceID) -> ServiceRecord? {
    guard case .service(let record)? = items[.service(id)] else { return nil }
    return record
  }
  public func network(_ id: NetworkID) -> NetworkAssignment? {
    guard case .network(let network)? = items[.network(id)] else { return nil }
    return network
  }
  public var networks: [NetworkAssignment] {
    items.values.compactMap { if case .network(let network) = $0 { network } else { nil } }
  }
  public var services: [ServiceRecord] { items.values.compactMap { if case .service(let record) = $0 { record } else { nil } } }
  public var endpoints: [EndpointRecord] { items.values.compactMap { if case .endpoint(let record) = $0 { record } else { nil } } }
  /// Those whose containers have not ended.
  public var liveTasks: [ClusterTask] { entries.values.filter { $0.phase != .ended }.map(\.task) }
  public var runningTasks: Int { entries.values.count { $0.phase == .running } }

  // MARK: - Step

  public mutating func step(_ input: WorkerInput, now: Timestamp) -> [WorkerOutput] {
    var outputs: [WorkerOutput] = []
    switch input {
    case .recovered(let message, let containers): recover(message, containers, now, &outputs)
    case .assignments(let message): assign(message, now, &outputs)
    case .sessionOpened:
      sequence = nil
      for id in entries.keys { entries[id]?.reported = false }
    case .prepared(let id): finish(id, from: .preparing, to: .ready, .ready, "prepared", now)
    case .prepareFailed(let id, let reason):
      end(id, TaskStatus(state: .rejected, timestamp: now, message: "preparing", error: reason), &outputs)
    case .started(let id, let container, let pid, let isChecked):
      guard entries[id]?.phase == .starting || entries[id]?.phase == .stopping else { break }
      if entries[id]?.phase == .starting { entries[id]?.phase = .running }
      set(id, Self.started(container, pid, isChecked, now))
    case .health(let id, let health): judge(id, health, now, &outputs)
    case .stopDue(let id) where entries[id]?.phase == .running && entries[id]?.isUnhealthy == true: stop(id, &outputs)
    case .stopDue: break
    case .startFailed(let id, let reason, let code):
      end(id, TaskStatus(state: .failed, timestamp: now, message: "starting", error: reason, exitCode: code), &outputs)
    case .exited(let id, let exit): ended(id, exit, now, &outputs)
    case .removed(let id): entries[id] = nil
    }
    advance(now, &outputs)
    report(&outputs)
    return outputs
  }

  // MARK: - Inputs

  private mutating func assign(_ message: AssignmentsMessage, _ now: Timestamp, _ outputs: inout [WorkerOutput]) {
    var removals = message.removals
    if message.complete {
      let assigned = Set(message.updates.map(\.key))
      removals = items.keys.filter { !assigned.contains($0) }
    } else if sequence != message.appliesTo {
      outputs.append(.resync)
      return
    }
    sequence = message.resultsIn
    var change = NetworkChange()
    for key in removals where items.removeValue(forKey: key) != nil && key.isNetworking { change.removals.append(key) }
    for item in message.updates where items.updateValue(item, forKey: item.key) != item && item.key.isNetworking { change.updates.append(item) }
    // Names and routes first: a task must find its peers when it starts.
    if message.complete || !change.isEmpty { outputs.append(.network(change)) }
    outputs.append(.persist)

    for case .task(let task) in message.updates { adopt(task, now) }
    if message.complete {
      for id in entries.keys where items[.task(id)] == nil { forget(id) }
      // Their logs are still here.
      for id in remembered.sorted() where entries[id] == nil { outputs.append(.remove(id)) }
      remembered = []
      if !hasSwept { outputs.append(.sweep) }
      hasSwept = true
      begun = begun.filter { items[.task($0)] != nil }
    } else {
      for case .task(let id) in message.removals { forget(id) }
    }
  }

  private mutating func adopt(_ task: ClusterTask, _ now: Timestamp) {
    if var entry = entries[task.id] {
      entry.task = task
      entry.forgotten = false
      if entry.phase == .running, !entry.isUnhealthy, task.isKnownUnhealthy {
        // The agent before this one said so, and did not live to keep it.
        entry.isUnhealthy = true
        (entry.status.health, entry.status.message, entry.status.error) = (task.status.health, task.status.message, task.status.error)
      }
      entries[task.id] = entry
    } else if task.status.state.isTerminal || (task.desiredState > .running && !task.isKnownUnhealthy) {
      // Its end is known, or it need not begin; a container that is still there was handled by `recover`.
      entries[task.id] = Entry(task: task, phase: .ended, status: task.status, reported: true, stopRequested: true, forgotten: false)
      if !task.status.state.isTerminal {
        set(task.id, TaskStatus(state: .shutdown, timestamp: now, message: "shutdown before start"))
      }
    } else if task.status.state == .running || begun.contains(task.id) {
      // A container is started once. The manager may have filled its place already, or never have heard of it.
      entries[task.id] = Entry(task: task, phase: .ended, status: task.status, reported: true, stopRequested: false, forgotten: false)
      set(
        task.id,
        TaskStatus(
          state: .failed, timestamp: now, message: "lost", error: "its container is gone: this host or its /run/orch was restarted",
          containerID: task.status.containerID))
    } else {
      entries[task.id] = Entry(
        task: task, phase: .idle, status: TaskStatus(state: .accepted, timestamp: now, message: "accepted"), reported: false,
        stopRequested: false, forgotten: false)
    }
  }

  private mutating func forget(_ id: TaskID) { entries[id]?.forgotten = true }

  private mutating func recover(
    _ message: AssignmentsMessage?, _ containers: [RecoveredTask], _ now: Timestamp, _ outputs: inout [WorkerOutput]
  ) {
    if let message {
      for item in message.updates {
        items[item.key] = item
        if case .task(let task) = item, task.status.state >= .starting { begun.insert(task.id) }
      }
      outputs.append(.network(NetworkChange(updates: message.updates.filter(\.key.isNetworking))))
    }
    for container in containers {
      guard case .task(let task)? = items[.task(container.id)] else {
        outputs.append(.remove(container.id))
        continue
      }
      let wasRunning = task.status.state == .running
      var status = Self.started(container.containerID, container.pid, container.isHealthChecked && !wasRunning, now)
      let isUnhealthy = task.isKnownUnhealthy
      if wasRunning {
        status.timestamp = task.status.timestamp
        if container.isHealthChecked { status.health = TaskHealth(status: isUnhealthy ? .unhealthy : .healthy) }
        if isUnhealthy { (status.message, status.error) = (task.status.message, task.status.error) }
      }
      entries[container.id] = Entry(
        task: task, phase: .running, status: status, reported: false, stopRequested: false, isUnhealthy: isUnhealthy, forgotten: false)
      if isUnhealthy { outputs.append(.stopLater(container.id)) }
      outputs.append(.watch(container.id))
    }
    for case .task(let task) in items.values where entries[task.id] == nil { remembered.insert(task.id) }
  }

  /// With a health check it runs, for the rest of the cluster, once it is healthy (SwarmKit agent/exec: a controller's Start returns then).
  private static func started(_ container: String, _ pid: Int32?, _ isChecked: Bool, _ now: Timestamp) -> TaskStatus {
    TaskStatus(
      state: isChecked ? .starting : .running, timestamp: now, message: isChecked ? "waiting for its health check" : "started",
      containerID: container, pid: pid, health: isChecked ? TaskHealth(status: .starting) : nil)
  }

  private mutating func judge(_ id: TaskID, _ health: TaskHealth, _ now: Timestamp, _ outputs: inout [WorkerOutput]) {
    guard let entry = entries[id], entry.phase == .running, !entry.isUnhealthy else { return }
    var status = entry.status
    status.health = health
    let reason = health.log.last.flatMap { $0.exitCode == 0 ? nil : $0.reason } ?? ""
    switch health.status {
    case .healthy where status.state < .running:
      status.state = .running
      status.timestamp = now
      status.message = "started"
      status.error = ""
    case .starting: status.error = reason.isEmpty ? "" : "health check: \(reason)"
    case .healthy: break
    case .unhealthy:
      // It is over when it has stopped. From now on it is taken out of names, virtual IPs and ports, on every host, if it ever was in.
      status.message = "stopping: unhealthy"
      status.error = "unhealthy: \(reason) (\(health.failingStreak) in a row)"
      entries[id]?.isUnhealthy = true
      if status.state == .running { outputs.append(.stopLater(id)) } else { stop(id, &outputs) }
    }
    set(id, status)
  }

  private mutating func stop(_ id: TaskID, _ outputs: inout [WorkerOutput]) {
    entries[id]?.phase = .stopping
    outputs.append(.stop(id))
  }

  private mutating func ended(_ id: TaskID, _ exit: TaskExit, _ now: Timestamp, _ outputs: inout [WorkerOutput]) {
    guard let entry = entries[id], entry.phase != .ended else { return }
    var status = entry.status
    status.timestamp = exit.finishedAt ?? now
    status.exitCode = exit.code
    status.oomKilled = exit.oomKilled
    status.message = "finished"
    status.error = ""
    if entry.stopRequested {
      status.state = .shutdown
      status.message = "shutdown"
    } else if entry.isUnhealthy {
      status.state = .failed
      status.error = "task: \(entry.status.error)"
    } else if exit.code == 0 {
      status.state = .complete
    } else {
      status.state = .failed
      status.error = exit.oomKilled ? "task: killed, out of memory (\(exit.code))" : "task: non-zero exit (\(exit.code))"
    }
    end(id, status, &outputs)
  }

  private mutating func end(_ id: TaskID, _ status: TaskStatus, _ outputs: inout [WorkerOutput]) {
    guard let entry = entries[id], entry.phase != .ended else { return }
    var status = status
    if entry.stopRequested, status.state != .shutdown { status.state = .shutdown }
    entries[id]?.phase = .ended
    set(id, status)
    outputs.append(.release(id))
  }

  private mutating func finish(_ id: TaskID, from: Phase, to: Phase, _ state: TaskState, _ message: String, _ now: Timestamp) {
    guard entries[id]?.phase == from else { return }
    entries[id]?.phase = to
    set(id, TaskStatus(state: state, timestamp: now, message: message))
  }

  private mutating func set(_ id: TaskID, _ status: TaskStatus) {
    guard let old = entries[id]?.status, status.state >= old.state else { return }
    var status = status
    // Of a program's or a registry's making: everything about a task must fit into one message.
    if status.error.utf8.count > Self.errorBytesMax {
      status.error = String(decoding: status.error.utf8.prefix(Self.errorBytesMax), as: UTF8.self) + "…"
    }
    entries[id]?.status = status
    entries[id]?.reported = false
  }

  // MARK: - Consequences

  /// Moves every task as far as its desired state and its phase allow.
  private mutating func advance(_ now: Timestamp, _ outputs: inout [WorkerOutput]) {
    for (id, entry) in entries {
      let desired = entry.forgotten ? .remove : entry.task.desiredState
      switch entry.phase {
      case .idle where desired <= .running:
        // A spec that has not come yet comes with a later message.
        guard spec(of: entry.task) != nil else { continue }
        entries[id]?.phase = .preparing
        set(id, TaskStatus(state: .preparing, timestamp: now, message: "preparing"))
        outputs.append(.prepare(id))
      case .ready where desired == .running:
        entries[id]?.phase = .starting
        set(id, TaskStatus(state: .starting, timestamp: now, message: "starting"))
        begun.insert(id)
        outputs.append(.persist)
        outputs.append(.start(id))
      case .idle, .ready:
        guard desired > .running else { continue }
        entries[id]?.stopRequested = true
        end(id, TaskStatus(state: .shutdown, timestamp: now, message: "shutdown"), &outputs)
      case .preparing, .starting:
        // Ends when the shell has answered; a start that succeeds is stopped then.
        if desired > .running, !entry.stopRequested {
          entries[id]?.stopRequested = true
          if entry.phase == .preparing { end(id, TaskStatus(state: .shutdown, timestamp: now, message: "shutdown"), &outputs) }
        }
      case .running where desired > .running:
        // An unhealthy one is told to stop, too, and has failed.
        entries[id]?.stopRequested = !entry.isUnhealthy
        stop(id, &outputs)
      case .ended where entry.forgotten:
        outputs.append(.remove(id))
        entries[id] = nil
      case .running, .stopping, .ended: continue
      }
    }
    // A start that ended at once may have left a forgotten entry behind.
    for (id, entry) in entries where entry.forgotten && entry.phase == .ended {
      outputs.append(.remove(id))
      entries[id] = nil
    }
  }

  private mutating func report(_ outputs: inout [WorkerOutput]) {
    var reports: [TaskReport] = []
    for (id, entry) in entries where !entry.reported {
      reports.append(TaskReport(task: id, status: entry.status))
      entries[id]?.reported = true
    }
    if !reports.isEmpty { outputs.append(.report(reports.sorted { $0.task < $1.task })) }
  }
}

extension AssignmentItem.Key {
  var isNetworking: Bool {
    switch self {
    case .network, .service, .endpoint: true
    case .task, .revision, .file: false
    }
  }
}

public enum WorkerInput: Sendable {
  /// Once, at start: what the disk remembers and which containers are there (running, or ended while the agent was away).
  case recovered(AssignmentsMessage?, [RecoveredTask])
  case assignments(AssignmentsMessage)
  /// A new session: everything is told again, and the manager sends the whole set.
  case sessionOpened
  case prepared(TaskID)
  case prepareFailed(TaskID, String)
  case started(TaskID, containerID: String, pid: Int32, isHealthChecked: Bool = false)
  /// From the task's `HealthCheck`.
  case health(TaskID, TaskHealth)
  /// After `stopLater`.
  case stopDue(TaskID)
  /// `exitCode`: as a shell's, when it is the command that is not there (127) or cannot be executed (126).
  case startFailed(TaskID, String, exitCode: Int32? = nil)
  case exited(TaskID, TaskExit)
  case removed(TaskID)
}

public enum WorkerOutput: Hashable, Sendable {
  /// Image, volumes, network namespace.
  case prepare(TaskID)
  /// Not before what `persist` asked for so far is on the disk: after a loss of the host it must be known that this was begun.
  case start(TaskID)
  /// A recovered container: wait for its end.
  case watch(TaskID)
  /// Stop signal, grace, SIGKILL.
  case stop(TaskID)
  /// The manager says `stop` when nobody is sent to it any more: give `stopDue` when it has not within `Worker.withdrawalMax`.
  case stopLater(TaskID)
  /// It has ended: give back its namespace, cgroup and mounts; keep its logs.
  case release(TaskID)
  /// Forgotten by the manager: nothing of it stays.
  case remove(TaskID)
  /// Once, when the manager has named every task of this host: what is there of others was left by a crash.
  case sweep
  /// Networks, services or endpoints changed, or were told anew.
  case network(NetworkChange)
  case report([TaskReport])
  /// Keep `assignments` on disk.
  case persist
  /// Ask the manager for the whole set.
  case resync
}

/// Which networks, services and endpoints are new or other than before, and which are gone: to be done first.
public struct NetworkChange: Hashable, Sendable {
  public var updates: [AssignmentItem]
  public var removals: [AssignmentItem.Key]
  public init(updates: [AssignmentItem] = [], removals: [AssignmentItem.Key] = []) { (self.updates, self.removals) = (updates, removals) }
  public var isEmpty: Bool { updates.isEmpty && removals.isEmpty }
}

public struct RecoveredTask: Hashable, Sendable {
  public var id: TaskID
  public var containerID: String
  public var pid: Int32?
  public var isHealthChecked: Bool
  public init(id: TaskID, containerID: String, pid: Int32?, isHealthChecked: Bool = false) {
    self.id = id
    self.containerID = containerID
    self.pid = pid
    self.isHealthChecked = isHealthChecked
  }
}

public struct TaskExit: Hashable, Sendable {
  /// As a shell has it: 128 + n for signal n.
  public var code: Int32
  public var oomKilled: Bool
  public var finishedAt: Timestamp?
  public init(code: Int32, oomKilled: Bool, finishedAt: Timestamp?) {
    self.code = code
    self.oomKilled = oomKilled
    self.finishedAt = finishedAt
  }
}

extension ClusterTask {
  /// It served, and was found to be ill.
  fileprivate var isKnownUnhealthy: Bool { status.state == .running && status.health?.status == .unhealthy }
}
