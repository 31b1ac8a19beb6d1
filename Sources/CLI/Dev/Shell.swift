import Foundation

/// Runs a program of the system to its end; throws with what it wrote to stderr when it fails.
///
/// Input and outputs are files, not pipes: a daemon that is started at the same time could inherit a pipe's end and keep its
/// reader waiting for ever.
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

  let process = Process()
  process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
  process.arguments = [program] + arguments
  process.standardInput = try FileHandle(forReadingFrom: stdin)
  process.standardOutput = try FileHandle(forWritingTo: stdout)
  process.standardError = try FileHandle(forWritingTo: stderr)
  // Debian's ip and nft are in /usr/sbin.
  let path = (ProcessInfo.processInfo.environment["PATH"] ?? "") + ":/usr/sbin:/sbin:/usr/bin:/bin"
  process.environment = ProcessInfo.processInfo.environment.merging(["PATH": path]) { $1 }
  try process.run()
  process.waitUntilExit()
  guard process.terminationStatus == 0 else {
    let call = ([program] + arguments.prefix(4)).joined(separator: " ")
    let complaint = (try? String(contentsOf: stderr, encoding: .utf8)) ?? ""
    throw DevError("\(call): \(complaint.trimmingCharacters(in: .whitespacesAndNewlines))")
  }
  return try String(contentsOf: stdout, encoding: .utf8)
}

/// Waits for something outside that tells nobody.
func until(_ what: String, seconds: Double, _ condition: () -> Bool) async throws {
  let deadline = ContinuousClock.now.advanced(by: .seconds(seconds))
  while !condition() {
    guard ContinuousClock.now < deadline else { throw DevError("\(what): not within \(seconds) s") }
    try await Task.sleep(for: .milliseconds(5))
  }
}
