import Logging
import Model
import Raft
import Replica
import Store
import Surroundings
import Testing

@testable import Consensus

@Suite(.timeLimit(.minutes(5))) struct StateQueriesTests {
  private func lines(_ answer: QueryAnswer) async -> [String] {
    var bytes: [UInt8] = []
    for await chunk in answer { bytes += chunk }
    return String(decoding: bytes, as: UTF8.self).split(separator: "\n").map(String.init)
  }

  @Test("an answer holds everything that was acknowledged before, at once and on every member")
  func fresh() async throws {
    let group = Group()
    try await group.form(3)
    let queries = group.members.values.map { StateQueries($0) }
    for number in 0..<20 {
      _ = try await group.change(volume("v\(number)"))
      for query in queries {
        let answer = try await query.ask("select count(*) as n from volumes", limit: .seconds(5), stale: false)
        #expect(await lines(answer) == [#"{"columns":["n"]}"#, "[\(number + 1)]", #"{"rows":1}"#])
      }
    }
  }

  @Test("without a majority a member refuses, and answers from its own copy when that is asked for")
  func stale() async throws {
    let group = Group()
    try await group.form(2)
    _ = try await group.change(volume("a"))
    let last = try await group.leader()
    await group.stop(group.number(of: last) == 1 ? 2 : 1)
    let queries = StateQueries(last)
    await #expect(throws: ConsensusError.self) { try await queries.ask("select 1", limit: .seconds(5), stale: false) }
    let answer = try await queries.ask("select name from volumes", limit: .seconds(5), stale: true)
    #expect(await lines(answer) == [#"{"columns":["name"]}"#, #"["a"]"#, #"{"rows":1}"#])
  }

  @Test("a million rows stream through a bounded queue; a reader that leaves, or is slow, ends the statement; writers never wait")
  func streaming() async throws {
    let group = Group()
    try await group.form(1)
    let member = try await group.leader()
    let queries = StateQueries(member)
    let many = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000000) select i, 'row ' || i from n"
    var (count, largest) = (0, 0)
    for await chunk in try await queries.ask(many, limit: .seconds(60), stale: false) {
      count += chunk.count(where: { $0 == 10 })
      largest = max(largest, chunk.count)
    }
    #expect(count == 1_000_002 && largest < 64 << 10)

    var abandoned: QueryAnswer? = try await queries.ask(many, limit: .seconds(60), stale: false)
    var iterator = abandoned?.makeAsyncIterator()
    _ = await iterator?.next()
    (iterator, abandoned) = (nil, nil)
    let slow = try await queries.ask(many, limit: .milliseconds(300), stale: false)
    let clock = ContinuousClock()
    let start = clock.now
    for number in 0..<50 { _ = try await group.change(volume("w\(number)")) }
    #expect(clock.now - start < .seconds(30))
    try await Task.sleep(for: .milliseconds(400))
    let rest = await lines(slow)
    #expect(rest.last?.contains("stopped after 0.3 s") == true && rest.count < 100_000, "\(rest.last ?? "")")
    // Both are over: their places are free again.
    try await eventually("eight more fit") {
      var answers: [QueryAnswer] = []
      for _ in 0..<8 {
        guard let answer = try? await queries.ask("select 1", limit: .seconds(5), stale: true) else { return false }
        answers.append(answer)
      }
      return answers.count == 8
    }
  }

  @Test("the ninth statement at a time is told that the manager is busy; a refused one takes no place")
  func bound() async throws {
    let group = Group()
    try await group.form(1)
    let queries = StateQueries(try await group.leader())
    for _ in 0..<20 {
      await #expect(throws: QueryError.self) { try await queries.ask("drop table nodes", limit: .seconds(5), stale: true) }
    }
    let endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n"
    var running: [QueryAnswer] = []
    for _ in 0..<StateQueries.runningMax { running.append(try await queries.ask(endless, limit: .seconds(5), stale: true)) }
    do {
      _ = try await queries.ask("select 1", limit: .seconds(5), stale: true)
      Issue.record("a ninth was answered")
    } catch ConsensusError.busy {}
    for answer in running { _ = await lines(answer) }
  }

  @Test("a demoted member stays a learner until it is promoted; the last vote, and one that the rest cannot do without, are not taken")
  func votes() async throws {
    let group = Group()
    try await group.form(3)
    let leader = try await group.leader()
    let others = (1...3).filter { $0 != group.number(of: leader) }
    let (held, other) = (group.raftID(others[0]), group.raftID(others[1]))
    let node = try #require(leader.membership.members[held]?.node)
    var row = Node(id: node, spec: NodeSpec(role: .worker), createdAt: .zero)
    _ = try await group.change(.putNode(row))
    try await leader.setVote(held, false)
    #expect(leader.membership.members[held]?.role == .learner)
    // Many ticks, in which a joining learner would have been promoted.
    try await Task.sleep(for: .milliseconds(300))
    #expect(leader.membership.members[held]?.role == .learner)
    _ = try await group.change(volume("a"))
    try await eventually("it keeps a copy") { group.members[others[0]]?.snapshot.volumes["a"] != nil }

    row.spec.role = .manager
    _ = try await group.change(.putNode(row))
    try await eventually("it votes again, by itself") { leader.membership.members[held]?.role == .voter }
    await group.stop(others[1])
    try await eventually("the leader misses the third") {
      try await leader.status().members.contains { $0.member.raftID == other && $0.isReachable == false }
    }
    do {
      try await leader.setVote(held, false)
      Issue.record("a vote was taken that the rest cannot do without")
    } catch ConsensusError.membership(let reason) {
      #expect(reason.contains("only 1 of 2") && reason.contains("2 are needed") && reason.contains("--force"), "\(reason)")
    }
  }

  @Test("a backup made under load holds what was acknowledged before, and a cluster made of it goes on with its index")
  func backup() async throws {
    let group = Group()
    try await group.form(3)
    _ = try await group.change(.putCluster(Cluster(id: ClusterID(value: 7), createdAt: .zero)))
    for number in 0..<50 { _ = try await group.change(volume("v\(number)")) }
    let writer = Task {
      var number = 0
      while !Task.isCancelled {
        _ = try? await group.change(volume("w\(number)"))
        number += 1
      }
    }
    let path = "\(group.folder)/backup.db"
    let summary = try await group.leader().backup(to: path, stale: false, takenAt: .zero)
    #expect(summary.volumes >= 50)
    writer.cancel()
    _ = await writer.value
    let content = try await Consensus.readBackup(path)
    #expect((0..<50).allSatisfy { content.state.volumes["v\($0)"] != nil } && content.summary.volumes == summary.volumes)

    let fresh = Group()
    try Consensus.bootstrap(
      path: fresh.path(1), raftID: fresh.raftID(1), node: .random(), address: fresh.address(1), actions: [volume("after")], from: content.state,
      term: content.term + 1)
    try await fresh.start(1)
    let index = try await fresh.change(volume("later"))
    let state = try await fresh.leader().linearizableState()
    #expect(index > content.state.index && state.volumes["v0"] != nil && state.volumes["after"] != nil)
    try await fresh.join(2)
    #expect(try await fresh.leader().linearizableState().volumes.count == content.state.volumes.count + 2)
  }

  @Test("the database of a manager that was killed serves as a backup with everything that was acknowledged, its rows behind its log or not")
  func killed() async throws {
    let group = Group()
    try await group.form(1)
    _ = try await group.change(.putCluster(Cluster(id: ClusterID(value: 7), createdAt: .zero)))
    // A real cluster's row comes with its database.
    try await group.leader().flush()
    for round in 0..<10 {
      for number in 0..<20 { _ = try await group.change(volume("r\(round)n\(number)")) }
      // At once: the rows of the last changes are not in the tables yet.
      let copy = "\(group.folder)/copy\(round).db"
      for suffix in ["", "-wal"] { copyFile(group.path(1) + suffix, copy + suffix) }
      let content = try await Consensus.readBackup(copy)
      #expect(content.summary.volumes == 20 * (round + 1) && content.state.index >= UInt64(20 * (round + 1)))
    }
  }
}
