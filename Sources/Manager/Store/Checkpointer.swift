import Glibc
import LinuxSystem
import Replica
import Synchronization

/// Copies the write-ahead log into the database beside the writer (sqlite.org/wal.html, "checkpoint"), on a thread and a connection of its
/// own. SQLite's own way is within a commit: then every change waits for up to a thousand pages and two fsyncs.
///
/// The log begins anew when all of it is in the database at the moment of a write. While changes come without a pause that moment never
/// is. So checkpoints follow each other here, each of what came during the one before, until so little is left that the writer makes the
/// last one itself: with rows of a flush among it that was 1,000 pages and 60 ms in which no entry reached the disk.
final class Checkpointer: Sendable {
  /// Pages of 4 KiB in the log at which it begins, and begins again when the log could not be begun anew (somebody still reads of it).
  static let pagesDue: Int32 = 4_000
  /// What the writer may be left with, but for a log of more than `pagesMax`: it must come to an end.
  static let pagesLeft: Int32 = 64
  static let pagesMax: Int32 = 4 * pagesDue

  private enum Phase { case idle, due, done, ending }
  private struct State {
    var phase = Phase.idle
    /// Pages in the log when it began last.
    var begunAt: Int32 = 0
    /// After the last commit.
    var pages: Int32 = 0
    var failure: StoreError?
  }
  private let path: String
  private let state = Mutex(State())
  private let wake = Semaphore()
  private let ended = Semaphore()

  init(path: String) {
    self.path = path
    startThread("raft-checkpoint") { [self] in
      run()
      ended.signal()
    }
  }

  /// After a commit that left so many pages in the log. True: the writer should checkpoint what little is left.
  func committed(pages: Int32) throws(StoreError) -> Bool {
    let (failure, begins, finishes) = state.withLock { state in
      state.pages = pages
      if pages < state.begunAt { state.begunAt = 0 }
      let finishes = state.phase == .done
      if finishes { state.phase = .idle }
      let begins = !finishes && state.phase == .idle && pages >= state.begunAt + Self.pagesDue
      if begins { (state.phase, state.begunAt) = (.due, pages) }
      return (state.failure, begins, finishes)
    }
    if let failure { throw failure }
    if begins { wake.signal() }
    return finishes
  }

  /// Returns when its connection is closed.
  func close() {
    state.withLock { $0.phase = .ending }
    wake.signal()
    ended.wait()
  }

  private func run() {
    var database: Database?
    while true {
      wake.wait()
      if state.withLock({ $0.phase == .ending }) { return }
      var failure: StoreError?
      do throws(StoreError) {
        if database == nil {
          let opened = try Database(path: path)
          // A matter of each connection: before the log is overwritten, the database must be on the disk.
          try opened.execute("PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0")
          database = opened
        }
        var copied: Int32 = 0
        while let pages = try database?.checkpoint(after: copied), shouldGoOn(copied: pages) { copied = pages }
      } catch {
        // On a full disk the log holds everything still, and the next one tries again. Otherwise as with a write: nothing goes on as if
        // the fsync had worked.
        if case .diskFull = error {} else { failure = error }
      }
      state.withLock { state in
        if state.phase == .due { state.phase = .done }
        state.failure = failure
      }
    }
  }

  /// Never where the log could be begun anew between two checkpoints: with pages left in it nobody does (SQLite's WAL-reset bug,
  /// docs/dependencies.md).
  private func shouldGoOn(copied: Int32) -> Bool {
    state.withLock { $0.phase == .due && $0.pages > copied + Self.pagesLeft && $0.pages < Self.pagesMax }
  }
}
