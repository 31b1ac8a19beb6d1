import Testing

@testable import Worker

@Suite("What the leader is told that this host lives by")
struct AppliedAssignmentsTests {
  @Test("what was refused is tried again after 250 ms, twice as long each time, 5 s at most: of the kernel and of the disk, each by itself")
  func refusals() {
    for isDisk in [false, true] {
      var applied = AppliedAssignments()
      func pass(_ succeeds: Bool) -> Duration? {
        let mark = applied.mark(1)
        return isDisk ? applied.written(mark, succeeded: succeeds) : applied.passed(mark, isWhole: succeeds, isDone: succeeds)
      }
      #expect(pass(true) == nil)
      let pauses = (1...40).map { _ in pass(false) }
      #expect(pauses.prefix(6) == [.milliseconds(250), .milliseconds(500), .seconds(1), .seconds(2), .seconds(4), .seconds(5)])
      #expect(pauses.dropFirst(5).allSatisfy { $0 == .seconds(5) })
      #expect(pass(true) == nil)
      #expect(pass(false) == .milliseconds(250))
    }
  }

  @Test("told is what the kernel has and the disk keeps, whichever comes last, and once")
  func both() {
    var applied = AppliedAssignments()
    applied.sessionOpened(1)
    #expect(applied.passed(applied.mark(1), isWhole: true, isDone: true) == nil && applied.toTell() == nil, "a crash now would forget it")
    #expect(applied.written(applied.mark(1), succeeded: true) == nil && applied.toTell() == 1 && applied.toTell() == nil)
    #expect(applied.written(applied.mark(2), succeeded: true) == nil && applied.toTell() == nil)
    #expect(applied.passed(applied.mark(4), isWhole: true, isDone: true) == nil && applied.toTell() == 2)
    #expect(applied.written(applied.mark(3), succeeded: true) == nil && applied.toTell() == 3)
    _ = applied.written(applied.mark(4), succeeded: false)
    #expect(applied.toTell() == nil, "the disk is full")
    #expect(applied.written(applied.mark(5), succeeded: true) == nil && applied.toTell() == 4)
    applied.unchanged(applied.mark(5))
    #expect(applied.toTell() == 5, "assignments that ask nothing of the kernel")
  }

  @Test("rules that were refused are not told; what else of a container was is tried again, and told")
  func refused() {
    var applied = AppliedAssignments()
    applied.sessionOpened(1)
    _ = applied.written(applied.mark(9), succeeded: true)
    #expect(applied.passed(applied.mark(1), isWhole: false, isDone: false) == .milliseconds(250) && applied.toTell() == nil)
    applied.unchanged(applied.mark(2))
    #expect(applied.toTell() == nil, "rules are as refused as before")
    #expect(applied.passed(applied.mark(3), isWhole: true, isDone: false) == .milliseconds(500) && applied.toTell() == 3)
    #expect(applied.passed(applied.mark(3), isWhole: true, isDone: true) == nil && applied.toTell() == nil)
  }

  @Test("numbers of an earlier session say nothing in the next")
  func sessions() {
    var applied = AppliedAssignments()
    applied.sessionOpened(1)
    let before = applied.mark(7)
    _ = applied.passed(before, isWhole: true, isDone: true)
    applied.sessionOpened(2)
    _ = applied.written(before, succeeded: true)
    _ = applied.passed(before, isWhole: true, isDone: true)
    applied.unchanged(before)
    #expect(applied.toTell() == nil)
    _ = applied.passed(applied.mark(nil), isWhole: true, isDone: true)
    _ = applied.written(applied.mark(nil), succeeded: true)
    #expect(applied.toTell() == nil)
    _ = applied.passed(applied.mark(1), isWhole: true, isDone: true)
    _ = applied.written(applied.mark(2), succeeded: true)
    #expect(applied.toTell() == 1)
  }
}
