import Model

/// Why a question to the Raft group was not answered, or why a member ended.
public enum ConsensusError: Error, Sendable, CustomStringConvertible {
  /// Nothing happened. Ask the leader, if there is one.
  case notLeader(leader: RaftPeer?)
  /// Nothing happened: too much waits already, or leadership is being handed over. Try again.
  case busy(String)
  /// Nothing happened: the change does not fit into one log entry.
  case tooLarge(bytes: Int, bound: Int)
  /// Applied on no manager: the state does not allow it.
  case refused(Refusal)
  /// Leadership was lost on the way: it may or may not be applied. Read before trying again.
  case unknownOutcome
  /// A read that no majority confirmed in time.
  case unavailable
  /// Nothing happened: the members may not be changed like this.
  case membership(String)
  /// Nothing happened: this manager's disk takes no writes. It goes on by itself when that passes (`StoreError.mayPass`), else it ends.
  case storage(StoreError)
  /// What the log holds contradicts itself or cannot be understood; going on could lose data.
  case inconsistent(String)
  /// This manager was removed from the cluster.
  case removed
  /// It does not run (any more).
  case stopped

  public var description: String {
    switch self {
    case .notLeader(let leader?): "this manager does not lead the cluster; the one at \(leader.address) does"
    case .notLeader(nil): "the cluster has no leader; try again when a majority of its managers is up"
    case .busy(let reason): "the cluster cannot take more changes now (\(reason)); try again"
    case .tooLarge(let bytes, let bound):
      "the change is too large: \(bytes) bytes, at most \(bound) are possible; split it, or make the manifest smaller"
    case .refused(let refusal): "\(refusal)"
    case .unknownOutcome: "the leader changed while the change was made: it may or may not have been applied; look before you try again"
    case .unavailable: "no majority of the managers confirmed the read in time; try again when a majority is up"
    case .membership(let reason): reason
    case .storage(let error) where !error.mayPass: "\(error)"
    case .storage(let error): "this manager's disk takes no changes: \(error)"
    case .inconsistent(let reason):
      "the replicated log is inconsistent: \(reason); this manager stops. `orch-manager reseed` on its host takes the state from the others"
    case .removed: "this manager was removed from the cluster; join again with an empty folder"
    case .stopped: "this manager's Raft member does not run"
    }
  }
}
