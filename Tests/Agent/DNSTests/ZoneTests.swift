import Model
import Testing

@testable import DNS

private func address(_ text: String) -> IPv4Address { IPv4Address(text)! }
private let front = NetworkID(value: 1)
private let back = NetworkID(value: 2)

private func endpoint(_ task: Int, _ service: Int, _ network: NetworkID, _ text: String, slot: Int = 1, ready: Bool = true) -> EndpointRecord {
  EndpointRecord(
    task: TaskID(value: UInt128(task)), service: ServiceID(value: UInt128(service)), network: network, node: NodeID(value: 1), slot: UInt64(slot),
    address: address(text), underlay: address("192.168.0.1"), ready: ready)
}

private let http = {
  var port = PortConfig(targetPort: 8080, publishedPort: 80)
  port.name = "http"
  return port
}()

private let both = NetworkID(value: 3)
private let zone = Zone(
  services: [
    ServiceRecord(
      id: ServiceID(value: 1), name: "shop_web", names: [front: ["shop_web", "web", "www.shop"]], mode: .vip,
      virtualIPs: [NetworkAttachment(network: front, address: address("10.0.1.2"))], ports: [http]),
    ServiceRecord(id: ServiceID(value: 2), name: "shop_db", names: [back: ["shop_db", "db"]], mode: .dnsrr, virtualIPs: [], ports: []),
    ServiceRecord(
      id: ServiceID(value: 3), name: "shop_idle", names: [front: ["idle"]], mode: .dnsrr, virtualIPs: [], ports: []),
    ServiceRecord(
      id: ServiceID(value: 4), name: "dual", names: [both: ["dual"]], mode: .vip,
      virtualIPs: [NetworkAttachment(network: both, address: address("10.0.3.2"))], ports: []),
  ],
  endpoints: [
    endpoint(1, 1, front, "10.0.1.11"), endpoint(2, 1, front, "10.0.1.12", slot: 2), endpoint(3, 1, front, "10.0.1.13", slot: 3, ready: false),
    endpoint(4, 2, back, "10.0.2.11"), endpoint(5, 2, back, "10.0.2.12", slot: 2),
    endpoint(6, 4, both, "10.0.3.11"), endpoint(7, 4, both, "10.0.3.12", slot: 2),
  ],
  networks: [
    NetworkAssignment(
      id: front, name: "front", vni: 4096, subnet: IPv4Prefix("10.0.1.0/24")!, internalOnly: false, ingress: false, mtu: 1450, dataPathPort: 4789,
      nodeAddress: address("10.0.1.3"), peers: []),
    {
      var network = NetworkAssignment(
        id: both, name: "both", vni: 4097, subnet: IPv4Prefix("10.0.3.0/24")!, internalOnly: false, ingress: false, mtu: 1450, dataPathPort: 4789,
        nodeAddress: address("10.0.3.3"), peers: [])
      network.subnet6 = IPv6Prefix("fd00:3::/64")
      return network
    }(),
  ])

@Suite("What names mean")
struct ZoneTests {
  private func ask(_ name: String, _ type: UInt16 = RecordType.a, on networks: [NetworkID] = [front], forwards: Bool = true, turn: Int = 0) -> String
  {
    var query = Message(id: 9)
    query.questions = [.init(name: Name(name)!, type: type)]
    let client = DNSClient(networks: networks, ownNames: ["me.local": address("10.0.1.99"), "me.both": address("10.0.3.99")], forwards: forwards)
    switch zone.resolve(query, from: client, turn: turn) {
    case .forward: return "forward"
    case .ignore: return "ignore"
    case .answer(let message):
      guard message.code == .noError else { return "\(message.code)" }
      let texts = message.answers.map { answer in
        if answer.type == RecordType.aaaa { return "\(IPv6Address(octets: answer.data))" }
        return answer.type == RecordType.ptr ? "\(answer.data.count) bytes" : answer.data.map { String($0) }.joined(separator: ".")
      }
      return texts.isEmpty ? "no data" : texts.joined(separator: " ")
    }
  }

  @Test("names, one by one")
  func table() {
    let cases: [(String, UInt16, [NetworkID], String)] = [
      ("web", 1, [front], "10.0.1.2"),
      ("WEB.", 1, [front], "10.0.1.2"),
      ("shop_web", 1, [front], "10.0.1.2"),
      ("www.shop", 1, [front], "10.0.1.2"),
      ("tasks.web", 1, [front], "10.0.1.11 10.0.1.12"),
      ("tasks.shop_web", 1, [front], "10.0.1.11 10.0.1.12"),
      ("shop_web.3", 1, [front], "10.0.1.13"),
      ("web", 28, [front], "no data"),
      ("dual", 28, [both], "fd00:3::2"),
      ("dual", 255, [both], "10.0.3.2 fd00:3::2"),
      ("tasks.dual", 28, [front, both], "fd00:3::b fd00:3::c"),
      ("dual.2", 28, [both], "fd00:3::c"),
      ("me.both", 28, [both], "fd00:3::63"),
      ("me.local", 28, [front], "no data"),
      ("2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.3.0.0.0.0.0.d.f.ip6.arpa", 12, [both], "6 bytes"),
      ("4.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.3.0.0.0.0.0.d.f.ip6.arpa", 12, [both], "nameError"),
      ("2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.3.0.0.0.0.0.d.f.ip6.arpa", 12, [front], "forward"),
      ("3.0.0.0.0.0.d.f.ip6.arpa", 12, [both], "forward"),
      ("web", 15, [front], "no data"),
      // Of another network, and what may be: nobody outside is asked for one label, but for what top levels have.
      ("web", 1, [back], "nameError"),
      ("db", 1, [front], "nameError"),
      ("shop_web", 1, [back], "nameError"),
      ("com", 2, [front], "forward"),
      ("com", 43, [front], "forward"),
      ("com", 16, [front], "nameError"),
      ("web.3", 1, [back], "nameError"),
      ("shop_web.1.\(TaskID(value: 1))", 1, [back], "nameError"),
      ("shop_web.\(NodeID(value: 1))", 1, [back], "nameError"),
      ("tasks.web", 1, [back], "nameError"),
      ("tasks.shop_web.3", 1, [back], "nameError"),
      ("_http._tcp.web", 33, [back], "nameError"),
      ("tasks.example.com", 1, [front], "forward"),
      // An alias that is a name of the world is that again on other networks.
      ("www.shop", 1, [back], "forward"),
      ("db", 1, [front, back], "10.0.2.11 10.0.2.12"),
      ("idle", 1, [front], "no data"),
      ("me.local", 1, [], "10.0.1.99"),
      ("example.com", 1, [front], "forward"),
      ("2.1.0.10.in-addr.arpa", 12, [front], "10 bytes"),
      ("2.1.0.10.in-addr.arpa", 12, [back], "forward"),
      ("x.1.0.10.in-addr.arpa", 12, [front], "forward"),
      // Of the cluster, and of nobody here: not told to the world.
      ("77.1.0.10.in-addr.arpa", 12, [front], "nameError"),
      ("tasks.gone", 1, [front], "nameError"),
      ("shop_web.9.deadbeef", 1, [front], "nameError"),
      ("_ftp._tcp.web", 33, [front], "nameError"),
      ("_http._tcp.example.com", 33, [front], "forward"),
      ("web.example.com", 1, [front], "forward"),
      // NAME.NETWORK, of a network of the asker's; the name means what it means there.
      ("web.front", 1, [front], "10.0.1.2"),
      ("WEB.Front", 1, [both, front], "10.0.1.2"),
      ("shop_web.1.front", 1, [front], "10.0.1.11"),
      ("_http._tcp.web.front", 1, [front], "no data"),
      ("dual.front", 1, [both, front], "nameError"),
      ("dual.both", 1, [both, front], "10.0.3.2"),
      ("dual.both", 28, [both, front], "fd00:3::2"),
      ("gone.front", 1, [front], "nameError"),
      ("web.front", 1, [both], "forward"),
      ("www.gone.front", 1, [front], "forward"),
      ("web.shop_default", 1, [front], "nameError"),
      ("a.b.shop_default", 1, [back], "nameError"),
      ("_http._tcp.web", 1, [front], "no data"),
    ]
    for (name, type, networks, expected) in cases { #expect(ask(name, type, on: networks) == expected, "\(name) \(type)") }
  }

  @Test("tasks of hosts without IPv6 are in no AAAA answer, nor is a virtual IP that leads to them alone; on small links nobody is")
  func lacking() {
    func ask(_ zone: Zone, _ name: String, _ type: UInt16) -> [String] {
      var query = Message(id: 9)
      query.questions = [.init(name: Name(name)!, type: type)]
      guard case .answer(let message) = zone.resolve(query, from: DNSClient(networks: [both], forwards: false), turn: 0) else { return ["?"] }
      return message.answers.map { "\(IPAddress(octets: $0.data))" }
    }
    var (mixed, none, small) = (zone, zone, zone)
    var records = [endpoint(6, 4, both, "10.0.3.11"), endpoint(7, 4, both, "10.0.3.12", slot: 2)]
    for index in records.indices { records[index].lacksIPv6 = true }
    mixed.update(.endpoint(records[0]))
    for record in records { none.update(.endpoint(record)) }
    #expect(ask(mixed, "tasks.dual", 28) == ["fd00:3::c"] && ask(mixed, "dual", 28) == ["fd00:3::2"])
    #expect(ask(mixed, "dual.1", 28) == [] && ask(mixed, "dual.2", 28) == ["fd00:3::c"])
    #expect(ask(none, "dual", 28) == [] && ask(none, "tasks.dual", 28) == [])
    for zone in [mixed, none] { #expect(ask(zone, "tasks.dual", 1) == ["10.0.3.11", "10.0.3.12"] && ask(zone, "dual", 1) == ["10.0.3.2"]) }
    var network = NetworkAssignment(
      id: both, name: "both", vni: 4097, subnet: IPv4Prefix("10.0.3.0/24")!, internalOnly: false, ingress: false, mtu: 1279, dataPathPort: 4789,
      nodeAddress: address("10.0.3.3"), peers: [])
    network.subnet6 = IPv6Prefix("fd00:3::/64")
    small.update(.network(network))
    #expect(ask(small, "tasks.dual", 28) == [] && ask(small, "dual", 28) == [] && ask(small, "dual", 1) == ["10.0.3.2"])
  }

  @Test("a task is found by its short id, which is its hostname by default, and by its service's short name with the slot, until that is another")
  func shortNames() {
    let (one, two) = (TaskID(value: 0x1234_5678_9abc_def0 << 64), TaskID(value: 0x2345_6789_abcd_ef01 << 64))
    func record(_ task: TaskID, _ slot: Int) -> EndpointRecord {
      var record = endpoint(1, 1, front, "10.0.1.\(10 + slot)", slot: slot)
      record.task = task
      return record
    }
    var service = ServiceRecord(
      id: ServiceID(value: 1), name: "shop_web", names: [front: ["shop_web", "web", "alias"]], mode: .dnsrr, virtualIPs: [], ports: [])
    var zone = Zone(services: [service], endpoints: [record(one, 1), record(two, 2)])
    func ask(_ name: String) -> [[UInt8]] {
      var query = Message(id: 9)
      query.questions = [.init(name: Name(name)!, type: RecordType.a)]
      guard case .answer(let message) = zone.resolve(query, from: DNSClient(networks: [front], ownNames: [:], forwards: false), turn: 0) else {
        return []
      }
      return message.answers.map(\.data)
    }
    for name in ["\(one.short)", "web.1", "shop_web.1"] { #expect(ask(name) == [[10, 0, 1, 11]], "\(name)") }
    for name in ["\(two.short)", "WEB.2"] { #expect(ask(name) == [[10, 0, 1, 12]], "\(name)") }
    #expect(one.short.utf8.count == 12 && ask("alias.1") == [] && ask("web.3") == [])
    service.names = [front: ["shop_web"]]
    zone.update(.service(service))
    #expect(
      ask("web.1") == [] && ask("shop_web.1") == [[10, 0, 1, 11]] && zone == Zone(services: [service], endpoints: [record(one, 1), record(two, 2)]))
  }

  @Test(
    "a hostname that a task's spec names answers peers with that task, with all that have it, and is a service's where it is a service's name, too")
  func hostnames() {
    func record(_ number: Int, _ hostname: String?) -> EndpointRecord {
      var record = endpoint(number, 1, front, "10.0.1.\(10 + number)", slot: number)
      record.hostname = hostname
      return record
    }
    let service = ServiceRecord(
      id: ServiceID(value: 1), name: "shop_kafka", names: [front: ["shop_kafka", "kafka"]], mode: .vip,
      virtualIPs: [NetworkAttachment(network: front, address: IPv4Address("10.0.1.5")!)], ports: [])
    let records = [
      record(1, "kafka-1"), record(2, "Kafka-2"), record(3, "both.example.com"), record(4, "both.example.com"), record(5, "kafka"), record(6, ""),
    ]
    var zone = Zone(services: [service], endpoints: records)
    func ask(_ name: String, on network: NetworkID) -> [[UInt8]] {
      var query = Message(id: 9)
      query.questions = [.init(name: Name(name)!, type: RecordType.a)]
      guard case .answer(let message) = zone.resolve(query, from: DNSClient(networks: [network], ownNames: [:], forwards: false), turn: 0) else {
        return []
      }
      return message.answers.map(\.data)
    }
    #expect(ask("kafka-1", on: front) == [[10, 0, 1, 11]] && ask("KAFKA-2", on: front) == [[10, 0, 1, 12]])
    #expect(ask("both.example.com", on: front) == [[10, 0, 1, 13], [10, 0, 1, 14]])
    #expect(ask("kafka", on: front) == [[10, 0, 1, 5]], "the service's virtual IP")
    #expect(ask("kafka-1", on: NetworkID(value: 99)) == [])
    zone.update(.endpoint(record(1, "other")))
    #expect(ask("kafka-1", on: front) == [] && ask("other", on: front) == [[10, 0, 1, 11]])
    #expect(zone == Zone(services: [service], endpoints: [record(1, "other")] + records.dropFirst()))
    zone.remove(.service(service.id))
    #expect(ask("kafka-2", on: front) == [])
  }

  @Test("a published port's SRV names the ready tasks and the port that they have it on")
  func ports() {
    var query = Message(id: 9)
    for name in ["_http._tcp.web", "_8080._TCP.shop_web"] {
      query.questions = [.init(name: Name(name)!, type: RecordType.srv)]
      guard case .answer(let message) = zone.resolve(query, from: DNSClient(networks: [front], forwards: true), turn: 0) else {
        Issue.record("no answer")
        return
      }
      let targets = (1...2).map { Name("shop_web.\($0).\(TaskID(value: UInt128($0)))")!.wire }
      #expect(message.answers.map(\.data) == targets.map { [0, 0, 0, 0, 0x1f, 0x90] + $0 }, "\(name)")
    }
  }

  @Test("on internal networks alone nobody outside is asked")
  func internalOnly() {
    #expect(ask("example.com", forwards: false) == "nameError")
    #expect(ask("web", forwards: false) == "10.0.1.2")
  }

  @Test("a task's own servers are asked for one label too, and for nothing else of a cluster")
  func ownServers() {
    let client = DNSClient(networks: [back], forwards: true, servers: ResolvConf(servers: [Upstream("10.0.0.2")!]))
    for (name, expected) in [("web", true), ("tasks.web", false), ("web.1", false)] {
      var query = Message(id: 9)
      query.questions = [.init(name: Name(name)!, type: RecordType.a)]
      #expect((zone.resolve(query, from: client, turn: 0) == .forward) == expected, "\(name)")
    }
  }

  @Test("several addresses take turns in front")
  func turns() {
    #expect(ask("db", on: [back], turn: 1) == "10.0.2.12 10.0.2.11")
    #expect(ask("db", on: [back], turn: 2) == "10.0.2.11 10.0.2.12")
  }

  @Test("answers are not answered, and strange questions get an error")
  func strange() {
    let client = DNSClient(networks: [front], forwards: true)
    var message = Message(id: 1)
    message.isResponse = true
    #expect(zone.resolve(message, from: client, turn: 0) == .ignore)
    message = Message(id: 1)
    guard case .answer(let none) = zone.resolve(message, from: client, turn: 0) else {
      Issue.record("no answer")
      return
    }
    #expect(none.code == .formatError)
    message.questions = [.init(name: Name("web")!, type: RecordType.a)]
    (message.udpPayloadSize, message.ednsVersion) = (1232, 1)
    guard case .answer(let other) = zone.resolve(message, from: client, turn: 0) else {
      Issue.record("no answer")
      return
    }
    #expect(other.extendedCode == 1 && other.ednsVersion == 0 && other.code == .noError && other.answers == [])
    // BADVERS is 16: 1 in the option, 0 in the header (RFC 6891 6.1.3).
    #expect(other.encoded().suffix(11) == [0, 0, 41, 0x10, 0, 1, 0, 0, 0, 0, 0] && other.encoded()[3] & 0x0f == 0)
    message.ednsVersion = 0
    message.opcode = 5
    guard case .answer(let update) = zone.resolve(message, from: client, turn: 0) else {
      Issue.record("no answer")
      return
    }
    #expect(update.code == .notImplemented)
  }

  @Test("the host's resolvers are read from resolv.conf")
  func resolvConf() {
    let text =
      "# x\nsearch a b\nnameserver 10.0.0.1\n  nameserver\t10.0.0.2 \nnameserver fe80::1%eth0\nnameserver\nnameserver 10.0.0.3\nnameserver 10.0.0.4\n"
    let conf = ResolvConf(text)
    #expect(conf.servers == [Upstream("10.0.0.1")!, Upstream("10.0.0.2")!, Upstream(address: .v6(IPv6Address("fe80::1")!), zone: "eth0")])
    #expect(conf.timeoutMilliseconds == 2000 && conf.attempts == 1 && !conf.rotates)
    let told = ResolvConf("nameserver 10.0.0.1\nnameserver 10.0.0.2\noptions timeout:1 attempts:2 rotate ndots:5\noptions timeout:x attempts:99\n")
    #expect(told.timeoutMilliseconds == 1000 && told.attempts == 5 && told.rotates)
    #expect(told.order(turn: 1).prefix(3) == [Upstream("10.0.0.2")!, Upstream("10.0.0.1")!, Upstream("10.0.0.2")!])
    let own = ContainerSpec.DNSConfig(nameservers: ["fd00::2", "10.0.0.2"], options: ["attempts:2", "ndots:1"])
    #expect(ResolvConf(own)?.servers == [Upstream("fd00::2")!, Upstream("10.0.0.2")!] && ResolvConf(own)?.attempts == 2)
    #expect(ResolvConf(ContainerSpec.DNSConfig(search: ["a"])) == nil)
    for wrong in ["", "fe80::1%", "a.b", "10.0.0.256", "::1::"] { #expect(Upstream(wrong) == nil, "\(wrong)") }
  }
}
