import AgentNetwork
import AgentVolume
import DNS
import Foundation
import Logging
import Model
import Runtime
import Surroundings
import Wire
import Worker

/// The shell of `Worker`: one input at a time, its outputs carried out. Slow work runs in tasks of its own, in order for each task.
actor Agent {
  private var worker = Worker()
  private var lanes: [TaskID: Lane] = [:]
  let rooms: Rooms
  private let log: Logger
  private weak var session: Session?
  private var networkPass: Task<Void, Never>?
  private var networkDirty = false
  private var applied = AppliedAssignments()
  private var networkRetry: Task<Void, Never>?
  private var persistPass: Task<Void, Never>?
  private var persistRetry: Task<Void, Never>?
  private var persistDirty = false
  private var withdrawals: [TaskID: CheckedContinuation<Void, Never>] = [:]
  private var portConflicts: [NodeDescription.PortConflict] = []
  private var toldProblems = ToldProblems()
  /// Of ports in host mode that tasks wanted here and processes have: the scheduler sends the next elsewhere.
  private var hostConflicts: [NodeDescription.PortConflict] = []
  private var descriptionPass: Task<Void, Never>?
  private var descriptionDirty = false
  private var networkRepairs: [String: UInt64] = [:]
  private var repairsTold = false
  private var underlayFacts = UnderlayFacts()
  /// Until what the agent before left was taken over nothing is compared: nothing of it is wanted yet.
  private var isRecovered = false
  private var recovery: (@Sendable (AssignmentsMessage) async -> Void)?

  init(rooms: Rooms, log: Logger) {
    self.rooms = rooms
    self.log = log
  }

  var underlay: IPv4Address { rooms.underlay }
  func attach(_ session: Session) { self.session = session }
  /// What this host says of itself now.
  var description: NodeDescription {
    var description = HostFacts.description()
    let conflicts = portConflicts + hostConflicts.filter { !portConflicts.contains($0) }
    if !conflicts.isEmpty { description.portConflicts = Array(conflicts.prefix(Self.conflictsMax)) }
    if !networkRepairs.isEmpty { description.networkRepairs = networkRepairs }
    if !underlayFacts.routes.isEmpty { description.routes = underlayFacts.routes }
    description.underlayMTU = underlayFacts.mtu
    return description
  }
  private static let conflictsMax = 100
  func task(_ id: TaskID) -> ClusterTask? { worker.task(id) }

  func input(_ input: WorkerInput) {
    if case .recovered = input { isRecovered = true }
    for output in worker.step(input, now: .now) { carryOut(output) }
    if case .assignments = input, networkPass == nil {
      applied.unchanged(mark)
      tellApplied()
    }
  }

  /// What the agent before left is taken over when the manager has told what this host is assigned; its first message is all of it.
  func recoverLater(_ recovery: @escaping @Sendable (AssignmentsMessage) async -> Void) { self.recovery = recovery }

  /// - Parameter number: no other session's.
  func sessionOpened(_ number: Int) {
    applied.sessionOpened(number)
    input(.sessionOpened)
  }

  /// From the session, one after the other.
  func assigned(_ message: AssignmentsMessage) async {
    if let recovery {
      self.recovery = nil
      await recovery(message)
    }
    input(.assignments(message))
  }

  private var mark: AppliedAssignments.Mark { applied.mark(worker.sequence) }

  private func tellApplied() {
    guard let session, let sequence = applied.toTell() else { return }
    Task { [number = applied.session] in await session.applied(sequence, of: number) }
  }

  /// What the running containers of tasks use, by their names; only of these tasks unless that is empty.
  func statistics(of wanted: Set<String> = []) async -> [TaskSample] {
    let tasks = worker.liveTasks.filter { wanted.isEmpty || wanted.contains($0.id.description) }
    let stats = await rooms.runtime.stats(of: tasks.map(\.id.description))
    return tasks.compactMap { task in
      guard let spec = worker.spec(of: task), let stats = stats[task.id.description] else { return nil }
      return TaskSample(id: task.id, name: task.containerName(spec), service: spec.name, stats: stats)
    }.sorted { ($0.name, $0.id) < ($1.name, $1.id) }
  }

  /// What the agent is meant to do for `id`, all at once, as the slow work needs it.
  func order(_ id: TaskID) -> TaskOrder? {
    guard let task = worker.task(id), let spec = worker.spec(of: task) else { return nil }
    let files = spec.taskTemplate.containerSpec.files.map { ($0, FileID($0.id).flatMap(worker.file)) }
    return TaskOrder(task: task, spec: spec, files: files)
  }

  private func carryOut(_ output: WorkerOutput) {
    switch output {
    case .prepare(let id):
      lane(id) { controller, agent in await controller.prepare(agent) }
      let preparation = lanes[id]?.last
      lanes[id]?.preparation = preparation
    case .start(let id):
      lane(id) { controller, agent in
        await agent.persisted()
        await controller.start(agent)
      }
    case .watch(let id): lane(id) { controller, agent in await controller.resume(agent) }
    case .stop(let id): aside(id) { controller, agent in await controller.stop(agent) }
    case .stopLater(let id):
      Task {
        try? await Task.sleep(for: Worker.withdrawalMax.duration)
        input(.stopDue(id))
      }
    case .release(let id):
      // Its image may still be coming, for nobody now.
      lanes[id]?.preparation?.cancel()
      lane(id) { controller, agent in
        await agent.withdrawn(id)
        await controller.release()
      }
    case .remove(let id):
      lane(id) { controller, agent in
        await controller.remove(sparing: agent.volumesInUse)
        await agent.closeLane(id)
      }
    case .sweep: sweep()
    case .network(let change):
      rooms.names.update(change.updates, removing: change.removals)
      applyNetwork()
    case .report(let reports):
      guard let session else { break }
      Task { await session.report(reports) }
    case .persist: persist()
    case .resync:
      guard let session else { break }
      Task { await session.resync() }
    }
  }

  /// Returns when nobody is sent to the ended task any more, as far as this host was told (a second at most: the manager may be away), and
  /// 2 s after that: until then its namespace refuses connections, and packets of those it had, that without it would be lost. A host port is
  /// wanted by the task that follows: not at all.
  func withdrawn(_ id: TaskID) async {
    guard let order = order(id), !order.task.attachments.isEmpty, !order.spec.ports.contains(where: { $0.publishMode == .host }) else { return }
    if isEndpoint(id) {
      await withCheckedContinuation { continuation in
        withdrawals[id] = continuation
        Task {
          try? await Task.sleep(for: .seconds(1))
          withdrawals.removeValue(forKey: id)?.resume()
        }
      }
    }
    try? await Task.sleep(for: .seconds(2))
  }

  private func isEndpoint(_ id: TaskID) -> Bool { worker.endpoints.contains { $0.task == id } }

  private func resumeWithdrawn() {
    for id in withdrawals.keys where !isEndpoint(id) { withdrawals.removeValue(forKey: id)?.resume() }
  }

  /// Volumes that services name and containers which have not ended mount.
  var volumesInUse: Set<String> {
    let host = HostFacts.description()
    return worker.liveTasks.reduce(into: []) { names, task in
      guard let spec = worker.spec(of: task) else { return }
      names.formUnion(task.volumeNames(spec, node: rooms.node, hostname: host.hostname, platform: host.platform))
    }
  }

  /// Whose own volumes, those without a name, are mounted.
  var tasksInUse: Set<String> { Set(worker.liveTasks.map(\.id.description)) }

  /// Folders, cgroups, namespaces, mounts, interfaces and anonymous volumes that are named by the id of a task which this host does not have.
  /// They are listed first: a task is known here before anything is made of it.
  private func sweep() {
    Task {
      let links = (try? await rooms.network.containerLinks()) ?? []
      for id in await rooms.leftovers() where worker.task(id) == nil && lanes[id] == nil && !rooms.builder.isBuilding(in: id) {
        log.notice("removing what is left of task \(id)")
        await TaskController(id: id, rooms: rooms, log: log).remove(sparing: volumesInUse)
      }
      // With their namespaces most are gone now; those whose other end lies elsewhere are not.
      let known = Set(lanes.keys).union(worker.liveTasks.map(\.id))
      let stray = links.filter { link in !known.contains { link.isOf($0) } && !rooms.builder.isBuilding(behind: link) }
      do {
        if !stray.isEmpty { log.notice("removing interfaces that are left of tasks: \(stray.map(\.name).joined(separator: " "))") }
        try await rooms.network.remove(stray)
      } catch {
        log.warning("remove interfaces that are left of tasks: \(error)")
      }
    }
  }

  // MARK: - Lanes

  /// Slow work of one task runs in the order in which the worker asked for it.
  private struct Lane {
    var controller: TaskController
    var last: Task<Void, Never>
    var preparation: Task<Void, Never>?
  }

  private func lane(_ id: TaskID, _ work: @escaping @Sendable (TaskController, Agent) async -> Void) {
    let lane = lanes[id]
    let controller = lane?.controller ?? TaskController(id: id, rooms: rooms, log: log)
    let previous = lane?.last
    lanes[id] = Lane(
      controller: controller,
      last: Task {
        await previous?.value
        await work(controller, self)
      }, preparation: lane?.preparation)
  }

  /// A stop does not wait behind the watch of the very container that it is to end.
  private func aside(_ id: TaskID, _ work: @escaping @Sendable (TaskController, Agent) async -> Void) {
    guard let controller = lanes[id]?.controller else { return }
    Task { await work(controller, self) }
  }

  private func closeLane(_ id: TaskID) {
    // A task that came back meanwhile has a new order in its lane: then it stays.
    if worker.task(id) == nil { lanes[id] = nil }
  }

  // MARK: - Network and disk

  /// Changes that come while one pass runs share the next.
  private func applyNetwork() {
    networkDirty = true
    guard networkPass == nil else { return }
    networkPass = Task {
      while networkDirty {
        networkDirty = false
        networkRetry?.cancel()
        var (isWhole, isDone) = (false, false)
        let (networks, services, endpoints) = (worker.networks, worker.services, worker.endpoints)
        var mark = self.mark
        do {
          let problems = try await rooms.network.apply(networks: networks, services: services, endpoints: endpoints)
          isWhole = !problems.contains { $0.weight == .unfinished }
          isDone = !problems.contains { $0.weight != .told }
          for problem in toldProblems.step(problems) { log.warning("network: \(problem)") }
          tellConflicts(problems.compactMap(\.conflict))
          await checkHostConflicts()
          noteRepairs(await rooms.network.repairs)
          await readUnderlay()
        } catch {
          log.error("network: \(error)")
        }
        // What came meanwhile and is not dirty asks nothing of the kernel.
        if !networkDirty { mark = self.mark }
        // The leader waits a bounded time for who says nothing: tasks stop nevertheless.
        if let pause = applied.passed(mark, isWhole: isWhole, isDone: isDone) { retryNetwork(after: pause) }
        tellApplied()
        resumeWithdrawn()
      }
      networkPass = nil
    }
  }

  private func retryNetwork(after pause: Duration) {
    networkRetry = Task {
      if (try? await Task.sleep(for: pause)) != nil { applyNetwork() }
    }
  }

  /// Before the first session, and when links or routes change.
  func readUnderlay() async {
    do {
      let facts = try await rooms.network.underlayFacts()
      guard facts != underlayFacts else { return }
      underlayFacts = facts
      tellDescription()
    } catch {
      log.warning("read this host's routes: \(error)")
    }
  }

  private func tellConflicts(_ conflicts: [NodeDescription.PortConflict]) {
    guard conflicts != portConflicts else { return }
    portConflicts = conflicts
    tellDescription()
  }

  func noteHostConflict(_ conflict: NodeDescription.PortConflict) {
    guard !hostConflicts.contains(conflict) else { return }
    hostConflicts.removeAll { $0.claim == conflict.claim }
    hostConflicts.append(conflict)
    tellDescription()
  }

  /// With each pass, hence every 15 s: whether processes still have them.
  private func checkHostConflicts() async {
    guard !hostConflicts.isEmpty else { return }
    let asked = hostConflicts
    let ports = asked.map { conflict in
      var port = PortConfig(targetPort: conflict.port, publishedPort: conflict.port, protocol: conflict.protocol, publishMode: .host)
      port.hostIP = conflict.address
      return port
    }
    guard let left = try? await rooms.network.conflicts(on: ports) else { return }
    // Others may have been noted meanwhile.
    let now = hostConflicts.filter { !asked.contains($0) } + left
    guard Set(now) != Set(hostConflicts) else { return }
    hostConflicts = now
    tellDescription()
  }

  /// What this host says of itself, to the leader: one message after the other, so that the newest is the last.
  func tellDescription() {
    descriptionDirty = true
    guard descriptionPass == nil, let session else { return }
    descriptionPass = Task {
      while descriptionDirty {
        descriptionDirty = false
        await session.describe(description)
      }
      descriptionPass = nil
    }
  }

  /// Told at most every 10 s: another program may undo for ever what is repaired.
  private func noteRepairs(_ repairs: [String: UInt64]) {
    guard repairs != networkRepairs else { return }
    let text = repairs.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
    log.warning("network: another program changed what is orch's on this host; repaired so far: \(text)")
    networkRepairs = repairs
    guard !repairsTold else { return }
    repairsTold = true
    Task {
      tellDescription()
      try? await Task.sleep(for: .seconds(10))
      repairsTold = false
      tellDescription()
    }
  }

  /// A process let go of a published port, or another program changed something of this host's network: compare again.
  func compareNetwork() { if isRecovered { applyNetwork() } }

  /// Returns when every change of networks that was known at the call has been applied.
  func networkApplied() async { while let pass = networkPass { await pass.value } }

  /// Returns when everything that was to be kept at the call is on the disk, or was refused by it.
  func persisted() async { while let pass = persistPass { await pass.value } }

  private func persist() {
    persistDirty = true
    guard persistPass == nil else { return }
    persistPass = Task {
      while persistDirty {
        persistDirty = false
        persistRetry?.cancel()
        let (assignments, mark) = (worker.assignments, mark)
        let isKept = await rooms.keep(assignments, log: log)
        if let pause = applied.written(mark, succeeded: isKept) { retryPersist(after: pause) }
        tellApplied()
      }
      persistPass = nil
    }
  }

  private func retryPersist(after pause: Duration) {
    persistRetry = Task {
      if (try? await Task.sleep(for: pause)) != nil { persist() }
    }
  }
}

/// One task and the spec it is made from.
struct TaskOrder: Sendable {
  var task: ClusterTask
  var spec: ServiceSpec
  /// nil: the manager does not have it any more.
  var files: [(reference: FileReference, file: StoredFile?)]
  var container: ContainerSpec { spec.taskTemplate.containerSpec }
  var name: String { task.containerName(spec) }
  func placeholders(on node: NodeID) -> Placeholders {
    let facts = HostFacts.description()
    return Placeholders(task, spec, node: node, hostname: facts.hostname, platform: facts.platform)
  }
}

/// What one task's container uses at one moment.
struct TaskSample {
  var id: TaskID
  var name: String
  var service: String
  var stats: ContainerStats
}
