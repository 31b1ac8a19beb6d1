import Dispatcher
import Model
import Orchestrator

extension LeaderCore {
  // MARK: - Reconciler: one decision in flight

  mutating func decide(_ now: Moment, _ outputs: inout [LeaderOutput], _ generator: inout some RandomNumberGenerator) {
    if reconciler.learn(resting: dispatcher.resting) { isDue = true }
    guard case .none = flight, isDue || !changes.isEmpty else { return }
    isDue = false
    let seen = changes
    changes = []
    let decision = reconciler.step(state: state, changes: seen, now: now.wall, generator: &generator)
    reconcilerWake = decision.wakeAt.map { now.steady + ($0 - now.wall) }
    guard let command = decision.command else { return }
    let number = nextNumber()
    flight = .proposed(number)
    outputs.append(.propose(number, command))
  }

  /// From the state as it is, and with every service.
  mutating func startOver() {
    reconciler.reset(state)
    changes = []
    isDue = true
  }

  // MARK: - Reports

  mutating func carryOut(_ decided: [DispatcherOutput], _ outputs: inout [LeaderOutput]) {
    for output in decided {
      switch output {
      case .send(let session, let message): outputs.append(.send(session, message))
      case .propose(let actions): enqueue(actions)
      case .close(let session, let reason): outputs.append(.close(session, reason: reason))
      case .refused(let session, let reason): outputs.append(.warning("\(session): \(reason)"))
      case .warning(let text): outputs.append(.warning(text))
      case .wakeAt(let instant): dispatcherWake = instant
      }
    }
  }

  private mutating func enqueue(_ actions: [Action]) {
    let bytes = actions.reportBytes
    if let last = reports.last, last.allSatisfy(\.isReport), actions.allSatisfy(\.isReport), last.count + actions.count <= Self.reportsMax,
      last.reportBytes + bytes <= Self.reportBytesMax
    {
      reports[reports.count - 1] += actions
    } else {
      reports.append(actions)
    }
  }

  mutating func report(_ now: Moment, _ outputs: inout [LeaderOutput]) {
    guard reporting == nil, reportWake == nil, !reports.isEmpty else { return }
    let actions = reports.removeFirst()
    let number = nextNumber()
    reporting = (number, actions)
    outputs.append(.propose(number, Command(actions: actions)))
  }

  // MARK: - What became of a proposal

  mutating func settle(_ number: ProposalNumber, _ answer: ProposalAnswer, _ now: Moment, _ outputs: inout [LeaderOutput]) {
    if let (reported, actions) = reporting, reported == number {
      reporting = nil
      switch answer {
      case .applied: isReportingInTrouble = false
      case .refused(let refusal): outputs.append(.warning("a report was refused: \(refusal)"))
      case .busy:
        reports.insert(actions, at: 0)
        reportWake = now.steady + Self.busyRetryAfter
      // The agents take it for told. Applied twice it says the same.
      case .failed(let reason):
        if !isReportingInTrouble { outputs.append(.warning("reports were not applied (\(reason)); trying again")) }
        isReportingInTrouble = true
        reports.insert(actions, at: 0)
        reportWake = now.steady + Self.retryAfter
      // Lost with the leadership: the agents tell the next leader everything again.
      case .notLeading: break
      }
    } else if case .proposed(number) = flight {
      switch answer {
      // The next decision must see what became of this one.
      case .applied(let index): flight = index <= state.index ? .none : .applied(index: index)
      // The news of that is on its way.
      case .notLeading: flight = .none
      case .refused(let refusal):
        outputs.append(.warning("a decision was not applied (\(refusal)); deciding anew"))
        flight = .none
        startOver()
      case .busy(let reason), .failed(let reason):
        outputs.append(.warning("a decision was not applied (\(reason)); deciding anew"))
        flight = .retry(at: now.steady + Self.retryAfter)
      }
    }
  }
}

extension [Action] {
  /// Roughly what they take in an entry.
  fileprivate var reportBytes: Int {
    reduce(0) { sum, action in
      guard case .taskStatus(_, let status) = action else { return sum + 128 }
      return sum + 128 + status.message.utf8.count + status.error.utf8.count + (status.health?.log.reduce(0) { $0 + $1.output.utf8.count + 32 } ?? 0)
    }
  }
}

extension Action {
  /// Cannot be refused, so it may share an entry with others.
  fileprivate var isReport: Bool { if case .taskStatus = self { true } else { false } }
}
