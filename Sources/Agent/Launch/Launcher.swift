// Launch: the path from a plan to a running process, by orch-init; the agent's containers and OCI bundles both go it.
// Invariants: what becomes a container never runs this program's own code; a failure names the operation of the plan.
// It refuses to know what a container is: plans are written by others.
import CLinux
import Glibc
import LinuxSystem
import Synchronization

/// Starts orch-init out of a sealed copy in memory, so that nothing inside a container can ever write to the program that runs
/// the next one (CVE-2019-5736). posix_spawn only: this process is threaded and never forks itself.
package final class Launcher: Sendable {
  private let image: SharedDescriptor
  private let null: SharedDescriptor

  package init(initPath: String) throws(SystemError) {
    let program = try OwnedDescriptor.open(initPath, O_RDONLY)
    image = SharedDescriptor(owning: try checkResult(clinux_memfd_copy("orch-init", program.rawValue), "copy into memory", initPath))
    null = SharedDescriptor(try OwnedDescriptor.open("/dev/null", O_RDWR))
  }

  package struct Launched {
    /// orch-init itself.
    package var monitor: Int32
    /// The process inside, as the host counts.
    package var pid: Int32
    package var startTime: UInt64
    package var warnings: [String]
    package var terminal: Int32?
  }
  /// Which operation failed: nil for those before the first.
  package struct Failure: Error {
    package var index: Int?
    package var step: String
    package var errno: Errno
    package init(index: Int?, step: String, errno: Errno) { (self.index, self.step, self.errno) = (index, step, errno) }
  }

  /// Blocks until the program inside has been executed, or waits for its start. stdio: descriptors for the child, nil for /dev/null.
  /// `fifth`: descriptor 5, the process to join or the socket of the start; `kept`: those that PRESERVE hands on, nil for a place without one. `hooks` is called with the
  /// child's pid when the plan says HOOKS, and returns the file that the child's hooks read.
  package func launch(
    _ plan: PlanWriter, name: String, stdio: (Int32?, Int32?, Int32?) = (nil, nil, nil), fifth: Int32? = nil, kept: [Int32?] = [],
    spawned: (Int32) -> Void = { _ in }, hooks: (Int32) throws -> SharedDescriptor? = { _ in nil }
  ) throws -> Launched {
    let (monitor, report) = try begin(plan, name: name, stdio: stdio, fifth: fifth, kept: kept)
    spawned(monitor)
    guard let launched = try follow(plan, monitor, report.rawValue, hooks: hooks).launched else { throw Self.silence(monitor) }
    return launched
  }

  /// orch-init with its plan, and our end of its reports.
  func begin(
    _ plan: PlanWriter, name: String, stdio: (Int32?, Int32?, Int32?), fifth: Int32?, kept: [Int32?]
  ) throws(SystemError) -> (monitor: Int32, report: SharedDescriptor) {
    let planFile = try plan.file(for: name)
    var ends: [Int32] = [-1, -1]
    try checkResult(clinux_socketpair(&ends), "make a socket pair")
    let ours = SharedDescriptor(owning: ends[0])
    let theirs = OwnedDescriptor(owning: ends[1])
    let pid = try spawn(name, plan: planFile.rawValue, report: theirs.rawValue, stdio: stdio, fifth: fifth, kept: kept)
    _ = consume theirs
    return (pid, ours)
  }

  struct Followed {
    /// nil: orch-init ended without a word, or `isReady`.
    var launched: Launched?
    var isReady = false
    /// It has taken the plan that a stub is given.
    var isTaken = false
  }

  /// Reads reports until the program runs, failed (that is thrown) or, of a stub, is ready for its plan.
  func follow(
    _ plan: PlanWriter, _ pid: Int32, _ ours: Int32, hooks: (Int32) throws -> SharedDescriptor? = { _ in nil }
  ) throws -> Followed {
    var followed = Followed()
    var failure: Failure?
    var warnings: [String] = []
    var terminal: Int32 = -1
    var hookError: (any Error)?
    while followed.launched == nil, failure == nil, !followed.isReady {
      var record = clinux_report()
      let size = MemoryLayout<clinux_report>.size
      var got = 0
      while got < size {
        var fd: Int32 = -1
        let count = withUnsafeMutableBytes(of: &record) { clinux_receive_fd(ours, $0.baseAddress! + got, size - got, &fd) }
        if fd >= 0 { terminal = fd }
        if count <= 0 { break }
        got += count
      }
      if got < size { break }
      let text = withUnsafeBytes(of: record.text) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      let index = record.index == .max ? nil : Int(record.index)
      switch Int(record.kind) {
      case CLINUX_REPORT_FAILED:
        failure = Failure(index: index, step: text, errno: Errno(record.error))
        // It is ending; ours where it was detached from orch-init, which reaps its own.
        if record.pid > 0 { ChildProcess.reap(record.pid) }
      case CLINUX_REPORT_WARNING:
        let what = index.flatMap { plan.names.indices.contains($0) ? plan.names[$0] : nil } ?? ""
        warnings.append("\(what): \(text)")
      case CLINUX_REPORT_STARTED:
        followed.launched = Launched(
          monitor: pid, pid: record.pid, startTime: record.start, warnings: warnings, terminal: terminal >= 0 ? terminal : nil)
      case CLINUX_REPORT_READY: followed.isReady = true
      case CLINUX_REPORT_TAKEN: followed.isTaken = true
      case CLINUX_REPORT_HOOKS:
        do {
          let state = try hooks(record.pid)
          _ = clinux_send_fd(ours, "s", 1, state?.rawValue ?? -1)
        } catch {
          // Without an answer nothing of it goes on; it is the one that waits for this.
          kill(record.pid, SIGKILL)
          hookError = error
          shutdown(ours, Int32(SHUT_WR))
        }
      default: break
      }
    }
    if let hookError {
      if let launched = followed.launched { kill(launched.pid, SIGKILL) }
      ChildProcess.reap(pid)
      throw hookError
    }
    if let failure {
      if terminal >= 0 { close(terminal) }
      ChildProcess.reap(pid)
      throw failure
    }
    if followed.launched == nil, terminal >= 0 { close(terminal) }
    return followed
  }

  /// Of one that said nothing; reaps it.
  static func silence(_ monitor: Int32) -> Failure {
    Failure(index: nil, step: "orch-init ended without a report (status \(ChildProcess.reap(monitor)))", errno: Errno(EIO))
  }

  private func spawn(
    _ name: String, plan: Int32, report: Int32, stdio: (Int32?, Int32?, Int32?), fifth: Int32?, kept: [Int32?]
  ) throws(SystemError) -> Int32 {
    // Sources are moved above all targets, so that no dup2 overwrites one that is still needed.
    var sources: [Int32?] = []
    defer { for case let source? in sources { close(source) } }
    let wanted: [Int32?] =
      [
        stdio.0 ?? null.rawValue, stdio.1 ?? null.rawValue, stdio.2 ?? null.rawValue, plan, report, fifth ?? null.rawValue, image.rawValue,
      ] + kept
    for descriptor in wanted {
      guard let descriptor else {
        sources.append(nil)
        continue
      }
      sources.append(try check(fcntl(descriptor, F_DUPFD_CLOEXEC, 16 + Int32(kept.count)), "duplicate a descriptor for", name))
    }

    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    for (target, source) in sources.enumerated() {
      if let source { posix_spawn_file_actions_adddup2(&actions, source, Int32(target)) }
    }
    _ = clinux_spawn_closefrom(&actions, Int32(sources.count))

    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var none = sigset_t()
    var all = sigset_t()
    sigemptyset(&none)
    sigfillset(&all)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setsigdefault(&attributes, &all)
    // A session of its own: no signal for the agent's group or terminal reaches it. 0x80 is POSIX_SPAWN_SETSID.
    posix_spawnattr_setflags(&attributes, Int16(0x80 | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))

    var arguments: [UnsafeMutablePointer<CChar>?] = [strdup("orch-init"), strdup(name), nil]
    defer { for argument in arguments { free(argument) } }
    var environment: [UnsafeMutablePointer<CChar>?] = [nil]
    var pid: pid_t = 0
    let result = posix_spawn(&pid, "/proc/self/fd/6", &actions, &attributes, &arguments, &environment)
    if result != 0 { throw SystemError("start orch-init for", name, Errno(result)) }
    return pid
  }
}
