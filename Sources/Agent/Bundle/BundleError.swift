import Glibc
import Launch
import LinuxSystem
import OCI

/// What a user of runc or crun reads; the sentences that callers look for (containerd's and podman's) are theirs.
public struct BundleError: Error, Hashable, Sendable, CustomStringConvertible {
  public var description: String
  public var exitCode: Int32
  public init(_ description: String, exitCode: Int32 = 1) {
    self.description = description
    self.exitCode = exitCode
  }
  public static func noSuchContainer(_ id: String) -> Self { Self("container \"\(id)\" does not exist") }

  init(_ operation: String, _ error: SystemError) { self.init("\(operation): \(Self.text(error))") }
  init(_ file: String, _ error: OCIError) { self.init("\(file): \(error)") }

  /// podman looks for the C library's words, in lower case.
  static func text(_ error: SystemError) -> String { "\(error.operation) \(error.object): \(error.errno.message.lowercased())" }

  /// The plan's operation that failed, and the program where it was that.
  init(_ operation: String, _ failure: Launcher.Failure, _ names: [String], program: String) {
    let cause = failure.errno.message.lowercased()
    guard let index = failure.index, names.indices.contains(index) else {
      self.init("\(operation): \(failure.step): \(cause)")
      return
    }
    if names[index] == BundlePlan.programName {
      if failure.errno == Errno(E2BIG) {
        // execve(2), "Limits on size of arguments and environment".
        self.init(
          "\(operation): exec \"\(program)\": \(cause): \(failure.step); the kernel takes 128 KiB of each and, together, a quarter of RLIMIT_STACK, 6 MiB at most",
          exitCode: 126)
        return
      }
      let missing = failure.step.hasPrefix("not found") && failure.errno == .noEntry
      self.init(
        "\(operation): exec \"\(program)\": \(missing ? "executable file not found in $PATH" : cause)",
        exitCode: failure.errno == .noEntry || failure.errno == .notDirectory ? 127 : 126)
      return
    }
    self.init("\(operation): \(names[index]): \(failure.step.isEmpty ? "" : failure.step + ": ")\(cause)")
  }
}
