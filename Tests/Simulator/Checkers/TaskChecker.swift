import Model

/// The rules of tasks, addresses and ports, over every committed change and every container.
struct TaskChecker {
  private struct Place: Hashable {
    var network: NetworkID
    var address: IPv4Address
  }
  private enum Owner: Hashable {
    case task(TaskID), service(ServiceID), node(NodeID)
  }
  private struct Said: Hashable {
    var task: TaskID
    var node: NodeID
    var status: TaskStatus
  }
  private struct Slot: Hashable {
    var service: ServiceID
    var number: UInt64
    var node: NodeID?
    init(_ task: ClusterTask) {
      service = task.service
      number = task.slot
      node = task.slot == 0 ? task.node : nil
    }
    func holds(_ task: ClusterTask) -> Bool { task.slot == number && (node == nil || task.node == node) }
  }

  private var removed: Set<TaskID> = []
  private var said: Set<Said> = []
  private var startedOn: [TaskID: NodeID] = [:]
  private var owners: [Place: Owner] = [:]
  /// Tasks that were on a node when it was said to be down: their successors did not wait for their end.
  private var lost: Set<TaskID> = []
  private(set) var count = 0
  /// The index at which a task was wanted to stop, or was found to be unhealthy.
  private(set) var stoppedAt: [TaskID: UInt64] = [:]
  private(set) var unhealthyAt: [TaskID: UInt64] = [:]

  mutating func said(_ report: TaskReport, by node: NodeID) { said.insert(Said(task: report.task, node: node, status: report.status)) }

  mutating func started(_ id: TaskID, on node: NodeID) throws {
    if let other = startedOn.updateValue(node, forKey: id) {
      throw Violation(
        checker: other == node ? "one start" : "one node",
        what: "the container of task \(id) was started on \(other.value) and again on \(node.value)")
    }
  }

  mutating func check(_ changes: [StateChange], _ state: ClusterState) throws {
    var slots: Set<Slot> = []
    // First what is given back, then what is taken: one command may do both.
    for change in changes { release(change) }
    for change in changes {
      switch change {
      case .task(let old, let new):
        try check(old, new, state)
        if let new {
          slots.insert(Slot(new))
          // Decided before it was known that the node is lost.
          if old?.node == nil, let node = new.node, state.nodes[node]?.status.state == .down { lost.insert(new.id) }
          // It may have gone further within the same command.
          if let now = state.tasks[new.id], !now.status.state.isTerminal {
            for attachment in new.attachments { try take(attachment, .task(new.id), state) }
          }
        }
      case .service(_, let new?):
        for attachment in new.endpoint.virtualIPs { try take(attachment, .service(new.id), state) }
        try checkPorts(new, state)
      case .node(_, let new?):
        for attachment in new.attachments { try take(attachment, .node(new.id), state) }
        if new.status.state == .down { lost.formUnion(state.taskIDs(on: new.id)) }
      case .network(_, let new?): try check(new, state)
      default: break
      }
    }
    for slot in slots { try check(slot, state) }
  }

  // MARK: - Tasks

  private mutating func check(_ old: ClusterTask?, _ new: ClusterTask?, _ state: ClusterState) throws {
    guard let new else {
      removed.insert(old!.id)
      return
    }
    guard let old else {
      count += 1
      if removed.contains(new.id) { throw Violation(checker: "monotonic states", what: "task \(new.id) comes back after its removal") }
      return
    }
    func broken(_ checker: String, _ what: String) -> Violation { Violation(checker: checker, what: "task \(new.id): \(what)") }
    if new.status.state < old.status.state { throw broken("monotonic states", "from \(old.status.state) back to \(new.status.state)") }
    if new.desiredState < old.desiredState { throw broken("monotonic states", "wanted \(old.desiredState), then \(new.desiredState)") }
    if let node = old.node, new.node != node { throw broken("one node", "moves from node \(node.value) to \(new.node?.value ?? 0)") }
    if old.node != nil, new.attachments != old.attachments { throw broken("addresses", "changes its addresses") }
    if (old.service, old.slot, old.revision, old.createdAt) != (new.service, new.slot, new.revision, new.createdAt) {
      throw broken("one writer", "is another task now")
    }
    if !old.leaves, new.leaves { stoppedAt[new.id] = state.index }
    if new.isIll, unhealthyAt[new.id] == nil { unhealthyAt[new.id] = state.index }
    guard new.status != old.status, new.status.state > .assigned, new.status.state < .remove, let node = new.node else { return }
    guard said.contains(Said(task: new.id, node: node, status: new.status)) else {
      throw broken("one writer", "\(new.status.state) is written, which its agent never said (\(new.status.message) \(new.status.error))")
    }
  }

  /// Of those that are meant to run: one, with start-first two. And without start-first the next one runs when the one before has ended,
  /// unless that one's node was lost. (With it, an old one may still be on its way out when the next but one begins.)
  private func check(_ slot: Slot, _ state: ClusterState) throws {
    guard let service = state.services[slot.service] else { return }
    let specs = state.revisionNumbers(of: slot.service).compactMap { state.revision(slot.service, $0)?.spec }
    let startsFirst = specs.contains { $0.updateConfig?.order == .startFirst || $0.rollbackConfig?.order == .startFirst }
    let tasks = state.tasks(of: slot.service).filter(slot.holds)
    let meant = tasks.filter { $0.desiredState <= .running && !$0.status.state.isTerminal }
    let running = tasks.filter { $0.status.state == .running && !lost.contains($0.id) }
    for (kind, those, most) in [("are meant to run", meant, startsFirst ? 2 : 1), ("run", running, startsFirst ? Int.max : 1)]
    where those.count > most {
      throw Violation(
        checker: "slots",
        what: "\(service.name).\(slot.number): \(those.count) tasks \(kind): \(those.map { "\($0.id) \($0.status.state) wanted \($0.desiredState)" })"
      )
    }
  }

  // MARK: - Addresses and ports

  private mutating func release(_ change: StateChange) {
    switch change {
    case .task(let old?, let new):
      if new.map({ $0.status.state.isTerminal }) ?? true { for attachment in old.attachments { free(attachment, .task(old.id)) } }
    case .service(let old?, let new):
      for attachment in old.endpoint.virtualIPs where new?.endpoint.virtualIPs.contains(attachment) != true { free(attachment, .service(old.id)) }
    case .node(let old?, let new):
      for attachment in old.attachments where new?.attachments.contains(attachment) != true { free(attachment, .node(old.id)) }
    case .network(let old?, nil): owners = owners.filter { $0.key.network != old.id }
    default: break
    }
  }

  private mutating func free(_ attachment: NetworkAttachment, _ owner: Owner) {
    let place = Place(network: attachment.network, address: attachment.address)
    if owners[place] == owner { owners[place] = nil }
  }

  private mutating func take(_ attachment: NetworkAttachment, _ owner: Owner, _ state: ClusterState) throws {
    let place = Place(network: attachment.network, address: attachment.address)
    if let other = owners[place], other != owner {
      throw Violation(
        checker: "addresses", what: "\(attachment.address) belongs to \(describe(other, state)) and is given to \(describe(owner, state))")
    }
    owners[place] = owner
  }

  private func describe(_ owner: Owner, _ state: ClusterState) -> String {
    switch owner {
    case .task(let id): "task \(id) (\(state.tasks[id].map { "\($0.status.state) wanted \($0.desiredState) on \($0.node?.value ?? 0)" } ?? "gone"))"
    case .service(let id): "service \(state.services[id]?.name ?? "\(id)")"
    case .node(let id): "node \(id.value)"
    }
  }

  private func checkPorts(_ service: Service, _ state: ClusterState) throws {
    guard !service.pendingDelete else { return }
    for port in service.endpoint.ports where (port.publishMode ?? .ingress) == .ingress {
      guard let claim = PortClaim(port) else { continue }
      for other in state.services.values where other.id != service.id && !other.pendingDelete {
        if other.endpoint.ports.contains(where: { ($0.publishMode ?? .ingress) == .ingress && PortClaim($0)?.overlaps(claim) ?? false }) {
          throw Violation(checker: "ports", what: "port \(claim) belongs to \(other.name) and is given to \(service.name)")
        }
      }
    }
  }

  private func check(_ network: Network, _ state: ClusterState) throws {
    for other in state.networks.values where other.id != network.id {
      if let vni = network.vni, other.vni == vni { throw Violation(checker: "addresses", what: "VNI \(vni) of \(network.name) and \(other.name)") }
      let mayOverlap = (network.spec.ipam != nil || other.spec.ipam != nil) && network.spec.ingress != true && other.spec.ingress != true
      if !mayOverlap, let a = network.subnet, let b = other.subnet, a.overlaps(b) {
        throw Violation(checker: "addresses", what: "subnet \(a) of \(network.name) overlaps \(b) of \(other.name)")
      }
    }
  }
}

extension ClusterTask {
  fileprivate var isIll: Bool { status.state == .running && status.health?.status == .unhealthy }
  fileprivate var leaves: Bool { desiredState > .running || isIll }
}
