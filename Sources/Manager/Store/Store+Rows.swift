import Model

/// Rows of the replicated state: written as they are in a given state, or deleted when they are not in it.
extension Store {
  func putRows(_ keys: [RowKey], in state: ClusterState) throws(StoreError) {
    for key in keys { try putRow(key, in: state) }
  }

  func putEverything(in state: ClusterState) throws(StoreError) {
    if let cluster = state.cluster { try put(cluster) }
    for node in state.nodes.values { try put(node, replaces: false) }
    for service in state.services.values { try put(service) }
    for revision in state.revisions.values { try put(revision) }
    for task in state.tasks.values { try put(task, replaces: false) }
    for network in state.networks.values { try put(network) }
    for volume in state.volumes.values { try put(volume) }
    for stack in state.stacks.values { try put(stack) }
    for file in state.files.values { try put(file) }
  }

  private func putRow(_ key: RowKey, in state: ClusterState) throws(StoreError) {
    switch key {
    case .cluster:
      if let cluster = state.cluster { try put(cluster) }
    case .node(let id):
      if let node = state.nodes[id] { return try put(node, replaces: true) }
      try database.run("DELETE FROM nodes WHERE id = ?", .blob(id.bytes))
      try database.run("DELETE FROM attachments WHERE owner = ?", .blob(id.bytes))
    case .service(let id):
      if let service = state.services[id] { return try put(service) }
      try database.run("DELETE FROM services WHERE id = ?", .blob(id.bytes))
      // Their removal is implied by the service's.
      try database.run("DELETE FROM revisions WHERE service = ?", .blob(id.bytes))
    case .revision(let key):
      if let revision = state.revisions[key] { return try put(revision) }
      try database.run("DELETE FROM revisions WHERE service = ? AND number = ?", .blob(key.service.bytes), .integer(key.number))
    case .task(let id):
      if let task = state.tasks[id] { return try put(task, replaces: true) }
      try database.run("DELETE FROM tasks WHERE id = ?", .blob(id.bytes))
      try database.run("DELETE FROM attachments WHERE owner = ?", .blob(id.bytes))
    case .network(let id):
      if let network = state.networks[id] { return try put(network) }
      try database.run("DELETE FROM networks WHERE id = ?", .blob(id.bytes))
    case .volume(let name):
      if let volume = state.volumes[name] { return try put(volume) }
      try database.run("DELETE FROM volumes WHERE name = ?", .text(name))
    case .stack(let name):
      if let stack = state.stacks[name] { return try put(stack) }
      try database.run("DELETE FROM stacks WHERE name = ?", .text(name))
    case .file(let kind, let id):
      if let file = state.files[id] { return try put(file) }
      try database.run("DELETE FROM \(kind.table) WHERE id = ?", .blob(id.bytes))
    }
  }

  private func put(_ cluster: Cluster) throws(StoreError) {
    try database.run(
      "INSERT OR REPLACE INTO cluster VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?)", .blob(cluster.id.bytes), .integer(cluster.createdAt.nanoseconds),
      JSON.text(cluster), .integer(cluster.version), .text(cluster.addressPool.description), .integer(cluster.subnetLength),
      .integer(cluster.dataPathPort), .integer(cluster.taskHistory))
  }

  private func put(_ node: Node, replaces: Bool) throws(StoreError) {
    try database.run(
      "INSERT OR REPLACE INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", .blob(node.id.bytes), JSON.text(node.spec),
      .optional(node.description) { JSON.text($0) }, .text(node.status.state.rawValue), .text(node.status.message),
      .optional(node.status.address) { .text($0.description) }, .optional(node.manager) { .integer($0.raftID.rawValue) },
      .optional(node.manager) { .text($0.address) }, .integer(node.createdAt.nanoseconds), .integer(node.updatedAt.nanoseconds),
      .integer(node.version))
    try put(node.attachments, of: node.id.bytes, replaces: replaces)
  }

  private func put(_ service: Service) throws(StoreError) {
    try database.run(
      "INSERT OR REPLACE INTO services VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", .blob(service.id.bytes), .text(service.name),
      .integer(service.current), .optional(service.previous) { .integer($0) }, .integer(service.latest),
      .optional(service.updateStatus) { JSON.text($0) }, JSON.text(service.endpoint), .bool(service.pendingDelete),
      .integer(service.createdAt.nanoseconds), .integer(service.updatedAt.nanoseconds), .integer(service.version))
  }

  private func put(_ revision: ServiceRevision) throws(StoreError) {
    try database.run(
      "INSERT OR REPLACE INTO revisions VALUES (?, ?, ?, ?, ?)", .blob(revision.key.service.bytes), .integer(revision.key.number),
      JSON.text(revision.spec), .integer(revision.template), .integer(revision.createdAt.nanoseconds))
  }

  private func put(_ task: ClusterTask, replaces: Bool) throws(StoreError) {
    let status = task.status
    try database.run(
      "INSERT OR REPLACE INTO tasks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", .blob(task.id.bytes),
      .blob(task.service.bytes), .integer(task.revision), .integer(task.slot), .optional(task.node) { .blob($0.bytes) },
      .integer(task.desiredState.rawValue), .integer(status.state.rawValue), .integer(status.timestamp.nanoseconds), .text(status.message),
      .text(status.error), .optional(status.containerID) { .text($0) }, .optional(status.pid) { .integer($0) },
      .optional(status.exitCode) { .integer($0) }, .bool(status.oomKilled), .integer(task.createdAt.nanoseconds), .integer(task.restartCount),
      .integer(task.startAfter.nanoseconds), .integer(task.version), .optional(status.health) { JSON.text($0) })
    try put(task.attachments, of: task.id.bytes, replaces: replaces)
  }

  private func put(_ attachments: [NetworkAttachment], of owner: [UInt8], replaces: Bool) throws(StoreError) {
    if replaces { try database.run("DELETE FROM attachments WHERE owner = ?", .blob(owner)) }
    for (position, attachment) in attachments.enumerated() {
      try database.run(
        "INSERT INTO attachments VALUES (?, ?, ?, ?)", .blob(owner), .integer(position), .blob(attachment.network.bytes),
        .text(attachment.address.description))
    }
  }

  private func put(_ network: Network) throws(StoreError) {
    try database.run(
      "INSERT OR REPLACE INTO networks VALUES (?, ?, ?, ?, ?, ?, ?, ?)", .blob(network.id.bytes), .text(network.name), JSON.text(network.spec),
      .optional(network.vni) { .integer($0) }, .optional(network.subnet) { .text($0.description) }, .integer(network.createdAt.nanoseconds),
      .integer(network.version), .optional(network.subnet6) { .text($0.description) })
  }

  private func put(_ volume: Volume) throws(StoreError) {
    try database.run(
      "INSERT OR REPLACE INTO volumes VALUES (?, ?, ?, ?, ?, ?)", .text(volume.name), JSON.text(volume.labels), .text(volume.driver),
      JSON.text(volume.driverOptions), .integer(volume.createdAt.nanoseconds), .integer(volume.version))
  }

  private func put(_ file: StoredFile) throws(StoreError) {
    try database.run(
      "INSERT OR REPLACE INTO \(file.kind.table) VALUES (?, ?, ?, ?, ?, ?, ?)", .blob(file.id.bytes), .text(file.name), JSON.text(file.labels),
      .blob(file.data), .integer(file.createdAt.nanoseconds), .integer(file.updatedAt.nanoseconds), .integer(file.version))
  }

  private func put(_ stack: Stack) throws(StoreError) {
    try database.run(
      "INSERT OR REPLACE INTO stacks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", .text(stack.name), .integer(stack.revision), .text(stack.manifest),
      JSON.text(stack.services), JSON.text(stack.networks), JSON.text(stack.volumes), .integer(stack.createdAt.nanoseconds),
      .integer(stack.updatedAt.nanoseconds), .integer(stack.version))
  }
}

extension StoredFile.Kind {
  var table: String { rawValue + "s" }
}
