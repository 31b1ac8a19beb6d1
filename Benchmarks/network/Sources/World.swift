import AgentNetwork
import Model

/// A network 10.77.0.0/16 and ingress on two hosts, and services on it of which the first alone has a real task: the server on host 2.
struct World {
  static let web = NetworkID(value: 1)
  static let ingress = NetworkID(value: 2)
  static let port: UInt16 = 8080
  private(set) var services: [ServiceRecord] = []
  private(set) var endpoints: [EndpointRecord] = []

  static func underlay(_ host: Int) -> IPv4Address { IPv4Address("192.168.79.\(host)")! }
  private static let base = IPv4Address("10.77.0.0")!.rawValue
  private static let ingressBase = IPv4Address("10.254.0.0")!.rawValue

  func networks(of host: Int) -> [NetworkAssignment] {
    [(Self.web, "web", UInt32(4096), "10.77.0.0/16", Self.base, false), (Self.ingress, "ingress", 4097, "10.254.0.0/16", Self.ingressBase, true)]
      .map { id, name, vni, subnet, base, ingress in
        NetworkAssignment(
          id: id, name: name, vni: vni, subnet: IPv4Prefix(subnet)!, internalOnly: false, ingress: ingress, mtu: 1450, dataPathPort: 4789,
          nodeAddress: ingress ? IPv4Address(base + UInt32(host)) : nil,
          peers: [1, 2].filter { $0 != host }.map {
            .init(node: NodeID(value: UInt128($0)), underlay: Self.underlay($0), address: ingress ? IPv4Address(base + UInt32($0)) : nil)
          })
      }
  }

  /// Containers have .0.10 and up to .1.255, virtual IPs .2.0 to .31.255, tasks that are nowhere .32.0 and up.
  func container(_ number: Int) -> TaskNetwork {
    TaskNetwork(
      task: TaskID(value: UInt128(1) << 100 | UInt128(number)),
      attachments: [
        NetworkAttachment(network: Self.ingress, address: IPv4Address(Self.ingressBase + 10 + UInt32(number))),
        NetworkAttachment(network: Self.web, address: IPv4Address(Self.base + 10 + UInt32(number))),
      ])
  }
  var server: IPv4Address { IPv4Address(Self.base + 11) }
  func virtual(_ service: Int) -> IPv4Address { IPv4Address(Self.base + 0x200 + UInt32(service)) }

  mutating func make(services count: Int, backends: Int) {
    services = (0..<count).map { number in
      let port = PortConfig(targetPort: 7000, publishedPort: Self.port)
      return ServiceRecord(
        id: ServiceID(value: UInt128(100 + number)), name: "service\(number)", names: [Self.web: ["service\(number)"]], mode: .vip,
        virtualIPs: [NetworkAttachment(network: Self.web, address: virtual(number))], ports: number == 0 ? [port] : [])
    }
    // Of the caller: no packet reaches who is no endpoint. It is no task of a service that is called.
    let caller = container(0)
    endpoints = caller.attachments.map {
      EndpointRecord(
        task: caller.task, service: ServiceID(value: 99), network: $0.network, node: NodeID(value: 1), slot: 1, address: $0.address,
        underlay: Self.underlay(1), ready: true)
    }
    for number in 0..<count {
      for backend in 0..<(number == 0 ? 1 : backends) {
        let address = number == 0 ? server : IPv4Address(Self.base + 0x2000 + UInt32(number * backends + backend))
        endpoints.append(endpoint(number, backend, Self.web, address))
        if number == 0 { endpoints.append(endpoint(number, backend, Self.ingress, IPv4Address(Self.ingressBase + 11))) }
      }
    }
  }

  private func endpoint(_ service: Int, _ backend: Int, _ network: NetworkID, _ address: IPv4Address) -> EndpointRecord {
    // The server is its container's: the host takes a container whose address another task has out of the network.
    let task = service == 0 ? container(1).task : TaskID(value: UInt128(2) << 100 | UInt128(service << 8 | backend))
    return EndpointRecord(
      task: task, service: services[service].id, network: network,
      node: NodeID(value: 2), slot: UInt64(backend + 1), address: address, underlay: Self.underlay(2), ready: true)
  }

  /// The last endpoint of the last service.
  mutating func toggle(ready: Bool) { endpoints[endpoints.count - 1].ready = ready }
  var toggled: EndpointRecord { endpoints[endpoints.count - 1] }

  /// All that an agent of that host is told.
  func records(of host: Int) -> [AssignmentItem] {
    networks(of: host).map { .network($0) } + services.map { .service($0) } + endpoints.map { .endpoint($0) }
  }
}
