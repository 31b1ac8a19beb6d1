import CLinux
import Cgroups
import Glibc
import LinuxSystem
import Model
import Surroundings
import Synchronization

/// One container as this process knows it: its first process, its monitor, and who waits for its end.
final class ContainerRecord: Sendable {
  let id: String
  let paths: ContainerPaths
  /// Of another agent before: what it was about when it ended nobody knows.
  let isFound: Bool
  /// A stub's cgroup replaces them before anything is made.
  var stored: StoredContainer { place.withLock { $0.stored } }
  var cgroup: Cgroup { place.withLock { $0.cgroup } }
  private let place: Mutex<(stored: StoredContainer, cgroup: Cgroup)>
  private struct State {
    var running: RunningContainer?
    var process: PidDescriptor?
    var exit: ContainerExit?
    var waiters: [Int: @Sendable (ContainerExit?) -> Void] = [:]
    var next = 0
  }
  private let state = Mutex(State())

  init(id: String, paths: ContainerPaths, stored: StoredContainer, cgroup: Cgroup, isFound: Bool = false) {
    (self.id, self.paths, self.isFound) = (id, paths, isFound)
    place = Mutex((stored, cgroup))
  }
  func move(to cgroup: Cgroup, named name: String?) {
    place.withLock {
      $0.cgroup = cgroup
      $0.stored.cgroup = name
    }
  }

  var exit: ContainerExit? { state.withLock { $0.exit } }
  var running: RunningContainer? { state.withLock { $0.exit == nil ? $0.running : nil } }
  var process: PidDescriptor? { state.withLock { $0.process } }

  func didStart(_ running: RunningContainer, process: PidDescriptor) {
    state.withLock {
      $0.running = running
      $0.process = process
    }
  }
  func didEnd(_ exit: ContainerExit) {
    let waiters = state.withLock { state in
      if state.exit == nil { state.exit = exit }
      defer { state.waiters = [:] }
      return state.waiters.values.map { $0 }
    }
    for waiter in waiters { waiter(exit) }
  }

  func wait() async -> ContainerExit {
    await withCheckedContinuation { continuation in
      _ = add { continuation.resume(returning: $0!) }
    }
  }

  /// nil when `timeout` passed first.
  func wait(timeout: Duration) async -> ContainerExit? {
    await withCheckedContinuation { continuation in
      let token = add { continuation.resume(returning: $0) }
      guard let token else { return }
      Task {
        try? await Task.sleep(for: timeout)
        self.state.withLock { $0.waiters.removeValue(forKey: token) }?(nil)
      }
    }
  }

  /// nil when it has already been called.
  private func add(_ waiter: @escaping @Sendable (ContainerExit?) -> Void) -> Int? {
    let (exit, token) = state.withLock { state -> (ContainerExit?, Int) in
      if let exit = state.exit { return (exit, 0) }
      state.next += 1
      state.waiters[state.next] = waiter
      return (nil, state.next)
    }
    if let exit {
      waiter(exit)
      return nil
    }
    return token
  }

  /// What the monitor left; nil when it left nothing.
  func readExit() -> ContainerExit? {
    guard let text = try? Files.text(paths.state + "/exit") else { return nil }
    let fields = text.split(whereSeparator: \.isWhitespace).map { Int64($0) ?? 0 }
    guard fields.count >= 4 else { return nil }
    let lost = text.contains("lost")
    return ContainerExit(
      code: Int32(truncatingIfNeeded: fields[0]), signal: fields[1] == 0 ? nil : Int32(truncatingIfNeeded: fields[1]), oomKilled: fields[2] > 0,
      finishedAt: Timestamp(nanoseconds: fields[3]), note: lost ? "its monitor was killed" : "")
  }

  /// Its monitor is gone without a word: nothing reads its output any more, so it ends too.
  func endWithoutMonitor() -> ContainerExit {
    if let process, !process.hasEnded {
      try? process.send(SIGKILL)
      process.ends(within: 5000)
    }
    cgroup.killAll()
    let text = "137 9 \(clinux_oom_kills(cgroup.oomFile)) \(Timestamp.now.nanoseconds) lost\n"
    try? Files.writeAtomically(paths.state + "/exit", text, durable: false)
    return readExit()
      ?? ContainerExit(code: 137, signal: 9, oomKilled: false, finishedAt: .zero, note: "its monitor was killed")
  }
}
