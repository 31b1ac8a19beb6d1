import CLinux
import Glibc
import Launch
import LinuxSystem
import Synchronization

/// A program that runs in a container beside its first process.
public final class ExecProcess: Sendable {
  /// As the host counts.
  public let pid: Int32
  /// Write end; nil without stdin, and after `closeStdin`. With a terminal all three are its one master.
  public var stdin: SharedDescriptor? { input.withLock { $0 } }
  public let stdout: SharedDescriptor
  /// nil with a terminal.
  public let stderr: SharedDescriptor?
  private let input: Mutex<SharedDescriptor?>
  private let process: PidDescriptor?
  private let tty: Bool
  private struct State {
    var code: Int32?
    var waiters: [CheckedContinuation<Int32, Never>] = []
  }
  private let state = Mutex(State())

  init(pid: Int32, process: PidDescriptor?, tty: Bool, stdin: SharedDescriptor?, stdout: SharedDescriptor, stderr: SharedDescriptor?) {
    (self.pid, self.process, self.tty, self.stdout, self.stderr) = (pid, process, tty, stdout, stderr)
    input = Mutex(stdin)
  }

  func didEnd(_ code: Int32) {
    let waiters = state.withLock { state in
      state.code = code
      defer { state.waiters = [] }
      return state.waiters
    }
    for waiter in waiters { waiter.resume(returning: code) }
  }

  /// Exit code as a shell has it. Read the outputs to their end for all that was written.
  public func wait() async -> Int32 {
    await withCheckedContinuation { continuation in
      let code = state.withLock { state -> Int32? in
        if let code = state.code { return code }
        state.waiters.append(continuation)
        return nil
      }
      if let code { continuation.resume(returning: code) }
    }
  }

  /// The program reads the end of its input once no one else holds `stdin`. Not with a terminal (send Ctrl-D).
  public func closeStdin() { if !tty { input.withLock { $0 = nil } } }

  public func resize(rows: UInt16, columns: UInt16) { if tty { _ = clinux_ioctl_winsize(stdout.rawValue, rows, columns) } }

  /// Nothing happens when it has ended.
  public func kill(_ signal: Int32) { try? process?.send(signal) }
}

extension ContainerRuntime {
  /// Runs one more program in the container: same namespaces, cgroup, capabilities, seccomp filter and no_new_privs.
  public func exec(_ id: String, _ config: ExecConfig) async throws(RuntimeError) -> ExecProcess {
    let record = try record(id)
    guard let command = config.args.first, !command.isEmpty else { throw RuntimeError(.invalid, "exec in container", id, "no command given") }
    let texts = config.args + config.env + [config.cwd ?? "", config.user ?? ""]
    if let bad = texts.first(where: { $0.utf8.contains(0) }) { throw RuntimeError(.invalid, "exec in container", id, "a NUL byte in \(bad)") }
    guard record.exit == nil, let process = record.process, !process.hasEnded else {
      throw RuntimeError(.notRunning, "exec in container", id, "it is not running")
    }
    let plan = try Plan.makeExec(config, stored: record.stored, cgroup: record.cgroup)
    return try await blocking { () throws(RuntimeError) in
      do { return try self.execBlocking(record, config, plan, process) } catch {
        throw Self.startError("exec in container \(id)", plan, command, error)
      }
    }
  }

  private func execBlocking(_ record: ContainerRecord, _ config: ExecConfig, _ plan: PlanWriter, _ process: PidDescriptor) throws -> ExecProcess {
    let launched: Launcher.Launched
    let stdin: SharedDescriptor?
    let stdout: SharedDescriptor
    let stderr: SharedDescriptor?
    if config.tty {
      launched = try launcher.launch(plan, name: record.id, fifth: process.rawValue)
      guard let terminal = launched.terminal else { throw SystemError("receive the terminal of", record.id, Errno(EIO)) }
      stdout = SharedDescriptor(owning: terminal)
      (stdin, stderr) = (stdout, nil)
    } else if config.isDetached {
      let nowhere = SharedDescriptor(try .open("/dev/null", O_RDWR))
      launched = try launcher.launch(plan, name: record.id, stdio: (nil, nowhere.rawValue, nowhere.rawValue), fifth: process.rawValue)
      (stdin, stdout, stderr) = (nil, nowhere, nil)
    } else {
      let input = config.stdin ? try Pipe() : nil
      let (output, errors) = (try Pipe(), try Pipe())
      launched = try launcher.launch(
        plan, name: record.id, stdio: (input?.read.rawValue, output.write.rawValue, errors.write.rawValue), fifth: process.rawValue)
      (stdin, stdout, stderr) = (input?.write, output.read, errors.read)
    }
    let helper = try PidDescriptor(pid: launched.monitor)
    // Still its monitor's child when looked at after opening: so the descriptor is of the right process. (The monitor cannot tell
    // the start time: it sees the container's /proc.)
    var inside = try? PidDescriptor(pid: launched.pid)
    if ProcessIdentity.parent(of: launched.pid) != launched.monitor { inside = nil }
    let exec = ExecProcess(pid: launched.pid, process: inside, tty: config.tty, stdin: stdin, stdout: stdout, stderr: stderr)
    watcher.whenEnded(helper) {
      let status = helper.reap() ?? 255 << 8
      exec.didEnd(status & 0x7f == 0 ? status >> 8 & 0xff : 128 + (status & 0x7f))
    }
    return exec
  }

  private struct Pipe {
    let read: SharedDescriptor
    let write: SharedDescriptor
    init() throws(SystemError) {
      let ends = try OwnedDescriptor.pipe()
      (read, write) = (SharedDescriptor(owning: ends.read), SharedDescriptor(owning: ends.write))
    }
  }
}
