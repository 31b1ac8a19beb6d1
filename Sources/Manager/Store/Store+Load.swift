import Model
import Replica

extension Store {
  /// Reads everything, verifying the file's structure, the log's checksums and continuity, and every row of the state.
  public func load() throws(StoreError) -> LoadedState {
    let check = try database.text("PRAGMA quick_check(1)")
    guard check == "ok" else { throw .damaged(table: "-", row: path, reason: check) }

    let meta = try loadMeta()
    compacted = SnapshotPoint(index: meta["compacted_index"] ?? 0, term: meta["compacted_term"] ?? 0)
    appliedIndex = meta["applied_index"] ?? 0
    let entries = try loadEntries()
    lastIndex = entries.last?.index ?? compacted.index
    guard appliedIndex >= compacted.index, appliedIndex <= lastIndex else {
      throw .damaged(
        table: "meta", row: "applied_index", reason: "\(appliedIndex) is outside the log, which holds \(compacted.index + 1) to \(lastIndex)")
    }
    return LoadedState(
      raftID: meta["raft_id"].map(RaftID.init), hardState: try loadHardState(), membership: try loadMembership(), compacted: compacted,
      entries: entries, state: try loadState())
  }

  private func loadMeta() throws(StoreError) -> [String: UInt64] {
    var result: [String: UInt64] = [:]
    try rows("SELECT key, value FROM meta") { row in result[row.text(0)] = row.unsigned(1) }
    return result
  }

  private func loadHardState() throws(StoreError) -> StoredHardState {
    var result = StoredHardState()
    try rows("SELECT term, vote, committed FROM hard_state") { row in
      let vote = row.unsigned(1)
      result = StoredHardState(term: row.unsigned(0), vote: vote == 0 ? nil : RaftID(vote), committed: row.unsigned(2))
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
      guard let role = Membership.Role(rawValue: row.text(3)) else {
        throw .damaged(table: "members", row: "\(id)", reason: "role is \(row.text(3))")
      }
      let node: NodeID? = try row.optional(1) { column throws(StoreError) in try Field("members", "\(id)").identifier(row, column) }
      result.members[id] = Membership.Member(raftID: id, node: node, address: row.text(2), role: role)
    }
    return result
  }

  private func loadState() throws(StoreError) -> ClusterState {
    var actions: [Action] = []
    let attachments = try loadAttachments()
    try loadCluster(&actions)
    try loadNodes(&actions, attachments)
    try loadServices(&actions)
    try loadRevisions(&actions)
    try loadTasks(&actions, attachments)
    try loadNetworks(&actions)
    try loadVolumes(&actions)
    try loadStacks(&actions)
    var state = ClusterState()
    state.restore(index: appliedIndex, actions: actions)
    // `restore` drops what contradicts; a database of ours holds no contradictions.
    guard state.objectCount == actions.count else {
      throw .damaged(table: "-", row: "-", reason: "\(actions.count) rows make \(state.objectCount) objects")
    }
    return state
  }

  func rows(_ sql: String, _ body: (Statement) throws(StoreError) -> Void) throws(StoreError) {
    try database.rows(try database.statement(sql)) { row throws(StoreError) in
      try body(row)
      return true
    }
  }
}

extension Store {
  private func loadAttachments() throws(StoreError) -> [[UInt8]: [NetworkAttachment]] {
    var result: [[UInt8]: [NetworkAttachment]] = [:]
    try rows("SELECT owner, network, address FROM attachments ORDER BY owner, position") { row throws(StoreError) in
      let owner = row.blob(0)
      let field = Field("attachments", owner)
      result[owner, default: []].append(
        NetworkAttachment(network: try field.identifier(row, 1), address: try field.parsed(row, 2)))
    }
    return result
  }

  private func loadCluster(_ actions: inout [Action]) throws(StoreError) {
    try rows("SELECT settings FROM cluster") { row throws(StoreError) in
      actions.append(.putCluster(try Field("cluster", "1").json(row, 0)))
    }
  }

  private func loadNodes(_ actions: inout [Action], _ attachments: [[UInt8]: [NetworkAttachment]]) throws(StoreError) {
    try rows(
      """
      SELECT id, spec, description, state, message, address, raft_id, manager_address, created_at, updated_at, version FROM nodes
      """
    ) { row throws(StoreError) in
      let field = Field("nodes", row.blob(0))
      var node = Node(id: try field.identifier(row, 0), spec: try field.json(row, 1), createdAt: row.instant(8))
      node.description = try row.optional(2) { column throws(StoreError) in try field.json(row, column) }
      guard let state = NodeState(rawValue: row.text(3)) else { throw field.damaged("state is \(row.text(3))") }
      node.status = NodeStatus(
        state: state, message: row.text(4), address: try row.optional(5) { column throws(StoreError) in try field.parsed(row, column) })
      if !row.isNull(6) { node.manager = ManagerStatus(raftID: RaftID(row.unsigned(6)), address: row.text(7)) }
      node.attachments = attachments[node.id.bytes] ?? []
      node.updatedAt = row.instant(9)
      node.version = row.unsigned(10)
      actions.append(.putNode(node))
    }
  }

  private func loadServices(_ actions: inout [Action]) throws(StoreError) {
    try rows(
      """
      SELECT id, name, current, previous, latest, update_status, endpoint, pending_delete, created_at, updated_at, version FROM services
      """
    ) { row throws(StoreError) in
      let field = Field("services", row.blob(0))
      var service = Service(id: try field.identifier(row, 0), name: row.text(1), createdAt: row.instant(8))
      service.current = row.unsigned(2)
      service.previous = row.isNull(3) ? nil : row.unsigned(3)
      service.latest = row.unsigned(4)
      service.updateStatus = try row.optional(5) { column throws(StoreError) in try field.json(row, column) }
      service.endpoint = try field.json(row, 6)
      service.pendingDelete = row.bool(7)
      service.updatedAt = row.instant(9)
      service.version = row.unsigned(10)
      actions.append(.putService(service))
    }
  }

  private func loadRevisions(_ actions: inout [Action]) throws(StoreError) {
    try rows("SELECT service, number, spec, template, created_at FROM revisions") { row throws(StoreError) in
      let field = Field("revisions", row.blob(0), " \(row.integer(1))")
      let key = ServiceRevision.Key(try field.identifier(row, 0), row.unsigned(1))
      let revision = ServiceRevision(key: key, spec: try field.json(row, 2), template: row.unsigned(3), createdAt: row.instant(4))
      actions.append(.putRevision(revision))
    }
  }

  private func loadTasks(_ actions: inout [Action], _ attachments: [[UInt8]: [NetworkAttachment]]) throws(StoreError) {
    try rows(
      """
      SELECT id, service, revision, slot, node, desired_state, state, state_at, message, error, container_id, pid, exit_code, oom_killed,
        created_at, restart_count, start_after, version, health FROM tasks
      """
    ) { row throws(StoreError) in
      let field = Field("tasks", row.blob(0))
      var task = ClusterTask(
        id: try field.identifier(row, 0), service: try field.identifier(row, 1), revision: row.unsigned(2), slot: row.unsigned(3),
        desiredState: try field.taskState(row, 5), createdAt: row.instant(14))
      task.node = try row.optional(4) { column throws(StoreError) in try field.identifier(row, column) }
      task.status = TaskStatus(
        state: try field.taskState(row, 6), timestamp: row.instant(7), message: row.text(8), error: row.text(9),
        containerID: row.isNull(10) ? nil : row.text(10), pid: row.isNull(11) ? nil : Int32(truncatingIfNeeded: row.integer(11)),
        exitCode: row.isNull(12) ? nil : Int32(truncatingIfNeeded: row.integer(12)), oomKilled: row.bool(13),
        health: try row.optional(18) { column throws(StoreError) in try field.json(row, column) })
      task.attachments = attachments[task.id.bytes] ?? []
      task.restartCount = UInt32(truncatingIfNeeded: row.integer(15))
      task.startAfter = row.instant(16)
      task.version = row.unsigned(17)
      actions.append(.createTask(task))
    }
  }

  private func loadNetworks(_ actions: inout [Action]) throws(StoreError) {
    try rows("SELECT id, spec, vni, subnet, created_at, version FROM networks") { row throws(StoreError) in
      let field = Field("networks", row.blob(0))
      var network = Network(id: try field.identifier(row, 0), spec: try field.json(row, 1), createdAt: row.instant(4))
      network.vni = row.isNull(2) ? nil : UInt32(truncatingIfNeeded: row.integer(2))
      network.subnet = try row.optional(3) { column throws(StoreError) in try field.parsed(row, column) }
      network.version = row.unsigned(5)
      actions.append(.putNetwork(network))
    }
  }

  private func loadVolumes(_ actions: inout [Action]) throws(StoreError) {
    try rows("SELECT name, labels, driver, driver_options, created_at, version FROM volumes") { row throws(StoreError) in
      let field = Field("volumes", row.text(0))
      var volume = Volume(
        name: row.text(0), labels: try field.json(row, 1), driver: row.text(2), driverOptions: try field.json(row, 3), createdAt: row.instant(4))
      volume.version = row.unsigned(5)
      actions.append(.putVolume(volume))
    }
  }

  private func loadStacks(_ actions: inout [Action]) throws(StoreError) {
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
      actions.append(.putStack(stack))
    }
  }
}

/// Reads columns of one row, naming it when it is damaged.
private struct Field {
  let table: String
  let row: String
  init(_ table: String, _ row: String) {
    self.table = table
    self.row = row
  }
  init(_ table: String, _ id: [UInt8], _ rest: String = "") {
    self.init(table, (Identifier<Never>(bytes: id)?.description ?? "\(id)") + rest)
  }

  func damaged(_ reason: String) -> StoreError { .damaged(table: table, row: row, reason: reason) }

  func identifier<Tag>(_ statement: Statement, _ column: Int32) throws(StoreError) -> Identifier<Tag> {
    let bytes = statement.blob(column)
    guard let id = Identifier<Tag>(bytes: bytes) else { throw damaged("column \(column): an id of \(bytes.count) bytes") }
    return id
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
