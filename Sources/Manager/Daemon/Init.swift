import ArgumentParser
import Consensus
import ControlAPI
import Identity
import Logging
import Model
import Surroundings
import Telemetry
import Transport

/// Makes a cluster of this one manager, prints how others join, and runs.
struct Init: AsyncParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Make a new cluster with this host as its first manager, and run it.")
  @OptionGroup var common: CommonOptions
  @OptionGroup var addresses: AddressOptions
  @OptionGroup var backup: BackupOptions
  @OptionGroup var pool: PoolOptions

  @Flag(
    help: """
      The other managers are lost for good: make this one, whose state folder exists, the only manager of its cluster. Everything else is kept. \
      What is left of the others must not be started again.
      """)
  var forceNewCluster = false

  func run() async throws {
    try common.begin()
    let folder = StateFolder(path: common.stateFolder)
    let pool = try pool.chosen(isNew: !forceNewCluster && backup.file == nil)
    if forceNewCluster { return try await runAlone(folder) }
    try folder.requireUnused()
    let settings = try self.settings()
    try await addresses.requireFree()
    if backup.file != nil { return try await restore(settings, folder) }
    let (cluster, node) = (ClusterID.random(), NodeID.random())
    let (identity, unlock, worker, manager) = try await folder.fill { try make(cluster, node, pool, settings, folder) }

    let daemon = try ManagerDaemon(
      folder: folder, identity: identity, settings: settings, unlock: unlock, readiness: Readiness(descriptor: common.readyDescriptor))
    try await daemon.run(until: .leads) { _ in
      say(
        """
        Cluster \(cluster) is made: this manager is node \(node) at \(settings.advertise).

        To add a worker, on its host:
            orch-agent join --token \(worker) \(settings.advertise)

        To add a manager, on its host:
            orch-manager join --token \(manager) \(settings.advertise)

        """)
    }
  }

  private func runAlone(_ folder: StateFolder) async throws {
    let (identity, saved, unlock) = try folder.load()
    let settings = try moved(saved, folder)
    let given = try Consensus.forceNewCluster(path: folder.database, node: identity.node, address: settings.advertise, now: .now)
    let daemon = try ManagerDaemon(
      folder: folder, identity: identity, settings: settings, unlock: unlock, readiness: Readiness(descriptor: common.readyDescriptor))
    try await daemon.run(until: .leads) { _ in
      say(
        """
        This manager (node \(identity.node) at \(settings.advertise)) is now the only one of cluster \(identity.cluster).
        Given up as managers: \(given.isEmpty ? "none" : given.map { "\($0)" }.joined(separator: ", ")). Remove the state folders of those that still
        exist before they join again.

        """)
    }
  }

  private func moved(_ saved: Settings, _ folder: StateFolder) throws -> Settings {
    guard let text = addresses.advertise else { return saved }
    guard let parsed = HostPort(text, defaultPort: HostPort.defaultPort) else { throw UserError("--advertise-addr \(text): not HOST or HOST:PORT") }
    var settings = saved
    settings.advertise = parsed.description
    try folder.save(settings)
    return settings
  }

  private func settings() throws -> Settings {
    let listen = try addresses.listenAddress()
    let advertise: HostPort
    if let text = addresses.advertise {
      guard let parsed = HostPort(text, defaultPort: listen.port) else { throw UserError("--advertise-addr \(text): not HOST or HOST:PORT") }
      advertise = parsed
    } else if listen.host != "0.0.0.0" {
      advertise = listen
    } else if let only = try Host.onlyAddress() {
      advertise = HostPort(host: only, port: listen.port)
    } else {
      throw UserError("this host has no address, or several, to be reached at: say which with --advertise-addr HOST[:PORT]")
    }
    return try addresses.settings(listen: listen, advertise: advertise)
  }

  /// All of the cluster that exists so far, written in one go: identity, keys, and a database whose first state holds its rows.
  private func make(_ cluster: ClusterID, _ node: NodeID, _ pool: AddressPool, _ settings: Settings, _ folder: StateFolder) throws -> (
    NodeIdentity, UnlockKey, JoinToken, JoinToken
  ) {
    let now = Timestamp.now
    let authority = try CertificateAuthority.make(cluster: cluster, now: now)
    let (key, unlock, raftID) = (NodeKey(), UnlockKey(), RaftID(.random(in: 1...UInt64(Int64.max))))
    let certificate = try authority.issue(try key.signingRequest(), node: node, role: .manager, hosts: settings.hosts, now: now)
    let identity = try NodeIdentity(certificatePEM: certificate, key: key, authorityPEM: authority.certificatePEM)
    let (worker, manager) = (JoinToken.make(for: authority.digest), JoinToken.make(for: authority.digest))

    var row = Cluster(id: cluster, createdAt: now)
    (row.addressPool, row.subnetLength) = (pool.prefix, pool.subnetLength)
    row.certificateAuthority = authority.certificatePEM
    row.sealedKey = try unlock.seal(Array(authority.keyPEM.utf8), context: ClusterSecrets.authorityKey(cluster))
    row.sealedDataKey = try unlock.seal(UnlockKey().bytes, context: ClusterSecrets.dataKey(cluster))
    row.workerToken = worker.description
    row.managerToken = manager.description
    var me = Node(id: node, spec: NodeSpec(role: .manager), createdAt: now)
    me.description = Host.description(hostname: Host.hostname)
    me.manager = ManagerStatus(raftID: raftID, address: settings.advertise)

    try folder.save(settings)
    try unlock.save(folder.unlockKeyFile)
    try Consensus.bootstrap(
      path: folder.database, raftID: raftID, node: node, address: settings.advertise,
      actions: [.putCluster(row), .putNode(me), .putNetwork(Network(id: .random(), spec: .publishing, createdAt: now))])
    try identity.save(folder: folder.path)
    return (identity, unlock, worker, manager)
  }
}

/// Contexts of what is sealed.
enum ClusterSecrets {
  static func dataKey(_ cluster: ClusterID) -> String { "data-key/\(cluster)" }
  static func secret(_ id: FileID) -> String { "secret/\(id)" }
  static func authorityKey(_ cluster: ClusterID) -> String { "authority-key/\(cluster)" }
}

extension AddressOptions {
  /// Nothing is begun when somebody else has the addresses.
  func requireFree() async throws {
    let listen = try listenAddress()
    try await TransportServer.probe(host: listen.host, port: listen.port)
    if let api = api.flatMap({ HostPort($0) }) { try await TransportServer.probe(host: api.host, port: api.port) }
    guard socket.utf8.count < 108 else { throw UserError("--socket \(socket): longer than the 107 bytes that a unix socket's path may have") }
    if UnixSocket.answers(socket) { throw ControlServer.Problem.inUse(path: socket) }
  }

  func listenAddress() throws -> HostPort {
    guard let parsed = HostPort(listen, defaultPort: HostPort.defaultPort) else { throw UserError("--listen-addr \(listen): not HOST:PORT") }
    return parsed
  }

  func settings(listen: HostPort, advertise: HostPort) throws -> Settings {
    if let api {
      guard HostPort(api) != nil else { throw UserError("--api-addr \(api): not HOST:PORT") }
    } else if apiClientAuthority != nil {
      throw UserError("--api-client-ca is for the API over TCP: give --api-addr HOST:PORT too")
    }
    let settings = Settings(
      listen: listen.description, advertise: advertise.description, socket: socket, api: api, apiClientAuthority: apiClientAuthority)
    // What cannot be read is told before anything is made.
    _ = try settings.otherAuthorities()
    return settings
  }
}

extension Settings {
  /// Under which the API is reached, for the certificate.
  var hosts: [String] {
    var hosts = [Host.hostname]
    for address in [advertise, api ?? ""] { if let host = HostPort(address)?.host, host != "0.0.0.0" { hosts.append(host) } }
    return hosts
  }
}
