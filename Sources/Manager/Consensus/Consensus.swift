// Consensus: the shell around Replica and Store. One thread owns the replica, another the database: what waits in the mailbox is taken
// together, appended together and made durable by one fsync (group commit), beside which the appends travel to the followers.
//
// Invariants:
// - Nothing is acknowledged before a majority has it durably and this member has applied it.
// - A change that is answered with `notLeader`, `busy` or `refused` was not made; `unknownOutcome` says that nobody knows.
// - A watcher gets every change or a `.resync`.
// - When the disk fails, the member is given up: it never goes on as if a write had worked. When the disk works again, another is made
//   from what it really holds, as after a restart.
//
// It refuses to know what a command means (Model applies it), how bytes travel (RaftTransport), and who may call it.
import Glibc
import Logging
import Model
import Raft
@_exported import Replica
import Store
import Synchronization
import Wire

/// One manager's member of the Raft group.
public final class Consensus: Sendable {
  public let configuration: ConsensusConfiguration
  private let transport: any RaftTransport
  private let log: Logger
  private let mailbox = Mailbox<ReplicaDriver.Event>()
  /// For whoever reads the database's rows.
  let gate = RowGate()
  private let shared: Mutex<Shared>

  private struct Shared {
    enum Phase { case idle, starting, running, ended(ConsensusError) }
    var phase = Phase.idle
    var view = ReplicaCore.View()
    var id: RaftID?
    var watchers: [Watcher] = []
    var leaderships: [UInt64: AsyncStream<Leadership>.Continuation] = [:]
    var nextKey: UInt64 = 0
    var ends: [CheckedContinuation<Void, any Error>] = []
  }

  public init(configuration: ConsensusConfiguration, transport: any RaftTransport, log: Logger) {
    self.configuration = configuration
    self.transport = transport
    self.log = log
    shared = Mutex(Shared())
  }

  // MARK: - Life

  /// Loads the database on a thread of its own and begins to take part. Returns once the state is there.
  public func start() async throws {
    let first = shared.withLock { shared in
      guard case .idle = shared.phase else { return false }
      shared.phase = .starting
      return true
    }
    guard first else { throw ConsensusError.stopped }
    try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
      startThread("raft") { [self] in
        let driver = ReplicaDriver(
          configuration: configuration, gate: gate, transport: transport, mailbox: mailbox, log: log, publish: { self.publish($0, $1, $2) })
        let reason = driver.run { result in
          if case .success(let id) = result {
            shared.withLock { shared in
              shared.id = id
              shared.phase = .running
            }
          }
          continuation.resume(with: result.map { _ in }.mapError { $0 as any Error })
        }
        end(reason)
      }
    }
  }

  /// Returns after `stop` or the task's cancellation; throws what ended it otherwise. Starts it if nobody has.
  public func run() async throws {
    if shared.withLock({ if case .idle = $0.phase { true } else { false } }) { try await start() }
    try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
        let ended = shared.withLock { shared -> ConsensusError? in
          if case .ended(let error) = shared.phase { return error }
          shared.ends.append(continuation)
          return nil
        }
        if let ended { Self.resume(continuation, ended) }
      }
    } onCancel: {
      _ = mailbox.put(.input(.stop))
    }
  }

  /// What was applied is written, the database closed; returns then. A leader first hands over to another (at most a second), so that
  /// a planned stop costs the cluster no election timeout.
  public func stop(handOver: Bool = true) async {
    if handOver { await self.handOver() }
    _ = mailbox.put(.input(.stop))
    try? await run()
  }

  /// A leader makes the voter that has most stand for election, and waits until another leads (at most a second). The other, nil when
  /// there was nothing to hand over or nobody to take it.
  @discardableResult
  public func handOver() async -> Membership.Member? {
    guard isLeader, let members = try? await status().members else { return nil }
    let heirs = members.filter { $0.member.role == .voter && $0.member.raftID != id && $0.isReachable == true }
    guard let heir = heirs.max(by: { ($0.match ?? 0) < ($1.match ?? 0) })?.member else { return nil }
    guard (try? await transferLeadership(to: heir.raftID)) != nil else { return nil }
    await withTaskGroup(of: Void.self) { tasks in
      tasks.addTask { for await now in self.leadership() where !now.isLeader { return } }
      tasks.addTask { try? await Task.sleep(for: .seconds(1)) }
      await tasks.next()
      tasks.cancelAll()
    }
    return isLeader ? nil : heir
  }

  // MARK: - Changing

  /// Returns once the command is applied here, after a majority has it durably. Only the leader takes it.
  @discardableResult
  public func propose(_ command: Command) async throws -> (index: UInt64, changes: [StateChange]) {
    let data = try command.serialized()
    guard data.count <= configuration.commandBytesMax else { throw ConsensusError.tooLarge(bytes: data.count, bound: configuration.commandBytesMax) }
    return try await ask(bytes: data.count + 64) {
      .propose(data, $0)
    } answer: {
      if case .applied(let index, let changes) = $0 { (index, changes) } else { nil }
    }
  }

  /// Adds a learner; the leader makes it a voter as soon as it has caught up. Returns when the addition is applied. Only the leader
  /// takes it; adding the same member again is harmless and may change its address.
  public func addMember(_ id: RaftID, node: NodeID, address: String) async throws {
    if membership.members[id]?.role == .voter, membership.members[id]?.address == address { return }
    let member = Membership.Member(raftID: id, node: node, address: address, role: .learner)
    let context: [UInt8] = try WireRaftMember(member).serializedBytes()
    // A voter that moved stays a voter.
    let change: ConfigurationChange.Change = membership.members[id]?.role == .voter ? .addVoter(id) : .addLearner(id)
    try await changeMembers(ConfigurationChange([change], context: context), force: false)
  }

  /// Its id can never come back. Refused when too few of the rest would be reachable, unless forced. Only the leader takes it.
  public func removeMember(_ id: RaftID, force: Bool = false) async throws {
    try await changeMembers(ConfigurationChange([.remove(id)]), force: force)
  }

  /// Gives a member a vote, or takes it: it stays as a learner, with a copy of the state. Refused as a removal is. Only the leader takes it.
  /// The leader promotes learners by itself, but for those whose node is a worker by its spec: set that first.
  public func setVote(_ id: RaftID, _ votes: Bool, force: Bool = false) async throws {
    try await changeMembers(ConfigurationChange([votes ? .addVoter(id) : .addLearner(id)]), force: force)
  }

  private func changeMembers(_ change: ConfigurationChange, force: Bool) async throws {
    _ = try await ask {
      .changeMembers(change, force: force, $0)
    } answer: {
      if case .applied(let index, _) = $0 { index } else { nil }
    }
  }

  /// Asks the other to stand for election at once; leadership has changed when `leadership` says so.
  public func transferLeadership(to target: RaftID) async throws {
    try await ask {
      .transfer(target, $0)
    } answer: {
      if case .done = $0 { () } else { nil }
    }
  }

  /// An id that no member has or had.
  public func newRaftID() -> RaftID {
    let members = membership.members
    while true {
      let id = RaftID(UInt64.random(in: 1...UInt64(Int64.max)))
      if members[id] == nil { return id }
    }
  }

  // MARK: - Reading

  /// Of this member; nil before `start`.
  public var id: RaftID? { shared.withLock { $0.id } }
  /// The applied state, perhaps a little old. Cheap.
  public var snapshot: ClusterState { shared.withLock { $0.view.state } }
  /// This member's own, as the others know it.
  var address: String { shared.withLock { shared in shared.id.flatMap { shared.view.membership.address(of: $0) } ?? "" } }
  public var membership: Membership { shared.withLock { $0.view.membership } }
  public var leader: RaftPeer? { shared.withLock { $0.view.leader } }
  /// Why this member takes no part now; nil as long as its disk works.
  public var diskFailure: StoreError? { shared.withLock { $0.view.diskFailure } }
  /// No other manager has a vote: what this one applied is all there is.
  public var isAlone: Bool { shared.withLock { $0.view.membership.ids(.voter) == [$0.id] } }
  var view: ReplicaCore.View { shared.withLock { $0.view } }
  public var isLeader: Bool { shared.withLock { $0.view.leadership.isLeader } }

  /// A state that holds everything acknowledged anywhere before the call. Also on followers, which ask the leader.
  public func linearizableState() async throws -> ClusterState {
    try await ask {
      .read($0)
    } answer: {
      if case .state(let state) = $0 { state } else { nil }
    }
  }

  /// Returns when the database's tables hold all that was applied here before the call: they follow the log.
  public func flush() async throws {
    try await ask {
      .flush($0)
    } answer: {
      if case .done = $0 { () } else { nil }
    }
  }

  public func status() async throws -> ConsensusStatus {
    try await ask {
      .status($0)
    } answer: {
      if case .status(let status) = $0 { status } else { nil }
    }
  }

  /// First a `.resync` with the state of now. For one reader.
  public func changes() -> AsyncStream<ChangeEvent> {
    let watcher = Watcher(bound: configuration.watcherBatchesMax) { [weak self] in self?.snapshot ?? ClusterState() }
    shared.withLock { shared in
      if case .ended = shared.phase { watcher.finish() }
      shared.watchers.removeAll { $0.isFinished }
      shared.watchers.append(watcher)
    }
    let reader = Watcher.Reader(watcher)
    return AsyncStream {
      await reader.watcher.next()
    } onCancel: {
      watcher.finish()
    }
  }

  /// What is applied after this has returned; ends where something was left out. One element for each demand: what a slow reader has not
  /// taken waits in the watcher's bounded queue. For one reader.
  public func changesFromNow() async -> AsyncStream<ChangeBatch> {
    // An AsyncStream is read by one task: this with it.
    nonisolated(unsafe) var events = changes().makeAsyncIterator()
    // The state, from which on changes are queued.
    _ = await events.next()
    return AsyncStream { if case .changes(let batch)? = await events.next() { batch } else { nil } }
  }

  /// For tests.
  var watcherCount: Int { shared.withLock { $0.watchers.count { !$0.isFinished } } }

  /// First what is now. Only the newest waits for a slow reader.
  public func leadership() -> AsyncStream<Leadership> {
    let (stream, continuation) = AsyncStream.makeStream(of: Leadership.self, bufferingPolicy: .bufferingNewest(1))
    shared.withLock { shared in
      if case .ended = shared.phase { return continuation.finish() }
      let key = shared.nextKey
      shared.nextKey += 1
      shared.leaderships[key] = continuation
      continuation.onTermination = { [weak self] _ in _ = self?.forget(key) }
      continuation.yield(shared.view.leadership)
    }
    return stream
  }

  private func forget(_ key: UInt64) { shared.withLock { $0.leaderships[key] = nil } }

  // MARK: - From the transport

  /// - Parameter address: the sender's own, where it says it.
  public func receive(_ messages: [Message], address: String = "") {
    if !address.isEmpty, let sender = messages.first?.from, membership.members[sender] == nil {
      _ = mailbox.put(.input(.contact(RaftPeer(id: sender, address: address))))
    }
    // Beyond the bound they are lost, as on any network.
    _ = mailbox.put(messages.map { (.input(.message($0)), $0.byteCount) }, bound: 2 * configuration.waitingBytesMax, as: .message)
  }

  public func receive(_ snapshot: IncomingSnapshot) { _ = mailbox.put(.input(.snapshot(snapshot))) }
  /// Another member says that this one was removed.
  public func reportRemoved() { _ = mailbox.put(.input(.removed)) }
  public func reportUnreachable(_ peer: RaftID) { _ = mailbox.put(.input(.unreachable(peer))) }

  // MARK: - The thread

  private func ask<Value: Sendable>(
    bytes: Int = 64, _ input: @escaping @Sendable (RequestID) -> ReplicaCore.Input,
    answer: @escaping @Sendable (ReplicaCore.Answer) -> Value?
  ) async throws -> Value {
    try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Value, any Error>) in
      let question = ReplicaDriver.Question(input: input) { given in
        if case .failed(let error) = given { return continuation.resume(throwing: error) }
        guard let value = answer(given) else { preconditionFailure("a question was answered with \(given)") }
        continuation.resume(returning: value)
      }
      switch mailbox.put([(.ask(question), bytes)], bound: configuration.waitingBytesMax, as: .ask) {
      case .accepted: break
      case .full: continuation.resume(throwing: ConsensusError.busy("\(configuration.waitingBytesMax) bytes of changes and questions wait already"))
      case .closed: continuation.resume(throwing: endReason)
      }
    }
  }

  private var endReason: ConsensusError {
    shared.withLock { if case .ended(let error) = $0.phase { error } else { .stopped } }
  }

  private func publish(_ view: ReplicaCore.View, _ batch: ChangeBatch?, _ resync: Bool) {
    let (watchers, leaderships) = shared.withLock { shared in
      let changed = shared.view.leadership != view.leadership
      shared.view = view
      return (shared.watchers, changed ? Array(shared.leaderships.values) : [])
    }
    for watcher in watchers {
      if resync { watcher.resync() } else if let batch { watcher.offer(batch) }
    }
    for continuation in leaderships { continuation.yield(view.leadership) }
  }

  private func end(_ reason: ConsensusError) {
    let (watchers, leaderships, ends) = shared.withLock { shared in
      defer { (shared.watchers, shared.leaderships, shared.ends) = ([], [:], []) }
      shared.phase = .ended(reason)
      shared.view.leadership = .follower(leader: nil)
      shared.view.leader = nil
      return (shared.watchers, shared.leaderships, shared.ends)
    }
    _ = mailbox.close()
    for watcher in watchers { watcher.finish() }
    for continuation in leaderships.values {
      continuation.yield(.follower(leader: nil))
      continuation.finish()
    }
    for continuation in ends { Self.resume(continuation, reason) }
  }

  private static func resume(_ continuation: CheckedContinuation<Void, any Error>, _ reason: ConsensusError) {
    if case .stopped = reason { continuation.resume() } else { continuation.resume(throwing: reason) }
  }
}

extension Message {
  /// About what it weighs in a queue.
  var byteCount: Int {
    if case .append(let append) = body { return append.entries.reduce(64) { $0 + $1.byteCount } }
    return 64
  }
}
