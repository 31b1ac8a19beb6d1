import Foundation
import Synchronization
import Testing

/// The result of a program that has ended.
struct Outcome: CustomStringConvertible {
  var code: Int32
  var output: String
  var errors: String
  /// In one line, the reason first: of a failure in CI little more is kept.
  var description: String {
    func line(_ text: String) -> String { text.split(separator: "\n").joined(separator: " | ") }
    return "exit \(code); stderr: \(line(errors)); stdout: \(line(output))"
  }
  /// JSON lines.
  var rows: [[String: String]] {
    output.split(separator: "\n").compactMap { line in
      guard let object = try? JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any] else { return nil }
      return object.mapValues { "\($0)" }
    }
  }
}

/// A local cluster of real daemons for the tests of this target; removed when the test process ends, and before it begins.
final class LocalCluster: @unchecked Sendable {
  /// ORCH_TEST_CLUSTER names another, for two checkouts on one machine.
  static let name = ProcessInfo.processInfo.environment["ORCH_TEST_CLUSTER"] ?? "itest"
  static let programs: String = {
    // The test bundle is beside the programs.
    let bundle = CommandLine.arguments.first { $0.hasSuffix(".xctest") } ?? CommandLine.arguments[0]
    var folder = URL(fileURLWithPath: bundle).deletingLastPathComponent()
    while folder.path != "/", !FileManager.default.isExecutableFile(atPath: folder.appendingPathComponent("orch").path) {
      folder.deleteLastPathComponent()
    }
    return folder.path
  }()
  static let repository = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path
  /// Of the sample images; removed when the process ends.
  static let images = "\(NSTemporaryDirectory())orch-itest-images-\(getpid())"

  /// The one cluster of this process, made when it is first asked for, and anew after a test has taken it down. Suites that use it
  /// must not run side by side: nest them in `MainJobTests`, which is serialized.
  static var shared: Result<LocalCluster, any Error> {
    made.withLock { made in
      // What failed once is not tried again by every test.
      if let made, case .failure = made { return made }
      if let made, FileManager.default.fileExists(atPath: "/var/lib/orch/dev/\(name)/cluster.json") { return made }
      let new = Result { try LocalCluster() }
      made = new
      return new
    }
  }
  private static let made = Mutex<Result<LocalCluster, any Error>?>(nil)
  /// To be taken down when the process ends.
  private static let up = Mutex<Set<String>>([])
  private static let atEnd: Void = {
    atexit {
      try? FileManager.default.removeItem(atPath: LocalCluster.images)
      for name in LocalCluster.up.withLock({ $0 }) { _ = try? LocalCluster.run("\(LocalCluster.programs)/orch", ["dev", "down", "--cluster", name]) }
    }
    for signal in [SIGINT, SIGTERM] {
      Foundation.signal(signal) { _ in exit(130) }
    }
  }()

  let name: String

  /// A cluster beside the shared one; `down` removes it. `name`: at most 8 letters with the prefix it gets.
  init(beside prefix: String, _ options: [String]) throws {
    name = String((prefix + Self.name).prefix(8))
    try begin(options)
  }

  private func begin(_ options: [String]) throws {
    _ = try dev("down")
    _ = Self.up.withLock { $0.insert(name) }
    _ = Self.atEnd
    let up = try Self.run("\(Self.programs)/orch", ["dev", "up", "--cluster", name] + options, seconds: 60)
    guard up.code == 0 else { throw Failure("orch dev up: \(up)") }
  }

  private init() throws {
    name = Self.name
    try begin(["--insecure-registry", "192.168.77.1:5000"])
    let built = try Self.run("\(Self.repository)/deploy/images/build.sh", [Self.images], seconds: 60)
    guard built.code == 0 else { throw Failure("deploy/images/build.sh: \(built)") }
    for image in ["web-1", "web-2", "visitor-1", "busybox-1"] {
      let loaded = try orch("image", "load", "\(Self.images)/\(image).tar")
      guard loaded.code == 0 else { throw Failure("image load \(image): \(loaded)") }
    }
  }

  struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
  }

  // MARK: - Programs

  func socketPath(_ host: String) -> String { "/run/orch/dev/\(name)/\(host)/orch.sock" }
  func socket(_ host: String = "host1") -> String { "unix://\(socketPath(host))" }

  func orch(_ arguments: String..., on host: String = "host1", seconds: Double = 60) throws -> Outcome {
    try Self.run("\(Self.programs)/orch", arguments, environment: ["ORCH_HOST": socket(host)], seconds: seconds)
  }
  func dev(_ arguments: String..., seconds: Double = 30) throws -> Outcome { try dev(arguments, seconds: seconds) }
  func dev(_ arguments: [String], seconds: Double = 30) throws -> Outcome {
    try Self.run("\(Self.programs)/orch", ["dev"] + arguments, environment: ["ORCH_DEV_CLUSTER": name], seconds: seconds)
  }
  /// - Parameter host: or `outside`.
  func on(_ host: String, _ command: String..., seconds: Double = 20) throws -> Outcome {
    if host == Self.outside { return try Self.run("/usr/bin/env", ["nsenter", "--net=\(try outsideNamespace())"] + command, seconds: seconds) }
    return try Self.run(
      "\(Self.programs)/orch", ["dev", "exec", host, "--"] + command, environment: ["ORCH_DEV_CLUSTER": name], seconds: seconds)
  }
  /// A machine on the hosts' network that is no host of the cluster: 192.168.77.100. It goes with the cluster, or by `removeOutside`.
  static let outside = "outside"
  private func outsideNamespace() throws -> String {
    let space = "orch-\(name)-outside"
    if !FileManager.default.fileExists(atPath: "/run/netns/\(space)") {
      try must(
        Self.run(
          "/bin/sh",
          [
            "-ec",
            """
            ip netns add \(space)
            ip -n \(space) link add eth0 type veth peer name outside netns orch-\(name)-switch
            ip -n \(space) address add 192.168.77.100/24 dev eth0
            ip -n \(space) link set lo up
            ip -n orch-\(name)-switch link set outside master br0 up
            ip -n \(space) link set eth0 up
            """,
          ]))
    }
    return "/run/netns/\(space)"
  }
  func removeOutside() { _ = try? Self.run("/usr/bin/env", ["ip", "netns", "del", "orch-\(name)-outside"]) }

  func docker(_ arguments: String..., on host: String = "host1") throws -> Outcome {
    try Self.run("/usr/bin/env", ["docker"] + arguments, environment: ["DOCKER_HOST": socket(host)], seconds: 60)
  }
  /// Each call of a command must succeed, or the test ends with its output.
  @discardableResult
  func must(_ outcome: Outcome, _ location: SourceLocation = #_sourceLocation) throws -> Outcome {
    try #require(outcome.code == 0, "\(outcome); \(outcome.code == 0 ? "" : condition)", sourceLocation: location)
    return outcome
  }

  static func run(_ program: String, _ arguments: [String], environment: [String: String] = [:], seconds: Double = 30) throws -> Outcome {
    // Not Foundation's Process: it believes that a program runs as long as anything that it left in the background.
    let folder = "\(NSTemporaryDirectory())orch-itest-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 1, "\(folder)/out", O_WRONLY | O_CREAT, 0o600)
    posix_spawn_file_actions_addopen(&actions, 2, "\(folder)/err", O_WRONLY | O_CREAT, 0o600)
    let merged = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    var argv: [UnsafeMutablePointer<CChar>?] = ([program] + arguments).map { strdup($0) } + [nil]
    var envp: [UnsafeMutablePointer<CChar>?] = merged.map { strdup("\($0.key)=\($0.value)") } + [nil]
    defer { for pointer in argv + envp { free(pointer) } }
    var pid: pid_t = 0
    // Threads of a pool block signals, and what they start would, too.
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var none = sigset_t()
    sigemptyset(&none)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
    let failure = posix_spawn(&pid, program, &actions, &attributes, &argv, &envp)
    guard failure == 0 else { throw Failure("start \(program): \(String(cString: strerror(failure)))") }
    let deadline = ContinuousClock.now.advanced(by: .seconds(seconds))
    var status: Int32 = 0
    while waitpid(pid, &status, WNOHANG) == 0 {
      if ContinuousClock.now > deadline { kill(pid, SIGKILL) }
      usleep(2000)
    }
    func text(_ file: String) -> String { String(decoding: FileManager.default.contents(atPath: "\(folder)/\(file)") ?? Data(), as: UTF8.self) }
    let signal = status & 0x7f
    return Outcome(code: signal == 0 ? (status >> 8) & 0xff : 128 + signal, output: text("out"), errors: text("err"))
  }

  /// `orch deploy` of a manifest's text.
  func deploy(manifest: String, _ options: String..., seconds: Double = 60) throws -> Outcome {
    let file = FileManager.default.temporaryDirectory.appendingPathComponent("manifest-\(UUID()).yaml")
    defer { try? FileManager.default.removeItem(at: file) }
    try manifest.write(to: file, atomically: true, encoding: .utf8)
    return try Self.run(
      "\(Self.programs)/orch", ["deploy", file.path] + options, environment: ["ORCH_HOST": socket("host1")], seconds: seconds)
  }

  /// A script in the background of a host, which goes on when the call has returned; its last program's pid.
  func start(on host: String, _ script: String) throws -> Int32 {
    let started = try must(on(host, "sh", "-c", "\(script) & echo $!")).output
    return try #require(Int32(started.trimmingCharacters(in: .whitespacesAndNewlines)), "\(started)")
  }

  // MARK: - Questions

  /// For a failure's message: who leads, what is not as it is wanted, and what the daemons complained of last.
  var condition: String {
    let script = """
      for host in 1 2 3; do export ORCH_HOST=unix:///run/orch/dev/$0/host$host/orch.sock
        nodes=$(timeout 5 $1 nodes) && break; done
      echo "$nodes" | tr -s ' '; timeout 5 $1 ps | grep -v 'Running *Running' | tr -s ' '
      grep -hE ' (warning|error) ' /var/lib/orch/dev/$0/host?/log/*.log | sort | tail -n 4 | cut -c 12-170
      """
    let told = try? Self.run("/bin/bash", ["-c", script, name, "\(Self.programs)/orch"], seconds: 30)
    return "the cluster: \(told?.description ?? "not known")"
  }

  /// All three.
  func nodesAreReady(_ location: SourceLocation = #_sourceLocation) async throws {
    try await eventually("every node is ready", location) {
      let nodes = try orch("nodes", "--format", "json").rows
      return (nodes.count == 3 && nodes.allSatisfy { $0["Status"] == "Ready" }, "\(nodes)")
    }
  }

  func tasks(_ service: String, on host: String = "host1") throws -> [[String: String]] {
    try orch("ps", service, "--no-trunc", "--format", "json", on: host).rows
  }
  func running(_ service: String, on host: String = "host1") throws -> [[String: String]] {
    try tasks(service, on: host).filter { ($0["CurrentState"] ?? "").hasPrefix("Running") && $0["DesiredState"] == "Running" }
  }
  var leader: String? {
    get throws { try orch("nodes", "--format", "json", on: upManager()).rows.first { $0["ManagerStatus"] == "Leader" }?["Hostname"] }
  }
  private func upManager() throws -> String {
    let rows = try dev("hosts", "--format", "json").rows
    return rows.first { $0["State"] == "on" && !["", "-"].contains($0["Manager"] ?? "") }?["Name"] ?? "host1"
  }
}

/// Waits for what other processes do; fails with the last state seen. How fast they are is for Benchmarks/ to say.
func eventually(
  _ what: String, seconds: Double = 45, _ location: SourceLocation = #_sourceLocation, _ condition: () throws -> (Bool, String)
) async throws {
  let deadline = ContinuousClock.now.advanced(by: .seconds(seconds))
  var seen = ""
  repeat {
    let (holds, state) = try condition()
    if holds { return }
    seen = state
    try await Task.sleep(for: .milliseconds(50))
  } while ContinuousClock.now < deadline
  try #require(Bool(false), "\(what): not within \(seconds) s; last seen: \(seen)", sourceLocation: location)
}

/// Fails unless what `body` measures is below `bound` in one of three runs: elections are drawn by lot, and machines stall. What `body` itself
/// expects must hold in each.
func within(_ bound: Duration, _ what: String, _ location: SourceLocation = #_sourceLocation, _ body: () async throws -> Duration) async throws {
  var measured: [Duration] = []
  repeat { measured.append(try await body()) } while measured.last! >= bound && measured.count < 3
  print("\(what): \(measured)")
  #expect(measured.contains { $0 < bound }, "\(what): \(measured)", sourceLocation: location)
}
