import Consensus
import Dispatcher
import FoundationEssentials
import Glibc
import Logging
import Model
import Orchestrator

/// What a leader does beside answering: the shell of Reconciler and Dispatcher. Everything it decides from is the applied state;
/// everything it decides is proposed. Does nothing while another manager leads.
actor ControlLoop {
  private let consensus: Consensus
  private let sessions: AgentSessions
  private let log: Logger
  /// The term that this manager leads in; another term is another leadership, even with nobody in between.
  private var term: UInt64?
  private var leading: Bool { term != nil }
  private var lastTerm: UInt64?
  /// Where the manager is that led before this one does. Its node may not be in the state yet when it is first heard of.
  private var predecessor: String?
  private var state = ClusterState()

  private var reconciler = Reconciler()
  private var reconcilerChanges: [StateChange] = []
  private var reconcilerDue = false
  private var reconciling = false
  private var reconcilerWake: Task<Void, Never>?
  /// The decision that is committed and not yet in `state`.
  private var awaited: (index: UInt64, continuation: CheckedContinuation<Void, Never>)?

  private var dispatcher = Dispatcher()
  private var dispatcherWake: Task<Void, Never>?
  private var proposals: [[Action]] = []
  private var proposing = false

  init(consensus: Consensus, sessions: AgentSessions, log: Logger) {
    self.consensus = consensus
    self.sessions = sessions
    self.log = log
  }

  var isLeading: Bool { leading }

  /// Until the member ends.
  func run() async {
    await withTaskGroup(of: Void.self) { group in
      group.addTask { for await leadership in self.consensus.leadership() { await self.lead(leadership) } }
      group.addTask { for await event in self.consensus.changes() { await self.apply(event) } }
    }
    lead(.follower(leader: nil))
  }

  private func lead(_ leadership: Leadership) {
    let before = term
    switch leadership {
    case .leader(let now): term = now
    case .follower(let leader):
      term = nil
      if let leader { predecessor = leader.address }
    }
    guard term != before else { return }
    reconcilerWake?.cancel()
    dispatcherWake?.cancel()
    proposals = []
    if before != nil { sessions.closeAll("this manager does not lead any more") }
    resumeAwaited()
    guard let term else { return log.notice("this manager does not lead any more") }
    log.notice("this manager leads", metadata: ["term": "\(term)"])
    state = consensus.snapshot
    // A term has one leader at most: nobody led between two terms that follow each other.
    restart(after: state.nodes.values.first { $0.manager != nil && $0.manager?.address == predecessor }?.id, again: lastTerm.map { $0 + 1 } == term)
    lastTerm = term
    predecessor = nil
  }

  private func apply(_ event: ChangeEvent) {
    switch event {
    case .changes(let batch):
      // The snapshot taken on gaining leadership may be ahead of this stream.
      guard batch.index > state.index else { return }
      state = batch.state
      resumeAwaited()
      guard leading else { return }
      carryOut(dispatcher.step(.changes(batch.changes), state: state, now: .now))
      reconcilerChanges += batch.changes
      reconcile()
    case .resync(let newest):
      // The first one says nothing new to a leader.
      guard newest.index > state.index else { return }
      state = newest
      resumeAwaited()
      if leading { restart(again: true) }
    }
  }

  private func restart(after predecessor: NodeID? = nil, again: Bool) {
    carryOut(dispatcher.reset(state: state, predecessor: predecessor, again: again, now: .now))
    sessions.announce()
    reconciler.reset(state)
    reconcilerChanges = []
    reconcilerDue = true
    reconcile()
  }

  // MARK: - Reconciler: one decision in flight

  private func reconcile() {
    guard !reconciling else { return }
    reconciling = true
    Task {
      while leading, reconcilerDue || !reconcilerChanges.isEmpty {
        reconcilerDue = false
        let changes = reconcilerChanges
        reconcilerChanges = []
        var generator = SystemRandomNumberGenerator()
        let decision = reconciler.step(state: state, changes: changes, now: .now, generator: &generator)
        if let command = decision.command { await propose(command) }
        wakeReconciler(at: decision.wakeAt)
      }
      reconciling = false
    }
  }

  private func propose(_ command: Command) async {
    do {
      let (index, _) = try await consensus.propose(command)
      // The next decision must see what became of this one.
      guard leading, state.index < index else { return }
      await withCheckedContinuation { awaited = (index, $0) }
    } catch ConsensusError.notLeader, ConsensusError.stopped {
      return
    } catch {
      log.warning("a decision was not applied (\(error)); deciding anew")
      if case ConsensusError.refused = error {} else { try? await Task.sleep(for: .milliseconds(100)) }
      guard leading else { return }
      reconciler.reset(state)
      reconcilerChanges = []
      reconcilerDue = true
    }
  }

  /// `state` has moved on, or the leadership with everything decided in it is over.
  private func resumeAwaited() {
    guard let (index, continuation) = awaited, !leading || state.index >= index else { return }
    awaited = nil
    continuation.resume()
  }

  private func wakeReconciler(at instant: Timestamp?) {
    reconcilerWake?.cancel()
    guard let instant else { return }
    reconcilerWake = Task {
      do { try await Task.sleep(for: (instant - .now).duration) } catch { return }
      reconcilerDue = true
      reconcile()
    }
  }

  // MARK: - Dispatcher

  /// From the sessions. Ignored while another manager leads: such sessions are closed.
  func input(_ input: DispatcherInput) {
    guard leading else { return }
    carryOut(dispatcher.step(input, state: state, now: .now))
  }

  private func carryOut(_ outputs: [DispatcherOutput]) {
    for output in outputs {
      switch output {
      case .send(let session, let message): sessions.send(message, to: session)
      case .propose(let actions): enqueue(actions)
      case .close(let session, let reason): sessions.close(session, reason)
      case .refused(let session, let reason): log.warning("\(session): \(reason)")
      case .wakeAt(let instant):
        dispatcherWake?.cancel()
        dispatcherWake = Task {
          do { try await Task.sleep(for: (instant - .now).duration) } catch { return }
          input(.tick)
        }
      }
    }
  }

  /// Reports that come while one proposal is under way share the next entry.
  private func enqueue(_ actions: [Action]) {
    if let last = proposals.last, last.allSatisfy(\.isReport), actions.allSatisfy(\.isReport), last.count + actions.count <= 5000 {
      proposals[proposals.count - 1] += actions
    } else {
      proposals.append(actions)
    }
    guard !proposing else { return }
    proposing = true
    Task {
      while leading, !proposals.isEmpty {
        let actions = proposals.removeFirst()
        do {
          try await consensus.propose(Command(actions: actions))
        } catch ConsensusError.refused(let refusal) {
          log.warning("a report was refused: \(refusal)")
        } catch ConsensusError.busy {
          proposals.insert(actions, at: 0)
          try? await Task.sleep(for: .milliseconds(20))
        } catch {
          // Lost with the leadership: the agents tell the next leader everything again.
          log.debug("a report was not applied: \(error)")
        }
      }
      proposing = false
    }
  }
}

extension Action {
  /// Cannot be refused, so it may share an entry with others.
  fileprivate var isReport: Bool { if case .taskStatus = self { true } else { false } }
}

extension Timestamp {
  static var now: Timestamp {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return Timestamp(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
  }
}
