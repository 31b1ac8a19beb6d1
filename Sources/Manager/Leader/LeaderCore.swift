// Leader: what a manager does while it leads, beside answering: `Reconciler` and `Dispatcher` in one pure value.
//
// Everything it decides from is the applied state; everything it decides is proposed. It does nothing while another manager leads.
//
// Invariants
// - One decision of the reconciler is in flight at a time, and the next one sees what became of it.
// - Agents' reports that come while one proposal is under way share the next entry.
// - What was decided in one term is never taken up in another: a new leadership begins from the state.
//
// It refuses to know sockets, timers and how a proposal becomes an entry: the shell (Daemon's ControlLoop) carries its outputs out.
import Dispatcher
import Model
import Orchestrator

public struct LeaderCore: Sendable {
  /// After a decision or a report whose fate is unknown.
  static let retryAfter = Nanoseconds.milliseconds(100)
  /// After a report that the cluster could not take.
  static let busyRetryAfter = Nanoseconds.milliseconds(20)
  /// Reports in one entry. The queue itself holds at most what the sessions reported since the last entry.
  static let reportsMax = 5_000
  /// Of their texts, well below what one entry may hold.
  static let reportBytesMax = 1 << 20

  /// What became of the reconciler's last decision.
  enum Flight: Sendable {
    case none
    case proposed(ProposalNumber)
    /// Committed, and not yet in `state`.
    case applied(index: UInt64)
    /// Its fate is unknown: decide anew from this instant on.
    case retry(at: Timestamp)
  }

  /// The term that this manager leads in; another term is another leadership, even with nobody in between.
  public private(set) var term: UInt64?
  private var lastTerm: UInt64?
  /// Where the manager is that led before this one does. Its node may not be in the state yet when it is first heard of.
  private var predecessor: String?
  public private(set) var state = ClusterState()
  private var numbers: UInt64 = 0

  var reconciler = Reconciler()
  var changes: [StateChange] = []
  var isDue = false
  var flight = Flight.none
  var reconcilerWake: Timestamp?

  var dispatcher = Dispatcher()
  var dispatcherWake: Timestamp?
  var reports: [[Action]] = []
  var reporting: (number: ProposalNumber, actions: [Action])?
  var reportWake: Timestamp?
  /// The last one failed, and that was said.
  var isReportingInTrouble = false
  /// The tick that was asked for last.
  private var askedFor: Timestamp?

  public init() {}

  public var isLeading: Bool { term != nil }

  public mutating func step(_ input: LeaderInput, now: Moment, generator: inout some RandomNumberGenerator) -> [LeaderOutput] {
    var outputs: [LeaderOutput] = []
    switch input {
    case .leads(let term, let state): if term != self.term { lead(term, state, now, &outputs) }
    case .follows(let leader):
      if let leader { predecessor = leader }
      if isLeading { resign(&outputs) }
    case .changes(let changes, let state): follow(changes, state, now, &outputs)
    case .resync(let state):
      // The first one says nothing new to a leader.
      if state.index > self.state.index {
        advance(to: state)
        if isLeading { begin(again: true, now, &outputs) }
      }
    case .session(let input): if isLeading { carryOut(dispatcher.step(input, state: state, now: now.steady), &outputs) }
    case .answered(let number, let answer): if isLeading { settle(number, answer, now, &outputs) }
    case .ports(let asked, let taken): reconciler.learn(asked: asked, taken: taken)
    case .tick: askedFor = nil
    }
    guard isLeading else { return outputs }
    wake(now, &outputs)
    report(now, &outputs)
    decide(now, &outputs, &generator)
    askForTick(&outputs)
    return outputs
  }

  mutating func nextNumber() -> ProposalNumber {
    numbers += 1
    return ProposalNumber(numbers)
  }

  // MARK: - Leadership

  private mutating func lead(_ term: UInt64, _ state: ClusterState, _ now: Moment, _ outputs: inout [LeaderOutput]) {
    if isLeading { resign(&outputs) }
    self.term = term
    // The stream of changes may be behind or ahead.
    if state.index > self.state.index { self.state = state }
    let before = self.state.nodes.values.first { $0.manager != nil && $0.manager?.address == predecessor }?.id
    // A term has one leader at most: nobody led between two terms that follow each other.
    begin(after: before, again: lastTerm.map { $0 + 1 } == term, now, &outputs)
    lastTerm = term
    predecessor = nil
  }

  private mutating func resign(_ outputs: inout [LeaderOutput]) {
    term = nil
    reports = []
    reporting = nil
    isReportingInTrouble = false
    flight = .none
    (reconcilerWake, dispatcherWake, reportWake, askedFor) = (nil, nil, nil, nil)
    outputs.append(.closeAll(reason: "this manager does not lead any more"))
  }

  private mutating func begin(after predecessor: NodeID? = nil, again: Bool, _ now: Moment, _ outputs: inout [LeaderOutput]) {
    carryOut(dispatcher.reset(state: state, predecessor: predecessor, again: again, now: now.steady), &outputs)
    outputs.append(.announce)
    startOver()
  }

  private mutating func follow(_ changes: [StateChange], _ state: ClusterState, _ now: Moment, _ outputs: inout [LeaderOutput]) {
    // The state taken on gaining leadership may be ahead of these.
    guard state.index > self.state.index else { return }
    advance(to: state)
    guard isLeading else { return }
    carryOut(dispatcher.step(.changes(changes), state: state, now: now.steady), &outputs)
    self.changes += changes
  }

  private mutating func advance(to state: ClusterState) {
    self.state = state
    if case .applied(let index) = flight, index <= state.index { flight = .none }
  }

  // MARK: - Time

  private mutating func wake(_ now: Moment, _ outputs: inout [LeaderOutput]) {
    if let at = reconcilerWake, at <= now.steady {
      reconcilerWake = nil
      isDue = true
    }
    if let at = dispatcherWake, at <= now.steady {
      dispatcherWake = nil
      carryOut(dispatcher.step(.tick, state: state, now: now.steady), &outputs)
    }
    if let at = reportWake, at <= now.steady { reportWake = nil }
    if case .retry(let at) = flight, at <= now.steady {
      flight = .none
      startOver()
    }
  }

  private mutating func askForTick(_ outputs: inout [LeaderOutput]) {
    var wakes = [dispatcherWake, reportWake].compactMap { $0 }
    if case .retry(let at) = flight { wakes.append(at) }
    // While a decision is in flight its end comes first.
    if case .none = flight, let at = reconcilerWake { wakes.append(at) }
    guard let earliest = wakes.min(), earliest != askedFor else { return }
    askedFor = earliest
    outputs.append(.wakeAt(earliest))
  }
}

/// An instant by two clocks. What is written into the state is dated by the first, which may be set; how long an agent has been silent
/// is measured by the second, which nobody sets.
public struct Moment: Hashable, Sendable {
  public var wall: Timestamp
  /// Since an arbitrary beginning; only rises.
  public var steady: Timestamp
  public init(wall: Timestamp, steady: Timestamp) {
    self.wall = wall
    self.steady = steady
  }
}
