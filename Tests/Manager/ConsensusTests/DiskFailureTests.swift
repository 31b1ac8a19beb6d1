import Consensus
import Glibc
import Model
import Raft
import Testing

/// A real file system that is full, a real fsync that fails.
@Suite(.timeLimit(.minutes(5))) struct DiskFailureTests {
  static let big = String(repeating: "x", count: 4000)

  @Test("a lone manager whose disk is full acknowledges nothing, says why, answers reads, and goes on by itself when there is room")
  func fullAlone() async throws {
    let disk = try #require(SmallDisk(kibibytes: 4096))
    let group = Group()
    // Of a disk that fails; one with room again is found sooner.
    group.retryFirst = .seconds(3600)
    try await group.form(1, first: disk.path)
    let member = try await group.leader()
    let ballast = disk.path + "/ballast"
    var accepted = 0
    try await member.propose(Command(actions: [volume("first")]))
    fill(ballast)
    let failure = await #expect(throws: ConsensusError.self) {
      while accepted < 1000 {
        try await member.propose(Command(actions: [volume("v\(accepted)" + Self.big)]))
        accepted += 1
      }
    }
    // Of the change whose write met it; the state's rows may have met it before.
    switch failure {
    case .unknownOutcome?, .storage?: break
    default: throw Missing(what: "an unknown outcome: \(String(describing: failure))")
    }
    #expect(!member.isLeader)
    guard case .diskFull? = member.diskFailure else { throw Missing(what: "the reason: \(String(describing: member.diskFailure))") }
    // Who asks is told: file, errno, what to do.
    let refusal = await #expect(throws: ConsensusError.self) { try await member.propose(Command(actions: [volume("later")])) }
    let text = "\(refusal!)"
    #expect(text.contains(disk.path) && text.contains("errno 28") && text.contains("free some space"), "\(text)")
    #expect(try await member.linearizableState().volumes.count >= accepted + 1)
    #expect(try await member.status().diskFailure != nil)

    unlink(ballast)
    try await eventually("it leads again") { member.isLeader }
    #expect(member.diskFailure == nil)
    try await member.propose(Command(actions: [volume("after")]))
    let names = try await member.linearizableState().volumes.keys
    #expect((0..<accepted).allSatisfy { names.contains("v\($0)" + Self.big) } && names.contains("after") && !names.contains("later"))
    await group.stop(1)
  }

  @Test("a leader whose disk is full hands over without an election timeout; with room again it follows and has everything")
  func fullLeader() async throws {
    let disk = try #require(SmallDisk(kibibytes: 8192))
    let group = Group()
    group.electionTicks = 300
    try await group.form(3, first: disk.path)
    let first = try await group.leader()
    try await first.propose(Command(actions: [volume("first")]))
    let ballast = disk.path + "/ballast"
    fill(ballast)
    let clock = ContinuousClock()
    while first.isLeader { _ = try? await first.propose(Command(actions: [volume(String(UInt64.random(in: 0...UInt64.max)) + Self.big)])) }
    let failed = clock.now
    try await eventually("another leads") { group.members.values.contains { $0 !== first && $0.isLeader } }
    // Three seconds and more by silence.
    #expect(clock.now - failed < .seconds(2))
    let second = try await group.leader()
    try await second.propose(Command(actions: [volume("meanwhile")]))
    // It knows where to send those who ask.
    try await eventually("it hears who leads") { first.leader?.id == second.id }
    #expect(first.diskFailure != nil && first.snapshot.volumes["meanwhile"] == nil)
    unlink(ballast)
    try await eventually("it follows") { first.diskFailure == nil && first.snapshot.volumes["meanwhile"] != nil }
    for number in 1...3 { await group.stop(number) }
  }

  @Test("what a failed fsync was to make durable is not acknowledged, nor is anything after it, until the disk works; then what was is there")
  func failedSync() async throws {
    let group = Group()
    try await group.form(1)
    let member = try await group.leader()
    for number in 0..<20 { try await member.propose(Command(actions: [volume("v\(number)")])) }
    let before = FailingSync.failures
    FailingSync.begin(below: group.folder)
    await #expect(throws: ConsensusError.self) { try await member.propose(Command(actions: [volume("lost?")])) }
    guard case .io(let operation, let cause)? = member.diskFailure else { throw Missing(what: "\(String(describing: member.diskFailure))") }
    #expect(operation.contains("fsync \(group.path(1))") && cause.contains("errno 5"), "\(operation): \(cause)")
    await #expect(throws: ConsensusError.self) { try await member.propose(Command(actions: [volume("refused")])) }
    try await eventually("it tried again, as a new start") { FailingSync.failures > before + 1 }
    #expect(!member.isLeader && member.diskFailure != nil)
    FailingSync.end(below: group.folder)
    try await eventually("it leads again") { member.isLeader }
    try await member.propose(Command(actions: [volume("after")]))
    let names = try await member.linearizableState().volumes.keys
    #expect((0..<20).allSatisfy { names.contains("v\($0)") } && names.contains("after") && !names.contains("refused"))
    // And it is the same after a restart.
    await group.stop(1)
    try await group.start(1)
    #expect(try await group.leader().linearizableState().volumes.keys.sorted() == names.sorted())
  }
}

/// Takes all that is left.
private func fill(_ path: String) {
  let descriptor = open(path, O_WRONLY | O_CREAT, 0o600)
  let block = [UInt8](repeating: 0, count: 4096)
  while write(descriptor, block, block.count) > 0 {}
  close(descriptor)
}
