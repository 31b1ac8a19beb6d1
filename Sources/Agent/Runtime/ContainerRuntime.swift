// Runtime: containers as a library. It makes, finds again, watches, enters and removes them on this host.
// Invariants: a container belongs to its monitor (orch-init), never to this process: killing the agent ends no container;
// all state is in files and the kernel, so `recover` starts from nothing; no blocking call runs on the cooperative pool.
// It refuses to know tasks, images, networks, volumes: it gets folders and a namespace path.
import CLinux
import Cgroups
import Glibc
import Launch
import LinuxSystem
import Model
import Synchronization

/// All containers of one agent.
public final class ContainerRuntime: Sendable {
  public let configuration: RuntimeConfiguration
  private let cgroups: CgroupHost
  /// v1: with the hierarchy that only containers join which are bound to CPUs.
  private let pinning: CgroupHost
  let launcher: Launcher
  let watcher: Watcher
  private let pool: StubPool
  private let containers = Mutex<[String: ContainerRecord]>([:])

  typealias OpenMonitor = @Sendable (Int32) throws(SystemError) -> PidDescriptor
  private let openMonitor: OpenMonitor

  /// Throws when orch-init cannot be read, the folders cannot be made or the host has no cgroups.
  public convenience init(configuration: RuntimeConfiguration) throws(RuntimeError) {
    try self.init(configuration: configuration) { pid throws(SystemError) in try PidDescriptor(pid: pid) }
  }

  /// - Parameter openMonitor: fails where there are no descriptors left.
  init(configuration: RuntimeConfiguration, openMonitor: @escaping OpenMonitor) throws(RuntimeError) {
    self.configuration = configuration
    self.openMonitor = openMonitor
    do {
      try Files.makeDirectories(configuration.stateDirectory + "/containers")
      try Files.makeDirectories(configuration.dataDirectory + "/containers", mode: 0o711)
      cgroups = try CgroupHost.detect()
      pinning = try CgroupHost.detect(more: ["cpuset"])
      launcher = try Launcher(initPath: configuration.initPath)
      watcher = try Watcher()
      pool = StubPool(configuration, launcher, cgroups, watcher)
    } catch {
      throw RuntimeError("set up the runtime", error)
    }
  }

  deinit { pool.close() }
  /// Holds no stubs any more; containers go on. Blocks for the milliseconds that their end takes.
  public func close() { pool.close() }

  /// - Parameter parent: nil: where new ones are.
  private func cgroup(_ name: String, isPinned: Bool, below parent: String? = nil) -> Cgroup {
    (isPinned ? pinning : cgroups).group(parent: parent ?? configuration.cgroupParent, name: name)
  }

  func record(_ id: String) throws(RuntimeError) -> ContainerRecord {
    guard let record = containers.withLock({ $0[id] }) else { throw RuntimeError(.noSuchContainer, "find container", id, "no such container") }
    return record
  }

  // MARK: - Start

  /// Makes and starts a container; returns when its program has been executed. On failure nothing is left of it.
  public func start(_ config: ContainerConfig) async throws(RuntimeError) -> RunningContainer {
    try Plan.validate(config)
    var stored = try Plan.stored(config)
    stored.parent = configuration.cgroupParent
    let paths = ContainerPaths(configuration, config.id)
    let record = ContainerRecord(
      id: config.id, paths: paths, stored: stored, cgroup: cgroup(config.id, isPinned: stored.isPinned))
    let taken = containers.withLock { containers in
      if containers[config.id] != nil { return true }
      containers[config.id] = record
      return false
    }
    if taken { throw RuntimeError(.alreadyExists, "make container", config.id, "a container with this id exists; delete it first") }
    do {
      return try await blocking { () throws(RuntimeError) in try self.startBlocking(config, record) }
    } catch {
      _ = containers.withLock { $0.removeValue(forKey: config.id) }
      throw error
    }
  }

  private func startBlocking(_ config: ContainerConfig, _ record: ContainerRecord) throws(RuntimeError) -> RunningContainer {
    let paths = record.paths
    if Files.exists(paths.state) {
      throw RuntimeError(.alreadyExists, "make container", config.id, "a container with this id exists; delete it first")
    }
    let held = StubPolicy.Kind(config).flatMap(pool.take)
    defer { if StubPolicy.Kind(config) != nil { pool.started() } }
    if let held { record.move(to: held.cgroup, named: held.cgroup.name) }
    let plan: PlanWriter
    do throws(RuntimeError) {
      plan = try makeFolders(config, record, isThere: held != nil)
    } catch {
      if let held { pool.discard(held) }
      try? cleanUp(record)
      throw error
    }
    let launched: Launcher.Launched
    do {
      launched = try launch(config, plan, record, held)
    } catch {
      try? cleanUp(record)
      throw error as? RuntimeError ?? Self.startError("start container \(config.id)", plan, config.args[0], error)
    }
    let running = RunningContainer(id: config.id, pid: launched.pid, startTime: launched.startTime, warnings: launched.warnings)
    do throws(SystemError) {
      let monitor = try openMonitor(launched.monitor)
      // Gone already when it was very short; the exit record has the rest.
      if let process = ProcessIdentity(pid: launched.pid, startTime: launched.startTime).open() { record.didStart(running, process: process) }
      watch(record, monitor: monitor)
    } catch {
      // Nobody would know of it: it must not run on. Its monitor leaves its last words before the folders go.
      record.cgroup.killAll()
      ChildProcess.reap(launched.monitor)
      try? cleanUp(record)
      throw RuntimeError("watch container \(config.id)", error)
    }
    return running
  }

  /// The folders, the limits, and what is to be done with them. `isThere`: the cgroup is.
  private func makeFolders(_ config: ContainerConfig, _ record: ContainerRecord, isThere: Bool) throws(RuntimeError) -> PlanWriter {
    let paths = record.paths
    var limits = CgroupLimits(config.resources)
    limits.pids = config.resources.pids ?? configuration.defaultPids
    limits.oomGroup = true
    do throws(SystemError) {
      try Files.makeDirectories(paths.state)
      // The overlay's folders are entered by the container's users.
      try Files.makeDirectories(paths.data, mode: 0o711)
      for folder in [paths.root, paths.upper, paths.work] { try Files.makeDirectories(folder, mode: 0o755) }
      try Files.makeDirectories(paths.logFolder)
      try Files.writeAtomically(paths.state + "/config", record.stored.text, durable: false)
      if isThere { try record.cgroup.limit(limits) } else { try record.cgroup.create(limits) }
    } catch {
      throw RuntimeError("make container \(config.id)", error)
    }
    return try Plan.make(config, stored: record.stored, paths: paths, cgroup: record.cgroup)
  }

  private func launch(
    _ config: ContainerConfig, _ plan: PlanWriter, _ record: ContainerRecord, _ held: StubPool.Held?
  ) throws -> Launcher.Launched {
    let state = record.paths.state
    func spawned(_ monitor: Int32) {
      guard let identity = ProcessIdentity.of(monitor) else { return }
      try? Files.writeAtomically(state + "/monitor", "\(identity.pid) \(identity.startTime)\n", durable: false)
    }
    var plan = plan
    if let held {
      spawned(held.stub.monitor)
      if let launched = try launcher.launch(plan, in: held.stub, name: config.id) { return launched }
      // It was killed while it waited: as if there had been none.
      held.cgroup.killAll()
      try? held.cgroup.remove()
      record.move(to: cgroup(config.id, isPinned: record.stored.isPinned), named: nil)
      plan = try makeFolders(config, record, isThere: false)
    }
    let listener = config.openStdin ? try SharedDescriptor(owning: checkResult(clinux_attach_listen(state), "listen in", state)) : nil
    defer { withExtendedLifetime(listener) {} }
    return try launcher.launch(plan, name: config.id, fifth: listener?.rawValue, spawned: spawned)
  }

  private func watch(_ record: ContainerRecord, monitor: PidDescriptor) {
    watcher.whenEnded(monitor) {
      _ = monitor.reap()
      record.didEnd(record.readExit() ?? record.endWithoutMonitor())
    }
  }

  static func startError(_ operation: String, _ plan: PlanWriter, _ command: String, _ error: any Error) -> RuntimeError {
    guard let failure = error as? Launcher.Failure else {
      if let system = error as? SystemError { return RuntimeError(operation, system) }
      return RuntimeError(.system, operation, "", "\(error)")
    }
    let errno = failure.errno
    guard let index = failure.index, plan.names.indices.contains(index) else {
      return RuntimeError(.system, operation, "", "\(failure.step): \(errno)")
    }
    if index == plan.names.count - 1 {
      if failure.step.hasPrefix("not found") {
        let found = errno == .access
        return RuntimeError(
          .command(exitCode: found ? 126 : 127), "\(operation): exec", "\"\(command)\"",
          found ? errno.description : "executable file not found in $PATH")
      }
      let cause = failure.step.isEmpty ? errno.description : "\(failure.step): \(errno)"
      return RuntimeError(.command(exitCode: errno == .noEntry || errno == .notDirectory ? 127 : 126), "\(operation): exec", "\"\(command)\"", cause)
    }
    return RuntimeError(.system, operation, plan.names[index], failure.step.isEmpty ? errno.description : "\(failure.step): \(errno)")
  }

  // MARK: - Recover

  /// Every container found in the state directory, running or ended; to be called once after the agent's start. From then on stubs are held.
  public func recover() async -> [RecoveredContainer] {
    await blockingAlways { self.recoverBlocking() }
  }

  /// As its files say.
  private func kept(_ id: String) -> ContainerRecord {
    let paths = ContainerPaths(configuration, id)
    let config = try? Files.text(paths.state + "/config")
    let stored = StoredContainer(text: config ?? "")
    let (name, isPinned) = (stored.cgroup ?? id, stored.isPinned || config == nil)
    var group = cgroup(name, isPinned: isPinned, below: stored.parent)
    // An agent from before this was written down had another default, which an upgrade of its unit changes.
    if stored.parent == nil, !group.exists {
      let first = cgroup(name, isPinned: isPinned, below: RuntimeConfiguration.firstParent)
      if first.exists { group = first }
    }
    return ContainerRecord(id: id, paths: paths, stored: stored, cgroup: group, isFound: true)
  }

  /// Ids of which something is here and that this runtime does not know: what a crash left, or another program's. `delete` removes it. Of no use
  /// before `recover`. Whoever has the same `cgroupParent` is taken for this agent's past.
  public func leftovers() async -> [String] {
    await blockingAlways { [self] in
      let folders = [configuration.stateDirectory, configuration.dataDirectory].flatMap { (try? Files.list($0 + "/containers")) ?? [] }
      let groups = pinning.names(below: configuration.cgroupParent).filter { !StubPool.isStub($0) }
      let known = containers.withLock { containers in Set(containers.keys).union(containers.values.map(\.cgroup.name)) }
      return Set(folders + groups).subtracting(known).sorted()
    }
  }

  /// Processes that are the orch-init of stubs, which wait for a container; for measurements.
  public var stubs: [Int32] { pool.monitors }

  private func recoverBlocking() -> [RecoveredContainer] {
    var found: [RecoveredContainer] = []
    defer { pool.open(used: Set(containers.withLock { $0.values.map(\.cgroup.name) })) }
    for id in (try? Files.list(configuration.stateDirectory + "/containers")) ?? [] {
      if containers.withLock({ $0[id] }) != nil { continue }
      let record = kept(id)
      let paths = record.paths
      func numbers(_ name: String) -> [UInt64] {
        ((try? Files.text(paths.state + "/" + name)) ?? "").split(whereSeparator: \.isWhitespace).compactMap { UInt64($0) }
      }
      let pid = numbers("pid")
      var state = RecoveredContainer.State.incomplete
      if let exit = record.readExit() {
        record.didEnd(exit)
        state = .exited(exit)
      } else if pid.count == 4 {
        let running = RunningContainer(id: id, pid: Int32(truncatingIfNeeded: pid[0]), startTime: pid[1], warnings: [])
        if let process = ProcessIdentity(pid: running.pid, startTime: running.startTime).open() { record.didStart(running, process: process) }
        if let monitor = ProcessIdentity(pid: Int32(truncatingIfNeeded: pid[2]), startTime: pid[3]).open() {
          watch(record, monitor: monitor)
          state = .running(running)
        } else {
          // It may have ended between the two looks.
          let exit = record.readExit() ?? record.endWithoutMonitor()
          record.didEnd(exit)
          state = .exited(exit)
        }
      } else {
        let monitor = numbers("monitor")
        if monitor.count == 2, let process = ProcessIdentity(pid: Int32(truncatingIfNeeded: monitor[0]), startTime: monitor[1]).open() {
          try? process.send(SIGKILL)
        }
        record.didEnd(record.endWithoutMonitor())
      }
      containers.withLock { $0[id] = record }
      found.append(RecoveredContainer(id: id, labels: record.stored.labels, state: state))
    }
    return found
  }

  // MARK: - Watch and end

  /// Waits for the end; returns at once when it has ended.
  public func wait(_ id: String) async throws(RuntimeError) -> ContainerExit { await (try record(id)).wait() }

  /// The same of "TERM", "SIGTERM", "RTMIN+1" or "15".
  public func signal(_ id: String, named name: String) async throws(RuntimeError) {
    guard let number = SignalName.number(name) else { throw RuntimeError(.invalid, "signal container", id, "'\(name)' is no signal") }
    try await signal(id, number)
  }

  /// Sends a signal to the container's first process.
  public func signal(_ id: String, _ signal: Int32) async throws(RuntimeError) {
    let record = try record(id)
    guard record.exit == nil, let process = record.process else { throw RuntimeError(.notRunning, "signal container", id, "it is not running") }
    do throws(SystemError) { try process.send(signal) } catch {
      if error.errno == .noProcess { throw RuntimeError(.notRunning, "signal container", id, "it is not running") }
      throw RuntimeError("signal container \(id)", error)
    }
  }

  /// Sends `signal` (nil: the container's stop signal), waits up to `grace`, then kills everything in it.
  public func stop(_ id: String, signal: Int32? = nil, grace: Duration) async throws(RuntimeError) -> ContainerExit {
    let record = try record(id)
    if let exit = record.exit { return exit }
    try? record.process?.send(signal ?? record.stored.stopSignal)
    if let exit = await record.wait(timeout: grace) { return exit }
    await blockingAlways { Self.kill(record) }
    return await record.wait()
  }

  private static func kill(_ record: ContainerRecord) {
    // The end of its first process ends the whole pid namespace; the cgroup has whatever else there may be.
    try? record.process?.send(SIGKILL)
    record.cgroup.killAll()
  }

  /// Removes what is left: processes, cgroups, files. Idempotent; finishes what a crash left half done.
  public func delete(_ id: String) async throws(RuntimeError) {
    let known = containers.withLock { $0[id] }
    if known == nil {
      // An id that was never valid must not become a path.
      try Plan.validate(ContainerConfig(id: id, layers: ["/"], args: ["x"]))
    }
    let record = known ?? kept(id)
    if known != nil, record.exit == nil {
      await blockingAlways { Self.kill(record) }
      _ = await record.wait()
    }
    try await blocking { () throws(RuntimeError) in
      do throws(SystemError) { try self.cleanUp(record) } catch { throw RuntimeError("delete container \(id)", error) }
    }
    _ = containers.withLock { $0.removeValue(forKey: id) }
  }

  private func cleanUp(_ record: ContainerRecord) throws(SystemError) {
    record.cgroup.killAll()
    try record.cgroup.remove()
    // A container's mounts are in its own namespace; what nevertheless lies here must not be emptied with the folders.
    // A link there is nothing of ours: it goes, and what it leads to stays.
    for folder in [record.paths.data, record.paths.state] where record.isFound && (try? Files.link(folder)) == nil {
      try MountPoints.detach(below: folder)
    }
    try Files.removeTree(record.paths.data)
    // Last: as long as it is there, `recover` finds the container and `delete` can be repeated.
    try Files.removeTree(record.paths.state)
  }

  /// Where everything is that the container changed, in overlayfs' form; empty for one that was given a root folder.
  public func upperFolder(_ id: String) throws(RuntimeError) -> String { try record(id).paths.upper }

  /// Changes limits of a running container in place; what is nil stays, what is negative is unlimited. CPUs cannot be bound where the container was
  /// made without (v1). On v1 a limit of memory below what is in use is refused (EBUSY); on v2 it may end the container.
  public func update(_ id: String, _ resources: ContainerConfig.Resources) async throws(RuntimeError) {
    let record = try record(id)
    guard record.running != nil else { throw RuntimeError(.notRunning, "update container", id, "it is not running") }
    try await blocking { () throws(RuntimeError) in
      do throws(SystemError) { try record.cgroup.limit(CgroupLimits(resources)) } catch { throw RuntimeError("update container \(id)", error) }
    }
  }

  public func stats(_ id: String) async throws(RuntimeError) -> ContainerStats {
    let record = try record(id)
    return try await blocking { () throws(RuntimeError) in
      do throws(SystemError) { return try record.stats() } catch { throw RuntimeError("read usage of container \(id)", error) }
    }
  }

  /// Of those that run; whoever has ended or is not known is left out.
  public func stats(of ids: [String]) async -> [String: ContainerStats] {
    let records = containers.withLock { containers in ids.compactMap { containers[$0] } }
    return await blockingAlways {
      records.reduce(into: [:]) { found, record in
        if record.running != nil, let stats = try? record.stats() { found[record.id] = stats }
      }
    }
  }
}

extension CgroupLimits {
  fileprivate init(_ resources: ContainerConfig.Resources) {
    self.init(memory: resources.memory, nanoCPUs: resources.nanoCPUs, cpuShares: resources.cpuShares, pids: resources.pids)
    (swap, memoryReservation, cpuset) = (resources.swap, resources.memoryReservation, resources.cpuset)
  }
}

extension ContainerRecord {
  fileprivate func stats() throws(SystemError) -> ContainerStats {
    ContainerStats(usage: try cgroup.usage(), interfaces: running.map { InterfaceCounters.own(of: $0.pid) } ?? [])
  }
}

/// Runs blocking work on a thread of its own.
func blocking<Result: Sendable>(_ body: @escaping @Sendable () throws(RuntimeError) -> Result) async throws(RuntimeError) -> Result {
  let outcome: Swift.Result<Result, RuntimeError> = await withCheckedContinuation { continuation in
    startThread("orch-runtime") {
      do throws(RuntimeError) { continuation.resume(returning: .success(try body())) } catch { continuation.resume(returning: .failure(error)) }
    }
  }
  return try outcome.get()
}

func blockingAlways<Result: Sendable>(_ body: @escaping @Sendable () -> Result) async -> Result {
  await withCheckedContinuation { continuation in startThread("orch-runtime") { continuation.resume(returning: body()) } }
}
