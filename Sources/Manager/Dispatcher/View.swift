import HashTreeCollections
import Model

/// The state as the agents were told it, with the indexes that say whom a change concerns. A persistent value: the view before a
/// change is kept by copying it.
struct View: Sendable {
  var state = ClusterState()
  /// Nodes that are on a network: those with a task there that has not ended, and those with an address of their own (ingress).
  private(set) var members = TreeDictionary<NetworkID, TreeSet<NodeID>>()
  /// The same the other way, with the number of reasons.
  private var reasons = TreeDictionary<NodeID, TreeDictionary<NetworkID, Int>>()
  var services = TreeDictionary<NetworkID, TreeSet<ServiceID>>()
  var tasks = TreeDictionary<NetworkID, TreeSet<TaskID>>()
  /// Tasks whose nodes are not told of their end yet: somebody may still be sent to them.
  var draining: Set<TaskID> = []
  /// Networks under which a service is indexed.
  private var networksOfService = TreeDictionary<ServiceID, TreeSet<NetworkID>>()
  /// How many hosts have a link of that MTU.
  private var linkMTUs: [Int: Int] = [:]

  init() {}

  init(_ state: ClusterState) {
    self.state = state
    for node in state.nodes.values { index(node: nil, node) }
    for service in state.services.values { index(service: service.id) }
    for task in state.tasks.values { index(task: nil, task) }
  }

  mutating func advance(to state: ClusterState, _ changes: [StateChange]) {
    self.state = state
    for change in changes {
      switch change {
      case .node(let old, let new): index(node: old, new)
      case .service(let old, let new): index(service: (new ?? old)!.id)
      case .revision(let key): index(service: key.service)
      case .task(let old, let new): index(task: old, new)
      case .network(let old, let new):
        // Services that publish ports are found under ingress, which may be the one that came or went.
        if (new ?? old)?.spec.ingress == true { for service in state.services.values { index(service: service.id) } }
      case .cluster, .volume, .stack, .file: break
      }
    }
  }

  private mutating func index(node old: Node?, _ new: Node?) {
    let id = (new ?? old)!.id
    if old?.linkMTU != new?.linkMTU {
      if let mtu = old?.linkMTU { linkMTUs[mtu] = (linkMTUs[mtu] ?? 0) > 1 ? linkMTUs[mtu]! - 1 : nil }
      if let mtu = new?.linkMTU { linkMTUs[mtu, default: 0] += 1 }
    }
    if old?.attachments == new?.attachments { return }
    for attachment in old?.attachments ?? [] { leave(id, attachment.network) }
    for attachment in new?.attachments ?? [] { enter(id, attachment.network) }
  }

  private mutating func enter(_ node: NodeID, _ network: NetworkID) {
    let count = reasons[node]?[network] ?? 0
    reasons[node, default: [:]][network] = count + 1
    if count == 0 { members[network, default: TreeSet()].insert(node) }
  }

  private mutating func leave(_ node: NodeID, _ network: NetworkID) {
    guard let count = reasons[node]?[network] else { return }
    reasons[node]![network] = count > 1 ? count - 1 : nil
    if count > 1 { return }
    if reasons[node]!.isEmpty { reasons[node] = nil }
    members[network]?.remove(node)
    if members[network]?.isEmpty == true { members[network] = nil }
  }

  /// Those that a node is on.
  func networks(of node: NodeID) -> [NetworkID] { reasons[node].map { Array($0.keys) } ?? [] }

  private mutating func index(task old: ClusterTask?, _ new: ClusterTask?) {
    let id = (new ?? old)!.id
    let (before, after) = (Self.place(old), Self.place(new))
    if before?.node != after?.node || before?.networks != after?.networks {
      // The new one first: who stays is not away in between.
      for network in after?.networks ?? [] { enter(after!.node, network) }
      for network in before?.networks ?? [] { leave(before!.node, network) }
    }
    if let old, let new, old.attachments == new.attachments { return }
    for attachment in old?.attachments ?? [] {
      tasks[attachment.network]?.remove(id)
      if tasks[attachment.network]?.isEmpty == true { tasks[attachment.network] = nil }
    }
    for attachment in new?.attachments ?? [] { tasks[attachment.network, default: TreeSet()].insert(id) }
  }

  /// Where a task puts its node; nil when it does not, or not any more.
  static func place(_ task: ClusterTask?) -> (node: NodeID, networks: [NetworkID])? {
    guard let task, let node = task.node, !task.status.state.isTerminal, !task.attachments.isEmpty else { return nil }
    return (node, task.attachments.map(\.network))
  }

  private mutating func index(service id: ServiceID) {
    for network in networksOfService[id] ?? TreeSet() {
      services[network]?.remove(id)
      if services[network]?.isEmpty == true { services[network] = nil }
    }
    let networks = TreeSet(state.services[id].map { self.networks(of: $0) } ?? [])
    networksOfService[id] = networks.isEmpty ? nil : networks
    for network in networks { services[network, default: TreeSet()].insert(id) }
  }

  /// Where a service is known: its spec's networks, those it has virtual IPs on, ingress if it publishes ports there.
  func networks(of service: Service) -> [NetworkID] {
    var networks = service.endpoint.virtualIPs.map(\.network)
    let spec = state.spec(of: service)
    networks += spec?.networks.compactMap { NetworkID($0.target) } ?? []
    if spec?.publishesThroughIngress == true, let ingress = state.network(named: Network.ingressName) { networks.append(ingress.id) }
    return networks
  }

  // MARK: - Items: what a node must know, as functions of the state

  /// nil: this node need not know it.
  func item(_ key: AssignmentItem.Key, for node: NodeID) -> AssignmentItem? {
    switch key {
    case .task(let id): task(id, for: node).map(AssignmentItem.task)
    case .revision(let key): needsRevision(key, node) ? revision(key).map(AssignmentItem.revision) : nil
    case .network(let id): network(id, for: node).map(AssignmentItem.network)
    case .service(let id): knowsService(id, node) ? service(id).map(AssignmentItem.service) : nil
    case .file(let id): file(id, for: node).map(AssignmentItem.file)
    case .endpoint(let task, let network):
      members[network]?.contains(node) == true ? endpoint(task, network).map(AssignmentItem.endpoint) : nil
    }
  }

  /// Everything a node must know, in the order of keys.
  func items(for node: NodeID) -> [AssignmentItem] {
    var keys: Set<AssignmentItem.Key> = []
    for network in networks(of: node) {
      keys.insert(.network(network))
      for service in services[network] ?? TreeSet() { keys.insert(.service(service)) }
      for task in tasks[network] ?? TreeSet() { keys.insert(.endpoint(task, network)) }
    }
    for task in state.tasks(on: node) {
      keys.insert(.task(task.id))
      keys.insert(.revision(.init(task.service, task.revision)))
      for file in files(of: task) { keys.insert(.file(file)) }
    }
    return keys.sorted().compactMap { item($0, for: node) }
  }

  /// Assigned and not forgotten. The progress that the agent itself reported is left out, so that it is not told its own news: only
  /// that it runs or has ended is kept, for an agent that lost its memory, and that it is unhealthy: then it is to stop, when nobody is sent to it.
  private func task(_ id: TaskID, for node: NodeID) -> ClusterTask? {
    guard var task = state.tasks[id], task.node == node, task.status.state >= .assigned else { return nil }
    task.version = 0
    task.status.health = task.isLeaving && task.status.health?.status == .unhealthy ? TaskHealth(status: .unhealthy) : nil
    if draining.contains(id) { task.desiredState = .running } else if task.isLeaving { task.desiredState = max(task.desiredState, .shutdown) }
    if task.status.state < .running { task.status = TaskStatus(state: .assigned, timestamp: task.createdAt, message: "assigned") }
    return task
  }

  /// Tasks of an earlier revision pull with what the service was last told: a registry takes the newest password.
  private func revision(_ key: ServiceRevision.Key) -> ServiceRevision? {
    guard var revision = state.revisions[key] else { return nil }
    if let spec = state.services[key.service].flatMap({ state.spec(of: $0) }) { revision.spec.registryLogin = spec.registryLogin }
    return revision
  }

  private func needsRevision(_ key: ServiceRevision.Key, _ node: NodeID) -> Bool {
    state.tasks(on: node).contains { $0.service == key.service && $0.revision == key.number && $0.status.state >= .assigned }
  }

  func files(of task: ClusterTask) -> [FileID] {
    state.spec(of: task)?.taskTemplate.containerSpec.files.compactMap { FileID($0.id) } ?? []
  }

  /// Only while a task there that has not ended uses it; what is told of it never changes.
  private func file(_ id: FileID, for node: NodeID) -> StoredFile? {
    guard var file = state.files[id] else { return nil }
    let isNeeded = state.tasks(on: node).contains { task in
      task.status.state >= .assigned && !task.status.state.isTerminal && state.spec(of: task)?.uses(id) == true
    }
    guard isNeeded else { return nil }
    (file.labels, file.updatedAt, file.version) = ([:], file.createdAt, 0)
    return file
  }

  private func network(_ id: NetworkID, for node: NodeID) -> NetworkAssignment? {
    guard members[id]?.contains(node) == true, let network = state.networks[id], let vni = network.vni, let subnet = network.subnet else {
      return nil
    }
    let own = address(of: node, on: id)
    // On ingress who has no address cannot be reached, nor reach the others.
    if network.spec.ingress == true, own == nil { return nil }
    var peers: [NetworkAssignment.Peer] = []
    for other in members[id] ?? TreeSet() where other != node {
      guard let underlay = state.nodes[other]?.status.address else { continue }
      peers.append(.init(node: other, underlay: underlay, address: address(of: other, on: id)))
    }
    peers.sort { $0.node < $1.node }
    // One for all: a host with a larger one would send what a host with a smaller link cannot take, and nobody tells it.
    let mtu = network.spec.mtu ?? (linkMTUs.keys.min() ?? NetworkSpec.linkMTU) - NetworkSpec.tunnelOverhead
    var assignment = NetworkAssignment(
      id: id, name: network.name, vni: vni, subnet: subnet, internalOnly: network.spec.internalOnly ?? false,
      ingress: network.spec.ingress ?? false, mtu: mtu, dataPathPort: state.cluster?.dataPathPort ?? 4789, nodeAddress: own, peers: peers)
    assignment.subnet6 = network.subnet6
    return assignment
  }

  private func address(of node: NodeID, on network: NetworkID) -> IPv4Address? {
    state.nodes[node]?.attachments.first { $0.network == network }?.address
  }

  private func knowsService(_ id: ServiceID, _ node: NodeID) -> Bool {
    guard let service = state.services[id] else { return false }
    return networks(of: service).contains { members[$0]?.contains(node) == true }
  }

  func service(_ id: ServiceID) -> ServiceRecord? {
    guard let service = state.services[id], let spec = state.spec(of: service) else { return nil }
    var short: [String] = []
    if let stack = spec.stack, service.name.hasPrefix(stack + "_") { short = [String(service.name.dropFirst(stack.utf8.count + 1))] }
    var names: [NetworkID: [String]] = [:]
    for network in spec.networks {
      guard let id = NetworkID(network.target) else { continue }
      var seen: Set<String> = []
      names[id] = ([service.name] + short + (network.aliases ?? [])).filter { seen.insert($0).inserted }
    }
    // A service on its way out answers no port: the next one may have it.
    let ports = service.pendingDelete ? [] : service.endpoint.ports
    var record = ServiceRecord(
      id: id, name: service.name, names: names, mode: spec.endpointMode, virtualIPs: service.endpoint.virtualIPs, ports: ports)
    if spec.labels?[TrafficDistribution.label] == TrafficDistribution.preferSameNode.rawValue { record.prefersSameNode = true }
    return record
  }

  func endpoint(_ id: TaskID, _ network: NetworkID) -> EndpointRecord? {
    guard let task = state.tasks[id], !task.status.state.isTerminal, let node = task.node.flatMap({ state.nodes[$0] }),
      let underlay = node.status.address, let attachment = task.attachments.first(where: { $0.network == network })
    else { return nil }
    var record = EndpointRecord(
      task: id, service: task.service, network: network, node: node.id, slot: task.slot, address: attachment.address, underlay: underlay,
      ready: task.isServing && (node.status.state == .ready || node.status.state == .unknown))
    record.lacksIPv6 = node.description?.lacksIPv6 == true
    record.lost = node.status.state == .down
    if let spec = state.spec(of: task), let hostname = spec.taskTemplate.containerSpec.hostname, !hostname.isEmpty {
      record.hostname = Placeholders(task, spec, node: node.id, hostname: node.hostname, platform: node.description?.platform).expand(hostname)
    }
    return record
  }
}

extension Node {
  /// nil until its agent has told of it.
  fileprivate var linkMTU: Int? { description.map { max(NetworkSpec.tunnelOverhead + 576, $0.underlayMTU ?? NetworkSpec.linkMTU) } }
}
