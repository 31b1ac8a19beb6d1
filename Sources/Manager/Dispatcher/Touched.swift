import HashTreeCollections
import Model

/// Which items of which connected nodes a batch of changes may have changed. Too many is slow, too few is wrong.
struct Touched {
  private(set) var keys: [NodeID: Set<AssignmentItem.Key>] = [:]
  private let connected: (NodeID) -> Bool

  init(connected: @escaping (NodeID) -> Bool) { self.connected = connected }

  /// Called with the view before and the view after the changes: both sides of what moved.
  mutating func collect(_ changes: [StateChange], _ view: View) {
    for change in changes {
      switch change {
      case .task(let old, let new): collect(task: old, new, view)
      case .node(let old, let new): collect(node: old, new, view)
      case .service(let old, let new):
        let id = (new ?? old)!.id
        collect(service: id, view)
        // Its revisions go with its row; the current one says what all are pulled with.
        if new == nil || old?.current != new?.current { collect(revisionsOf: id, view) }
      case .revision(let key):
        collect(service: key.service, view)
        collect(revisionsOf: key.service, view)
      case .network(let old, let new):
        let network = (new ?? old)!
        for node in view.members[network.id] ?? TreeSet() { add(.network(network.id), node) }
        if network.spec.ingress == true { for service in view.services[network.id] ?? TreeSet() { collect(service: service, view) } }
      case .cluster:
        for (network, nodes) in view.members { for node in nodes { add(.network(network), node) } }
      case .file(let old, let new): collect(file: (new ?? old)!.id, view)
      case .volume, .stack: break
      }
    }
  }

  /// Who enters or leaves a network: for itself everything there, for the others that it is there.
  mutating func collectMoves(_ changes: [StateChange], from before: View, to after: View) {
    var nodes: Set<NodeID> = []
    for change in changes {
      switch change {
      case .node(let old, let new): nodes.insert((new ?? old)!.id)
      case .task(let old, let new):
        let (left, right) = (View.place(old), View.place(new))
        if left?.node == right?.node, left?.networks == right?.networks { continue }
        for place in [left, right] { if let place { nodes.insert(place.node) } }
      default: break
      }
    }
    for node in nodes {
      for network in Set(before.networks(of: node)).symmetricDifference(after.networks(of: node)) {
        for view in [before, after] {
          add(.network(network), onNetwork: network, view)
          for service in view.services[network] ?? TreeSet() { add(.service(service), node) }
          for task in view.tasks[network] ?? TreeSet() { add(.endpoint(task, network), node) }
        }
      }
    }
  }

  private mutating func add(_ key: AssignmentItem.Key, _ node: NodeID) {
    if connected(node) { keys[node, default: []].insert(key) }
  }

  private mutating func add(_ key: AssignmentItem.Key, onNetwork network: NetworkID, _ view: View) {
    for node in view.members[network] ?? TreeSet() { add(key, node) }
  }

  private mutating func collect(task old: ClusterTask?, _ new: ClusterTask?, _ view: View) {
    for task in [old, new].compactMap({ $0 }) {
      if let node = task.node {
        add(.task(task.id), node)
        add(.revision(.init(task.service, task.revision)), node)
        for file in view.files(of: task) { add(.file(file), node) }
      }
    }
    // Progress before it runs changes nothing for others.
    if let old, let new, old.isServing == new.isServing, old.status.state.isTerminal == new.status.state.isTerminal, old.node == new.node,
      old.attachments == new.attachments
    {
      return
    }
    for task in [old, new].compactMap({ $0 }) {
      for attachment in task.attachments { add(.endpoint(task.id, attachment.network), onNetwork: attachment.network, view) }
    }
  }

  private mutating func collect(node old: Node?, _ new: Node?, _ view: View) {
    let id = (new ?? old)!.id
    if old?.description?.underlayMTU != new?.description?.underlayMTU || (old?.description == nil) != (new?.description == nil) {
      for (network, nodes) in view.members { for node in nodes { add(.network(network), node) } }
    }
    let before = old?.attachments ?? []
    let after = new?.attachments ?? []
    for attachment in before + after where !(before.contains(attachment) && after.contains(attachment)) {
      add(.network(attachment.network), onNetwork: attachment.network, view)
    }
    guard
      old?.status.state != new?.status.state || old?.status.address != new?.status.address
        || old?.description?.lacksIPv6 != new?.description?.lacksIPv6 || old?.hostname != new?.hostname
    else { return }
    if old?.status.address != new?.status.address {
      for network in view.networks(of: id) { add(.network(network), onNetwork: network, view) }
    }
    for task in view.state.tasks(on: id) {
      for attachment in task.attachments { add(.endpoint(task.id, attachment.network), onNetwork: attachment.network, view) }
    }
  }

  /// Rare: it came before its services, and goes after them; an old task may still use it.
  private mutating func collect(file id: FileID, _ view: View) {
    for revision in view.state.revisions.values where revision.spec.uses(id) {
      for task in view.state.tasks(of: revision.key.service) where task.revision == revision.key.number {
        if let node = task.node { add(.file(id), node) }
      }
    }
  }

  private mutating func collect(revisionsOf service: ServiceID, _ view: View) {
    for task in view.state.tasks(of: service) {
      guard let node = task.node else { continue }
      add(.revision(.init(service, task.revision)), node)
      for file in view.files(of: task) { add(.file(file), node) }
    }
  }

  private mutating func collect(service id: ServiceID, _ view: View) {
    guard let service = view.state.services[id] else { return }
    for network in view.networks(of: service) { add(.service(id), onNetwork: network, view) }
  }
}
