// consensus-bench: what Benchmarks/consensus/run.py calls; each part prints lines of `name<TAB>value` and nothing else on stdout.
import Glibc

@main struct ConsensusBench {
  static let usage = """
    usage: consensus-bench PART …
      make FOLDER TASKS            a manager's database that holds TASKS tasks on 10,000 nodes
      load FOLDER                  how long a start reads it, and the memory it takes
      snapshot FOLDER              a snapshot of it while a client writes
      store FOLDER                 the log's append rate and the state's apply rate, by batch
      placement NODES TASKS        the scheduler and the reconciler alone
      dispatch NODES               what the leader does to tell NODES hosts of a changed endpoint
      identities FOLDER MEMBERS    certificates for members and clients
      member FOLDER NUMBER MEMBERS one of MEMBERS managers on loopback, until it is killed
    """

  static func main() async throws {
    let arguments = Array(CommandLine.arguments.dropFirst())
    func number(_ index: Int) -> Int { Int(arguments[index])! }
    switch (arguments.first, arguments.count) {
    case ("make", 3): try StateBench.make(arguments[1], tasks: number(2))
    case ("load", 2): try StateBench.load(arguments[1])
    case ("snapshot", 2): try await StateBench.snapshot(arguments[1])
    case ("store", 2): try StoreBench.run(arguments[1])
    case ("placement", 3): PlacementBench.run(nodes: number(1), tasks: number(2))
    case ("dispatch", 2): try DispatchBench.run(nodes: number(1))
    case ("identities", 3): try Member.identities(arguments[1], members: number(2))
    case ("member", 4): try await Member.run(arguments[1], number: number(2), members: number(3))
    default:
      _ = Glibc.write(2, usage + "\n", usage.utf8.count + 1)
      exit(2)
    }
  }
}

/// One figure for run.py.
func report(_ name: String, _ value: some CustomStringConvertible) {
  let line = "\(name)\t\(value)\n"
  _ = Glibc.write(1, line, line.utf8.count)
}

func seconds(_ body: () throws -> Void) rethrows -> Double {
  let began = ContinuousClock.now
  try body()
  return began.duration(to: .now) / .seconds(1)
}

extension [Double] {
  /// 0.5: the median. Of a sorted array.
  func quantile(_ part: Double) -> Double { isEmpty ? .nan : self[Swift.min(count - 1, Int(Double(count) * part))] }
}

/// "VmRSS" and its kin of /proc/self/status, in MiB.
func memory(_ key: String) -> Double {
  guard let file = fopen("/proc/self/status", "r") else { return .nan }
  defer { fclose(file) }
  var line = [CChar](repeating: 0, count: 256)
  while fgets(&line, 256, file) != nil {
    let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    let words = text.split(whereSeparator: { $0 == ":" || $0 == " " || $0 == "\t" })
    if words.count > 1, words[0] == key { return (Double(words[1]) ?? .nan) / 1024 }
  }
  return .nan
}
