/// Everything one agent has to know, as keyed items, so that a change is a small difference and a full set is the sum of items.
public enum AssignmentItem: Hashable, Sendable {
  case task(ClusterTask)
  /// The spec its tasks point at; sent once for all of them.
  case revision(ServiceRevision)
  /// A network that a task of this node, or the node itself (ingress), is attached to.
  case network(NetworkAssignment)
  /// Names, virtual IPs and published ports of a service that is reachable from this node.
  case service(ServiceRecord)
  /// One task's address on one network of this node, wherever in the cluster it runs.
  case endpoint(EndpointRecord)
  /// A secret or config that a task of this node uses; open on the wire, and kept in memory only.
  case file(StoredFile)

  public enum Key: Hashable, Comparable, Sendable {
    case file(FileID)
    case network(NetworkID)
    case revision(ServiceRevision.Key)
    case service(ServiceID)
    case endpoint(TaskID, NetworkID)
    case task(TaskID)
  }

  public var key: Key {
    switch self {
    case .task(let task): .task(task.id)
    case .revision(let revision): .revision(revision.key)
    case .network(let network): .network(network.id)
    case .service(let service): .service(service.id)
    case .endpoint(let endpoint): .endpoint(endpoint.task, endpoint.network)
    case .file(let file): .file(file.id)
    }
  }
}

public struct NetworkAssignment: Hashable, Sendable, Codable {
  public var id: NetworkID
  public var name: String
  public var vni: UInt32
  public var subnet: IPv4Prefix
  /// As `Network.subnet6`.
  public var subnet6: IPv6Prefix?
  /// Docker's `Internal`: no way out.
  public var internalOnly: Bool
  public var ingress: Bool
  public var mtu: Int
  public var dataPathPort: UInt16
  /// This node's own address on the network, on ingress alone: its containers' gateway, and the source of what it forwards into it.
  public var nodeAddress: IPv4Address?
  /// The other nodes that are attached, without this one.
  public var peers: [Peer]
  public var subnets: NetworkSubnets { NetworkSubnets(v4: subnet, v6: subnet6) }
  public struct Peer: Hashable, Sendable, Codable {
    public var node: NodeID
    /// The host's address: where VXLAN packets go.
    public var underlay: IPv4Address
    /// The peer's own address on the network, on ingress alone.
    public var address: IPv4Address?
    public init(node: NodeID, underlay: IPv4Address, address: IPv4Address? = nil) {
      self.node = node
      self.underlay = underlay
      self.address = address
    }
  }
  public init(
    id: NetworkID, name: String, vni: UInt32, subnet: IPv4Prefix, internalOnly: Bool, ingress: Bool, mtu: Int, dataPathPort: UInt16,
    nodeAddress: IPv4Address? = nil, peers: [Peer]
  ) {
    self.id = id
    self.name = name
    self.vni = vni
    self.subnet = subnet
    self.internalOnly = internalOnly
    self.ingress = ingress
    self.mtu = mtu
    self.dataPathPort = dataPathPort
    self.nodeAddress = nodeAddress
    self.peers = peers
  }

  /// What stands beside an IPv4 address of this network; nil: it has IPv4 alone.
  public func counterpart(of address: IPv4Address) -> IPv6Address? { subnet6.map { $0.counterpart(of: address, in: subnet) } }
}

public struct ServiceRecord: Hashable, Sendable, Codable {
  public var id: ServiceID
  public var name: String
  /// Names under which it is found, by network: the full name, the short name in its stack, the aliases.
  public var names: [NetworkID: [String]]
  public var mode: EndpointSpec.Mode
  public var virtualIPs: [NetworkAttachment]
  /// Published: those through the ingress network every host forwards to the service's endpoints there; those of hosts are told for their names (SRV).
  public var ports: [PortConfig]
  /// New connections of a host go to the tasks on it, as long as one is ready; nil: no.
  public var prefersSameNode: Bool?
  public init(
    id: ServiceID, name: String, names: [NetworkID: [String]], mode: EndpointSpec.Mode, virtualIPs: [NetworkAttachment], ports: [PortConfig]
  ) {
    self.id = id
    self.name = name
    self.names = names
    self.mode = mode
    self.virtualIPs = virtualIPs
    self.ports = ports
  }
}

public struct EndpointRecord: Hashable, Sendable, Codable {
  public var task: TaskID
  public var service: ServiceID
  public var network: NetworkID
  public var node: NodeID
  public var slot: UInt64
  public var address: IPv4Address
  /// The address of the host it runs on: where VXLAN packets go.
  public var underlay: IPv4Address
  /// May be sent new work: answers in DNS and in load balancers. A task that leaves is first `ready: false`, then gone.
  public var ready: Bool
  /// The kernel of its host has no IPv6: nobody is sent to the address that stands beside this one.
  public var lacksIPv6 = false
  /// Its host is down: it may run, and nobody hears of it. Calls are refused and flows end as if it were gone; its address stays its own, and where
  /// frames to it go, until its host is back or it is given up. Agents that are older than this take it for one that is not ready.
  public var lost = false
  /// What the task's spec names, with its placeholders filled in; nil: it names none. Agents that are older than this do not answer it.
  public var hostname: String?
  public init(
    task: TaskID, service: ServiceID, network: NetworkID, node: NodeID, slot: UInt64, address: IPv4Address, underlay: IPv4Address, ready: Bool
  ) {
    self.task = task
    self.service = service
    self.network = network
    self.node = node
    self.slot = slot
    self.address = address
    self.underlay = underlay
    self.ready = ready
  }
}

/// One message of an agent's session: the whole set (`complete`), or what changed since `appliesTo`.
public struct AssignmentsMessage: Hashable, Sendable {
  public var complete: Bool
  /// Sequence number this difference builds on; the agent asks for the whole set when it has another.
  public var appliesTo: UInt64
  public var resultsIn: UInt64
  public var updates: [AssignmentItem]
  public var removals: [AssignmentItem.Key]
  public init(complete: Bool, appliesTo: UInt64, resultsIn: UInt64, updates: [AssignmentItem], removals: [AssignmentItem.Key]) {
    self.complete = complete
    self.appliesTo = appliesTo
    self.resultsIn = resultsIn
    self.updates = updates
    self.removals = removals
  }
}

public struct TaskReport: Hashable, Sendable {
  public var task: TaskID
  public var status: TaskStatus
  public init(task: TaskID, status: TaskStatus) {
    self.task = task
    self.status = status
  }
}
