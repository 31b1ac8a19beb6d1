// Runtime: containers as a library. It makes, finds again, watches, enters and removes them on this host.
// Invariants: a container belongs to its monitor (orch-init), never to this process: killing the agent ends no container;
// all state is in files and the kernel, so `recover` starts from nothing; no blocking call runs on the cooperative pool.
// It refuses to know tasks, images, networks, volumes: it gets folders and a namespace path.
import LinuxSystem
import Model

/// All containers of one agent.
public final class ContainerRuntime: Sendable {
  public init(configuration: RuntimeConfiguration) throws(RuntimeError) { fatalError("in work") }

  /// Makes and starts a container; returns when its program has been executed.
  public func start(_ config: ContainerConfig) async throws(RuntimeError) -> RunningContainer { fatalError("in work") }

  /// Every container found in the state directory, running or ended; to be called once after the agent's start.
  public func recover() async -> [RecoveredContainer] { fatalError("in work") }

  /// Waits for the end; returns at once when it has ended.
  public func wait(_ id: String) async throws(RuntimeError) -> ContainerExit { fatalError("in work") }

  /// Sends a signal to the container's first process.
  public func signal(_ id: String, _ signal: Int32) async throws(RuntimeError) { fatalError("in work") }

  /// Sends `signal` (nil: the container's stop signal), waits up to `grace`, then kills everything in it.
  public func stop(_ id: String, signal: Int32? = nil, grace: Duration) async throws(RuntimeError) -> ContainerExit { fatalError("in work") }

  /// Removes what is left: processes, cgroups, mounts, files. Idempotent; finishes what a crash left half done.
  public func delete(_ id: String) async throws(RuntimeError) { fatalError("in work") }

  /// Runs one more program in the container.
  public func exec(_ id: String, _ config: ExecConfig) async throws(RuntimeError) -> ExecProcess { fatalError("in work") }

  /// Lines of the log, oldest first. With `follow` it ends when the container has ended and all is read.
  public func logs(_ id: String, _ options: LogOptions = LogOptions()) -> AsyncThrowingStream<LogLine, any Error> { fatalError("in work") }

  public func stats(_ id: String) async throws(RuntimeError) -> ContainerStats { fatalError("in work") }
}

/// A program that runs in a container beside its first process.
public final class ExecProcess: Sendable {
  /// As the host counts.
  public let pid: Int32
  /// Write end; nil without stdin. With a terminal all three are its one master.
  public let stdin: SharedDescriptor?
  public let stdout: SharedDescriptor
  /// nil with a terminal.
  public let stderr: SharedDescriptor?

  init(pid: Int32, stdin: SharedDescriptor?, stdout: SharedDescriptor, stderr: SharedDescriptor?) {
    (self.pid, self.stdin, self.stdout, self.stderr) = (pid, stdin, stdout, stderr)
  }

  /// Exit code as a shell has it.
  public func wait() async -> Int32 { fatalError("in work") }
  public func resize(rows: UInt16, columns: UInt16) { fatalError("in work") }
  public func kill(_ signal: Int32) { fatalError("in work") }
}
