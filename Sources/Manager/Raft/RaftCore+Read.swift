import DequeModule
import Model

/// Reads on their way, and the rounds of heartbeats that confirm them (Raft thesis 6.4).
struct PendingReads: Sendable {
  struct Read: Sendable {
    var from: RaftID
    var context: UInt64
    var index: LogIndex
    var round: UInt64
  }
  /// The last round of heartbeats that was sent in this term.
  private(set) var round: UInt64 = 0
  /// When unconfirmed rounds were sent.
  private var sent: Deque<(round: UInt64, tick: UInt64)> = []
  /// When the newest confirmed round was sent: the lease counts from there.
  private(set) var confirmedAt: UInt64?
  /// Leadership was offered to another in this term: its forced election ignores shields, so no lease holds any more.
  var hasForfeitedLease = false
  /// Waiting for a round, in its order.
  var waiting: Deque<Read> = []
  /// Asked for before the leader committed an entry of its own term.
  var postponed: [Read] = []

  var wantsRound: Bool { waiting.last.map { $0.round > round } ?? false }

  mutating func beginRound(at tick: UInt64) -> UInt64 {
    round += 1
    if sent.count >= 1024 { sent.removeFirst() }
    sent.append((round, tick))
    return round
  }

  mutating func confirm(upTo reached: UInt64) {
    while let first = sent.first, first.round <= reached {
      confirmedAt = first.tick
      sent.removeFirst()
    }
  }

  mutating func forgetLease() {
    confirmedAt = nil
    sent.removeAll()
  }
}

extension RaftCore {
  /// The answer comes as a `ReadState` with this context, or never (leader lost): ask again after a timeout. Also on followers, which ask
  /// the leader. Throws `notLeader(nil)`.
  public mutating func readIndex(context: UInt64, mode: ReadMode = .quorum) throws(RaftError) {
    if role == .leader {
      read(from: id, context: context, mode: mode)
    } else if let leader {
      send(.readIndex(context: context), to: leader)
    } else {
      throw .notLeader(leader: nil)
    }
  }

  mutating func read(from: RaftID, context: UInt64, mode: ReadMode) {
    var read = PendingReads.Read(from: from, context: context, index: log.committed, round: reads.round + 1)
    guard reads.postponed.count + reads.waiting.count < config.maxPendingReads else { return }
    guard hasCommittedInTerm else {
      reads.postponed.append(read)
      return
    }
    if mode == .lease, isLeaseValid {
      answer(read)
      return
    }
    read.index = log.committed
    reads.waiting.append(read)
    releaseReads()
  }

  /// Raft section 8: before, it does not know what is committed.
  var hasCommittedInTerm: Bool { log.term(at: log.committed) == term }

  /// Voters that answered the round shield this leader for an election timeout from when they got it; one tick is kept for skew.
  private var isLeaseValid: Bool {
    guard config.leaseReads, !reads.hasForfeitedLease, let since = reads.confirmedAt else { return false }
    return ticks - since + 1 < UInt64(config.electionTicks)
  }

  mutating func admitPostponedReads() {
    guard !reads.postponed.isEmpty, hasCommittedInTerm else { return }
    for var read in reads.postponed {
      read.index = log.committed
      read.round = reads.round + 1
      reads.waiting.append(read)
    }
    reads.postponed = []
    releaseReads()
  }

  mutating func releaseReads() {
    let reached = Quorum.reached(members) { $0.id == config.id ? .max : $0.ackedRound }
    reads.confirm(upTo: reached)
    while let read = reads.waiting.first, read.round <= reached {
      reads.waiting.removeFirst()
      answer(read)
    }
  }

  private mutating func answer(_ read: PendingReads.Read) {
    if read.from == id {
      readStates.append(ReadState(context: read.context, index: read.index))
    } else {
      send(.readIndexResponse(index: read.index, context: read.context), to: read.from)
      // It answers once it has applied that.
      if isCommitUntold, let position = position(of: read.from) { request(.evenIfEmpty, position) }
    }
  }
}
