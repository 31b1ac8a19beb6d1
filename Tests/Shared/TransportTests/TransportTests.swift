import Foundation
import Identity
import Logging
import Model
import NIOCore
import NIOPosix
import NIOSSL
import Surroundings
import SwiftProtobuf
import Synchronization
import Testing
import Wire

@testable import Transport

/// A cluster's authority, and daemons of it on loopback with real sockets and real TLS.
struct World {
  let authority: CertificateAuthority
  let now = Timestamp(nanoseconds: Int64(Date().timeIntervalSince1970 * 1e9))
  let lines = Recorder.Lines()
  let log: Logger

  init() throws {
    authority = try CertificateAuthority.make(cluster: .random(), now: now)
    log = Logger(label: "test") { [lines] _ in Recorder(store: lines) }
  }

  func credentials(_ role: NodeRole, at time: Timestamp? = nil) throws -> Credentials {
    let key = NodeKey()
    let pem = try authority.issue(try key.signingRequest(), node: .random(), role: role, now: time ?? now)
    return try Credentials(NodeIdentity(certificatePEM: pem, key: key, authorityPEM: authority.certificatePEM))
  }

  /// A manager with `router`, a client of `role`, a connection between them; all closed at the end.
  func with(
    _ role: NodeRole = .manager, router: Router = Router(), clientRouter: Router = Router(),
    _ body: @Sendable (_ client: Connection, _ server: TransportServer) async throws -> Void
  ) async throws {
    let server = try await TransportServer.bind(host: "127.0.0.1", port: 0, credentials: credentials(.manager), router: router, log: log)
    do {
      let client = try await TransportClient.connect(
        host: "127.0.0.1", port: server.port, credentials: credentials(role), router: clientRouter, log: log)
      try await body(client, server)
      client.close()
    } catch {
      await server.close()
      throw error
    }
    await server.close()
  }
}

let echo = Method(rawValue: "echo")

func echoRouter() -> Router {
  let router = Router()
  router.on(echo, allow: [.manager, .worker]) { _, stream in
    for try await bytes in stream.inbound { try await stream.send(bytes) }
  }
  router.unary(.joinMember, allow: [.manager]) { (_, request: WireJoinMemberRequest) in
    var response = WireJoinMemberResponse()
    response.raftID = UInt64(request.hostname.utf8.count)
    return response
  }
  return router
}

@Suite("transport", .timeLimit(.minutes(5))) struct TransportTests {
  let world: World
  init() throws { world = try World() }

  @Test("a call has an answer")
  func unary() async throws {
    try await world.with(router: echoRouter()) { client, server in
      var request = WireJoinMemberRequest()
      request.hostname = "four"
      let response: WireJoinMemberResponse = try await client.call(.joinMember, request)
      #expect(response.raftID == 4)
      #expect(client.peer?.role == .manager)
      #expect(server.connections.first?.peer?.role == .manager)
    }
  }

  @Test("a thousand calls at once each have their own answer")
  func manyCalls() async throws {
    try await world.with(router: echoRouter()) { client, _ in
      try await withThrowingTaskGroup(of: Bool.self) { group in
        for count in 0..<1000 {
          group.addTask {
            var request = WireJoinMemberRequest()
            request.hostname = String(repeating: "x", count: count)
            return try await client.call(.joinMember, request, returning: WireJoinMemberResponse.self).raftID == UInt64(count)
          }
        }
        for try await right in group { #expect(right) }
      }
    }
  }

  @Test("a stream carries messages of every size both ways, in order, and ends each way by itself")
  func streaming() async throws {
    try await world.with(router: echoRouter()) { client, _ in
      let stream = try await client.open(echo)
      let sizes = [0, 1, 65_536, 300_000, Limits.message, 7, 0]
      async let received: [Int] = {
        var found: [Int] = []
        for try await bytes in stream.inbound { found.append(bytes.count) }
        return found
      }()
      for size in sizes { try await stream.send([UInt8](repeating: 7, count: size)) }
      stream.finish()
      #expect(try await received == sizes)
      await #expect(throws: StreamError.self) { try await stream.send([1]) }
      await #expect(throws: TransportError.self) { try await client.open(echo).send([UInt8](repeating: 0, count: Limits.message + 1)) }
      // Whoever swallows that error: the log has it.
      #expect(world.lines.lines.withLock { $0 }.contains { $0.contains("a message of \(Limits.message + 1) bytes") })
    }
  }

  @Test("one side may end while the other goes on")
  func halfClose() async throws {
    let router = Router()
    router.on(echo, allow: .anyone) { _, stream in
      var sum = 0
      for try await bytes in stream.inbound { sum += bytes.count }
      for number in 0..<3 { try await stream.send([UInt8(sum), UInt8(number)]) }
    }
    try await world.with(router: router) { client, _ in
      let stream = try await client.open(echo)
      try await stream.send([1, 2])
      try await stream.send([3], end: true)
      var found: [[UInt8]] = []
      for try await bytes in stream.inbound { found.append(bytes) }
      #expect(found == [[3, 0], [3, 1], [3, 2]])
    }
  }

  @Test("the side that accepted may open streams too")
  func reverse() async throws {
    try await world.with(.worker, clientRouter: echoRouter()) { _, server in
      // The side that dialled is ready first.
      while server.connections.isEmpty { try await Task.sleep(for: .milliseconds(5)) }
      let accepted = try #require(server.connections.first)
      #expect(accepted.peer?.role == .worker)
      var request = WireJoinMemberRequest()
      request.hostname = "xx"
      #expect(try await accepted.call(.joinMember, request, returning: WireJoinMemberResponse.self).raftID == 2)
    }
  }

  @Test("a sender waits for a reader that does not read, and goes on when it does")
  func backPressure() async throws {
    let router = Router()
    let go = AsyncStream<Void>.makeStream()
    router.on(echo, allow: .anyone) { _, stream in
      for await _ in go.stream { break }
      for try await _ in stream.inbound {}
    }
    try await world.with(router: router) { client, _ in
      let stream = try await client.open(echo)
      let sent = Mutex(0)
      let sender = Task {
        for _ in 0..<1000 {
          try await stream.send([UInt8](repeating: 0, count: 10_000))
          sent.withLock { $0 += 1 }
        }
        stream.finish()
      }
      var before = -1
      while sent.withLock({ $0 }) != before {
        before = sent.withLock { $0 }
        try await Task.sleep(for: .milliseconds(100))
      }
      #expect(before == (Limits.member.window + 10_063) / 10_064)
      go.continuation.yield()
      try await sender.value
      #expect(sent.withLock { $0 } == 1000)
      #expect(try await stream.receive() == nil)
    }
  }

  @Test("empty messages are bounded too")
  func emptyMessages() async throws {
    let router = Router()
    router.on(echo, allow: .anyone) { _, _ in try await Task.sleep(for: .seconds(60)) }
    try await world.with(router: router) { client, _ in
      let stream = try await client.open(echo)
      let sent = Mutex(0)
      let sender = Task {
        while true {
          try await stream.send([])
          sent.withLock { $0 += 1 }
        }
      }
      var before = -1
      while sent.withLock({ $0 }) != before {
        before = sent.withLock { $0 }
        try await Task.sleep(for: .milliseconds(100))
      }
      #expect(before == Limits.member.window / Limits.messageOverhead)
      sender.cancel()
      await #expect(throws: CancellationError.self) { try await sender.value }
    }
  }

  @Test("a cancelled stream ends the handler at the other side, and the other way round")
  func cancel() async throws {
    let router = Router()
    let ended = AsyncStream<String>.makeStream()
    router.on(echo, allow: .anyone) { _, stream in
      do { for try await _ in stream.inbound {} } catch {
        ended.continuation.yield("\(error)")
        throw error
      }
    }
    router.on(.logs, allow: .anyone) { _, _ in throw StreamError(.notFound, "no such task", detail: "t1") }
    try await world.with(router: router) { client, _ in
      let stream = try await client.open(echo)
      try await stream.send([1])
      stream.cancel(StreamError(.cancelled, "enough"))
      var iterator = ended.stream.makeAsyncIterator()
      #expect(await iterator.next() == "enough")
      await #expect(throws: StreamError(.cancelled, "enough")) { try await stream.receive() }

      let logs = try await client.open(.logs)
      await #expect(throws: StreamError(.notFound, "no such task", detail: "t1")) { try await logs.receive() }
    }
  }

  @Test("a task that waits for a message can be cancelled")
  func cancelledReader() async throws {
    try await world.with(router: echoRouter()) { client, _ in
      let stream = try await client.open(echo)
      let reader = Task { try await stream.receive() }
      try await Task.sleep(for: .milliseconds(20))
      reader.cancel()
      await #expect(throws: CancellationError.self) { try await reader.value }
      // The stream itself is whole.
      try await stream.send([5])
      #expect(try await stream.receive() == [5])
    }
  }

  @Test("a call that nobody answers ends in time, and its handler is told")
  func timeout() async throws {
    let router = Router()
    let cancelled = AsyncStream<Bool>.makeStream()
    router.on(.propose, allow: .anyone) { _, _ in
      do { try await Task.sleep(for: .seconds(60)) } catch { cancelled.continuation.yield(true) }
    }
    try await world.with(router: router) { client, _ in
      await #expect(throws: TransportError.timeout(.propose, .milliseconds(50))) {
        try await client.call(
          .propose, WireJoinMemberRequest(), returning: WireJoinMemberResponse.self, timeout: .milliseconds(50))
      }
      var iterator = cancelled.stream.makeAsyncIterator()
      #expect(await iterator.next() == true)
    }
  }

  @Test("a lost connection ends every stream with the reason")
  func lost() async throws {
    let router = Router()
    router.on(echo, allow: .anyone) { _, _ in try await Task.sleep(for: .seconds(60)) }
    try await world.with(router: router) { client, server in
      let stream = try await client.open(echo)
      let reader = Task { try await stream.receive() }
      try await Task.sleep(for: .milliseconds(20))
      await server.close()
      await #expect(throws: TransportError.self) { try await reader.value }
      while client.isOpen { try await Task.sleep(for: .milliseconds(5)) }
      #expect(!client.isOpen)
      await #expect(throws: TransportError.self) { try await client.open(echo) }
    }
  }

  @Test("more streams than the limit are refused, the connection stays")
  func streamLimit() async throws {
    let router = echoRouter()
    router.on(.logs, allow: .anyone) { _, _ in try await Task.sleep(for: .seconds(60)) }
    try await world.with(router: router) { client, _ in
      var open: [TransportStream] = []
      for _ in 0..<Limits.member.streams { open.append(try await client.open(.logs)) }
      let refused = try await client.open(.logs)
      await #expect { try await refused.receive() } throws: { ($0 as? StreamError)?.code == .resourceExhausted }
      for stream in open { stream.cancel() }
      let response: WireJoinMemberResponse = try await client.call(.joinMember, WireJoinMemberRequest())
      #expect(response.raftID == 0)
    }
  }

  @Test("a round trip is measured")
  func roundTrip() async throws {
    try await world.with(router: echoRouter()) { client, _ in
      let stream = try await client.open(echo)
      let message = [UInt8](repeating: 1, count: 1024)
      func rounds(_ count: Int) async throws {
        for _ in 0..<count {
          try await stream.send(message)
          _ = try await stream.receive()
        }
      }
      try await rounds(200)
      let span = try await ContinuousClock().measure { try await rounds(2000) }
      let calls = try await ContinuousClock().measure {
        for _ in 0..<1000 { let _: WireJoinMemberResponse = try await client.call(.joinMember, WireJoinMemberRequest()) }
      }
      print("1 KiB to and fro on a stream: \(span / 2000); a call: \(calls / 1000)")
    }
  }
}
