import ArgumentParser
import Consensus
import Identity
import Logging
import Model
import Surroundings
import Transport
import Wire

/// Takes the state from the other managers again, and runs: for a database that is damaged or lost.
struct Reseed: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Take the state from the other managers again (a damaged or lost database), and run.",
    discussion: """
      Identity, certificate and settings stay; the damaged database is moved aside. This manager becomes a member under a new Raft id and
      its old one is removed, so a lost vote is never given again. Refused when too few of the others would be left for a majority.
      """)
  @OptionGroup var common: CommonOptions

  @Argument(help: "HOST[:PORT] of other managers; needed when the database is too damaged to name them.")
  var addresses: [String] = []

  func run() async throws {
    try common.begin()
    let log = Logger(label: "reseed")
    let folder = StateFolder(path: common.stateFolder)
    let (identity, settings, unlock) = try folder.load()
    try Consensus.requireUnused(path: folder.database)
    let targets = try self.targets(folder, settings)

    var request = WireJoinMemberRequest()
    request.address = settings.advertise
    request.hostname = Host.hostname
    request.reseed = true
    let response = try await MembershipRequest(identity: identity, request: request, log: log).ask(targets)
    let old = try Consensus.replaceDatabase(
      path: folder.database, raftID: RaftID(response.raftID), members: response.contacts, now: Timestamp.now)
    if let old { say("The old database is kept as \(old); remove it when nobody wants to look into it.") }

    let daemon = try ManagerDaemon(
      folder: folder, identity: identity, settings: settings, unlock: unlock, readiness: Readiness(descriptor: common.readyDescriptor))
    try await daemon.run(until: .member) { votes in
      say(
        "This manager (node \(identity.node)) has the cluster's state again and \(votes ? "votes" : "no vote, since it was demoted"). "
          + "Stop it with Ctrl-C and start its service, or leave it running.")
    }
  }

  /// Those that were given, else those that the database still names.
  private func targets(_ folder: StateFolder, _ settings: Settings) throws -> [HostPort] {
    let given = try addresses.map { text in
      guard let address = HostPort(text, defaultPort: HostPort.defaultPort) else { throw UserError("\(text): not HOST or HOST:PORT") }
      return address
    }
    if !given.isEmpty { return given }
    let known = Consensus.salvageMembers(path: folder.database).filter { $0.role != .removed && $0.address != settings.advertise }
    let found = known.compactMap { HostPort($0.address, defaultPort: HostPort.defaultPort) }
    guard !found.isEmpty else {
      throw UserError(
        "\(folder.database) names no other manager: say where one is, `orch-manager reseed HOST[:PORT]`; the only manager of a cluster has nobody to "
          + "take its state from, for it there is `orch-manager init --from-backup`")
    }
    return found
  }
}
