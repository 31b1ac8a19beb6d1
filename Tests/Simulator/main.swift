import Glibc

// Replays must be exact: hashed collections of the cores have to be walked in the same order in every process.
if getenv("SWIFT_DETERMINISTIC_HASHING") == nil {
  setenv("SWIFT_DETERMINISTIC_HASHING", "1", 1)
  execv("/proc/self/exe", CommandLine.unsafeArgv)
  perror("simulator: execute itself anew")
  exit(1)
}

switch Options.parse(Array(CommandLine.arguments.dropFirst())) {
case .usage(let problem): Options.printUsage(problem)
case .listFaults: for fault in Fault.allCases { print("\(padded(fault.rawValue, 30)) \(fault.meaning)") }
case .worker(let seeds, let fault): work(seeds, fault)
case .run(let options): exit(Runner(options).run() ? 0 : 1)
case .faults(let options): exit(Runner(options).runFaults() ? 0 : 1)
}

/// One seed after the other; the parent reads the lines, and knows which one it was when this process traps.
func work(_ seeds: [UInt64], _ fault: Fault?) {
  for seed in seeds {
    // Told before anything can go wrong.
    defer { fflush(nil) }
    print("begin \(seed)")
    fflush(nil)
    let world = World(seed: seed, fault: fault)
    do {
      try world.run()
      let figures = world.figures
      print(
        "good \(seed) \(world.trace) \(figures.events) \(figures.entries) \(figures.elections) \(figures.crashes) \(figures.snapshots) "
          + "\(figures.calls) \(figures.containers) \(figures.illnesses) \(figures.convergedAfter / 1_000)")
    } catch let violation as Violation {
      print("bad \(seed) \(world.trace) \(violation.checker.replacing(" ", with: "_")) \(violation.what.replacing("\n", with: "\u{1}"))")
    } catch {
      print("bad \(seed) \(world.trace) error \(error)")
    }
  }
}

func padded(_ text: String, _ width: Int) -> String { text + String(repeating: " ", count: max(0, width - text.count)) }

func complain(_ text: String) {
  var text = "simulator: \(text)\n"
  text.withUTF8 { _ = write(2, $0.baseAddress, $0.count) }
}
