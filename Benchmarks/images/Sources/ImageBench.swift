// One pull or load into a new store, timed: what Benchmarks/images/bench.py runs beside other tools.
import AgentImage

@main struct ImageBench {
  static func main() async throws {
    let words = CommandLine.arguments.dropFirst().map { $0 }
    guard words.count == 3, ["pull", "load"].contains(words[0]) else {
      print("usage: image-bench pull NAME FOLDER | load FILE FOLDER (a folder that is not there yet)")
      throw Usage()
    }
    let store = try ImageStore(directory: words[2])
    let clock = ContinuousClock()
    let begin = clock.now
    let layers = words[0] == "pull" ? try await store.pull(words[1]).layerPaths : try await store.load(words[1]).flatMap(\.layerPaths)
    let taken = clock.now - begin
    print("\(layers.count) layers in \(taken)")
  }
  struct Usage: Error {}
}
