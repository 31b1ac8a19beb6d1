import CSQLite
import Glibc
import Model
import Testing
import Wire

@testable import Store

@Suite struct StoreTests {
  let folder = TemporaryFolder()

  func open() throws -> Store { try Store(path: folder.database) }

  /// Writes with SQLite behind the store's back.
  func damage(_ sql: String) {
    var handle: OpaquePointer?
    sqlite3_open(folder.database, &handle)
    #expect(sqlite3_exec(handle, sql, nil, nil, nil) == SQLITE_OK)
    #expect(sqlite3_changes(handle) == 1)
    sqlite3_close(handle)
  }

  func entries(_ range: ClosedRange<UInt64>, term: UInt64 = 1) -> [StoredEntry] {
    range.map { StoredEntry(index: $0, term: term, kind: 0, data: Array("entry \($0) of term \(term)".utf8)) }
  }

  func appended(_ range: ClosedRange<UInt64>, term: UInt64 = 1) -> WriteBatch {
    var batch = WriteBatch()
    batch.hardState = StoredHardState(term: term, vote: nil, committed: 0)
    batch.entries = entries(range, term: term)
    return batch
  }

  @Test("the checksum is CRC-32C")
  func crc32c() {
    var crc = CRC32C()
    // The check value of the Castagnoli polynomial.
    crc.add(Array("123456789".utf8))
    #expect(crc.value == 0xE306_9283)
    var number = CRC32C()
    number.add(0x3837_3635_3433_3231 as UInt64)
    number.add([UInt8(ascii: "9")])
    #expect(number.value == crc.value)
  }

  @Test(
    "labels become the JSON that ModelJSON makes",
    arguments: [
      [:], ["a": "b"], ["b": "2", "a": "1", "B": "0"], ["q\"uote": "back\\slash /"], ["\u{0}\u{1}\u{1f}": "\t\n\r\u{8}\u{c}\u{7f}"],
      ["ä": "日本 🐳", "": ""],
    ])
  func labels(_ labels: [String: String]) throws {
    guard case .text(let ours) = JSON.text(labels) else { return #expect(Bool(false)) }
    #expect(try ours == String(decoding: ModelJSON.encode(labels), as: UTF8.self))
  }

  @Test("a log that grows is copied into the database beside the writer, and begins anew")
  func checkpoints() throws {
    let store = try open()
    var largest: Int64 = 0
    for round in 0..<40 {
      var batch = WriteBatch()
      batch.entries = (0..<500).map { StoredEntry(index: UInt64(round * 500 + $0 + 1), term: 1, kind: 0, data: [UInt8](repeating: 7, count: 4000)) }
      try store.write(batch)
      var status = stat()
      stat(folder.database + "-wal", &status)
      largest = max(largest, Int64(status.st_size))
    }
    // 80 MB were written; SQLite's own checkpoints are off.
    #expect(largest < 60 << 20)
    #expect(try store.database.text("PRAGMA quick_check(1)") == "ok")
    var status = stat()
    stat(folder.database, &status)
    #expect(status.st_size > 40 << 20)
  }

  @Test("a new database is empty, private and durable")
  func empty() throws {
    let store = try open()
    let loaded = try store.load()
    #expect(loaded.hardState == StoredHardState() && loaded.entries.isEmpty && loaded.membership == Membership())
    #expect(loaded.compacted.index == 0 && loaded.state.index == 0 && loaded.state.objectCount == 0)
    #expect(try store.database.text("PRAGMA synchronous") == "2")
    var status = stat()
    stat(folder.database, &status)
    #expect(status.st_mode & 0o777 == 0o600)
  }

  @Test("after every kind of action the database holds exactly the state")
  func everyAction() throws {
    var state = ClusterState()
    var store = try open()
    for (offset, action) in Sample.actions.enumerated() {
      let index = UInt64(offset + 1)
      let changes = try state.apply(Command(actions: [action]), at: index).get()
      #expect(!changes.isEmpty, "\(action) changed nothing")
      var batch = appended(index...index)
      batch.applied = .init(changes: changes, state: state)
      try store.write(batch)
      let loaded = try store.load().state
      #expect(same(loaded, state), "after \(action)")
      // Also with another connection: nothing is left in the first one's memory alone.
      if offset % 8 == 0 {
        store = try reopen(&store)
        #expect(same(try store.load().state, state))
      }
    }
    #expect(state.objectCount == 4)
  }

  private func reopen(_ store: inout Store) throws -> Store {
    let path = store.path
    store = try Store(path: path + ".other")
    return try Store(path: path)
  }

  @Test("many changes of one row in a batch leave its last state")
  func coalesced() throws {
    var state = ClusterState()
    var changes: [StateChange] = []
    for (offset, action) in Sample.actions.enumerated() { changes += try state.apply(Command(actions: [action]), at: UInt64(offset + 1)).get() }
    var batch = appended(1...UInt64(Sample.actions.count))
    batch.applied = .init(changes: changes, state: state)
    let store = try open()
    try store.write(batch)
    #expect(same(try store.load().state, state))
    #expect(try store.database.text("SELECT count(*) FROM tasks") == "2")
    #expect(try store.database.text("SELECT count(*) FROM revisions") == "0")
    #expect(try store.database.text("SELECT count(*) FROM attachments") == "1")
  }

  @Test("columns are for people: specs as JSON, states as numbers")
  func queryable() throws {
    var state = ClusterState()
    let changes = try state.apply(
      Command(actions: [.putService(Sample.service), .putRevision(Sample.revision(2)), .createTask(Sample.task(1))]), at: 1
    ).get()
    var batch = appended(1...1)
    batch.applied = .init(changes: changes, state: state)
    let store = try open()
    try store.write(batch)
    #expect(try store.database.text("SELECT json_extract(spec, '$.TaskTemplate.ContainerSpec.Image') FROM revisions") == "web:2")
    #expect(try store.database.text("SELECT slot || ' ' || state || ' ' || message FROM tasks") == "1 0 created")
  }

  @Test("hard state, membership and log come back; a conflicting suffix is replaced")
  func log() throws {
    var membership = Membership([
      .init(raftID: RaftID(7), node: id(101), address: "10.0.0.1:2377", role: .voter),
      .init(raftID: RaftID(UInt64.max), node: nil, address: "10.0.0.2:2377", role: .learner),
      .init(raftID: RaftID(9), node: id(103), address: "10.0.0.3:2377", role: .removed),
    ])
    // In the middle of a joint configuration.
    membership.members[RaftID(9)]!.isOutgoingVoter = true
    membership.autoLeave = true
    do {
      let store = try open()
      var batch = appended(1...5)
      batch.hardState = StoredHardState(term: 1, vote: RaftID(7), committed: 2)
      batch.membership = membership
      try store.write(batch)
      var conflict = appended(4...6, term: 2)
      conflict.hardState = StoredHardState(term: 2, vote: nil, committed: 3)
      try store.write(conflict)
      #expect(try store.reader().entries(first: 2, last: 5, maxBytes: .max) == entries(2...3) + entries(4...5, term: 2))
      #expect(try store.reader().entries(first: 2, last: 5, maxBytes: 1) == entries(2...2))
      #expect(try store.reader().entries(first: 7, last: 9, maxBytes: 1).isEmpty)
    }
    let loaded = try open().load()
    #expect(loaded.hardState == StoredHardState(term: 2, vote: nil, committed: 3))
    #expect(loaded.membership == membership)
    #expect(loaded.membership.ids(.voter) == [RaftID(7)])
    // Removed in the incoming half only: it is still heard.
    #expect(loaded.membership.address(of: RaftID(9)) == "10.0.0.3:2377")
    #expect(loaded.entries == entries(1...3) + entries(4...6, term: 2))
  }

  @Test("compaction and snapshots move the beginning of the log")
  func compaction() throws {
    var state = ClusterState()
    let store = try open()
    var batch = appended(1...10)
    let changes = try state.apply(Command(actions: [.putCluster(Sample.cluster)]), at: 8).get()
    batch.applied = .init(changes: changes, state: state)
    batch.compact = SnapshotPoint(index: 6, term: 1)
    try store.write(batch)
    var loaded = try store.load()
    #expect(loaded.compacted == SnapshotPoint(index: 6, term: 1) && loaded.entries == entries(7...10))

    var other = ClusterState()
    other.restore(index: 100, actions: Sample.actions[0..<20])
    batch = WriteBatch()
    batch.snapshot = .init(point: SnapshotPoint(index: 100, term: 4), state: other)
    batch.membership = Membership([.init(raftID: RaftID(1), node: nil, address: "a:1", role: .voter)])
    batch.hardState = StoredHardState(term: 4, vote: nil, committed: 100)
    batch.entries = entries(101...102, term: 4)
    try store.write(batch)
    loaded = try store.load()
    #expect(loaded.compacted == SnapshotPoint(index: 100, term: 4) && loaded.entries == entries(101...102, term: 4))
    #expect(same(loaded.state, other) && loaded.membership.members.count == 1)
  }

  @Test("a snapshot's chunks are bounded and make the same state again", arguments: [1, 400, 1 << 20])
  func chunks(chunkBytes: Int) throws {
    var state = ClusterState()
    for (offset, action) in Sample.actions[0..<24].enumerated() { _ = try state.apply(Command(actions: [action]), at: UInt64(offset + 1)).get() }
    var reader = SnapshotReader()
    var chunks = 0
    for chunk in SnapshotWriter(state, chunkBytes: chunkBytes) {
      chunks += 1
      #expect(chunk.count == 1 || chunk.reduce(0) { $0 + $1.count } <= chunkBytes)
      try reader.add(chunk)
    }
    #expect(chunkBytes > 1000 ? chunks == 1 : chunks > 1)
    #expect(reader.state(at: 24, count: state.objectCount + 1) == nil)
    #expect(same(try #require(reader.state(at: 24, count: state.objectCount)), state))
  }

  @Test("damage is named: checksum, gap, row, structure")
  func damaged() throws {
    var state = ClusterState()
    let changes = try state.apply(Command(actions: Array(Sample.actions[0..<20])), at: 1).get()
    var batch = appended(1...5)
    batch.applied = .init(changes: changes, state: state)
    try open().write(batch)

    func failure() -> String {
      do {
        _ = try Store(path: folder.database).load()
        return "no error"
      } catch { return "\(error)" }
    }
    let advice =
      "; stop this manager and run `orch-manager reseed` on its host: the others send it the state again "
      + "(a cluster's only manager: `orch-manager init --from-backup`)"
    damage("UPDATE raft_log SET data = CAST('entry 4 of term 2' AS BLOB) WHERE position = 4")
    let (found, stored) = (entries(4...4, term: 2)[0].data, entries(4...4)[0].checksum)
    let checksum = StoredEntry(index: 4, term: 1, kind: 0, data: found).checksum
    #expect(failure() == "database \(folder.database) is damaged: table raft_log, row 4: checksum is \(checksum), \(stored) was stored" + advice)
    damage("DELETE FROM raft_log WHERE position = 4")
    #expect(failure() == "database \(folder.database) is damaged: table raft_log, row 4: missing; the next one is 5" + advice)
    damage("DELETE FROM raft_log WHERE position = 5")
    #expect(failure() == "no error")
    damage("UPDATE tasks SET state = 5 WHERE slot = 2")
    #expect(failure() == "database \(folder.database) is damaged: table tasks, row \(id(1002) as TaskID): column 6: no state 5" + advice)
    damage("UPDATE tasks SET state = 0 WHERE slot = 2")
    damage("UPDATE meta SET value = 9 WHERE key = 'applied_index'")
    #expect(failure() == "database \(folder.database) is damaged: table meta, row applied_index: 9 is outside the log, which holds 1 to 3" + advice)
  }

  @Test("a log and votes that contradict Raft's rules are damage, not a start")
  func contradictions() throws {
    try open().write(appended(1...5, term: 3))
    func failure() -> String {
      do {
        _ = try Store(path: folder.database).load()
        return "no error"
      } catch { return "\(error)" }
    }
    damage("UPDATE hard_state SET vote = 7")
    #expect(failure().contains("table hard_state, row 1: checksum is "))
    // As an older format has it, without a checksum.
    damage("UPDATE hard_state SET vote = 0, term = 2, checksum = NULL")
    #expect(failure().contains("table hard_state, row 1: term 2 is below the log's, 3"))
    damage("UPDATE hard_state SET term = 3, committed = 6")
    #expect(failure().contains("table hard_state, row 1: entry 6 is committed, the log ends at 5"))
  }

  @Test("who the members were is read from a damaged file as far as it goes; it is moved aside with all its parts, unless it is in use")
  func salvage() throws {
    do {
      let store = try open()
      var batch = appended(1...5)
      batch.membership = Membership([.init(raftID: RaftID(7), node: nil, address: "10.0.0.1:2377", role: .voter)])
      try store.write(batch)
      #expect(throws: StoreError.inUse(path: folder.database)) { try Store.setAside(path: folder.database, suffix: "old") }
      #expect(throws: StoreError.inUse(path: folder.database)) { try Store.requireUnused(path: folder.database) }
    }
    damage("DELETE FROM raft_log WHERE position = 4")
    #expect(throws: StoreError.self) { try Store(path: folder.database).load() }
    #expect(Store.salvageMembers(path: folder.database).map(\.address) == ["10.0.0.1:2377"])
    let moved = try Store.setAside(path: folder.database, suffix: "old")
    #expect(moved == folder.database + ".old" && access(folder.database, F_OK) != 0 && access(moved, F_OK) == 0)
    #expect(Store.salvageMembers(path: folder.database).isEmpty)
  }

  @Test("a file that is not ours, a newer one, and one in use are refused")
  func refused() throws {
    let path = folder.database
    do {
      let store = try open()
      #expect(throws: StoreError.inUse(path: path)) { try Store(path: path) }
      try store.database.execute("PRAGMA user_version = 99")
    }
    #expect(throws: StoreError.tooNew(path: path, found: 99, supported: Schema.migrations.count)) { try Store(path: path) }
    damage("PRAGMA user_version = 1; PRAGMA application_id = 7; UPDATE meta SET value = 0; INSERT INTO meta VALUES ('x', 1)")
    #expect(throws: StoreError.foreign(path: path)) { try Store(path: path) }
    #expect(throws: StoreError.self) { try Store(path: folder.path + "/no/such/folder.db") }
  }

  @Test("a full disk is a typed error, nothing of the batch is kept, and no later write is taken")
  func diskFull() throws {
    let store = try open()
    try store.write(appended(1...3))
    // SQLite's own bound on pages stands for the disk's.
    try store.database.execute("PRAGMA max_page_count = 1")
    var batch = WriteBatch()
    batch.entries = (4...200).map { StoredEntry(index: $0, term: 1, kind: 0, data: [UInt8](repeating: 7, count: 4000)) }
    do {
      try store.write(batch)
      Issue.record("the write succeeded")
    } catch {
      guard case .diskFull = error else { throw error }
      #expect("\(error)".contains("errno 28, No space left on device; free some space on that file system"))
    }
    do {
      try store.write(appended(4...4))
      Issue.record("a write after a failed one succeeded")
    } catch {
      guard case .failed = error else { throw error }
    }
    #expect(try store.load().entries == entries(1...3))
  }

  @Test("a copy of the files taken at any moment, as after a power cut, holds a whole batch or none of it")
  func crash() throws {
    let store = try open()
    var state = ClusterState()
    var copies: [(path: String, written: UInt64)] = []
    for index in 1...60 as ClosedRange<UInt64> {
      var batch = appended(index...index)
      batch.hardState = StoredHardState(term: 1, vote: RaftID(1), committed: index)
      let changes = try state.apply(Command(actions: [.createTask(Sample.task(index))]), at: index).get()
      batch.applied = .init(changes: changes, state: state)
      try store.write(batch)
      if index % 10 == 0 { copies.append((folder.copyDatabase(to: "copy\(index)"), index)) }
    }
    // Torn writes: the log of the last copy cut at many places. A commit record that is cut off was never acknowledged.
    let whole = copies[5].path
    var status = stat()
    stat(whole + "-wal", &status)
    for cut in stride(from: 0, through: status.st_size, by: max(1, status.st_size / 40)) {
      let torn = folder.copyDatabase(to: "torn\(cut)")
      truncate(torn + "-wal", cut)
      copies.append((torn, 0))
    }
    for copy in copies {
      guard let reopened = try? Store(path: copy.path) else {
        Issue.record("\(copy) cannot be opened")
        continue
      }
      let loaded = try reopened.load()
      if copy.written > 0 { #expect(loaded.state.index == copy.written) }
      #expect(loaded.entries.count == Int(loaded.state.index) && loaded.state.tasks.count == Int(loaded.state.index))
      #expect(loaded.hardState.committed == loaded.state.index)
    }
  }

  @Test("a bit that flips in the write-ahead log is damage that names the frame, not a shorter log, but for the last transaction")
  func damagedWAL() throws {
    let store = try open()
    for index in 1...12 as ClosedRange<UInt64> {
      var batch = appended(index...index)
      // Some transactions have several frames.
      if index % 3 == 0 { batch.entries[0].data = [UInt8](repeating: 7, count: 9000) }
      try store.write(batch)
    }
    let frameBytes = 4096 + 24
    let wal = try #require(bytes(of: folder.database + "-wal"))
    let commits = frames(wal).filter(\.isCommit).map(\.number)
    let last = try #require(commits.last)
    #expect(commits.count >= 12 && last > commits.count)

    func outcome(_ flipped: Int) throws -> String {
      let copy = folder.copyDatabase(to: "flipped")
      defer { for suffix in ["", "-wal", "-shm", ".lock"] { unlink(copy + suffix) } }
      var wal = wal
      wal[flipped] ^= 0x80
      try write(wal, to: copy + "-wal")
      do { return "\(try Store(path: copy).load().entries.count) entries" } catch {
        guard case .damaged(copy, "flipped-wal", let row, _) = error else { throw error }
        return row
      }
    }
    for frame in 1...last {
      let at = 32 + (frame - 1) * frameBytes
      // Page number, commit's size, salt, checksum, page.
      for offset in [0, 4, 8, 16, 24 + 2000] {
        let found = try outcome(at + offset)
        // Of the last transaction's frames those whose own head contradicts what comes before and after it.
        if frame <= commits[commits.count - 2] || offset == 8 || ([4, 16].contains(offset) && frame < last) {
          #expect(found == "frame \(frame)", "a bit of frame \(frame) of \(last) at \(offset)")
        } else {
          #expect(found == "11 entries")
        }
      }
    }
    for offset in [0, 4, 8, 16, 24] { #expect(try outcome(offset) == "header") }
    // What an older log left behind its end counts for nothing.
    #expect(try outcome(wal.count - 1) == "12 entries")
  }

  @Test("frames that a crash left behind a newer transaction are no damage")
  func leftFrames() throws {
    let frameBytes = 4096 + 24
    /// As after a crash; then a bit of that frame flips.
    func copy(_ source: String, _ name: String, flipped frame: Int) throws -> String {
      let target = "\(folder.path)/\(name)"
      try write(#require(bytes(of: source)), to: target)
      var wal = try #require(bytes(of: source + "-wal"))
      wal[32 + (frame - 1) * frameBytes + 100] ^= 1
      try write(wal, to: target + "-wal")
      return target
    }
    var large = appended(2...40)
    for position in large.entries.indices { large.entries[position].data = [UInt8](repeating: 7, count: 3000) }
    let store = try open()
    try store.write(appended(1...1))
    let before = try #require(bytes(of: folder.database + "-wal"))
    let first = frames(before).count
    try store.write(large)
    // The large one was cut off. A restart writes smaller ones over its beginning; the last of them is cut off in its turn, and what is
    // left of the large one follows its commit.
    let torn = try copy(folder.database, "torn", flipped: first + 2)
    let second = try Store(path: torn)
    #expect(try second.load().entries.count == 1)
    try second.write(appended(2...2))
    let small = try #require(bytes(of: torn + "-wal"))
    var last = appended(3...3)
    last.entries[0].data = [UInt8](repeating: 8, count: 9000)
    try second.write(last)
    let after = try #require(bytes(of: torn + "-wal"))
    func frame(_ wal: [UInt8], _ number: Int) -> ArraySlice<UInt8> { wal[(32 + number * frameBytes)..<(32 + (number + 1) * frameBytes)] }
    let changed = try #require((0..<frames(small).count).first { frame(small, $0) != frame(after, $0) })
    #expect(changed + 4 < first + 40)
    let again = try copy(torn, "again", flipped: changed + 1)
    #expect(try Store(path: again).load().entries.count == 2)
  }

  /// Those that were ever written, of pages of 4 KiB; from 1.
  func frames(_ wal: [UInt8]) -> [(number: Int, isCommit: Bool)] {
    var found: [(number: Int, isCommit: Bool)] = []
    for at in stride(from: 32, through: wal.count - 24, by: 4096 + 24) where wal[at..<at + 4] != [0, 0, 0, 0] {
      found.append((found.count + 1, wal[at + 4..<at + 8] != [0, 0, 0, 0]))
    }
    return found
  }

  func bytes(of path: String) -> [UInt8]? {
    guard let file = fopen(path, "r") else { return nil }
    defer { fclose(file) }
    var result: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while case let count = fread(&buffer, 1, buffer.count, file), count > 0 { result += buffer[..<count] }
    return result
  }

  func write(_ bytes: [UInt8], to path: String) throws {
    let file = try #require(fopen(path, "w"))
    #expect(fwrite(bytes, 1, bytes.count, file) == bytes.count)
    fclose(file)
  }
}
