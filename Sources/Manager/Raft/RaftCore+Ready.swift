import Model

extension RaftCore {
  /// Whether `ready` would say something new. Writes and applications under way do not hold it up.
  public var hasReady: Bool {
    !messages.isEmpty || !messagesAfterPersistence.isEmpty || !readStates.isEmpty || log.hasEntriesToHandOut || log.hasEntriesToApply
      || log.snapshotToHandOut != nil || hardState != shownHardState || softState != shownSoftState
      || (role == .leader && (reads.wantsRound || members.contains { $0.send != .nothing }))
  }

  /// Hands out everything that is due, once; also while earlier writes are on their way.
  public mutating func ready() -> Ready {
    if role == .leader {
      if reads.wantsRound { broadcastHeartbeat() }
      flushAppends()
    }
    readyNumber += 1
    let snapshot = log.takeSnapshot()
    let entries = log.takeEntriesToPersist()
    let hard = hardState
    let ready = Ready(
      number: readyNumber, softState: softState == shownSoftState ? nil : softState, hardState: hard == shownHardState ? nil : hard,
      entries: entries, snapshot: snapshot, messages: messages, messagesAfterPersistence: messagesAfterPersistence,
      committedEntries: log.takeEntriesToApply(maxBytes: config.maxCommittedBytes), readStates: readStates,
      mustSync: !entries.isEmpty || snapshot != nil || hard.term != shownHardState.term || hard.vote != shownHardState.vote)
    shownHardState = hard
    shownSoftState = softState
    messages = []
    messagesAfterPersistence = []
    readStates = []
    if ready.needsPersistence {
      log.noteWrite(number: readyNumber, term: hard.term, votedForItself: hard.vote == id, snapshotIndex: snapshot?.index)
    }
    return ready
  }
}
