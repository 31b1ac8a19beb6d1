import CSQLite
import Model
import Raft
import Testing

@testable import Replica
@testable import Store

/// Rows that come in slices, with entries between them.
@Suite struct RowSliceTests {
  let folder = TemporaryFolder()

  @Test("whenever it stops, a start finds the rows of the state before a flush or of the one after it, never of both", arguments: [1, 2, 3, 4])
  func anyMoment(seed: UInt64) throws {
    var random = SplitMix64(seed: seed)
    var store = try Store(path: folder.database)
    _ = try store.load()
    var state = ClusterState()
    var written = state
    var last: UInt64 = 0
    var (taken, cut) = (0, 0)
    for round in 0..<40 {
      var changes: [StateChange] = []
      for _ in 0..<Int.random(in: 1...30, using: &random) {
        changes += (try? state.apply(Self.command(state, &random), at: state.index + 1).get()) ?? []
      }
      var flush = RowFlush(ChangedRows(changes), state: state, membership: nil)
      let stops = Int.random(in: 0...6, using: &random)
      var slices = 0
      repeat {
        let rows = flush.slice(Int.random(in: 1...8, using: &random))
        // An entry comes with each slice.
        var batch = WriteBatch()
        let entries = max(state.index, last) + 1
        batch.entries = (last + 1...entries).map { StoredEntry(index: $0, term: 1, kind: 0, data: [7]) }
        batch.hardState = StoredHardState(term: 1, vote: nil, committed: 0)
        last = entries
        batch.applied = .init(rows: rows, state: state, before: flush.rows.isEmpty ? nil : written)
        try store.write(batch)
        slices += 1
        if flush.rows.isEmpty { written = state }
        // As after a power cut.
        let copy = try Store(path: folder.copyDatabase(to: "copy")).load()
        let isSame = same(copy.state, written)
        #expect(isSame, "round \(round), slice \(slices)")
        #expect(copy.entries.count == Int(last))
        taken += flush.rows.isEmpty ? 0 : 1
      } while !flush.rows.isEmpty && slices != stops
      guard !flush.rows.isEmpty else { continue }
      // The process ends in the middle of a flush; what it had applied comes again from the log, here as other changes.
      cut += 1
      store = try reopen(&store)
      let isSame = same(try store.load().state, written)
      #expect(isSame)
      state = written
      #expect(try store.database.text("SELECT count(*) FROM undo") == "0")
      if state.index < last { state.skip(to: last) }
    }
    #expect(taken > 20 && cut > 1, "\(taken), \(cut)")
  }

  /// Names change hands, services go with their revisions.
  private static func command(_ state: ClusterState, _ random: inout SplitMix64) -> Command {
    let number = UInt64.random(in: 1...12, using: &random)
    let action: Action
    switch Int.random(in: 0..<15, using: &random) {
    case 0: action = .putNode(Sample.node(number))
    case 1: action = .removeNode(id(100 + number))
    case 2: action = .nodeAttachments(id(100 + number), [Sample.attachments[Int(number % 2)]])
    case 3, 4:
      var service = Service(id: id(200 + number), name: "web\(number % 3)", createdAt: noon)
      service.previous = number
      action = .putService(service)
    case 5: action = .removeService(state.services.keys.min() ?? id(200 + number))
    case 6:
      guard let service = state.services.keys.min() else { return Command(actions: []) }
      let key = ServiceRevision.Key(service, UInt64.random(in: 1...5, using: &random))
      action = .putRevision(ServiceRevision(key: key, spec: Sample.revision(1).spec, template: number, createdAt: noon))
    case 7:
      var network = Network(id: id(300 + number), spec: NetworkSpec(name: "net\(number % 3)"), createdAt: noon)
      network.vni = UInt32(number)
      action = .putNetwork(network)
    case 8: action = .removeNetwork(state.networks.keys.min() ?? id(300 + number))
    case 9:
      action = .putFile(
        StoredFile(kind: number % 2 == 0 ? .secret : .config, id: id(400 + number), name: "f\(number % 4)", data: [1], createdAt: noon))
    case 10: action = .removeFile(state.files.keys.min() ?? id(400 + number))
    case 11: action = .putVolume(Volume(name: "v\(number)", labels: ["n": "\(random.next())"], createdAt: noon))
    case 12: action = .removeVolume("v\(number)")
    case 13:
      var task = Sample.task(number)
      task.attachments = Array(Sample.attachments.prefix(Int(number % 3)))
      action = .createTask(task)
    default: action = number % 3 == 0 ? .removeTask(id(1000 + number)) : .taskStatus(id(1000 + number), Sample.failed)
    }
    return Command(actions: [action])
  }

  private func reopen(_ store: inout Store) throws -> Store {
    store = try Store(path: folder.path + "/other.db")
    return try Store(path: folder.database)
  }

  @Test("what the rows were is verified, too")
  func damaged() throws {
    do {
      let store = try Store(path: folder.database)
      try store.write(Self.slice(of: Self.volumes(20)).batch)
    }
    var handle: OpaquePointer?
    sqlite3_open(folder.database, &handle)
    sqlite3_exec(handle, "UPDATE undo SET actions = substr(actions, 2)", nil, nil, nil)
    sqlite3_close(handle)
    do {
      _ = try Store(path: folder.database).load()
      Issue.record("it was loaded")
    } catch { #expect("\(error)".contains("is damaged: table undo, row 1: checksum is")) }
  }

  static func volumes(_ count: Int) -> (state: ClusterState, changes: [StateChange]) {
    var state = ClusterState()
    let actions = (0..<count).map { Action.putVolume(Volume(name: "v\($0)", createdAt: noon)) }
    let changes = (try? state.apply(Command(actions: actions), at: 1).get()) ?? []
    return (state, changes)
  }

  static func slice(of made: (state: ClusterState, changes: [StateChange])) -> (batch: WriteBatch, rest: RowFlush) {
    var flush = RowFlush(ChangedRows(made.changes), state: made.state, membership: nil)
    var batch = WriteBatch()
    batch.entries = [StoredEntry(index: 1, term: 1, kind: 0, data: [])]
    batch.applied = .init(rows: flush.slice(5), state: made.state, before: ClusterState())
    return (batch, flush)
  }

  @Test("who asks in SQL in the middle of a flush waits for its end; a flush waits for nobody who reads already")
  func gate() async throws {
    let gate = RowGate()
    let store = try Store(path: folder.database, gate: gate)
    _ = try store.load()
    func count(_ reader: StateReader) throws -> String {
      var line: [UInt8] = []
      _ = try reader.prepare("SELECT count(*) FROM volumes", limit: .seconds(60)).next(into: &line)
      return String(decoding: line.dropLast(), as: UTF8.self)
    }
    let early = try StateReader(path: folder.database, gate: gate)
    var (batch, flush) = Self.slice(of: Self.volumes(20))
    try store.write(batch)
    #expect(try count(early) == "[0]")
    let path = folder.database
    let late = Task.detached { try count(StateReader(path: path, gate: gate)) }
    while !flush.rows.isEmpty {
      batch = WriteBatch()
      let rows = flush.slice(5)
      batch.applied = .init(rows: rows, state: flush.state, before: flush.rows.isEmpty ? nil : ClusterState())
      try store.write(batch)
    }
    #expect(try await late.value == "[20]")
    #expect(try count(early) == "[0]")
  }

  @Test("who waits for rows that do not come is told why")
  func failedGate() async throws {
    let gate = RowGate()
    let store = try Store(path: folder.database, gate: gate)
    _ = try store.load()
    let (first, flush) = Self.slice(of: Self.volumes(20))
    try store.write(first)
    let path = folder.database
    let late = Task.detached { _ = try StateReader(path: path, gate: gate) }
    try store.database.execute("PRAGMA max_page_count = 1")
    var batch = WriteBatch()
    batch.entries = (2...200).map { StoredEntry(index: $0, term: 1, kind: 0, data: [UInt8](repeating: 7, count: 4000)) }
    batch.applied = .init(rows: Array(flush.rows), state: flush.state)
    #expect(throws: StoreError.self) { try store.write(batch) }
    await #expect(throws: StoreError.self) { try await late.value }
  }
}
