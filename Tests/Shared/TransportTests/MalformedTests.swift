import Foundation
import Identity
import Logging
import Model
import NIOCore
import NIOPosix
import NIOSSL
import Synchronization
import Testing
import Wire

@testable import Transport

/// A client that speaks TLS but not our manners.
enum RawClient {
  struct Outcome: Sendable {
    var greeted: Bool
    var reason: String
  }

  private final class Listener: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    let bytes: [UInt8]
    let done: EventLoopPromise<Outcome>
    var greeted = false
    var reason = ""
    init(_ bytes: [UInt8], _ done: EventLoopPromise<Outcome>) {
      self.bytes = bytes
      self.done = done
    }
    func channelActive(context: ChannelHandlerContext) {
      context.writeAndFlush(NIOAny(ByteBuffer(bytes: bytes)), promise: nil)
      context.fireChannelActive()
    }
    func channelRead(context: ChannelHandlerContext, data: NIOAny) { greeted = true }
    func errorCaught(context: ChannelHandlerContext, error: any Error) {
      if reason.isEmpty { reason = explain(error) }
      context.close(promise: nil)
    }
    func channelInactive(context: ChannelHandlerContext) { done.succeed(Outcome(greeted: greeted, reason: reason)) }
  }

  /// Sends `bytes` and waits until the server ends the connection.
  static func talk(port: Int, _ configuration: TLSConfiguration, _ bytes: [UInt8]) async throws -> Outcome {
    let context = try NIOSSLContext(configuration: configuration)
    let loop = MultiThreadedEventLoopGroup.singleton.next()
    let done = loop.makePromise(of: Outcome.self)
    let channel = try await ClientBootstrap(group: loop).channelInitializer { channel in
      channel.eventLoop.makeCompletedFuture {
        try channel.pipeline.syncOperations.addHandler(NIOSSLClientHandler(context: context, serverHostname: nil))
        try channel.pipeline.syncOperations.addHandler(Listener(bytes, done))
      }
    }.connect(host: "127.0.0.1", port: port).get()
    let outcome = try await done.futureResult.get()
    try? await channel.close()
    return outcome
  }
}

/// Keeps what is logged.
struct Recorder: LogHandler {
  final class Lines: Sendable { let lines = Mutex<[String]>([]) }
  let store: Lines
  var metadata: Logger.Metadata = [:]
  var logLevel: Logger.Level = .trace
  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }
  func log(event: LogEvent) {
    store.lines.withLock { $0.append("\(event.message) \(event.metadata ?? [:])") }
  }
}

@Suite("what is malformed", .timeLimit(.minutes(5))) struct MalformedTests {
  let world: World
  init() throws { world = try World() }

  static func frame(_ kind: WireFrame.Kind, _ fill: (inout WireFrame) -> Void = { _ in }) -> [UInt8] {
    var frame = WireFrame()
    frame.kind = kind
    fill(&frame)
    let bytes: [UInt8] = try! frame.serializedBytes()
    return withUnsafeBytes(of: UInt32(bytes.count).bigEndian) { Array($0) } + bytes
  }
  static let hello = frame(.hello) { $0.version = 1 }

  @Test(
    "closes the connection with a reason in the log, and nothing else happens",
    arguments: [
      ("a greeting of another version", frame(.hello) { $0.version = 9 }, "version 9"),
      (
        "no greeting",
        frame(.open) {
          $0.stream = 1; $0.method = "echo"
        }, "not a greeting"
      ),
      ("two greetings", hello + hello, "a second hello"),
      ("an oversized frame", hello + [0x7f, 0xff, 0xff, 0xff], "a frame of 2147483647 bytes"),
      ("a frame just above the limit", hello + [0x00, 0x40, 0x00, 0x01], "a frame of 4194305 bytes"),
      ("bytes that are no message", hello + [0, 0, 0, 3, 0xff, 0xff, 0xff], "malformed"),
      ("an unknown kind", hello + [0, 0, 0, 2, 8, 99], "unknown kind"),
      ("data for a stream that never was", hello + frame(.data) { $0.stream = 5 }, "never opened"),
      (
        "a stream of our numbers",
        hello
          + frame(.open) {
            $0.stream = 2; $0.method = "echo"
          }, "not the other side's to open"
      ),
      ("stream 0", hello + frame(.open) { $0.method = "echo" }, "not the other side's to open"),
      (
        "a stream number used again",
        hello
          + frame(.open) {
            $0.stream = 3; $0.method = "hold"
          }
          + frame(.open) {
            $0.stream = 3; $0.method = "hold"
          },
        "opened after stream 3"
      ),
      (
        "a method of 65 bytes",
        hello
          + frame(.open) {
            $0.stream = 1; $0.method = String(repeating: "m", count: 65)
          }, "65 bytes"
      ),
      (
        "data after the end",
        hello
          + frame(.open) {
            $0.stream = 1; $0.method = "hold"; $0.end = true
          } + frame(.data) { $0.stream = 1 }, "beyond"
      ),
      (
        "two ends",
        hello
          + frame(.open) {
            $0.stream = 1; $0.method = "hold"; $0.end = true
          } + frame(.end) { $0.stream = 1 }, "second end"
      ),
      (
        "data beyond the credit",
        hello
          + frame(.open) {
            $0.stream = 1; $0.method = "hold"
          }
          + (0..<9).flatMap { _ in
            frame(.data) {
              $0.stream = 1; $0.payload = Data(count: 40_000)
            }
          }, "beyond its credit"
      ),
    ] as [(String, [UInt8], String)])
  func violations(name: String, bytes: [UInt8], reason: String) async throws {
    let recorder = Recorder.Lines()
    let log = Logger(label: "test") { _ in Recorder(store: recorder) }
    let router = echoRouter()
    router.on(Method(rawValue: "hold"), allow: .anyone) { _, _ in try await Task.sleep(for: .seconds(60)) }
    let credentials = try world.credentials(.manager)
    let server = try await TransportServer.bind(host: "127.0.0.1", port: 0, credentials: credentials, router: router, log: log)
    let outcome = try await RawClient.talk(port: server.port, try configuration(), bytes)
    #expect(outcome.greeted)
    #expect(recorder.lines.withLock { $0 }.contains { $0.contains("connection closed") && $0.contains(reason) }, "\(recorder.lines.withLock { $0 })")
    // The server goes on for others.
    let client = try await TransportClient.connect(host: "127.0.0.1", port: server.port, credentials: credentials, log: log)
    let _: WireJoinMemberResponse = try await client.call(.joinMember, WireJoinMemberRequest())
    await server.close()
  }

  @Test("a frame cut by the end of the connection does no harm")
  func truncated() async throws {
    try await world.with(router: echoRouter()) { client, server in
      let channel = try await raw(server.port, Self.hello + [0, 0, 0, 50, 8, 1])
      try await Task.sleep(for: .milliseconds(100))
      // The server may have been faster.
      try? await channel.close()
      while server.connections.count > 1 { try await Task.sleep(for: .milliseconds(5)) }
      let _: WireJoinMemberResponse = try await client.call(.joinMember, WireJoinMemberRequest())
    }
  }

  @Test("a peer that falls silent is noticed after about three seconds")
  func silence() async throws {
    try await world.with { _, server in
      let began = ContinuousClock.now
      let outcome = try await RawClient.talk(port: server.port, try configuration(), Self.hello)
      let span = ContinuousClock.now - began
      #expect(outcome.greeted)
      #expect(span > .seconds(2.5) && span < .seconds(60))
    }
  }

  @Test("a stranger's frames are small, and its streams few")
  func stranger() async throws {
    let recorder = Recorder.Lines()
    let log = Logger(label: "test") { _ in Recorder(store: recorder) }
    let server = try await TransportServer.bind(
      host: "127.0.0.1", port: 0, credentials: world.credentials(.manager), router: Router(), log: log)
    var configuration = TLSConfiguration.makeClientConfiguration()
    configuration.certificateVerification = .none
    _ = try await RawClient.talk(port: server.port, configuration, Self.hello + [0, 1, 0, 1])
    #expect(recorder.lines.withLock { $0 }.contains { $0.contains("a frame of 65537 bytes: at most 65536") })
    await server.close()
  }

  private func configuration() throws -> TLSConfiguration {
    let identity = try world.credentials(.manager).identity
    var configuration = TLSConfiguration.makeClientConfiguration()
    configuration.certificateVerification = .none
    configuration.certificateChain = [.certificate(try NIOSSLCertificate(bytes: Array(identity.certificatePEM.utf8), format: .pem))]
    configuration.privateKey = .privateKey(try NIOSSLPrivateKey(bytes: Array(identity.key.pem.utf8), format: .pem))
    return configuration
  }

  private func raw(_ port: Int, _ bytes: [UInt8]) async throws -> any Channel {
    let context = try NIOSSLContext(configuration: configuration())
    let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton).channelInitializer { channel in
      channel.eventLoop.makeCompletedFuture {
        try channel.pipeline.syncOperations.addHandler(NIOSSLClientHandler(context: context, serverHostname: nil))
      }
    }.connect(host: "127.0.0.1", port: port).get()
    try await channel.writeAndFlush(ByteBuffer(bytes: bytes))
    return channel
  }
}
