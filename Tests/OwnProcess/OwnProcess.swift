import Glibc
import LinuxSystem

/// Runs a test's body in a process of its own, for what is the process's: its descriptors and their bound.
///
/// Not an exit test of Swift Testing: those wait for any child of this process (WaitFor.swift there: waitid(P_ALL, WNOWAIT)), are always shown the
/// oldest that has ended, and so wait for ever while another test has one that it does not reap.
/// - Parameter test: the calling test as --filter has it, `Module.Suite/function()`; parentheses are escaped here.
/// - Throws: ``OwnProcessFailure`` unless it ends with 0 within a minute.
public func inOwnProcess(_ test: String, _ body: () async throws -> Void) async throws {
  if let own = getenv(variable) {
    guard String(cString: own) == test else { throw OwnProcessFailure(output: "\(test) is run where \(String(cString: own)) is meant") }
    return try await body()
  }
  let (code, output) = try await onOwnThread("orch-own-test") { try run(test) }
  if code != 0 { throw OwnProcessFailure(output: "exit code \(code)\n\(output)") }
}

public struct OwnProcessFailure: Error, CustomStringConvertible {
  let output: String
  public var description: String { "a test's own process failed: \(output)" }
}

private let variable = "ORCH_TEST_OWN_PROCESS"

private func run(_ test: String) throws -> (code: Int32, output: String) {
  let program = CommandLine.arguments[0]
  let pattern = "^" + test.replacing("(", with: "\\(").replacing(")", with: "\\)").replacing(".", with: "\\.")
  let pipe = try OwnedDescriptor.pipe()
  let reader = SharedDescriptor(owning: pipe.read)
  let pid: pid_t
  do {
    let writer = OwnedDescriptor(owning: pipe.write)
    // timeout(1) ends what hangs; its children as well, which would hold the pipe.
    let words = ["timeout", "--signal=KILL", "60", "env", "\(variable)=\(test)", program, "--testing-library", "swift-testing", "--filter", pattern]
    pid = try ChildProcess.start(words[0], words, inPath: true) { actions in
      posix_spawn_file_actions_adddup2(&actions, writer.rawValue, 1)
      posix_spawn_file_actions_adddup2(&actions, writer.rawValue, 2)
    }
  }
  let output = try Files.read(descriptor: reader.rawValue, name: test, limit: 1 << 20)
  return (ChildProcess.exitCode(ChildProcess.reap(pid)), String(decoding: output, as: UTF8.self))
}
