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
  /// Somebody works off what was taken.
  private var isTaken = false
  /// The thread is to take the next turn, whether anything waits or not.
  private var isCalled = false
  private var admitted: Kinds = []
  private var work: (([Item]) -> Void)?
  /// Whoever unlocks next wakes the one who waits.
  private var wakes = false

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
    let outcome = add(item, bytes: count, bound: bound)
    unlockAndWake()
    return outcome
  }

  private func add(_ item: Item, bytes count: Int, bound: Int?) -> Outcome {
    if closed { return .closed }
    if let bound, bytes > 0, bytes + count > bound { return .full }
    items.append(item)
    bytes += count
    if items.count == 1, !isTaken { wakes = true }
    return .accepted
  }

  /// Who is woken while the lock is held wakes to wait for it.
  private func unlockAndWake() {
    let wakes = wakes
    self.wakes = false
    pthread_mutex_unlock(mutex)
    if wakes { pthread_cond_signal(condition) }
  }

  /// What waits; empty when the deadline (CLOCK_MONOTONIC, in nanoseconds) passed first.
  func take(until deadline: UInt64) -> [Item] {
    var time = timespec(tv_sec: Int(deadline / 1_000_000_000), tv_nsec: Int(deadline % 1_000_000_000))
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    while items.isEmpty, pthread_cond_timedwait(condition, mutex, &time) != ETIMEDOUT {}
    return drain()
  }

  // MARK: - Turns

  /// As `take`, and the turn with it: nobody else works off anything until `endTurn`.
  func takeTurn(until deadline: UInt64) -> [Item] {
    var time = timespec(tv_sec: Int(deadline / 1_000_000_000), tv_nsec: Int(deadline % 1_000_000_000))
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    while isTaken || (items.isEmpty && !isCalled) {
      if isCalled {
        pthread_cond_wait(condition, mutex)
      } else if pthread_cond_timedwait(condition, mutex, &time) == ETIMEDOUT {
        isCalled = true
      }
    }
    (isTaken, isCalled) = (true, false)
    return drain()
  }

  /// `admitted`: kinds of items that whoever brings them next may work off itself. `calls`: the thread has something to do without any.
  func endTurn(admitted: Kinds = [], calls: Bool = false) {
    pthread_mutex_lock(mutex)
    isTaken = false
    self.admitted = admitted
    if calls { isCalled = true }
    wakes = isCalled || !items.isEmpty
    unlockAndWake()
  }

  /// How whoever has a turn works items off; it ends the turn. Until the mailbox is closed.
  func onTurn(_ work: @escaping ([Item]) -> Void) {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    self.work = work
  }

  /// As `put`; but when these items are admitted and nobody has the turn the caller gets it and works them off itself, before it returns.
  /// So it must hold no lock. That saves two changes of threads. What the bound would lose of several is lost.
  func put(_ new: [(item: Item, bytes: Int)], bound: Int? = nil, as kind: Kinds) -> Outcome {
    pthread_mutex_lock(mutex)
    if !isTaken, !isCalled, items.isEmpty, admitted.contains(kind), new.reduce(0, { $0 + $1.bytes }) <= Self.turnBytesMax, let work {
      isTaken = true
      pthread_mutex_unlock(mutex)
      work(new.map(\.item))
      return .accepted
    }
    var outcome = Outcome.accepted
    for (item, bytes) in new { outcome = add(item, bytes: bytes, bound: bound) }
    unlockAndWake()
    return outcome
  }

  struct Kinds: OptionSet {
    let rawValue: Int
    static var ask: Self { Self(rawValue: 1) }
    static var message: Self { Self(rawValue: 2) }
    static var written: Self { Self(rawValue: 4) }
  }

  /// More is the thread's own work: others have something else to do.
  private static var turnBytesMax: Int { 64 << 10 }

  /// Nothing is accepted any more; what waited is returned.
  func close() -> [Item] {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    closed = true
    work = nil
    return drain()
  }

  private func drain() -> [Item] {
    defer { (items, bytes) = ([], 0) }
    return items
  }
}

/// Applying and encoding recurse into JSON.
func startThread(_ name: String, _ body: @escaping @Sendable () -> Void) { LinuxSystem.startThread(name, stackBytes: 4 << 20, body) }
