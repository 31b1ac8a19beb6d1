import Foundation
import Testing

@Suite("Safety under faults")
struct SafetyTests {
  /// "7" or "1-3000".
  static func seeds(_ text: String) -> ClosedRange<UInt64>? {
    let ends = text.split(separator: "-").compactMap { UInt64($0) }
    guard let first = ends.first, let last = ends.last, first <= last else { return nil }
    return first...last
  }

  /// ORCH_SEED=N replays one (N-M: many), with ten times the steps if ORCH_STEPS says so.
  @Test("200 seeds of loss, reordering, doubles and crashes break nothing, and healed groups go on")
  func seeds() throws {
    let environment = ProcessInfo.processInfo.environment
    let steps = environment["ORCH_STEPS"].flatMap { Int($0) } ?? 3000
    let seeds = environment["ORCH_SEED"].flatMap(Self.seeds) ?? 1...200
    var (committed, reads, elections, snapshots, configurations) = (0, 0, 0, 0, 0)
    for seed in seeds {
      var simulation = Simulation(seed: seed)
      do {
        try simulation.run(steps: steps)
      } catch {
        Issue.record("\(error); replay: ORCH_SEED=\(seed) swift test --filter RaftTests.SafetyTests")
      }
      committed += simulation.committed
      reads += simulation.answeredReads
      elections += simulation.elections
      snapshots += simulation.snapshots
      configurations += simulation.configurations
    }
    // The runs must have gone where it hurts.
    if seeds.count > 1 {
      #expect(committed > 5_000 && reads > 500 && elections > 400 && snapshots > 50 && configurations > 100)
    }
  }

  /// It applied its own demotion and crashes with a longer log than the remaining voter, which has not heard of the commit and needs its
  /// vote, for members count by the applied configuration. The refusal tells of the commit.
  @Test("a group of two shrunk to one goes on when the demoted leader crashes before it told")
  func demotedLeaderCrashes() throws {
    var simulation = Simulation(seed: 1721)
    try simulation.run(steps: 3000)
  }
}
