import Allocator
import Model
import Scheduler

// Networks, endpoints, nodes' addresses, and the way from NEW to ASSIGNED.
extension Reconciler {
  /// A lost node's tasks are given up after this (SwarmKit's default for orphaned tasks).
  static let orphanAfter = Nanoseconds.seconds(24 * 3600)

  mutating func allocateNetworks(_ plan: inout Plan, _ now: Timestamp, _ generator: inout some RandomNumberGenerator) {
    if plan.world.cluster != nil, allocator.ingress == nil, plan.world.network(named: Network.ingressName) == nil {
      let network = Network(id: .random(using: &generator), spec: .publishing, createdAt: now)
      dirtyNetworks.insert(network.id)
      // Created and given its subnet in one go below, when it may have one.
      if tellsRoutes(plan.world) { _ = plan.world.speculate([.putNetwork(network)]) } else { emit(.putNetwork(network), &plan) }
    }
    // Declared subnets first: nobody else may be given a part of them.
    let networks = dirtyNetworks.compactMap { plan.world.networks[$0] }
      .sorted { ($0.spec.ipam == nil ? 1 : 0, $0.createdAt, $0.id) < ($1.spec.ipam == nil ? 1 : 0, $1.createdAt, $1.id) }
    dirtyNetworks = []
    for network in networks where network.vni == nil || network.subnet == nil || network.lacksSubnet6 {
      // Its subnet goes around the hosts' routes: not before the first host has told its own.
      if network.spec.ingress == true, network.subnet == nil, !tellsRoutes(plan.world) { continue }
      do throws(AllocationRefusal) {
        let given = try allocator.allocate(network, cluster: plan.world.cluster, state: plan.world)
        refusedNetworks[network.id] = nil
        emit(.putNetwork(given), &plan)
        dirty.formUnion(refusedEndpoints.keys)
        dirty.formUnion(waiting.keys)
      } catch {
        refusedNetworks[network.id] = error.description
      }
    }
  }

  /// An agent tells its host's address and routes in one.
  private func tellsRoutes(_ state: ClusterState) -> Bool { state.nodes.values.contains { $0.status.address != nil } }

  /// Ports and virtual IPs; remembers why not.
  mutating func allocateEndpoint(_ service: Service, _ spec: ServiceSpec, _ plan: inout Plan) {
    do throws(AllocationRefusal) {
      for id in allocator.networks(of: spec) { if let reason = refusedNetworks[id] { throw AllocationRefusal(reason) } }
      takeBack(for: service, spec, &plan)
      let endpoint = try allocator.endpoint(for: service, spec: spec, state: plan.world)
      if refusedEndpoints.removeValue(forKey: service.id) != nil { dirty.insert(service.id) }
      if endpoint != service.endpoint { emit(.serviceEndpoint(service.id, endpoint), &plan) }
    } catch {
      lacksAddresses = true
      refusedEndpoints[service.id] = error.description
    }
  }

  /// Numbers that this service fixes, and that others were given and do not want any more: theirs no longer, lest two that exchange theirs wait for each other.
  private mutating func takeBack(for service: Service, _ spec: ServiceSpec, _ plan: inout Plan) {
    for id in allocator.holders(inTheWayOf: spec.ports, of: service.id).sorted() {
      guard let holder = plan.world.services[id], let wanted = plan.world.spec(of: holder)?.ports else { continue }
      var endpoint = holder.endpoint
      endpoint.ports = wanted.kept(of: endpoint.ports)
      if endpoint == holder.endpoint { continue }
      emit(.serviceEndpoint(id, endpoint), &plan)
      dirty.insert(id)
    }
  }

  /// Every node has an address on ingress: what is published comes and goes by it. On other networks hosts have none.
  mutating func addressNodes(_ plan: inout Plan) {
    let ids = dirtyNodes.sorted()
    dirtyNodes = []
    for id in ids {
      guard let node = plan.world.nodes[id], node.description != nil else { continue }
      let networks = allocator.ingress.map { [$0] }?.filter { plan.world.networks[$0]?.subnet != nil } ?? []
      // On a full network the node stays without an address there until one is free.
      let attachments = try? allocator.attachments(for: node, on: networks, state: plan.world)
      if attachments == nil {
        lacksAddresses = true
        unaddressed.insert(id)
      }
      if attachments ?? [] != node.attachments { emit(.nodeAttachments(id, attachments ?? []), &plan) }
    }
  }

  mutating func schedule(_ services: [ServiceID], _ plan: inout Plan, _ now: Timestamp) {
    var isComplete = true
    for id in services {
      guard let service = plan.world.services[id] else { continue }
      let tasks = (waiting[id] ?? []).compactMap { plan.world.tasks[$0] }.sorted { ($0.slot, $0.id) < ($1.slot, $1.id) }
      for (revision, group) in Dictionary(grouping: tasks, by: \.revision).sorted(by: { $0.key < $1.key }) {
        guard let spec = plan.world.revision(id, revision)?.spec else { continue }
        // What is to be created anyway is decided now; the rest must fit into the decision.
        let fits =
          group.filter { plan.created[$0.id] != nil } + group.filter { plan.created[$0.id] == nil }.prefix(max(0, plan.limit - plan.actions.count))
        if fits.count < group.count { isComplete = false }
        assign(fits, service, spec, &plan, now)
      }
    }
    if scheduler.freed {
      // Their nodes are given, so they are tried by `cover`: in the next decision.
      dirty.formUnion(heldGlobals)
      heldGlobals = []
    }
    if isComplete { scheduler.clearFreed() }
  }

  private mutating func assign(_ tasks: [ClusterTask], _ service: Service, _ spec: ServiceSpec, _ plan: inout Plan, _ now: Timestamp) {
    if let reason = refusedEndpoints[service.id] {
      for task in tasks { hold(task, reason, &plan, now) }
      return
    }
    var tasks = tasks
    if let reason = unmet(service, spec, plan.world) {
      let ready = successors(among: tasks, of: service.id, plan.world)
      for task in tasks where !ready.contains(where: { $0.id == task.id }) { hold(task, reason, &plan, now, isError: false) }
      tasks = ready
      if tasks.isEmpty { return }
    }
    let placement = scheduler.place(service.id, spec: spec, count: tasks.count, now: now)
    for (task, node) in zip(tasks, placement.nodes) {
      do throws(AllocationRefusal) {
        let attachments = try allocator.attachments(for: task.id, spec: spec, state: plan.world)
        do throws(AllocationRefusal) { try address(node, on: attachments.map(\.network), &plan) } catch {
          allocator.withdraw(attachments, from: task.id)
          throw error
        }
        emit(.assignTask(task.id, node: node, attachments: attachments, status: assigned(now)), &plan)
      } catch {
        lacksAddresses = true
        hold(task, error.description, &plan, now)
      }
    }
    for task in tasks.dropFirst(placement.nodes.count) { hold(task, placement.shortfall ?? "", &plan, now) }
  }

  /// The host of a task on ingress needs an address of its own there: without one the task could not start.
  private mutating func address(_ id: NodeID, on networks: [NetworkID], _ plan: inout Plan) throws(AllocationRefusal) {
    guard let ingress = allocator.ingress, networks.contains(ingress), let node = plan.world.nodes[id] else { return }
    if node.attachments.contains(where: { $0.network == ingress }) { return }
    do throws(AllocationRefusal) {
      let attachments = try allocator.attachments(for: node, on: [ingress], state: plan.world)
      emit(.nodeAttachments(id, attachments), &plan)
    } catch {
      throw AllocationRefusal("\(error.description); host \(node.hostname) needs one of its own beside the task's")
    }
  }

  func assigned(_ now: Timestamp) -> TaskStatus {
    TaskStatus(state: .assigned, timestamp: now, message: "scheduler assigned task to node")
  }

  /// The task stays pending and says why.
  private mutating func hold(_ task: ClusterTask, _ reason: String, _ plan: inout Plan, _ now: Timestamp, isError: Bool = true) {
    let status = TaskStatus(
      state: .pending, timestamp: now, message: isError ? "pending task scheduling" : reason, error: isError ? reason : "")
    if task.status.state == .pending, task.status.error == status.error, task.status.message == status.message { return }
    emit(.assignTask(task.id, node: nil, attachments: [], status: status), &plan)
  }

  /// Networks of a stack that is removed, or that its latest manifest does not declare any more, once nothing uses them.
  mutating func removeUnusedNetworks(_ plan: inout Plan) {
    checkStacks = false
    guard !plan.world.stacks.isEmpty else { return }
    var used: Set<String> = []
    var stacksWithServices: Set<String> = []
    for service in plan.world.services.values {
      guard let spec = plan.world.spec(of: service) else { continue }
      for network in spec.networks { used.insert(network.target) }
      if let stack = spec.stack { stacksWithServices.insert(stack) }
    }
    var stacksWithNetworks: Set<String> = []
    for network in plan.world.networks.values.sorted(by: { $0.id < $1.id }) {
      guard let name = network.spec.labels?[StackLabel.namespace], let stack = plan.world.stacks[name] else { continue }
      let unwanted = stack.isBeingRemoved || (!stack.networks.contains(network.id) && network.createdAt < stack.updatedAt)
      if unwanted, !used.contains(network.id.description) {
        if !allocator.isInUse(network.id) {
          emit(.removeNetwork(network.id), &plan)
          continue
        }
        checkStacks = true
      }
      stacksWithNetworks.insert(name)
    }
    for stack in plan.world.stacks.values.sorted(by: { $0.name < $1.name }) where stack.isBeingRemoved {
      if !stacksWithServices.contains(stack.name), !stacksWithNetworks.contains(stack.name) { emit(.removeStack(stack.name), &plan) }
    }
  }

  /// What was on a node that is gone, or lost for long, is given up.
  mutating func orphan(_ plan: inout Plan, _ now: Timestamp) {
    for id in changedNodes {
      if plan.world.nodes[id]?.status.state == .down { downSince[id] = downSince[id] ?? now } else { downSince[id] = nil }
    }
    changedNodes = []
    for (id, since) in downSince.sorted(by: { $0.key < $1.key }) {
      guard plan.world.nodes[id] != nil else {
        downSince[id] = nil
        continue
      }
      guard since + Self.orphanAfter <= now else { continue }
      downSince[id] = now
      for task in plan.world.tasks(on: id) where !task.status.state.isTerminal && task.desiredState > .running {
        emit(
          .taskStatus(task.id, TaskStatus(state: .orphaned, timestamp: now, message: "orphaned", error: "the node has been down for 24 hours")), &plan
        )
        dirty.insert(task.service)
      }
    }
  }
}
