import DequeModule
import Model

/// What a leader believes of one member (itself included); other roles keep the list for votes only.
struct Progress: Sendable {
  enum Send: Sendable { case nothing, ifNew, evenIfEmpty }

  let id: RaftID
  var isIncomingVoter = false
  var isOutgoingVoter = false
  /// Known to be durable there.
  var match: LogIndex = 0
  /// The next entry to send; in `replicate` it runs ahead of `match`.
  var next: LogIndex
  var replication: RaftStatus.Replication = .probe
  /// Says nothing more until an answer (probe), room (replicate) or a heartbeat's answer comes.
  var isPaused = false
  var isRecentlyActive = false
  /// In the period before this one: a period has just begun for a while, and nobody has answered in it yet.
  var wasRecentlyActive = false
  var pendingSnapshotIndex: LogIndex = 0
  var inflights = Inflights()
  /// The last heartbeat round that it answered.
  var ackedRound: UInt64 = 0
  /// Nil: has not answered in this election.
  var vote: Bool?
  /// What the next `ready` shall send to it.
  var send = Send.nothing

  init(id: RaftID, next: LogIndex) {
    self.id = id
    self.next = next
  }

  var isVoter: Bool { isIncomingVoter || isOutgoingVoter }
  var isSilent: Bool { isPaused || replication == .snapshot }

  mutating func reset(next: LogIndex, match: LogIndex) {
    self.match = match
    self.next = next
    replication = .probe
    isPaused = false
    isRecentlyActive = false
    wasRecentlyActive = false
    pendingSnapshotIndex = 0
    inflights.removeAll()
    ackedRound = 0
    vote = nil
    send = .nothing
  }

  mutating func becomeProbe() {
    next = replication == .snapshot ? max(match, pendingSnapshotIndex) + 1 : match + 1
    replication = .probe
    isPaused = false
    pendingSnapshotIndex = 0
    inflights.removeAll()
  }

  mutating func becomeReplicate() {
    replication = .replicate
    isPaused = false
    pendingSnapshotIndex = 0
    inflights.removeAll()
    next = match + 1
  }

  mutating func becomeSnapshot(index: LogIndex) {
    replication = .snapshot
    isPaused = false
    pendingSnapshotIndex = index
    inflights.removeAll()
  }

  /// False: old news.
  mutating func matched(upTo index: LogIndex) -> Bool {
    guard index > match else { return false }
    match = index
    next = max(next, index + 1)
    isPaused = false
    return true
  }

  /// The message whose previous entry was `rejected` did not fit. False: an old rejection.
  mutating func rejected(_ rejected: LogIndex, possibleMatch: LogIndex) -> Bool {
    if replication == .replicate {
      guard rejected > match else { return false }
      next = match + 1
      return true
    }
    guard next - 1 == rejected else { return false }
    next = max(min(rejected, possibleMatch + 1), match + 1)
    isPaused = false
    return true
  }
}

/// Append messages on their way to one peer, bounded by number and bytes.
struct Inflights: Sendable {
  private var window: Deque<(last: LogIndex, bytes: Int)> = []
  private(set) var bytes = 0

  var count: Int { window.count }
  func isFull(maxMessages: Int, maxBytes: Int) -> Bool { window.count >= maxMessages || bytes >= maxBytes }

  mutating func add(last: LogIndex, bytes: Int) {
    window.append((last, bytes))
    self.bytes += bytes
  }

  /// Everything up to this index arrived.
  mutating func free(upTo index: LogIndex) {
    while let first = window.first, first.last <= index {
      bytes -= first.bytes
      window.removeFirst()
    }
  }

  mutating func removeAll() {
    guard !window.isEmpty else { return }
    window.removeAll(keepingCapacity: true)
    bytes = 0
  }
}
