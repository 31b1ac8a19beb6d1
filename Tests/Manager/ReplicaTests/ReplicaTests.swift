import Model
import Raft
import Testing

@testable import Replica

@Suite struct ReplicaTests {
  @Test("a lone member leads once its vote is durable, and answers a proposal once its entry is: not before")
  func lone() throws {
    var member = try Sample.member()
    var outputs = member.begin()
    var writes = outputs.writes
    // Its term and vote go to the disk, and until they are there it leads nobody.
    #expect(writes.count == 1 && writes[0].batch.hardState?.vote == member.id && !outputs.hasLeader)
    outputs = member.step(.written(writes[0].number, failure: nil))
    writes = outputs.writes
    #expect(writes.count == 1 && writes[0].batch.entries.count == 1 && !outputs.hasLeader)
    outputs = member.step(.written(writes[0].number, failure: nil))
    #expect(outputs.hasLeader && outputs.writes.isEmpty)

    outputs = member.step([.propose(Sample.volume("a"), 1), .propose(Sample.volume("b"), 2)])
    writes = outputs.writes
    #expect(writes.count == 1 && writes[0].batch.entries.count == 2 && outputs.answers.isEmpty)
    // While it is under way: one more waits, for the next write.
    outputs = member.step(.propose(Sample.volume("c"), 3))
    #expect(outputs.writes.isEmpty && outputs.answers.isEmpty)
    outputs = member.step(.written(writes[0].number, failure: nil))
    #expect(outputs.answers == [1, 2])
    #expect(outputs.writes.count == 1 && outputs.writes[0].batch.entries.count == 1)
    // The rows of what was just applied wait for more of them.
    #expect(outputs.writes[0].batch.applied == nil)
    #expect(member.step(.tick).writes.isEmpty)
    outputs = member.step(.written(outputs.writes[0].number, failure: nil))
    #expect(outputs.answers == [3] && outputs.writes.isEmpty)
    outputs = member.step(.stop)
    #expect(outputs.writes.count == 1 && outputs.writes[0].batch.entries.isEmpty)
    #expect(outputs.writes[0].batch.applied?.state.volumes.keys.sorted() == ["a", "b", "c"])
  }

  @Test("rows are written when so many wait, each once however often it changed, or when they have waited so long: not before")
  func rows() throws {
    var member = try Sample.leader {
      $0.rowsMax = 3; $0.rowTicks = 10
    }
    var request: UInt64 = 0
    func put(_ name: String) -> [(batch: WriteBatch, number: UInt64)] {
      request += 1
      let entry = member.step(.propose(Sample.volume(name), request)).writes
      #expect(entry.count == 1 && entry[0].batch.applied == nil)
      return member.step(.written(entry[0].number, failure: nil)).writes
    }
    for name in ["a", "b", "a", "b", "a"] { #expect(put(name).isEmpty) }
    let full = put("c")
    #expect(full.count == 1 && full[0].batch.applied?.rows == [.volume("a"), .volume("b"), .volume("c")])
    #expect(full[0].batch.applied?.state.index == member.state.index)
    #expect(member.step(.written(full[0].number, failure: nil)).writes.isEmpty)

    #expect(put("d").isEmpty)
    var ticks = 1
    var writes = member.step(.tick).writes
    while writes.isEmpty || writes[0].batch.applied == nil {
      // How far the log is committed goes alone, when nothing else does.
      for write in writes {
        #expect(write.batch.hardState?.committed == member.state.index && write.batch.entries.isEmpty)
        _ = member.step(.written(write.number, failure: nil))
      }
      ticks += 1
      writes = member.step(.tick).writes
    }
    #expect(ticks == 10 && writes[0].batch.applied?.rows == [.volume("d")])
  }

  @Test("old entries are forgotten a few with each write, and twice as many as come, until so many are kept")
  func forgetting() throws {
    var member = try Sample.leader {
      $0.snapshotEvery = 4_000; $0.keptEntries = 10
    }
    var cuts: [UInt64] = []
    var request: UInt64 = 0
    for round in 0..<120 {
      // One entry a write at first, then so many that 500 a write would never be enough.
      let proposals = (0..<(round < 100 ? 50 : 900)).map { ReplicaCore.Input.propose(Sample.volume("v\($0 % 3)"), request + UInt64($0)) }
      request += UInt64(proposals.count)
      var writes = member.step(proposals).writes
      while let write = writes.first {
        if let point = write.batch.compact {
          cuts.append(point.index - member.compacted.index)
          #expect(point.index <= max(member.writtenIndex, write.batch.applied?.state.index ?? 0))
        }
        writes = member.step(.written(write.number, failure: nil)).writes
      }
    }
    #expect(cuts.count > 10 && cuts.allSatisfy { $0 <= 1_800 } && cuts.contains(500), "\(cuts)")
    #expect(member.state.index - member.compacted.index < 12_000, "\(member.state.index - member.compacted.index) entries")
  }

  @Test("many rows come in slices, one a write; entries come with them, and the applied index and the members with the last one")
  func slices() throws {
    var member = try Sample.leader {
      $0.rowsMax = 10; $0.rowsSlice = 4
    }
    let before = member.writtenIndex
    var write = member.step((1...10).map { .propose(Sample.volume("v\(9 - $0 % 10)"), UInt64($0)) }).writes[0]
    write = member.step(.written(write.number, failure: nil)).writes[0]
    let whole = member.state
    #expect(write.batch.applied?.rows == ["v0", "v1", "v2", "v3"].map(RowKey.volume) && write.batch.applied?.before?.index == before)
    // What changes meanwhile is of the next flush: all slices are of one state.
    #expect(member.step([.propose(Sample.volume("v9"), 11), .flush(12)]).writes.isEmpty)
    write = member.step(.written(write.number, failure: nil)).writes[0]
    #expect(write.batch.entries.count == 1 && write.batch.applied?.rows == ["v4", "v5", "v6", "v7"].map(RowKey.volume))
    #expect(write.batch.applied?.state.index == whole.index && write.batch.applied?.before?.index == before)
    #expect(member.writtenIndex == before)
    var outputs = member.step(.written(write.number, failure: nil))
    #expect(outputs.answers == [11])
    write = outputs.writes[0]
    #expect(write.batch.applied?.rows == ["v8", "v9"].map(RowKey.volume) && write.batch.applied?.before == nil)
    #expect(write.batch.applied?.state.index == whole.index && write.batch.applied?.state.volumes["v9"]?.version == whole.volumes["v9"]?.version)
    outputs = member.step(.written(write.number, failure: nil))
    #expect(member.writtenIndex == whole.index)
    // Its row was already on the way when the flush was asked for with the state of before it.
    #expect(outputs.done == [12])
    outputs = member.step(.flush(13))
    #expect(outputs.writes[0].batch.applied?.rows == [.volume("v9")] && outputs.writes[0].batch.applied?.before == nil)
  }

  @Test("rows that can take others along are in one slice, the first; a snapshot ends a flush")
  func wholeSlices() throws {
    let changes: [StateChange] = [
      .task(old: nil, new: ClusterTask(id: TaskID(value: 2), service: ServiceID(value: 1), revision: 1, slot: 1, createdAt: .zero)),
      .service(old: nil, new: Service(id: ServiceID(value: 9), name: "a", createdAt: .zero)), .revision(.init(ServiceID(value: 9), 1)),
      .task(old: nil, new: ClusterTask(id: TaskID(value: 1), service: ServiceID(value: 1), revision: 1, slot: 1, createdAt: .zero)),
      .service(old: nil, new: Service(id: ServiceID(value: 3), name: "b", createdAt: .zero)),
    ]
    var flush = RowFlush(ChangedRows(changes), state: ClusterState(), membership: nil)
    #expect(flush.slice(1) == [.service(ServiceID(value: 9)), .revision(.init(ServiceID(value: 9), 1)), .service(ServiceID(value: 3))])
    #expect(flush.slice(1) == [.task(TaskID(value: 1))] && !flush.rows.isEmpty)
    #expect(flush.slice(1) == [.task(TaskID(value: 2))] && flush.rows.isEmpty)

    var loaded = Sample.loaded
    loaded.membership = Membership([1, 2].map { .init(raftID: RaftID($0), node: nil, address: "m\($0):1", role: .voter) })
    var member = try Sample.member(loaded) {
      $0.rowsMax = 4; $0.rowsSlice = 1
    }
    _ = member.begin()
    let entries = (2...6).map { Entry(term: 2, index: $0, kind: .command, data: Sample.volume("v\($0)")) }
    let append = Message.Append(previousIndex: 1, previousTerm: 1, commit: 6, entries: entries)
    var outputs = member.step(.message(Message(from: RaftID(2), to: RaftID(1), term: 2, body: .append(append))))
    while let write = outputs.writes.first, write.batch.applied == nil { outputs = member.step(.written(write.number, failure: nil)) }
    let slice = try #require(outputs.writes.first)
    #expect(slice.batch.applied?.before != nil)
    var state = ClusterState()
    state.skip(to: 50)
    let message = Message(
      from: RaftID(2), to: RaftID(1), term: 2, body: .snapshot(SnapshotMetadata(index: 50, term: 2, confState: member.configuration)))
    outputs = member.step(.snapshot(IncomingSnapshot(message: message, membership: loaded.membership, state: state)))
    outputs = member.step(.written(slice.number, failure: nil))
    #expect(outputs.writes.first?.batch.snapshot?.point.index == 50 && outputs.writes.first?.batch.applied == nil)
    _ = member.step(.written(outputs.writes[0].number, failure: nil))
    #expect(member.writtenIndex == 50 && member.step(.tick).writes.allSatisfy { $0.batch.applied == nil })
  }

  @Test("rows are never further behind the log than the entries after which it is cut")
  func rowsOfManyEntries() throws {
    var member = try Sample.leader {
      $0.snapshotEvery = 20; $0.keptEntries = 5
    }
    for request in 1...200 {
      var writes = member.step(.propose(Sample.volume("a"), UInt64(request))).writes
      while let write = writes.first {
        #expect(member.state.index - member.writtenIndex <= 20)
        writes = member.step(.written(write.number, failure: nil)).writes
      }
    }
    #expect(member.compacted.index > 150)
  }

  @Test("a flush is answered once the rows of what was applied before it are durable: not by a write that left earlier")
  func flush() throws {
    var member = try Sample.leader()
    var outputs = member.step(.propose(Sample.volume("a"), 1))
    outputs = member.step(.written(outputs.writes[0].number, failure: nil))
    #expect(outputs.answers == [1] && outputs.writes.isEmpty, "its rows wait for another reason to write")
    outputs = member.step(.flush(2))
    let rows = outputs.writes
    #expect(!outputs.done.contains(2) && rows.count == 1 && rows[0].batch.applied?.state.volumes.keys.sorted() == ["a"])
    outputs = member.step(.propose(Sample.volume("b"), 3))
    outputs = member.step(.written(rows[0].number, failure: nil))
    #expect(outputs.done == [2])
    outputs = member.step(.written(outputs.writes[0].number, failure: nil))
    #expect(outputs.answers == [3])
    outputs = member.step([.flush(4), .flush(5)])
    let last = outputs.writes[0]
    #expect(outputs.done.isEmpty)
    outputs = member.step(.written(last.number, failure: nil))
    #expect(outputs.done == [4, 5])
    #expect(member.step(.flush(6)).done == [6], "there is nothing to write")
  }

  @Test("a flush under way when the member ends is answered with why")
  func flushAtEnd() throws {
    var member = try Sample.leader()
    var outputs = member.step(.propose(Sample.volume("a"), 1))
    outputs = member.step(.written(outputs.writes[0].number, failure: nil))
    outputs = member.step(.flush(2))
    outputs = member.step(.written(outputs.writes[0].number, failure: .diskFull(operation: "write", cause: "full")))
    #expect(outputs.contains { if case .answer(2, .failed(.storage)) = $0 { true } else { false } })
  }

  @Test("a member whose write failed promises nothing any more: what waited is told that the outcome is unknown")
  func failedWrite() throws {
    var member = try Sample.leader()
    let outputs = member.step([.propose(Sample.volume("a"), 1)])
    let end = member.step(.written(outputs.writes[0].number, failure: .diskFull(operation: "write", cause: "full")))
    guard case .answer(1, .failed(.unknownOutcome)) = end[0], case .ended(.storage) = end[1] else {
      Issue.record("\(end)")
      return
    }
    #expect(member.step(.tick).isEmpty && member.hasEnded)
  }

  @Test("a joint configuration survives a restart in its middle: both halves still vote")
  func joint() throws {
    var member = try Sample.leader()
    let change = ConfigurationChange([.addVoter(RaftID(2)), .addLearner(RaftID(1))], transition: .jointExplicit)
    let write = member.step(.changeMembers(change, force: true, 1)).writes[0]
    let outputs = member.step(.written(write.number, failure: nil))
    #expect(outputs.answers == [1])
    #expect(member.membership.members[RaftID(1)]?.role == .learner && member.membership.members[RaftID(1)]?.isOutgoingVoter == true)
    // The membership is on its way to the disk; from there another life begins.
    let stored = outputs.writes[0].batch
    #expect(stored.membership == member.membership)
    var loaded = Sample.loaded
    loaded.membership = stored.membership!
    loaded.state = stored.applied!.state
    loaded.compacted = SnapshotPoint(index: loaded.state.index, term: 2)
    loaded.hardState = StoredHardState(term: 2, vote: nil, committed: loaded.state.index)
    let again = try Sample.member(loaded)
    #expect(!again.hasEnded)
    #expect(again.configuration == member.configuration && again.configuration.isJoint)
  }

  @Test("a leader that was added while a member was behind is answered, for it says where it is")
  func unknownLeader() throws {
    var loaded = Sample.loaded
    loaded.membership = Membership([1, 2, 3].map { .init(raftID: RaftID($0), node: nil, address: "m\($0):1", role: .voter) })
    var member = try Sample.member(loaded)
    _ = member.begin()
    let append = Message.Append(previousIndex: 9, previousTerm: 2, commit: 9, entries: [])
    let message = Message(from: RaftID(4), to: RaftID(1), term: 2, body: .append(append))
    func told(_ outputs: [ReplicaCore.Output]) -> [RaftPeer] {
      outputs.compactMap { if case .send(_, let peer) = $0 { peer } else { nil } }
    }
    var outputs = member.step(.message(message))
    while let write = outputs.writes.first { outputs = member.step(.written(write.number, failure: nil)) }
    #expect(told(outputs).isEmpty)
    let leader = RaftPeer(id: RaftID(4), address: "m4:1")
    #expect(told(member.step([.contact(leader), .message(message)])) == [leader])
  }

  @Test("a removed member votes for others until it has heard of nobody for three election timeouts, or is told")
  func removedMemberStays() throws {
    func ended(_ outputs: [ReplicaCore.Output]) -> Bool { outputs.contains { if case .ended(.removed) = $0 { true } else { false } } }
    for isTold in [true, false] {
      var loaded = Sample.loaded
      loaded.membership = Membership([1, 2, 3].map { .init(raftID: RaftID($0), node: nil, address: "m\($0):1", role: .voter) })
      var member = try Sample.member(loaded)
      /// With everything that follows once its writes are durable.
      func step(_ input: ReplicaCore.Input) -> [ReplicaCore.Output] {
        var outputs = member.step(input)
        var all = outputs
        while let write = outputs.writes.first {
          outputs = member.step(.written(write.number, failure: nil))
          all += outputs
        }
        return all
      }
      _ = member.begin()
      let removal = Entry(term: 2, index: 2, kind: .configuration, data: ConfigurationChange([.remove(RaftID(1))]).encoded)
      let append = Message.Append(previousIndex: 1, previousTerm: 1, commit: 2, entries: [removal])
      #expect(!ended(step(.message(Message(from: RaftID(2), to: RaftID(1), term: 2, body: .append(append))))))
      #expect(member.membership.members[RaftID(1)]?.role == .removed)
      for _ in 0..<29 { #expect(!ended(step(.tick))) }
      let vote = Message.VoteRequest(lastIndex: 2, lastTerm: 2, isTransfer: true)
      let answer = step(.message(Message(from: RaftID(3), to: RaftID(1), term: 3, body: .vote(vote))))
      #expect(answer.contains { if case .send(let messages, _) = $0 { messages.contains { $0.body == .voteResponse(.granted) } } else { false } })
      if isTold {
        #expect(ended(step(.removed)))
      } else {
        for _ in 0..<29 { #expect(!ended(step(.tick))) }
        #expect(ended(step(.tick)))
      }
    }
  }

  @Test("a manager that has not answered since the election is not counted when another one is to be removed")
  func removalAfterElection() throws {
    var loaded = Sample.loaded
    loaded.membership = Membership([1, 2, 3].map { .init(raftID: RaftID($0), node: nil, address: "m\($0):1", role: .voter) })
    var member = try Sample.member(loaded)
    func step(_ input: ReplicaCore.Input) -> [ReplicaCore.Output] {
      var outputs = member.step(input)
      var all = outputs
      while let write = outputs.writes.first {
        outputs = member.step(.written(write.number, failure: nil))
        all += outputs
      }
      return all
    }
    func hear(_ body: Message.Body, from sender: UInt64) -> [ReplicaCore.Output] {
      step(.message(Message(from: RaftID(sender), to: RaftID(1), term: 2, body: body)))
    }
    func remove(_ request: RequestID) -> String? {
      for case .answer(request, .failed(.membership(let reason))) in step(
        .changeMembers(ConfigurationChange([.remove(RaftID(2))]), force: false, request))
      { return reason }
      return nil
    }
    _ = member.begin()
    _ = step(.campaign)
    _ = hear(.preVoteResponse(.granted), from: 2)
    _ = hear(.voteResponse(.granted), from: 2)
    _ = hear(.appended(upTo: 2), from: 2)
    #expect(member.view.leadership == .leader(term: 2))
    #expect(remove(1)?.hasPrefix("without its vote only 1 of 2 managers would be reachable") == true)
    _ = hear(.appended(upTo: 2), from: 3)
    #expect(remove(2) == nil)
  }

  @Test("a manager that has not answered since the election gets no vote that the rest could not do without")
  func voteAfterElection() throws {
    var loaded = Sample.loaded
    loaded.membership = Membership([
      .init(raftID: RaftID(1), node: nil, address: "m1:1", role: .voter), .init(raftID: RaftID(2), node: nil, address: "m2:1", role: .learner),
    ])
    var member = try Sample.member(loaded)
    var all = member.begin()
    func step(_ input: ReplicaCore.Input) {
      var outputs = member.step(input)
      all = outputs
      while let write = outputs.writes.first {
        outputs = member.step(.written(write.number, failure: nil))
        all += outputs
      }
    }
    for write in all.writes { step(.written(write.number, failure: nil)) }
    #expect(member.view.leadership == .leader(term: 2))
    func promote(_ request: RequestID) -> String? {
      step(.changeMembers(ConfigurationChange([.addVoter(RaftID(2))]), force: false, request))
      for case .answer(request, .failed(.membership(let reason))) in all { return reason }
      return nil
    }
    #expect(promote(1)?.hasPrefix("with its vote only 1 of 2 managers would be reachable") == true)
    step(.message(Message(from: RaftID(2), to: RaftID(1), term: 2, body: .appended(upTo: 2))))
    #expect(promote(2) == nil && member.membership.members[RaftID(2)]?.role == .voter)
  }

  @Test("entries after a snapshot wait for the one that it is sent to, unless the log becomes too large")
  func snapshotUnderLoad() throws {
    for bytesMax in [256 << 20, 4_000] {
      var loaded = Sample.loaded
      loaded.membership = Membership([1, 2, 3].map { .init(raftID: RaftID($0), node: nil, address: "m\($0):1", role: .voter) })
      var member = try Sample.member(loaded) {
        $0.snapshotEvery = 20; $0.keptEntries = 5; $0.logBytesMax = bytesMax
      }
      var snapshots: [UInt64] = []
      var sent: [Message] = []
      func step(_ input: ReplicaCore.Input) {
        var outputs = member.step(input)
        while true {
          for case .sendSnapshot(let snapshot, _) in outputs { snapshots.append(snapshot.state.index) }
          for case .send(let messages, _) in outputs { sent += messages }
          guard let write = outputs.writes.first else { return }
          outputs = member.step(.written(write.number, failure: nil))
        }
      }
      func hear(_ body: Message.Body, from sender: UInt64) { step(.message(Message(from: RaftID(sender), to: RaftID(1), term: 2, body: body))) }
      /// So many changes; the second member has all of them.
      func change(_ count: Int) {
        for _ in 0..<count {
          step(.propose(Sample.volume("a"), 0))
          hear(.appended(upTo: member.status.lastIndex), from: 2)
        }
      }
      for write in member.begin().writes { step(.written(write.number, failure: nil)) }
      step(.campaign)
      hear(.preVoteResponse(.granted), from: 2)
      hear(.voteResponse(.granted), from: 2)
      hear(.appended(upTo: 2), from: 2)
      // Just elected, it takes everybody for active.
      for _ in 0..<40 {
        step(.tick)
        change(5)
      }
      #expect(member.compacted.index > 100 && snapshots.isEmpty)
      // The third one has nothing.
      hear(.appendRejected(.init(index: 1, hintIndex: 0, hintTerm: 0)), from: 3)
      #expect(snapshots.count == 1)
      let snapshot = try #require(snapshots.first)
      change(200)
      if bytesMax == 4_000 {
        #expect(member.compacted.index > snapshot)
        continue
      }
      #expect(member.compacted.index <= snapshot)
      step(.snapshotSent(RaftID(3), succeeded: true))
      change(100)
      #expect(member.compacted.index <= snapshot)
      sent = []
      hear(.appended(upTo: snapshot), from: 3)
      let next = sent.compactMap { if $0.to == RaftID(3), case .append(let append) = $0.body { append.previousIndex } else { nil } }.first
      #expect(next == snapshot && snapshots.count == 1)
      hear(.appended(upTo: member.status.lastIndex), from: 3)
      change(30)
      #expect(member.compacted.index > snapshot)
    }
  }

  @Test("how far the log is committed goes to the disk with a change of the members: a restart is never two configurations back")
  func commitWithConfiguration() throws {
    var loaded = Sample.loaded
    loaded.membership = Membership([1, 2, 3].map { .init(raftID: RaftID($0), node: nil, address: "m\($0):1", role: .voter) })
    var member = try Sample.member(loaded)
    func hear(commit: UInt64, _ entries: [Entry]) -> [(batch: WriteBatch, number: UInt64)] {
      let append = Message.Append(previousIndex: 1, previousTerm: 1, commit: commit, entries: entries)
      return member.step(.message(Message(from: RaftID(2), to: RaftID(1), term: 2, body: .append(append)))).writes
    }
    _ = member.begin()
    // The term is durable before, and no tick passes.
    for write in hear(commit: 1, []) { _ = member.step(.written(write.number, failure: nil)) }
    let entries = [4, 5].map { Entry(term: 2, index: $0 - 2, kind: .configuration, data: ConfigurationChange([.addVoter(RaftID($0))]).encoded) }
    let writes = hear(commit: 2, entries)
    #expect(writes.count == 1 && writes.first?.batch.entries.count == 2)
    #expect(writes.first?.batch.hardState?.committed == 2)
  }

  @Test("whoever asks in the very moment of the failure is told, too")
  func failedWriteAmongRequests() throws {
    var member = try Sample.leader()
    let write = member.step(.propose(Sample.volume("a"), 1)).writes[0]
    let end = member.step([
      .propose(Sample.volume("b"), 2), .read(3), .written(write.number, failure: .io(operation: "fsync", cause: "5")), .status(4),
      .transfer(RaftID(2), 5), .propose(Sample.volume("c"), 6),
    ])
    let told = end.compactMap { if case .answer(let request, .failed) = $0 { request } else { nil } }
    #expect(told == [1, 2, 3, 4, 5, 6])
  }
}

extension [ReplicaCore.Output] {
  var writes: [(batch: WriteBatch, number: UInt64)] {
    compactMap { if case .write(let batch, let number) = $0 { (batch, number) } else { nil } }
  }
  /// Requests that were answered well.
  var answers: [RequestID] {
    compactMap { if case .answer(let id, .applied) = $0 { id } else { nil } }
  }
  var done: [RequestID] {
    compactMap { if case .answer(let id, .done) = $0 { id } else { nil } }
  }
  var hasLeader: Bool {
    contains { if case .publish(let view, _, _) = $0 { view.leadership.isLeader } else { false } }
  }
}

enum Sample {
  struct NoLog: ReplicaLog {
    func entries(first: UInt64, last: UInt64, maxBytes: Int) throws(StoreError) -> [StoredEntry] { [] }
  }
  /// A command is the name of a volume.
  static let decoder = ReplicaDecoder(
    command: { Command(actions: [.putVolume(Volume(name: String(decoding: $0, as: UTF8.self), createdAt: .zero))]) }, member: { _ in nil })

  static func volume(_ name: String) -> [UInt8] { Array(name.utf8) }

  static var loaded: LoadedState {
    var state = ClusterState()
    state.skip(to: 1)
    return LoadedState(
      raftID: RaftID(1), hardState: StoredHardState(term: 1, vote: nil, committed: 1),
      membership: Membership([.init(raftID: RaftID(1), node: nil, address: "a:1", role: .voter)]),
      compacted: SnapshotPoint(index: 1, term: 1), state: state)
  }

  static func member(_ loaded: LoadedState = loaded, _ change: (inout ReplicaConfig) -> Void = { _ in }) throws -> ReplicaCore {
    var config = ReplicaConfig(raft: RaftConfig(id: RaftID(1), seed: 1))
    change(&config)
    return try ReplicaCore(config: config, loaded: loaded, reader: NoLog(), decoder: decoder)
  }

  static func leader(_ change: (inout ReplicaConfig) -> Void = { _ in }) throws -> ReplicaCore {
    var member = try member(loaded, change)
    var outputs = member.begin()
    while let write = outputs.writes.first { outputs = member.step(.written(write.number, failure: nil)) }
    return member
  }
}
