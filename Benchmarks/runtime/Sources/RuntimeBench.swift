import Foundation
import Glibc
import LinuxSystem
import Runtime
import Seccomp

/// Containers by the agent's own library, as orch-agent assembles it, without an agent. Commands come by stdin, one a line; each is answered by one
/// line of JSON.
///
/// usage: runtime-bench FOLDER LAYER ORCH-INIT CGROUP-PARENT [--no-pool]
@main
struct RuntimeBench {
  static func main() async throws {
    let arguments = CommandLine.arguments
    guard arguments.count == 5 || arguments.count == 6 && arguments[5] == "--no-pool" else {
      print("usage: runtime-bench FOLDER LAYER ORCH-INIT CGROUP-PARENT [--no-pool] (bench.py starts it)")
      exit(2)
    }
    let bench = Bench(folder: arguments[1], layer: arguments[2], initPath: arguments[3], cgroupParent: arguments[4], pools: arguments.count == 5)
    await bench.open()
    while let line = readLine() {
      let words = line.split(separator: " ").map(String.init)
      guard let command = words.first else { continue }
      let answer = try await bench.carryOut(command, Array(words.dropFirst()))
      print(String(decoding: try JSONSerialization.data(withJSONObject: answer, options: .fragmentsAllowed), as: UTF8.self))
      fflush(nil)
    }
  }
}

struct Bench: Sendable {
  private let layer: String
  private let runtime: ContainerRuntime
  private let pools: Bool

  init(folder: String, layer: String, initPath: String, cgroupParent: String, pools: Bool) {
    self.pools = pools
    self.layer = layer
    do {
      runtime = try ContainerRuntime(
        configuration: RuntimeConfiguration(
          stateDirectory: folder + "/state", dataDirectory: folder + "/data", cgroupParent: cgroupParent, initPath: initPath,
          stubs: pools ? 4 : 0))
    } catch { fatalError("\(error)") }
  }
  func open() async { _ = await runtime.recover() }

  func carryOut(_ command: String, _ words: [String]) async throws -> Any {
    switch (command, words.count) {
    case ("filter", 1):
      // What every container of docker's fourteen capabilities has, for the others.
      let profile = SeccompProfile.standard(for: CapabilitySet(rawValue: 0))
      try Files.writeAtomically(words[0], try Seccomp.compile(profile).bytes, durable: false)
      return Self.document(profile)
    case ("lives", 1):
      let turns = Int(words[0]) ?? 1
      var times: [[Double]] = []
      for turn in 0..<turns {
        // What is measured is a start that finds a stub: they are made beside, between starts.
        for _ in 0..<1000 where pools && runtime.stubs.count < 2 { try await Task.sleep(for: .milliseconds(1)) }
        if pools { try await Task.sleep(for: .milliseconds(20)) }
        times.append(try await life("life-\(turn)"))
      }
      return times
    case ("parallel", 2):
      // SECONDS JOBS: so many lives begin anew all the time.
      let seconds = Double(words[0]) ?? 1
      let end = MonotonicClock.now + UInt64(seconds * 1e9)
      let lives = try await withThrowingTaskGroup(of: Int.self) { group in
        for job in 0..<(Int(words[1]) ?? 1) {
          group.addTask {
            var count = 0
            while MonotonicClock.now < end {
              _ = try await life("job-\(job)-\(count)")
              count += 1
            }
            return count
          }
        }
        return try await group.reduce(0, +)
      }
      return Double(lives) / seconds
    case ("hold", 1):
      // COUNT containers that sleep; their processes are answered.
      var pids: [Int32] = []
      for number in 0..<(Int(words[0]) ?? 1) { pids.append(try await runtime.start(config("held-\(number)", ["sleep", "1000"])).pid) }
      return pids
    case ("exec", 1):
      var times: [Double] = []
      for _ in 0..<(Int(words[0]) ?? 1) {
        let begin = MonotonicClock.now
        let process = try await runtime.exec("held-0", ExecConfig(args: ["true"]))
        guard await process.wait() == 0 else { throw BenchError(text: "exec failed") }
        times.append(Self.milliseconds(since: begin))
      }
      return times
    case ("stubs", 0): return runtime.stubs
    case ("release", 1):
      for number in 0..<(Int(words[0]) ?? 1) { try await runtime.delete("held-\(number)") }
      return true
    default: throw BenchError(text: "no such command: \(command) with \(words.count) arguments")
    }
  }

  private func config(_ id: String, _ args: [String]) -> ContainerConfig {
    var config = ContainerConfig(id: id, layers: [layer], args: args)
    config.resources = .init(memory: 64 << 20, pids: 64)
    return config
  }

  /// Milliseconds until its program has been executed, until its end is known, until nothing is left of it.
  private func life(_ id: String) async throws -> [Double] {
    let begin = MonotonicClock.now
    _ = try await runtime.start(config(id, ["true"]))
    let started = Self.milliseconds(since: begin)
    let exit = try await runtime.wait(id)
    let ended = Self.milliseconds(since: begin)
    guard exit.code == 0 else { throw BenchError(text: "\(id) ended with \(exit)") }
    try await runtime.delete(id)
    return [started, ended, Self.milliseconds(since: begin)]
  }

  static func milliseconds(since begin: UInt64) -> Double { Double(MonotonicClock.now - begin) / 1e6 }

  /// The profile as an OCI bundle has it (config-linux.md, "Seccomp").
  private static func document(_ profile: SeccompProfile) -> [String: Any] {
    let names: [UInt32: String] = [
      1: "SCMP_CMP_NE", 2: "SCMP_CMP_LT", 3: "SCMP_CMP_LE", 4: "SCMP_CMP_EQ", 5: "SCMP_CMP_GE", 6: "SCMP_CMP_GT", 7: "SCMP_CMP_MASKED_EQ",
    ]
    var calls: [[String: Any]] = [["names": profile.allowed, "action": "SCMP_ACT_ALLOW"]]
    for rule in profile.conditional {
      let argument: [String: Any] = [
        "index": rule.argument, "value": rule.a, "valueTwo": rule.b, "op": names[UInt32(rule.comparison.rawValue)] ?? "",
      ]
      calls.append(["names": [rule.name], "action": "SCMP_ACT_ALLOW", "args": [argument]])
    }
    calls.append(["names": profile.absent, "action": "SCMP_ACT_ERRNO", "errnoRet": 38])
    return ["defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": calls]
  }
}

struct BenchError: Error, CustomStringConvertible {
  let text: String
  var description: String { text }
}
