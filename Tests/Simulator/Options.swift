import Glibc

/// What the command line asks for.
struct Options {
  var seeds: [UInt64] = []
  var jobs = 2
  var fault: Fault?
  /// One of a single seed's events each line.
  var showsEvents = false
  /// Lines before a failure.
  var lastEvents = 60
  /// No new seed is begun after so many seconds.
  var secondsMax: Int?
  /// Seeds with more hosts are left out: in a debug build one of them may take half an hour.
  var agentsMax: Int?
  /// Each seed twice, to see that it is the same run.
  var twice = false
  /// Whose failures are to be kept.
  var isFresh = false

  enum Wish {
    case usage(String?)
    case listFaults
    case worker([UInt64], Fault?)
    case run(Options)
    case faults(Options)
  }

  static func parse(_ arguments: [String]) -> Wish {
    var options = Options()
    var (isWorker, allFaults) = (false, false)
    var rest = arguments[...]
    while let argument = rest.popFirst() {
      func value() -> String? { rest.popFirst() }
      switch argument {
      case "-h", "--help": return .usage(nil)
      case "--list-faults": return .listFaults
      case "--worker": isWorker = true
      case "--all-faults": allFaults = true
      case "--events": options.showsEvents = true
      case "--twice": options.twice = true
      case "--seed", "--seeds":
        guard let text = value(), let seeds = seeds(text) else { return .usage("\(argument) wants N, or A..B, or several with commas") }
        options.seeds += seeds
      case "--fresh":
        guard let count = value().flatMap({ UInt64($0) }) else { return .usage("--fresh wants a number of seeds") }
        let first = UInt64.random(in: 1...UInt64(UInt32.max)) * 1_000
        options.seeds += first..<first + count
        options.isFresh = true
      case "--file":
        guard let path = value(), let seeds = fileSeeds(path) else { return .usage("--file wants a file of seeds") }
        options.seeds += seeds
      case "--jobs":
        guard let jobs = value().flatMap({ Int($0) }), jobs > 0 else { return .usage("--jobs wants a number") }
        options.jobs = jobs
      case "--last":
        guard let last = value().flatMap({ Int($0) }) else { return .usage("--last wants a number") }
        options.lastEvents = last
      case "--seconds":
        guard let seconds = value().flatMap({ Int($0) }) else { return .usage("--seconds wants a number") }
        options.secondsMax = seconds
      case "--agents-max":
        guard let count = value().flatMap({ Int($0) }) else { return .usage("--agents-max wants a number") }
        options.agentsMax = count
      case "--fault":
        guard let name = value(), let fault = Fault(rawValue: name) else { return .usage("--fault wants one of --list-faults") }
        options.fault = fault
      default: return .usage("unknown argument \(argument)")
      }
    }
    if isWorker { return .worker(options.seeds, options.fault) }
    #if !PLANTED
      if options.fault != nil || allFaults {
        return .usage("this build plants no faults: build it with -Xswiftc -DPLANTED -Xswiftc -enable-testing, or `make simulate-faults`")
      }
    #endif
    if options.seeds.isEmpty { options.seeds = Array(1...(allFaults ? 200 : 100)) }
    if let max = options.agentsMax { options.seeds.removeAll { Scenario(seed: $0).agents > max } }
    return allFaults ? .faults(options) : .run(options)
  }

  private static func seeds(_ text: String) -> [UInt64]? {
    var found: [UInt64] = []
    for part in text.split(separator: ",") {
      let ends = part.split(separator: ".", omittingEmptySubsequences: true).compactMap { UInt64($0) }
      guard let first = ends.first, let last = ends.last, ends.count <= 2, first <= last else { return nil }
      found += first...last
    }
    return found
  }

  /// One seed a line; the rest of a line after it, and lines that begin with #, are for people.
  private static func fileSeeds(_ path: String) -> [UInt64]? {
    guard let file = fopen(path, "r") else { return nil }
    defer { fclose(file) }
    var found: [UInt64] = []
    var buffer = [CChar](repeating: 0, count: 4096)
    while fgets(&buffer, Int32(buffer.count), file) != nil {
      let line = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
      if let seed = line.split(whereSeparator: \.isWhitespace).first.flatMap({ UInt64($0) }) { found.append(seed) }
    }
    return found
  }

  static func printUsage(_ problem: String?) {
    if let problem { complain(problem) }
    print(
      """
      simulator: a whole cluster in simulated time, with everything that can go wrong, from one seed

        --seed N            replay one seed; --events prints everything that happens
        --seeds A..B        many (default 1..100)
        --fresh COUNT       seeds that were probably never run
        --file FILE         the seeds in a file, one a line
        --jobs N            processes (default 2)
        --seconds N         begin no seed after N seconds
        --agents-max N      leave out the seeds with more hosts (a debug build takes long for 100 to 200)
        --twice             every seed twice, and both runs must be the same
        --last N            events shown before a failure (default 60)
        --fault NAME        plant a fault; --list-faults names them
        --all-faults        plant one after the other, each until it is found
      """)
    exit(problem == nil ? 0 : 64)
  }
}
