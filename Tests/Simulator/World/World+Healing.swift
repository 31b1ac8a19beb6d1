import Dispatcher
import Leader
import Model
import Replica

/// Phase two: a quorum works again, and most hosts; nobody wants anything new. What was wanted must come to be.
extension World {
  func heal() throws {
    try checkHistory()
    isHealing = true
    healingSince = now
    tell("fate", "all is healed")
    network.heal()
    leaveSomeDead()
    for host in managers {
      host.disk.isFull = false
      host.failsNextSync = false
      host.diskDelayMax = 2_000
      host.pausedUntil = min(host.pausedUntil, now)
      if !host.isUp { after(Time(chance.int(1...200_000)), .startManager(host.number)) }
    }
    for agent in agents {
      agent.pausedUntil = min(agent.pausedUntil, now)
      if !agent.isUp { after(Time(chance.int(1...200_000)), .startAgent(agent.number)) }
    }
  }

  /// One manager of three or more whose voters are whole, and one host of three or more, stay down in half of the runs.
  private func leaveSomeDead() {
    if agents.count >= 3, misfortuneChance.chance(permille: 500) {
      let agent = misfortuneChance.pick(agents)
      crash(agent)
      (agent.containers, agent.ready) = ([:], [])
      agent.isDead = true
      tell("fate", "host\(agent.number) stays down")
    }
    let voters = managers.filter { !$0.isGone && !$0.disk.isCorrupt }
    let views = Set(managers.filter(\.isUp).map { $0.view.membership.ids(.voter) })
    guard views.count == 1, let ids = views.first, ids.count >= 3, misfortuneChance.chance(permille: 500) else { return }
    // Learners and lost disks make a quorum tight: not then.
    guard ids.allSatisfy({ id in voters.contains { $0.raftID == id } }), voters.count == ids.count else { return }
    let host = misfortuneChance.pick(voters)
    crash(host)
    host.isDead = true
    tell("fate", "\(host.address) stays down")
  }

  /// From time to time; ends the run.
  func look() throws {
    after(isHealing ? .milliseconds(500) : .seconds(1), .look)
    for host in managers where host.isUp { try oracle.check(host.view.state, of: host.address, "all the same") }
    guard isHealing else { return }
    guard let leader = managers.first(where: { $0.isUp && $0.view.leadership.isLeader && $0.leader.isLeading }) else { return }
    // Users' last wishes may have been half carried out: nodes are given back, images are mended by `isHealing`.
    let idle = agents.filter { !$0.isDead }.map(\.node).filter { leader.view.state.nodes[$0]?.spec.availability != .active }
    if !idle.isEmpty {
      operations += 1
      return ask(leader.number, Request(client: Self.user, operation: operations, kind: .user(.availability(node: idle[0], .active))))
    }
    guard obstacle(leader) == nil else { return }
    figures.convergedAfter = now - healingSince
    tell("world", "converged after \(figures.convergedAfter / 1_000) ms")
    isDone = true
  }

  func notConverged() -> String {
    guard let leader = managers.first(where: { $0.isUp && $0.view.leadership.isLeader && $0.leader.isLeading }) else {
      return "no leader: " + managers.map { "\($0.address) \($0.isUp ? "up" : $0.isGone ? "gone" : "down")" }.joined(separator: ", ")
    }
    return obstacle(leader) ?? "nodes are not active"
  }

  /// Why this is not the desired state yet.
  private func obstacle(_ leader: ManagerHost) -> String? {
    let state = leader.view.state
    // Who was removed before it ever heard of the others waits for ever: nobody speaks to it.
    for host in managers where !host.isGone && !host.isDead && leader.view.membership.members[host.raftID]?.role != .removed {
      guard host.isUp else { return "\(host.address) is not up" }
      if host.view.membership.members[host.raftID]?.role != .voter { return "\(host.address) is no voter" }
      if host.view.state.index != state.index { return "\(host.address) is at \(host.view.state.index), the leader at \(state.index)" }
    }
    for agent in agents where agent.isDead {
      if state.nodes[agent.node]?.status.state == .ready { return "host\(agent.number) is dead and said to be ready" }
    }
    for service in state.services.values { if let reason = obstacle(service, state) { return "service \(service.name): \(reason)" } }
    var dispatcher = Dispatcher()
    _ = dispatcher.reset(state: state, now: .zero)
    for agent in agents where !agent.isDead {
      if state.nodes[agent.node]?.status.state != .ready { return "host\(agent.number) is not ready" }
      if let reason = agentObstacle(agent, state, dispatcher) { return "host\(agent.number): \(reason)" }
    }
    // What was removed while its tasks were on a host that is gone stays until those are given up, a day later.
    let isHeld = state.services.values.contains { $0.pendingDelete }
    for stack in state.stacks.values where !isHeld && stack.services.isEmpty && stack.manifest.isEmpty { return "stack \(stack.name) is not gone" }
    return nil
  }

  private func obstacle(_ service: Service, _ state: ClusterState) -> String? {
    let dead = Set(agents.filter(\.isDead).map(\.node))
    if service.pendingDelete {
      let rest = Array(state.tasks(of: service.id))
      return !rest.isEmpty && rest.allSatisfy { $0.node.map(dead.contains) ?? false } ? nil : "is not gone"
    }
    guard let spec = state.spec(of: service) else { return "has no spec" }
    let tasks = Array(state.tasks(of: service.id))
    let serving = tasks.filter { task in task.isServing && !agents.contains { $0.isDead && $0.node == task.node } }
    if let held = tasks.first(where: { $0.desiredState <= .running && $0.status.state == .pending && !$0.status.error.isEmpty }) {
      // Another service has its port, the network is full or gone: a reason, told to the user.
      if held.status.error.hasPrefix("port ") || held.status.error.hasPrefix("network ") { return nil }
    }
    let wanted = spec.isGlobal ? agents.count - dead.count : Int(spec.replicas ?? 1)
    if serving.count != wanted {
      let lines = tasks.sorted { $0.id < $1.id }.filter { $0.desiredState <= .running || !$0.status.state.isTerminal }
        .map { "\(name($0)) wanted \($0.desiredState) is \($0.status.state) \($0.status.error)" }
      return "\(serving.count) of \(wanted) serve; update \(service.updateStatus?.state.rawValue ?? "-"); \(lines)"
    }
    let slots = Set(serving.map { spec.isGlobal ? "\($0.node!)" : "\($0.slot)" })
    if slots.count != wanted { return "two tasks serve in one slot" }
    let template = state.revision(service.id, service.current)?.template
    let isPaused = service.updateStatus?.state == .paused || service.updateStatus?.state == .rollbackPaused
    if !isPaused, serving.contains(where: { $0.revision != template }) { return "old tasks serve" }
    if service.updateStatus?.state == .updating || service.updateStatus?.state == .rollbackStarted { return "its update is not over" }
    if let left = tasks.first(where: { $0.desiredState > .running && !$0.status.state.isTerminal && !dead.contains($0.node ?? NodeID(value: 0)) }) {
      return "\(name(left)) wanted \(left.desiredState) is \(left.status.state)"
    }
    return nil
  }

  /// `dispatcher`: one that was begun with `state`.
  private func agentObstacle(_ agent: AgentHost, _ state: ClusterState, _ dispatcher: Dispatcher) -> String? {
    let running = Set(agent.containers.filter(\.value.isRunning).keys)
    let wanted = Set(state.tasks(on: agent.node).filter(\.isServing).map(\.id))
    if running != wanted { return "runs \(running.subtracting(wanted).map(short)) too much, \(wanted.subtracting(running).map(short)) too little" }
    // What a new session would be told is what this one was told, one difference after the other.
    var dispatcher = dispatcher
    let outputs = dispatcher.step(
      .connected(node: agent.node, session: SessionID(1), description: agent.description, underlay: agent.underlay), state: state, now: .zero)
    for case .send(_, let message) in outputs {
      let has = Set(agent.worker.assignments.updates.map(\.withoutProgress))
      let should = Set(message.updates.map(\.withoutProgress))
      if has != should {
        return
          "knows other things than it should: \(should.subtracting(has).map(\.key)) missing or old, \(has.subtracting(should).map(\.key)) too much"
      }
    }
    return nil
  }
}

extension AssignmentItem {
  /// The agent keeps its own progress in it.
  fileprivate var withoutProgress: AssignmentItem {
    guard case .task(var task) = self, task.status.state < .running else { return self }
    task.status.state = .assigned
    return .task(task)
  }
}
