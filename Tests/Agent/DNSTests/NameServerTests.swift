import Glibc
import LinuxSystem
import Logging
import Model
import Synchronization
import Testing

@testable import DNS

private func address(_ text: String) -> IPv4Address { IPv4Address(text)! }

/// A resolver of the outside: answers everything with 192.0.2.1 over UDP (names that begin with "big": truncated), 192.0.2.2 over TCP.
private final class FakeResolver: Sendable {
  let datagrams: Int32
  let listener: Int32
  let upstream: Upstream
  let asked = Counter()
  final class Counter: Sendable { let value = Atomic(0) }

  init() {
    datagrams = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
    listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var port: UInt16 = 0
    while true {
      port = .random(in: 20_000...60_000)
      let (first, second) = (datagrams, listener)
      if withSocketAddress(address("127.0.0.1"), port, { bind(first, $0, $1) == 0 && bind(second, $0, $1) == 0 }) { break }
    }
    listen(listener, 8)
    upstream = Upstream(address: address("127.0.0.1"), port: port)
    startThread("fake-udp") { [datagrams, asked] in
      var buffer = [UInt8](repeating: 0, count: 4096)
      while true {
        var asker = sockaddr_in()
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let count = withUnsafeMutablePointer(to: &asker) {
          $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { recvfrom(datagrams, &buffer, buffer.count, 0, $0, &size) }
        }
        guard count > 0, let query = try? Message(Array(buffer[..<count])) else { return }
        asked.value.add(1, ordering: .relaxed)
        let answer = Self.answer(query, "192.0.2.1", truncated: query.questions[0].name.key.hasPrefix("big"))
        withUnsafePointer(to: &asker) {
          _ = $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { sendto(datagrams, answer, answer.count, 0, $0, size) }
        }
      }
    }
    startThread("fake-tcp") { [listener] in
      while case let connection = accept(listener, nil, nil), connection >= 0 {
        var buffer = [UInt8](repeating: 0, count: 4096)
        let count = recv(connection, &buffer, buffer.count, 0)
        if count > 2, let query = try? Message(Array(buffer[2..<count])) {
          let answer = Self.answer(query, "192.0.2.2", truncated: false)
          let framed = [UInt8(answer.count >> 8), UInt8(answer.count & 0xff)] + answer
          send(connection, framed, framed.count, 0)
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
  static func answer(_ query: Message, _ text: String, truncated: Bool) -> [UInt8] {
    var answer = Message(id: query.id)
    answer.isResponse = true
    answer.truncated = truncated
    answer.questions = query.questions
    if !truncated { answer.answers = [.init(name: query.questions[0].name, type: 1, ttl: 60, data: address(text).octets)] }
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
  private func ask(_ name: String, in path: String, type: UInt16 = 1, tcp: Bool = false) async throws -> Message? {
    var query = Message(id: .random(in: 0...65_535))
    query.recursionDesired = true
    query.questions = [.init(name: Name(name)!, type: type)]
    let bytes = query.encoded()
    let server = Upstream(address: NameServer.address)
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
        upstreams: ResolvConf(servers: [Upstream(address: address("127.0.0.1"), port: 1), resolver.upstream]), log: Logger(label: "test"))
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
      let asked = resolver.asked.value.load(ordering: .relaxed)
      #expect(try await addresses("Example.COM") == [[192, 0, 2, 1]])
      #expect(try await addresses("example.com", tcp: true) == [[192, 0, 2, 1]])
      #expect(resolver.asked.value.load(ordering: .relaxed) == asked)
      #expect(try await addresses("big.example.com", tcp: true) == [[192, 0, 2, 2]])
      // Served anew, as after a restart of the agent.
      try await server.serve(task, namespace: path, client: DNSClient(networks: [network], forwards: false))
      #expect(try await ask("example.com", in: path)?.code == .nameError)
      server.stop(task)
      try await Task.sleep(for: .milliseconds(50))
      #expect(try await ask("web", in: path) == nil)
    }
  }

  @Test("when no resolver answers the asker is told within the timeouts")
  func unreachable() async throws {
    try await withNamespace { path in
      let server = try NameServer(upstreams: ResolvConf(servers: [Upstream(address: address("127.0.0.1"), port: 1)]), log: Logger(label: "test"))
      try await server.serve(TaskID(value: 1), namespace: path, client: DNSClient(networks: [], forwards: true))
      #expect(try await ask("example.com", in: path)?.code == .serverFailure)
    }
  }
}
