import Glibc
import Model
import Raft
import Store
import Wire

/// What is done to the database of a manager that does not run. All of it blocks.
extension Consensus {
  /// A new cluster of this one manager. Its log begins with a snapshot of the state, so that later members always begin with a snapshot,
  /// which tells them who the members are. One transaction: the cluster is made with its first rows or not at all. Blocks; fails when
  /// the database has a cluster already.
  /// - Parameters:
  ///   - actions: what makes the state, or changes `earlier`; applied as the entry after it.
  ///   - earlier: of a backup. Indexes go on from it, since objects carry them as versions.
  ///   - term: over every term that the earlier cluster had.
  public static func bootstrap(
    path: String, raftID: RaftID, node: NodeID, address: String, actions: [Action] = [], from earlier: ClusterState = ClusterState(), term: UInt64 = 1
  ) throws(ConsensusError) {
    var state = earlier
    if case .failure(let refusal) = state.apply(Command(actions: actions), at: earlier.index + 1) { throw .refused(refusal) }
    var batch = WriteBatch()
    batch.raftID = raftID
    batch.hardState = StoredHardState(term: term, vote: nil, committed: state.index)
    batch.snapshot = .init(point: SnapshotPoint(index: state.index, term: term), state: state)
    batch.membership = Membership([.init(raftID: raftID, node: node, address: address, role: .voter)])
    try initialise(path, batch)
  }

  /// A manager that the leader has added, or is about to add (`addMember`): it waits until the leader sends it the state.
  /// `members` are those of the cluster, to know where to answer. Blocks; fails when the database has a cluster already.
  public static func prepareJoin(path: String, raftID: RaftID, members: [Membership.Member]) throws(ConsensusError) {
    var batch = WriteBatch()
    batch.raftID = raftID
    batch.membership = Membership(members.map { .init(raftID: $0.raftID, node: $0.node, address: $0.address, role: .contact) })
    try initialise(path, batch)
  }

  /// The Raft id in a database, nil when it is new. Blocks.
  public static func raftID(path: String) throws(ConsensusError) -> RaftID? {
    guard access(path, F_OK) == 0 else { return nil }
    do throws(StoreError) { return try Store(path: path).load().raftID } catch { throw .storage(error) }
  }

  private static func initialise(_ path: String, _ batch: WriteBatch) throws(ConsensusError) {
    do throws(StoreError) {
      let store = try Store(path: path)
      if let id = try store.load().raftID {
        throw StoreError.cannotOpen(path: path, cause: "it belongs to manager \(id) of a cluster already; use an empty folder")
      }
      try store.write(batch)
    } catch { throw .storage(error) }
  }

  /// After the loss of a majority for good: the manager of this database becomes the only one of the cluster, with everything that its log
  /// holds, also what may not have been committed. It takes a new Raft id, and nobody else is a member: what is left of the old group neither
  /// reaches it nor is reached, and can only join anew. The ids of the managers that are given up.
  public static func forceNewCluster(path: String, node: NodeID, address: String, now: Timestamp) throws(ConsensusError) -> [NodeID] {
    do throws(StoreError) {
      let store = try Store(path: path)
      let loaded = try store.load()
      guard loaded.raftID != nil, loaded.state.cluster != nil else {
        throw .cannotOpen(path: path, cause: "it never received the cluster's state; nothing can be made from it")
      }
      var state = loaded.state
      try apply(loaded.entries, to: &state, path)
      let raftID = RaftID(UInt64.random(in: 1...UInt64(Int64.max)))
      let others = state.nodes.values.filter { $0.id != node && ($0.manager != nil || $0.spec.role == .manager) }
      var actions: [Action] = [.nodeManager(node, ManagerStatus(raftID: raftID, address: address))]
      for other in others {
        var spec = other.spec
        spec.role = .worker
        actions += [.nodeManager(other.id, nil), .nodeSpec(other.id, spec, at: now)]
      }
      let index = state.index + 1
      if case .failure(let refusal) = state.apply(Command(actions: actions), at: index) {
        throw .cannotOpen(path: path, cause: "its state does not know node \(node) (\(refusal))")
      }
      let term = loaded.hardState.term + 1
      var batch = WriteBatch()
      batch.raftID = raftID
      batch.hardState = StoredHardState(term: term, vote: nil, committed: index)
      batch.snapshot = .init(point: SnapshotPoint(index: index, term: term), state: state)
      batch.membership = Membership([.init(raftID: raftID, node: node, address: address, role: .voter)])
      try store.write(batch)
      return others.map(\.id).sorted { "\($0)" < "\($1)" }
    } catch { throw .storage(error) }
  }

  /// All that the log has beyond the state: what was acknowledged by a majority that is lost cannot be told from what was not.
  static func apply(_ entries: [StoredEntry], to state: inout ClusterState, _ path: String) throws(StoreError) {
    for entry in entries where entry.index > state.index {
      guard entry.kind == Entry.Kind.command.rawValue else {
        state.skip(to: entry.index)
        continue
      }
      guard let command = try? Command(serialized: entry.data) else {
        throw .damaged(file: path, table: "raft_log", row: "\(entry.index)", reason: "cannot be read by this version of orch-manager")
      }
      _ = state.apply(command, at: entry.index)
    }
  }

  /// In place of a database that is damaged or lost: one under a new id, which waits for the state. The old file is moved aside; its new
  /// name, nil when there was none. An interruption leaves the old one under one of its names; then ask for this again.
  public static func replaceDatabase(path: String, raftID: RaftID, members: [Membership.Member], now: Timestamp) throws(ConsensusError) -> String? {
    let made = path + ".new"
    for part in ["", "-wal", "-shm", ".lock"] { unlink(made + part) }
    try prepareJoin(path: made, raftID: raftID, members: members)
    unlink(made + ".lock")
    do throws(StoreError) {
      let old = access(path, F_OK) == 0 ? try Store.setAside(path: path, suffix: "damaged-\(now.nanoseconds / 1_000_000_000)") : nil
      guard rename(made, path) == 0 else {
        throw .io(operation: "rename \(made)", cause: "errno \(errno), \(String(cString: strerror(errno)))")
      }
      return old
    } catch { throw .storage(error) }
  }

  /// Throws when a process uses the database.
  public static func requireUnused(path: String) throws(ConsensusError) {
    do throws(StoreError) { try Store.requireUnused(path: path) } catch { throw .storage(error) }
  }

  /// The managers that the database names, damaged as it may be; none when it cannot be read.
  public static func salvageMembers(path: String) -> [Membership.Member] { Store.salvageMembers(path: path) }
}
