import Foundation
import Model
import Replica
import Testing

@testable import Store

@Suite struct StateBackupTests {
  let folder = TemporaryFolder()
  var path: String { folder.path + "/backup.db" }

  private func state() -> ClusterState {
    var state = ClusterState()
    for (offset, action) in Sample.actions.prefix(22).enumerated() { _ = state.apply(Command(actions: [action]), at: UInt64(offset + 5)) }
    return state
  }
  private func files() -> [String] { try! FileManager.default.contentsOfDirectory(atPath: folder.path).sorted() }

  @Test("a backup is one private file with exactly the state, which sqlite3 opens, and nothing of a manager's own")
  func roundTrip() throws {
    let state = state()
    let summary = try StateBackup.write(state, term: 4, takenAt: noon, to: path)
    #expect(summary.tasks == state.tasks.count && summary.index == state.index && summary.cluster == state.cluster?.id)
    #expect(files() == ["backup.db"])
    let attributes = try FileManager.default.attributesOfItem(atPath: path)
    #expect(attributes[.posixPermissions] as? Int == 0o600)
    let content = try StateBackup.read(path)
    #expect(same(content.state, state) && content.term == 4 && content.summary == summary)
    #expect(files() == ["backup.db"], "reading leaves nothing behind")

    let plain = try Database(path: path, readOnly: true)
    for (question, answer) in [
      ("PRAGMA journal_mode", "delete"), ("PRAGMA integrity_check", "ok"), ("SELECT count(*) FROM raft_log", "0"),
      ("SELECT count(*) FROM meta WHERE key = 'raft_id'", "0"), ("SELECT count(*) FROM members", "0"),
      ("SELECT count(*) FROM tasks", "\(state.tasks.count)"),
    ] { #expect(try plain.text(question) == answer, "\(question)") }
  }

  @Test("an existing file is never written over, and what was begun is removed")
  func existing() throws {
    try "mine".write(toFile: path, atomically: true, encoding: .utf8)
    #expect(throws: StoreError.self) { try StateBackup.write(state(), term: 1, takenAt: noon, to: path) }
    #expect(throws: StoreError.self) { try StateBackup.write(ClusterState(), term: 1, takenAt: noon, to: folder.path + "/other.db") }
    #expect(!files().contains("other.db"))
  }

  @Test("a backup that would take more than it may is refused as by a full disk, and nothing of it stays")
  func bounded() throws {
    let state = state()
    // Its tables alone; its rows.
    for (action, bytesMax) in [
      (nil, 0), (nil, 64 << 10), (Action.putVolume(Volume(name: String(repeating: "v", count: 1 << 20), createdAt: noon)), 1 << 20),
    ] {
      var larger = state
      if let action { _ = larger.apply(Command(actions: [action]), at: 900) }
      #expect("\(bytesMax)") {
        _ = try StateBackup.write(larger, term: 1, takenAt: noon, to: path, bytesMax: Int64(bytesMax))
      } throws: {
        if case StoreError.diskFull = $0 { true } else { false }
      }
      #expect(files().isEmpty)
    }
    _ = try StateBackup.write(state, term: 1, takenAt: noon, to: path, bytesMax: 8 << 20)
  }

  @Test("the database of a manager that is lost is as good as a backup, with its log's tables")
  func database() throws {
    let state = state()
    do {
      let store = try Store(path: folder.database)
      var batch = WriteBatch()
      batch.raftID = RaftID(3)
      batch.hardState = StoredHardState(term: 9, vote: RaftID(3), committed: state.index)
      batch.snapshot = .init(point: SnapshotPoint(index: state.index, term: 8), state: state)
      batch.membership = Membership([.init(raftID: RaftID(3), node: nil, address: "a:1", role: .voter)])
      try store.write(batch)
    }
    let content = try StateBackup.read(folder.database)
    #expect(same(content.state, state) && content.term == 9)
  }

  @Test("what is no backup, is newer, cut off or damaged is refused with the reason")
  func refused() throws {
    _ = try StateBackup.write(state(), term: 1, takenAt: noon, to: path)
    let good = try Data(contentsOf: URL(fileURLWithPath: path))
    func refusal(_ bytes: Data) throws -> String {
      try bytes.write(to: URL(fileURLWithPath: path))
      do {
        _ = try StateBackup.read(path)
        return "read"
      } catch { return "\(error)" }
    }
    #expect(try refusal(Data("hello, I am a text and no database at all".utf8)).contains("not a database of orch-manager"))
    #expect(try refusal(good.prefix(good.count / 2)).contains("damaged"))
    // The page with the tasks' rows: all of it zero.
    var damaged = good
    for offset in stride(from: 4096 * 3, to: good.count - 4096, by: 4096) {
      damaged.replaceSubrange(offset..<offset + 4096, with: Data(count: 4096))
    }
    #expect(try refusal(damaged).contains("damaged"))
    var foreign = good
    foreign.replaceSubrange(68..<72, with: [1, 2, 3, 4])
    #expect(try refusal(foreign).contains("not a database of orch-manager"))
    var newer = good
    newer.replaceSubrange(60..<64, with: [0, 0, 1, 0])
    #expect(try refusal(newer).contains("format 256 is newer"))
    #expect(try refusal(good) == "read")
    #expect(throws: StoreError.self) { try StateBackup.read(folder.path + "/nowhere.db") }
    #expect(!files().contains("nowhere.db"))
  }
}
