import Dispatcher
import Leader
import Model
import Raft
import Replica

/// One manager's machine: its disk, its clocks and, while it is up, its process.
final class ManagerHost {
  let number: Int
  let raftID: RaftID
  let node: NodeID
  let disk: SimulatedDisk

  /// Rises with each start and each crash: what was under way for an earlier life comes to nothing.
  var life = 0
  var isUp = false
  /// Removed from the cluster, or its disk is lost: this one never comes back.
  var isGone = false
  /// It stays down in phase two, and is not needed.
  var isDead = false
  var pausedUntil: Time = 0
  var wallOffset: Time = 0
  var ratePermille = 0
  var diskDelayMax: Int
  var failsNextSync = false

  // The process.
  var replica: ReplicaCore?
  var inbox: [ReplicaCore.Input] = []
  var isStepDue = false
  var view = ReplicaCore.View()
  var write: (batch: WriteBatch, number: UInt64)?
  var waiting: [RequestID: Waiting] = [:]
  var requests: UInt64 = 0

  var leader = LeaderCore()
  var news: [News] = []
  var isNewsDue = false
  var toldLeadership: Leadership?
  var wakeToken = 0
  var sessions: [SessionID: Connection] = [:]
  var lastSession: UInt64 = 0
  /// By planted faults only: what is on its way to the disk though it was said to be there.
  var unsynced: [WriteBatch] = []

  // What checkers remember of this life.
  var membershipBefore: Membership?
  var appliedSeen: UInt64 = 0
  /// When its dispatcher began, and with what.
  var ledSince: Time = 0
  var ledFrom = ClusterState()
  /// Of the state that its leader's core has.
  var ledIndex: UInt64 = 0
  var sentTo: [RaftID: [LogIndex]] = [:]

  enum Waiting {
    case client(Request)
    /// A user's operation waits for the state that it is made from.
    case operation(Request)
    case leader(ProposalNumber)
    /// A dial waits until it is sure that this manager leads.
    case session(AgentHost, life: Int, attempt: Int)
  }
  enum News {
    case changes(ChangeBatch)
    case resync(ClusterState)
  }

  init(number: Int, raftID: RaftID, node: NodeID, diskDelayMax: Int, fault: Fault?) {
    (self.number, self.raftID, self.node, self.diskDelayMax) = (number, raftID, node, diskDelayMax)
    disk = SimulatedDisk(fault: fault)
  }

  var address: String { "m\(number)" }

  /// The process is gone, and everything that only it knew.
  func forget() {
    life += 1
    isUp = false
    replica = nil
    (inbox, isStepDue, view, write) = ([], false, ReplicaCore.View(), nil)
    (waiting, news, isNewsDue, toldLeadership) = ([:], [], false, nil)
    leader = LeaderCore()
    sessions = [:]
    sentTo = [:]
    unsynced = []
  }

  func nextRequest(_ waiting: Waiting) -> RequestID {
    requests += 1
    let id = UInt64(life) << 32 | requests
    self.waiting[id] = waiting
    return id
  }

  func clock(_ now: Time) -> Time { now + now * Time(ratePermille) / 1_000 }
  func moment(_ now: Time) -> Moment {
    Moment(
      wall: Timestamp(nanoseconds: (World.epoch + clock(now) + wallOffset) * 1_000),
      steady: Timestamp(nanoseconds: (100_000_000 + clock(now)) * 1_000))
  }
}

/// Commands as bytes in the log: a number in a table, and as many bytes as they would roughly have. The number comes last.
final class CommandTable: @unchecked Sendable {
  private(set) var commands: [Command] = []
  private(set) var members: [Membership.Member] = []
  struct Unknown: Error {}

  func encode(_ command: Command) -> [UInt8] {
    commands.append(command)
    return [UInt8](repeating: 0, count: 40 * command.actions.count) + Self.bytes(UInt64(commands.count - 1))
  }

  func encode(_ member: Membership.Member) -> [UInt8] {
    members.append(member)
    return Self.bytes(UInt64(members.count - 1))
  }

  func command(_ data: [UInt8]) throws -> Command {
    let number = Self.number(data)
    guard number < UInt64(commands.count) else { throw Unknown() }
    return commands[Int(number)]
  }

  var decoder: ReplicaDecoder {
    ReplicaDecoder(
      command: { [self] in try command($0) },
      member: { [self] data in
        let number = Self.number(data)
        return number < UInt64(members.count) ? members[Int(number)] : nil
      })
  }

  private static func bytes(_ number: UInt64) -> [UInt8] { (0..<8).map { UInt8(truncatingIfNeeded: number >> UInt64(56 - 8 * $0)) } }
  private static func number(_ data: [UInt8]) -> UInt64 { data.suffix(8).reduce(0) { $0 << 8 | UInt64($1) } }
}
