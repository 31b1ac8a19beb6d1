import Foundation
import Model
import Testing

@testable import Store

/// A database with the sample state, and a reader of it.
private struct World {
  let folder = TemporaryFolder()
  let store: Store
  let reader: StateReader

  init(tasks: UInt64 = 3) throws {
    store = try Store(path: folder.database)
    _ = try store.load()
    var state = ClusterState()
    var cluster = Sample.cluster
    (cluster.workerToken, cluster.managerToken) = ("ORCHTKN-1-worker", "ORCHTKN-1-manager")
    var named = Sample.node(2)
    named.spec.name = "second"
    var actions: [Action] = [
      .putCluster(cluster), .putNode(Sample.node(1)), .nodeDescription(id(101), Sample.description), .putNode(named), .putNetwork(Sample.network),
      .putVolume(Volume(name: "web_data", createdAt: noon)), .putService(Sample.service), .putRevision(Sample.revision(1)),
      .putRevision(Sample.revision(2)), .serviceEndpoint(id(200), Sample.endpoint), .putStack(Sample.stack),
      .putFile(StoredFile(kind: .secret, id: id(600), name: "password", data: Array("secret of a service, sealed".utf8), createdAt: noon)),
      .putFile(StoredFile(kind: .config, id: id(601), name: "nginx.conf", data: Array("listen 80".utf8), createdAt: noon)),
    ]
    for number in 0..<tasks {
      actions.append(.createTask(Sample.task(number + 1)))
      let status = TaskStatus(state: .assigned, timestamp: noon, message: "assigned")
      actions.append(.assignTask(id(1001 + number), node: id(101 + number % 2), attachments: Sample.attachments, status: status))
    }
    let changes = try state.apply(Command(actions: actions), at: 7).get()
    var batch = WriteBatch()
    batch.entries = (1...7).map { StoredEntry(index: $0, term: 1, kind: 0, data: Array("secret of the log".utf8)) }
    batch.hardState = StoredHardState(term: 1, vote: nil, committed: 7)
    batch.applied = .init(changes: changes, state: state)
    batch.membership = Membership([.init(raftID: RaftID(9), node: id(101), address: "h1:2377", role: .voter)])
    try store.write(batch)
    reader = try StateReader(path: folder.database)
  }

  func ask(_ sql: String, limit: Duration = .seconds(10)) throws(QueryError) -> [String] {
    let rows = try reader.prepare(sql, limit: limit)
    var lines: [String] = []
    var line: [UInt8] = []
    while try rows.next(into: &line) {
      lines.append(String(decoding: line.dropLast(), as: UTF8.self))
      line = []
    }
    return lines
  }

  func refusal(_ sql: String) -> String {
    do {
      return "answered: \(try ask(sql))"
    } catch { return error.description }
  }
}

@Suite struct StateReaderTests {
  @Test("the issue's own question is answered with names")
  func groups() throws {
    #expect(try World().ask("select node, count(*) from tasks group by node order by 1") == ["[\"host-1\",2]", "[\"second\",1]"])
  }

  @Test("ids, instants and states are the ones that the CLI shows")
  func words() throws {
    let world = try World()
    #expect(
      try world.ask("select id, name, service, slot, node_id, state, desired_state, image, created_at from tasks where slot = 1") == [
        "[\"\(id(1001) as TaskID)\",\"web_web.1\",\"web_web\",1,\"\(id(101) as NodeID)\",\"assigned\",\"running\",\"web:2\",\"2026-11-21T12:00:00.123456789Z\"]"
      ])
    #expect(try world.ask("select id, log_index, address_pool from cluster") == ["[\"\(id(1) as ClusterID)\",7,\"10.0.0.0/8\"]"])
    #expect(try world.ask("select name, mode, replicas, image from services") == ["[\"web_web\",\"replicated\",3,\"web:2\"]"])
    #expect(try world.ask("select node, address, role from managers") == ["[\"host-1\",\"h1:2377\",\"voter\"]"])
    #expect(try world.ask("select service, number, is_current from revisions order by number") == ["[\"web_web\",1,0]", "[\"web_web\",2,1]"])
    #expect(
      try world.ask("select kind, network, count(*) from addresses group by 1, 2 order by 2") == [
        "[\"task\",null,3]", "[\"task\",\"web_default\",3]",
      ])
    #expect(
      try world.ask("select name, data from configs union all select name, labels from secrets") == [
        "[\"nginx.conf\",\"listen 80\"]", "[\"password\",\"{}\"]",
      ])
    #expect(try world.ask("select value from nodes, json_each(labels) where name = 'second'") == ["[\"a\"]"])
  }

  @Test("the views and their columns are those that docs/sql.md names", arguments: [repository + "/docs/sql.md"])
  func documented(path: String) throws {
    let text = try String(contentsOfFile: path, encoding: .utf8)
    for line in try World().ask("select view, group_concat(name, ', ') from (select * from columns order by view, position) group by view") {
      let pair = try JSONDecoder().decode([String].self, from: Data(line.utf8))
      #expect(text.contains("| `\(pair[0])` | \(pair[1]) |"), "docs/sql.md lacks: | `\(pair[0])` | \(pair[1]) |")
    }
  }

  @Test("every view can be read whole and counted")
  func everything() throws {
    let world = try World()
    for view in StateView.all {
      #expect(try !world.ask("select * from \(view.name)").isEmpty, "\(view.name)")
      #expect(try world.ask("select count(*) from \(view.name)") != ["[0]"], "\(view.name)")
      _ = try world.ask("with \(view.name)2 as (select * from \(view.name)) select count(*) from \(view.name)2, (select 1)")
    }
  }

  @Test(
    "what writes, attaches, sets or is more than one statement is refused with a sentence, and changes nothing",
    arguments: [
      ("insert into nodes values (1)", "would write"), ("delete from tasks", "would write"), ("update main.nodes set state = 'x'", "would write"),
      ("drop table nodes", "would write"), ("create table x (a)", "would write"), ("create temp table x (a)", "would write"),
      ("create temp view x as select 1", "would write"), ("vacuum", "would write"), ("vacuum into '/tmp/orch-sql-vacuum.db'", "would write"),
      ("reindex", "would write"), ("analyze", "would write"), ("attach 'x' as y", "ATTACH"), ("attach ':memory:' as y", "ATTACH"),
      ("pragma table_list", "PRAGMA"), ("pragma query_only = 0", "PRAGMA"), ("pragma journal_mode = delete", "PRAGMA"),
      ("select * from pragma_table_list", "orch sql only reads"), ("select load_extension('x')", "load_extension"), ("begin", "snapshot"),
      ("commit", "snapshot"), ("savepoint x", "snapshot"), ("select 1; select 2", "more than one"), ("select 1; drop table nodes", "more than one"),
      ("select 1; nonsense", "more than one"), ("", "no statement"), ("-- nothing", "no statement"), ("selec 1", "syntax error"),
      ("select x from nodes", "no such column"), ("select * from nobody", "the views are cluster"), ("select sleep(1)", "no such function"),
      ("select 1\u{0}; drop table nodes", "NUL"), ("select \(String(repeating: "1,", count: 600_000))1", "1 MiB"),
    ])
  func refused(sql: String, reason: String) throws {
    let world = try World()
    let before = try world.store.load()
    let refusal = world.refusal(sql)
    #expect(!refusal.hasPrefix("answered"), "\(sql.prefix(80)): \(refusal)")
    #expect(refusal.contains(reason), "\(sql.prefix(80)): \(refusal)")
    #expect(try same(world.store.load().state, before.state))
    #expect(!FileManager.default.fileExists(atPath: "/tmp/orch-sql-vacuum.db"))
    #expect(try world.ask("select 1") == ["[1]"], "the connection is still good")
  }

  @Test("a trailing semicolon and comments are no second statement", arguments: ["select 1;", "select 1 ; ; -- done", "select 1 /* ; */ ;\n"])
  func oneStatement(sql: String) throws {
    #expect(try World().ask(sql) == ["[1]"])
  }

  @Test(
    "tables behind the views are out of reach, by whatever name",
    arguments: [
      "select settings from cluster", "select * from main.cluster", "select settings from main.cluster", "select data from raft_log",
      "select * from main.raft_log", "select count(*) from raft_log", "select 1 from main.raft_log", "select * from hard_state",
      "select * from meta", "select * from members", "select * from main.tasks", "select * from sqlite_master", "select * from sqlite_temp_master",
      "select * from main.sqlite_schema", "select sql from temp.sqlite_temp_schema", "select name from dbstat",
      // A common table expression that borrows a view's name.
      "with cluster as (select settings from main.cluster) select * from cluster",
      "with nodes as (select data from raft_log) select * from nodes", "with tasks as (select * from main.meta) select * from tasks",
      "select * from (select settings from main.cluster) as cluster", "select (select settings from main.cluster)",
      "select * from nodes where (select data from raft_log limit 1) is not null", "select 1 from main.cluster as c where c.settings like '%worker%'",
      "with x as (select data from main.raft_log) select count(*) from x", "select data from secrets", "select data from main.secrets",
      "with secrets as (select data from main.secrets) select * from secrets",
      "with configs as (select data from main.secrets) select * from configs",
    ])
  func unreachable(sql: String) throws {
    let refusal = try World().refusal(sql)
    #expect(!refusal.hasPrefix("answered"), "\(sql): \(refusal)")
  }

  @Test("no view reads key material: exactly these columns of the tables are read")
  func secrets() throws {
    let read = try World().reader.readable
    let sensitive = read.filter {
      $0.table == "raft_log" || $0.table == "hard_state" || ($0.table == "cluster" && $0.column == "settings")
        || ($0.table == "secrets" && $0.column == "data")
    }
    #expect(sensitive.isEmpty, "\(sensitive)")
    #expect(
      Set(read.filter { $0.table == "cluster" }.map(\.column)).subtracting([""]) == [
        "id", "created_at", "address_pool", "subnet_length", "data_path_port", "task_history", "version",
      ])
    #expect(Set(read.map(\.table)).subtracting(Schema.replicatedTables) == ["meta", "members"])
    #expect(read.filter { $0.table == "meta" }.allSatisfy { $0.view == "cluster" && ["", "key", "value"].contains($0.column) })
    let world = try World()
    for view in StateView.all {
      let all = try world.ask("select * from \(view.name)").joined()
      for secret in ["ORCHTKN", "BEGIN", "secret of"] { #expect(!all.contains(secret), "\(view.name) shows \(secret)") }
    }
  }

  @Test("a statement that runs too long ends at its time, also when whoever reads the rows is slow, or has gone")
  func tooLong() throws {
    let world = try World()
    let endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select"
    let clock = ContinuousClock()
    let start = clock.now
    #expect(throws: QueryError.tooSlow(seconds: 0.2)) { try world.ask("\(endless) count(*) from n", limit: .milliseconds(200)) }
    #expect(clock.now - start < .seconds(30))
    let rows = try world.reader.prepare("\(endless) i from n", limit: .milliseconds(100))
    var line: [UInt8] = []
    #expect(try rows.next(into: &line))
    usleep(150_000)
    #expect(throws: QueryError.tooSlow(seconds: 0.1)) { try rows.next(into: &line) }
    var (asked, isPrepared) = (0, false)
    let abandoned = try world.reader.prepare("\(endless) count(*) from n", limit: .seconds(10)) {
      asked += 1
      return isPrepared && asked > 3
    }
    (asked, isPrepared) = (0, true)
    #expect(throws: QueryError.cancelled) { try abandoned.next(into: &line) }
    #expect(try world.ask("select 1") == ["[1]"])
  }

  @Test("a short statement that SQLite would write out to gigabytes is refused while it is prepared; a long one has room")
  func memory() throws {
    let world = try World()
    let doubled = (1..<20).map { ", a\($0)(x) as (select (select x from a\($0 - 1)) + (select x from a\($0 - 1)))" }.joined()
    let bomb = "with a0(x) as materialized (select 1)\(doubled) select x from a19"
    #expect(bomb.utf8.count < 1_300)
    #expect(world.refusal(bomb) == "the statement needs more than 128 MiB of memory: ask in simpler words, or for less at once")
    // By its time or by its memory, whichever ends first.
    #expect(throws: QueryError.self) { try world.ask(bomb, limit: .milliseconds(1)) }
    let numbers = (0..<149_700).map { String(100_000 + $0) }.joined(separator: ",")
    #expect(numbers.utf8.count > StateReader.statementBytesMax - 1_000)
    #expect(try world.ask("select 7 in (\(numbers.dropLast(20))1)") == ["[0]"])
    #expect(try world.ask("select count(*) from tasks") == ["[3]"])
  }

  @Test("a statement whose temporary files would fill their disk is stopped; what needs none is answered however little is free")
  func temporaryFiles() throws {
    let world = try World()
    func ask(_ sql: String) throws(QueryError) -> Int {
      let rows = try world.reader.prepare(sql, limit: .seconds(30), room: TemporaryRoom(bytesMin: .max, allowance: 32 << 20))
      var count = 0
      var line: [UInt8] = []
      while try rows.next(into: &line) { (count, line) = (count + 1, []) }
      return count
    }
    #expect(try ask("select * from tasks") == 3)
    let endless = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 4000) select i, randomblob(500000) z from n order by z"
    do {
      _ = try ask(endless)
      Issue.record("2 GB of temporary files were written")
    } catch { #expect(error.description.hasPrefix("the statement was stopped: its temporary files leave too little room in /"), "\(error)") }
  }

  @Test("a statement sees one snapshot while the store goes on writing, and later ones see what was written")
  func snapshot() throws {
    let world = try World()
    let rows = try world.reader.prepare("select name from volumes", limit: .seconds(5))
    var line: [UInt8] = []
    #expect(try rows.next(into: &line))
    var state = try world.store.load().state
    for index in UInt64(8)...40 {
      let volume = Volume(name: "v\(index)", createdAt: noon)
      let changes = try state.apply(Command(actions: [.putVolume(volume)]), at: index).get()
      var batch = WriteBatch()
      batch.entries = [StoredEntry(index: index, term: 1, kind: 0, data: [])]
      batch.applied = .init(changes: changes, state: state)
      try world.store.write(batch)
    }
    #expect(try !rows.next(into: &line), "33 more were written meanwhile")
    #expect(try world.ask("select count(*) from volumes") == ["[34]"])
  }

  @Test("values of every kind become JSON that parses")
  func values() throws {
    let line = try #require(
      try World().ask("select 1, -9223372036854775808, 0.5, null, 'a\"\\\n\t\u{1}ü', x'00ff', 9e999, 'x' || cast(x'ff' as text)").first)
    let parsed = try #require(JSONSerialization.jsonObject(with: Data(line.utf8)) as? [Any])
    #expect(parsed.count == 8 && parsed[4] as? String == "a\"\\\n\t\u{1}ü" && parsed[5] as? String == "00ff" && parsed[7] as? String == "x\u{fffd}")
    #expect(line.hasPrefix("[1,-9223372036854775808,0.5,null,") && line.contains("00ff\",null,"))
  }

  @Test("a value beyond the bound is refused, not built")
  func tooLarge() throws {
    #expect(try World().refusal("select length(zeroblob(100000000))").contains("8 MiB"))
  }
}

private let repository = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
  .deletingLastPathComponent().path
