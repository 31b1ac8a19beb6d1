import Foundation
import Identity
import Logging
import Model
import NIOCore
import NIOPosix
import NIOSSL
import Surroundings
import Synchronization
import Testing
import Wire

@testable import Transport

@Suite("who may say what", .timeLimit(.minutes(5))) struct AccessTests {
  let world: World
  init() throws { world = try World() }

  @Test(
    "the certificate's role decides, for every stream",
    arguments: [
      (NodeRole.worker, Router.Callers.manager, false), (.manager, .manager, true), (.worker, [.manager, .worker], true),
      (.worker, .worker, true), (.manager, .worker, false), (.manager, .anyone, true), (.worker, .stranger, false),
    ] as [(NodeRole, Router.Callers, Bool)])
  func roles(role: NodeRole, allowed: Router.Callers, passes: Bool) async throws {
    let router = Router()
    let reached = Mutex(false)
    router.on(.raft, allow: allowed) { _, _ in reached.withLock { $0 = true } }
    try await world.with(role, router: router) { client, _ in
      let stream = try await client.open(.raft)
      if passes {
        #expect(try await stream.receive() == nil)
      } else {
        await #expect { try await stream.receive() } throws: {
          ($0 as? StreamError)?.code == .permissionDenied && "\($0)".contains("raft is not allowed with a \(role.rawValue)'s certificate")
        }
      }
    }
    #expect(reached.withLock { $0 } == passes)
  }

  @Test("an unknown method is refused by name")
  func unknownMethod() async throws {
    try await world.with { client, _ in
      let stream = try await client.open(Method(rawValue: "dance"))
      await #expect(throws: StreamError(.unimplemented, "this daemon does not answer dance")) { try await stream.receive() }
    }
  }

  @Test("a node that was removed is refused at its next stream")
  func removed() async throws {
    let router = echoRouter()
    let gone = Mutex(false)
    router.admit { peer, _ in gone.withLock { $0 } ? StreamError(.permissionDenied, "node \(peer.node) was removed from the cluster") : nil }
    try await world.with(.worker, router: router) { client, _ in
      let stream = try await client.open(echo)
      try await stream.send([1])
      #expect(try await stream.receive() == [1])
      gone.withLock { $0 = true }
      let next = try await client.open(echo)
      await #expect { try await next.receive() } throws: { "\($0)".contains("was removed") }
    }
  }

  @Test("another cluster's manager is refused by both sides, in words")
  func otherCluster() async throws {
    let other = try World()
    try await world.with { _, server in
      // The client is asked to trust nobody but its own authority: it refuses first.
      await #expect {
        try await TransportClient.connect(host: "127.0.0.1", port: server.port, credentials: other.credentials(.manager), log: other.log)
      } throws: { "\($0)".contains("not valid in this cluster") && "\($0)".contains("127.0.0.1:\(server.port)") }
    }
  }

  @Test("a server refuses a client whose certificate another authority signed")
  func foreignClient() async throws {
    let other = try World()
    let foreign = try other.credentials(.manager).identity
    try await world.with { _, server in
      // A client that trusts everyone, with the other cluster's certificate.
      var configuration = TLSConfiguration.makeClientConfiguration()
      configuration.certificateVerification = .none
      configuration.certificateChain = [.certificate(try NIOSSLCertificate(bytes: Array(foreign.certificatePEM.utf8), format: .pem))]
      configuration.privateKey = .privateKey(try NIOSSLPrivateKey(bytes: Array(foreign.key.pem.utf8), format: .pem))
      let outcome = try await RawClient.talk(port: server.port, configuration, [])
      #expect(!outcome.greeted)
      #expect(outcome.reason.contains("refused this node's certificate"), "\(outcome.reason)")
    }
  }

  @Test("a worker is not taken for a manager by those who dial it")
  func workerAsServer() async throws {
    let server = try await TransportServer.bind(
      host: "127.0.0.1", port: 0, credentials: world.credentials(.worker), router: Router(), log: world.log)
    await #expect {
      try await TransportClient.connect(host: "127.0.0.1", port: server.port, credentials: world.credentials(.worker), log: world.log)
    } throws: { "\($0)".contains("is a worker, not a manager") }
    await server.close()
  }

  @Test("an expired certificate is refused")
  func expired() async throws {
    try await world.with { _, server in
      let old = try world.credentials(.worker, at: world.now + .seconds(-91 * 86_400))
      await #expect(throws: TransportError.self) {
        try await TransportClient.connect(host: "127.0.0.1", port: server.port, credentials: old, log: world.log)
      }
    }
  }

  @Test("a joiner with the right token may call what strangers may, and nothing else")
  func join() async throws {
    let router = echoRouter()
    let seen = Mutex<[String]>([])
    router.unary(.joinIssueCertificate, allow: .anyone) { (peer, request: WireIssueCertificateRequest) in
      seen.withLock { $0.append("\(request.secret) \(peer == nil)") }
      var response = WireIssueCertificateResponse()
      response.authority = "pem"
      return response
    }
    try await world.with(router: router) { _, server in
      let token = JoinToken.make(for: world.authority.digest)
      let connection = try await TransportClient.join(
        host: "127.0.0.1", port: server.port, credentials: JoinCredentials(token: token), log: world.log)
      #expect(connection.peer?.role == .manager)
      var request = WireIssueCertificateRequest()
      request.secret = "s"
      let response: WireIssueCertificateResponse = try await connection.call(.joinIssueCertificate, request)
      #expect(response.authority == "pem")
      #expect(seen.withLock { $0 } == ["s true"])
      let stream = try await connection.open(echo)
      await #expect { try await stream.receive() } throws: { "\($0)".contains("without a certificate") }
      connection.close()
    }
  }

  @Test("a token of another cluster is recognised before anything is sent")
  func wrongDigest() async throws {
    let router = Router()
    let reached = Mutex(false)
    router.on(.joinIssueCertificate, allow: .anyone) { _, _ in reached.withLock { $0 = true } }
    let other = try World()
    try await world.with(router: router) { _, server in
      let token = JoinToken.make(for: other.authority.digest)
      await #expect {
        try await TransportClient.join(host: "127.0.0.1", port: server.port, credentials: JoinCredentials(token: token), log: world.log)
      } throws: { "\($0)".contains("belongs to another cluster") }
    }
    #expect(!reached.withLock { $0 })
  }

  @Test("nobody there, no TLS there: said so, in time")
  func nobody() async throws {
    let credentials = try world.credentials(.manager)
    await #expect { try await TransportClient.connect(host: "127.0.0.1", port: 1, credentials: credentials, log: world.log) } throws: {
      "\($0)".contains("connect to 127.0.0.1:1") && "\($0)".contains("refused")
    }
    // Accepts and says nothing.
    let mute = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton).bind(host: "127.0.0.1", port: 0).get()
    await #expect {
      try await TransportClient.connect(
        host: "127.0.0.1", port: mute.localAddress!.port!, credentials: credentials, timeout: .milliseconds(200), log: world.log)
    } throws: { "\($0)".contains("no answer within") }
    try await mute.close()
  }

  @Test("an address in use is named")
  func bindTaken() async throws {
    try await world.with { _, server in
      await #expect {
        try await TransportServer.bind(
          host: "127.0.0.1", port: server.port, credentials: world.credentials(.manager), router: Router(), log: world.log)
      } throws: { "\($0)".contains("127.0.0.1:\(server.port)") && "\($0)".contains("in use") }
    }
  }

  @Test("renewed credentials are used by the next connection")
  func renewal() async throws {
    try await world.with { _, server in
      let credentials = try world.credentials(.worker)
      let first = try await TransportClient.connect(host: "127.0.0.1", port: server.port, credentials: credentials, log: world.log)
      let renewed = try world.credentials(.manager).identity
      try credentials.update(renewed)
      let second = try await TransportClient.connect(host: "127.0.0.1", port: server.port, credentials: credentials, log: world.log)
      // The side that dialled is ready first.
      while !server.connections.contains(where: { $0.peer == renewed.peer }) { try await Task.sleep(for: .milliseconds(5)) }
      first.close()
      second.close()
    }
  }

  @Test("what shakes hands while its server closes is closed, too")
  func closing() async throws {
    let (credentials, own, log) = (try world.credentials(.manager), try world.credentials(.worker), world.log)
    for _ in 0..<30 {
      let server = try await TransportServer.bind(host: "127.0.0.1", port: 0, credentials: credentials, router: echoRouter(), log: log)
      let dials = (0..<4).map { _ in Task { try? await TransportClient.connect(host: "127.0.0.1", port: server.port, credentials: own, log: log) } }
      // The first that is through; its server's side and the others are on their way.
      _ = await dials[0].value
      await server.close()
      for dial in dials { while await dial.value?.isOpen == true { try await Task.sleep(for: .milliseconds(5)) } }
    }
  }

  @Test("a link dials when needed, shares the dial, and waits after failures")
  func link() async throws {
    let credentials = try world.credentials(.manager)
    let server = try await TransportServer.bind(
      host: "127.0.0.1", port: 0, credentials: credentials, router: echoRouter(), log: world.log)
    let link = PeerLink(host: "127.0.0.1", port: server.port, credentials: try world.credentials(.manager), log: world.log)
    #expect(link.current == nil)
    async let one = link.connection()
    async let two = link.connection()
    let (first, second) = try await (one, two)
    #expect(first === second)
    #expect(link.current === first)
    await server.close()
    while first.isOpen { try await Task.sleep(for: .milliseconds(5)) }
    #expect(link.current == nil)
    let span = await ContinuousClock().measure { for _ in 0..<3 { await #expect(throws: TransportError.self) { try await link.connection() } } }
    // The waits before the second and third dial: 25-50 ms, 50-100 ms at least.
    #expect(span > .milliseconds(60))
    // A child of another test that has not reached its exec yet may still hold the port.
    var again: TransportServer?
    while again == nil {
      again = try? await TransportServer.bind(host: "127.0.0.1", port: server.port, credentials: credentials, router: echoRouter(), log: world.log)
      if again == nil { try await Task.sleep(for: .milliseconds(50)) }
    }
    let third = try await link.connection()
    #expect(third.isOpen)
    link.close()
    await #expect(throws: TransportError.self) { try await link.connection() }
    await again?.close()
  }
}

@Suite("joining and addresses", .timeLimit(.minutes(5))) struct JoinTests {
  let world: World
  init() throws { world = try World() }

  @Test(
    "HOST:PORT is read strictly",
    arguments: [
      ("10.0.0.1:2377", HostPort(host: "10.0.0.1", port: 2377)), ("host-a:1", HostPort(host: "host-a", port: 1)),
      ("[fe80::1]:80", HostPort(host: "fe80::1", port: 80)), ("host", nil), ("fe80::1", nil), (":80", nil), ("h:", nil), ("h:70000", nil),
      ("h:-1", nil),
      ("h h:1", nil), ("http://h:1", nil), ("[::1:80", nil), ("", nil),
    ] as [(String, HostPort?)])
  func addresses(text: String, expected: HostPort?) {
    #expect(HostPort(text) == expected)
    if let expected { #expect(expected.description == text) }
  }

  @Test("a port may be left out where there is a default")
  func defaultPort() {
    #expect(HostPort("host", defaultPort: 2377) == HostPort(host: "host", port: 2377))
    #expect(HostPort("[::1]", defaultPort: 2377) == HostPort(host: "::1", port: 2377))
    #expect(HostPort("host:5", defaultPort: 2377)?.port == 5)
  }

  /// A manager that issues certificates for a token, as the daemon does.
  private func issuer(_ token: JoinToken, elections: Int = 0) -> Router {
    let (router, left) = (Router(), Shared(elections))
    let (authority, now) = (world.authority, world.now)
    router.unary(.joinIssueCertificate, allow: .anyone) { (_, request: WireIssueCertificateRequest) in
      if left.decrement() { throw StreamError(.unavailable, "no leader") }
      guard token.hasSecret(request.secret) else { throw StreamError(.permissionDenied, "wrong secret") }
      var response = WireIssueCertificateResponse()
      response.authority = authority.certificatePEM
      response.certificate = try authority.issue(request.signingRequest, node: .random(), role: .worker, now: now)
      response.managers = ["10.0.0.1:2377"]
      return response
    }
    router.unary(.renewCertificate, allow: [.worker, .manager]) { (peer, request: WireRenewCertificateRequest) in
      var response = WireIssueCertificateResponse()
      response.certificate = try authority.issue(request.signingRequest, node: peer!.node, role: peer!.role, now: now)
      return response
    }
    return router
  }

  private final class Shared: Sendable {
    let count: Mutex<Int>
    init(_ count: Int) { self.count = Mutex(count) }
    func decrement() -> Bool {
      count.withLock { count in
        count -= 1
        return count >= 0
      }
    }
  }

  @Test("a joiner gets an identity with which it may connect, waits through an election, and renews it")
  func joining() async throws {
    let token = JoinToken.make(for: world.authority.digest)
    try await world.with(router: issuer(token, elections: 1)) { _, server in
      let address = HostPort(host: "127.0.0.1", port: server.port)
      let joined = try await JoinClient.requestCertificate(token: token, role: .worker, address: address, hostname: "h", log: world.log)
      #expect(joined.identity.cluster == world.authority.cluster)
      #expect(joined.identity.role == .worker)
      #expect(joined.localHost == "127.0.0.1")
      #expect(joined.managers == ["10.0.0.1:2377"])
      let connection = try await TransportClient.connect(
        host: address.host, port: address.port, credentials: Credentials(joined.identity), log: world.log)
      let renewed = try await JoinClient.renew(joined.identity, over: connection)
      #expect(renewed.peer == joined.identity.peer)
      #expect(renewed.key.pem == joined.identity.key.pem && renewed.certificatePEM != joined.identity.certificatePEM)
      connection.close()
    }
  }

  @Test("a secret that is not the cluster's is refused in its words")
  func wrongSecret() async throws {
    let token = JoinToken.make(for: world.authority.digest)
    try await world.with(router: issuer(token)) { _, server in
      let other = JoinToken.make(for: world.authority.digest)
      await #expect(throws: StreamError(.permissionDenied, "wrong secret")) {
        try await JoinClient.requestCertificate(
          token: other, role: .worker, address: HostPort(host: "127.0.0.1", port: server.port), hostname: "h", log: world.log)
      }
    }
  }
}
