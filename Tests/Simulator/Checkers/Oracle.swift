import Model
import Raft
import Replica

/// What was committed, once and for all, and a state of its own to which it applies that. Every manager is measured against it.
struct Oracle {
  struct Committed {
    var entry: StoredEntry
    var changes: [StateChange]
    var state: ClusterState
  }
  private(set) var state = ClusterState()
  private var first: UInt64 = 0
  private(set) var log: [Committed] = []

  /// Of every entry ever written anywhere: what it holds, and the term of the one before it.
  private var written: [EntryKey: (data: Int, previous: UInt64)] = [:]
  private struct EntryKey: Hashable {
    var index: UInt64
    var term: UInt64
  }
  private var leaders: [UInt64: RaftID] = [:]
  /// At each applied index, as the first has them that was there.
  private var memberships: [UInt64: Membership] = [:]
  private(set) var tasks = TaskChecker()

  var lastIndex: UInt64 { first + UInt64(log.count) - 1 }
  func committed(_ index: UInt64) -> Committed? { index >= first && index <= lastIndex ? log[Int(index - first)] : nil }

  mutating func begin(_ state: ClusterState) {
    self.state = state
    first = state.index + 1
  }

  // MARK: - Raft

  mutating func leads(_ id: RaftID, _ term: UInt64) throws {
    if let other = leaders[term], other != id { throw Violation(checker: "election safety", what: "\(other) and \(id) both lead term \(term)") }
    leaders[term] = id
  }

  /// Entries on their way to a disk: equal index and term, equal entry and equal past (log matching).
  mutating func check(entries: [StoredEntry], of host: ManagerHost) throws {
    guard let head = entries.first else { return }
    var previous = host.disk.entry(head.index - 1)?.term ?? (head.index - 1 == host.disk.compacted.index ? host.disk.compacted.term : nil)
    for entry in entries {
      let key = EntryKey(index: entry.index, term: entry.term)
      if let known = written[key] {
        guard known.data == entry.hashValue else {
          throw Violation(checker: "log matching", what: "\(host.address) has another entry \(entry.index) of term \(entry.term)")
        }
        if let previous, previous != known.previous {
          throw Violation(
            checker: "log matching",
            what: "before entry \(entry.index) of term \(entry.term) \(host.address) has term \(previous), others \(known.previous)")
        }
      } else if let previous {
        written[key] = (entry.hashValue, previous)
      }
      if let known = committed(entry.index), known.entry.term != entry.term, entry.index <= host.appliedSeen {
        throw Violation(checker: "durability", what: "\(host.address) overwrites its applied entry \(entry.index)")
      }
      previous = entry.term
    }
  }

  /// What a manager finds on its disk when it starts is what somebody wrote there, and in the order in which it was written.
  func check(logOf host: ManagerHost) throws {
    var previous = host.disk.compacted.term
    for row in host.disk.log {
      let (entry, before) = (row.entry, previous)
      previous = entry.term
      guard let known = written[EntryKey(index: entry.index, term: entry.term)], before > 0, known.previous != before else { continue }
      throw Violation(
        checker: "log matching",
        what: "on \(host.address)'s disk term \(before) lies before entry \(entry.index) of term \(entry.term), elsewhere \(known.previous)")
    }
  }

  /// The next committed entry, as the first manager that applied it has it. Answers whether it is news.
  mutating func commit(_ entry: StoredEntry, by host: String, _ decode: (StoredEntry) throws -> Command?) throws -> Bool {
    if let known = committed(entry.index) {
      guard known.entry == entry else {
        throw Violation(
          checker: "state machine safety",
          what: "\(host) applies entry \(entry.index) of term \(entry.term), another one of term \(known.entry.term)")
      }
      return false
    }
    guard entry.index == lastIndex + 1 else {
      throw Violation(checker: "state machine safety", what: "\(host) applies \(entry.index), the last before was \(lastIndex)")
    }
    var changes: [StateChange] = []
    if let command = try decode(entry) {
      if case .success(let made) = state.apply(command, at: entry.index) { changes = made }
    } else {
      state.skip(to: entry.index)
    }
    log.append(Committed(entry: entry, changes: changes, state: state))
    try tasks.check(changes, state)
    return true
  }

  // MARK: - State

  /// What a manager says that its applied entries changed.
  func check(_ changes: [StateChange], from before: UInt64, to after: UInt64, of host: String) throws {
    var expected: [StateChange] = []
    if before < after { for index in before + 1...after { expected += committed(index)?.changes ?? [] } }
    guard changes == expected else {
      throw Violation(
        checker: "state machine safety", what: "\(host) changed other things with entries \(before + 1) to \(after) than the first that applied them")
    }
  }

  /// The whole state.
  func check(_ state: ClusterState, of host: String, _ when: String) throws {
    guard state.index >= first else { return }
    guard let known = committed(state.index) else {
      throw Violation(
        checker: "state machine safety", what: "\(host) has a state at \(state.index) \(when), but \(lastIndex) was the last that was committed")
    }
    guard let difference = known.state.difference(from: state) else { return }
    throw Violation(checker: "state machine safety", what: "\(host) has other \(difference) at \(state.index) \(when)")
  }

  /// Members follow from the applied entries, as the state does.
  mutating func check(_ membership: Membership, at index: UInt64, of host: String) throws {
    var membership = membership
    // Its own way in, before it has the state.
    membership.members = membership.members.filter { $0.value.role != .contact }
    guard index >= first, let known = memberships.updateValue(membership, forKey: index), known != membership else { return }
    func text(_ membership: Membership) -> String {
      membership.members.values.sorted { $0.raftID < $1.raftID }.map { "\($0.raftID) \($0.role)\($0.isOutgoingVoter ? " (outgoing)" : "")" }.joined(
        separator: ", ")
    }
    throw Violation(
      checker: "membership", what: "\(host) has the members \(text(membership)) at \(index), another had \(text(known))")
  }

  // MARK: - Tasks

  mutating func said(_ report: TaskReport, by node: NodeID) { tasks.said(report, by: node) }
  mutating func started(_ id: TaskID, on node: NodeID) throws { try tasks.started(id, on: node) }
}

extension ClusterState {
  /// The first kind of rows that is not the same.
  func difference(from other: ClusterState) -> String? {
    if cluster != other.cluster { return "cluster" }
    if nodes != other.nodes { return "nodes" }
    if services != other.services { return "services" }
    if revisions != other.revisions { return "revisions" }
    if tasks != other.tasks { return "tasks" }
    if networks != other.networks { return "networks" }
    if volumes != other.volumes { return "volumes" }
    if stacks != other.stacks { return "stacks" }
    if files != other.files { return "files" }
    return nil
  }
}
