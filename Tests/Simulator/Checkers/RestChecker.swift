import Model

/// An address is not given again while a host of its network still knows it as somebody else's; unless that host was down meanwhile, or had no
/// task on the network: nothing could send from there, and what starts there next starts after a pass over what was told since.
/// A VNI is not given again while a host that was not down meanwhile still has the network that had it.
struct RestChecker {
  enum Owner: Hashable {
    case task(TaskID), service(ServiceID), node(NodeID)
  }
  struct Place: Hashable {
    var network: NetworkID
    var address: IPv4Address
    init(_ attachment: NetworkAttachment) { (network, address) = (attachment.network, attachment.address) }
    init(_ network: NetworkID, _ address: IPv4Address) { (self.network, self.address) = (network, address) }
  }
  private struct Freed {
    var owner: Owner
    var at: Time
    /// Hosts that are not waited for.
    var excused: Set<NodeID>
  }
  private var freed: [Place: Freed] = [:]
  private var removed: [UInt32: (network: Network, at: Time, excused: Set<NodeID>)] = [:]

  /// Changes that are committed now. After 3 s a leader may give up waiting; its clock may go faster than the world's.
  mutating func check(_ changes: [StateChange], _ state: ClusterState, _ agents: [AgentHost], now: Time) throws {
    freed = freed.filter { now < $0.value.at + .seconds(3) }
    removed = removed.filter { now < $0.value.at + .seconds(3) }
    for case .node(let old, let new) in changes where new.map(isLost) ?? true {
      for place in freed.keys { freed[place]!.excused.insert((new ?? old)!.id) }
      for vni in removed.keys { removed[vni]!.excused.insert((new ?? old)!.id) }
    }
    try checkNetworks(changes, state, agents, now)
    let lost = Set(state.nodes.values.filter(isLost).map(\.id))
    let owners = changes.map(owners)
    for (owner, old, new) in owners {
      for attachment in old where !new.contains(attachment) { freed[Place(attachment)] = Freed(owner: owner, at: now, excused: lost) }
    }
    excuseWithoutTasks(state, agents)
    for (owner, old, new) in owners {
      for attachment in new where !old.contains(attachment) {
        guard let before = freed.removeValue(forKey: Place(attachment)) else { continue }
        for agent in agents where !before.excused.contains(agent.node) && agent.known[Place(attachment)] == before.owner {
          throw Violation(
            checker: "addresses",
            what: "\(attachment.address) is given to \(owner) while host\(agent.number) still knows it as \(before.owner)'s")
        }
      }
    }
  }

  private mutating func checkNetworks(_ changes: [StateChange], _ state: ClusterState, _ agents: [AgentHost], _ now: Time) throws {
    let lost = Set(state.nodes.values.filter(isLost).map(\.id))
    for case .network(let old, let new) in changes {
      if let old, new == nil, let vni = old.vni { removed[vni] = (old, now, lost) }
      guard let new, let vni = new.vni, old?.vni == nil else { continue }
      for (before, _, excused) in [removed.removeValue(forKey: vni)].compactMap({ $0 }) {
        for agent in agents where !excused.contains(agent.node) && agent.knownNetworks[vni] == before.id {
          throw Violation(
            checker: "addresses", what: "VNI \(vni) is given to network \(new.name) while host\(agent.number) still has network \(before.name) of it")
        }
      }
      for (_, before) in removed where before.network.subnet == new.subnet && new.spec.ipam == nil {
        for agent in agents where !before.excused.contains(agent.node) && agent.knownNetworks[before.network.vni!] == before.network.id {
          throw Violation(
            checker: "addresses",
            what: "\(new.subnet!) is given to network \(new.name) while host\(agent.number) still has network \(before.network.name) of it")
        }
      }
    }
  }

  private mutating func excuseWithoutTasks(_ state: ClusterState, _ agents: [AgentHost]) {
    for place in freed.keys {
      for agent in agents where !isOn(place.network, agent.node, state) { freed[place]!.excused.insert(agent.node) }
    }
  }

  private func isOn(_ network: NetworkID, _ node: NodeID, _ state: ClusterState) -> Bool {
    state.nodes[node]?.attachments.contains { $0.network == network } == true
      || state.tasks(on: node).contains { !$0.status.state.isTerminal && $0.attachments.contains { $0.network == network } }
  }

  private func isLost(_ node: Node) -> Bool { node.status.state == .down || node.status.state == .disconnected }

  private func owners(_ change: StateChange) -> (Owner, old: [NetworkAttachment], new: [NetworkAttachment]) {
    func held(_ task: ClusterTask?) -> [NetworkAttachment] { task.map { $0.status.state.isTerminal ? [] : $0.attachments } ?? [] }
    switch change {
    case .task(let old, let new): return (.task((new ?? old)!.id), held(old), held(new))
    case .service(let old, let new): return (.service((new ?? old)!.id), old?.endpoint.virtualIPs ?? [], new?.endpoint.virtualIPs ?? [])
    case .node(let old, let new): return (.node((new ?? old)!.id), old?.attachments ?? [], new?.attachments ?? [])
    default: return (.node(NodeID(value: 0)), [], [])
    }
  }
}

extension AgentHost {
  /// After a pass over its network: whose an address is for this host.
  func learnAddresses() {
    known = [:]
    knownNetworks = Dictionary(worker.networks.map { ($0.vni, $0.id) }, uniquingKeysWith: { a, _ in a })
    for network in worker.networks {
      for peer in network.peers { if let address = peer.address { known[.init(network.id, address)] = .node(peer.node) } }
    }
    for service in worker.services { for virtual in service.virtualIPs { known[.init(virtual)] = .service(service.id) } }
    for endpoint in worker.endpoints { known[.init(endpoint.network, endpoint.address)] = .task(endpoint.task) }
  }
}
