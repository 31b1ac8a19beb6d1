import Model

/// All names of the networks of this node, and what they mean. A value; made anew at each change of the records.
public struct Zone: Sendable {
  /// Seconds that an answer may be kept. Names follow tasks within a second.
  public static let ttl: UInt32 = 1

  struct Entry: Sendable, Equatable {
    var addresses: [IPv4Address] = []
    /// A virtual IP stands first and alone; others are turned at each answer.
    var rotates = true
  }
  private var names: [NetworkID: [String: Entry]] = [:]
  private var reverse: [NetworkID: [IPv4Address: String]] = [:]
  /// `_http._tcp.web`: of a published port with a name, or its number in the container: where the service's tasks answer it (RFC 2782).
  private var ports: [NetworkID: [String: (port: UInt16, targets: [String])]] = [:]
  private var subnets: [NetworkID: IPv4Prefix] = [:]

  public init() {}

  /// - Parameter networks: nobody outside is asked for the names of their addresses.
  public init(services: [ServiceRecord], endpoints: [EndpointRecord], networks: [NetworkAssignment] = []) {
    subnets = Dictionary(networks.map { ($0.id, $0.subnet) }, uniquingKeysWith: { first, _ in first })
    let byService = Dictionary(grouping: endpoints, by: \.service)
    for service in services {
      let networks = Set(service.names.keys).union(service.virtualIPs.map(\.network))
      for network in networks {
        let tasks = (byService[service.id] ?? []).filter { $0.network == network }
        let ready = tasks.filter(\.ready).map(\.address).sorted()
        let virtual = service.mode == .vip ? service.virtualIPs.first { $0.network == network }?.address : nil
        for name in Set((service.names[network] ?? []) + [service.name]) {
          add(name, on: network, virtual.map { [$0] } ?? ready, rotates: virtual == nil)
          add("tasks.\(name)", on: network, ready)
        }
        if let virtual { reverse[network, default: [:]][virtual] = service.name }
        let targets = tasks.filter(\.ready).sorted { $0.address < $1.address }.map { Self.name(of: $0, service) }
        for port in service.ports {
          for label in [port.name, "\(port.targetPort)"].compactMap({ $0 }) {
            for name in Set((service.names[network] ?? []) + [service.name]) {
              guard let key = Name("_\(label)._\((port.protocol ?? .tcp).rawValue).\(name)")?.key else { continue }
              ports[network, default: [:]][key] = (port.targetPort, targets)
            }
          }
        }
        // Docker's names of task containers; they answer for as long as the task is there.
        for task in tasks {
          let slot = task.slot == 0 ? "\(task.node)" : "\(task.slot)"
          let full = Self.name(of: task, service)
          add(full, on: network, [task.address])
          add("\(service.name).\(slot)", on: network, [task.address])
          add("\(task.task)", on: network, [task.address])
          reverse[network, default: [:]][task.address] = full
        }
      }
    }
  }

  private static func name(of task: EndpointRecord, _ service: ServiceRecord) -> String {
    "\(service.name).\(task.slot == 0 ? "\(task.node)" : "\(task.slot)").\(task.task)"
  }

  /// A name that can only be of a cluster, though nobody here has it (any more): the world is not asked.
  func isOurs(_ key: String, on networks: [NetworkID]) -> Bool {
    if key.hasPrefix("tasks.") { return true }
    let labels = key.split(separator: ".").map(String.init)
    // No host outside has an underscore in its name (RFC 1123 2.1), a service of a stack has: demo_web.1.4f2a…
    if let first = labels.first, labels.count > 1, first.dropFirst().contains("_"), lookup(first, on: networks) != nil { return true }
    // _http._tcp.web
    return labels.count > 2 && labels[0].hasPrefix("_") && labels[1].hasPrefix("_")
      && lookup(labels.dropFirst(2).joined(separator: "."), on: networks) != nil
  }
  func isOurs(_ address: IPv4Address, on networks: [NetworkID]) -> Bool { networks.contains { subnets[$0]?.contains(address) == true } }
  func service(_ key: String, on networks: [NetworkID]) -> (port: UInt16, targets: [String])? {
    for network in networks { if let found = ports[network]?[key] { return found } }
    return nil
  }

  /// `Name(name)?.key`, without taking the usual name apart: there are tens of thousands of them at each change.
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

  /// Two services may have one alias: both answer.
  private mutating func add(_ name: String, on network: NetworkID, _ addresses: [IPv4Address], rotates: Bool = true) {
    guard let key = Self.key(name) else { return }
    var entry = names[network]?[key] ?? Entry(rotates: rotates)
    for address in addresses where !entry.addresses.contains(address) { entry.addresses.append(address) }
    if entry.addresses.count > 1 { entry.rotates = true }
    names[network, default: [:]][key] = entry
  }

  /// Of the first network that knows it.
  func lookup(_ key: String, on networks: [NetworkID]) -> Entry? {
    for network in networks { if let entry = names[network]?[key] { return entry } }
    return nil
  }
  func name(of address: IPv4Address, on networks: [NetworkID]) -> String? {
    for network in networks { if let name = reverse[network]?[address] { return name } }
    return nil
  }
}

/// Who asks: one container.
public struct DNSClient: Hashable, Sendable {
  public var networks: [NetworkID]
  /// Its own names (hostname, aliases of its own) and addresses: they answer whatever the zone says.
  public var ownNames: [String: IPv4Address]
  /// Names that nobody here knows are asked outside; false for containers of internal networks alone.
  public var forwards: Bool
  public init(networks: [NetworkID], ownNames: [String: IPv4Address] = [:], forwards: Bool) {
    self.networks = networks
    self.ownNames = ownNames
    self.forwards = forwards
  }
}

/// What to do with a query; pure.
public enum Resolution: Equatable, Sendable {
  case answer(Message)
  /// Ask the host's resolvers and give their answer as it comes.
  case forward
  /// Not a query: say nothing (answers to answers would circle).
  case ignore
}

extension Zone {
  /// `turn` is any number that grows with each query: answers with several addresses start at another each time.
  public func resolve(_ query: Message, from client: DNSClient, turn: Int) -> Resolution {
    guard !query.isResponse else { return .ignore }
    var response = Message(id: query.id)
    response.isResponse = true
    response.opcode = query.opcode
    response.recursionDesired = query.recursionDesired
    response.recursionAvailable = true
    response.questions = query.questions
    response.udpPayloadSize = query.udpPayloadSize.map { _ in 4096 }
    func fail(_ code: Message.ResponseCode) -> Resolution {
      response.code = code
      return .answer(response)
    }
    guard query.opcode == 0 else { return fail(.notImplemented) }
    guard query.questions.count == 1, let question = query.questions.first else { return fail(.formatError) }
    let elsewhere: () -> Resolution = { client.forwards ? .forward : fail(.nameError) }
    guard question.recordClass == 1 || question.recordClass == 255 else { return elsewhere() }

    let key = question.name.key
    if let address = Self.reverseAddress(key) {
      guard let name = name(of: address, on: client.networks), let target = Name(name) else {
        return isOurs(address, on: client.networks) ? fail(.nameError) : elsewhere()
      }
      response.authoritative = true
      if question.type == RecordType.ptr || question.type == RecordType.any {
        response.answers = [.init(name: question.name, type: RecordType.ptr, ttl: Self.ttl, data: target.wire)]
      }
      return .answer(response)
    }

    if let service = service(key, on: client.networks) {
      response.authoritative = true
      if question.type == RecordType.srv || question.type == RecordType.any {
        // Priority and weight 0, the port, the target uncompressed.
        response.answers = service.targets.compactMap { Name($0) }.map { target in
          .init(
            name: question.name, type: RecordType.srv, ttl: Self.ttl,
            data: [0, 0, 0, 0, UInt8(service.port >> 8), UInt8(service.port & 0xff)] + target.wire)
        }
      }
      return .answer(response)
    }

    let own = client.ownNames.first { Name($0.key)?.key == key }?.value
    guard let entry = own.map({ Entry(addresses: [$0], rotates: false) }) ?? lookup(key, on: client.networks) else {
      return isOurs(key, on: client.networks) ? fail(.nameError) : elsewhere()
    }
    // A name of ours: other types exist not (NODATA), and nobody outside is asked.
    response.authoritative = true
    if question.type == RecordType.a || question.type == RecordType.any {
      let count = entry.addresses.count
      let shift = entry.rotates && count > 0 ? abs(turn % count) : 0
      response.answers = (0..<count).map {
        .init(name: question.name, type: RecordType.a, ttl: Self.ttl, data: entry.addresses[($0 + shift) % count].octets)
      }
    }
    return .answer(response)
  }

  /// `4.3.2.1.in-addr.arpa` is 1.2.3.4 (RFC 1035 3.5).
  static func reverseAddress(_ key: String) -> IPv4Address? {
    let suffix = ".in-addr.arpa"
    guard key.hasSuffix(suffix) else { return nil }
    return IPv4Address(key.dropLast(suffix.count).split(separator: ".", omittingEmptySubsequences: false).reversed().joined(separator: "."))
  }
}
