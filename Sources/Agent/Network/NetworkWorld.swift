import Model

/// All that decides what this host's kernel should hold; a value, so that plans and rule sets are functions of it.
struct NetworkWorld: Sendable {
  var underlay = IPv4Address(0)
  var networks: [NetworkAssignment] = []
  var services: [ServiceRecord] = []
  var endpoints: [EndpointRecord] = []
  var containers: [TaskID: TaskNetwork] = [:]
  /// By this host's own choice, of containers that need one.
  var uplinks: [TaskID: Uplink] = [:]
  /// Of the link with the underlay's address.
  var uplinkMTU = UInt32(NetworkSpec.linkMTU)
  /// Where those came from.
  var uplinkSubnets: Set<IPv4Prefix> = []
  /// Of this host's kernel.
  var hasIPv6 = false
  /// Of tasks that are gone since a short while: what they still had to say may be under way.
  var lingering: Set<NetworkAttachment> = []

  func network(_ id: NetworkID) -> NetworkAssignment? { networks.first { $0.id == id } }
  var ingress: NetworkAssignment? { networks.first { $0.ingress } }
  /// There is something whose packets this host forwards.
  var isRouting: Bool { !networks.isEmpty || !uplinks.isEmpty }

  func lingering(on networks: Set<NetworkID>) -> Set<IPv4Address> { Set(lingering.lazy.filter { networks.contains($0.network) }.map(\.address)) }
  /// Those that stand beside them.
  func lingering6(on networks: Set<NetworkID>) -> Set<IPv6Address> {
    Set(lingering.lazy.filter { networks.contains($0.network) }.compactMap { network($0.network)?.counterpart(of: $0.address) })
  }

  /// Who has an address now, of those that containers of this host have.
  var successors: [NetworkAttachment: TaskID] { successors(of: Set(containers.values.lazy.flatMap(\.attachments))) }
  func successors(of own: Set<NetworkAttachment>) -> [NetworkAttachment: TaskID] {
    Dictionary(endpoints.lazy.filter { own.contains($0.attachment) }.map { ($0.attachment, $0.task) }, uniquingKeysWith: { _, b in b })
  }

  /// Whether the same tasks are at the same addresses of the same networks, on the same hosts: forwarding follows from that, and from nothing else.
  func hasSamePlaces(as other: NetworkWorld) -> Bool {
    underlay == other.underlay && networks == other.networks && endpoints.count == other.endpoints.count
      && zip(endpoints, other.endpoints).allSatisfy { new, old in
        new.address == old.address && new.network == old.network && new.underlay == old.underlay && new.task == old.task
      }
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

  func isOnIngress(_ container: TaskNetwork) -> Bool { container.attachments.contains { $0.network == ingress?.id } }
  func leadsOutside(_ container: TaskNetwork) -> Bool {
    container.isBridged || isOnIngress(container) || container.attachments.contains { network($0.network)?.internalOnly == false }
  }
  func leadsOutside6(_ container: TaskNetwork) -> Bool {
    container.attachments.contains { network($0.network).map { !$0.internalOnly && $0.subnet6 != nil } ?? false }
  }
  /// This host's own place on ingress, where that has IPv6.
  var door6: Door6? {
    guard let ingress, let address = ingress.nodeAddress, let subnet = ingress.subnet6, let own = ingress.counterpart(of: address) else { return nil }
    return Door6(bridge: InterfaceName.bridge(ingress.vni), address: own, subnet: subnet, address4: address)
  }
  struct Door6 {
    var bridge: String
    var address: IPv6Address
    var subnet: IPv6Prefix
    var address4: IPv4Address
    /// What neighbours of the link are asked from. No task has it: theirs are made of link addresses (RFC 4291 2.5.6, appendix A).
    var linkLocal: IPv6Address { IPv6Address(0xfe80 << 112 | UInt128(address4.rawValue)) }
  }
  /// An uplink with IPv6: what is on ingress goes out and answers its host ports by that, where it has IPv6. Host ports answer over IPv6 whatever the
  /// container's networks have.
  func needsUplink6(_ container: TaskNetwork) -> Bool {
    if isOnIngress(container), door6 != nil { return false }
    return leadsOutside6(container) || (hasIPv6 && !container.hostPorts.isEmpty && leadsOutside(container))
  }
  /// Where this host leads callers of a container's host ports.
  func hostPortAddress(_ container: TaskNetwork) -> IPv4Address? {
    container.attachments.first { $0.network == ingress?.id }?.address ?? uplinks[container.task]?.address
  }
  func hostPortAddress6(_ container: TaskNetwork) -> IPv6Address? {
    if door6 != nil, let own = container.attachments.first(where: { $0.network == ingress?.id }) { return ingress?.counterpart(of: own.address) }
    return needsUplink6(container) ? uplinks[container.task]?.address6 : nil
  }
  /// What is on ingress goes out by it. With internal networks alone an uplink is for answers to its host's processes.
  func needsUplink(_ container: TaskNetwork) -> Bool {
    if needsUplink6(container) { return true }
    return !isOnIngress(container) && (leadsOutside(container) || (!container.hostPorts.isEmpty && !container.attachments.isEmpty))
  }

  /// The container's default route: ingress when it publishes there (who calls from outside is answered from the address that was called,
  /// by a datagram too), or else its uplink.
  func gateway(of container: TaskNetwork) -> IPv4Address? {
    if isOnIngress(container) { return ingress?.nodeAddress }
    return leadsOutside(container) ? uplinks[container.task]?.gateway : nil
  }
  /// The same of IPv6, and the container's interface that leads there.
  func gateway6(of container: TaskNetwork) -> (address: IPv6Address, device: String)? {
    if let door6, let number = container.attachments.firstIndex(where: { $0.network == ingress?.id }) { return (door6.address, "eth\(number)") }
    return needsUplink6(container) ? (Uplink.gateway6, "eth\(container.attachments.count)") : nil
  }
}

/// Names of what is ours. At most 15 bytes each (IFNAMSIZ).
enum InterfaceName {
  static func bridge(_ vni: UInt32) -> String { "orbr\(vni)" }
  static func tunnel(_ vni: UInt32) -> String { "orvx\(vni)" }
  /// The host's end of a container's interface: the last ten digits of the task's id (they are random) and the interface's number.
  static func veth(_ task: TaskID, _ index: Int) -> String { "\(vethPrefix)\(task.description.suffix(digits))\(index)" }
  /// The host's end of a container's first interface.
  static func first(of network: TaskNetwork) -> String { network.isBridged ? uplink(network.task) : veth(network.task, 0) }
  /// The host's end of a container's uplink.
  static func uplink(_ task: TaskID) -> String { uplinkPrefix + task.description.suffix(digits) }
  static func isUplink(_ name: String) -> Bool { name.hasPrefix(uplinkPrefix) }
  static func vni(_ name: String, prefix: String) -> UInt32? {
    guard name.hasPrefix(prefix), let vni = UInt32(name.dropFirst(prefix.count)), name == "\(prefix)\(vni)" else { return nil }
    return vni
  }
  static let bridgePrefix = "orbr"
  static let tunnelPrefix = "orvx"
  static let uplinkPrefix = "orup"
  static let vethPrefix = "ov"
  static let digits = 10
}

extension [EndpointRecord] {
  /// Those that differ from an earlier list: all between what both begin with and what both end with.
  func changed(from old: [EndpointRecord]) -> (old: ArraySlice<EndpointRecord>, new: ArraySlice<EndpointRecord>) {
    let common = Swift.min(count, old.count)
    var first = 0
    while first < common, self[first] == old[first] { first += 1 }
    var last = 0
    while last < common - first, self[count - 1 - last] == old[old.count - 1 - last] { last += 1 }
    return (old[first..<old.count - last], self[first..<count - last])
  }

  /// Takes out of the set what new connections may go to.
  func removeReady(from set: inout Set<NetworkAttachment>) {
    if !set.isEmpty { for endpoint in self where endpoint.ready { set.remove(endpoint.attachment) } }
  }
  /// Takes out of the set where tasks are whose hosts are not down.
  func removeReachable(from set: inout Set<NetworkAttachment>) {
    if !set.isEmpty { for endpoint in self where !endpoint.lost { set.remove(endpoint.attachment) } }
  }
}

extension EndpointRecord {
  var attachment: NetworkAttachment { NetworkAttachment(network: network, address: address) }
}
