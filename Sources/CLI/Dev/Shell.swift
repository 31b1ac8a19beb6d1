import Foundation

/// Runs a program of the system to its end; throws with what it wrote to stderr when it fails.
///
/// Not Foundation's Process: it believes that a program runs as long as a daemon that it started. Input and outputs are files,
/// not pipes, for the same reason: a daemon could keep a pipe's reader waiting for ever.
@discardableResult
func command(_ program: String, _ arguments: [String], input: String? = nil) async throws -> String {
  try await withCheckedThrowingContinuation { continuation in
    // Waiting is done on a thread of its own: none of this may block the cooperative pool.
    Thread.detachNewThread { continuation.resume(with: Result { try runBlocking(program, arguments, input ?? "") }) }
  }
}

private func runBlocking(_ program: String, _ arguments: [String], _ input: String) throws -> String {
  let folder = FileManager.default.temporaryDirectory.appendingPathComponent("orch-dev-\(UUID().uuidString)")
  try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
  defer { try? FileManager.default.removeItem(at: folder) }
  let (stdin, stdout, stderr) = (folder.appendingPathComponent("in"), folder.appendingPathComponent("out"), folder.appendingPathComponent("err"))
  try Data(input.utf8).write(to: stdin)
  for file in [stdout, stderr] { try Data().write(to: file) }

  let status = try spawn([program] + arguments, stdin.path, stdout.path, stderr.path)
  guard status == 0 else {
    let call = ([program] + arguments.prefix(4)).joined(separator: " ")
    let complaint = (try? String(contentsOf: stderr, encoding: .utf8)) ?? ""
    throw DevError("\(call): \(complaint.trimmingCharacters(in: .whitespacesAndNewlines))")
  }
  return try String(contentsOf: stdout, encoding: .utf8)
}

/// The exit status as waitpid(2) tells it.
private func spawn(_ arguments: [String], _ stdin: String, _ stdout: String, _ stderr: String) throws -> Int32 {
  var actions = posix_spawn_file_actions_t()
  posix_spawn_file_actions_init(&actions)
  defer { posix_spawn_file_actions_destroy(&actions) }
  posix_spawn_file_actions_addopen(&actions, 0, stdin, O_RDONLY, 0)
  posix_spawn_file_actions_addopen(&actions, 1, stdout, O_WRONLY, 0)
  posix_spawn_file_actions_addopen(&actions, 2, stderr, O_WRONLY, 0)
  // Debian's ip and nft are in /usr/sbin.
  var environment = ProcessInfo.processInfo.environment
  environment["PATH"] = (environment["PATH"] ?? "") + ":/usr/sbin:/sbin:/usr/bin:/bin"
  var argv: [UnsafeMutablePointer<CChar>?] = (["env"] + arguments).map { strdup($0) } + [nil]
  var envp: [UnsafeMutablePointer<CChar>?] = environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
  defer { for pointer in argv + envp { free(pointer) } }
  var pid: pid_t = 0
  let failure = posix_spawn(&pid, "/usr/bin/env", &actions, nil, &argv, &envp)
  guard failure == 0 else { throw DevError("start \(arguments[0]): \(String(cString: strerror(failure)))") }
  var status: Int32 = 0
  while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
  return status
}

/// Waits for something outside that tells nobody.
func until(_ what: String, seconds: Double, _ condition: () -> Bool) async throws {
  let deadline = ContinuousClock.now.advanced(by: .seconds(seconds))
  while !condition() {
    guard ContinuousClock.now < deadline else { throw DevError("\(what): not within \(seconds) s") }
    try await Task.sleep(for: .milliseconds(5))
  }
}
