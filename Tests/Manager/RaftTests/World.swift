import Model

@testable import Raft

/// What a crash leaves.
struct Disk: Sendable {
  var hardState = HardState()
  var confState = ConfState()
  var compactedIndex: LogIndex = 0
  var compactedTerm: Term = 0
  var entries: [Entry] = []
  var applied: LogIndex = 0

  var lastIndex: LogIndex { compactedIndex + LogIndex(entries.count) }
  func term(at index: LogIndex) -> Term {
    if index == compactedIndex { return compactedTerm }
    return index > compactedIndex && index <= lastIndex ? entries[Int(index - compactedIndex) - 1].term : 0
  }

  mutating func write(_ ready: Ready) {
    if let snapshot = ready.snapshot {
      entries = []
      (compactedIndex, compactedTerm) = (snapshot.index, snapshot.term)
      (applied, confState) = (snapshot.index, snapshot.confState)
    }
    if let first = ready.entries.first {
      precondition(first.index <= lastIndex + 1, "a gap on disk: \(first.index) after \(lastIndex)")
      entries.removeSubrange(Int(first.index - compactedIndex) - 1..<entries.count)
      entries += ready.entries
    }
    if let hard = ready.hardState { hardState = hard }
  }

  mutating func compact(upTo index: LogIndex) {
    guard index > compactedIndex else { return }
    compactedTerm = term(at: index)
    entries.removeFirst(Int(index - compactedIndex))
    compactedIndex = index
  }
}

/// Tests run a world on one thread.
final class DiskReader: LogReader, @unchecked Sendable {
  var disk = Disk()
  func entries(first: LogIndex, last: LogIndex, maxBytes: Int) -> [Entry] {
    var found: [Entry] = []
    var bytes = 0
    for entry in disk.entries where entry.index >= first && entry.index <= last {
      bytes += entry.byteCount
      if bytes > maxBytes, !found.isEmpty { break }
      found.append(entry)
    }
    return found
  }
  func snapshot() -> SnapshotMetadata? {
    disk.applied == 0 ? nil : SnapshotMetadata(index: disk.applied, term: disk.term(at: disk.applied), confState: disk.confState)
  }
}

/// A core with its disk and the writes on their way to it.
struct Host {
  var core: RaftCore
  let reader = DiskReader()
  var writes: [Ready] = []
  /// Committed entries that are being applied.
  var handedOut: [Entry] = []

  init(config: RaftConfig, disk: Disk) {
    reader.disk = disk
    core = Self.boot(config, disk, reader)
  }

  private static func boot(_ config: RaftConfig, _ disk: Disk, _ reader: DiskReader) -> RaftCore {
    RaftCore(
      config: config,
      stored: StoredState(
        hardState: disk.hardState, confState: disk.confState, compactedIndex: disk.compactedIndex, compactedTerm: disk.compactedTerm,
        entries: disk.entries, applied: disk.applied), reader: reader)
  }

  /// The first `surviving` writes had reached the disk, though nobody was told.
  mutating func restart(config: RaftConfig, surviving: Int = 0) {
    for ready in writes.prefix(surviving) { reader.disk.write(ready) }
    (writes, handedOut) = ([], [])
    core = Self.boot(config, reader.disk, reader)
  }

  /// Answers what may leave now.
  mutating func persistNext() -> [Message] {
    let ready = writes.removeFirst()
    reader.disk.write(ready)
    if ready.needsPersistence { core.persisted(ready.number) }
    return ready.messagesAfterPersistence
  }

  /// Answers the members after every configuration entry; one that does not fit has no effect.
  mutating func apply(_ entries: [Entry]) -> [Result<ConfState, RaftError>] {
    var changed: [Result<ConfState, RaftError>] = []
    for entry in entries {
      precondition(entry.index == reader.disk.applied + 1, "applied \(entry.index) after \(reader.disk.applied)")
      precondition(reader.disk.term(at: entry.index) == entry.term, "applied \(entry.index), which is not durable here")
      if entry.kind == .configuration, let change = ConfigurationChange(decoding: entry.data) {
        changed.append(Result { () throws(RaftError) in try core.applyConfigurationChange(change) })
        reader.disk.confState = core.confState
      }
      reader.disk.applied = entry.index
    }
    if let last = entries.last { core.applied(upTo: last.index) }
    return changed
  }
}
