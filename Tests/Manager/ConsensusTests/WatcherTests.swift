import Model
import Surroundings
import Synchronization
import Testing

@testable import Consensus

@Suite(.timeLimit(.minutes(5))) struct WatcherTests {
  @Test("a watcher holds no lock while it asks for the state: whoever holds the state's may ask the watcher")
  func lockOrder() async throws {
    let asked = Mutex<Watcher?>(nil)
    let answered = Mutex(false)
    let watcher = Watcher(bound: 4) {
      let watcher = asked.withLock { $0 }
      let answers = Mailbox<Bool>()
      startThread("other") { _ = answers.put(watcher?.isFinished == false) }
      let answer = answers.take(until: UInt64(Timestamp.steady.nanoseconds) + 2_000_000_000)
      answered.withLock { $0 = answer == [true] }
      return ClusterState()
    }
    asked.withLock { $0 = watcher }
    guard case .resync = await watcher.next() else { return #expect(Bool(false), "no resync first") }
    #expect(answered.withLock { $0 }, "the watcher was not to be asked while it read the state")
    asked.withLock { $0 = nil }
  }

  @Test("what is applied between the beginning of a watch and its first reading is told")
  func fromNow() async throws {
    let group = Group()
    try await group.form(1)
    let member = try await group.leader()
    let changes = await member.changesFromNow()
    for name in ["a", "b"] { try await member.propose(Command(actions: [volume(name)])) }
    let reader = Task {
      var names: [String] = []
      for await batch in changes {
        for case .volume(_, let new?) in batch.changes { names.append(new.name) }
        if names.contains("c") { break }
      }
      return names
    }
    try await Task.sleep(for: .milliseconds(50))
    try await member.propose(Command(actions: [volume("c")]))
    #expect(await reader.value == ["a", "b", "c"])
  }

  @Test("a watch that nobody has any more is over, whether it was read or not")
  func dropped() async throws {
    let group = Group()
    try await group.form(1)
    let member = try await group.leader()
    let before = member.watcherCount
    do { _ = member.changes() }
    do { for await _ in member.changes() { break } }
    _ = member.changes()
    #expect(member.watcherCount <= before + 1)
  }

  @Test("what is applied while a watcher reads the state is neither lost nor told twice")
  func appliedMeanwhile() async throws {
    let watched = Mutex<Watcher?>(nil)
    let watcher = Watcher(bound: 4) {
      let watcher = watched.withLock { $0 }
      for index in 1...3 as ClosedRange<UInt64> { watcher?.offer(ChangeBatch(index: index, changes: [], state: state(at: index))) }
      return state(at: 2)
    }
    watched.withLock { $0 = watcher }
    guard case .resync(let first)? = await watcher.next() else { return #expect(Bool(false), "no resync first") }
    #expect(first.index == 2)
    guard case .changes(let batch)? = await watcher.next() else { return #expect(Bool(false), "no change after it") }
    #expect(batch.index == 3)
    watched.withLock { $0 = nil }
  }
}

private func state(at index: UInt64) -> ClusterState {
  var state = ClusterState()
  state.skip(to: index)
  return state
}
