import Model
import Raft

/// Names a question; whoever asks chooses it, the answer carries it.
public typealias RequestID = UInt64

extension ReplicaCore {
  /// Every request gets exactly one answer, before `.ended` at the latest.
  public enum Input: Sendable {
    /// A serialised command. Answered with `.applied`.
    case propose([UInt8], RequestID)
    /// Linearizable. Answered with `.state`.
    case read(RequestID)
    /// Answered with `.applied`. `force`: also when too few of the rest are reachable.
    case changeMembers(ConfigurationChange, force: Bool, RequestID)
    /// Answered with `.done` once the other was asked.
    case transfer(RaftID, RequestID)
    case status(RequestID)
    /// Answered with `.done` once all rows of the state of now are on the disk.
    case flush(RequestID)

    case message(Message)
    /// Where a member is reached whose addition has not arrived here yet: it says so itself.
    case contact(RaftPeer)
    /// With all its bytes.
    case snapshot(IncomingSnapshot)
    /// A message to the peer was lost for sure.
    case unreachable(RaftID)
    /// How a `.sendSnapshot` ended; exactly once for each.
    case snapshotSent(RaftID, succeeded: Bool)
    /// Others say that this member was removed; the entry itself may never reach it.
    case removed

    /// The write of this number is durable, or it failed and nothing after it may be tried on the same database.
    case written(UInt64, failure: StoreError?)
    case tick
    case campaign
    /// What is applied is written, then it ends.
    case stop

    /// Of those that are answered.
    public var request: RequestID? {
      switch self {
      case .propose(_, let request), .read(let request), .changeMembers(_, _, let request), .transfer(_, let request), .status(let request),
        .flush(let request):
        request
      default: nil
      }
    }
  }

  public enum Output: Sendable {
    /// One transaction, one fsync; answer with `.written(number)`. The next comes only after that.
    case write(WriteBatch, number: UInt64)
    case send([Message], to: RaftPeer)
    /// Answer with `.snapshotSent`.
    case sendSnapshot(OutgoingSnapshot, to: RaftPeer)
    /// In place before the answers of the same step.
    case publish(View, ChangeBatch?, resync: Bool)
    case answer(RequestID, Answer)
    /// The members beside this one.
    case peersChanged([RaftPeer])
    /// For the log.
    case note(Note)
    /// The last output of all.
    case ended(ConsensusError)
  }

  public enum Answer: Sendable {
    case applied(index: UInt64, changes: [StateChange])
    case state(ClusterState)
    case status(ConsensusStatus)
    case done
    case failed(ConsensusError)
  }

  /// What the outside sees.
  public struct View: Sendable {
    public var state: ClusterState
    public var leadership: Leadership
    public var membership: Membership
    /// Of whichever member it believes leads, itself included.
    public var leader: RaftPeer?
    /// Set while this member's disk takes no writes; it then takes no part in the group.
    public var diskFailure: StoreError?
    public init(
      state: ClusterState = ClusterState(), leadership: Leadership = .follower(leader: nil), membership: Membership = Membership(),
      leader: RaftPeer? = nil
    ) {
      self.state = state
      self.leadership = leadership
      self.membership = membership
      self.leader = leader
    }
  }

  public enum Note: Sendable {
    case roleChanged(Role, leader: RaftID?, term: UInt64)
    case leading(term: UInt64)
    case sendingSnapshot(to: RaftPeer, index: UInt64)
    case installingSnapshot(index: UInt64)
    case compacted(to: UInt64)
    case membersChanged(Membership)
    case changeWithoutEffect(reason: String)
  }
}
