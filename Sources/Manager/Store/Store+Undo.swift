import Model
import Replica
import Wire

/// Rows of a flush that is not whole yet can be put back.
extension Store {
  /// What the rows are in `state`, in the transaction that changes them.
  func keep(_ rows: [RowKey], in state: ClusterState) throws(StoreError) {
    var blob: [UInt8] = []
    for row in rows {
      for action in row.actions(in: state) {
        guard let bytes = try? action.serialized() else { throw .io(operation: "write undo", cause: "\(row) cannot be serialised") }
        withUnsafeBytes(of: UInt32(bytes.count).littleEndian) { blob.append(contentsOf: $0) }
        blob.append(contentsOf: bytes)
      }
    }
    try database.run("INSERT INTO undo VALUES (NULL, ?, ?)", .blob(blob), .integer(Self.checksum(blob)))
  }

  /// Before anything is read of the rows: those of slices whose flush did not become whole are as before it.
  func takeBack() throws(StoreError) {
    var slices: [[UInt8]] = []
    try rows("SELECT slice, actions, checksum FROM undo") { row throws(StoreError) in
      let blob = row.blob(1)
      guard row.integer(2) == Int64(Self.checksum(blob)) else {
        throw .damaged(table: "undo", row: "\(row.integer(0))", reason: "checksum is \(Self.checksum(blob)), \(row.integer(2)) was stored")
      }
      slices.append(blob)
    }
    if !slices.isEmpty {
      try database.transaction { () throws(StoreError) in
        for slice in slices { try takeBack(slice) }
        try database.run("DELETE FROM undo")
      }
    }
    isFlushing = false
    gate.open()
  }

  private func takeBack(_ slice: [UInt8]) throws(StoreError) {
    var before = ClusterState()
    var keys: [RowKey] = []
    var rest = slice[...]
    while !rest.isEmpty {
      let length = rest.prefix(4).reversed().reduce(0) { $0 << 8 | Int($1) }
      guard rest.count >= 4 + length, let action = try? Action(serialized: Array(rest.dropFirst(4).prefix(length))) else {
        throw .damaged(table: "undo", row: "-", reason: "cannot be read by this version of orch-manager")
      }
      before.restore(action)
      keys += RowKey.rows(of: action)
      rest = rest.dropFirst(4 + length)
    }
    try putRows(keys, in: before)
  }

  private static func checksum(_ bytes: [UInt8]) -> UInt32 {
    var crc = CRC32C()
    crc.add(bytes)
    return crc.value
  }
}

extension RowKey {
  /// What makes the row as it is in the state, or removes it where it is not; with what its removal takes along.
  fileprivate func actions(in state: ClusterState) -> [Action] {
    switch self {
    // A cluster is never removed: there is nothing to do where none was.
    case .cluster: state.cluster.map { [.putCluster($0)] } ?? []
    case .node(let id): [state.nodes[id].map(Action.putNode) ?? .removeNode(id)]
    case .service(let id):
      [state.services[id].map(Action.putService) ?? .removeService(id)]
        + state.revisionNumbers(of: id).compactMap { state.revision(id, $0) }.map(Action.putRevision)
    case .revision(let key): [state.revisions[key].map(Action.putRevision) ?? .removeRevision(key)]
    case .task(let id): [state.tasks[id].map(Action.createTask) ?? .removeTask(id)]
    case .network(let id): [state.networks[id].map(Action.putNetwork) ?? .removeNetwork(id)]
    case .volume(let name): [state.volumes[name].map(Action.putVolume) ?? .removeVolume(name)]
    case .stack(let name): [state.stacks[name].map(Action.putStack) ?? .removeStack(name)]
    case .file(_, let id): [state.files[id].map(Action.putFile) ?? .removeFile(id)]
    }
  }

  /// Of an action of `actions(in:)`.
  fileprivate static func rows(of action: Action) -> [RowKey] {
    switch action {
    case .putCluster: [.cluster]
    case .putNode(let node): [.node(node.id)]
    case .removeNode(let id): [.node(id)]
    case .putService(let service): [.service(service.id)]
    case .removeService(let id): [.service(id)]
    case .putRevision(let revision): [.revision(revision.key)]
    case .removeRevision(let key): [.revision(key)]
    case .createTask(let task): [.task(task.id)]
    case .removeTask(let id): [.task(id)]
    case .putNetwork(let network): [.network(network.id)]
    case .removeNetwork(let id): [.network(id)]
    case .putVolume(let volume): [.volume(volume.name)]
    case .removeVolume(let name): [.volume(name)]
    case .putStack(let stack): [.stack(stack.name)]
    case .removeStack(let name): [.stack(name)]
    case .putFile(let file): [.file(file.kind, file.id)]
    case .removeFile(let id): StoredFile.Kind.allCases.map { .file($0, id) }
    case .nodeSpec, .nodeStatus, .nodeDescription, .nodeAttachments, .nodeManager, .serviceUpdateStatus, .serviceEndpoint, .assignTask,
      .taskDesiredState, .taskStatus:
      []
    }
  }
}
