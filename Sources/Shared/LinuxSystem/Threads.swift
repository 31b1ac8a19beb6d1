import CLinux
import Glibc

/// Nanoseconds of CLOCK_MONOTONIC.
public enum MonotonicClock {
  public static var now: UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}

/// Starts a detached thread of its own for blocking work; the cooperative pool is never blocked.
/// - Parameter name: at most 15 bytes of it are shown by tools.
public func startThread(_ name: String, stackBytes: Int = 512 << 10, _ body: @escaping @Sendable () -> Void) {
  final class Box {
    let body: @Sendable () -> Void
    let name: String
    init(_ body: @escaping @Sendable () -> Void, _ name: String) { (self.body, self.name) = (body, name) }
  }
  var thread = pthread_t()
  var attributes = pthread_attr_t()
  pthread_attr_init(&attributes)
  pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
  pthread_attr_setstacksize(&attributes, stackBytes)
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
  precondition(result == 0, "start thread \(name): \(Errno(result))")
}

/// Runs `body` on a thread that exists for it alone. For calls that block.
public func onOwnThread<Result: Sendable>(_ name: String = "orch-blocking", _ body: @escaping @Sendable () throws -> Result) async throws -> Result {
  try await withCheckedThrowingContinuation { continuation in
    startThread(name) { continuation.resume(with: Swift.Result(catching: body)) }
  }
}

/// Runs `body` in the network namespace at `path`, on a thread of its own, and waits without blocking the cooperative pool.
public func withNetworkNamespace<Result: Sendable>(_ path: String, _ body: @escaping @Sendable () throws -> Result) async throws -> Result {
  try await onOwnThread("orch-netns") {
    _ = try joinNetworkNamespace(path)
    return try body()
  }
}

/// For the rest of the calling thread's life. Returns the namespace.
public func joinNetworkNamespace(_ path: String) throws(SystemError) -> OwnedDescriptor {
  let descriptor = try OwnedDescriptor.open(path, O_RDONLY)
  try checkResult(clinux_setns(descriptor.rawValue, Int32(CLINUX_CLONE_NEWNET)), "join network namespace", path)
  return descriptor
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
