import Glibc

/// Spreads seeds over processes, so that a trap in a core is a failed seed and not the end; prints what became of them.
struct Runner {
  let options: Options
  init(_ options: Options) { self.options = options }

  struct Outcome {
    var seed: UInt64
    var trace: UInt64 = 0
    /// Nil: good.
    var failure: (checker: String, what: String)?
    var figures: [Int] = []
  }

  /// Whether all was well.
  func run() -> Bool {
    if options.showsEvents, options.seeds.count == 1 { return replay(options.seeds[0], showAll: true) }
    let began = seconds()
    var outcomes = spread(options.seeds, options.fault, stopAtFailure: false)
    if options.twice {
      let again = Dictionary(spread(options.seeds, options.fault, stopAtFailure: false).map { ($0.seed, $0.trace) }, uniquingKeysWith: { a, _ in a })
      for position in outcomes.indices where again[outcomes[position].seed] != outcomes[position].trace {
        outcomes[position].failure = ("determinism", "two runs were not the same")
      }
    }
    let failed = outcomes.filter { $0.failure != nil }.sorted { $0.seed < $1.seed }
    for outcome in failed.prefix(5) {
      print("\nseed \(outcome.seed) failed: \(outcome.failure!.checker): \(outcome.failure!.what)")
      if !["trap", "endless"].contains(outcome.failure!.checker), options.seeds.count > 0 { _ = replay(outcome.seed, showAll: false) }
      print("replay: simulator --seed \(outcome.seed)\(options.fault.map { " --fault \($0.rawValue)" } ?? "") --events")
      if options.isFresh, options.fault == nil {
        let what = outcome.failure!.what.split(separator: "\n").first ?? ""
        print("to keep it, append to Tests/Simulator/regressions.txt (in your own words):\n\(outcome.seed) \(outcome.failure!.checker): \(what)")
      }
    }
    let names = ["events", "entries", "elections", "crashes", "snapshots", "calls", "containers", "illnesses"]
    let sums = names.indices.map { place in "\(outcomes.reduce(0) { $0 + ($1.figures.count > place ? $1.figures[place] : 0) }) \(names[place])" }
    let slowest = outcomes.compactMap { $0.figures.last }.max() ?? 0
    print(
      "\(outcomes.count) seeds (\(options.seeds.first ?? 0) to \(options.seeds.last ?? 0)) in \(seconds() - began) s, \(failed.count) failed; "
        + sums.joined(separator: ", ") + "; converged after at most \(slowest) ms")
    if failed.count > 0 { print("failed: \(failed.map { "\($0.seed) (\($0.failure!.checker))" }.joined(separator: ", "))") }
    return failed.isEmpty && !outcomes.isEmpty
  }

  /// Each planted fault must be found. Prints the table of docs/simulator.md.
  func runFaults() -> Bool {
    var missed: [String] = []
    print("| fault | what it does | found by | seeds it took |\n| --- | --- | --- | --- |")
    for fault in Fault.allCases where options.fault == nil || options.fault == fault {
      let outcomes = spread(options.seeds, fault, stopAtFailure: true)
      let found = outcomes.filter { $0.failure != nil }.min { $0.seed < $1.seed }
      if let found {
        let took = (options.seeds.firstIndex(of: found.seed) ?? 0) + 1
        print("| `\(fault.rawValue)` | \(fault.meaning) | \(found.failure!.checker) | \(took) |")
      } else {
        missed.append(fault.rawValue)
        print("| `\(fault.rawValue)` | \(fault.meaning) | **not found** | \(options.seeds.count) |")
      }
      fflush(nil)
    }
    if missed.isEmpty {
      print("\nevery planted fault was found")
    } else {
      print("\nnot found: \(missed.joined(separator: ", "))")
    }
    return missed.isEmpty
  }

  /// In this process, with the events. Answers whether it was good.
  private func replay(_ seed: UInt64, showAll: Bool) -> Bool {
    let world = World(seed: seed, fault: options.fault)
    var last: [String] = []
    world.listener = { line in
      if showAll { return print(line) }
      last.append(line)
      if last.count > 2 * options.lastEvents { last.removeFirst(options.lastEvents) }
    }
    do {
      try world.run()
      if showAll { print("good: trace \(world.trace)") }
      return true
    } catch {
      if !showAll { for line in last.suffix(options.lastEvents) { print("  \(line)") } }
      if let violation = error as? Violation { print("  \(violation.checker): \(violation.what)") }
      return false
    }
  }

  // MARK: - Processes

  private struct Job {
    var process: pid_t
    var output: Int32
    var text = ""
    /// Not begun yet, besides what the process has.
    var seeds: [UInt64]
    var current: UInt64?
    /// When that began, in seconds.
    var since = 0
    var isEndless = false
  }

  /// Most take under a second, those of 200 hosts a minute (release build); one that takes so long goes in a circle without an event.
  private static let secondsOfSeedMax = 600

  private func spread(_ seeds: [UInt64], _ fault: Fault?, stopAtFailure: Bool) -> [Outcome] {
    let began = seconds()
    var waiting = seeds[...]
    var jobs: [Job] = []
    var outcomes: [Outcome] = []
    var isStopping = false
    // Small portions, so that all are busy to the end; single seeds where the first that fails is asked for, or time is short.
    let portion = stopAtFailure || options.secondsMax != nil ? 1 : max(1, min(10, seeds.count / (options.jobs * 4)))
    while true {
      if let limit = options.secondsMax, seconds() - began >= limit { isStopping = true }
      while jobs.count < options.jobs, !waiting.isEmpty, !isStopping {
        let mine = Array(waiting.prefix(portion))
        waiting = waiting.dropFirst(portion)
        jobs.append(begin(mine, fault))
      }
      if jobs.isEmpty { return outcomes }
      var polls = jobs.map { pollfd(fd: $0.output, events: Int16(POLLIN), revents: 0) }
      poll(&polls, nfds_t(polls.count), 1_000)
      for position in jobs.indices where jobs[position].current != nil && seconds() - jobs[position].since > Self.secondsOfSeedMax {
        jobs[position].isEndless = true
        kill(jobs[position].process, SIGKILL)
      }
      for position in jobs.indices.reversed() where polls[position].revents != 0 {
        let isOpen = read(&jobs[position], &outcomes)
        if isOpen { continue }
        let job = jobs.remove(at: position)
        var status: Int32 = 0
        waitpid(job.process, &status, 0)
        close(job.output)
        if let seed = job.current {
          let trap = ("trap", "the process ended with status \(status): a core stopped itself (see above)")
          outcomes.append(Outcome(seed: seed, failure: job.isEndless ? ("endless", "no end after \(Self.secondsOfSeedMax) s") : trap))
          let left = Array(job.seeds.drop { $0 != seed }.dropFirst())
          if !left.isEmpty, !isStopping { jobs.append(begin(left, fault)) }
        } else if status != 0 {
          // Between two seeds, or before the first: what it did not tell of was not run.
          let told = Set(outcomes.map(\.seed))
          outcomes += job.seeds.filter { !told.contains($0) }.map {
            Outcome(seed: $0, failure: ("trap", "the process ended with status \(status) before it began this seed (see above)"))
          }
        }
      }
      // Those that are under way come to their ends: one of them may be an earlier seed.
      if stopAtFailure, outcomes.contains(where: { $0.failure != nil }) { isStopping = true }
    }
  }

  private func begin(_ seeds: [UInt64], _ fault: Fault?) -> Job {
    var ends: [Int32] = [0, 0]
    pipe(&ends)
    _ = fcntl(ends[0], F_SETFD, FD_CLOEXEC)
    var arguments = ["simulator", "--worker", "--seeds", seeds.map(String.init).joined(separator: ",")]
    if let fault { arguments += ["--fault", fault.rawValue] }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1)
    posix_spawn_file_actions_addclose(&actions, ends[1])
    if stopsQuietly(fault) { posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0) }
    var pointers: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
    var process: pid_t = 0
    let failure = posix_spawn(&process, "/proc/self/exe", &actions, nil, &pointers, environ)
    for pointer in pointers { free(pointer) }
    posix_spawn_file_actions_destroy(&actions)
    close(ends[1])
    guard failure == 0 else {
      complain("start a process: \(String(cString: strerror(failure)))")
      exit(1)
    }
    return Job(process: process, output: ends[0], seeds: seeds)
  }

  /// A planted fault may make a core stop itself: that is how it is found, and not worth a crash report.
  private func stopsQuietly(_ fault: Fault?) -> Bool { fault != nil && options.seeds.count > 1 }

  /// Answers false at the end of the output.
  private func read(_ job: inout Job, _ outcomes: inout [Outcome]) -> Bool {
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    let count = Glibc.read(job.output, &buffer, buffer.count)
    guard count > 0 else { return false }
    job.text += String(decoding: buffer[..<count], as: UTF8.self)
    while let end = job.text.firstIndex(of: "\n") {
      let line = job.text[..<end]
      job.text = String(job.text[job.text.index(after: end)...])
      let words = line.split(separator: " ", maxSplits: 4, omittingEmptySubsequences: false).map(String.init)
      guard words.count > 1, let seed = UInt64(words[1]) else { continue }
      switch words[0] {
      case "begin": (job.current, job.since) = (seed, seconds())
      case "good":
        job.current = nil
        let numbers = line.split(separator: " ").dropFirst(2).map { UInt64($0) ?? 0 }
        outcomes.append(Outcome(seed: seed, trace: numbers[0], figures: numbers.dropFirst().map { Int($0) }))
      case "bad":
        job.current = nil
        outcomes.append(
          Outcome(
            seed: seed, trace: UInt64(words[2]) ?? 0,
            failure: (words[3].replacing("_", with: " "), words.count > 4 ? words[4].replacing("\u{1}", with: "\n") : "")))
      default: break
      }
    }
    return true
  }

  private func seconds() -> Int {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return time.tv_sec
  }
}
