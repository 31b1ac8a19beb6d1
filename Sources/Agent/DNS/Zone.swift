import Model

/// All names of the networks of this node, and what they mean. A value that follows its records: a change costs what changed, whatever else is there,
/// and what was reached by changes equals what the same records make at once.
public struct Zone: Sendable, Equatable {
  /// Seconds that an answer may be kept. Names follow tasks within a second.
  public static let ttl: UInt32 = 1

  /// What a name is said to mean; which addresses that is follows from the records when it is asked for.
  enum Meaning: Hashable, Comparable, Sendable {
    /// Its virtual IP, or its ready tasks.
    case service(ServiceID)
    case tasks(ServiceID)
    case task(TaskID, IPv4Address)
    /// What its spec names: it means the task where the name is nothing else's (a service `web` whose tasks have `hostname: web`).
    case hostname(TaskID, IPv4Address)

    var isHostname: Bool { if case .hostname = self { true } else { false } }
  }
  /// A published port's number in the container, of a service.
  struct Port: Hashable, Comparable, Sendable {
    var service: ServiceID
    var number: UInt16
    static func < (a: Self, b: Self) -> Bool { (a.service, a.number) < (b.service, b.number) }
  }
  /// Names on one network. Several services may claim one: their order is that of the claims.
  struct Table: Sendable, Equatable {
    var names: [String: [Meaning]] = [:]
    /// `_http._tcp.web`: of a published port with a name, or its number in the container (RFC 2782).
    var ports: [String: [Port]] = [:]
    var reverse: [IPv4Address: [String]] = [:]
    var isEmpty: Bool { names.isEmpty && ports.isEmpty && reverse.isEmpty }
  }
  struct Endpoint: Hashable, Comparable, Sendable {
    var address: IPv4Address
    var task: TaskID
    static func < (a: Self, b: Self) -> Bool { (a.address, a.task) < (b.address, b.task) }
  }
  /// A service's tasks on one network.
  struct Group: Sendable, Equatable {
    var tasks: Set<TaskID> = []
    /// Sorted.
    var ready: [Endpoint] = []
  }
  struct Place: Hashable, Sendable {
    var task: TaskID
    var network: NetworkID
  }

  private(set) var tables: [NetworkID: Table] = [:]
  private var services: [ServiceID: ServiceRecord] = [:]
  private var endpoints: [Place: EndpointRecord] = [:]
  private var groups: [ServiceID: [NetworkID: Group]] = [:]
  struct Subnets: Hashable, Sendable {
    var v4: IPv4Prefix
    var v6: IPv6Prefix?
  }
  private(set) var subnets: [NetworkID: Subnets] = [:]
  /// `.demo_default`: what follows names in `NAME.NETWORK`.
  private var suffixes: [NetworkID: String] = [:]

  public init() {}

  /// - Parameter networks: nobody outside is asked for the names of their addresses.
  public init(services: [ServiceRecord], endpoints: [EndpointRecord], networks: [NetworkAssignment] = []) {
    self.endpoints.reserveCapacity(endpoints.count)
    for network in networks { update(.network(network)) }
    for service in services { update(.service(service)) }
    for endpoint in endpoints { update(.endpoint(endpoint)) }
  }

  /// Follows one record; those that say nothing of names change nothing.
  public mutating func update(_ item: AssignmentItem) {
    switch item {
    case .network(let network):
      // On links of less no kernel has IPv6 (RFC 8200 5).
      suffixes[network.id] = Name(network.name).map { ".\($0.key)" }
      subnets[network.id] = Subnets(v4: network.subnet, v6: network.mtu < 1280 ? nil : network.subnet6)
    case .service(let service): replace(services[service.id], service)
    case .endpoint(let endpoint): replace(endpoints[Place(task: endpoint.task, network: endpoint.network)], endpoint)
    case .task, .revision, .file: break
    }
  }

  public mutating func remove(_ key: AssignmentItem.Key) {
    switch key {
    case .network(let id): (subnets[id], suffixes[id]) = (nil, nil)
    case .service(let id): replace(services[id], nil)
    case .endpoint(let task, let network): replace(endpoints[Place(task: task, network: network)], nil)
    case .task, .revision, .file: break
    }
  }

  // MARK: Records

  private mutating func replace(_ old: ServiceRecord?, _ new: ServiceRecord?) {
    guard old != new, let id = (old ?? new)?.id else { return }
    services[id] = new
    let (before, after) = (old.map(Self.claims) ?? [], new.map(Self.claims) ?? [])
    for claim in before.subtracting(after) { drop(claim) }
    for claim in after.subtracting(before) { add(claim) }
    // Names of tasks have their service's in them.
    let (gone, come) = (old.map(Self.networks) ?? [], new.map(Self.networks) ?? [])
    let isRenamed = old?.name != new?.name || old?.names != new?.names
    for (network, group) in groups[id] ?? [:] {
      for task in group.tasks {
        guard let endpoint = endpoints[Place(task: task, network: network)] else { continue }
        if let old, gone.contains(network), isRenamed || !come.contains(network) { for claim in Self.claims(endpoint, old) { drop(claim) } }
        if let new, come.contains(network), isRenamed || !gone.contains(network) { for claim in Self.claims(endpoint, new) { add(claim) } }
      }
    }
  }

  private mutating func replace(_ old: EndpointRecord?, _ new: EndpointRecord?) {
    guard old != new, let record = old ?? new else { return }
    endpoints[Place(task: record.task, network: record.network)] = new
    if let old { leave(old) }
    if let new { join(new) }
    let (before, after) = (old.map(claims) ?? [], new.map(claims) ?? [])
    for claim in before where !after.contains(claim) { drop(claim) }
    for claim in after where !before.contains(claim) { add(claim) }
  }

  private mutating func join(_ endpoint: EndpointRecord) {
    groups[endpoint.service, default: [:]][endpoint.network, default: Group()].tasks.insert(endpoint.task)
    guard endpoint.ready else { return }
    groups[endpoint.service]?[endpoint.network]?.ready.insertSorted(Endpoint(address: endpoint.address, task: endpoint.task))
  }
  private mutating func leave(_ endpoint: EndpointRecord) {
    groups[endpoint.service]?[endpoint.network]?.tasks.remove(endpoint.task)
    groups[endpoint.service]?[endpoint.network]?.ready.removeSorted(Endpoint(address: endpoint.address, task: endpoint.task))
    if groups[endpoint.service]?[endpoint.network]?.tasks.isEmpty == true { groups[endpoint.service]?[endpoint.network] = nil }
    if groups[endpoint.service]?.isEmpty == true { groups[endpoint.service] = nil }
  }

  // MARK: Claims

  private struct Claim: Hashable {
    enum Value: Hashable {
      case name(String, Meaning)
      case port(String, Port)
      case reverse(IPv4Address, String)
    }
    var network: NetworkID
    var value: Value
  }

  private static func networks(of service: ServiceRecord) -> Set<NetworkID> {
    Set(service.names.keys).union(service.virtualIPs.map(\.network))
  }
  private static func virtualIP(_ service: ServiceRecord, on network: NetworkID) -> IPv4Address? {
    service.mode == .vip ? service.virtualIPs.first { $0.network == network }?.address : nil
  }

  private static func claims(of service: ServiceRecord) -> Set<Claim> {
    var claims: Set<Claim> = []
    for network in networks(of: service) {
      for name in Set((service.names[network] ?? []) + [service.name]) {
        guard let key = key(name), let tasks = Self.key("tasks.\(name)") else { continue }
        claims.insert(Claim(network: network, value: .name(key, .service(service.id))))
        claims.insert(Claim(network: network, value: .name(tasks, .tasks(service.id))))
        for port in service.ports {
          for label in [port.name, "\(port.targetPort)"].compactMap({ $0 }) {
            guard let key = Name("_\(label)._\((port.protocol ?? .tcp).rawValue).\(name)")?.key else { continue }
            claims.insert(Claim(network: network, value: .port(key, Port(service: service.id, number: port.targetPort))))
          }
        }
      }
      if let address = virtualIP(service, on: network) { claims.insert(Claim(network: network, value: .reverse(address, service.name))) }
    }
    return claims
  }

  /// Docker's names of task containers; they answer for as long as the task is there.
  private func claims(of endpoint: EndpointRecord) -> [Claim] {
    guard let service = services[endpoint.service], Self.networks(of: service).contains(endpoint.network) else { return [] }
    return Self.claims(endpoint, service)
  }
  private static func claims(_ endpoint: EndpointRecord, _ service: ServiceRecord) -> [Claim] {
    let full = name(of: endpoint, service)
    // The short id, which is a container's hostname where its spec names none, as moby's (daemon/container_operations.go, buildEndpointDNSNames);
    // with the slot the service's name in its stack too.
    var names = [full, "\(service.name).\(slot(of: endpoint))", "\(endpoint.task)", "\(endpoint.task.short)"]
    for name in service.names[endpoint.network] ?? [] where service.name.hasSuffix("_\(name)") { names.append("\(name).\(slot(of: endpoint))") }
    return names.compactMap(key).map { Claim(network: endpoint.network, value: .name($0, .task(endpoint.task, endpoint.address))) }
      + [endpoint.hostname].compactMap { $0.flatMap(key) }.map {
        Claim(network: endpoint.network, value: .name($0, .hostname(endpoint.task, endpoint.address)))
      } + [Claim(network: endpoint.network, value: .reverse(endpoint.address, full))]
  }
  private static func slot(of endpoint: EndpointRecord) -> String { endpoint.slot == 0 ? "\(endpoint.node)" : "\(endpoint.slot)" }
  private static func name(of endpoint: EndpointRecord, _ service: ServiceRecord) -> String {
    "\(service.name).\(slot(of: endpoint)).\(endpoint.task)"
  }

  private mutating func add(_ claim: Claim) {
    switch claim.value {
    case .name(let key, let meaning): tables[claim.network, default: Table()].names[key, default: []].insertSorted(meaning)
    case .port(let key, let port): tables[claim.network, default: Table()].ports[key, default: []].insertSorted(port)
    case .reverse(let address, let name): tables[claim.network, default: Table()].reverse[address, default: []].insertSorted(name)
    }
  }

  private mutating func drop(_ claim: Claim) {
    let network = claim.network
    switch claim.value {
    case .name(let key, let meaning):
      tables[network]?.names[key]?.removeSorted(meaning)
      if tables[network]?.names[key]?.isEmpty == true { tables[network]?.names[key] = nil }
    case .port(let key, let port):
      tables[network]?.ports[key]?.removeSorted(port)
      if tables[network]?.ports[key]?.isEmpty == true { tables[network]?.ports[key] = nil }
    case .reverse(let address, let name):
      tables[network]?.reverse[address]?.removeSorted(name)
      if tables[network]?.reverse[address]?.isEmpty == true { tables[network]?.reverse[address] = nil }
    }
    if tables[network]?.isEmpty == true { tables[network] = nil }
  }

  /// `Name(name)?.key`, without taking the usual name apart: there are tens of thousands of them.
  private static func key(_ name: String) -> String? {
    var label = 0
    for byte in name.utf8 {
      if byte == UInt8(ascii: ".") {
        if label == 0 { return Name(name)?.key }
        label = 0
      } else {
        label += 1
        if label > 63 || byte >= 128 || Name.lower(byte) != byte { return Name(name)?.key }
      }
    }
    return label == 0 || name.utf8.count > 253 ? Name(name)?.key : name
  }

  // MARK: Questions

  /// What a name means: of the first network that knows it. Two services may have one alias: both answer.
  /// - Parameter v6: of those whose host has IPv6 alone.
  func lookup(_ key: String, on networks: [NetworkID], v6: Bool = false) -> (addresses: [IPv4Address], network: NetworkID)? {
    for network in networks {
      guard let meanings = tables[network]?.names[key] else { continue }
      var addresses: [IPv4Address] = []
      let isSettled = meanings.contains { !$0.isHostname }
      for meaning in meanings where !isSettled || !meaning.isHostname {
        for address in self.addresses(meaning, on: network, v6: v6) where meanings.count == 1 || !addresses.contains(address) {
          addresses.append(address)
        }
      }
      return (addresses, network)
    }
    return nil
  }
  /// What stand beside these addresses of a network that has IPv6; none when it has not.
  func counterparts(of addresses: [IPv4Address], on network: NetworkID) -> [IPv6Address] {
    guard let subnets = subnets[network], let v6 = subnets.v6 else { return [] }
    return addresses.map { v6.counterpart(of: $0, in: subnets.v4) }
  }
  /// Of a container itself, whose network is told by the address.
  func counterparts(of own: IPv4Address, on networks: [NetworkID]) -> [IPv6Address] {
    networks.first { subnets[$0]?.v4.contains(own) == true }.map { counterparts(of: [own], on: $0) } ?? []
  }
  private func addresses(_ meaning: Meaning, on network: NetworkID, v6: Bool) -> [IPv4Address] {
    func speaks(_ task: TaskID) -> Bool { !v6 || endpoints[Place(task: task, network: network)]?.lacksIPv6 != true }
    switch meaning {
    case .service(let id):
      guard let virtual = services[id].flatMap({ Self.virtualIP($0, on: network) }) else { return addresses(.tasks(id), on: network, v6: v6) }
      // Nobody would answer there.
      if v6, let ready = groups[id]?[network]?.ready, !ready.isEmpty, !ready.contains(where: { speaks($0.task) }) { return [] }
      return [virtual]
    case .tasks(let id): return groups[id]?[network]?.ready.filter { speaks($0.task) }.map(\.address) ?? []
    case .task(let task, let address), .hostname(let task, let address): return speaks(task) ? [address] : []
    }
  }
  func name(of address: IPAddress, on networks: [NetworkID]) -> String? {
    for network in networks {
      let own: IPv4Address? =
        switch address {
        case .v4(let address): address
        case .v6(let address): subnets[network].flatMap { subnets in subnets.v6.flatMap { $0.counterpart(of: address, in: subnets.v4) } }
        }
      if let own, let name = tables[network]?.reverse[own]?.first { return name }
    }
    return nil
  }
  /// Where a service's ready tasks answer a port; the first claim has it.
  func service(_ key: String, on networks: [NetworkID]) -> (port: UInt16, targets: [String])? {
    for network in networks {
      guard let port = tables[network]?.ports[key]?.first, let service = services[port.service] else { continue }
      let ready = groups[port.service]?[network]?.ready ?? []
      let targets = ready.compactMap { endpoints[Place(task: $0.task, network: network)] }.map { Self.name(of: $0, service) }
      return (port.number, targets)
    }
    return nil
  }

  private func knows(_ key: String, on networks: [NetworkID]) -> Bool { networks.contains { tables[$0]?.names[key] != nil } }
  /// `web.demo_default`, as Docker has it: a name on one network of the asker's alone.
  func qualified(_ key: String, on networks: [NetworkID]) -> (name: String, network: NetworkID)? {
    // Network names may have dots: of `b` and `a.b` the longer one is meant.
    let found = networks.compactMap { network in
      suffixes[network].flatMap { key.hasSuffix($0) && key.utf8.count > $0.utf8.count ? (network, $0) : nil }
    }
    guard let (network, suffix) = found.max(by: { $0.1.utf8.count < $1.1.utf8.count }) else { return nil }
    return (String(key.dropLast(suffix.count)), network)
  }

  /// A name that can only be of a cluster, though nobody here has it (any more, or on these networks): the world is not asked.
  func isOurs(_ key: String, on networks: [NetworkID]) -> Bool {
    let labels = key.split(separator: ".").map(String.init)
    guard let first = labels.first, let last = labels.last, labels.count > 1 else { return false }
    func rest(_ count: Int) -> String { labels.dropFirst(count).joined(separator: ".") }
    // web.3; demo_web.1.4f2a…, web.NODE: no top level of the world is a number (RFC 3696 2) or looks like an id.
    if last.utf8.allSatisfy({ (48...57).contains($0) }) || last.utf8.count == 25 && TaskID(last) != nil { return true }
    // web.demo_default: no top level of the world has an underscore, a stack's network has. Others' may be names of the world: web.dev is the network's,
    // www.google.dev is not.
    if last.dropFirst().contains("_") { return true }
    if let (name, network) = qualified(key, on: networks), !name.contains(".") || isOurs(name, on: [network]) { return true }
    // No host outside has an underscore in its name (RFC 1123 2.1), a service of a stack has: demo_web.x
    if first.dropFirst().contains("_"), knows(first, on: networks) { return true }
    // tasks.web; tasks.example.com is of the world.
    if first == "tasks" { return labels.count == 2 || isOurs(rest(1), on: networks) }
    // _http._tcp.web
    return labels.count > 2 && first.hasPrefix("_") && labels[1].hasPrefix("_")
      && (labels.count == 3 || knows(rest(2), on: networks) || isOurs(rest(2), on: networks))
  }
  func isOurs(_ address: IPAddress, on networks: [NetworkID]) -> Bool {
    networks.contains { network in
      switch address {
      case .v4(let address): subnets[network]?.v4.contains(address) == true
      case .v6(let address): subnets[network]?.v6?.contains(address) == true
      }
    }
  }
}

extension Array where Element: Comparable {
  /// Where `element` is or belongs.
  private func place(of element: Element) -> Int {
    var (low, high) = (0, count)
    while low < high {
      let middle = (low + high) / 2
      if self[middle] < element { low = middle + 1 } else { high = middle }
    }
    return low
  }
  fileprivate mutating func insertSorted(_ element: Element) {
    let index = place(of: element)
    if index == count || self[index] != element { insert(element, at: index) }
  }
  fileprivate mutating func removeSorted(_ element: Element) {
    let index = place(of: element)
    if index < count, self[index] == element { remove(at: index) }
  }
}
