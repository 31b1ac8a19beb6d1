import CSQLite
import Glibc

/// Bounds what SQLite allocates for one statement (sqlite.org/malloc.html, 3.1.5 "Alternative memory allocators"). A statement of a
/// thousand bytes can name itself twice over in common table expressions, and SQLite writes all of it out while it prepares the statement,
/// where no progress handler runs. SQLite's own bounds on the heap are the whole process's: they would hit the writer.
final class MemoryBudget {
  fileprivate struct Account {
    var bytesLeft: Int
    var isSpent = false
  }
  private let account = UnsafeMutablePointer<Account>.allocate(capacity: 1)

  init(bytes: Int) { account.initialize(to: Account(bytesLeft: bytes)) }
  deinit { account.deallocate() }

  /// Something was not given.
  var isSpent: Bool { account.pointee.isSpent }

  /// What SQLite takes and gives back within `body`, on this thread, is counted.
  func enforced<Result>(_ body: () -> Result) -> Result {
    pthread_setspecific(accountKey, account)
    defer { pthread_setspecific(accountKey, nil) }
    return body()
  }

  /// Only before the process's first use of SQLite.
  static func install() -> Bool {
    guard csqlite_get_allocator(&allocator) == SQLITE_OK else { return false }
    var counting = allocator
    counting.xMalloc = { bytes in
      guard let account = current else { return allocator.xMalloc(bytes) }
      guard account.pointee.takes(Int(bytes)), let memory = allocator.xMalloc(bytes) else { return nil }
      account.pointee.bytesLeft -= Int(allocator.xSize(memory))
      return memory
    }
    counting.xFree = { memory in
      if let account = current { account.pointee.bytesLeft += Int(allocator.xSize(memory)) }
      allocator.xFree(memory)
    }
    counting.xRealloc = { memory, bytes in
      guard let account = current else { return allocator.xRealloc(memory, bytes) }
      let before = Int(allocator.xSize(memory))
      guard account.pointee.takes(Int(bytes) - before), let after = allocator.xRealloc(memory, bytes) else { return nil }
      account.pointee.bytesLeft -= Int(allocator.xSize(after)) - before
      return after
    }
    return csqlite_set_allocator(&counting) == SQLITE_OK
  }
}

extension MemoryBudget.Account {
  fileprivate mutating func takes(_ bytes: Int) -> Bool {
    if bytes <= bytesLeft { return true }
    isSpent = true
    return false
  }
}

/// SQLite's own; set once, before anybody allocates.
private nonisolated(unsafe) var allocator = sqlite3_mem_methods()

private let accountKey: pthread_key_t = {
  var key = pthread_key_t()
  precondition(pthread_key_create(&key, nil) == 0, "no key for values of threads")
  return key
}()

private var current: UnsafeMutablePointer<MemoryBudget.Account>? {
  pthread_getspecific(accountKey)?.assumingMemoryBound(to: MemoryBudget.Account.self)
}
