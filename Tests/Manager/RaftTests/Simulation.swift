import Model

@testable import Raft

/// A group under loss, delay, reordering, doubles, slow disks and crashes that lose unfinished writes. One seed decides everything.
/// Checked after every step: one leader a term; what one member commits nobody contradicts, ever; every leader holds all that was
/// committed before it (leader completeness); a read sees everything committed before it was asked for. At the end: logs match, and
/// with all faults healed a proposal commits everywhere.
struct Simulation {
  struct Broken: Error, CustomStringConvertible {
    var seed: UInt64
    var step: Int
    var what: String
    var description: String { "seed \(seed), step \(step): \(what)" }
  }

  private let seed: UInt64
  private var random: SplitMix64
  private var step = 0
  private var hosts: [Host] = []
  private var configs: [RaftConfig] = []
  private var isDown: [Bool] = []
  private var network: [Message] = []
  private var cut: Set<Int> = []
  private var leaders: [Term: RaftID] = [:]
  private var seenCommit: [LogIndex] = []
  /// What was ever committed: term and data by index.
  private var history: [Entry] = []
  private var reads: [UInt64: (host: Int, atLeast: LogIndex)] = [:]
  private var nextContext: UInt64 = 0
  private var nextValue: UInt64 = 0
  private(set) var answeredReads = 0
  private(set) var elections = 0
  private(set) var snapshots = 0
  private(set) var configurations = 0
  var committed: Int { history.count }

  private let lossPercent: Int
  private let crashPermille: Int
  private let changesMembers: Bool
  private let mode: ReadMode
  /// Members stand for election although they hear their leader.
  private let forcesElections: Bool

  init(seed: UInt64) {
    self.seed = seed
    random = SplitMix64(seed: seed)
    let size = [1, 3, 3, 3, 5][Int(random.next() % 5)]
    let spare = 2
    lossPercent = [0, 2, 10, 25][Int(random.next() % 4)]
    crashPermille = [0, 2, 8][Int(random.next() % 3)]
    changesMembers = random.next() % 2 == 0
    let checkQuorum = random.next() % 4 != 0
    let drawn = random.next() % 2
    forcesElections = seed % 4 == 0
    mode = checkQuorum && drawn == 0 ? .lease : .quorum
    let preVote = random.next() % 4 != 0
    let voters = (1...size).map { RaftID(UInt64($0)) }
    for position in 0..<size + spare {
      let config = RaftConfig(
        id: RaftID(UInt64(position + 1)), electionTicks: 6, heartbeatTicks: 1, preVote: preVote, checkQuorum: checkQuorum, leaseReads: mode == .lease,
        maxMessageBytes: 120, maxInflightMessages: 1 + Int(random.next() % 6), maxUncommittedBytes: 400, maxCommittedBytes: 200,
        maxCachedBytes: 200, seed: random.next())
      configs.append(config)
      hosts.append(Host(config: config, disk: Disk(confState: position < size ? ConfState(voters: voters) : ConfState())))
    }
    isDown = hosts.map { _ in false }
    seenCommit = hosts.map { _ in 0 }
  }

  private mutating func chance(_ count: Int, of total: Int) -> Bool { Int(random.next() % UInt64(total)) < count }
  private mutating func pick(_ count: Int) -> Int { Int(random.next() % UInt64(count)) }
  private func broken(_ what: String) -> Broken { Broken(seed: seed, step: step, what: what) }

  mutating func run(steps: Int) throws {
    while step < steps {
      step += 1
      try disturb()
    }
    try heal()
  }

  private mutating func disturb() throws {
    // All clocks run alike: leases rely on it.
    if chance(1, of: 8) { for position in hosts.indices where !isDown[position] { hosts[position].core.tick() } }
    let position = pick(hosts.count)
    if isDown[position] {
      if chance(1, of: 20) {
        isDown[position] = false
        seenCommit[position] = 0
      }
    } else if chance(crashPermille, of: 1000) {
      hosts[position].restart(config: configs[position], surviving: pick(hosts[position].writes.count + 1))
      isDown[position] = true
    } else {
      switch pick(12) {
      case 0...4: try process(position)
      case 5...7: if !hosts[position].writes.isEmpty { network += hosts[position].persistNext() }
      case 8...9: try demand(position)
      default: break
      }
    }
    for _ in 0..<3 where !network.isEmpty { try deliver(pick(network.count)) }
    if chance(1, of: 300) { cut = chance(1, of: 2) ? [] : [pick(hosts.count), pick(hosts.count)] }
    for position in hosts.indices where !isDown[position] { try check(position) }
  }

  private mutating func process(_ position: Int) throws {
    try check(position)
    guard hosts[position].core.hasReady else { return }
    let ready = hosts[position].core.ready()
    network += ready.messages
    hosts[position].writes.append(ready)
    if ready.snapshot != nil { snapshots += 1 }
    for entry in ready.committedEntries {
      guard entry.index <= history.count, history[Int(entry.index) - 1] == entry else { throw broken("\(position + 1) applies \(entry)") }
    }
    configurations += hosts[position].apply(ready.committedEntries).count { (try? $0.get()) != nil }
    for read in ready.readStates {
      guard let asked = reads.removeValue(forKey: read.context), asked.host == position else { continue }
      answeredReads += 1
      guard read.index >= asked.atLeast else { throw broken("a read at \(read.index) misses entry \(asked.atLeast), committed before it") }
    }
  }

  /// What clients and administrators ask for.
  private mutating func demand(_ position: Int) throws {
    switch pick(10) {
    case 0...4:
      nextValue += 1
      let values = (0...pick(3)).map { [UInt8](repeating: UInt8(truncatingIfNeeded: nextValue), count: 1 + $0 * 17) }
      _ = try? hosts[position].core.propose(values)
    case 5...6:
      nextContext += 1
      if (try? hosts[position].core.readIndex(context: nextContext, mode: mode)) != nil { reads[nextContext] = (position, LogIndex(history.count)) }
    case 7:
      let applied = hosts[position].reader.disk.applied
      if applied > 3, hosts[position].writes.isEmpty {
        hosts[position].reader.disk.compact(upTo: applied - 2)
        hosts[position].core.compact(upTo: applied - 2)
      }
    case 8:
      if forcesElections, chance(1, of: 4) { hosts[position].core.campaign() }
      if chance(1, of: 4) { try? hosts[position].core.transferLeadership(to: RaftID(UInt64(pick(hosts.count) + 1))) }
    default:
      guard changesMembers else { return }
      if hosts[position].core.confState.isJoint {
        _ = try? hosts[position].core.proposeConfigurationChange(.leaveJoint)
        return
      }
      let changes = (0...pick(2)).map { _ in
        let id = RaftID(UInt64(pick(hosts.count) + 1))
        return [ConfigurationChange.Change.addVoter(id), .addLearner(id), .remove(id), .addVoter(id)][pick(4)]
      }
      _ = try? hosts[position].core.proposeConfigurationChange(
        ConfigurationChange(changes, transition: [.auto, .auto, .jointExplicit, .jointImplicit][pick(4)]))
    }
  }

  private mutating func deliver(_ position: Int) throws {
    let message = chance(3, of: 100) ? network[position] : swapOut(position)
    let (from, to) = (Int(message.from.rawValue) - 1, Int(message.to.rawValue) - 1)
    let isLost = isDown[to] || cut.contains(from) || cut.contains(to) || chance(lossPercent, of: 100)
    if case .snapshot = message.body { hosts[from].core.reportSnapshot(message.to, succeeded: !isLost) }
    if !isLost { try hosts[to].core.step(message) }
  }

  private mutating func swapOut(_ position: Int) -> Message {
    network.swapAt(position, network.count - 1)
    return network.removeLast()
  }

  private mutating func check(_ position: Int) throws {
    let core = hosts[position].core
    if core.role == .leader {
      if let other = leaders[core.term] {
        guard other == core.id else { throw broken("\(other) and \(core.id) both lead term \(core.term)") }
      } else {
        leaders[core.term] = core.id
        elections += 1
        for entry in history where entry.index >= core.firstIndex {
          guard core.log.term(at: entry.index) == entry.term else { throw broken("leader \(core.id) of term \(core.term) lacks \(entry)") }
        }
        guard core.lastIndex >= LogIndex(history.count) else { throw broken("leader \(core.id) of term \(core.term) has a short log") }
      }
    }
    guard core.commitIndex > seenCommit[position] else { return }
    let first = max(seenCommit[position] + 1, core.firstIndex)
    seenCommit[position] = core.commitIndex
    var index = first
    while index <= core.commitIndex {
      let slice = core.log.slice(first: index, last: core.commitIndex, maxBytes: .max)
      guard !slice.isEmpty else { throw broken("\(core.id) cannot read its committed entry \(index)") }
      for entry in slice {
        if entry.index <= history.count {
          guard history[Int(entry.index) - 1] == entry else { throw broken("\(core.id) commits \(entry) against \(history[Int(entry.index) - 1])") }
        } else {
          guard entry.index == history.count + 1 else { throw broken("\(core.id) commits \(entry.index) after \(history.count)") }
          history.append(entry)
        }
      }
      index += LogIndex(slice.count)
    }
  }

  /// Everyone back, no more loss: a leader, a commit everywhere, equal logs.
  private mutating func heal() throws {
    cut = []
    isDown = isDown.map { _ in false }
    var proposed: LogIndex?
    for round in 0..<600 {
      step += 1
      for position in hosts.indices { hosts[position].core.tick() }
      for _ in 0..<6 {
        for position in hosts.indices {
          try process(position)
          while !hosts[position].writes.isEmpty { network += hosts[position].persistNext() }
          try check(position)
        }
        let arriving = network
        network = []
        for message in arriving {
          try hosts[Int(message.to.rawValue) - 1].core.step(message)
          if case .snapshot = message.body { hosts[Int(message.from.rawValue) - 1].core.reportSnapshot(message.to, succeeded: true) }
        }
      }
      guard let leader = hosts.indices.filter({ hosts[$0].core.role == .leader }).max(by: { hosts[$0].core.term < hosts[$1].core.term }) else {
        continue
      }
      if proposed == nil, round > 60 { proposed = try? hosts[leader].core.propose([[1]]).last }
      if let index = proposed, history.count >= Int(index) {
        let members = hosts[leader].core.confState.members
        if members.allSatisfy({ hosts[Int($0.rawValue) - 1].core.appliedIndex >= index }) { return try compareLogs() }
      }
    }
    let state = hosts.map { host in
      "\(host.core.id): \(host.core.role) term=\(host.core.term) last=\(host.core.lastIndex) applied=\(host.core.appliedIndex) "
        + describe(host.core.confState)
    }
    throw broken("no progress though all is healed: " + state.joined(separator: "; "))
  }

  private func compareLogs() throws {
    for (position, a) in hosts.enumerated() {
      for b in hosts[(position + 1)...] {
        let (x, y) = (a.reader.disk, b.reader.disk)
        var index = min(x.lastIndex, y.lastIndex)
        let bottom = max(x.compactedIndex, y.compactedIndex)
        while index > bottom, x.term(at: index) != y.term(at: index) { index -= 1 }
        while index > bottom {
          guard x.entries[Int(index - x.compactedIndex) - 1] == y.entries[Int(index - y.compactedIndex) - 1] else {
            throw broken("logs \(a.core.id) and \(b.core.id) agree later and differ at \(index)")
          }
          index -= 1
        }
      }
    }
  }
}
