import Consensus
import Glibc
import Logging
import Model
import Raft
import Store
import Surroundings
import SwiftProtobuf
import Synchronization
import Wire

/// Members joined in memory. Everything still passes through its bytes on the wire.
final class InMemoryNetwork: Sendable {
  private struct State {
    var members: [String: Consensus] = [:]
    var cut: Set<String> = []
    var snapshots = 0
  }
  private let state = Mutex(State())

  var snapshotsDelivered: Int { state.withLock { $0.snapshots } }
  func plug(_ member: Consensus, at address: String) { state.withLock { $0.members[address] = member } }
  func unplug(_ address: String) { state.withLock { $0.members[address] = nil } }
  /// Cuts a member off, both ways.
  func cut(_ address: String) { state.withLock { _ = $0.cut.insert(address) } }
  func heal() { state.withLock { $0.cut = [] } }

  func member(from: String, to: String) -> Consensus? {
    state.withLock { $0.cut.contains(from) || $0.cut.contains(to) ? nil : $0.members[to] }
  }
  func delivered() { state.withLock { $0.snapshots += 1 } }

  func transport(at address: String) -> any RaftTransport { Port(network: self, address: address) }

  private struct Port: RaftTransport {
    let network: InMemoryNetwork
    let address: String

    func send(_ messages: [Raft.Message], to peer: RaftPeer) {
      guard let target = network.member(from: address, to: peer.address) else { return }
      do {
        let bytes: [UInt8] = try WireRaftBatch(messages).serializedBytes()
        let decoded = try WireRaftBatch(serializedBytes: bytes).messages.map { try $0.model() }
        precondition(decoded == messages, "a message changed on the wire")
        target.receive(decoded)
      } catch { preconditionFailure("\(error)") }
    }

    func send(_ snapshot: OutgoingSnapshot, to peer: RaftPeer, completion: @escaping @Sendable (Bool) -> Void) {
      guard let target = network.member(from: address, to: peer.address) else { return completion(false) }
      do {
        var assembly = SnapshotAssembly(snapshot.header(transfer: 1).header)
        for chunk in snapshot.chunks(chunkBytes: 256) {
          let bytes: [UInt8] = try chunk.serializedBytes()
          if let whole = try assembly.add(try WireRaftSnapshotChunk(serializedBytes: bytes)) {
            target.receive(whole)
            network.delivered()
            return completion(true)
          }
        }
        preconditionFailure("a snapshot without end")
      } catch { preconditionFailure("\(error)") }
    }

    func peersChanged(_ peers: [RaftPeer]) {}
  }
}

/// A group on real database files, with ten-millisecond ticks.
/// Used by one task at a time, or only read.
final class Group: @unchecked Sendable {
  let folder = temporaryFolder()
  /// Of the first member's database, when it has a disk of its own.
  private var firstFolder: String?
  var electionTicks = 15
  var waitingBytesMax = 32 << 20
  var logBytesMax = 256 << 20
  let network = InMemoryNetwork()
  var members: [Int: Consensus] = [:]
  var snapshotEvery: UInt64 = 10_000
  var keptEntries: UInt64 = 500
  var retryFirst: Duration = .milliseconds(20)

  deinit { removeFolder(folder) }

  func address(_ number: Int) -> String { "host-\(number):2377" }
  func path(_ number: Int) -> String { "\(number == 1 ? firstFolder ?? folder : folder)/\(number).db" }
  func raftID(_ number: Int) -> RaftID { otherIDs[number] ?? RaftID(UInt64(number)) }

  func start(_ number: Int, path other: String? = nil) async throws {
    var configuration = ConsensusConfiguration(path: other ?? path(number), tick: .milliseconds(10), electionTicks: electionTicks, heartbeatTicks: 2)
    configuration.snapshotEvery = snapshotEvery
    configuration.keptEntries = keptEntries
    configuration.logBytesMax = logBytesMax
    configuration.waitingBytesMax = waitingBytesMax
    configuration.roomBytes = 256 << 10
    configuration.retryFirst = retryFirst
    configuration.retryMax = max(retryFirst, .milliseconds(100))
    configuration.retryRoomMax = .milliseconds(20)
    let member = Consensus(configuration: configuration, transport: network.transport(at: address(number)), log: quiet)
    network.plug(member, at: address(number))
    members[number] = member
    try await member.start()
  }

  /// As kill -9 for the others: nothing is sent any more. The database is released.
  func stop(_ number: Int) async {
    network.cut(address(number))
    network.unplug(address(number))
    await members.removeValue(forKey: number)?.stop(handOver: false)
    network.heal()
  }

  /// One manager bootstrapped, the others joined and promoted.
  func form(_ count: Int, first folder: String? = nil) async throws {
    firstFolder = folder
    try Consensus.bootstrap(path: path(1), raftID: raftID(1), node: .random(), address: address(1))
    try await start(1)
    for number in 2...max(2, count) where number <= count { try await join(number) }
  }

  /// The number of one, the Raft id of another that takes its place.
  var otherIDs: [Int: RaftID] = [:]

  func join(_ number: Int) async throws {
    let leader = try await leader()
    try Consensus.prepareJoin(path: path(number), raftID: raftID(number), members: Array(leader.membership.members.values))
    try await start(number)
    try await leader.addMember(raftID(number), node: .random(), address: address(number))
    try await eventually("member \(number) is a voter everywhere") {
      self.members.values.allSatisfy { $0.membership.members[self.raftID(number)]?.role == .voter }
    }
  }

  func leader() async throws -> Consensus {
    var found: Consensus?
    try await eventually("a leader") {
      found = self.members.values.first { $0.isLeader }
      return found != nil
    }
    return found!
  }

  func number(of member: Consensus) -> Int { members.first { $0.value === member }!.key }

  /// Proposes until it is accepted, following the leader.
  func change(_ action: Action) async throws -> UInt64 {
    for _ in 0..<500 {
      guard let leader = members.values.first(where: { $0.isLeader }) else {
        try await Task.sleep(for: .milliseconds(5))
        continue
      }
      do { return try await leader.propose(Command(actions: [action])).index } catch let error as ConsensusError {
        switch error {
        case .notLeader, .busy, .unknownOutcome: try await Task.sleep(for: .milliseconds(5))
        default: throw error
        }
      }
    }
    throw TimedOut(what: "a change")
  }
}

let quiet: Logger = {
  var log = Logger(label: "test")
  log.logLevel = .critical
  return log
}()

struct TimedOut: Error { var what: String }

func eventually(_ what: String, _ condition: () async throws -> Bool) async throws {
  for _ in 0..<9000 {
    if try await condition() { return }
    try await Task.sleep(for: .milliseconds(5))
  }
  throw TimedOut(what: what)
}

func volume(_ name: String) -> Action { .putVolume(Volume(name: name, createdAt: .zero)) }
