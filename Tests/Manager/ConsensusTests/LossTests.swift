import Consensus
import Glibc
import Model
import Raft
import Surroundings
import Testing

/// A manager that lost its disk, a cluster that lost its majority, callers that ask for too much.
@Suite(.timeLimit(.minutes(5))) struct LossTests {
  @Test("a wiped manager does not vote as its old self: it starts only under a new id, and the old one is removed")
  func wiped() async throws {
    let group = Group()
    try await group.form(3)
    _ = try await group.change(volume("kept"))
    let leader = try await group.leader()
    let number = group.members.keys.first { group.members[$0] !== leader }!
    let old = group.raftID(number)
    await group.stop(number)
    for suffix in ["", "-wal", "-shm"] { unlink(group.path(number) + suffix) }
    // Whatever its certificate says: without the database it is nobody.
    await #expect(throws: ConsensusError.self) { try await group.start(number) }
    group.members[number] = nil
    unlink(group.path(number))

    try await leader.removeMember(old)
    group.otherIDs[number] = leader.newRaftID()
    try await group.join(number)
    #expect(group.members[number]!.snapshot.volumes["kept"] != nil && group.members[number]!.id != old)
    #expect(leader.membership.members[old]?.role == .removed && leader.membership.ids(.voter).count == 3)
    // What still arrives from the old id is not heard: no vote, no unrest.
    let term = try await leader.status().term
    let vote = Message.VoteRequest(lastIndex: 1 << 40, lastTerm: 1 << 40, isTransfer: true)
    leader.receive([Message(from: old, to: leader.id!, term: term + 5, body: .vote(vote))])
    _ = try await group.change(volume("after"))
    #expect(try await leader.status().term == term && leader.isLeader)
  }

  @Test("a database is replaced under a new id in one step, and the damaged one is kept aside")
  func reseeded() async throws {
    let group = Group()
    try await group.form(3)
    for number in 0..<50 { _ = try await group.change(volume("v\(number)")) }
    let leader = try await group.leader()
    let number = group.members.keys.first { group.members[$0] !== leader }!
    #expect(throws: ConsensusError.self) { try Consensus.requireUnused(path: group.path(number)) }
    await group.stop(number)
    #expect(patch(group.path(number), [0x0a, 2] + Array("v7".utf8), with: [0x0a, 2] + Array("x7".utf8)))
    await #expect(throws: ConsensusError.self) { try await group.start(number) }
    group.members[number] = nil
    // It still names the others.
    #expect(Consensus.salvageMembers(path: group.path(number)).count == 3)
    try await leader.removeMember(group.raftID(number))
    group.otherIDs[number] = leader.newRaftID()
    let peers = Array(leader.membership.members.values)
    let aside = try Consensus.replaceDatabase(
      path: group.path(number), raftID: group.raftID(number), members: peers, now: Timestamp(nanoseconds: 7_000_000_000))
    #expect(aside == group.path(number) + ".damaged-7" && access(aside!, F_OK) == 0)
    try await group.start(number)
    try await leader.addMember(group.raftID(number), node: .random(), address: group.address(number))
    try await eventually("it votes and has everything") {
      let member = group.members[number]!
      return member.membership.members[member.id!]?.role == .voter && member.snapshot.volumes.count == 50
    }
  }

  @Test("the survivor of a lost majority becomes the only manager, with everything that its log holds; the others' remains cannot reach it")
  func forced() async throws {
    let group = Group()
    let (node, other) = (NodeID.random(), NodeID.random())
    try await group.form(3)
    var row = Node(id: node, spec: NodeSpec(role: .manager), createdAt: .zero)
    row.manager = ManagerStatus(raftID: group.raftID(2), address: group.address(2))
    var lost = Node(id: other, spec: NodeSpec(role: .manager), createdAt: .zero)
    lost.manager = ManagerStatus(raftID: group.raftID(3), address: group.address(3))
    var cluster = Cluster(id: .random(), createdAt: .zero)
    cluster.workerToken = "token"
    for action in [Action.putCluster(cluster), .putNode(row), .putNode(lost)] { _ = try await group.change(action) }
    for number in 0..<20 { _ = try await group.change(volume("v\(number)")) }
    try await eventually("it has everything") { group.members[2]!.snapshot.volumes.count == 20 }
    for number in 1...3 { await group.stop(number) }

    let given = try Consensus.forceNewCluster(path: group.path(2), node: node, address: group.address(2), now: .zero)
    #expect(given == [other])
    try await group.start(2)
    let survivor = try await group.leader()
    let state = try await survivor.linearizableState()
    #expect(state.volumes.count == 20 && state.cluster?.workerToken == "token" && survivor.membership.members.count == 1)
    #expect(state.nodes[other]?.manager == nil && state.nodes[other]?.spec.role == .worker && state.nodes[node]?.manager?.raftID == survivor.id)
    #expect(survivor.id != group.raftID(2))
    try await survivor.propose(Command(actions: [volume("after")]))

    // The remains go on alone, as a group of their own, and neither side disturbs the other.
    try await group.start(1)
    try await group.start(3)
    try await eventually("the remains elect") { group.members[1]!.isLeader || group.members[3]!.isLeader }
    #expect(survivor.isLeader && group.members[1]!.membership.ids(.voter).count == 3)
    #expect(survivor.snapshot.volumes["after"] != nil && group.members[1]!.snapshot.volumes["after"] == nil)
    // A new member begins from its state.
    await group.stop(3)
    group.members[1] = nil
    for suffix in ["", "-wal", "-shm"] { unlink(group.path(3) + suffix) }
    group.otherIDs[3] = survivor.newRaftID()
    try Consensus.prepareJoin(path: group.path(3), raftID: group.raftID(3), members: Array(survivor.membership.members.values))
    try await group.start(3)
    try await survivor.addMember(group.raftID(3), node: .random(), address: group.address(3))
    try await eventually("it has the state") { group.members[3]!.snapshot.volumes["after"] != nil }
  }

  @Test("who asks for more than the log takes in is told that it is busy, and nothing of it was made")
  func busy() async throws {
    let group = Group()
    group.waitingBytesMax = 20_000
    try await group.form(1)
    let member = try await group.leader()
    let big = String(repeating: "x", count: 5000)
    let outcomes = await withTaskGroup(of: (String, Bool).self) { tasks in
      for number in 0..<400 {
        tasks.addTask {
          let name = "v\(number)" + big
          do {
            try await member.propose(Command(actions: [volume(name)]))
            return (name, true)
          } catch ConsensusError.busy(let reason) {
            #expect(reason.contains("20000 bytes"))
            return (name, false)
          } catch {
            Issue.record(error)
            return (name, false)
          }
        }
      }
      return await tasks.reduce(into: [String: Bool]()) { $0[$1.0] = $1.1 }
    }
    let made = try await member.linearizableState().volumes
    #expect(outcomes.values.contains(true) && outcomes.values.contains(false))
    #expect(outcomes.allSatisfy { (made[$0.key] != nil) == $0.value })
  }

  @Test("a log is cut when it is too large, however few entries it has")
  func largeLog() async throws {
    let group = Group()
    group.logBytesMax = 1 << 20
    try await group.form(1)
    let big = String(repeating: "x", count: 100_000)
    for number in 0..<40 { _ = try await group.change(volume("v\(number % 3)" + big)) }
    try await eventually("the log is short") {
      let status = try await group.leader().status()
      return status.compacted > 20 && status.lastIndex - status.compacted < 12
    }
    await group.stop(1)
    try await group.start(1)
    #expect(try await group.leader().linearizableState().volumes.count == 3)
  }
}
