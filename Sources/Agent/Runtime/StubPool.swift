import CLinux
import Cgroups
import Glibc
import Launch
import LinuxSystem
import Logging
import Synchronization

/// Stubs that wait for their container (docs/pooling.md). Making, and taking away, is done on threads beside the starts; what is decided is
/// `StubPolicy`'s.
final class StubPool: Sendable {
  /// One that nobody else has.
  struct Held: Sendable {
    let stub: Stub
    let cgroup: Cgroup
    let monitor: PidDescriptor
    fileprivate let watch: Watcher.Token
  }
  private struct State {
    var policy: StubPolicy
    var held: [StubPolicy.ID: Held] = [:]
    var next: StubPolicy.ID = 0
    var isClosed = false
  }
  private let state: Mutex<State>
  private let launcher: Launcher
  private let cgroups: CgroupHost
  private let watcher: Watcher
  private let parent: String
  private let parentsFile: String
  /// Of the cgroups' names: those of another agent below the same parent are not ours.
  private let prefix: String
  static func isStub(_ name: String) -> Bool { name.hasPrefix("stub-") }
  static func prefix(of stateDirectory: String) -> String {
    // The next agent's must be the same.
    "stub-\(String(FNV1a.hash(stateDirectory.utf8), radix: 36))-"
  }

  init(_ configuration: RuntimeConfiguration, _ launcher: Launcher, _ cgroups: CgroupHost, _ watcher: Watcher) {
    (self.launcher, self.cgroups, self.watcher, parent) = (launcher, cgroups, watcher, configuration.cgroupParent)
    prefix = Self.prefix(of: configuration.stateDirectory)
    parentsFile = configuration.stateDirectory + "/cgroup-parents"
    state = Mutex(State(policy: StubPolicy(limit: max(0, configuration.stubs))))
  }

  /// Takes away what a killed agent's stubs left (they ended with it) and begins to hold some. `used`: cgroups that are containers'.
  func open(used: Set<String>) {
    for parent in parents() {
      for name in cgroups.names(below: parent) where name.hasPrefix(prefix) && !used.contains(name) {
        remove(cgroups.group(parent: parent, name: name))
      }
    }
    if state.withLock({ $0.policy.limit }) > 0 { watchPressure() }
    act(.opened)
  }

  /// Where ours may be: this agent's parent, and those that it had before as long as they are there. Kept in a file, which goes with a reboot as groups do.
  private func parents() -> [String] {
    let former = ((try? Files.text(parentsFile)) ?? "").split(separator: "\n").map(String.init)
    let now = [parent] + former.filter { $0 != parent && !$0.isEmpty && cgroups.group(parent: "", name: $0).exists }
    if now != former { try? Files.writeAtomically(parentsFile, now.map { $0 + "\n" }.joined(), durable: false) }
    return now
  }

  /// For a start, which says `started` when it is over. nil: it is to be made from nothing.
  func take(_ kind: StubPolicy.Kind) -> Held? {
    let held = state.withLock { state -> Held? in
      let outputs = state.policy.step(.starting(kind), now: Self.now)
      guard case .take(let id)? = outputs.first else { return nil }
      return state.held.removeValue(forKey: id)
    }
    // Its end is its container's from here on; who has ended already is no use.
    guard let held else { return nil }
    if watcher.forget(held.watch) { return held }
    remove(held.cgroup)
    return nil
  }
  func started() { act(.started) }

  /// Of one that was taken and does not become a container.
  func discard(_ held: Held) { discard(held.monitor, held.cgroup) }

  private func discard(_ monitor: PidDescriptor, _ cgroup: Cgroup) {
    try? monitor.send(SIGKILL)
    _ = monitor.reap()
    remove(cgroup)
  }

  /// No stub is there afterwards, and none is made any more.
  func close() {
    let held = state.withLock { state in
      state.isClosed = true
      defer { state.held = [:] }
      return state.held.values.filter { watcher.forget($0.watch) }
    }
    for one in held { discard(one) }
  }

  var monitors: [Int32] { state.withLock { $0.held.values.map(\.stub.monitor) } }

  private static var now: Duration { .nanoseconds(Int64(MonotonicClock.now)) }

  private func act(_ input: StubPolicy.Input) {
    let outputs = state.withLock { $0.isClosed ? [] : $0.policy.step(input, now: Self.now) }
    for output in outputs {
      switch output {
      case .take: preconditionFailure("taken without a start")
      case .make(let kind): startThread("orch-pool") { [weak self] in self?.make(kind) }
      case .discard(let id):
        guard let held = state.withLock({ $0.held.removeValue(forKey: id) }), watcher.forget(held.watch) else { continue }
        startThread("orch-pool") { self.discard(held) }
      case .wake(let instant):
        Task { [weak self] in
          try? await Task.sleep(for: max(.zero, instant - Self.now))
          self?.act(.timer)
        }
      }
    }
  }

  // MARK: - Making

  private func make(_ kind: StubPolicy.Kind) {
    let name = prefix + String(UInt64.random(in: 0 ... .max), radix: 36)
    let cgroup = cgroups.group(parent: parent, name: name)
    guard !Self.isMemoryShort else {
      act(.memoryShort)
      return act(.failed(kind))
    }
    do {
      try cgroup.create(CgroupLimits())
      let stub = try launcher.prepare(Plan.stub(kind, cgroup: cgroup), name: name)
      let monitor = try PidDescriptor(pid: stub.monitor)
      let id = state.withLock { state -> StubPolicy.ID? in
        if state.isClosed { return nil }
        state.next += 1
        let id = state.next
        let watch = watcher.whenEnded(monitor) { [weak self] in
          _ = monitor.reap()
          self?.died(id, cgroup)
        }
        state.held[id] = Held(stub: stub, cgroup: cgroup, monitor: monitor, watch: watch)
        return id
      }
      guard let id else { return discard(monitor, cgroup) }
      act(.made(kind, id))
    } catch {
      Logger(label: "runtime").warning("hold a container's processes ready: \(error); starts go on without")
      remove(cgroup)
      act(.failed(kind))
    }
  }

  private func died(_ id: StubPolicy.ID, _ cgroup: Cgroup) {
    _ = state.withLock { $0.held.removeValue(forKey: id) }
    act(.died(id))
    startThread("orch-pool") { self.remove(cgroup) }
  }

  private func remove(_ cgroup: Cgroup) {
    cgroup.killAll()
    try? cgroup.remove()
  }

  // MARK: - Memory

  /// Less than a sixteenth of it is available.
  private static var isMemoryShort: Bool {
    var values: [Substring: Int] = [:]
    for line in ((try? Files.text("/proc/meminfo")) ?? "").split(separator: "\n") {
      let words = line.split(whereSeparator: { $0 == " " || $0 == ":" })
      if words.count > 1 { values[words[0]] = Int(words[1]) }
    }
    guard let total = values["MemTotal"], let available = values["MemAvailable"] else { return false }
    return available < total / 16
  }

  /// The kernel tells when tasks waited for memory 200 ms of 2 s (psi.rst), be it only a container at its own limit; so it is the time to look.
  /// Without pressure files what is held stays.
  private func watchPressure() {
    guard let file = try? OwnedDescriptor.open("/proc/pressure/memory", O_RDWR | O_NONBLOCK) else { return }
    let trigger = "some 200000 2000000"
    guard trigger.utf8CString.withUnsafeBytes({ write(file.rawValue, $0.baseAddress!, $0.count) }) > 0 else { return }
    watcher.whenUrgent(SharedDescriptor(file)) { [weak self] in if Self.isMemoryShort { self?.act(.memoryShort) } }
  }
}
