import Glibc
import LinuxSystem
import Logging
import Model
import OwnProcess
import Synchronization
import Testing

@testable import DNS

private func address(_ text: String) -> IPv4Address { IPv4Address(text)! }

/// A resolver of the outside: answers everything with 192.0.2.1 over UDP (names that begin with "big": truncated), 192.0.2.2 over TCP. It notes what it
/// was asked. Nobody is told of names that begin with "hole".
final class FakeResolver: Sendable {
  /// How it takes questions. lowering: the question comes back in small letters; straying: another one does; bare: none does.
  enum Manner { case answering, silent, denying, failing, refusing, lowering, straying, bare }
  let upstream: Upstream
  private let datagrams: Int32
  private let listener: Int32
  private let notes = Mutex<[String]>([])
  private let seen = Mutex<[Message]>([])
  /// Whole.
  var queries: [Message] { seen.withLock { $0 } }
  var asked: [String] { notes.withLock { $0 } }

  init(_ manner: Manner = .answering, at place: IPAddress = .v4(address("127.0.0.1")), answer first: String = "192.0.2.1") {
    let family = if case .v4 = place { AF_INET } else { AF_INET6 }
    var made: (first: Int32, second: Int32, port: UInt16)
    while true {
      // New ones each time: who has a port takes no other, and would ask for ever when the second is refused.
      let first = socket(family, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
      let second = socket(family, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
      made = (first, second, .random(in: 20_000...60_000))
      if withSocketAddress(place, made.port, nil, { bind(first, $0, $1) == 0 && bind(second, $0, $1) == 0 }) { break }
      close(first)
      close(second)
    }
    (datagrams, listener) = (made.first, made.second)
    let port = made.port
    listen(listener, 8)
    upstream = Upstream(address: place, port: port)
    // They end when the sockets are shut down.
    startThread("fake-udp") { [datagrams, weak self] in
      var buffer = [UInt8](repeating: 0, count: 4096)
      while true {
        var asker = sockaddr_in6()
        var size = socklen_t(MemoryLayout<sockaddr_in6>.size)
        let count = withUnsafeMutablePointer(to: &asker) {
          $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { recvfrom(datagrams, &buffer, buffer.count, 0, $0, &size) }
        }
        guard count > 0, let query = try? Message(Array(buffer[..<count])) else { return }
        self?.note("udp", query)
        if manner == .silent || query.questions[0].name.key.hasPrefix("hole") { continue }
        let answer = Self.answer(query, first, truncated: query.questions[0].name.key.hasPrefix("big"), manner)
        withUnsafePointer(to: &asker) {
          _ = $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { sendto(datagrams, answer, answer.count, 0, $0, size) }
        }
      }
    }
    startThread("fake-tcp") { [listener, weak self] in
      while case let connection = accept(listener, nil, nil), connection >= 0 {
        var buffer = [UInt8](repeating: 0, count: 4096)
        let count = recv(connection, &buffer, buffer.count, 0)
        if count > 2, let query = try? Message(Array(buffer[2..<count])) {
          self?.note("tcp", query)
          let answer = Self.answer(query, "192.0.2.2", truncated: false, manner)
          let framed = [UInt8(answer.count >> 8), UInt8(answer.count & 0xff)] + answer
          if manner != .silent { send(connection, framed, framed.count, 0) } else { recv(connection, &buffer, buffer.count, 0) }
        }
        close(connection)
      }
    }
  }
  deinit {
    shutdown(datagrams, Int32(SHUT_RDWR))
    shutdown(listener, Int32(SHUT_RDWR))
    close(datagrams)
    close(listener)
  }
  private func note(_ way: String, _ query: Message) {
    notes.withLock { $0.append("\(way) \(query.questions[0].name.key) \(query.questions[0].type)") }
    seen.withLock { $0.append(query) }
  }
  static func answer(_ query: Message, _ text: String, truncated: Bool, _ manner: Manner) -> [UInt8] {
    var answer = Message(id: query.id)
    answer.isResponse = true
    answer.truncated = truncated
    answer.questions = query.questions
    switch manner {
    case .denying: answer.code = .nameError
    case .failing, .bare: answer.code = .serverFailure
    case .refusing: answer.code = .refused
    case .lowering: answer.questions[0].name = Name(query.questions[0].name.key)!
    case .straying: answer.questions[0].name = Name("stray.example")!
    case .answering, .silent: break
    }
    if manner == .bare { answer.questions = [] }
    if !truncated, answer.code == .noError { answer.answers = [.init(name: answer.questions[0].name, type: 1, ttl: 60, data: address(text).octets)] }
    return answer.encoded()
  }
}

@Suite("The name server in a container's namespace", .serialized, .enabled(if: geteuid() == 0))
struct NameServerTests {
  /// A namespace that lives as long as its thread waits.
  private func withNamespace(_ body: (String) async throws -> Void) async throws {
    let path = "/tmp/orch-dns-\(UInt64.random(in: 0...UInt64.max))"
    close(open(path, O_CREAT | O_RDONLY, 0o400))
    // unshare(1) binds the namespace to the file and brings lo up.
    var pid: pid_t = 0
    let words = ["unshare", "--net=\(path)", "ip", "link", "set", "lo", "up"]
    let arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0)! } + [nil]
    defer { for pointer in arguments { free(pointer) } }
    try #require(posix_spawnp(&pid, "unshare", nil, nil, arguments, environ) == 0)
    waitpid(pid, nil, 0)
    defer {
      while umount2(path, 2) == 0 {}
      unlink(path)
    }
    try await body(path)
  }

  /// Asks 127.0.0.11 there; nil: no answer within a second.
  private func ask(_ name: String, in path: String, type: UInt16 = 1, tcp: Bool = false, id: UInt16? = nil) async throws -> Message? {
    var query = Message(id: id ?? .random(in: 0...65_535))
    query.recursionDesired = true
    query.questions = [.init(name: Name(name)!, type: type)]
    let bytes = query.encoded()
    let server = Upstream(address: .v4(EmbeddedDNS.address), port: EmbeddedDNS.port)
    let answer: [UInt8]? = try await withNetworkNamespace(path) {
      if tcp { return server.askByTCP(bytes, milliseconds: 2000) }
      let descriptor = server.connect(SOCK_DGRAM, waiting: 2000)
      defer { close(descriptor) }
      send(descriptor, bytes, bytes.count, 0)
      var buffer = [UInt8](repeating: 0, count: 4096)
      let count = recv(descriptor, &buffer, buffer.count, 0)
      return count > 0 ? Array(buffer[..<count]) : nil
    }
    return try answer.map { try Message($0) }
  }

  private let network = NetworkID(value: 1)
  private func records(_ addresses: [String]) -> [AssignmentItem] {
    [.service(ServiceRecord(id: ServiceID(value: 1), name: "web", names: [network: ["web"]], mode: .dnsrr, virtualIPs: [], ports: []))]
      + addresses.enumerated().map {
        .endpoint(
          EndpointRecord(
            task: TaskID(value: UInt128($0.offset)), service: ServiceID(value: 1), network: network, node: NodeID(value: 1), slot: 1,
            address: address($0.element), underlay: address("192.168.0.1"), ready: true))
      }
  }

  @Test("answers by UDP and TCP, follows the zone, forwards the rest by the way it came, and is silent after stop")
  func serves() async throws {
    try await withNamespace { path in
      let resolver = FakeResolver()
      let server = try NameServer(
        upstreams: ResolvConf(servers: [Upstream(address: .v4(address("127.0.0.1")), port: 1), resolver.upstream]), log: Logger(label: "test"))
      let task = TaskID(value: 7)
      server.update(records(["10.0.0.1"]))
      try await server.serve(task, namespace: path, client: DNSClient(networks: [network], ownNames: ["me": address("10.0.0.9")], forwards: true))
      func addresses(_ name: String, tcp: Bool = false) async throws -> [[UInt8]]? { try await ask(name, in: path, tcp: tcp)?.answers.map(\.data) }
      #expect(try await addresses("web") == [[10, 0, 0, 1]])
      #expect(try await addresses("web", tcp: true) == [[10, 0, 0, 1]])
      #expect(try await addresses("me") == [[10, 0, 0, 9]])
      server.update(records(["10.0.0.2", "10.0.0.3"]))
      #expect(try await addresses("tasks.web").map(Set.init) == [[10, 0, 0, 2], [10, 0, 0, 3]])
      let nothing = try await ask("web", in: path, type: RecordType.aaaa)
      #expect(nothing?.code == .noError && nothing?.answers == [])
      // The first resolver is not there: the second is asked at once.
      #expect(try await addresses("example.com") == [[192, 0, 2, 1]])
      // Too large for its datagram: fetched by TCP here.
      #expect(try await addresses("big.example.com") == [[192, 0, 2, 2]])
      // Asked once for both ways and all spellings.
      let asked = resolver.asked
      #expect(try await addresses("Example.COM") == [[192, 0, 2, 1]])
      #expect(try await addresses("example.com", tcp: true) == [[192, 0, 2, 1]])
      #expect(resolver.asked == asked)
      #expect(try await addresses("big.example.com", tcp: true) == [[192, 0, 2, 2]])
      // Served anew, as after a restart of the agent.
      try await server.serve(task, namespace: path, client: DNSClient(networks: [network], forwards: false))
      #expect(try await ask("example.com", in: path)?.code == .nameError)
      server.stop(task)
      try await Task.sleep(for: .milliseconds(50))
      #expect(try await ask("web", in: path) == nil)
    }
  }

  @Test("who comes by TCP when no descriptor is left is closed, also after the one that is kept for that was lost once")
  func exhausted() async throws {
    // The bound on descriptors is the process's.
    try await inOwnProcess("DNSTests.NameServerTests/exhausted()") { try await exhaust() }
  }
  private func exhaust() async throws {
    func allow(_ count: UInt) {
      var limit = rlimit()
      getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
      limit.rlim_cur = rlim_t(count)
      precondition(setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0)
    }
    try await withNamespace { path in
      let server = try NameServer(upstreams: ResolvConf(), log: Logger(label: "test"))
      server.update(records(["10.0.0.1"]))
      try await server.serve(TaskID(value: 7), namespace: path, client: DNSClient(networks: [network], forwards: false))
      try #require(try await ask("web", in: path, tcp: true) != nil)
      let clients = try await withNetworkNamespace(path) { (1...3).map { _ in socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0) } }
      func isClosed(_ client: Int32) -> Bool {
        var limit = timeval(tv_sec: 2, tv_usec: 0)
        setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        precondition(withSocketAddress(EmbeddedDNS.address, EmbeddedDNS.port) { connect(client, $0, $1) } == 0)
        var byte: UInt8 = 0
        let count = recv(client, &byte, 1, 0)
        return count == 0 || (count < 0 && errno == ECONNRESET)
      }
      // Not even what is given up can be had again: as when another thread is quicker.
      allow(3)
      try #require(!isClosed(clients[0]))
      allow(256)
      // It is taken, and the last descriptors are others'.
      try #require(!isClosed(clients[1]))
      while open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0 {}
      try #require(isClosed(clients[2]))
      allow(1024)
    }
  }

  @Test("what is asked before the zone is filled waits for it: no other server is asked, and the answer is right")
  func early() async throws {
    try await withNamespace { path in
      let resolver = FakeResolver()
      let server = try NameServer(upstreams: ResolvConf(servers: [resolver.upstream]), log: Logger(label: "test"))
      try await server.serve(TaskID(value: 7), namespace: path, client: DNSClient(networks: [network], forwards: true))
      async let early = ask("web", in: path)
      async let earlyByTCP = ask("tasks.web", in: path, tcp: true)
      try await Task.sleep(for: .milliseconds(200))
      #expect(resolver.asked == [])
      server.update(records(["10.0.0.1"]))
      #expect(try await early?.answers.map(\.data) == [[10, 0, 0, 1]])
      #expect(try await earlyByTCP?.answers.map(\.data) == [[10, 0, 0, 1]])
      #expect(resolver.asked == [])
    }
  }

  @Test("a task's own servers are asked from its own namespace, by UDP and TCP, IPv4 and IPv6; their answers are for that task alone")
  func ownServers() async throws {
    try await withNamespace { path in
      let outside = FakeResolver()
      let (own, own6) = try await withNetworkNamespace(path) {
        (FakeResolver(answer: "192.0.2.7"), FakeResolver(at: .v6(IPv6Address("::1")!), answer: "192.0.2.8"))
      }
      let server = try NameServer(upstreams: ResolvConf(servers: [outside.upstream]), log: Logger(label: "test"))
      server.update(records(["10.0.0.1"]))
      func serve(_ servers: [Upstream]?) async throws {
        let client = DNSClient(networks: [network], forwards: true, servers: servers.map { ResolvConf(servers: $0) })
        try await server.serve(TaskID(value: 7), namespace: path, client: client)
      }
      func addresses(_ name: String, tcp: Bool = false) async throws -> [[UInt8]]? { try await ask(name, in: path, tcp: tcp)?.answers.map(\.data) }
      try await serve(nil)
      #expect(try await addresses("example.com") == [[192, 0, 2, 1]])
      try await serve([own.upstream])
      // Not what the host's servers said before.
      #expect(try await addresses("example.com") == [[192, 0, 2, 7]])
      #expect(try await addresses("big.example.com") == [[192, 0, 2, 2]])
      #expect(try await addresses("tcp.example.com", tcp: true) == [[192, 0, 2, 2]])
      #expect(try await addresses("web") == [[10, 0, 0, 1]])
      #expect(try await addresses("example.com") == [[192, 0, 2, 7]])
      #expect(own.asked == ["udp example.com 1", "udp big.example.com 1", "tcp big.example.com 1", "tcp tcp.example.com 1"])
      try await serve([own6.upstream])
      #expect(try await addresses("example.com") == [[192, 0, 2, 8]])
      try await serve(nil)
      #expect(try await addresses("example.com") == [[192, 0, 2, 1]])
      #expect(outside.asked == ["udp example.com 1"])
    }
  }

  @Test("no name of the cluster goes to the host's servers, of whatever kind, whether somebody has it or not")
  func noLeak() async throws {
    try await withNamespace { path in
      let resolver = FakeResolver()
      let server = try NameServer(upstreams: ResolvConf(servers: [resolver.upstream]), log: Logger(label: "test"))
      let other = NetworkID(value: 2)
      var service = ServiceRecord(
        id: ServiceID(value: 1), name: "demo_web", names: [network: ["demo_web", "web"]], mode: .vip,
        virtualIPs: [NetworkAttachment(network: network, address: address("10.0.1.2"))], ports: [PortConfig(targetPort: 80, publishedPort: 80)])
      service.ports[0].name = "http"
      let task = EndpointRecord(
        task: TaskID(value: 5), service: ServiceID(value: 1), network: network, node: NodeID(value: 1), slot: 1, address: address("10.0.1.3"),
        underlay: address("192.168.0.1"), ready: true)
      let subnet = NetworkAssignment(
        id: network, name: "demo_default", vni: 4096, subnet: IPv4Prefix("10.0.1.0/24")!, internalOnly: false, ingress: false, mtu: 1450,
        dataPathPort: 4789,
        peers: [])
      func everything() async throws {
        for name in [
          "web", "WEB", "demo_web", "tasks.web", "tasks.demo_web", "web.1", "demo_web.1", "demo_web.1.\(TaskID(value: 5))", "\(TaskID(value: 5))",
          "demo_web.\(NodeID(value: 1))", "_http._tcp.web", "_80._tcp.demo_web", "web.demo_default", "demo_web.demo_default",
          "gone.demo_default", "tasks.web.demo_default", "demo_web.1.demo_default", "demo_web.1.\(TaskID(value: 5)).demo_default", "a.b.demo_default",
        ] {
          for type in [1, 28, 33, 15, 16, 255] as [UInt16] { #expect(try await ask(name, in: path, type: type) != nil, "\(name) \(type)") }
          #expect(try await ask(name, in: path, tcp: true) != nil)
        }
      }
      server.update([.network(subnet), .service(service), .endpoint(task)])
      try await server.serve(TaskID(value: 7), namespace: path, client: DNSClient(networks: [network], forwards: true))
      try await everything()
      #expect(try await ask("3.1.0.10.in-addr.arpa", in: path, type: 12)?.answers.count == 1)
      #expect(try await ask("9.1.0.10.in-addr.arpa", in: path, type: 12)?.code == .nameError)
      #expect(try await ask("web.demo_default", in: path)?.answers.map(\.data) == [[10, 0, 1, 2]])
      // From another network; and when the service is gone.
      try await server.serve(TaskID(value: 7), namespace: path, client: DNSClient(networks: [other], forwards: true))
      try await everything()
      server.update([], removing: [AssignmentItem.service(service).key, AssignmentItem.endpoint(task).key])
      try await everything()
      #expect(resolver.asked == [])
      #expect(try await ask("example.com", in: path)?.answers.count == 1)
      #expect(resolver.asked == ["udp example.com 1"])
    }
  }

  @Test("a silent server's time is bounded, the next is asked; each as often as attempts say; a large answer comes from the next by TCP")
  func silent() async throws {
    try await withNamespace { path in
      let (silent, other) = (FakeResolver(.silent), FakeResolver())
      func server(_ servers: [FakeResolver], attempts: Int) async throws -> NameServer {
        var conf = ResolvConf(servers: servers.map(\.upstream))
        (conf.timeoutMilliseconds, conf.attempts) = (100, attempts)
        let server = try NameServer(upstreams: conf, log: Logger(label: "test"))
        server.update([])
        try await server.serve(TaskID(value: 1), namespace: path, client: DNSClient(networks: [], forwards: true))
        return server
      }
      var names = try await server([silent, other], attempts: 1)
      #expect(try await ask("a.example", in: path)?.answers.map(\.data) == [[192, 0, 2, 1]])
      #expect(try await ask("big.example", in: path)?.answers.map(\.data) == [[192, 0, 2, 2]])
      #expect(try await ask("t.example", in: path, tcp: true)?.answers.map(\.data) == [[192, 0, 2, 2]])
      #expect(silent.asked == ["udp a.example 1", "udp big.example 1", "tcp big.example 1", "tcp t.example 1"])
      #expect(other.asked == silent.asked)
      names.stop(TaskID(value: 1))
      names = try await server([silent], attempts: 3)
      #expect(try await ask("b.example", in: path)?.code == .serverFailure)
      #expect(silent.asked.suffix(3) == ["udp b.example 1", "udp b.example 1", "udp b.example 1"])
      #expect(names.counts.failed == 1)
    }
  }

  /// A server that asks these, and answers at `path`.
  private func server(_ servers: [FakeResolver], in path: String, milliseconds: Int64 = 2000) async throws -> NameServer {
    var conf = ResolvConf(servers: servers.map(\.upstream))
    conf.timeoutMilliseconds = milliseconds
    let server = try NameServer(upstreams: conf, log: Logger(label: "test"))
    server.update([])
    try await server.serve(TaskID(value: 1), namespace: path, client: DNSClient(networks: [], forwards: true))
    return server
  }

  @Test("a server that fails, refuses or answers something else does not end a question: the next is asked, by UDP and TCP")
  func next() async throws {
    try await withNamespace { path in
      for manner in [FakeResolver.Manner.failing, .refusing, .bare, .straying] {
        let (first, second) = (FakeResolver(manner), FakeResolver())
        let names = try await server([first, second], in: path, milliseconds: 300)
        #expect(try await ask("a.example", in: path)?.answers.map(\.data) == [[192, 0, 2, 1]], "\(manner)")
        #expect(try await ask("b.example", in: path, tcp: true)?.answers.map(\.data) == [[192, 0, 2, 2]], "\(manner)")
        #expect(first.asked.count == 2 && second.asked.count == 2)
        names.stop(TaskID(value: 1))
      }
      // None is better: what the last one said.
      let all = [FakeResolver(.failing), FakeResolver(.refusing), FakeResolver(.silent)]
      let names = try await server(all, in: path, milliseconds: 200)
      #expect(try await ask("a.example", in: path)?.code == .refused)
      #expect(try await ask("a.example", in: path, tcp: true)?.code == .refused)
      #expect(all.map(\.asked.count) == [2, 2, 2])
      names.stop(TaskID(value: 1))
      // That a name is not there is an answer.
      let (denying, other) = (FakeResolver(.denying), FakeResolver())
      let last = try await server([denying, other], in: path)
      #expect(try await ask("a.example", in: path)?.code == .nameError)
      #expect(other.asked == [])
      last.stop(TaskID(value: 1))
    }
  }

  @Test("other servers see none of a container's ids and another spelling each time; the container sees its own")
  func disguise() async throws {
    try await withNamespace { path in
      let resolver = FakeResolver()
      let server = try await server([resolver], in: path)
      var (same, spellings) = (0, Set<String>())
      for number in 1...8 {
        let name = "a-Name-of-Many-Letters-\(number).example"
        let answer = try #require(try await ask(name, in: path, id: 4711))
        #expect(answer.id == 4711 && answer.questions[0].name.description == name && answer.answers.count == 1)
        let query = try #require(resolver.queries.last)
        #expect(query.questions[0].name == Name(name) && query.recursionDesired)
        if query.id == 4711 { same += 1 }
        spellings.insert(String(query.questions[0].name.description.prefix(22)))
      }
      #expect(same < 3 && spellings.count == 8, "\(spellings)")
      server.stop(TaskID(value: 1))
    }
  }

  @Test("a server that does not keep the spelling is asked once more, believed, and not tried again")
  func lowering() async throws {
    try await withNamespace { path in
      let resolver = FakeResolver(.lowering)
      let server = try await server([resolver], in: path, milliseconds: 500)
      for (name, count) in [("first-of-many-letters.example", 2), ("second-of-many-letters.example", 3)] {
        #expect(try await ask(name, in: path)?.answers.map(\.data) == [[192, 0, 2, 1]])
        #expect(resolver.asked.count == count)
      }
      server.stop(TaskID(value: 1))
    }
  }

  @Test("equal questions are asked once, whoever asks them; every asker is answered under its own id and spelling")
  func merged() async throws {
    try await withNamespace { path in
      let resolver = FakeResolver()
      let server = try await server([resolver], in: path, milliseconds: 400)
      async let one = ask("hole.example", in: path)
      async let two = ask("Hole.Example", in: path)
      async let three = ask("HOLE.example", in: path)
      let answers = [try await one, try await two, try await three].compactMap { $0 }
      #expect(answers.count == 3 && answers.allSatisfy { $0.code == .serverFailure && $0.questions[0].name == Name("hole.example") })
      #expect(Set(answers.map { $0.questions[0].name.description }).count == 3)
      #expect(resolver.asked == ["udp hole.example 1"])
      server.stop(TaskID(value: 1))
    }
  }

  @Test("a program of the container may have port 53 of every address, before the resolver comes and after")
  func ownServer() async throws {
    try await withNamespace { path in
      let server = try NameServer(upstreams: ResolvConf(), log: Logger(label: "test"))
      server.update(records(["10.0.0.1"]))
      let client = DNSClient(networks: [network], forwards: false)
      for isFirst in [true, false] {
        if !isFirst { try await server.serve(TaskID(value: 7), namespace: path, client: client) }
        let own = try await withNetworkNamespace(path) {
          [SOCK_DGRAM, SOCK_STREAM].map { kind in
            let descriptor = socket(AF_INET, Int32(kind.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
            let isBound = withSocketAddress(address("0.0.0.0"), 53) { bind(descriptor, $0, $1) == 0 }
            if isBound, kind == SOCK_DGRAM || listen(descriptor, 8) == 0 { return descriptor }
            close(descriptor)
            return -1
          }
        }
        #expect(own.allSatisfy { $0 >= 0 }, "\(isFirst ? "before" : "after")")
        if isFirst { try await server.serve(TaskID(value: 7), namespace: path, client: client) }
        for tcp in [false, true] { #expect(try await ask("web", in: path, tcp: tcp)?.answers.map(\.data) == [[10, 0, 0, 1]]) }
        for descriptor in own where descriptor >= 0 { close(descriptor) }
        server.stop(TaskID(value: 7))
      }
    }
  }

  @Test("a container that asks without end takes no room from the others")
  func greedy() async throws {
    try await withNamespace { path in
      try await withNamespace { other in
        let resolver = FakeResolver()
        let server = try await server([resolver], in: path, milliseconds: 4000)
        try await server.serve(TaskID(value: 2), namespace: other, client: DNSClient(networks: [], forwards: true))
        let flood = try await withNetworkNamespace(path) {
          Upstream(address: .v4(EmbeddedDNS.address), port: EmbeddedDNS.port).connect(SOCK_DGRAM, waiting: 2000)
        }
        defer { close(flood) }
        for number in 0..<600 {
          var query = Message(id: UInt16(number))
          query.questions = [.init(name: Name("hole\(number).example")!, type: 1)]
          let bytes = query.encoded()
          send(flood, bytes, bytes.count, 0)
        }
        try await Task.sleep(for: .milliseconds(300))
        #expect(try await ask("a.example", in: other)?.answers.map(\.data) == [[192, 0, 2, 1]])
        #expect(try await ask("b.example", in: path)?.code == .serverFailure)
        server.stop(TaskID(value: 1))
        // With its container its questions are gone.
        try await server.serve(TaskID(value: 1), namespace: path, client: DNSClient(networks: [], forwards: true))
        #expect(try await ask("c.example", in: path)?.answers.map(\.data) == [[192, 0, 2, 1]])
      }
    }
  }

  @Test("a client that asks for both families, as libc does, gets another address first each time")
  func turns() async throws {
    try await withNamespace { path in
      let server = try NameServer(upstreams: ResolvConf(), log: Logger(label: "test"))
      server.update(records(["10.0.0.1", "10.0.0.2"]))
      try await server.serve(TaskID(value: 7), namespace: path, client: DNSClient(networks: [network], forwards: false))
      for tcp in [false, true] {
        var first: [UInt8: Int] = [:]
        for _ in 1...100 {
          let data = try #require(try await ask("web", in: path, tcp: tcp)?.answers.first?.data)
          first[data[3], default: 0] += 1
          _ = try await ask("web", in: path, type: RecordType.aaaa, tcp: tcp)
        }
        // By TCP at random: within 5 standard deviations.
        #expect(tcp ? (25...75).contains(first[1] ?? 0) : first[1] == 50, "\(first)")
      }
    }
  }

  @Test("sockets that another program destroys are made anew")
  func destroyed() async throws {
    try await withNamespace { path in
      let server = try NameServer(upstreams: ResolvConf(), log: Logger(label: "test"))
      server.update(records(["10.0.0.1"]))
      try await server.serve(TaskID(value: 7), namespace: path, client: DNSClient(networks: [network], forwards: false))
      for sockets in ["-t -l", "-u -a"] {
        #expect(try await ask("web", in: path, tcp: true) != nil)
        let words = ["nsenter", "--net=\(path)", "sh", "-c", "ss -K -n \(sockets) src 127.0.0.11 | grep -c 127.0.0.11"]
        let arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0)! } + [nil]
        defer { for pointer in arguments { free(pointer) } }
        var (pid, status): (pid_t, Int32) = (0, -1)
        try #require(posix_spawnp(&pid, "nsenter", nil, nil, arguments, environ) == 0)
        waitpid(pid, &status, 0)
        #expect(status == 0, "ss destroyed them")
        // The kernel tells at once; a question meanwhile may be refused.
        var isBack = false
        for _ in 1...450 where !isBack {
          let answers = (try await ask("web", in: path, tcp: true), try await ask("web", in: path))
          isBack = answers.0?.answers.count == 1 && answers.1?.answers.count == 1
          if !isBack { try await Task.sleep(for: .milliseconds(100)) }
        }
        #expect(isBack, "\(sockets)")
      }
    }
  }

  @Test("when no resolver answers the asker is told within the timeouts")
  func unreachable() async throws {
    try await withNamespace { path in
      let server = try NameServer(upstreams: ResolvConf(servers: [Upstream(address: .v4(address("127.0.0.1")), port: 1)]), log: Logger(label: "test"))
      server.update([])
      try await server.serve(TaskID(value: 1), namespace: path, client: DNSClient(networks: [], forwards: true))
      #expect(try await ask("example.com", in: path)?.code == .serverFailure)
    }
  }
}
