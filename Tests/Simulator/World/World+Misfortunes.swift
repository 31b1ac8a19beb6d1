import Model
import Replica

enum Mending {
  case network
  case disk(Int)
  case diskSpeed(Int)
  case resumeManager(Int)
  case resumeAgent(Int)
  case clock(Int, by: Time)
  case endContainer(Int, TaskID, code: Int32, startedAt: Time)
}

extension World {
  /// Voters whose disks are whole: more than a majority must never lose theirs, or losing data would be no fault.
  var mayLoseADisk: Bool {
    guard let leader = managers.first(where: { $0.isUp && $0.view.leadership.isLeader }) else { return false }
    if let asked = users.removalAskedAt, now - asked < .seconds(5) { return false }
    let voters = leader.view.membership.ids(.voter)
    let hosts = voters.compactMap { id in managers.first { $0.raftID == id } }
    // Everyone agrees who the voters are, and nobody is missing: the last loss is repaired.
    let agreed = hosts.allSatisfy { $0.isUp && !$0.isGone && !$0.disk.isFull && !$0.disk.isCorrupt && $0.view.membership.ids(.voter) == voters }
    return voters.count >= 3 && hosts.count == voters.count && agreed && leader.view.membership.ids(.learner).isEmpty
  }

  func strike() throws {
    guard !isHealing else { return }
    after(.milliseconds(misfortuneChance.int(scenario.misfortuneEvery / 4...scenario.misfortuneEvery * 2)), .misfortune)
    guard let kind = misfortuneChance.pickIfAny(scenario.misfortunes) else { return }
    let host = misfortuneChance.pick(managers)
    let agent = misfortuneChance.pick(agents)
    let until = now + .milliseconds(misfortuneChance.skewed(100...8_000))
    figures.misfortunes += 1
    mix(UInt64(figures.misfortunes))
    if kind != .exitContainer { tell("fate", "\(kind)") }
    switch kind {
    case .crashManager:
      crash(host)
      events.add(.startManager(host.number), at: until)
      if misfortuneChance.chance(permille: 100) {
        // All at once.
        for other in managers where other.isUp {
          crash(other)
          events.add(.startManager(other.number), at: until + Time(misfortuneChance.int(0...500_000)))
        }
      }
    case .pauseManager: host.pausedUntil = max(host.pausedUntil, until)
    case .partition, .oneWayPartition:
      network.heal()
      let everyone = managers.map { Address.manager($0.number) } + agents.map { .agent($0.number) } + clients.map { .client($0.number) }
      var (one, other): ([Address], [Address]) = ([], [])
      for address in everyone { if misfortuneChance.chance(permille: 500) { one.append(address) } else { other.append(address) } }
      network.split(one, from: other, bothWays: kind == .partition)
      breakCutConnections()
      events.add(.mend(.network), at: until)
    case .isolateLeader:
      guard let leader = managers.first(where: { $0.isUp && $0.view.leadership.isLeader }) else { return }
      let keepsAgents = misfortuneChance.chance(permille: 500)
      let others = managers.filter { $0 !== leader }.map { Address.manager($0.number) } + (keepsAgents ? [] : agents.map { .agent($0.number) })
      network.split([.manager(leader.number)], from: others, bothWays: misfortuneChance.chance(permille: 700))
      breakCutConnections()
      events.add(.mend(.network), at: until)
    case .clog:
      network.clog(
        misfortuneChance.chance(permille: 500) ? .manager(host.number) : .agent(agent.number), microseconds: misfortuneChance.int(50_000...1_500_000))
      events.add(.mend(.network), at: until)
    case .failFsync: host.failsNextSync = true
    case .fillDisk:
      host.disk.isFull = true
      events.add(.mend(.disk(host.number)), at: until)
    case .slowDisk:
      host.diskDelayMax = misfortuneChance.int(100_000...1_500_000)
      events.add(.mend(.diskSpeed(host.number)), at: until)
    case .loseDisk:
      guard mayLoseADisk, !host.isGone else { return }
      crash(host)
      loseDisk(host)
    case .corruptEntry:
      guard mayLoseADisk, !host.isGone, host.isUp else { return }
      // Found when it is read, at the latest at the next start.
      let last = host.disk.lastIndex
      guard host.disk.corrupt(&misfortuneChance) else { return }
      tell(host.address, "a bit of its log rots; the log ends at \(last)")
      crash(host)
      after(.milliseconds(misfortuneChance.int(10...1_000)), .startManager(host.number))
    case .jumpClock:
      let jump = Time.milliseconds(misfortuneChance.int(-20_000...20_000))
      if misfortuneChance.chance(permille: 700) { host.wallOffset += jump } else { agent.wallOffset += jump }
    case .crashAgent:
      crash(agent)
      events.add(.startAgent(agent.number), at: until)
    case .rebootHost:
      crash(agent)
      (agent.containers, agent.ready) = ([:], [])
      events.add(.startAgent(agent.number), at: until + .seconds(misfortuneChance.int(0...5)))
    case .pauseAgent: agent.pausedUntil = max(agent.pausedUntil, until)
    case .partitionAgent:
      network.split([.agent(agent.number)], from: managers.map { .manager($0.number) }, bothWays: misfortuneChance.chance(permille: 600))
      breakCutConnections()
      events.add(.mend(.network), at: until)
    case .breakSession: if let connection = agent.connection { break_(connection) }
    case .exitContainer:
      guard let id = misfortuneChance.pickIfAny(agent.containers.keys.sorted()), let container = agent.containers[id] else { return }
      end(id, misfortuneChance.chance(permille: 500) ? 1 : 0, container.startedAt, on: agent)
    }
  }

  private func loseDisk(_ host: ManagerHost) {
    if fault == .wipedMemberVotes {
      let members = managers.filter { !$0.isGone }
      host.disk.wipe()
      var batch = WriteBatch()
      batch.raftID = host.raftID
      batch.membership = Membership(members.map { .init(raftID: $0.raftID, node: $0.node, address: $0.address, role: .voter) })
      host.disk.write(batch)
      after(.milliseconds(misfortuneChance.int(10...500)), .startManager(host.number))
    } else {
      // It comes back as somebody else: `administer` sees to it.
      host.isGone = true
    }
  }

  /// An empty database that knows where the others are.
  func prepareJoin(_ host: ManagerHost) {
    var batch = WriteBatch()
    batch.raftID = host.raftID
    batch.membership = Membership(
      managers.filter { !$0.isGone && $0 !== host }.map { .init(raftID: $0.raftID, node: nil, address: $0.address, role: .contact) })
    host.disk.write(batch)
  }

  private func breakCutConnections() {
    for agent in agents {
      guard let connection = agent.connection else { continue }
      let (a, m) = (Address.agent(agent.number), Address.manager(connection.manager))
      if network.isCut(a, m) || network.isCut(m, a) { break_(connection) }
    }
  }

  func mend(_ mending: Mending) throws {
    switch mending {
    case .network: network.heal()
    case .disk(let m): managers[m].disk.isFull = false
    case .diskSpeed(let m): managers[m].diskDelayMax = scenario.diskMicrosecondsMax
    case .resumeManager(let m): managers[m].pausedUntil = 0
    case .resumeAgent(let a): agents[a].pausedUntil = 0
    case .clock(let m, let by): managers[m].wallOffset += by
    case .endContainer(let a, let id, let code, let startedAt): end(id, code, startedAt, on: agents[a])
    }
  }
}
