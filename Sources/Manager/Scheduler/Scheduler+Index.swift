import Model

extension Scheduler {
  /// Everything anew from the rows. O(nodes + tasks).
  public mutating func reset(_ state: ClusterState) {
    self = Scheduler()
    for node in state.nodes.values { observe(.node(old: nil, new: node), state: state) }
    for task in state.tasks.values { observe(.task(old: nil, new: task), state: state) }
    freed = true
  }

  /// Follows a change; `state` is any state that has the revisions of the tasks in it.
  public mutating func observe(_ change: StateChange, state: ClusterState) {
    switch change {
    case .node(let old, let new):
      if let new { learn(new) } else if let old { forget(old.id) }
    case .task(let old, let new):
      let id = (new ?? old)!.id
      if let new, let old, new.status.state == .failed || new.status.state == .rejected, !old.status.state.isTerminal { noteFailure(new) }
      let before = shares[id]
      drop(id)
      if let new { take(new, state) }
      if let before, shares[id] == nil || (before.counts && shares[id]?.counts == false) { freed = true }
    case .service(let old, let new):
      if let old, new == nil {
        failures[old.id] = nil
        serviceTasks[old.id] = nil
      }
    case .revision(let key): if state.revision(key.service, key.number) == nil { demands[key] = nil }
    case .cluster, .network, .volume, .stack, .file: break
    }
  }

  private mutating func learn(_ node: Node) {
    let usable = node.status.state == .ready && node.spec.availability == .active && node.description != nil
    let (cpu, memory) = (node.description?.resources.nanoCPUs ?? 0, node.description?.resources.memoryBytes ?? 0)
    guard let place = places[node.id] else {
      places[node.id] = nodes.count
      nodes.append(node)
      loads.append(Load(usable: usable, cpuFree: cpu, memoryFree: memory))
      hostPorts.append(PortClaims())
      takenPorts.append(Self.taken(node))
      freed = true
      return
    }
    let old = nodes[place]
    loads[place].cpuFree += cpu - (old.description?.resources.nanoCPUs ?? 0)
    loads[place].memoryFree += memory - (old.description?.resources.memoryBytes ?? 0)
    loads[place].usable = usable
    if old.description?.portConflicts != node.description?.portConflicts { takenPorts[place] = Self.taken(node) }
    nodes[place] = node
    if old.spec != node.spec || old.description != node.description || old.status != node.status { freed = true }
  }

  private static func taken(_ node: Node) -> PortClaims<NodeDescription.Holder?> {
    var taken = PortClaims<NodeDescription.Holder?>()
    for conflict in node.description?.portConflicts ?? [] { taken.insert(conflict.claim, conflict.holder) }
    return taken
  }

  /// The place stays empty until the next `reset`: nodes are removed rarely.
  private mutating func forget(_ id: NodeID) {
    guard let place = places.removeValue(forKey: id) else { return }
    loads[place].usable = false
  }

  private mutating func take(_ task: ClusterTask, _ state: ClusterState) {
    guard let node = task.node, task.status.state >= .assigned, !task.status.state.isTerminal, let place = places[node] else { return }
    let share = Share(place: place, service: task.service, counts: task.desiredState <= .running, demand: demand(of: task, state))
    shares[task.id] = share
    loads[place].cpuFree -= share.demand.cpu
    loads[place].memoryFree -= share.demand.memory
    for port in share.demand.ports { hostPorts[place].insert(port, task.id) }
    if share.counts {
      loads[place].tasks += 1
      serviceTasks[task.service, default: [:]][place, default: 0] += 1
    }
  }

  private mutating func drop(_ id: TaskID) {
    guard let share = shares.removeValue(forKey: id) else { return }
    let place = share.place
    loads[place].cpuFree += share.demand.cpu
    loads[place].memoryFree += share.demand.memory
    for port in share.demand.ports { hostPorts[place].remove(port, id) }
    if share.counts {
      loads[place].tasks -= 1
      let count = (serviceTasks[share.service]?[place] ?? 1) - 1
      serviceTasks[share.service]?[place] = count > 0 ? count : nil
    }
  }

  private mutating func demand(of task: ClusterTask, _ state: ClusterState) -> Demand {
    let key = ServiceRevision.Key(task.service, task.revision)
    if let known = demands[key] { return known }
    guard let spec = state.revision(task.service, task.revision)?.spec else { return Demand() }
    let demand = Demand(spec)
    demands[key] = demand
    return demand
  }

  private mutating func noteFailure(_ task: ClusterTask) {
    guard let node = task.node, let place = places[node] else { return }
    var times = failures[task.service]?[place] ?? []
    times.append(task.status.timestamp)
    if times.count > Self.failuresMax { times.removeFirst() }
    failures[task.service, default: [:]][place] = times
  }

  func isFailing(_ service: ServiceID, at place: Int, now: Timestamp) -> Bool {
    guard let times = failures[service]?[place], times.count >= Self.failuresMax else { return false }
    return times[0] + Self.failureWindow > now
  }
}

extension Scheduler.Demand {
  init(_ spec: ServiceSpec) {
    cpu = spec.taskTemplate.resources?.reservations?.nanoCPUs ?? 0
    memory = spec.taskTemplate.resources?.reservations?.memoryBytes ?? 0
    ports = spec.ports.lazy.filter { $0.publishMode == .host }.compactMap { PortClaim($0) }
  }
}
