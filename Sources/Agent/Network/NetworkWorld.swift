import Model

/// All that decides what this host's kernel should hold; a value, so that plans and rule sets are functions of it.
struct NetworkWorld: Sendable {
  var underlay = IPv4Address(0)
  var networks: [NetworkAssignment] = []
  var services: [ServiceRecord] = []
  var endpoints: [EndpointRecord] = []
  var containers: [TaskID: TaskNetwork] = [:]
  /// Of tasks that are gone since a short while: what they still had to say may be under way.
  var lingering: Set<IPv4Address> = []

  func network(_ id: NetworkID) -> NetworkAssignment? { networks.first { $0.id == id } }
  var ingress: NetworkAssignment? { networks.first { $0.ingress } }

  /// Who has an address now, of those that any task has.
  var successors: [NetworkAttachment: TaskID] {
    Dictionary(endpoints.lazy.map { (NetworkAttachment(network: $0.network, address: $0.address), $0.task) }, uniquingKeysWith: { _, b in b })
  }

  /// Where new connections to a service may go, on each network; sorted, so that equal worlds give equal rules.
  func readyEndpoints() -> [ServiceOnNetwork: [IPv4Address]] {
    let choosy = Set(services.lazy.filter { $0.prefersSameNode == true }.map(\.id))
    return Dictionary(grouping: endpoints.lazy.filter(\.ready)) { ServiceOnNetwork($0.service, $0.network) }
      .mapValues { ready in
        let near = choosy.contains(ready[0].service) ? ready.filter { $0.underlay == underlay } : []
        return (near.isEmpty ? ready : near).map(\.address).sorted()
      }
  }

  struct ServiceOnNetwork: Hashable {
    var service: ServiceID
    var network: NetworkID
    init(_ service: ServiceID, _ network: NetworkID) {
      self.service = service
      self.network = network
    }
  }

  /// The container's default route: ingress when it publishes there (who calls from outside is answered from the address that was called,
  /// by a datagram too), or else its first network that leads outside.
  func gateway(of attachments: [NetworkAttachment]) -> IPv4Address? {
    let attached = attachments.compactMap { network($0.network) }.filter { !$0.internalOnly }
    return (attached.first { $0.ingress } ?? attached.first)?.nodeAddress
  }
}

/// Names of what is ours. At most 15 bytes each (IFNAMSIZ).
enum InterfaceName {
  static func bridge(_ vni: UInt32) -> String { "orbr\(vni)" }
  static func tunnel(_ vni: UInt32) -> String { "orvx\(vni)" }
  /// The host's end of a container's interface: the last ten digits of the task's id (they are random) and the interface's number.
  static func veth(_ task: TaskID, _ index: Int) -> String { "ov\(task.description.suffix(10))\(index)" }
  static func vni(_ name: String, prefix: String) -> UInt32? {
    guard name.hasPrefix(prefix), let vni = UInt32(name.dropFirst(prefix.count)), name == "\(prefix)\(vni)" else { return nil }
    return vni
  }
  static let bridgePrefix = "orbr"
  static let tunnelPrefix = "orvx"
}
