import CLinux
import Glibc
import Synchronization

/// Starts a detached thread of its own for blocking work; the cooperative pool is never blocked.
public func startThread(_ name: String, _ body: @escaping @Sendable () -> Void) {
  final class Box {
    let body: @Sendable () -> Void
    let name: String
    init(_ body: @escaping @Sendable () -> Void, _ name: String) { (self.body, self.name) = (body, name) }
  }
  var thread = pthread_t()
  var attributes = pthread_attr_t()
  pthread_attr_init(&attributes)
  pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
  pthread_attr_setstacksize(&attributes, 512 << 10)
  defer { pthread_attr_destroy(&attributes) }
  let result = pthread_create(
    &thread, &attributes,
    { argument in
      let box = Unmanaged<Box>.fromOpaque(argument!).takeRetainedValue()
      // PR_SET_NAME; the kernel keeps 15 bytes.
      _ = box.name.withCString { clinux_prctl(15, UInt(bitPattern: $0), 0, 0, 0) }
      box.body()
      return nil
    }, Unmanaged.passRetained(Box(body, name)).toOpaque())
  precondition(result == 0, "pthread_create: \(Errno(result))")
}

/// Runs `body` on a thread that exists for it alone. For calls that block.
public func onOwnThread<Result: Sendable>(_ name: String = "orch-blocking", _ body: @escaping @Sendable () throws -> Result) async throws -> Result {
  try await withCheckedThrowingContinuation { continuation in
    startThread(name) { continuation.resume(with: Swift.Result(catching: body)) }
  }
}

/// A thread that lives in one network namespace (setns(2) concerns a thread alone) and runs work there, one piece after another.
/// Sockets opened there belong to that namespace wherever they are used later. Ends when it is released.
public final class NamespaceThread: Sendable {
  private let queue: WorkQueue

  /// `path`: a bind-mounted namespace file, or /proc/PID/ns/net. Throws when it is not a network namespace.
  public init(networkNamespace path: String) throws(SystemError) {
    let descriptor = SharedDescriptor(try OwnedDescriptor.open(path, O_RDONLY))
    let queue = WorkQueue()
    startThread("orch-netns") { queue.loop() }
    self.queue = queue
    let result = queue.runAndWait { clinux_setns(descriptor.rawValue, Int32(CLINUX_CLONE_NEWNET)) }
    if result < 0 {
      queue.finish()
      throw SystemError("join network namespace", path, Errno(-result))
    }
  }
  deinit { queue.finish() }

  /// Blocks the calling thread until `body` has run in the namespace.
  public func runBlocking<Result: Sendable, Failure: Error>(_ body: @escaping @Sendable () throws(Failure) -> Result) throws(Failure) -> Result {
    let outcome: Swift.Result<Result, Failure> = queue.runAndWait {
      do throws(Failure) { return .success(try body()) } catch { return .failure(error) }
    }
    return try outcome.get()
  }

  public func run<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result {
    try await withCheckedThrowingContinuation { continuation in
      queue.add { continuation.resume(with: Swift.Result(catching: body)) }
    }
  }
}

/// Runs `body` in the network namespace at `path`, on a thread of its own, and waits without blocking the cooperative pool.
public func withNetworkNamespace<Result: Sendable>(_ path: String, _ body: @escaping @Sendable () throws -> Result) async throws -> Result {
  try await onOwnThread("orch-netns") {
    let descriptor = try OwnedDescriptor.open(path, O_RDONLY)
    try checkResult(clinux_setns(descriptor.rawValue, Int32(CLINUX_CLONE_NEWNET)), "join network namespace", path)
    return try body()
  }
}

/// A bare queue with one consumer thread.
final class WorkQueue: Sendable {
  private struct State {
    var work: [@Sendable () -> Void] = []
    var finished = false
  }
  private let state = Mutex(State())
  private let semaphore = Semaphore()

  func add(_ work: @escaping @Sendable () -> Void) {
    state.withLock { $0.work.append(work) }
    semaphore.signal()
  }
  func finish() {
    state.withLock { $0.finished = true }
    semaphore.signal()
  }
  func loop() {
    while true {
      semaphore.wait()
      let (work, finished) = state.withLock { state in
        defer { state.work = [] }
        return (state.work, state.finished)
      }
      for item in work { item() }
      if finished { return }
    }
  }
  func runAndWait<Result: Sendable>(_ body: @escaping @Sendable () -> Result) -> Result {
    let done = Semaphore()
    let slot = Slot<Result>()
    add {
      let result = body()
      slot.value.withLock { $0 = result }
      done.signal()
    }
    done.wait()
    return slot.value.withLock { $0! }
  }
}

private final class Slot<Value: Sendable>: Sendable {
  let value = Mutex<Value?>(nil)
}

/// A counting semaphore for threads of our own (sem_overview(7)); never waited for on the cooperative pool.
public final class Semaphore: @unchecked Sendable {
  // sem_t must keep its address; the kernel and glibc synchronize the access to it.
  private let pointer: UnsafeMutablePointer<sem_t>
  public init(_ value: UInt32 = 0) {
    pointer = .allocate(capacity: 1)
    sem_init(pointer, 0, value)
  }
  deinit {
    sem_destroy(pointer)
    pointer.deallocate()
  }
  public func signal() { sem_post(pointer) }
  public func wait() { while sem_wait(pointer) < 0 {} }
}
