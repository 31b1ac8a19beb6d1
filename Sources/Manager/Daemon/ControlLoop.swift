import Consensus
import Dispatcher
import FoundationEssentials
import Glibc
import Leader
import Logging
import Model
import Surroundings

/// The shell of `LeaderCore`: brings it what was applied and what agents say, and carries out what it decides.
actor ControlLoop {
  private let consensus: Consensus
  private let sessions: AgentSessions
  private let log: Logger
  private var core = LeaderCore()
  private var wake: Task<Void, Never>?

  init(consensus: Consensus, sessions: AgentSessions, log: Logger) {
    self.consensus = consensus
    self.sessions = sessions
    self.log = log
  }

  var isLeading: Bool { core.isLeading }

  /// Until the member ends.
  func run() async {
    await withTaskGroup(of: Void.self) { group in
      group.addTask { for await leadership in self.consensus.leadership() { await self.lead(leadership) } }
      group.addTask { for await event in self.consensus.changes() { await self.apply(event) } }
    }
    lead(.follower(leader: nil))
  }

  private func lead(_ leadership: Leadership) {
    let before = core.term
    switch leadership {
    case .leader(let term): step(.leads(term: term, state: consensus.snapshot))
    case .follower(let leader): step(.follows(leader: leader?.address))
    }
    guard core.term != before else { return }
    if let term = core.term {
      log.notice("this manager leads", metadata: ["term": "\(term)"])
    } else {
      wake?.cancel()
      log.notice("this manager does not lead any more")
    }
  }

  private func apply(_ event: ChangeEvent) {
    switch event {
    case .changes(let batch): step(.changes(batch.changes, batch.state))
    case .resync(let newest): step(.resync(newest))
    }
  }

  /// From the sessions.
  func input(_ input: DispatcherInput) { step(.session(input)) }

  /// From the API, which asked hosts.
  func learn(asked: [PortClaim], taken: [PortClaim]) { step(.ports(asked: asked, taken: taken)) }

  private func step(_ input: LeaderInput) {
    var generator = SystemRandomNumberGenerator()
    for output in core.step(input, now: .now, generator: &generator) {
      switch output {
      case .propose(let number, let command): propose(number, command)
      case .send(let session, let message): sessions.send(message, to: session)
      case .close(let session, let reason): sessions.close(session, reason)
      case .closeAll(let reason): sessions.closeAll(reason)
      case .announce: sessions.announce()
      case .wakeAt(let instant): sleep(until: instant)
      case .warning(let text): log.warning("\(text)")
      }
    }
  }

  private func propose(_ number: ProposalNumber, _ command: Command) {
    Task {
      let answer: ProposalAnswer
      do {
        answer = .applied(index: try await consensus.propose(command).index)
      } catch let error as ConsensusError {
        answer =
          switch error {
          case .refused(let refusal): .refused(refusal)
          case .busy(let reason): .busy(reason)
          case .notLeader, .stopped: .notLeading
          default: .failed("\(error)")
          }
      } catch {
        answer = .failed("\(error)")
      }
      step(.answered(number, answer))
    }
  }

  private func sleep(until instant: Timestamp) {
    wake?.cancel()
    wake = Task {
      do { try await Task.sleep(for: (instant - Moment.now.steady).duration) } catch { return }
      step(.tick)
    }
  }
}

extension Moment {
  static var now: Moment { Moment(wall: .now, steady: .steady) }
}
