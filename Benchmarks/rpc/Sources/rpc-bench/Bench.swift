// rpc-bench: a round trip of 1 KiB on a stream, by our frames (Transport) and by gRPC, in one run, in turns.
//
// Both: release build, loopback TCP, TLS with certificates on both sides from the same authority, client and server in this process on
// NIO's shared event loops, one connection, the server echoes. Bytes go in and bytes come out: protobuf is left out on both sides.
import Glibc
import GRPCCore
import GRPCNIOTransportHTTP2Posix
import Identity
import Logging
import Model
import Surroundings
import Transport

@main struct Bench {
  static func main() async throws {
    let turns = CommandLine.arguments.dropFirst().first.flatMap { Int($0) } ?? 5
    let world = try Credential()
    var frames: [Int: [Sample]] = [:]
    var grpc: [Int: [Sample]] = [:]
    for turn in 0...turns {
      for (atOnce, trips) in [(1, 2000), (64, 200)] {
        let ours = try await framesTrips(world, atOnce: atOnce, trips: trips)
        let theirs = try await grpcTrips(world, atOnce: atOnce, trips: trips)
        // The first turn warms both.
        if turn == 0 { continue }
        frames[atOnce, default: []].append(ours)
        grpc[atOnce, default: []].append(theirs)
      }
    }
    print("| 1 KiB to and fro on a stream | frames on NIO + TLS (ours) | gRPC (grpc-swift 2) | gRPC / frames |\n| --- | --- | --- | --- |")
    for atOnce in [1, 64] {
      let (ours, theirs) = (Summary(frames[atOnce]!), Summary(grpc[atOnce]!))
      let name = atOnce == 1 ? "one at a time" : "\(atOnce) at once, a stream each, one connection"
      print("| \(name): median trip | \(micro(ours.median)) | \(micro(theirs.median)) | \(ratio(theirs.median, ours.median)) |")
      print("| \(name): p99 | \(micro(ours.p99)) | \(micro(theirs.p99)) | \(ratio(theirs.p99, ours.p99)) |")
      print("| \(name): trips a second | \(Int(ours.rate)) | \(Int(theirs.rate)) | \(ratio(theirs.rate, ours.rate)) |")
    }
    print("\nmedians of \(turns) turns")
  }
}

func micro(_ seconds: Double) -> String { "\(Int((seconds * 1e6).rounded())) us" }
func ratio(_ a: Double, _ b: Double) -> String { "\((a / b * 100).rounded() / 100)" }

// MARK: - Samples

/// One turn: every trip's seconds, and the whole's.
struct Sample: Sendable {
  var trips: [Double] = []
  var total = 0.0
}

/// The median over the turns of each turn's figure.
struct Summary {
  var median: Double
  var p99: Double
  var rate: Double

  init(_ samples: [Sample]) {
    func middle(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }
    median = middle(samples.map { middle($0.trips) })
    p99 = middle(samples.map { $0.trips.sorted()[$0.trips.count * 99 / 100] })
    rate = middle(samples.map { Double($0.trips.count) / $0.total })
  }
}

/// `trips` times there and back, one after the other; the first is not counted: it opens the stream.
func timed(_ trips: Int, _ trip: () async throws -> Void) async rethrows -> [Double] {
  try await trip()
  let clock = ContinuousClock()
  var seconds: [Double] = []
  seconds.reserveCapacity(trips)
  for _ in 0..<trips {
    let began = clock.now
    try await trip()
    seconds.append((clock.now - began) / .seconds(1))
  }
  return seconds
}

/// `atOnce` streams beside each other.
func beside(_ atOnce: Int, _ stream: @escaping @Sendable () async throws -> [Double]) async throws -> Sample {
  var sample = Sample()
  let clock = ContinuousClock()
  let began = clock.now
  try await withThrowingTaskGroup(of: [Double].self) { group in
    for _ in 0..<atOnce { group.addTask { try await stream() } }
    for try await trips in group { sample.trips += trips }
  }
  sample.total = (clock.now - began) / .seconds(1)
  return sample
}

let payload = [UInt8](repeating: 7, count: 1024)

struct BenchError: Error { var text: String }

/// A cluster's authority, which gives out managers' certificates.
struct Credential: Sendable {
  let authority: CertificateAuthority
  let now: Timestamp
  init() throws {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    now = Timestamp(nanoseconds: Int64(time.tv_sec) * 1_000_000_000)
    authority = try CertificateAuthority.make(cluster: .random(), now: now)
  }
  func make() throws -> NodeIdentity {
    let key = NodeKey()
    let pem = try authority.issue(try key.signingRequest(), node: .random(), role: .manager, now: now)
    return try NodeIdentity(certificatePEM: pem, key: key, authorityPEM: authority.certificatePEM)
  }
}

// MARK: - Frames

func framesTrips(_ world: Credential, atOnce: Int, trips: Int) async throws -> Sample {
  let log = Logger(label: "bench") { _ in SwiftLogNoOpLogHandler() }
  let echo = Method(rawValue: "echo")
  let router = Router()
  router.on(echo, allow: .manager) { _, stream in
    for try await bytes in stream.inbound { try await stream.send(bytes) }
  }
  let server = try await TransportServer.bind(host: "127.0.0.1", port: 0, credentials: try Credentials(world.make()), router: router, log: log)
  let client = try await TransportClient.connect(host: "127.0.0.1", port: server.port, credentials: try Credentials(world.make()), log: log)
  let sample = try await beside(atOnce) {
    let stream = try await client.open(echo)
    let seconds = try await timed(trips) {
      try await stream.send(payload)
      guard try await stream.receive()?.count == payload.count else { throw BenchError(text: "frames: no echo") }
    }
    stream.finish()
    return seconds
  }
  client.close()
  await server.close()
  return sample
}

// MARK: - gRPC

struct Bytes: MessageSerializer, MessageDeserializer {
  func serialize<Buffer: GRPCContiguousBytes>(_ message: [UInt8]) throws -> Buffer { Buffer(message) }
  func deserialize<Buffer: GRPCContiguousBytes>(_ bytes: Buffer) throws -> [UInt8] { bytes.withUnsafeBytes { Array($0) } }
}

let method = MethodDescriptor(fullyQualifiedService: "bench.Echo", method: "Stream")

struct Echo: RegistrableRPCService {
  func registerMethods<Transport: ServerTransport>(with router: inout RPCRouter<Transport>) {
    router.registerHandler(forMethod: method, deserializer: Bytes(), serializer: Bytes()) { request, _ in
      StreamingServerResponse { writer in
        for try await message in request.messages { try await writer.write(message) }
        return [:]
      }
    }
  }
}

func grpcTrips(_ world: Credential, atOnce: Int, trips: Int) async throws -> Sample {
  let (server, client) = (try world.make(), try world.make())
  func chain(_ identity: NodeIdentity) -> [TLSConfig.CertificateSource] { [.bytes(Array(identity.certificatePEM.utf8), format: .pem)] }
  func key(_ identity: NodeIdentity) -> TLSConfig.PrivateKeySource { .bytes(Array(identity.key.pem.utf8), format: .pem) }
  let roots = TLSConfig.TrustRootsSource.certificates([.bytes(Array(world.authority.certificatePEM.utf8), format: .pem)])
  let serverTransport = HTTP2ServerTransport.Posix(
    address: .ipv4(host: "127.0.0.1", port: 0),
    transportSecurity: .mTLS(certificateChain: chain(server), privateKey: key(server)) { $0.trustRoots = roots })
  return try await withGRPCServer(transport: serverTransport, services: [Echo()]) { _ in
    guard let port = try await serverTransport.listeningAddress.ipv4?.port else { throw BenchError(text: "gRPC: no port") }
    let clientTransport = try HTTP2ClientTransport.Posix(
      target: .ipv4(address: "127.0.0.1", port: port),
      transportSecurity: .mTLS(certificateChain: chain(client), privateKey: key(client)) {
        $0.trustRoots = roots
        $0.serverCertificateVerification = .noHostnameVerification
      })
    return try await withGRPCClient(transport: clientTransport) { client in
      try await beside(atOnce) {
        // The writer is handed out of its closure, so that a trip needs no hop of ours between two tasks.
        let (writers, writer) = AsyncStream.makeStream(of: RPCWriter<[UInt8]>.self)
        let (ends, end) = AsyncStream.makeStream(of: Void.self)
        let request = StreamingClientRequest<[UInt8]> { rpc in
          writer.yield(rpc)
          for await _ in ends {}
        }
        return try await client.bidirectionalStreaming(
          request: request, descriptor: method, serializer: Bytes(), deserializer: Bytes(), options: .defaults
        ) { response in
          defer { end.finish() }
          var writers = writers.makeAsyncIterator()
          guard let out = await writers.next() else { throw BenchError(text: "gRPC: no writer") }
          var messages = response.messages.makeAsyncIterator()
          return try await timed(trips) {
            try await out.write(payload)
            guard try await messages.next()?.count == payload.count else { throw BenchError(text: "gRPC: no echo") }
          }
        }
      }
    }
  }
}
