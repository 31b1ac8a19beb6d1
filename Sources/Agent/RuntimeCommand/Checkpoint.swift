import ArgumentParser
import Bundle

/// What callers of runc may ask for (containerd's shim, podman) and is not done, said in words instead of as an unknown option.
private func refuse(_ operation: String) throws {
  throw BundleError("\(operation): is not supported: orch-runtime cannot save a running container's memory (runc and crun do so by CRIU)")
}

struct Checkpoint: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "checkpoint", abstract: "Refused.", shouldDisplay: false)
  @Argument(parsing: .captureForPassthrough) var rest: [String] = []
  func run() throws { try refuse("checkpoint") }
}

struct Restore: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "restore", abstract: "Refused.", shouldDisplay: false)
  @Argument(parsing: .captureForPassthrough) var rest: [String] = []
  func run() throws { try refuse("restore") }
}
