import HashTreeCollections

/// The replicated state at one log index. A persistent value: a copy is O(1), so a reader's snapshot never blocks the writer and
/// a core may try changes on a copy. `apply` is the one place that changes it, on every manager alike.
public struct ClusterState: Sendable {
  /// Raft index of the last applied entry.
  public private(set) var index: UInt64 = 0
  public private(set) var cluster: Cluster?
  public private(set) var nodes = TreeDictionary<NodeID, Node>()
  public private(set) var services = TreeDictionary<ServiceID, Service>()
  public private(set) var revisions = TreeDictionary<ServiceRevision.Key, ServiceRevision>()
  public private(set) var tasks = TreeDictionary<TaskID, ClusterTask>()
  public private(set) var networks = TreeDictionary<NetworkID, Network>()
  public private(set) var volumes = TreeDictionary<String, Volume>()
  public private(set) var stacks = TreeDictionary<String, Stack>()
  public private(set) var files = TreeDictionary<FileID, StoredFile>()

  // Indexes, kept by `apply`.
  private var serviceNames = TreeDictionary<String, ServiceID>()
  private var networkNames = TreeDictionary<String, NetworkID>()
  private var fileNames = TreeDictionary<StoredFile.Name, FileID>()
  private var serviceTasks = TreeDictionary<ServiceID, TreeSet<TaskID>>()
  private var nodeTasks = TreeDictionary<NodeID, TreeSet<TaskID>>()
  private var serviceRevisions = TreeDictionary<ServiceID, [UInt64]>()

  public init() {}

  // MARK: - Questions

  public func service(named name: String) -> Service? { serviceNames[name].flatMap { services[$0] } }
  public func network(named name: String) -> Network? { networkNames[name].flatMap { networks[$0] } }
  public func file(_ kind: StoredFile.Kind, named name: String) -> StoredFile? { fileNames[.init(kind, name)].flatMap { files[$0] } }
  /// Names of the services whose current spec uses it.
  public func users(of file: FileID) -> [String] {
    services.values.filter { !$0.pendingDelete && spec(of: $0)?.uses(file) == true }.map(\.name).sorted()
  }
  public func taskIDs(of service: ServiceID) -> TreeSet<TaskID> { serviceTasks[service] ?? TreeSet() }
  public func taskIDs(on node: NodeID) -> TreeSet<TaskID> { nodeTasks[node] ?? TreeSet() }
  public func tasks(of service: ServiceID) -> some Sequence<ClusterTask> { taskIDs(of: service).lazy.compactMap { tasks[$0] } }
  public func tasks(on node: NodeID) -> some Sequence<ClusterTask> { taskIDs(on: node).lazy.compactMap { tasks[$0] } }
  /// Ascending revision numbers that are still kept.
  public func revisionNumbers(of service: ServiceID) -> [UInt64] { serviceRevisions[service] ?? [] }
  public func revision(_ service: ServiceID, _ number: UInt64) -> ServiceRevision? { revisions[ServiceRevision.Key(service, number)] }
  public func spec(of service: Service) -> ServiceSpec? { revision(service.id, service.current)?.spec }
  public func spec(of task: ClusterTask) -> ServiceSpec? { revision(task.service, task.revision)?.spec }

  // MARK: - Change

  /// Applies the whole command at `index`, or none of it. Deterministic.
  public mutating func apply(_ command: Command, at index: UInt64) -> Result<[StateChange], Refusal> {
    precondition(index > self.index, "entry \(index) applied twice: the state is at \(self.index)")
    var next = self
    next.index = index
    do throws(Refusal) {
      for condition in command.conditions { try next.check(condition) }
      var changes: [StateChange] = []
      changes.reserveCapacity(command.actions.count)
      for action in command.actions { try next.perform(action, &changes) }
      self = next
      return .success(changes)
    } catch {
      self.index = index
      return .failure(error)
    }
  }

  /// An entry that changes nothing (a leader's first, a membership change) still moves the index.
  public mutating func skip(to index: UInt64) {
    precondition(index > self.index)
    self.index = index
  }

  /// For decisions: tries actions on a copy as if they were applied next. A refusal is a bug of the core that proposed them.
  public mutating func speculate(_ actions: [Action]) -> [StateChange] {
    var changes: [StateChange] = []
    for action in actions { try? perform(action, &changes) }
    return changes
  }

  /// Loads rows from the database or a snapshot; no conditions, no changes told.
  public mutating func restore(index: UInt64, actions: some Sequence<Action>) {
    for action in actions { restore(action) }
    restored(at: index)
  }

  /// One row; what contradicts an earlier one is left out. Questions about tasks have their answers after `restored`.
  public mutating func restore(_ row: Action) {
    if case .createTask(let task) = row {
      tasks[task.id] = task
      return
    }
    var ignored: [StateChange] = []
    try? perform(row, &ignored, keepVersions: true)
  }

  /// Ends a restoration. The tasks' indexes are made at once, one after the other: task by task each would touch memory all over.
  public mutating func restored(at index: UInt64) {
    self.index = index
    var ofService: [ServiceID: [TaskID]] = [:]
    var ofNode: [NodeID: [TaskID]] = [:]
    for task in tasks.values {
      ofService[task.service, default: []].append(task.id)
      if let node = task.node { ofNode[node, default: []].append(task.id) }
    }
    serviceTasks = TreeDictionary(uniqueKeysWithValues: ofService.lazy.map { ($0.key, TreeSet($0.value)) })
    nodeTasks = TreeDictionary(uniqueKeysWithValues: ofNode.lazy.map { ($0.key, TreeSet($0.value)) })
  }

  private func check(_ condition: Condition) throws(Refusal) {
    switch condition {
    case .nodeVersion(let id, let version):
      guard let node = nodes[id] else { throw .notFound(kind: "node", id: "\(id)") }
      if node.version != version { throw .outOfSequence }
    case .serviceVersion(let id, let version):
      guard let service = services[id] else { throw .notFound(kind: "service", id: "\(id)") }
      if service.version != version { throw .outOfSequence }
    case .networkVersion(let id, let version):
      guard let network = networks[id] else { throw .notFound(kind: "network", id: "\(id)") }
      if network.version != version { throw .outOfSequence }
    case .clusterVersion(let version): if (cluster?.version ?? 0) != version { throw .outOfSequence }
    case .stackRevision(let name, let revision): if (stacks[name]?.revision ?? 0) != revision { throw .outOfSequence }
    case .serviceExists(let id): if services[id] == nil { throw .notFound(kind: "service", id: "\(id)") }
    case .networkExists(let id): if networks[id] == nil { throw .notFound(kind: "network", id: "\(id)") }
    case .fileVersion(let id, let version):
      guard let file = files[id] else { throw .notFound(kind: "secret or config", id: "\(id)") }
      if file.version != version { throw .outOfSequence }
    case .fileExists(let id): if files[id] == nil { throw .notFound(kind: "secret or config", id: "\(id)") }
    }
  }

  private mutating func perform(_ action: Action, _ changes: inout [StateChange], keepVersions: Bool = false) throws(Refusal) {
    func stamped(_ version: UInt64) -> UInt64 { keepVersions ? version : index }
    switch action {
    case .putCluster(var cluster):
      cluster.version = stamped(cluster.version)
      self.cluster = cluster
      changes.append(.cluster)

    case .putNode(var node):
      let old = nodes[node.id]
      node.version = stamped(node.version)
      setNode(node, old, &changes)
    case .nodeSpec(let id, let spec, let at):
      let version = stamped(index)
      try changeNode(id, &changes) { ($0.spec, $0.updatedAt, $0.version) = (spec, at, version) }
    case .nodeStatus(let id, let status):
      try changeNode(id, &changes) { $0.status = status }
    case .nodeDescription(let id, let description):
      try changeNode(id, &changes) { $0.description = description }
    case .nodeAttachments(let id, let attachments):
      try changeNode(id, &changes) { $0.attachments = attachments }
    case .nodeManager(let id, let manager):
      try changeNode(id, &changes) { $0.manager = manager }
    case .removeNode(let id):
      guard let old = nodes.removeValue(forKey: id) else { return }
      changes.append(.node(old: old, new: nil))

    case .putService(var service):
      let old = services[service.id]
      if let holder = serviceNames[service.name], holder != service.id { throw .nameTaken(kind: "service", name: service.name) }
      service.version = stamped(service.version)
      if let old, old.name != service.name { serviceNames[old.name] = nil }
      serviceNames[service.name] = service.id
      services[service.id] = service
      changes.append(.service(old: old, new: service))
    case .serviceUpdateStatus(let id, let status):
      try changeService(id, &changes) { $0.updateStatus = status }
    case .serviceEndpoint(let id, let endpoint):
      try changeService(id, &changes) { $0.endpoint = endpoint }
    case .removeService(let id):
      guard let old = services.removeValue(forKey: id) else { return }
      serviceNames[old.name] = nil
      for number in serviceRevisions[id] ?? [] { revisions[ServiceRevision.Key(id, number)] = nil }
      serviceRevisions[id] = nil
      changes.append(.service(old: old, new: nil))
    case .putRevision(let revision):
      let known = revisions.updateValue(revision, forKey: revision.key) != nil
      if !known {
        var numbers = serviceRevisions[revision.key.service] ?? []
        let place = numbers.firstIndex { $0 > revision.key.number } ?? numbers.endIndex
        numbers.insert(revision.key.number, at: place)
        serviceRevisions[revision.key.service] = numbers
      }
      changes.append(.revision(revision.key))
    case .removeRevision(let key):
      guard revisions.removeValue(forKey: key) != nil else { return }
      serviceRevisions[key.service]?.removeAll { $0 == key.number }
      changes.append(.revision(key))

    case .createTask(var task):
      guard tasks[task.id] == nil else { throw .nameTaken(kind: "task", name: "\(task.id)") }
      task.version = stamped(task.version)
      setTask(task, nil, &changes)
    case .assignTask(let id, let node, let attachments, let status):
      guard let old = tasks[id] else { return }
      // Someone shut it down, or an earlier assignment won: harmless to drop.
      guard old.status.state <= .pending, old.node == nil else { return }
      var task = old
      task.node = node
      task.attachments = attachments
      task.status = status
      task.version = stamped(task.version)
      setTask(task, old, &changes)
    case .taskDesiredState(let id, let state):
      guard let old = tasks[id], state > old.desiredState else { return }
      var task = old
      task.desiredState = state
      task.version = stamped(task.version)
      setTask(task, old, &changes)
    case .taskStatus(let id, let status):
      guard let old = tasks[id], status.state >= old.status.state, status != old.status else { return }
      // A terminal state is the last word, but for the node's loss being told of it.
      if old.status.state.isTerminal && status.state != .orphaned && status.state != .remove { return }
      var task = old
      task.status = status
      task.version = stamped(task.version)
      setTask(task, old, &changes)
    case .removeTask(let id):
      guard let old = tasks.removeValue(forKey: id) else { return }
      remove(id, from: &serviceTasks, old.service)
      if let node = old.node { remove(id, from: &nodeTasks, node) }
      changes.append(.task(old: old, new: nil))

    case .putNetwork(var network):
      if let holder = networkNames[network.name], holder != network.id { throw .nameTaken(kind: "network", name: network.name) }
      let old = networks[network.id]
      if let old, old.name != network.name { networkNames[old.name] = nil }
      network.version = stamped(network.version)
      networkNames[network.name] = network.id
      networks[network.id] = network
      changes.append(.network(old: old, new: network))
    case .removeNetwork(let id):
      guard let old = networks[id] else { return }
      for service in services.values where !service.pendingDelete {
        if spec(of: service)?.networks.contains(where: { $0.target == id.description }) == true {
          throw .inUse(kind: "network", name: old.name, by: "service \(service.name)")
        }
      }
      networks[id] = nil
      networkNames[old.name] = nil
      changes.append(.network(old: old, new: nil))

    case .putVolume(var volume):
      let old = volumes[volume.name]
      volume.version = stamped(volume.version)
      volumes[volume.name] = volume
      changes.append(.volume(old: old, new: volume))
    case .removeVolume(let name):
      guard let old = volumes.removeValue(forKey: name) else { return }
      changes.append(.volume(old: old, new: nil))

    case .putFile(var file):
      if let holder = fileNames[file.fullName], holder != file.id { throw .nameTaken(kind: file.kind.rawValue, name: file.name) }
      let old = files[file.id]
      if let old, old.fullName != file.fullName { fileNames[old.fullName] = nil }
      file.version = stamped(file.version)
      fileNames[file.fullName] = file.id
      files[file.id] = file
      changes.append(.file(old: old, new: file))
    case .removeFile(let id):
      guard let old = files[id] else { return }
      let users = users(of: id)
      if !users.isEmpty {
        throw .inUse(kind: old.kind.rawValue, name: old.name, by: "service\(users.count == 1 ? "" : "s") \(users.joined(separator: ", "))")
      }
      files[id] = nil
      fileNames[old.fullName] = nil
      changes.append(.file(old: old, new: nil))

    case .putStack(var stack):
      let old = stacks[stack.name]
      stack.version = stamped(stack.version)
      stacks[stack.name] = stack
      changes.append(.stack(old: old, new: stack))
    case .removeStack(let name):
      guard let old = stacks.removeValue(forKey: name) else { return }
      changes.append(.stack(old: old, new: nil))
    }
  }

  private mutating func setNode(_ node: Node, _ old: Node?, _ changes: inout [StateChange]) {
    guard node != old else { return }
    nodes[node.id] = node
    changes.append(.node(old: old, new: node))
  }

  private mutating func changeNode(_ id: NodeID, _ changes: inout [StateChange], _ body: (inout Node) -> Void) throws(Refusal) {
    guard let old = nodes[id] else { throw .notFound(kind: "node", id: "\(id)") }
    var node = old
    body(&node)
    setNode(node, old, &changes)
  }

  private mutating func changeService(_ id: ServiceID, _ changes: inout [StateChange], _ body: (inout Service) -> Void) throws(Refusal) {
    // The service may have gone while a core decided: nothing to change then.
    guard let old = services[id] else { return }
    var service = old
    body(&service)
    guard service != old else { return }
    services[id] = service
    changes.append(.service(old: old, new: service))
  }

  private mutating func setTask(_ task: ClusterTask, _ old: ClusterTask?, _ changes: inout [StateChange]) {
    tasks[task.id] = task
    if old == nil { insert(task.id, into: &serviceTasks, task.service) }
    if old?.node != task.node, let node = task.node { insert(task.id, into: &nodeTasks, node) }
    changes.append(.task(old: old, new: task))
  }
}

private func insert<Key: Hashable>(_ id: TaskID, into index: inout TreeDictionary<Key, TreeSet<TaskID>>, _ key: Key) {
  index[key, default: TreeSet()].insert(id)
}

private func remove<Key: Hashable>(_ id: TaskID, from index: inout TreeDictionary<Key, TreeSet<TaskID>>, _ key: Key) {
  index[key]?.remove(id)
  if index[key]?.isEmpty == true { index[key] = nil }
}
