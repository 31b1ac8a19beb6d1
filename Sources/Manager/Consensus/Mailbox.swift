import Glibc
import LinuxSystem

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

/// Applying and encoding recurse into JSON.
func startThread(_ name: String, _ body: @escaping @Sendable () -> Void) { LinuxSystem.startThread(name, stackBytes: 4 << 20, body) }
