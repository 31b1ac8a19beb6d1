import Model

/// Who asks: one container.
public struct DNSClient: Hashable, Sendable {
  public var networks: [NetworkID]
  /// Its own names (hostname, aliases of its own) and addresses: they answer whatever the zone says.
  public var ownNames: [String: IPv4Address]
  /// Names that nobody here knows are asked outside; false for containers of internal networks alone.
  public var forwards: Bool
  /// Asked instead of the host's, from the container's own namespace, as docker does: what it cannot reach is not reached for it.
  public var servers: ResolvConf?
  public init(networks: [NetworkID], ownNames: [String: IPv4Address] = [:], forwards: Bool, servers: ResolvConf? = nil) {
    self.networks = networks
    self.ownNames = ownNames
    self.forwards = forwards
    self.servers = servers
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
  /// Answers with several addresses start with the one of this turn: any number, that grows or is drawn.
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
    guard query.ednsVersion == 0 else {
      response.extendedCode = 1
      return .answer(response)
    }
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

    let own = client.ownNames.first { Name($0.key)?.key == key }?.value
    // A name that means something as it is hides a network's.
    var (name, networks) = (key, client.networks)
    if own == nil, let qualified = qualified(key, on: networks), service(key, on: networks) == nil, lookup(key, on: networks) == nil {
      (name, networks) = (qualified.name, [qualified.network])
    }
    if let service = service(name, on: networks) {
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

    let found = own == nil ? lookup(name, on: networks) : nil
    guard let addresses = own.map({ [$0] }) ?? found?.addresses else {
      if client.servers == nil, question.name.labels.count == 1, !Self.typesOfTopLevels.contains(question.type) { return fail(.nameError) }
      return isOurs(key, on: client.networks) ? fail(.nameError) : elsewhere()
    }
    // A name of ours: other types exist not (NODATA), and nobody outside is asked.
    response.authoritative = true
    func answer(_ type: UInt16, _ data: [[UInt8]]) {
      guard question.type == type || question.type == RecordType.any, !data.isEmpty else { return }
      let shift = abs(turn % data.count)
      response.answers += data.indices.map { .init(name: question.name, type: type, ttl: Self.ttl, data: data[($0 + shift) % data.count]) }
    }
    answer(RecordType.a, addresses.map(\.octets))
    if question.type == RecordType.aaaa || question.type == RecordType.any {
      let counterparts =
        own.map { self.counterparts(of: $0, on: client.networks) }
        ?? lookup(name, on: networks, v6: true).map { self.counterparts(of: $0.addresses, on: $0.network) }
      answer(RecordType.aaaa, (counterparts ?? []).map(\.octets))
    }
    return .answer(response)
  }

  /// A name of one label may be of a service on another network, or of one that is gone: the host's servers are asked for none (as systemd-resolved has
  /// it, `ResolveUnicastSingleLabel`), but for what top levels of the world have.
  private static let typesOfTopLevels = [RecordType.ns, RecordType.soa, RecordType.ds, RecordType.dnskey]

  /// `4.3.2.1.in-addr.arpa` is 1.2.3.4 (RFC 1035 3.5); 32 digits, the last first, before `ip6.arpa` are an IPv6 address (RFC 3596 2.5).
  static func reverseAddress(_ key: String) -> IPAddress? {
    func labels(_ suffix: String) -> [Substring]? {
      key.hasSuffix(suffix) ? key.dropLast(suffix.count).split(separator: ".", omittingEmptySubsequences: false).reversed() : nil
    }
    if let labels = labels(".in-addr.arpa") { return IPv4Address(labels.joined(separator: ".")).map { .v4($0) } }
    guard let labels = labels(".ip6.arpa"), labels.count == 32, labels.allSatisfy({ $0.utf8.count == 1 && $0.first!.isHexDigit }) else { return nil }
    return UInt128(labels.joined(), radix: 16).map { .v6(IPv6Address($0)) }
  }
}
