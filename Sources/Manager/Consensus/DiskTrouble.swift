import LinuxSystem
import Logging
import Model
import Raft
import Replica

/// The time while the disk takes no writes: this manager is as dead to the others, and alive to whoever asks it.
struct DiskTrouble {
  var error: StoreError
  /// As it was when the disk failed; `leader` is kept up by what is heard.
  var view: ReplicaCore.View
  var status: ConsensusStatus
  var attempts: Int
  /// Nanoseconds of CLOCK_MONOTONIC.
  var nextAttempt: UInt64
  var isTrying = false

  var deadline: UInt64 { isTrying ? .max : nextAttempt }
  /// Nobody else can have changed anything.
  var isAlone: Bool { view.membership.ids(.voter) == [status.id] }
}

extension ReplicaDriver {
  func diskFailed(_ error: StoreError, _ view: ReplicaCore.View, _ status: ConsensusStatus) {
    var (view, status) = (view, status)
    let led = status.role == .leader
    view.leadership = .follower(leader: nil)
    view.leader = nil
    view.diskFailure = error
    status.role = .follower
    status.leader = nil
    status.diskFailure = error
    // A disk that fails again soon after it worked is left alone as long as before.
    let now = MonotonicClock.now
    let attempts = lastRecovery.map { now - $0.time < 60_000_000_000 ? $0.attempts : 0 } ?? 0
    trouble = DiskTrouble(error: error, view: view, status: status, attempts: attempts, nextAttempt: now + pause(after: attempts, error))
    log.critical(
      "the disk takes no writes: this manager acknowledges nothing until it does",
      metadata: ["error": "\(error)", "led": "\(led)", "applied": "\(status.applied)"])
    publish(view, nil, false)
  }

  func retryIfDue(_ now: UInt64) {
    guard let trouble, !trouble.isTrying, now >= trouble.nextAttempt else { return }
    self.trouble!.isTrying = true
    self.trouble!.attempts += 1
    disk.reopen(room: configuration.roomBytes)
  }

  func failedAgain(_ error: StoreError) {
    guard var trouble else { return }
    let wait = pause(after: trouble.attempts, error)
    if trouble.error != error { log.error("the disk still takes no writes", metadata: ["error": "\(error)", "attempts": "\(trouble.attempts)"]) }
    trouble.isTrying = false
    trouble.error = error
    trouble.view.diskFailure = error
    trouble.status.diskFailure = error
    trouble.nextAttempt = MonotonicClock.now + wait
    self.trouble = trouble
    publish(trouble.view, nil, false)
  }

  func overcame() {
    guard let trouble else { return }
    log.notice("the disk takes writes again", metadata: ["attempts": "\(trouble.attempts)"])
    lastRecovery = (MonotonicClock.now, trouble.attempts)
    self.trouble = nil
  }

  /// Nanoseconds; the first attempt comes after `retryFirst`. Whether there is room again costs one fallocate to ask, and a cluster that has
  /// no majority meanwhile waits for the answer; only a disk that fails is spared.
  private func pause(after attempts: Int, _ error: StoreError) -> UInt64 {
    let first = configuration.retryFirst / .nanoseconds(1)
    let isFull = if case .diskFull = error { true } else { false }
    let most = (isFull ? min(configuration.retryMax, configuration.retryRoomMax) : configuration.retryMax) / .nanoseconds(1)
    var pause = first
    for _ in 0..<min(attempts, 32) where pause < most { pause *= 2 }
    return UInt64(min(pause, most))
  }

  func answerInTrouble(_ input: ReplicaCore.Input) {
    guard let trouble else { return }
    let refusal = ReplicaCore.Answer.failed(.storage(trouble.error))
    switch input {
    case .propose(_, let request), .changeMembers(_, _, let request), .transfer(_, let request), .flush(let request): reply(request, refusal)
    case .read(let request): reply(request, trouble.isAlone ? .state(trouble.view.state) : refusal)
    case .status(let request): reply(request, .status(trouble.status))
    case .message(let message): hear(message)
    case .stop: end = .stopped
    case .removed: end = .removed
    case .snapshot, .contact, .unreachable, .snapshotSent, .written, .tick, .campaign: break
    }
  }

  /// Whoever sends what only leaders send: requests are passed on to it.
  private func hear(_ message: Message) {
    guard var trouble, message.term >= trouble.status.term else { return }
    switch message.body {
    case .append, .heartbeat, .snapshot: break
    default: return
    }
    trouble.status.term = message.term
    trouble.status.leader = message.from
    if trouble.view.leader?.id != message.from {
      trouble.view.leader = trouble.view.membership.address(of: message.from).map { RaftPeer(id: message.from, address: $0) }
      trouble.view.leadership = .follower(leader: trouble.view.leader)
      publish(trouble.view, nil, false)
    }
    self.trouble = trouble
  }
}
