import Dispatcher
import Leader
import Model
import Worker

#if PLANTED
  @testable import Allocator
  @testable import Dispatcher
  @testable import Leader
  @testable import Orchestrator
  @testable import Raft
  @testable import Replica
#else
  import Raft
  import Replica
#endif

/// Where planted faults take hold. Disks have theirs in `SimulatedDisk`.
extension World {
  /// On a message that leaves.
  func plant(on message: inout Message, from host: ManagerHost) {
    if fault == .heartbeatCommitsUnknown, case .heartbeat(_, let round) = message.body {
      message.body = .heartbeat(commit: host.view.state.index, round: round)
    }
  }

  func plant(on snapshot: inout IncomingSnapshot, from host: ManagerHost) {
    guard case .snapshot(var metadata) = snapshot.message.body else { return }
    if fault == .snapshotOfOlderState, var older = oracle.committed(metadata.index - 1)?.state {
      older.skip(to: metadata.index)
      snapshot.state = older
    }
    if fault == .snapshotWithoutMembership {
      let first = managers.prefix(scenario.managers)
      snapshot.membership = Membership(first.map { .init(raftID: $0.raftID, node: $0.node, address: $0.address, role: .voter) })
      metadata.confState = ConfState(voters: first.map(\.raftID) + [snapshot.message.to])
      snapshot.membership.members[snapshot.message.to] = .init(
        raftID: snapshot.message.to, node: nil, address: "m\(snapshot.message.to.rawValue - 1)", role: .voter)
      snapshot.message.body = .snapshot(metadata)
    }
  }

  /// On a message that arrives.
  func plant(onArrival message: inout Message, at host: ManagerHost) {
    switch message.body {
    case .vote(var request) where fault == .voteForShorterLog:
      (request.lastIndex, request.lastTerm) = (.max, .max)
      message.body = .vote(request)
    case .preVote(var request) where fault == .voteForShorterLog:
      (request.lastIndex, request.lastTerm) = (.max, .max)
      message.body = .preVote(request)
    case .append(var append) where fault == .appendWithoutMatch:
      if let own = host.disk.entry(append.previousIndex) { append.previousTerm = own.term }
      message.body = .append(append)
    default: break
    }
  }

  /// On what the leader proposes.
  func plant(on command: Command, _ host: ManagerHost) -> Command {
    var command = command
    switch fault {
    case .placedTwice:
      for case .createTask(var task) in command.actions where chance.chance(permille: 50) {
        task.id = .random(using: &coreChance)
        task.attachments = []
        command.actions.append(.createTask(task))
      }
    case .stateGoesBack:
      for case .taskStatus(let id, let status) in command.actions where chance.chance(permille: 30) {
        guard var task = host.view.state.tasks[id], task.status.state > .assigned else { continue }
        task.status.state = .assigned
        task.status.timestamp = status.timestamp
        command.actions += [.removeTask(id), .createTask(task)]
      }
    case .managerWritesAgentsState:
      for case .nodeStatus(let node, let status) in command.actions where status.state == .down {
        for task in host.view.state.tasks(on: node) where !task.status.state.isTerminal {
          command.actions.append(.taskStatus(task.id, TaskStatus(state: .failed, timestamp: host.moment(now).wall, message: "lost")))
        }
      }
    default: break
    }
    return command
  }

  /// On what an agent is told.
  func plant(on message: AssignmentsMessage, _ agent: AgentHost) -> AssignmentsMessage {
    if fault == .unhealthyServes {
      var message = message
      for position in message.updates.indices {
        guard case .endpoint(var endpoint) = message.updates[position], oracle.tasks.unhealthyAt[endpoint.task] != nil else { continue }
        endpoint.ready = true
        message.updates[position] = .endpoint(endpoint)
      }
      return message
    }
    guard fault == .containerStartedAgain else { return message }
    var message = message
    for position in message.updates.indices {
      guard case .task(var task) = message.updates[position], task.status.state == .running else { continue }
      task.status.state = .assigned
      message.updates[position] = .task(task)
    }
    return message
  }

  /// On what a start finds on the disk.
  func plant(on loaded: inout LoadedState) {
    if fault == .entrySkipped, loaded.entries.last.map({ $0.index > loaded.state.index }) ?? false, loaded.state.index < oracle.lastIndex {
      loaded.state.skip(to: loaded.state.index + 1)
    }
  }
}

#if PLANTED
  extension World {
    /// In the memory of a member, before it goes on.
    func plantBefore(_ host: ManagerHost) {
      guard let fault, host.replica != nil else { return }
      switch fault {
      case .leaseTooLong:
        guard host.replica!.core.role == .leader, host.replica!.core.hasCommittedInTerm else { return }
        let round = host.replica!.core.reads.beginRound(at: host.replica!.core.ticks)
        host.replica!.core.reads.confirm(upTo: round)
      case .secondVote: host.replica!.core.vote = nil
      case .learnerCounted:
        for position in host.replica!.core.members.indices { host.replica!.core.members[position].isIncomingVoter = true }
      case .commitBeforeQuorum:
        if host.replica!.core.role == .leader { _ = try? host.replica!.core.log.commit(to: host.replica!.core.log.stable) }
      case .olderTermCommittedByCounting:
        if host.replica!.core.role == .leader {
          let reached = Quorum.reached(host.replica!.core.members) { $0.match }
          if reached <= host.replica!.core.lastIndex { _ = try? host.replica!.core.log.commit(to: reached) }
        }
      default: break
      }
    }

    /// In the memory of a leader.
    func plantBeforeDecision(_ host: ManagerHost) {
      guard let fault, host.leader.isLeading else { return }
      switch fault {
      case .addressReused:
        for network in host.leader.reconciler.allocator.spaces.keys {
          host.leader.reconciler.allocator.spaces[network]!.owners = [:]
          host.leader.reconciler.allocator.spaces[network]!.cursor = 0
        }
      case .portReused:
        host.leader.reconciler.allocator.ports = .init()
        host.leader.reconciler.allocator.nextPort = PortConfig.dynamicNumbers.lowerBound
      case .decisionsOverlap:
        if case .proposed = host.leader.flight {
          host.leader.flight = .none
          host.leader.reconciler.reset(host.leader.state)
          host.leader.isDue = true
        }
      case .drainNotAwaited: for id in host.leader.dispatcher.sessions.keys { host.leader.dispatcher.sessions[id]!.applied = .max }
      case .drainNotInherited:
        for (task, drain) in host.leader.dispatcher.drains where drain.waits.values.contains(where: { $0.session == nil }) {
          host.leader.dispatcher.drains[task] = nil
          host.leader.dispatcher.view.draining.remove(task)
        }
      case .brokenSessionNotAwaited:
        for (task, drain) in host.leader.dispatcher.drains {
          for node in drain.waits.keys where host.leader.dispatcher.current[node] == nil { host.leader.dispatcher.drains[task]!.waits[node] = nil }
        }
      case .restNotAwaited:
        (host.leader.dispatcher.resting, host.leader.dispatcher.rests, host.leader.dispatcher.inheritance) = (.init(), [], .init())
        for (id, space) in host.leader.reconciler.allocator.spaces {
          host.leader.reconciler.allocator.spaces[id]!.cursor = space.prefix.first.rawValue
        }
      case .networkReused:
        for vni in host.leader.dispatcher.resting.vnis { host.leader.dispatcher.resting.end(vni: vni, subnet: nil) }
        for subnet in host.leader.dispatcher.resting.subnets { host.leader.dispatcher.resting.end(vni: nil, subnet: subnet) }
        host.leader.dispatcher.resting.open()
      case .silentNodeKept:
        for id in host.leader.dispatcher.sessions.keys { host.leader.dispatcher.sessions[id]!.lastHeard = host.moment(now).steady }
        host.leader.dispatcher.awaited = [:]
      default: break
      }
    }
  }
#endif
