import Model
import Replica

extension Store {
  /// Reads everything, verifying the file's structure, the log's checksums and continuity, and every row of the state.
  public func load() throws(StoreError) -> LoadedState {
    do throws(StoreError) { return try loadEverything() } catch { throw error.naming(path) }
  }

  private func loadEverything() throws(StoreError) -> LoadedState {
    let check = try database.text("PRAGMA quick_check(1)")
    guard check == "ok" else { throw .damaged(table: "-", row: "-", reason: check) }

    try takeBack()
    let meta = try loadMeta()
    compacted = SnapshotPoint(index: meta["compacted_index"] ?? 0, term: meta["compacted_term"] ?? 0)
    appliedIndex = meta["applied_index"] ?? 0
    let entries = try loadEntries()
    lastIndex = entries.last?.index ?? compacted.index
    guard appliedIndex >= compacted.index, appliedIndex <= lastIndex else {
      throw .damaged(
        table: "meta", row: "applied_index", reason: "\(appliedIndex) is outside the log, which holds \(compacted.index + 1) to \(lastIndex)")
    }
    let hardState = try loadHardState()
    try verify(hardState, entries)
    var membership = try loadMembership()
    membership.autoLeave = meta["auto_leave"] == 1
    return LoadedState(
      raftID: meta["raft_id"].map(RaftID.init), hardState: hardState, membership: membership, compacted: compacted,
      entries: entries, state: try loadState())
  }

  /// What Raft's own rules say about votes and log.
  private func verify(_ hardState: StoredHardState, _ entries: [StoredEntry]) throws(StoreError) {
    var term = compacted.term
    for entry in entries {
      guard entry.term >= term else {
        throw .damaged(table: "raft_log", row: "\(entry.index)", reason: "term \(entry.term) comes after term \(term)")
      }
      term = entry.term
    }
    guard hardState.term >= term else {
      throw .damaged(table: "hard_state", row: "1", reason: "term \(hardState.term) is below the log's, \(term)")
    }
    guard hardState.committed <= lastIndex else {
      throw .damaged(table: "hard_state", row: "1", reason: "entry \(hardState.committed) is committed, the log ends at \(lastIndex)")
    }
  }

  private func loadMeta() throws(StoreError) -> [String: UInt64] {
    var result: [String: UInt64] = [:]
    try rows("SELECT key, value FROM meta") { row in result[row.text(0)] = row.unsigned(1) }
    return result
  }

  private func loadHardState() throws(StoreError) -> StoredHardState {
    var result = StoredHardState()
    try rows("SELECT term, vote, committed, checksum FROM hard_state") { row throws(StoreError) in
      let vote = row.unsigned(1)
      result = StoredHardState(term: row.unsigned(0), vote: vote == 0 ? nil : RaftID(vote), committed: row.unsigned(2))
      guard row.isNull(3) || row.integer(3) == Int64(result.checksum) else {
        throw .damaged(table: "hard_state", row: "1", reason: "checksum is \(result.checksum), \(row.integer(3)) was stored")
      }
    }
    return result
  }

  private func loadEntries() throws(StoreError) -> [StoredEntry] {
    try database.logEntries(0, UInt64(Int64.max), from: compacted.index + 1, maxBytes: .max)
  }

  private func loadMembership() throws(StoreError) -> Membership {
    var result = Membership()
    try rows("SELECT raft_id, node, address, role FROM members") { row throws(StoreError) in
      let id = RaftID(row.unsigned(0))
      var text = row.text(3)
      let isOutgoing = text.hasSuffix(Self.outgoingMark)
      if isOutgoing { text.removeLast(Self.outgoingMark.count) }
      guard let role = Membership.Role(rawValue: text) else {
        throw .damaged(table: "members", row: "\(id)", reason: "role is \(row.text(3))")
      }
      let node: NodeID? = try row.optional(1) { column throws(StoreError) in try Field("members", "\(id)").identifier(row, column) }
      result.members[id] = Membership.Member(raftID: id, node: node, address: row.text(2), role: role)
      result.members[id]!.isOutgoingVoter = isOutgoing
    }
    return result
  }

  private func loadState() throws(StoreError) -> ClusterState {
    var state = RestoredState()
    try loadCluster(&state)
    try loadNodes(&state)
    try loadServices(&state)
    try loadRevisions(&state)
    try loadTasks(&state)
    try loadNetworks(&state)
    try loadVolumes(&state)
    try loadStacks(&state)
    for kind in StoredFile.Kind.allCases { try loadFiles(kind, &state) }
    // What contradicts is dropped; a database of ours holds no contradictions.
    guard let whole = state.finish(at: appliedIndex) else {
      throw .damaged(table: "-", row: "-", reason: "\(state.rows) rows make fewer objects")
    }
    return whole
  }

  func rows(_ sql: String, _ body: (Statement) throws(StoreError) -> Void) throws(StoreError) {
    try database.rows(try database.statement(sql)) { row throws(StoreError) in
      try body(row)
      return true
    }
  }
}

extension Store {
  private func loadCluster(_ state: inout RestoredState) throws(StoreError) {
    try rows("SELECT settings FROM cluster") { row throws(StoreError) in
      state.add(.putCluster(try Field("cluster", "1").json(row, 0)))
    }
  }

  private func loadNodes(_ state: inout RestoredState) throws(StoreError) {
    let attachments = try Attachments(database)
    try rows(
      """
      SELECT id, spec, description, state, message, address, raft_id, manager_address, created_at, updated_at, version FROM nodes
      ORDER BY id
      """
    ) { row throws(StoreError) in
      let field = Field("nodes", id: row)
      var node = Node(id: try field.identifier(row, 0), spec: try field.json(row, 1), createdAt: row.instant(8))
      node.description = try row.optional(2) { column throws(StoreError) in try field.json(row, column) }
      guard let now = NodeState(rawValue: row.text(3)) else { throw field.damaged("state is \(row.text(3))") }
      node.status = NodeStatus(
        state: now, message: row.text(4), address: try row.optional(5) { column throws(StoreError) in try field.parsed(row, column) })
      if !row.isNull(6) { node.manager = ManagerStatus(raftID: RaftID(row.unsigned(6)), address: row.text(7)) }
      node.attachments = try attachments.next(of: node.id.value)
      node.updatedAt = row.instant(9)
      node.version = row.unsigned(10)
      state.add(.putNode(node))
    }
  }

  private func loadServices(_ state: inout RestoredState) throws(StoreError) {
    try rows(
      """
      SELECT id, name, current, previous, latest, update_status, endpoint, pending_delete, created_at, updated_at, version FROM services
      """
    ) { row throws(StoreError) in
      let field = Field("services", id: row)
      var service = Service(id: try field.identifier(row, 0), name: row.text(1), createdAt: row.instant(8))
      service.current = row.unsigned(2)
      service.previous = row.isNull(3) ? nil : row.unsigned(3)
      service.latest = row.unsigned(4)
      service.updateStatus = try row.optional(5) { column throws(StoreError) in try field.json(row, column) }
      service.endpoint = try field.json(row, 6)
      service.pendingDelete = row.bool(7)
      service.updatedAt = row.instant(9)
      service.version = row.unsigned(10)
      state.add(.putService(service))
    }
  }

  private func loadRevisions(_ state: inout RestoredState) throws(StoreError) {
    try rows("SELECT service, number, spec, template, created_at FROM revisions") { row throws(StoreError) in
      let field = Field("revisions", id: row, number: row.integer(1))
      let key = ServiceRevision.Key(try field.identifier(row, 0), row.unsigned(1))
      let revision = ServiceRevision(key: key, spec: try field.json(row, 2), template: row.unsigned(3), createdAt: row.instant(4))
      state.add(.putRevision(revision))
    }
  }

  private func loadTasks(_ state: inout RestoredState) throws(StoreError) {
    let attachments = try Attachments(database)
    try rows(
      """
      SELECT id, service, revision, slot, node, desired_state, state, state_at, message, error, container_id, pid, exit_code, oom_killed,
        created_at, restart_count, start_after, version, health FROM tasks ORDER BY id
      """
    ) { row throws(StoreError) in
      let field = Field("tasks", id: row)
      var task = ClusterTask(
        id: try field.identifier(row, 0), service: try field.identifier(row, 1), revision: row.unsigned(2), slot: row.unsigned(3),
        desiredState: try field.taskState(row, 5), createdAt: row.instant(14))
      task.node = try row.optional(4) { column throws(StoreError) in try field.identifier(row, column) }
      task.status = TaskStatus(
        state: try field.taskState(row, 6), timestamp: row.instant(7), message: row.text(8), error: row.text(9),
        containerID: row.isNull(10) ? nil : row.text(10), pid: row.isNull(11) ? nil : Int32(truncatingIfNeeded: row.integer(11)),
        exitCode: row.isNull(12) ? nil : Int32(truncatingIfNeeded: row.integer(12)), oomKilled: row.bool(13),
        health: try row.optional(18) { column throws(StoreError) in try field.json(row, column) })
      task.attachments = try attachments.next(of: task.id.value)
      task.restartCount = UInt32(truncatingIfNeeded: row.integer(15))
      task.startAfter = row.instant(16)
      task.version = row.unsigned(17)
      state.add(.createTask(task))
    }
  }

  private func loadNetworks(_ state: inout RestoredState) throws(StoreError) {
    try rows("SELECT id, spec, vni, subnet, created_at, version, subnet6 FROM networks") { row throws(StoreError) in
      let field = Field("networks", id: row)
      var network = Network(id: try field.identifier(row, 0), spec: try field.json(row, 1), createdAt: row.instant(4))
      network.vni = row.isNull(2) ? nil : UInt32(truncatingIfNeeded: row.integer(2))
      network.subnet = try row.optional(3) { column throws(StoreError) in try field.parsed(row, column) }
      network.version = row.unsigned(5)
      network.subnet6 = try row.optional(6) { column throws(StoreError) in try field.parsed(row, column) }
      state.add(.putNetwork(network))
    }
  }

  private func loadVolumes(_ state: inout RestoredState) throws(StoreError) {
    try rows("SELECT name, labels, driver, driver_options, created_at, version FROM volumes") { row throws(StoreError) in
      let field = Field("volumes", row.text(0))
      var volume = Volume(
        name: row.text(0), labels: try field.json(row, 1), driver: row.text(2), driverOptions: try field.json(row, 3), createdAt: row.instant(4))
      volume.version = row.unsigned(5)
      state.add(.putVolume(volume))
    }
  }

  private func loadStacks(_ state: inout RestoredState) throws(StoreError) {
    try rows("SELECT name, revision, manifest, services, networks, volumes, created_at, updated_at, version FROM stacks") {
      row throws(StoreError) in
      let field = Field("stacks", row.text(0))
      var stack = Stack(name: row.text(0), createdAt: row.instant(6))
      stack.revision = row.unsigned(1)
      stack.manifest = row.text(2)
      stack.services = try field.json(row, 3)
      stack.networks = try field.json(row, 4)
      stack.volumes = try field.json(row, 5)
      stack.updatedAt = row.instant(7)
      stack.version = row.unsigned(8)
      state.add(.putStack(stack))
    }
  }

  private func loadFiles(_ kind: StoredFile.Kind, _ state: inout RestoredState) throws(StoreError) {
    try rows("SELECT id, name, labels, data, created_at, updated_at, version FROM \(kind.table)") { row throws(StoreError) in
      let field = Field(kind.table, id: row)
      var file = StoredFile(
        kind: kind, id: try field.identifier(row, 0), name: row.text(1), labels: try field.json(row, 2), data: row.blob(3), createdAt: row.instant(4))
      file.updatedAt = row.instant(5)
      file.version = row.unsigned(6)
      state.add(.putFile(file))
    }
  }
}

/// The addresses of tasks and nodes, read beside their owners in the order of their ids.
private final class Attachments {
  private let rows: Statement
  private var owner: UInt128?

  init(_ database: Database) throws(StoreError) {
    rows = try database.statement("SELECT owner, network, address FROM attachments ORDER BY owner, position")
    try advance()
  }
  deinit { rows.reset() }

  private func advance() throws(StoreError) {
    owner = nil
    guard try rows.step() else { return }
    guard let id = rows.bits128(0) else { throw .damaged(table: "attachments", row: "-", reason: "owner: an id of \(rows.blob(0).count) bytes") }
    owner = id
  }

  /// Owners must be asked for in ascending order.
  func next(of id: UInt128) throws(StoreError) -> [NetworkAttachment] {
    while let owner, owner < id { try advance() }
    var found: [NetworkAttachment] = []
    while owner == id {
      let field = Field("attachments", id: rows)
      found.append(NetworkAttachment(network: try field.identifier(rows, 1), address: try field.parsed(rows, 2)))
      try advance()
    }
    return found
  }
}

/// Reads columns of one row, naming it when it is damaged.
private struct Field {
  let table: String
  private let name: String
  /// The row's id is this statement's first column; its text is made only when it is needed.
  private let id: Statement?
  private let number: Int64?

  init(_ table: String, _ name: String) { (self.table, self.name, id, number) = (table, name, nil, nil) }
  init(_ table: String, id: Statement, number: Int64? = nil) { (self.table, name, self.id, self.number) = (table, "", id, number) }

  private var row: String {
    guard let id else { return name }
    return (id.bits128(0).map { Identifier<Never>(value: $0).description } ?? "\(id.blob(0))") + (number.map { " \($0)" } ?? "")
  }

  func damaged(_ reason: String) -> StoreError { .damaged(table: table, row: row, reason: reason) }

  func identifier<Tag>(_ statement: Statement, _ column: Int32) throws(StoreError) -> Identifier<Tag> {
    guard let bits = statement.bits128(column) else { throw damaged("column \(column): an id of \(statement.blob(column).count) bytes") }
    return Identifier<Tag>(value: bits)
  }

  func parsed<T: LosslessStringConvertible>(_ statement: Statement, _ column: Int32) throws(StoreError) -> T {
    guard let value = T(statement.text(column)) else { throw damaged("column \(column): \(statement.text(column)) is not \(T.self)") }
    return value
  }

  func json<T: Decodable>(_ statement: Statement, _ column: Int32) throws(StoreError) -> T {
    do { return try JSON.value(statement.text(column)) } catch { throw damaged("column \(column): \(error)") }
  }

  func taskState(_ statement: Statement, _ column: Int32) throws(StoreError) -> TaskState {
    guard let state = TaskState(rawValue: Int(statement.integer(column))) else {
      throw damaged("column \(column): no state \(statement.integer(column))")
    }
    return state
  }
}

extension Statement {
  fileprivate func instant(_ column: Int32) -> Timestamp { Timestamp(nanoseconds: integer(column)) }
}
