// One pull, load or push, timed: what Benchmarks/images/bench.py runs beside other tools.
import AgentImage

@main struct ImageBench {
  static func main() async throws {
    let words = CommandLine.arguments.dropFirst().map { $0 }
    let clock = ContinuousClock()
    let begin = clock.now
    switch (words.first, words.count) {
    case ("pull", 3): _ = try await ImageStore(directory: words[2]).pull(words[1])
    case ("load", 3): _ = try await ImageStore(directory: words[2]).load(words[1], name: "big:1")
    case ("push", 4):
      let store = try ImageStore(directory: words[3])
      try await store.tag(words[1], as: words[2])
      try await store.push(words[2])
    default:
      print("usage: image-bench pull NAME STORE | load FILE STORE | push NAME TARGET STORE")
      throw Usage()
    }
    print("\(clock.now - begin)")
  }
  struct Usage: Error {}
}
