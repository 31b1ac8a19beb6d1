import Consensus
import Glibc
import Logging
import Model
import Raft
import Store
import Synchronization

/// One manager with a very large state.
enum StateBench {
  static func database(_ folder: String) -> String { "\(folder)/manager.db" }

  static func make(_ folder: String, tasks: Int) throws {
    let state = World.state(tasks: tasks)
    report("objects", state.objectCount)
    var batch = WriteBatch()
    batch.raftID = RaftID(1)
    batch.hardState = StoredHardState(term: 1, vote: nil, committed: 1)
    batch.snapshot = .init(point: SnapshotPoint(index: 1, term: 1), state: state)
    batch.membership = Membership([.init(raftID: RaftID(1), node: NodeID(value: 1), address: "127.0.0.1:1", role: .voter)])
    do {
      let store = try Store(path: database(folder))
      report("install s", try seconds { try store.write(batch) })
    }
    // Closing has copied the write-ahead log into it.
    var status = stat()
    stat(database(folder), &status)
    report("database MiB", Double(status.st_size) / 1_048_576)
  }

  static func load(_ folder: String) throws {
    let before = memory("VmRSS")
    var loaded: LoadedState?
    report("load s", try seconds { loaded = try Store(path: database(folder)).load() })
    report("load peak MiB", memory("VmHWM"))
    report("load RSS MiB", memory("VmRSS"))
    report("before load MiB", before)
    report("tasks", loaded!.state.tasks.count)
  }

  /// A member alone, so that nothing but its disk and its own work makes a writer wait.
  static func snapshot(_ folder: String) async throws {
    let consensus = Consensus(
      configuration: ConsensusConfiguration(path: database(folder)), transport: NoPeers(),
      log: Logger(label: "bench") { _ in SwiftLogNoOpLogHandler() })
    let began = ContinuousClock.now
    try await consensus.start()
    for await leadership in consensus.leadership() where leadership.isLeader { break }
    report("start to leading s", began.duration(to: .now) / .seconds(1))
    report("manager RSS MiB", memory("VmRSS"))

    _ = try await write(consensus, until: .now + .seconds(1))
    let quiet = try await write(consensus, until: .now + .seconds(5))
    report("quiet: writes", quiet.count)
    report("quiet: p50 ms", quiet.quantile(0.5) * 1e3)
    report("quiet: p99 ms", quiet.quantile(0.99) * 1e3)
    report("quiet: worst ms", quiet.last! * 1e3)

    let state = consensus.snapshot
    let done = Atomic<Bool>(false)
    async let taking = Task.detached {
      var bytes = 0
      let took = ContinuousClock().measure { for chunk in SnapshotWriter(state) { for action in chunk { bytes += action.count } } }
      done.store(true, ordering: .relaxed)
      return (took / .seconds(1), bytes)
    }.value
    var during: [Double] = []
    while !done.load(ordering: .relaxed) { during += try await write(consensus, until: .now + .milliseconds(100)) }
    during.sort()
    let (took, bytes) = await taking
    report("snapshot s", took)
    report("snapshot MiB", Double(bytes) / 1_048_576)
    report("during: writes", during.count)
    report("during: p50 ms", during.quantile(0.5) * 1e3)
    report("during: p99 ms", during.quantile(0.99) * 1e3)
    report("during: worst ms", during.last! * 1e3)
    report("manager RSS afterwards MiB", memory("VmRSS"))
    report("manager peak MiB", memory("VmHWM"))
    await consensus.stop(handOver: false)
  }

  /// One client that tells of tasks, one after the other, as reports of agents do; the seconds that each took, ascending.
  private static func write(_ consensus: Consensus, until end: ContinuousClock.Instant) async throws -> [Double] {
    var times: [Double] = []
    var number = Int.random(in: 0..<1_000_000)
    while ContinuousClock.now < end {
      number = (number + 7919) % 1_000_000
      let id = TaskID(value: World.mixed(number, 4))
      let now = ContinuousClock.now
      let status = TaskStatus(
        state: .running, timestamp: Timestamp(nanoseconds: Int64.random(in: 0..<Int64.max)), message: "started", containerID: id.description, pid: 1)
      try await consensus.propose(Command(actions: [.taskStatus(id, status)]))
      times.append(now.duration(to: .now) / .seconds(1))
    }
    return times.sorted()
  }

  private struct NoPeers: RaftTransport {
    func send(_ messages: [Message], to peer: RaftPeer) {}
    func send(_ snapshot: OutgoingSnapshot, to peer: RaftPeer, completion: @escaping @Sendable (Bool) -> Void) { completion(false) }
    func peersChanged(_ peers: [RaftPeer]) {}
  }
}
