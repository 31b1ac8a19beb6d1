// orch-manager: parse, assemble, run. What it decides is decided in other rooms; here is only who gets to know whom.
//
// Invariants
// - Everything under the state folder is readable by its owner alone (folder 0700, files 0600).
// - A folder holds one manager of one cluster: `init` and `join` refuse any other; what they began and could not finish they remove.
// - Everything that changes the state goes through Consensus; only the leader's control loop decides.

import ArgumentParser
import Glibc
import Telemetry

@main
struct OrchManager: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "orch-manager", abstract: "A manager of an orch cluster: keeps the desired state and makes it so.",
    discussion: """
      The first manager of a cluster:        orch-manager init
      A further one, with the printed token: orch-manager join --token TOKEN HOST:2377
      Again after a restart (systemd):       orch-manager run
      Its database is damaged or lost:       orch-manager reseed
      The other managers are lost for good:  orch-manager init --force-new-cluster
      """,
    version: Version.text, subcommands: [Init.self, Join.self, Run.self, Reseed.self])

  static func main() async {
    // A reader of our output that leaves is no reason to stop.
    signal(SIGPIPE, SIG_IGN)
    do {
      var command = try parseAsRoot()
      if var command = command as? any AsyncParsableCommand { try await command.run() } else { try command.run() }
    } catch {
      exit(withError: error)
    }
  }
}

/// What is wrong, and what to do.
struct UserError: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

/// To the standard output, at once: it may be a file that somebody waits on.
func say(_ text: String) {
  var rest = Array((text + "\n").utf8)[...]
  while !rest.isEmpty {
    let count = rest.withUnsafeBytes { write(1, $0.baseAddress, $0.count) }
    if count < 0 && errno == EINTR { continue }
    if count <= 0 { return }
    rest = rest.dropFirst(count)
  }
}
