import Model
import Replica
import Store

/// The thread that owns the database: one request at a time, in order; each is reported when it is done. At most one write waits, since
/// a member has one under way.
final class DiskThread: Sendable {
  enum Report: Sendable {
    case written(UInt64, failure: StoreError?)
    case opened(Result<OpenedStore, StoreError>)
  }
  private enum Request: Sendable {
    case open
    case write(WriteBatch, number: UInt64)
    case close(done: Mailbox<Void>)
  }

  private let requests = Mailbox<Request>()

  init(path: String, report: @escaping @Sendable (Report) -> Void) {
    let requests = requests
    startThread("raft-disk") {
      var store: Store?
      while true {
        for request in requests.take(until: .max) {
          switch request {
          case .open:
            // All of the file's connections are closed before, so that it is read as after a restart.
            store = nil
            do throws(StoreError) {
              let opened = try Store(path: path)
              let result = OpenedStore(loaded: try opened.load(), log: try opened.reader())
              store = opened
              report(.opened(.success(result)))
            } catch { report(.opened(.failure(error))) }
          case .write(let batch, let number):
            do throws(StoreError) {
              guard let store else { throw .failed(earlier: "the database is closed") }
              try store.write(batch)
              report(.written(number, failure: nil))
            } catch { report(.written(number, failure: error)) }
          case .close(let done):
            store = nil
            _ = done.put(())
            return
          }
        }
      }
    }
  }

  /// Closes what is open and loads what is on the disk.
  func open() { _ = requests.put(.open) }
  func write(_ batch: WriteBatch, number: UInt64) { _ = requests.put(.write(batch, number: number)) }

  /// Returns when the database is closed and the thread ends.
  func close() {
    let done = Mailbox<Void>()
    _ = requests.put(.close(done: done))
    _ = done.take(until: .max)
  }
}

/// What the disk thread hands to the member's.
struct OpenedStore: Sendable {
  var loaded: LoadedState
  /// With a connection of its own: reading old entries waits for no write.
  var log: LogFile
}
