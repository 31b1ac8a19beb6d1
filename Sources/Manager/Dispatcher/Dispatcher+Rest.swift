import Model

// An address that becomes free rests until no host sends anything to whoever had it: each says so itself by the number of assignments that it
// lives by. A host that lags behind would otherwise send one service's calls to another's task.
//
// A network that is gone leaves its VNI and its subnet to rest in the same way: a host that lags would show one network's frames to another's tasks.
//
// What rests is not replicated. A new leader does not know it, so on each network it gives no address at all until every host of the network
// has taken the new leader's assignments, which hold nothing of what was freed before; and no VNI and no subnet of the pool before all hosts have.
extension Dispatcher {
  /// A host that does not answer keeps an address from being given again for so long; one that is down, not at all.
  public static let restTimeout = Nanoseconds.seconds(5)

  /// What a host has to say: that it lives by what it was told up to `sequence` of that session; in its next, by anything, since that began with the
  /// whole set. A host is not done because its session broke: its kernel's rules are as they were.
  struct Wait: Sendable {
    /// nil: it had none.
    var session: SessionID?
    var sequence: UInt64
    func isOver(_ id: SessionID, _ applied: UInt64) -> Bool { session != id || sequence <= applied }
  }

  /// What became free at one time.
  struct Rest: Sendable {
    enum Freed: Sendable {
      case addresses(Set<IPv4Address>, on: NetworkID)
      case network(vni: UInt32?, subnet: IPv4Prefix?)
    }
    var freed: Freed
    var waits: [NodeID: Wait]
    var until: Timestamp
  }

  /// What of this leader's predecessors is not known to be dropped.
  struct Inheritance: Sendable {
    /// Who has said nothing yet, with the networks that it was on.
    var strangers: [NodeID: [NetworkID]] = [:]
    /// How many of them a network waits for.
    var waits: [NetworkID: Int] = [:]
    var until = Timestamp(nanoseconds: .max)
  }

  mutating func inherit(_ now: Timestamp) {
    // In a new cluster nobody was given anything: ingress, which stays for ever, is the first to have a subnet.
    guard view.state.networks.values.contains(where: { $0.subnet != nil }) else { return }
    for node in view.state.nodes.values where node.isExpected {
      let networks = view.networks(of: node.id)
      // Who is on none may have left one that is gone, and not know it.
      inheritance.strangers[node.id] = networks
      for network in networks {
        inheritance.waits[network, default: 0] += 1
        resting.close(network)
      }
    }
    guard !inheritance.strangers.isEmpty else { return }
    inheritance.until = now + Self.restTimeout
    resting.close()
  }

  private mutating func settle(_ node: NodeID) {
    for network in inheritance.strangers.removeValue(forKey: node) ?? [] {
      inheritance.waits[network]! -= 1
      guard inheritance.waits[network] == 0 else { continue }
      inheritance.waits[network] = nil
      resting.open(network)
    }
    guard inheritance.strangers.isEmpty else { return }
    inheritance.until = Timestamp(nanoseconds: .max)
    resting.open()
  }

  /// Nobody waits for those that are down or gone.
  mutating func giveUpLost(_ changes: [StateChange]) {
    for case .node(let old, let new) in changes where new.map({ !$0.isExpected }) ?? true { giveUp((new ?? old)!.id) }
  }

  /// After the differences were sent. `before`: the view that the agents were told of earlier.
  mutating func rest(_ changes: [StateChange], before: View, _ now: Timestamp) {
    var freed: [NetworkID: Set<IPv4Address>] = [:]
    for change in changes {
      for attachment in change.freed { freed[attachment.network, default: []].insert(attachment.address) }
    }
    for (network, addresses) in freed.sorted(by: { $0.key < $1.key }) where view.state.networks[network] != nil {
      let nodes = (before.members[network] ?? []).union(view.members[network] ?? [])
      rest(.addresses(addresses, on: network), lagging(nodes), now)
    }
    // Who was on it may have left it just before, and not know it yet: whoever lags is waited for.
    var behind: [NodeID: Wait]?
    for case .network(let old?, nil) in changes where old.vni != nil || old.subnet != nil {
      if behind == nil { behind = lagging(view.state.nodes.keys) }
      rest(.network(vni: old.vni, subnet: old.subnet), behind!, now)
    }
  }

  /// Those of them that are expected and do not live yet by what they were told.
  func lagging(_ nodes: some Sequence<NodeID>) -> [NodeID: Wait] {
    var waits: [NodeID: Wait] = [:]
    for node in nodes where view.state.nodes[node]?.isExpected == true {
      guard let id = current[node], let session = sessions[id] else {
        waits[node] = Wait(session: nil, sequence: 0)
        continue
      }
      if session.applied < session.sequence { waits[node] = Wait(session: id, sequence: session.sequence) }
    }
    return waits
  }

  private mutating func rest(_ freed: Rest.Freed, _ waits: [NodeID: Wait], _ now: Timestamp) {
    if waits.isEmpty { return }
    rests.append(Rest(freed: freed, waits: waits, until: now + Self.restTimeout))
    switch freed {
    case .addresses(let addresses, let network): resting.begin(addresses, on: network)
    case .network(let vni, let subnet): resting.begin(vni: vni, subnet: subnet)
    }
  }

  /// The node lives by what it was told up to `sequence` in this session.
  mutating func dropped(_ id: SessionID, _ sequence: UInt64) {
    guard let node = sessions[id]?.node else { return }
    settle(node)
    for position in rests.indices {
      if rests[position].waits[node]?.isOver(id, sequence) == true { rests[position].waits[node] = nil }
    }
    for (task, drain) in drains where drain.waits[node]?.isOver(id, sequence) == true { drains[task]!.waits[node] = nil }
    endRests()
  }

  private mutating func giveUp(_ node: NodeID) {
    settle(node)
    for position in rests.indices { rests[position].waits[node] = nil }
    for task in drains.keys { drains[task]!.waits[node] = nil }
    endRests()
  }

  mutating func endRests(at now: Timestamp? = nil) {
    if let now, inheritance.until <= now { for node in inheritance.strangers.keys { settle(node) } }
    guard rests.contains(where: { rest in rest.waits.isEmpty || now.map { rest.until <= $0 } ?? false }) else { return }
    var kept: [Rest] = []
    for rest in rests {
      if rest.waits.isEmpty || now.map({ rest.until <= $0 }) ?? false {
        switch rest.freed {
        case .addresses(let addresses, let network): resting.end(addresses, on: network)
        case .network(let vni, let subnet): resting.end(vni: vni, subnet: subnet)
        }
      } else {
        kept.append(rest)
      }
    }
    rests = kept
  }
}

extension StateChange {
  /// Addresses that had an owner before the change and have none after it.
  fileprivate var freed: [NetworkAttachment] {
    func gone(_ old: [NetworkAttachment], _ new: [NetworkAttachment]) -> [NetworkAttachment] { old.filter { !new.contains($0) } }
    switch self {
    case .task(let old?, let new):
      if old.status.state.isTerminal { return [] }
      return gone(old.attachments, new.map { $0.status.state.isTerminal ? [] : $0.attachments } ?? [])
    case .service(let old?, let new): return gone(old.endpoint.virtualIPs, new?.endpoint.virtualIPs ?? [])
    case .node(let old?, let new): return gone(old.attachments, new?.attachments ?? [])
    default: return []
    }
  }
}
