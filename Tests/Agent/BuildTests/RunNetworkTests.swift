import AgentNetwork
import DNS
import Glibc
import LinuxSystem
import Logging
import Model
import Synchronization
import Testing

@testable import Build

/// A socket that listens, and answers whoever comes with its end; or a resolver that says 192.0.2.77 to every question for an address.
private final class Server: Sendable {
  let descriptor: Int32
  let port: UInt16
  /// Who came.
  let callers = Mutex<[IPv4Address]>([])

  private init(_ descriptor: Int32, _ port: UInt16) { (self.descriptor, self.port) = (descriptor, port) }
  deinit {
    // Whoever waits for a caller is woken.
    shutdown(descriptor, Int32(SHUT_RDWR))
    close(descriptor)
  }

  private static func name(_ address: String, _ port: UInt16) -> sockaddr_in {
    var name = sockaddr_in()
    name.sin_family = sa_family_t(AF_INET)
    name.sin_port = port.bigEndian
    name.sin_addr.s_addr = IPv4Address(address)!.rawValue.bigEndian
    return name
  }

  /// In the calling thread's namespace, at a port of the kernel's choice.
  private static func bound(_ kind: __socket_type, _ address: String) throws -> Server {
    let descriptor = socket(AF_INET, Int32(kind.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    try checkResult(descriptor, "open", "socket")
    var own = name(address, 0)
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    try withUnsafeMutablePointer(to: &own) { pointer in
      try pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
        try checkResult(bind(descriptor, pointer, length), "bind", address)
        try checkResult(getsockname(descriptor, pointer, &length), "name", address)
      }
    }
    return Server(descriptor, UInt16(bigEndian: own.sin_port))
  }

  static func stream(_ address: String) throws -> Server {
    let server = try bound(SOCK_STREAM, address)
    try checkResult(listen(server.descriptor, 8), "listen", address)
    startThread("test-server") { [weak server, descriptor = server.descriptor] in
      while true {
        var peer = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let caller = withUnsafeMutablePointer(to: &peer) { pointer in
          pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { accept(descriptor, $0, &length) }
        }
        guard caller >= 0 else { return }
        close(caller)
        server?.callers.withLock { $0.append(IPv4Address(UInt32(bigEndian: peer.sin_addr.s_addr))) }
      }
    }
    return server
  }

  static func resolver() throws -> Server {
    let server = try bound(SOCK_DGRAM, "127.0.0.1")
    startThread("test-resolver") { [descriptor = server.descriptor] in
      var query = [UInt8](repeating: 0, count: 512)
      while true {
        var peer = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let goesOn = withUnsafeMutablePointer(to: &peer) { pointer in
          pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { peer in
            let count = recvfrom(descriptor, &query, query.count, 0, peer, &length)
            guard count > 12 else { return false }
            // The question ends behind the name's last label, type and class (RFC 1035 4.1.2); nothing of what follows it is given back.
            guard let end = query[12..<count].firstIndex(of: 0), end + 5 <= count else { return true }
            let isAddress = query[end + 2] == 1
            var answer = Array(query[..<(end + 5)])
            answer[2...3] = [0x81, 0x80]
            answer[6...11] = [0, isAddress ? 1 : 0, 0, 0, 0, 0]
            if isAddress { answer += [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77] }
            sendto(descriptor, answer, answer.count, 0, peer, length)
            return true
          }
        }
        if !goesOn { return }
      }
    }
    return server
  }

  /// A socket of the name `@NAME`, which is of its network namespace (unix(7)).
  static func abstract(_ name: String) throws -> Int32 {
    let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    try checkResult(descriptor, "open", "socket")
    var own = sockaddr_un()
    own.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &own.sun_path) { bytes in for (offset, byte) in name.utf8.enumerated() { bytes[1 + offset] = byte } }
    let length = socklen_t(MemoryLayout<sa_family_t>.size + 1 + name.utf8.count)
    try withUnsafePointer(to: &own) { pointer in
      _ = try pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { try checkResult(bind(descriptor, $0, length), "bind", name) }
    }
    try checkResult(listen(descriptor, 8), "listen", name)
    return descriptor
  }
}

@Suite("The network of RUN", .serialized, .enabled(if: geteuid() == 0))
struct RunNetworkTests {
  @Test(
    "it reaches who is outside by its host's address, and finds names by the host's servers; not what listens at the host's loopback, nor its abstract sockets"
  )
  func outside() async throws {
    let resolver = try Server.resolver()
    let world = try await World(servers: ResolvConf(servers: [Upstream(address: .v4(IPv4Address("127.0.0.1")!), port: resolver.port)]))
    let tag = "orch-build-\(UInt32.random(in: 0 ... .max))"
    // Of this process, on whose network RUN would be, and of the host that builds.
    let here = (try Server.stream("127.0.0.1"), try Server.abstract(tag))
    let there = try await withNetworkNamespace(world.host) { (try Server.stream("127.0.0.1"), try Server.abstract(tag)) }
    defer { for descriptor in [here.1, there.1] { close(descriptor) } }
    let outside = try await withNetworkNamespace(world.outside) { try Server.stream("192.0.2.100") }
    let look = """
      n() { busybox nc -w 3 $1 $2 </dev/null >/dev/null 2>&1 && echo $3 || echo not $3; }; \
        n 192.0.2.100 \(outside.port) outside; n 127.0.0.1 \(here.0.port) loopback; n 127.0.0.1 \(there.0.port) host; \
        busybox grep -q @\(tag) /proc/net/unix && echo abstract || echo not abstract
      """
    let own = try await world.build(["Dockerfile": "FROM base:1\nRUN \(look); busybox nslookup www.example | busybox grep -o 192.0.2.77"])
    #expect(own.output == "outside\nnot loopback\nnot host\nnot abstract\n192.0.2.77\n", "\(own.output)")
    #expect(outside.callers.withLock { $0 } == [IPv4Address("192.0.2.1")!])
    // Who asks for it has this process's.
    for (file, network) in [("RUN \(look)", "host"), ("RUN --network=host \(look)", "default")] {
      let shared = try await world.build(["Dockerfile": "FROM base:1\n\(file)"]) { if network == "host" { $0.network = .host } }
      #expect(shared.output == "not outside\nloopback\nnot host\nabstract\n", "\(network): \(shared.output)")
    }
  }

  @Test("all RUNs of a build have the same namespace; none is left when it ends, however it does, nor was one made where no RUN wanted it")
  func lifetime() async throws {
    let world = try await World()
    func left() throws -> [String] { (try? Files.list(world.folder + "/run/netns")) ?? [] }
    let closed = try await world.build(["Dockerfile": "FROM base:1\nRUN --network=none true"])
    #expect(closed.steps.count == 2 && !Files.exists(world.folder + "/run/netns"))
    let shown = "busybox ip -o -4 address show eth0 | busybox grep -o 'inet [0-9.]*'"
    let twice = try await world.build(["Dockerfile": "FROM base:1\nRUN \(shown)\nRUN --network=default \(shown)"])
    #expect(twice.output == "inet 172.28.240.2\ninet 172.28.240.2\n", "\(twice.output)")
    #expect(try left() == [])
    await #expect(throws: BuildError.self) { try await world.build(["Dockerfile": "FROM base:1\nRUN exit 3"]) }
    #expect(try left() == [])
    let build = Task { try await world.build(["Dockerfile": "FROM base:1\nRUN sleep 1000"]) }
    for _ in 1...500 where try left().isEmpty { try await Task.sleep(for: .milliseconds(20)) }
    let names = try left()
    let id = try #require(names.first.flatMap { TaskID($0) })
    #expect(names.count == 1 && world.builder.isBuilding(in: id), "an agent that sweeps leaves it alone")
    let links = try await world.network.containerLinks()
    #expect(links.contains { world.builder.isBuilding(behind: $0) })
    build.cancel()
    await #expect(throws: (any Error).self) { try await build.value }
    #expect(try left() == [] && !world.builder.isBuilding(in: id))
    var links2 = links
    for _ in 1...500 where !links2.isEmpty {
      try await Task.sleep(for: .milliseconds(20))
      links2 = try await world.network.containerLinks()
    }
    #expect(links2.isEmpty, "\(links2.map(\.name))")
  }

  @Test("where there is none to give a RUN that wants one is refused, and never has the host's; what asks for none or the host's is built")
  func without() async throws {
    let world = try await World()
    let builder = Builder(
      store: world.store, runtime: world.runtime, cacheFile: world.folder + "/other-cache", networks: nil, log: Logger(label: "test"))
    let context = world.folder + "/context"
    func build(_ instruction: String) async throws {
      try Files.makeDirectories(context, mode: 0o755)
      try Files.writeAtomically(context + "/Dockerfile", "FROM base:1\n\(instruction)\n", mode: 0o644, durable: false)
      _ = try await builder.build(BuildRequest(), context: context) { _ in }
    }
    let refused = await #expect(throws: BuildError.self) { try await build("RUN true") }
    let reason = "line 2: a network for RUN: this agent has none to give: build with --network none"
    #expect(refused?.description.contains(reason) == true, "\(refused as Any)")
    try await build("RUN --network=none true")
    try await build("RUN --network=host true")
  }
}
