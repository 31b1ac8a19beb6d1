import Model
import Testing

@testable import Worker

/// A manager with one service and one task, and the worker under test.
private struct World {
  var worker = Worker()
  let service = ServiceID(value: 7)
  var task: ClusterTask
  var sequence: UInt64 = 0
  let now = Timestamp(nanoseconds: 1)

  init() {
    task = ClusterTask(id: TaskID(value: 1), service: service, revision: 1, slot: 1, createdAt: .zero)
    task.status.state = .assigned
  }

  var revision: ServiceRevision {
    let spec = ServiceSpec(name: "web", taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "web:1")))
    return ServiceRevision(key: .init(service, 1), spec: spec, template: 1, createdAt: .zero)
  }

  mutating func complete(_ items: [AssignmentItem]) -> [WorkerOutput] {
    sequence += 1
    return worker.step(
      .assignments(AssignmentsMessage(complete: true, appliesTo: 0, resultsIn: sequence, updates: items, removals: [])), now: now)
  }
  mutating func change(_ items: [AssignmentItem], removals: [AssignmentItem.Key] = []) -> [WorkerOutput] {
    sequence += 1
    return worker.step(
      .assignments(AssignmentsMessage(complete: false, appliesTo: sequence - 1, resultsIn: sequence, updates: items, removals: removals)),
      now: now)
  }
  mutating func run() {
    _ = complete([.revision(revision), .task(task)])
    _ = worker.step(.prepared(task.id), now: now)
    _ = worker.step(.started(task.id, containerID: "c", pid: 9), now: now)
  }
}

private func states(_ outputs: [WorkerOutput]) -> [TaskState] {
  outputs.flatMap { output in
    if case .report(let reports) = output { reports.map(\.status.state) } else { [TaskState]() }
  }
}

struct WorkerTests {
  @Test("a reason of any length is reported, cut to what fits into a message")
  func longReason() throws {
    var world = World()
    _ = world.complete([.revision(world.revision), .task(world.task)])
    let outputs = world.worker.step(.prepareFailed(world.task.id, String(repeating: "é", count: 5 << 20)), now: world.now)
    let errors = outputs.compactMap { if case .report(let reports) = $0 { reports[0].status.error } else { nil } }
    let error = try #require(errors.first)
    #expect(error.hasPrefix("éé") && error.hasSuffix("…") && error.utf8.count < Worker.errorBytesMax + 8)
  }

  @Test("what a registry is told is known and never among what is kept on disk")
  func registryLogin() {
    var world = World()
    var revision = world.revision
    revision.spec.registryLogin = SealedLogin(id: FileID(value: 1), data: Array("open".utf8))
    _ = world.complete([.revision(revision), .task(world.task)])
    #expect(world.worker.spec(of: world.task)?.registryLogin != nil)
    #expect(world.worker.assignments.updates.contains(.revision(world.revision)))
  }

  @Test("secrets are known while they are assigned and never among what is kept on disk")
  func files() {
    var world = World()
    let file = StoredFile(kind: .secret, id: FileID(value: 3), name: "key", data: [1], createdAt: .zero)
    _ = world.complete([.file(file), .revision(world.revision), .task(world.task)])
    #expect(world.worker.file(file.id) == file)
    #expect(world.worker.assignments.updates.count == 2)
    #expect(!world.worker.assignments.updates.contains { if case .file = $0 { true } else { false } })
    _ = world.change([], removals: [.file(file.id)])
    #expect(world.worker.file(file.id) == nil)
  }

  @Test("a task goes from assigned to running, each step told once")
  func life() {
    var world = World()
    let first = world.complete([.revision(world.revision), .task(world.task)])
    #expect(first.contains(.prepare(world.task.id)))
    #expect(states(first) == [.preparing])
    let second = world.worker.step(.prepared(world.task.id), now: world.now)
    #expect(second.contains(.start(world.task.id)))
    let third = world.worker.step(.started(world.task.id, containerID: "c", pid: 9), now: world.now)
    #expect(states(third) == [.running])
    #expect(world.worker.step(.prepared(world.task.id), now: world.now) == [])
  }

  @Test("a task without its spec waits for it")
  func specLater() {
    var world = World()
    #expect(!world.complete([.task(world.task)]).contains(.prepare(world.task.id)))
    #expect(world.change([.revision(world.revision)]).contains(.prepare(world.task.id)))
  }

  @Test("a task whose desired state is ready is prepared and not started until it may run")
  func readyFirst() {
    var world = World()
    world.task.desiredState = .ready
    _ = world.complete([.revision(world.revision), .task(world.task)])
    let prepared = world.worker.step(.prepared(world.task.id), now: world.now)
    #expect(states(prepared) == [.ready])
    #expect(!prepared.contains(.start(world.task.id)))
    world.task.desiredState = .running
    #expect(world.change([.task(world.task)]).contains(.start(world.task.id)))
  }

  @Test(
    "an exit is complete, failed or shutdown",
    arguments: [(0, false, TaskState.complete), (137, false, .failed), (0, true, .shutdown), (137, true, .shutdown)])
  func exits(code: Int32, stop: Bool, expected: TaskState) {
    var world = World()
    world.run()
    if stop {
      world.task.desiredState = .shutdown
      #expect(world.change([.task(world.task)]).contains(.stop(world.task.id)))
    }
    let outputs = world.worker.step(.exited(world.task.id, TaskExit(code: code, oomKilled: false, finishedAt: nil)), now: world.now)
    #expect(states(outputs) == [expected])
    #expect(outputs.contains(.release(world.task.id)))
    #expect(!outputs.contains(.remove(world.task.id)))
  }

  @Test("what the manager forgot is stopped, then removed, and nothing is told of it afterwards")
  func forgotten() {
    var world = World()
    world.run()
    #expect(world.change([], removals: [.task(world.task.id)]).contains(.stop(world.task.id)))
    let outputs = world.worker.step(.exited(world.task.id, TaskExit(code: 0, oomKilled: false, finishedAt: nil)), now: world.now)
    #expect(outputs.contains(.remove(world.task.id)))
    #expect(world.worker.task(world.task.id) == nil)
  }

  @Test("a task that is to stop while it starts is stopped once it has started")
  func stopWhileStarting() {
    var world = World()
    _ = world.complete([.revision(world.revision), .task(world.task)])
    _ = world.worker.step(.prepared(world.task.id), now: world.now)
    world.task.desiredState = .shutdown
    #expect(!world.change([.task(world.task)]).contains(.stop(world.task.id)))
    #expect(world.worker.step(.started(world.task.id, containerID: "c", pid: 9), now: world.now).contains(.stop(world.task.id)))
  }

  @Test("a difference that does not fit asks for everything; a complete set always fits")
  func sequence() {
    var world = World()
    _ = world.complete([])
    world.sequence = 40
    #expect(world.change([]) == [.resync])
    #expect(!world.complete([]).contains(.resync))
  }

  @Test("a new session hears every state again")
  func newSession() {
    var world = World()
    world.run()
    #expect(states(world.worker.step(.sessionOpened, now: world.now)) == [.running])
  }

  @Test("after a restart running containers are adopted, unknown ones removed, and nothing starts twice")
  func recovery() {
    var world = World()
    world.run()
    var restarted = Worker()
    let outputs = restarted.step(
      .recovered(
        world.worker.assignments,
        [RecoveredTask(id: world.task.id, containerID: "c", pid: 9), RecoveredTask(id: TaskID(value: 99), containerID: "x", pid: nil)]),
      now: world.now)
    #expect(outputs.contains(.watch(world.task.id)))
    #expect(outputs.contains(.remove(TaskID(value: 99))))
    #expect(states(outputs) == [.running])
    world.worker = restarted
    let again = world.complete([.revision(world.revision), .task(world.task)])
    #expect(!again.contains { if case .prepare = $0 { true } else if case .start = $0 { true } else { false } })
  }

  @Test("what changed of networks is told by record: a new session's whole set too is compared with what was known")
  func networkChange() {
    func endpoint(_ number: UInt64, ready: Bool = true) -> AssignmentItem {
      .endpoint(
        EndpointRecord(
          task: TaskID(value: UInt128(number)), service: ServiceID(value: 1), network: NetworkID(value: 1), node: NodeID(value: 1), slot: number,
          address: IPv4Address(UInt32(number)), underlay: IPv4Address(1), ready: ready))
    }
    func changes(_ outputs: [WorkerOutput]) -> [NetworkChange] { outputs.compactMap { if case .network(let change) = $0 { change } else { nil } } }
    var world = World()
    let first = changes(world.complete([endpoint(1), endpoint(2), endpoint(3), .task(world.task)]))
    #expect(first == [NetworkChange(updates: [endpoint(1), endpoint(2), endpoint(3)])])
    _ = world.worker.step(.sessionOpened, now: world.now)
    let again = changes(world.complete([endpoint(1), endpoint(3, ready: false), .task(world.task)]))
    #expect(again == [NetworkChange(updates: [endpoint(3, ready: false)], removals: [endpoint(2).key])])
    #expect(changes(world.change([endpoint(1), .revision(world.revision)])) == [])
    #expect(changes(world.change([endpoint(1, ready: false)])) == [NetworkChange(updates: [endpoint(1, ready: false)])])
  }

  @Test("after the host's restart nothing begins before the manager has spoken, and a task whose container is gone has failed")
  func reboot() {
    var world = World()
    world.run()
    world.task.status.state = .running
    var (given, gone) = (world.task, world.task)
    (given.id, gone.id) = (TaskID(value: 2), TaskID(value: 3))
    given.status.state = .assigned
    _ = world.change([.task(world.task), .task(gone)])
    let kept = world.worker.assignments
    world.worker = Worker()
    #expect(world.worker.step(.recovered(kept, []), now: world.now) == [.network(NetworkChange())])
    #expect(world.worker.step(.sessionOpened, now: world.now) == [])
    let outputs = world.complete([.revision(world.revision), .task(world.task), .task(given)])
    #expect(world.worker.entries[world.task.id]?.status.state == .failed)
    #expect(outputs.contains(.prepare(given.id)) && !outputs.contains(.prepare(world.task.id)))
    #expect(outputs.contains(.remove(gone.id)) && !outputs.contains(.remove(world.task.id)))
  }

  @Test("a task that was begun before the host's restart is not begun again, though the manager never heard of it")
  func begunBeforeRestart() {
    var world = World()
    _ = world.complete([.revision(world.revision), .task(world.task)])
    let outputs = world.worker.step(.prepared(world.task.id), now: world.now)
    // First known, then done.
    #expect(outputs.firstIndex(of: .persist)! < outputs.firstIndex(of: .start(world.task.id))!)
    let kept = world.worker.assignments
    world.worker = Worker()
    _ = world.worker.step(.recovered(kept, []), now: world.now)
    _ = world.worker.step(.sessionOpened, now: world.now)
    let told = world.complete([.revision(world.revision), .task(world.task)])
    #expect(states(told) == [.failed])
    #expect(!told.contains(.prepare(world.task.id)))
  }

  @Test("a start that fails is failed, a preparation that fails is rejected, with the reason")
  func failures() {
    var world = World()
    _ = world.complete([.revision(world.revision), .task(world.task)])
    let outputs = world.worker.step(.prepareFailed(world.task.id, "No such image: web:1"), now: world.now)
    #expect(states(outputs) == [.rejected])
    #expect(world.worker.entries[world.task.id]?.status.error == "No such image: web:1")

    // The command's own code, where it is the command that is to blame; no container is told of.
    for code in [127, nil] as [Int32?] {
      world = World()
      _ = world.complete([.revision(world.revision), .task(world.task)])
      _ = world.worker.step(.prepared(world.task.id), now: world.now)
      let started = world.worker.step(.startFailed(world.task.id, "start: no such file", exitCode: code), now: world.now)
      #expect(states(started) == [.failed])
      let status = world.worker.entries[world.task.id]?.status
      #expect(status?.exitCode == code && status?.containerID == nil && status?.error == "start: no such file")
    }
  }

  private func probe(_ code: Int32) -> TaskHealth.Probe { .init(start: .zero, end: .zero, exitCode: code, output: "no answer\nat all") }

  @Test("a task with a health check runs, for the manager, once it is healthy; until then it says what the probe said")
  func healthGates() throws {
    var world = World()
    _ = world.complete([.revision(world.revision), .task(world.task)])
    _ = world.worker.step(.prepared(world.task.id), now: world.now)
    let started = world.worker.step(.started(world.task.id, containerID: "c", pid: 9, isHealthChecked: true), now: world.now)
    #expect(states(started) == [.starting])
    let failing = world.worker.step(.health(world.task.id, TaskHealth(status: .starting, log: [probe(1)])), now: world.now)
    guard case .report(let reports)? = failing.first else { throw Missing() }
    #expect(reports[0].status.state == .starting && reports[0].status.error == "health check: exit 1: no answer")
    let healthy = world.worker.step(.health(world.task.id, TaskHealth(status: .healthy, log: [probe(0)])), now: world.now)
    guard case .report(let reports)? = healthy.first else { throw Missing() }
    #expect(reports[0].status.state == .running && reports[0].status.error == "" && reports[0].status.health?.status == .healthy)
  }
  private struct Missing: Error {}

  private func unhealthy(_ world: inout World) -> [WorkerOutput] {
    world.run()
    return world.worker.step(.health(world.task.id, TaskHealth(status: .unhealthy, failingStreak: 3, log: [probe(1)])), now: world.now)
  }

  @Test("an unhealthy task is told of at once, and stopped when the manager says that nobody is sent to it; it has failed with the probe's reason")
  func unhealthy() throws {
    var world = World()
    let judged = unhealthy(&world)
    #expect(!judged.contains(.stop(world.task.id)) && judged.contains(.stopLater(world.task.id)))
    #expect(states(judged) == [.running])
    #expect(world.worker.step(.health(world.task.id, TaskHealth(status: .healthy)), now: world.now) == [])
    world.task.desiredState = .shutdown
    #expect(world.change([.task(world.task)]).contains(.stop(world.task.id)))
    #expect(world.worker.step(.stopDue(world.task.id), now: world.now) == [])
    let ended = world.worker.step(.exited(world.task.id, TaskExit(code: 0, oomKilled: false, finishedAt: nil)), now: world.now)
    guard case .report(let reports)? = ended.last else { throw Missing() }
    #expect(reports[0].status.state == .failed && reports[0].status.error == "task: unhealthy: exit 1: no answer (3 in a row)")
  }

  @Test("an unhealthy task is stopped in time when no manager answers")
  func unhealthyAlone() {
    var world = World()
    _ = unhealthy(&world)
    #expect(world.worker.step(.stopDue(world.task.id), now: world.now) == [.stop(world.task.id)])
    world.task.desiredState = .shutdown
    #expect(!world.change([.task(world.task)]).contains(.stop(world.task.id)))
    let ended = world.worker.step(.exited(world.task.id, TaskExit(code: 0, oomKilled: false, finishedAt: nil)), now: world.now)
    #expect(states(ended) == [.failed])
  }

  @Test("a task that never was healthy is in nobody's names, and stopped at once")
  func neverHealthy() {
    var world = World()
    _ = world.complete([.revision(world.revision), .task(world.task)])
    _ = world.worker.step(.prepared(world.task.id), now: world.now)
    _ = world.worker.step(.started(world.task.id, containerID: "c", pid: 9, isHealthChecked: true), now: world.now)
    let judged = world.worker.step(.health(world.task.id, TaskHealth(status: .unhealthy, failingStreak: 3, log: [probe(1)])), now: world.now)
    #expect(judged.contains(.stop(world.task.id)) && !judged.contains(.stopLater(world.task.id)))
    #expect(states(world.worker.step(.exited(world.task.id, TaskExit(code: 0, oomKilled: false, finishedAt: nil)), now: world.now)) == [.failed])
  }

  @Test("what the agent before this one said of a task's health, and did not live to keep, the manager tells: the task has failed")
  func unhealthyTold() {
    var world = World()
    world.task.status = TaskStatus(state: .running, timestamp: .zero, message: "started")
    let kept = AssignmentsMessage(
      complete: true, appliesTo: 0, resultsIn: 1, updates: [.revision(world.revision), .task(world.task)], removals: [])
    let found = RecoveredTask(id: world.task.id, containerID: "c", pid: 9, isHealthChecked: true)
    _ = world.worker.step(.recovered(kept, [found]), now: world.now)
    _ = world.worker.step(.sessionOpened, now: world.now)
    world.task.status.health = TaskHealth(status: .unhealthy)
    world.task.status.error = "unhealthy: exit 1 (3 in a row)"
    world.task.desiredState = .shutdown
    #expect(world.complete([.revision(world.revision), .task(world.task)]).contains(.stop(world.task.id)))
    #expect(states(world.worker.step(.exited(world.task.id, TaskExit(code: 0, oomKilled: false, finishedAt: nil)), now: world.now)) == [.failed])
  }

  @Test("found again after a restart a task that the manager knew unhealthy is not healthy, and is stopped in time")
  func unhealthyRecovered() throws {
    var world = World()
    world.task.status = TaskStatus(state: .running, timestamp: .zero, message: "stopping: unhealthy", error: "unhealthy: exit 1 (3 in a row)")
    world.task.status.health = TaskHealth(status: .unhealthy)
    let kept = AssignmentsMessage(
      complete: true, appliesTo: 0, resultsIn: 1, updates: [.revision(world.revision), .task(world.task)], removals: [])
    let found = RecoveredTask(id: world.task.id, containerID: "c", pid: 9, isHealthChecked: true)
    let outputs = world.worker.step(.recovered(kept, [found]), now: world.now)
    #expect(outputs.contains(.stopLater(world.task.id)) && states(outputs) == [.running])
    #expect(world.worker.entries[world.task.id]?.status.health?.status == .unhealthy)
    #expect(world.worker.step(.stopDue(world.task.id), now: world.now) == [.stop(world.task.id)])
    let ended = world.worker.step(.exited(world.task.id, TaskExit(code: 0, oomKilled: false, finishedAt: nil)), now: world.now)
    guard case .report(let reports)? = ended.last else { throw Missing() }
    #expect(reports[0].status.state == .failed && reports[0].status.error == "task: unhealthy: exit 1 (3 in a row)")
  }

  @Test("found again after a restart it is healthy if the manager knew it running, and is checked anew otherwise", arguments: [true, false])
  func recoveredHealth(wasRunning: Bool) {
    var world = World()
    world.task.status.state = wasRunning ? .running : .assigned
    let kept = AssignmentsMessage(
      complete: true, appliesTo: 0, resultsIn: 1, updates: [.revision(world.revision), .task(world.task)], removals: [])
    let found = RecoveredTask(id: world.task.id, containerID: "c", pid: 9, isHealthChecked: true)
    #expect(states(world.worker.step(.recovered(kept, [found]), now: world.now)) == [wasRunning ? .running : .starting])
  }

  @Test("what a crash left is looked for once, when the manager has named every task")
  func sweep() {
    var world = World()
    #expect(!world.worker.step(.recovered(nil, []), now: world.now).contains(.sweep))
    #expect(world.complete([.revision(world.revision), .task(world.task)]).contains(.sweep))
    #expect(!world.complete([.revision(world.revision), .task(world.task)]).contains(.sweep))
  }
}
