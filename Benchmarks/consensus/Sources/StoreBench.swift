import Glibc
import Model
import Store
import Wire

/// The store alone: real fsyncs, one thread.
enum StoreBench {
  static func run(_ folder: String) throws {
    let store = try Store(path: "\(folder)/store.db")
    _ = try store.load()
    var batch = WriteBatch()
    batch.raftID = RaftID(1)
    try store.write(batch)
    var next: UInt64 = 1
    var state = ClusterState()

    for size in [1, 64, 1000] {
      let (rate, fsyncs) = try measure(of: size) { _ in
        var batch = WriteBatch()
        batch.entries = (0..<size).map { StoredEntry(index: next + UInt64($0), term: 1, kind: 1, data: [UInt8](repeating: 7, count: 256)) }
        next += UInt64(size)
        try store.write(batch)
      }
      report("append, \(size) a write: entries/s", rate)
      report("append, \(size) a write: fsyncs/s", fsyncs)
    }
    state.skip(to: next - 1)
    for size in [1, 64, 1000] {
      // The entry and the row it makes, in one transaction, as a busy member writes them.
      let (rate, _) = try measure(of: size) { round in
        var batch = WriteBatch()
        var changes: [StateChange] = []
        for number in 0..<size {
          let command = Command(actions: [.putVolume(volume((round * size + number) % 10_000, round))])
          batch.entries.append(StoredEntry(index: next, term: 1, kind: 1, data: try command.serialized()))
          changes += try state.apply(try Command(serialized: batch.entries[number].data), at: next).get()
          next += 1
        }
        batch.applied = .init(changes: changes, state: state)
        if next > 20_000 { batch.compact = SnapshotPoint(index: next - 5000, term: 1) }
        try store.write(batch)
      }
      report("append and apply, \(size) a write: entries/s", rate)
    }
    let commands = try (0..<200_000).map { try Command(actions: [.putVolume(volume($0 % 10_000, $0))]).serialized() }
    let took = try seconds {
      for (offset, data) in commands.enumerated() { _ = state.apply(try Command(serialized: data), at: next + UInt64(offset)) }
    }
    report("decode and apply in memory: entries/s", Double(commands.count) / took)
  }

  /// 256 bytes that a user declared.
  static func volume(_ number: Int, _ round: Int) -> Volume {
    let text = String(repeating: Character(Unicode.Scalar(UInt8(97 + round % 26))), count: 256)
    return Volume(name: "volume\(number)", labels: ["value": text], createdAt: World.start)
  }

  /// For three seconds; entries and writes a second.
  private static func measure(of size: Int, _ write: (Int) throws -> Void) throws -> (entries: Double, writes: Double) {
    let began = ContinuousClock.now
    var rounds = 0
    while began.duration(to: .now) < .seconds(3) {
      try write(rounds)
      rounds += 1
    }
    let took = began.duration(to: .now) / .seconds(1)
    return (Double(rounds * size) / took, Double(rounds) / took)
  }
}
