import Glibc
import LinuxSystem
import Synchronization
import Testing

@testable import Runtime

struct WatcherTests {
  private static func spawn(_ words: String...) throws -> PidDescriptor {
    var argv: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
    defer { for pointer in argv { free(pointer) } }
    var pid: pid_t = 0
    try #require(posix_spawnp(&pid, words[0], nil, nil, &argv, environ) == 0)
    return try PidDescriptor(pid: pid)
  }

  private final class Tally: Sendable {
    let told = Mutex<[Int: Int]>([:])
    let early = Mutex(0)
    func isEarly() { early.withLock { $0 += 1 } }
    func told(_ number: Int) { told.withLock { $0[number, default: 0] += 1 } }
    var count: Int { told.withLock { $0.count } }
  }

  @Test("every end is told once, and none before it has come, while numbers of descriptors are used again")
  func ends() async throws {
    let watcher = try Watcher()
    let tally = Tally()
    let rounds = 800
    try await withThrowingTaskGroup(of: Void.self) { group in
      // As stubs are: watched, forgotten, and given back while the thread may still look at them.
      for _ in 0..<2 {
        group.addTask {
          for _ in 0..<rounds {
            let process = try Self.spawn("sleep", "1000")
            let token = watcher.whenEnded(process) { tally.isEarly() }
            await Task.yield()
            #expect(watcher.forget(token) && !watcher.forget(token))
            try process.send(SIGKILL)
            _ = process.reap()
          }
        }
      }
      // As containers' monitors are.
      for lane in 0..<2 {
        group.addTask {
          for round in 0..<rounds {
            let process = try Self.spawn("sleep", "0.00\(round % 10)")
            watcher.whenEnded(process) {
              if !process.hasEnded { tally.isEarly() }
              _ = process.reap()
              tally.told(lane * rounds + round)
            }
            if round % 8 == 0 { try await Task.sleep(for: .milliseconds(5)) }
          }
        }
      }
      try await group.waitForAll()
    }
    for _ in 0..<2000 where tally.count < 2 * rounds { try await Task.sleep(for: .milliseconds(5)) }
    #expect(tally.told.withLock { $0 } == Dictionary(uniqueKeysWithValues: (0..<2 * rounds).map { ($0, 1) }))
    #expect(tally.early.withLock { $0 } == 0)
  }
}
