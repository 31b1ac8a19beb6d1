import Dispatcher
import Leader
import Model

#if PLANTED
  @testable import Raft
  @testable import Replica
#else
  import Raft
  import Replica
#endif

struct LeaderAnswer {
  var number: ProposalNumber
  var answer: ProposalAnswer
}

/// The shell of a member: its thread, its disk and its messages.
extension World {
  func config(_ host: ManagerHost) -> ReplicaConfig {
    ReplicaConfig(
      raft: RaftConfig(
        id: host.raftID, electionTicks: 10, heartbeatTicks: 2, leaseReads: usesLeases, tellsCommitsLate: scenario.tellsCommitsLate,
        maxMessageBytes: scenario.messageBytesMax,
        maxInflightMessages: fault == .inflightLimitForgotten ? .max : scenario.inflightMessagesMax,
        maxUncommittedBytes: scenario.uncommittedBytesMax, maxCachedBytes: scenario.cachedBytesMax, seed: coreChance.next()),
      snapshotEvery: scenario.snapshotEvery, keptEntries: scenario.keptEntries, rowTicks: scenario.rowTicks, rowsMax: scenario.rowsMax,
      rowsSlice: scenario.rowsSlice, readMode: usesLeases ? .lease : .quorum)
  }

  private var usesLeases: Bool {
    switch fault {
    case .leaseTooLong: !scenario.misfortunes.contains(.pauseManager)
    case .leaseDespitePauses: true
    default: scenario.usesLeases
    }
  }

  func start(_ host: ManagerHost) throws {
    guard !host.isUp, !host.isGone, !host.isDead else { return }
    var loaded: LoadedState
    do throws(StoreError) { loaded = try host.disk.load() } catch {
      tell(host.address, "does not start: \(error)")
      host.isGone = true
      return
    }
    plant(on: &loaded)
    host.life += 1
    host.isUp = true
    do throws(ConsensusError) {
      host.replica = try ReplicaCore(config: config(host), loaded: loaded, reader: host.disk, decoder: commands.decoder)
    } catch {
      host.forget()
      if case .removed = error {
        host.isGone = true
        return
      }
      throw Violation(checker: "start", what: "\(host.address) cannot start: \(error)")
    }
    host.appliedSeen = loaded.state.index
    try oracle.check(logOf: host)
    try oracle.check(loaded.state, of: host.address, "after its start")
    try oracle.check(loaded.membership, at: loaded.state.index, of: host.address)
    tell(host.address, "starts: term \(loaded.hardState.term), log to \(host.disk.lastIndex), applied \(loaded.state.index)")
    after(Time(chance.int(1...scenario.tick)), .tick(host.number, life: host.life))
    try carryOut(host.replica!.begin(), host)
  }

  func crash(_ host: ManagerHost, loses: Bool = true) {
    guard host.isUp else { return }
    figures.crashes += 1
    // The write that was under way: whole or not at all.
    if let (batch, _) = host.write, host.unsynced.isEmpty, !host.disk.isFull, diskChance.chance(permille: 500) { host.disk.write(batch) }
    tell(host.address, "crashes")
    for connection in host.sessions.values.sorted(by: { $0.number < $1.number }) {
      connection.isBroken = true
      let isHeard = !network.isCut(.manager(host.number), .agent(connection.agent))
      after(isHeard ? Time(networkChance.int(200...5_000)) : .milliseconds(networkChance.int(500...4_000)), .lostByAgent(connection))
    }
    host.forget()
  }

  func input(_ input: ReplicaCore.Input, to host: ManagerHost) throws {
    guard host.isUp else { return }
    host.inbox.append(input)
    guard !host.isStepDue else { return }
    host.isStepDue = true
    after(Time(chance.skewed(5...300)), .step(host.number, life: host.life))
  }

  /// What waited is taken together, as the thread does.
  func step(_ host: ManagerHost) throws {
    host.isStepDue = false
    guard host.isUp, host.replica != nil else { return }
    let inputs = host.inbox
    host.inbox = []
    #if PLANTED
      plantBefore(host)
    #endif
    let outputs = host.replica!.step(inputs)
    try carryOut(outputs, host)
  }

  func carryOut(_ outputs: [ReplicaCore.Output], _ host: ManagerHost) throws {
    for output in outputs {
      guard host.isUp else { return }
      switch output {
      case .write(let batch, let number): try begin(batch, number, host)
      case .send(let messages, let peer): try send(messages, from: host, to: peer)
      case .sendSnapshot(let snapshot, let peer): sendSnapshot(snapshot, from: host, to: peer)
      case .publish(let view, let batch, let resync): try published(view, batch, resync, host)
      case .answer(let id, let answer): try answered(id, answer, host)
      case .peersChanged: break
      case .note(let note): try noted(note, host)
      case .ended(let reason): try ended(host, reason)
      }
    }
  }

  private func ended(_ host: ManagerHost, _ reason: ConsensusError) throws {
    tell(host.address, "ends: \(reason)")
    switch reason {
    case .removed:
      crash(host)
      host.isGone = true
    case .storage(let error):
      crash(host)
      if case .damaged = error {
        host.isGone = true
      } else {
        after(.milliseconds(diskChance.int(100...2_000)), .startManager(host.number))
      }
    case .inconsistent(let what): throw Violation(checker: "consistency", what: "\(host.address) stops: \(what)")
    default: throw Violation(checker: "consistency", what: "\(host.address) stops: \(reason)")
    }
  }

  // MARK: - Disk

  private func begin(_ batch: WriteBatch, _ number: UInt64, _ host: ManagerHost) throws {
    try oracle.check(entries: batch.entries, of: host)
    mix(UInt64(batch.entries.count) << 32 | number)
    let delay = Time(100 + diskChance.skewed(0...host.diskDelayMax))
    tell(
      host.address,
      "writes \(number): \(batch.entries.count) entries\(batch.snapshot == nil ? "" : ", a snapshot"), applied \(batch.applied?.state.index ?? 0), \(delay) us"
    )
    if fault == .acknowledgedBeforeSync {
      host.unsynced.append(batch)
      after(delay + .milliseconds(300), .synced(host.number, life: host.life))
      host.write = (batch, number)
      return after(50, .written(host.number, life: host.life, number: number, failure: nil))
    }
    host.write = (batch, number)
    var failure: StoreError?
    if host.disk.isFull {
      failure = .diskFull(operation: "write", cause: "no room")
    } else if host.failsNextSync {
      host.failsNextSync = false
      failure = .io(operation: "fsync", cause: "EIO")
    }
    after(delay, .written(host.number, life: host.life, number: number, failure: failure))
  }

  func written(_ host: ManagerHost, _ number: UInt64, _ failure: StoreError?) throws {
    guard let (batch, expected) = host.write, expected == number else { return }
    host.write = nil
    if let failure {
      tell(host.address, "write \(number) failed: \(failure)")
      // A failed fsync may have brought everything to the disk nevertheless.
      if case .io = failure, diskChance.chance(permille: 500) { host.disk.write(batch) }
      if fault == .failedSyncIgnored { return try input(.written(number, failure: nil), to: host) }
    } else if fault != .acknowledgedBeforeSync {
      let last = host.disk.lastIndex
      host.disk.write(batch)
      if ambush(written: batch, over: last, at: host) { return }
    }
    try input(.written(number, failure: failure), to: host)
  }

  // MARK: - Network

  private func send(_ messages: [Message], from host: ManagerHost, to peer: RaftPeer) throws {
    guard let target = Int(peer.address.dropFirst()) else { return }
    try checkInflight(messages, from: host)
    for message in messages {
      var message = message
      plant(on: &message, from: host)
      if isCutOff(message, from: host) { continue }
      ambush(after: message, from: host)
      transmit(Packet(from: .manager(host.number), to: .manager(target), body: .raft([message])))
    }
  }

  private func sendSnapshot(_ snapshot: OutgoingSnapshot, from host: ManagerHost, to peer: RaftPeer) {
    guard let target = Int(peer.address.dropFirst()) else { return }
    figures.snapshots += 1
    var incoming = IncomingSnapshot(message: snapshot.message, membership: snapshot.membership, state: snapshot.state)
    plant(on: &incoming, from: host)
    let (from, to) = (Address.manager(host.number), Address.manager(target))
    let takes = Time(networkChance.int(1_000...300_000))
    let isLost = network.isCut(from, to) || network.isCut(to, from) || (!isHealing && networkChance.chance(permille: scenario.lossPermille))
    let isUp = managers[target].isUp
    tell(host.address, "sends a snapshot at \(snapshot.state.index) to m\(target)")
    if !isLost, isUp { after(takes, .deliver(Packet(from: from, to: to, body: .snapshot(incoming, number: managers[target].life)))) }
    after(isLost ? takes + .seconds(1) : takes, .snapshotSent(host.number, life: host.life, peer.id, succeeded: !isLost && isUp))
  }

  func transmit(_ packet: Packet) {
    let (from, to) = (packet.from, packet.to)
    guard !network.isCut(from, to) else { return }
    if !isHealing, networkChance.chance(permille: scenario.lossPermille) { return }
    after(network.delay(from, to, scenario, isCalm: isHealing, &networkChance), .deliver(packet))
    // Clients and agents speak over connections: nothing of theirs comes twice.
    if case .raft = packet.body, !isHealing, networkChance.chance(permille: scenario.doublePermille) {
      after(network.delay(from, to, scenario, isCalm: isHealing, &networkChance), .deliver(packet))
    }
  }

  func deliver(_ packet: Packet) throws {
    mix(packet.from.code << 32 | packet.to.code)
    switch (packet.to, packet.body) {
    case (.manager(let m), .raft(let messages)):
      let host = managers[m]
      guard host.isUp else { return }
      for message in messages {
        tell(host.address, "from \(message.from) term \(message.term): \(describe(message.body))")
        if host.view.membership.members[message.from]?.isRemoved == true {
          transmit(Packet(from: packet.to, to: packet.from, body: .removed))
          continue
        }
        noteAcknowledgement(message, at: host)
        mix(message.term << 40 | UInt64(message.fingerprint))
        var message = message
        plant(onArrival: &message, at: host)
        if host.view.membership.members[message.from] == nil, case .manager(let sender) = packet.from {
          try input(.contact(RaftPeer(id: message.from, address: managers[sender].address)), to: host)
        }
        try input(.message(message), to: host)
      }
    case (.manager(let m), .snapshot(let snapshot, let life)):
      if managers[m].isUp, managers[m].life == life { try input(.snapshot(snapshot), to: managers[m]) }
    case (.manager(let m), .removed): if managers[m].isUp { try input(.removed, to: managers[m]) }
    case (.manager(let m), .request(let request, let hops)): if managers[m].isUp { try take(request, hops, at: managers[m]) }
    case (.manager(let m), .dial(let life, let attempt)):
      if case .agent(let a) = packet.from { try dialled(managers[m], by: agents[a], life, attempt) }
    case (.client(let c), .reply(let operation, let reply)): try replied(c, operation, reply)
    case (.agent(let a), .refused(let attempt, let leader)): refused(agents[a], attempt, leader)
    default: break
    }
  }

  func describe(_ body: Message.Body) -> String {
    guard case .append(let append) = body else { return "\(body)" }
    return "append after \(append.previousIndex)/\(append.previousTerm), commit \(append.commit): \(append.entries.map { "\($0.index)/\($0.term)" })"
  }
}

extension Message {
  var fingerprint: UInt32 {
    switch body {
    case .preVote: 1
    case .preVoteResponse: 2
    case .vote: 3
    case .voteResponse(let response): response == .granted ? 4 : 5
    case .append(let append): UInt32(truncatingIfNeeded: append.previousIndex) << 8 | UInt32(append.entries.count & 0xFF)
    case .appended(let index): UInt32(truncatingIfNeeded: index) << 4 | 6
    case .appendRejected(let rejection): UInt32(truncatingIfNeeded: rejection.index) << 4 | 7
    case .heartbeat(let commit, let round): UInt32(truncatingIfNeeded: commit &+ round) << 4 | 8
    case .heartbeatResponse(let round): UInt32(truncatingIfNeeded: round) << 4 | 9
    default: 10
    }
  }
}
