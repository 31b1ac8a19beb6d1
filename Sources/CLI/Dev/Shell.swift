import Foundation

/// Runs a program of the system to its end; throws with what it wrote to stderr when it fails.
@discardableResult
func command(_ program: String, _ arguments: [String], input: String? = nil) async throws -> String {
  let process = Process()
  process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
  process.arguments = [program] + arguments
  let (output, errors, stdin) = (Pipe(), Pipe(), Pipe())
  process.standardOutput = output
  process.standardError = errors
  process.standardInput = stdin
  // Debian's ip and nft are in /usr/sbin.
  process.environment = ProcessInfo.processInfo.environment.merging(
    ["PATH": (ProcessInfo.processInfo.environment["PATH"] ?? "") + ":/usr/sbin:/sbin:/usr/bin:/bin"]) { $1 }
  return try await withCheckedThrowingContinuation { continuation in
    // Pipes are read to their end on a thread of their own: none of this may block the cooperative pool.
    Thread.detachNewThread {
      do {
        try process.run()
      } catch {
        continuation.resume(throwing: DevError("\(program): \(error.localizedDescription)"))
        return
      }
      if let input { try? stdin.fileHandleForWriting.write(contentsOf: Data(input.utf8)) }
      try? stdin.fileHandleForWriting.close()
      let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
      let complaint = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
      process.waitUntilExit()
      if process.terminationStatus == 0 {
        continuation.resume(returning: text)
      } else {
        let call = ([program] + arguments.prefix(4)).joined(separator: " ")
        continuation.resume(throwing: DevError("\(call): \(complaint.trimmingCharacters(in: .whitespacesAndNewlines))"))
      }
    }
  }
}

/// Waits for something outside that tells nobody.
func until(_ what: String, seconds: Double, _ condition: () -> Bool) async throws {
  let deadline = ContinuousClock.now.advanced(by: .seconds(seconds))
  while !condition() {
    guard ContinuousClock.now < deadline else { throw DevError("\(what): not within \(seconds) s") }
    try await Task.sleep(for: .milliseconds(5))
  }
}
