import Consensus
import FoundationEssentials
import Glibc
import Identity
import Logging
import Model
import Store
import Surroundings
import Transport

/// A manager's consensus as `orch-manager` assembles it (Consensus, PeerTransport and TransportServer, with its defaults), and two
/// methods for the clients. A write is the command that `orch volume create` ends in, with a label of 256 bytes; a read is
/// linearizable and answers that label.
enum Member {
  static let method = (write: Method(rawValue: "bench.write"), read: Method(rawValue: "bench.read"))

  static func port(_ number: Int) -> Int { 23_900 + number }
  static func node(_ number: Int) -> NodeID { NodeID(value: World.mixed(number, 5)) }

  /// FOLDER/1… and FOLDER/client: identities of one authority.
  static func identities(_ folder: String, members: Int) throws {
    let now = Timestamp(nanoseconds: Int64(Date().timeIntervalSince1970 * 1e9))
    let authority = try CertificateAuthority.make(cluster: .random(), now: now)
    for (name, node) in (1...members).map({ ("\($0)", Member.node($0)) }) + [("client", .random())] {
      let key = NodeKey()
      let pem = try authority.issue(try key.signingRequest(), node: node, role: .manager, now: now)
      try NodeIdentity(certificatePEM: pem, key: key, authorityPEM: authority.certificatePEM).save(folder: "\(folder)/\(name)")
    }
  }

  /// Prints "ready" once every member votes; runs until it is killed.
  static func run(_ folder: String, number: Int, members: Int) async throws {
    guard let identity = try NodeIdentity.load(folder: "\(folder)/\(number)") else { throw StartError(description: "no identity in \(folder)") }
    let path = "\(folder)/\(number)/manager.db"
    let credentials = try Credentials(identity)
    let log = Logger(label: "bench") { _ in
      var handler = StreamLogHandler.standardError(label: "bench")
      handler.logLevel = .warning
      return handler
    }
    let router = Router()
    let server = try await TransportServer.bind(host: "127.0.0.1", port: port(number), credentials: credentials, router: router, log: log)
    report("listens", server.address)
    let transport = PeerTransport(log: log) { peer in
      let parts = peer.address.split(separator: ":")
      return PeerLink(host: String(parts[0]), port: Int(parts[1])!, credentials: credentials, log: log)
    }
    let address = "127.0.0.1:\(port(number))"
    if number == 1 {
      try Consensus.bootstrap(path: path, raftID: RaftID(1), node: node(1), address: address)
    } else {
      let first = Membership.Member(raftID: RaftID(1), node: node(1), address: "127.0.0.1:\(port(1))", role: .contact)
      try Consensus.prepareJoin(path: path, raftID: RaftID(UInt64(number)), members: [first])
    }
    let consensus = Consensus(configuration: ConsensusConfiguration(path: path), transport: transport, log: log)
    transport.attach(to: consensus, router: router)
    answer(consensus, router)
    try await consensus.start()
    if number == 1 {
      for await leadership in consensus.leadership() where leadership.isLeader { break }
      for other in 1...members where other > 1 {
        // The others may not listen yet: Raft goes on asking them.
        try await consensus.addMember(RaftID(UInt64(other)), node: node(other), address: "127.0.0.1:\(port(other))")
      }
    }
    while consensus.membership.ids(.voter).count < members { try await Task.sleep(for: .milliseconds(20)) }
    report("ready", consensus.isLeader)
    while true { try await Task.sleep(for: .seconds(3600)) }
  }

  private static func answer(_ consensus: Consensus, _ router: Router) {
    router.on(method.write, allow: .manager, onEventLoop: true) { _, stream in
      let request = Request(try await stream.receive() ?? [])
      let volume = Volume(name: request.key, labels: ["value": request.value], createdAt: World.start)
      let (index, _) = try await consensus.propose(Command(actions: [.putVolume(volume)]))
      try await stream.send(withUnsafeBytes(of: index.bigEndian) { Array($0) }, end: true)
    }
    router.on(method.read, allow: .manager, onEventLoop: true) { _, stream in
      let request = Request(try await stream.receive() ?? [])
      let state = try await consensus.linearizableState()
      try await stream.send(Array((state.volumes[request.key]?.labels["value"] ?? "").utf8), end: true)
    }
  }

  /// {1: key, 2: value} in protobuf, each shorter than 2^14 bytes.
  private struct Request {
    var key = ""
    var value = ""
    init(_ bytes: [UInt8]) {
      var rest = bytes[...]
      while let tag = rest.popFirst(), let low = rest.popFirst() {
        let length = low < 128 ? Int(low) : Int(low & 127) | Int(rest.popFirst() ?? 0) << 7
        let text = String(decoding: rest.prefix(length), as: UTF8.self)
        if tag == 0x0a { key = text } else { value = text }
        rest = rest.dropFirst(length)
      }
    }
  }

  struct StartError: Error, CustomStringConvertible { var description: String }
}
