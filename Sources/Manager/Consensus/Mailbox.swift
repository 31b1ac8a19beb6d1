import Glibc

/// The queue into the Raft member's thread: any thread puts, one takes, waiting with a deadline. What waits together is taken together,
/// which is what makes group commit.
final class Mailbox<Item: Sendable>: @unchecked Sendable {
  // Guarded by `mutex`; a condition variable because the one who waits is a thread of our own, not a task.
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
  private var items: [Item] = []
  private var bytes = 0
  private var closed = false

  init() {
    pthread_mutex_init(mutex, nil)
    var attributes = pthread_condattr_t()
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(condition, &attributes)
    pthread_condattr_destroy(&attributes)
  }

  deinit {
    pthread_mutex_destroy(mutex)
    pthread_cond_destroy(condition)
    mutex.deallocate()
    condition.deallocate()
  }

  enum Outcome { case accepted, full, closed }

  /// `bound`: of bytes that may wait (nil: always accepted); the first always fits.
  func put(_ item: Item, bytes count: Int = 0, bound: Int? = nil) -> Outcome {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    if closed { return .closed }
    if let bound, bytes > 0, bytes + count > bound { return .full }
    items.append(item)
    bytes += count
    if items.count == 1 { pthread_cond_signal(condition) }
    return .accepted
  }

  /// What waits; empty when the deadline (CLOCK_MONOTONIC, in nanoseconds) passed first.
  func take(until deadline: UInt64) -> [Item] {
    var time = timespec(tv_sec: Int(deadline / 1_000_000_000), tv_nsec: Int(deadline % 1_000_000_000))
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    while items.isEmpty, pthread_cond_timedwait(condition, mutex, &time) != ETIMEDOUT {}
    return drain()
  }

  /// Nothing is accepted any more; what waited is returned.
  func close() -> [Item] {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    closed = true
    return drain()
  }

  private func drain() -> [Item] {
    defer { (items, bytes) = ([], 0) }
    return items
  }
}

enum MonotonicClock {
  /// Nanoseconds of CLOCK_MONOTONIC.
  static var now: UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}

/// A thread of our own with a name that tools show (at most 15 bytes).
func startThread(_ name: String, _ body: @escaping @Sendable () -> Void) {
  final class Box: Sendable {
    let name: String
    let body: @Sendable () -> Void
    init(_ name: String, _ body: @escaping @Sendable () -> Void) {
      self.name = name
      self.body = body
    }
  }
  var thread = pthread_t()
  var attributes = pthread_attr_t()
  pthread_attr_init(&attributes)
  // Applying and encoding recurse into JSON.
  pthread_attr_setstacksize(&attributes, 4 << 20)
  let code = pthread_create(
    &thread, &attributes,
    { context in
      let box = Unmanaged<Box>.fromOpaque(context!).takeRetainedValue()
      nameThisThread(box.name)
      box.body()
      return nil
    }, Unmanaged.passRetained(Box(name, body)).toOpaque())
  pthread_attr_destroy(&attributes)
  precondition(code == 0, "start thread \(name): \(String(cString: strerror(code)))")
  pthread_detach(thread)
}

/// pthread_setname_np is hidden behind _GNU_SOURCE and prctl is variadic; the kernel takes the name here as well (proc(5)).
private func nameThisThread(_ name: String) {
  let descriptor = open("/proc/thread-self/comm", O_WRONLY | O_CLOEXEC)
  guard descriptor >= 0 else { return }
  _ = write(descriptor, name, name.utf8.count)
  close(descriptor)
}
