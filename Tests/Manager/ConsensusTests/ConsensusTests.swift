import Glibc
import Logging
import Model
import Raft
import Store
import Surroundings
import Synchronization
import Testing

@testable import Consensus

@Suite(.timeLimit(.minutes(5))) struct ConsensusTests {
  @Test("one manager alone leads at once, applies, refuses, and finds everything again")
  func alone() async throws {
    let group = Group()
    try await group.form(1)
    let member = try await group.leader()
    let (index, changes) = try await member.propose(Command(actions: [volume("a")]))
    #expect(changes.count == 1 && member.snapshot.index == index && member.snapshot.volumes["a"] != nil)
    await #expect(throws: Refusal.outOfSequence) {
      do { try await member.propose(Command(conditions: [.stackRevision("web", 7)], actions: [volume("b")])) } catch ConsensusError.refused(
        let refusal)
      {
        throw refusal
      }
    }
    #expect(try await member.linearizableState().volumes["b"] == nil)
    await group.stop(1)
    await #expect(throws: ConsensusError.self) { try await member.propose(Command(actions: [volume("c")])) }

    try await group.start(1)
    let again = try await group.leader()
    #expect(try await again.linearizableState().volumes.keys.sorted() == ["a"])
    #expect(try await again.status().members.map(\.member.address) == ["host-1:2377"])
  }

  @Test("a database is made once only")
  func bootstrapTwice() throws {
    let group = Group()
    try Consensus.bootstrap(path: group.path(1), raftID: RaftID(1), node: .random(), address: "a:1")
    #expect(throws: ConsensusError.self) { try Consensus.bootstrap(path: group.path(1), raftID: RaftID(2), node: .random(), address: "a:1") }
    #expect(throws: ConsensusError.self) { try Consensus.prepareJoin(path: group.path(1), raftID: RaftID(2), members: []) }
    #expect(try Consensus.raftID(path: group.path(1)) == RaftID(1))
    #expect(try Consensus.raftID(path: group.path(2)) == nil)
  }

  @Test("many that wait together share writes: group commit")
  func groupCommit() async throws {
    let group = Group()
    try await group.form(1)
    let member = try await group.leader()
    let indexes = try await withThrowingTaskGroup(of: UInt64.self) { tasks in
      for number in 0..<1000 { tasks.addTask { try await member.propose(Command(actions: [volume("v\(number)")])).index } }
      return try await tasks.reduce(into: Set<UInt64>()) { $0.insert($1) }
    }
    #expect(indexes.count == 1000 && member.snapshot.volumes.count == 1000)
  }

  @Test("three members elect, replicate, and answer reads anywhere")
  func three() async throws {
    let group = Group()
    try await group.form(3)
    let index = try await group.change(volume("a"))
    for member in group.members.values {
      let state = try await member.linearizableState()
      #expect(state.index >= index && state.volumes["a"] != nil)
    }
    let leader = try await group.leader()
    let follower = try #require(group.members.values.first { $0 !== leader })
    do {
      try await follower.propose(Command(actions: [volume("b")]))
      Issue.record("a follower took a change")
    } catch ConsensusError.notLeader(let told) {
      #expect(told == leader.leader && told?.address == group.address(group.number(of: leader)))
    }
    let status = try await leader.status()
    #expect(status.role == .leader && status.members.count == 3 && status.members.allSatisfy { $0.isReachable == true })
  }

  @Test("nothing acknowledged is lost when leaders die one after the other")
  func leaderLoss() async throws {
    let group = Group()
    try await group.form(3)
    var acknowledged: [String] = []
    for round in 0..<4 {
      for number in 0..<10 {
        let name = "r\(round)n\(number)"
        _ = try await group.change(volume(name))
        acknowledged.append(name)
      }
      let leader = try await group.leader()
      let number = group.number(of: leader)
      await group.stop(number)
      let clock = ContinuousClock()
      let start = clock.now
      _ = try await group.change(volume("after\(round)"))
      acknowledged.append("after\(round)")
      #expect(clock.now - start < .seconds(30))
      try await group.start(number)
    }
    for member in group.members.values {
      try await eventually("a member has everything") { acknowledged.allSatisfy { member.snapshot.volumes[$0] != nil } }
    }
  }

  @Test("a copy of every database taken in full flight starts a group that has all that was acknowledged before the copy")
  func crash() async throws {
    let group = Group()
    try await group.form(3)
    let writer = Task {
      var names: [String] = []
      while !Task.isCancelled {
        let name = "v\(names.count)"
        guard let leader = group.members.values.first(where: { $0.isLeader }) else { continue }
        guard (try? await leader.propose(Command(actions: [volume(name)]))) != nil else { break }
        names.append(name)
        Acknowledged.count.withLock { $0 = names.count }
      }
    }
    try await eventually("writes are in full flight") { Acknowledged.count.withLock { $0 } > 30 }
    let before = Acknowledged.count.withLock { $0 }
    for number in 1...3 { for suffix in ["", "-wal"] { copyFile(group.path(number) + suffix, "\(group.folder)/copy\(number).db\(suffix)") } }
    writer.cancel()
    _ = await writer.value
    for number in 1...3 { await group.stop(number) }
    for number in 1...3 { try await group.start(number, path: "\(group.folder)/copy\(number).db") }
    let state = try await group.leader().linearizableState()
    for number in 0..<before { #expect(state.volumes["v\(number)"] != nil) }
  }

  @Test("a leader without its followers steps down, and tells that the outcome is unknown")
  func isolated() async throws {
    let group = Group()
    try await group.form(3)
    let leader = try await group.leader()
    group.network.cut(group.address(group.number(of: leader)))
    do {
      try await leader.propose(Command(actions: [volume("lost")]))
      Issue.record("accepted without a majority")
    } catch ConsensusError.unknownOutcome {}
    #expect(!leader.isLeader)
    try await eventually("another leads") { group.members.values.contains { $0 !== leader && $0.isLeader } }
    let other = try #require(group.members.values.first { $0 !== leader && $0.isLeader })
    try await other.propose(Command(actions: [volume("kept")]))
    group.network.heal()
    try await eventually("the old leader follows") { leader.snapshot.volumes["kept"] != nil && leader.snapshot.volumes["lost"] == nil }
  }

  @Test("a member far behind gets a snapshot in chunks, a new one too; logs stay short")
  func snapshots() async throws {
    let group = Group()
    group.snapshotEvery = 50
    group.keptEntries = 10
    try await group.form(3)
    let before = group.network.snapshotsDelivered
    #expect(before >= 2)
    let behind = group.members.keys.first { !group.members[$0]!.isLeader }!
    await group.stop(behind)
    for number in 0..<300 { _ = try await group.change(volume("v\(number)")) }
    try await eventually("the log is cut") { try await group.leader().status().compacted > 200 }
    try await group.start(behind)
    try await eventually("it has everything") { group.members[behind]!.snapshot.volumes.count == 300 }
    #expect(group.network.snapshotsDelivered > before)
    try await group.join(4)
    #expect(group.members[4]!.snapshot.volumes.count == 300)
    // And it stands on its own disk.
    await group.stop(4)
    try await group.start(4)
    #expect(group.members[4]!.snapshot.volumes.count == 300)
    #expect(group.members[4]!.membership.ids(.voter).count == 4)
  }

  @Test("a member is removed and cannot come back under its id")
  func removal() async throws {
    let group = Group()
    try await group.form(3)
    let leader = try await group.leader()
    let number = group.members.keys.first { group.members[$0] !== leader }!
    try await leader.removeMember(group.raftID(number))
    try await eventually("gone") { leader.membership.members[group.raftID(number)]?.role == .removed }
    await #expect(throws: ConsensusError.self) {
      try await leader.addMember(group.raftID(number), node: .random(), address: group.address(number))
    }
    _ = try await group.change(volume("a"))
    #expect(leader.membership.ids(.voter).count == 2)
    // Two are left: with one of them away nobody may take the other out.
    let other = group.members.keys.first { $0 != number && group.members[$0] !== leader }!
    group.network.cut(group.address(other))
    try await Task.sleep(for: .milliseconds(50))
    let own = group.raftID(group.number(of: leader))
    await #expect(throws: ConsensusError.self) { try await leader.removeMember(own) }
  }

  @Test("with one of three away no other can be taken out: the two that were left could not decide")
  func removalWithOneAway() async throws {
    let group = Group()
    try await group.form(3)
    let leader = try await group.leader()
    let others = group.members.keys.filter { group.members[$0] !== leader }
    group.network.cut(group.address(others[0]))
    try await eventually("seen to be away") {
      try await leader.status().members.contains { $0.member.raftID == group.raftID(others[0]) && $0.isReachable == false }
    }
    let error = await #expect(throws: ConsensusError.self) { try await leader.removeMember(group.raftID(others[1])) }
    #expect(error?.description.contains("2 are needed") == true, "\(String(describing: error))")
    #expect(leader.membership.ids(.voter).count == 3)
    // The one that is away may go.
    try await leader.removeMember(group.raftID(others[0]))
  }

  @Test("several that join at once are taken one after the other")
  func joinTogether() async throws {
    let group = Group()
    try await group.form(1)
    let leader = try await group.leader()
    for number in 2...5 {
      try Consensus.prepareJoin(
        path: group.path(number), raftID: group.raftID(number), members: Array(leader.membership.members.values))
      try await group.start(number)
    }
    try await withThrowingTaskGroup(of: Void.self) { tasks in
      for number in 2...5 {
        let (id, address) = (group.raftID(number), group.address(number))
        tasks.addTask { try await leader.addMember(id, node: .random(), address: address) }
      }
      try await tasks.waitForAll()
    }
    try await eventually("all vote") { group.members.values.allSatisfy { $0.membership.ids(.voter).count == 5 } }
  }

  @Test("a leader that is stopped hands over first")
  func plannedStop() async throws {
    let group = Group()
    // Nobody has to wait for an election timeout: it is longer than the test's patience.
    group.electionTicks = 1000
    try await group.form(3)
    let leader = try await group.leader()
    let others = group.members.values.filter { $0 !== leader }
    await leader.stop()
    try await eventually("another leads") { others.contains { $0.leader != nil && $0.leader?.id != leader.id } }
  }

  @Test("leadership can be handed over, and is told")
  func transfer() async throws {
    let group = Group()
    // No election but the one that was asked for.
    group.electionTicks = 200
    try await group.form(3)
    let leader = try await group.leader()
    let target = group.members.keys.first { group.members[$0] !== leader }!
    let told = Task {
      for await leadership in group.members[target]!.leadership() where leadership.isLeader { return true }
      return false
    }
    try await leader.transferLeadership(to: group.raftID(target))
    #expect(await told.value)
    try await eventually("the former leader follows") { !leader.isLeader }
  }

  @Test("a watcher sees every change in order; a slow one is told to begin again")
  func watchers() async throws {
    let group = Group()
    try await group.form(1)
    let member = try await group.leader()
    var fast = member.changes().makeAsyncIterator()
    var slow = member.changes().makeAsyncIterator()
    guard case .resync = await fast.next(), case .resync = await slow.next() else { throw Missing(what: "no state at first") }
    var seen: [String] = []
    var last: UInt64 = 0
    for number in 0..<300 {
      try await member.propose(Command(actions: [volume("v\(number)")]))
      guard case .changes(let batch) = await fast.next() else { throw Missing(what: "no change") }
      #expect(batch.index > last && batch.state.index == batch.index)
      last = batch.index
      for case .volume(_, let new?) in batch.changes { seen.append(new.name) }
    }
    #expect(seen == (0..<300).map { "v\($0)" })
    guard case .resync(let state) = await slow.next() else { throw Missing(what: "changes were dropped in silence") }
    #expect(state.volumes.count == 300)
    try await member.propose(Command(actions: [volume("last")]))
    guard case .changes(let batch) = await slow.next() else { throw Missing(what: "no change after resync") }
    #expect(batch.changes.count == 1)
    await group.stop(1)
    #expect(await slow.next() == nil)
  }

  @Test("many begin to watch at once while others read their first state and changes are applied")
  func watchersBeginTogether() async throws {
    let group = Group()
    try await group.form(1)
    let member = try await group.leader()
    let begun = await withTaskGroup(of: Int.self) { tasks in
      for _ in 0..<8 {
        tasks.addTask {
          var count = 0
          for _ in 0..<500 {
            var events = member.changes().makeAsyncIterator()
            if case .resync = await events.next() { count += 1 }
          }
          return count
        }
      }
      tasks.addTask {
        for number in 0..<20 { _ = try? await member.propose(Command(actions: [volume("v\(number)")])) }
        return 0
      }
      return await tasks.reduce(0, +)
    }
    #expect(begun == 4000 && member.snapshot.volumes.count == 20)
  }

  @Test("a damaged log stops the start with the row's name")
  func damaged() async throws {
    let group = Group()
    try await group.form(1)
    let index = try await group.change(volume("precious"))
    await group.stop(1)
    // Closing wrote the log into the file itself; only the entry holds the name as a field of protobuf: number 1, eight bytes.
    #expect(patch(group.path(1), [0x0a, 8] + Array("precious".utf8), with: [0x0a, 8] + Array("precioux".utf8)))
    do {
      try await group.start(1)
      Issue.record("it started")
    } catch ConsensusError.storage(.damaged(_, let table, let row, let reason)) {
      #expect(table == "raft_log" && row == "\(index)" && reason.hasPrefix("checksum is "))
    }
  }
}

private enum Acknowledged { static let count = Mutex(0) }
