import ArgumentParser
import Consensus
import Identity
import Logging
import Model
import Transport
import Wire

/// Becomes a further manager of a cluster, and runs.
struct Join: AsyncParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Join a cluster as a further manager, and run.")
  @OptionGroup var common: CommonOptions
  @OptionGroup var addresses: AddressOptions

  @Option(name: .customLong("agent-state-dir"), help: "Folder of this host's agent, if it has one: both are one node then.")
  var agentFolder = "/var/lib/orch/agent"

  @Option(help: "The manager token that `orch-manager init` printed.")
  var token: String

  @Argument(help: "HOST[:PORT] of any manager.")
  var address: String

  func run() async throws {
    try common.begin()
    let log = Logger(label: "join")
    let folder = StateFolder(path: common.stateFolder)
    try folder.requireUnused()
    let token = try JoinToken(parsing: token)
    guard let target = HostPort(address, defaultPort: HostPort.defaultPort) else { throw UserError("\(address): not HOST or HOST:PORT") }
    let listen = try addresses.listenAddress()
    var given: HostPort?
    if let text = addresses.advertise {
      given = HostPort(text, defaultPort: listen.port)
      if given == nil { throw UserError("--advertise-addr \(text): not HOST or HOST:PORT") }
    }
    try await addresses.requireFree()
    let advertise = given ?? (listen.host == "0.0.0.0" ? nil : listen)

    let (identity, settings, unlock) = try await folder.fill {
      var hosts = [Host.hostname]
      if let advertise { hosts.append(advertise.host) }
      let joined = try await JoinClient.requestCertificate(
        token: token, role: .manager, address: target, hostname: Host.hostname, hosts: hosts,
        sameNodeAs: try NodeIdentity.load(folder: agentFolder), log: log)
      let settings = try addresses.settings(listen: listen, advertise: advertise ?? HostPort(host: joined.localHost, port: listen.port))
      try folder.save(settings)
      let unlock = try await becomeMember(joined, settings, target, folder, log)
      try unlock.save(folder.unlockKeyFile)
      try joined.identity.save(folder: folder.path)
      return (joined.identity, settings, unlock)
    }
    let daemon = try ManagerDaemon(
      folder: folder, identity: identity, settings: settings, unlock: unlock, readiness: Readiness(descriptor: common.readyDescriptor))
    try await daemon.run(until: .member) { _ in
      say("This manager is node \(identity.node) at \(settings.advertise) and a member of cluster \(identity.cluster).")
    }
  }

  /// Asks the leader, wherever it is; prepares the database for the state that it will send.
  private func becomeMember(
    _ joined: JoinClient.Joined, _ settings: Settings, _ target: HostPort, _ folder: StateFolder, _ log: Logger
  ) async throws -> UnlockKey {
    var request = WireJoinMemberRequest()
    request.address = settings.advertise
    request.hostname = Host.hostname
    let response = try await MembershipRequest(identity: joined.identity, request: request, log: log).ask([target])
    try Consensus.prepareJoin(path: folder.database, raftID: RaftID(response.raftID), members: response.contacts)
    return try UnlockKey(bytes: Array(response.unlockKey))
  }
}
