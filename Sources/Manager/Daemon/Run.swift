import ArgumentParser
import Glibc

/// Starts again from the state folder.
struct Run: AsyncParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Run the manager whose state is in the folder (after a restart; systemd).")
  @OptionGroup var common: CommonOptions

  @Option(name: .customLong("socket"), help: "Unix socket of the public API, instead of the one that was chosen before.")
  var socket: String?

  @Option(name: .customLong("api-addr"), help: "HOST:PORT of the public API over mutual TLS, instead of the one that was chosen before.")
  var api: String?

  func run() async throws {
    try common.begin()
    let folder = StateFolder(path: common.stateFolder)
    var (identity, settings, unlock) = try folder.load()
    // An empty database would be made in its place, by a manager that may have promised votes.
    guard access(folder.database, F_OK) == 0 else {
      throw UserError("\(folder.database) is missing: `orch-manager reseed HOST[:PORT]` takes the state from another manager again")
    }
    if let socket { settings.socket = socket }
    if let api { settings.api = api }
    let daemon = try ManagerDaemon(
      folder: folder, identity: identity, settings: settings, unlock: unlock, readiness: Readiness(descriptor: common.readyDescriptor))
    try await daemon.run(until: .answers) { _ in }
  }
}
