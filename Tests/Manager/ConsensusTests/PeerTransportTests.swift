import Foundation
import Identity
import Logging
import Model
import Raft
import Surroundings
import Testing
import Transport
import Wire

@testable import Consensus

/// Three managers over loopback with mutual TLS.
@Suite(.timeLimit(.minutes(5))) struct PeerTransportTests {
  final class Manager: Sendable {
    let node: NodeID
    let raftID: RaftID
    let router = Router()
    let server: TransportServer
    let transport: PeerTransport
    let consensus: Consensus
    let path: String
    var address: String { server.address }

    /// `by`: what an address is reached by instead.
    init(
      _ world: World, _ number: Int, folder: String, port: Int = 0, node: NodeID = .random(), by ways: @escaping @Sendable (Int) -> Int = { $0 }
    ) async throws {
      self.node = node
      raftID = RaftID(UInt64(number))
      path = "\(folder)/\(number).db"
      let credentials = try world.credentials(node)
      server = try await Self.bind(port, credentials, router)
      transport = PeerTransport(log: quiet) { peer in
        let parts = peer.address.split(separator: ":")
        return PeerLink(host: String(parts[0]), port: ways(Int(parts[1])!), credentials: credentials, log: quiet)
      }
      var configuration = ConsensusConfiguration(path: path, tick: .milliseconds(20), electionTicks: 60)
      configuration.seed = UInt64(number)
      consensus = Consensus(configuration: configuration, transport: transport, log: quiet)
      transport.attach(to: consensus, router: router)
    }

    /// A port below the ephemeral ones, so that no connection takes it while this manager is away.
    private static func bind(_ port: Int, _ credentials: Credentials, _ router: Router) async throws -> TransportServer {
      for _ in 0..<50 where port == 0 {
        let port = Int.random(in: 15_000..<30_000)
        if let server = try? await TransportServer.bind(host: "127.0.0.1", port: port, credentials: credentials, router: router, log: quiet) {
          return server
        }
      }
      // A child of another test that has not reached its exec yet may hold the old socket for a moment.
      for _ in 0..<100 {
        if let server = try? await TransportServer.bind(host: "127.0.0.1", port: port, credentials: credentials, router: router, log: quiet) {
          return server
        }
        try await Task.sleep(for: .milliseconds(20))
      }
      return try await TransportServer.bind(host: "127.0.0.1", port: port, credentials: credentials, router: router, log: quiet)
    }

    /// A cluster of its own, until it leads that.
    func found() async throws {
      try Consensus.bootstrap(path: path, raftID: raftID, node: node, address: address)
      try await consensus.start()
      try await eventually("it leads") { self.consensus.isLeader }
    }

    /// The leader's cluster, until it votes there.
    func join(_ leader: Manager) async throws {
      try Consensus.prepareJoin(path: path, raftID: raftID, members: Array(leader.consensus.membership.members.values))
      try await consensus.start()
      try await leader.consensus.addMember(raftID, node: node, address: address)
      try await eventually("it votes") { self.consensus.membership.ids(.voter).contains(self.raftID) }
    }

    func stop() async {
      transport.close()
      await server.close()
      await consensus.stop(handOver: false)
    }
  }

  struct World {
    let authority: CertificateAuthority
    let now = Timestamp(nanoseconds: Int64(Date().timeIntervalSince1970 * 1e9))
    init() throws { authority = try CertificateAuthority.make(cluster: .random(), now: now) }
    func credentials(_ node: NodeID) throws -> Credentials {
      let key = NodeKey()
      let pem = try authority.issue(try key.signingRequest(), node: node, role: .manager, now: now)
      return try Credentials(NodeIdentity(certificatePEM: pem, key: key, authorityPEM: authority.certificatePEM))
    }
  }

  @Test("managers join by snapshot, replicate, lose their leader and take it back, over TLS; a removed one hears of it")
  func real() async throws {
    let world = try World()
    let folder = temporaryFolder()
    defer { removeFolder(folder) }
    let first = try await Manager(world, 1, folder: folder)
    try await first.found()
    try await first.consensus.propose(Command(actions: [volume("early")]))

    var managers = [first]
    for number in 2...3 {
      let manager = try await Manager(world, number, folder: folder)
      try await manager.join(first)
      #expect(manager.consensus.snapshot.volumes["early"] != nil)
      managers.append(manager)
    }
    // A snapshot among the other messages comes without its state: it is dropped.
    let alone = SnapshotMetadata(index: 1_000_000, term: 9, confState: ConfState())
    managers[1].transport.send(
      [Message(from: managers[1].raftID, to: first.raftID, term: 9, body: .snapshot(alone))], to: RaftPeer(id: first.raftID, address: first.address))
    let clock = ContinuousClock()
    let started = clock.now
    for number in 0..<100 { try await first.consensus.propose(Command(actions: [volume("v\(number)")])) }
    print("100 changes, one after the other, three managers over TLS: \(clock.now - started)")

    let (node, port) = (first.node, first.server.port)
    await first.stop()
    let died = clock.now
    try await eventually("another leads") { managers[1].consensus.isLeader || managers[2].consensus.isLeader }
    let leader = managers[1].consensus.isLeader ? managers[1] : managers[2]
    try await leader.consensus.propose(Command(actions: [volume("late")]))
    print("leader gone to next change accepted: \(clock.now - died)")
    #expect(leader.consensus.snapshot.volumes.count == 102)

    let again = try await Manager(world, 1, folder: folder, port: port, node: node)
    try await again.consensus.start()
    try await eventually("it catches up") { again.consensus.snapshot.volumes["late"] != nil }
    // Who has not answered the leader yet is not counted among those that are left.
    while try await leader.consensus.status().members.contains(where: { $0.member.role == .voter && $0.match == 0 }) {
      try await Task.sleep(for: .milliseconds(5))
    }

    let gone = managers[1] === leader ? managers[2] : managers[1]
    let life = Task { try await gone.consensus.run() }
    try await leader.consensus.removeMember(gone.raftID)
    await #expect {
      try await life.value
    } throws: {
      if case ConsensusError.removed = $0 { true } else { false }
    }
    for manager in [leader, gone, again] { await manager.stop() }
  }

  @Test("an id that nobody was told of is refused, whoever's certificate comes with it; those of members come from their own nodes only")
  func impostor() async throws {
    let world = try World()
    let folder = temporaryFolder()
    defer { removeFolder(folder) }
    let first = try await Manager(world, 1, folder: folder)
    try await first.found()
    let before = try await first.consensus.status()

    let newcomer = NodeID.random()
    var row = Node(id: newcomer, spec: NodeSpec(role: .manager), createdAt: .zero)
    row.manager = ManagerStatus(raftID: RaftID(7), address: "127.0.0.1:1")
    try await first.consensus.propose(Command(actions: [.putNode(row)]))

    func heard(_ id: RaftID, by node: NodeID) async throws -> StreamError? {
      let connection = try await TransportClient.connect(
        host: "127.0.0.1", port: first.server.port, credentials: try world.credentials(node), log: quiet)
      defer { connection.close() }
      let stream = try await connection.open(.raft)
      let message = Message(from: id, to: first.raftID, term: before.term + 100, body: .heartbeat(commit: 0, round: 0))
      do {
        try await stream.send(WireRaftBatch([message]))
        try await stream.send(WireRaftBatch([]))
        stream.finish()
        while try await stream.receive() != nil {}
      } catch let error as StreamError { return error }
      return nil
    }
    let stranger = try await heard(RaftID(99), by: .random())
    #expect(stranger?.message.contains("manager \(RaftID(99)) is not known") == true, "\(String(describing: stranger))")
    #expect(try await heard(RaftID(99), by: newcomer)?.code == .permissionDenied)
    #expect(try await heard(first.raftID, by: newcomer)?.code == .permissionDenied)
    #expect(try await heard(RaftID(7), by: .random())?.code == .permissionDenied)
    #expect(try await first.consensus.status().term == before.term && first.consensus.isLeader)
    // The newcomer is heard before it is a member: its row was there first.
    #expect(try await heard(RaftID(7), by: newcomer) == nil)
    await first.stop()
  }

  @Test("a snapshot goes on where it was when its connection breaks")
  func resumed() async throws {
    let world = try World()
    let folder = temporaryFolder()
    defer { removeFolder(folder) }
    let wire = BreakingWire()
    let first = try await Manager(world, 1, folder: folder) { wire.port(for: $0) }
    try await first.found()
    for number in 0..<20 {
      let volumes = (0..<100).map { volume("v\(number * 100 + $0)" + String(repeating: "x", count: 8000)) }
      try await first.consensus.propose(Command(actions: volumes))
    }
    let second = try await Manager(world, 2, folder: folder)
    // 16 MB; each of the first three connections breaks after 5.
    try wire.open(to: second.server.port, breakingAfter: 5 << 20, times: 3)
    try await second.join(first)
    #expect(second.consensus.snapshot.volumes.count == 2000)
    #expect(wire.broken == 3)
    #expect(second.transport.inbox.resumedObjects > 500, "\(second.transport.inbox.resumedObjects) objects were not sent again")
    for manager in [first, second] { await manager.stop() }
    wire.close()
  }
}
