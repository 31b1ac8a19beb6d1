import Model
import Raft
import Replica

/// What strikes not at random but in the very moment in which it hurts most. Nothing in it needs more than crashes, cut wires and bits that
/// rot: a right cluster survives it.
enum Ambush: String, CaseIterable {
  /// Two managers stand for election in one term and cannot hear each other; who has just voted crashes and is back at once.
  case rivals
  /// Whoever is elected is cut off, at once or after a few appends, and crashes; the ones before it return (figure 8 of the Raft paper).
  case shortReigns
  /// A manager crashes when it has just overwritten what another leader had given it.
  case overwriting
  /// What a manager has just written rots, and it crashes: an entry, or a frame of the write-ahead log with transactions behind it.
  case rottingTail
  /// The leader hears no other manager for a while (or its process stands still), and somebody asks it all the time whether it knows what
  /// others accept meanwhile.
  case deafLeader
}

/// What lies in wait.
struct Ambushes {
  var crashesVotersUntil: Time = 0
  var reignsUntil: Time = 0
  var rotsUntil: Time = 0
  /// So many transactions behind the frame that rots; nil: an entry does.
  var cutsWrites: Int?
  /// Appends that a leader may still send to each other manager; nil: as many as it wants.
  var appendsLeft: [Int: Int] = [:]
  /// Came down by an ambush, and come back when the next one does.
  var fallen: Set<Int> = []
  var deaf: Int?
  var deafUntil: Time = 0
}

extension World {
  func lieInWait() throws {
    guard !isHealing else { return }
    after(.milliseconds(ambushChance.int(1_000...6_000)), .ambush)
    switch ambushChance.pickIfAny(scenario.ambushes) {
    case .rivals?: try makeRivals()
    case .shortReigns?:
      ambushes.reignsUntil = now + .milliseconds(ambushChance.int(3_000...9_000))
      guard let leader = managers.first(where: { $0.isUp && $0.view.leadership.isLeader }) else { return }
      tell("fate", "reigns are short")
      fell(leader)
    case .rottingTail?:
      ambushes.rotsUntil = now + .seconds(2)
      ambushes.cutsWrites = walChance.chance(permille: 500) ? walChance.int(2...12) : nil
      if ambushes.cutsWrites != nil { for host in managers { host.disk.remember() } }
    case .deafLeader?: deafen()
    case .overwriting?, nil: break
    }
  }

  // MARK: - Rivals

  /// A user who hands leadership over twice in a hurry makes two candidates of one term.
  private func makeRivals() throws {
    guard let leader = managers.first(where: { $0.isUp && $0.view.leadership.isLeader }) else { return }
    var others = managers.filter { $0 !== leader && $0.isUp && leader.view.membership.members[$0.raftID]?.role == .voter }
    guard others.count >= 2 else { return }
    let first = others.remove(at: ambushChance.int(0...others.count - 1))
    let second = ambushChance.pick(others)
    tell("fate", "\(first.address) and \(second.address) are rivals")
    network.split([.manager(first.number)], from: [.manager(second.number)], bothWays: true)
    network.clog(.manager(second.number), microseconds: ambushChance.skewed(1_000...40_000))
    events.add(.mend(.network), at: now + .milliseconds(ambushChance.int(200...1_500)))
    ambushes.crashesVotersUntil = now + .milliseconds(300)
    for rival in [first, second] {
      operations += 1
      let request = Request(client: Self.user, operation: operations, kind: .transfer(rival.raftID.rawValue))
      try input(.transfer(rival.raftID, leader.nextRequest(.client(request))), to: leader)
    }
  }

  /// On a message that has just left.
  func ambush(after message: Message, from host: ManagerHost) {
    guard case .voteResponse(.granted) = message.body, now < ambushes.crashesVotersUntil, ambushChance.chance(permille: 700) else { return }
    ambushes.crashesVotersUntil = 0
    after(Time(ambushChance.int(1...300)), .fell(host.number, life: host.life, downFor: .milliseconds(ambushChance.int(1...60))))
  }

  // MARK: - Short reigns

  func ambush(newLeader host: ManagerHost) {
    ambushes.appendsLeft[host.number] = nil
    guard now < ambushes.reignsUntil, !isHealing else { return }
    // Those before it are back in time for the next.
    for number in ambushes.fallen.sorted() { after(.milliseconds(ambushChance.int(1...300)), .startManager(number)) }
    ambushes.fallen = []
    ambushes.appendsLeft[host.number] = ambushChance.pick([0, 0, 0, 1, 2, 3, 4, 6])
    after(.milliseconds(ambushChance.skewed(20...600)), .fell(host.number, life: host.life, downFor: nil))
  }

  /// Whether a leader's message is lost because it is cut off by now.
  func isCutOff(_ message: Message, from host: ManagerHost) -> Bool {
    guard !isHealing, let left = ambushes.appendsLeft[host.number] else { return false }
    if left == 0 { return true }
    if case .append = message.body { ambushes.appendsLeft[host.number] = left - 1 }
    return false
  }

  func fell(_ host: ManagerHost, downFor: Time? = nil) {
    guard !isHealing, host.isUp else { return }
    ambushes.appendsLeft[host.number] = nil
    crash(host)
    if let downFor { return after(downFor, .startManager(host.number)) }
    ambushes.fallen.insert(host.number)
    // If nobody follows it.
    after(.milliseconds(ambushChance.int(2_000...4_000)), .startManager(host.number))
  }

  // MARK: - A deaf leader

  /// One of these reads at the deaf leader, the other writes at the others.
  private static let witnesses = 2

  private func deafen() {
    guard now >= ambushes.deafUntil, let leader = managers.first(where: { $0.isUp && $0.view.leadership.isLeader }), managers.count > 1 else {
      return
    }
    let until = now + .milliseconds(ambushChance.int(900...2_500))
    tell("fate", "\(leader.address) is deaf")
    if scenario.misfortunes.contains(.pauseManager), ambushChance.chance(permille: 500) {
      leader.pausedUntil = max(leader.pausedUntil, until)
    } else {
      let others = managers.filter { $0 !== leader }.map { Address.manager($0.number) }
      network.split([.manager(leader.number)], from: others, bothWays: true)
      events.add(.mend(.network), at: until)
    }
    (ambushes.deaf, ambushes.deafUntil) = (leader.number, until + .milliseconds(100))
    while clients.count < scenario.clients + Self.witnesses { clients.append(Client(number: clients.count)) }
    for number in scenario.clients..<clients.count { after(.milliseconds(ambushChance.int(200...400)), .client(number)) }
  }

  func isWitness(_ client: Int) -> Bool { client >= scenario.clients }

  /// What a witness asks next, and whom; nil: nothing more.
  func testimony(of client: Int) -> (isRead: Bool, manager: Int)? {
    guard let deaf = ambushes.deaf, now < ambushes.deafUntil else { return nil }
    if client == scenario.clients { return (true, deaf) }
    return ambushChance.pickIfAny(managers.indices.filter { $0 != deaf && !managers[$0].isGone }).map { (false, $0) }
  }

  // MARK: - On the disk

  /// Whether the manager has crashed.
  func ambush(written batch: WriteBatch, over last: UInt64, at host: ManagerHost) -> Bool {
    guard !isHealing, let first = batch.entries.first else { return false }
    if scenario.ambushes.contains(.overwriting), first.index <= last, ambushChance.chance(permille: 500) {
      fell(host, downFor: .milliseconds(ambushChance.int(1...300)))
      return true
    }
    guard now < ambushes.rotsUntil, batch.entries.contains(where: { $0.kind == Entry.Kind.command.rawValue }), mayLoseADisk else { return false }
    if let count = ambushes.cutsWrites {
      guard host.disk.writesSince >= count else { return false }
      ambushes.rotsUntil = 0
      host.disk.cutShort()
      tell(host.address, "a frame of its write-ahead log rots, \(host.disk.writesSince) transactions lie behind it")
    } else {
      ambushes.rotsUntil = 0
      guard host.disk.corruptTail() else { return false }
      tell(host.address, "the last entry of its log rots; the log ends at \(host.disk.lastIndex)")
    }
    fell(host, downFor: .milliseconds(ambushChance.int(10...500)))
    return true
  }
}
