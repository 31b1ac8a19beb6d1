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
    case reopen(room: Int)
    case write(WriteBatch, number: UInt64)
    case close(done: Mailbox<Void>)
  }

  private let requests = Mailbox<Request>()

  init(path: String, gate: RowGate, report: @escaping @Sendable (Report) -> Void) {
    let requests = requests
    startThread("raft-disk") {
      var store: Store?
      while true {
        for request in requests.take(until: .max) {
          switch request {
          case .open:
            do throws(StoreError) {
              let opened = try Store(path: path, gate: gate)
              report(.opened(.success(try OpenedStore(opened))))
              store = opened
            } catch { report(.opened(.failure(error))) }
          case .reopen(let room):
            // This manager's own connections are closed before, so that the file is read as after a restart. An `orch sql` that runs keeps
            // its own, and with it the WAL's index: that names only what an fsync had answered for.
            store = nil
            do throws(StoreError) {
              let opened = try Store.reopen(path: path, room: room, gate: gate)
              let result = try OpenedStore(opened)
              try opened.proveWritable()
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

  /// Loads what is on the disk.
  func open() { _ = requests.put(.open) }
  /// After a failure: closes what is open, loads what the disk really holds, and proves that it takes writes and has `room` bytes.
  func reopen(room: Int) { _ = requests.put(.reopen(room: room)) }
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

  init(_ store: Store) throws(StoreError) {
    loaded = try store.load()
    log = try store.reader()
  }
}
