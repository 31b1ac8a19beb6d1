import Dispatcher
import Model

/// Of one leader's proposals; never used twice.
public struct ProposalNumber: Hashable, Sendable {
  public let rawValue: UInt64
  public init(_ rawValue: UInt64) { self.rawValue = rawValue }
}

public enum ProposalAnswer: Sendable {
  /// At this index of the log.
  case applied(index: UInt64)
  case refused(Refusal)
  /// Nothing happened; it may be tried again.
  case busy(String)
  /// Nothing happened, and nothing will in this term.
  case notLeading
  /// It may or may not be applied.
  case failed(String)
}

public enum LeaderInput: Sendable {
  /// This manager leads in `term`; `state` holds everything committed before it.
  case leads(term: UInt64, state: ClusterState)
  /// It does not. With the address of whoever does, if that is known.
  case follows(leader: String?)
  /// Applied entries, and the state right after them.
  case changes([StateChange], ClusterState)
  /// Changes were left out: begin again from this state.
  case resync(ClusterState)
  /// From an agent's session. Ignored while another manager leads: such sessions are closed.
  case session(DispatcherInput)
  case answered(ProposalNumber, ProposalAnswer)
  /// Hosts were asked who has these ports; processes have `taken`.
  case ports(asked: [PortClaim], taken: [PortClaim])
  /// The instant asked for by `wakeAt` has come.
  case tick
}

public enum LeaderOutput: Sendable {
  /// One entry; to be answered by `.answered` once, unless the leadership ends before.
  case propose(ProposalNumber, Command)
  case send(SessionID, AssignmentsMessage)
  case close(SessionID, reason: String)
  case closeAll(reason: String)
  /// Tell every session where the managers are.
  case announce
  /// By the steady clock. Replaces the earlier wish: give `tick` at this instant.
  case wakeAt(Timestamp)
  /// For the log.
  case warning(String)
}
