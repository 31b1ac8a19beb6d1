import Model

public enum RaftError: Error, Hashable, Sendable, CustomStringConvertible {
  /// Ask the leader, if there is one.
  case notLeader(leader: RaftID?)
  /// Too many bytes wait for commitment; nothing was appended. Try again.
  case busy(uncommittedBytes: Int, bound: Int)
  /// Leadership is being handed over; nothing was appended. Try again.
  case transferring(to: RaftID)
  /// An earlier change of the members is not applied yet. Try again.
  case configurationPending(index: LogIndex)
  case invalidConfiguration(String)
  case notVoter(RaftID)
  /// Broken promises (a lost disk, two leaders): the shell stops this member and says so; going on could lose data.
  case inconsistent(String)

  public var description: String {
    switch self {
    case .notLeader(let leader?): "this manager does not lead the cluster; manager \(leader) does"
    case .notLeader(nil): "the cluster has no leader; try again when a majority of its managers is up"
    case .busy(let bytes, let bound): "propose: \(bytes) bytes already wait for a majority of the managers, \(bound) are allowed; try again"
    case .transferring(let target): "propose: leadership is being handed to manager \(target); try again"
    case .configurationPending(let index): "change managers: the change at log index \(index) is not applied yet; try again"
    case .invalidConfiguration(let reason): "change managers: \(reason)"
    case .notVoter(let id): "transfer leadership: manager \(id) has no vote"
    case .inconsistent(let reason): "the replicated log is inconsistent: \(reason)"
    }
  }
}
