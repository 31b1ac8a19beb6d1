import ArgumentParser
import Consensus
import FoundationEssentials
import Glibc
import Identity
import Model
import Store
import Surroundings

/// What `init` needs to make a lost cluster again.
struct BackupOptions: ParsableArguments {
  @Option(name: .customLong("from-backup"), help: "Make the cluster of this file again (orch backup, or the raft.db of a manager that is lost).")
  var file: String?

  @Option(name: .customLong("unlock-key"), help: "With --from-backup: a copy of the file unlock.key of a manager of that cluster.")
  var unlockKey: String?

  @Option(name: .customLong("agent-state-dir"), help: "With --from-backup: folder of this host's agent, if it has one: both are one node then.")
  var agentFolder = "/var/lib/orch/agent"

  func validate() throws {
    if file != nil, unlockKey == nil {
      throw ValidationError(
        "--from-backup needs --unlock-key FILE, a copy of unlock.key of a manager's state folder: the backup's CA key is sealed with it")
    }
    if file == nil, unlockKey != nil { throw ValidationError("--unlock-key goes with --from-backup FILE") }
  }
}

extension Init {
  /// The cluster of a backup with this host as its one manager: id, CA, tokens, nodes, services, tasks and their ids are kept, so agents
  /// find their cluster again. Its managers of before are none any more; their nodes stay as workers.
  func restore(_ settings: Settings, _ folder: StateFolder) async throws {
    let (identity, unlock, summary, names) = try await folder.fill { try await makeAgain(settings, folder) }
    let daemon = try ManagerDaemon(
      folder: folder, identity: identity, settings: settings, unlock: unlock, readiness: Readiness(descriptor: common.readyDescriptor))
    try await daemon.run(until: .leads) { _ in
      say(
        """
        Cluster \(summary.cluster) is made again from the backup of \(summary.takenAt) (index \(summary.index)): \(summary.nodes) nodes, \
        \(summary.services) services. This manager is node \(identity.node) at \(settings.advertise).
        \(names.isEmpty ? "" : "\nIts managers of before must not come back as they are; on each, empty the folder of orch-manager: \(names.joined(separator: ", "))\n")
        Agents that know a manager at \(settings.advertise) come back by themselves; elsewhere:
            orch-agent run --manager \(settings.advertise)
        More managers: orch manager add

        """)
    }
  }

  private func makeAgain(_ settings: Settings, _ folder: StateFolder) async throws -> (NodeIdentity, UnlockKey, StateBackup.Summary, [String]) {
    guard let file = backup.file, let keyFile = backup.unlockKey else { preconditionFailure("validated") }
    guard let unlock = try UnlockKey.load(keyFile) else { throw UserError("--unlock-key \(keyFile): there is no such file") }
    let (content, row) = try await read(file, folder)
    let authority = try CertificateAuthority(
      certificatePEM: row.certificateAuthority,
      keyPEM: String(decoding: try unlock.open(row.sealedKey, context: ClusterSecrets.authorityKey(row.id)), as: UTF8.self))

    let now = Timestamp.now
    let agent = try NodeIdentity.load(folder: backup.agentFolder)
    let node = agent.flatMap { $0.cluster == row.id && content.state.nodes[$0.node] != nil ? $0.node : nil } ?? NodeID.random()
    let key = NodeKey()
    let certificate = try authority.issue(try key.signingRequest(), node: node, role: .manager, hosts: settings.hosts, now: now)
    let identity = try NodeIdentity(certificatePEM: certificate, key: key, authorityPEM: row.certificateAuthority)
    try folder.save(settings)
    try unlock.save(folder.unlockKeyFile)
    let others = try make(folder.database, of: content, node: node, address: settings.advertise, now: now)
    try identity.save(folder: folder.path)
    return (identity, unlock, content.summary, others)
  }

  private func read(_ file: String, _ folder: StateFolder) async throws -> (StateBackup.Content, Cluster) {
    // Reading may bring it up to date: what was given stays as it is.
    let copy = "\(folder.path)/\(Backend.temporaryPrefix)given.db"
    defer { StateBackup.remove(copy) }
    for suffix in ["", "-wal"] where suffix.isEmpty || access(file + suffix, F_OK) == 0 {
      do { try FileManager.default.copyItem(atPath: file + suffix, toPath: copy + suffix) } catch {
        throw UserError("copy \(file + suffix) to \(folder.path): \(error)")
      }
    }
    let content: StateBackup.Content
    do { content = try await Consensus.readBackup(copy) } catch let error as StoreError {
      throw UserError("--from-backup \(file): \(error.ofFile(copy))")
    }
    guard let row = content.state.cluster else { throw UserError("\(file): it holds no cluster") }
    return (content, row)
  }

  /// A database of one manager that goes on from `content`; the hostnames of those that were managers.
  private func make(
    _ database: String, of content: StateBackup.Content, node: NodeID, address: String, now: Timestamp
  ) throws -> [String] {
    let raftID = RaftID(.random(in: 1...UInt64(Int64.max)))
    let others = content.state.nodes.values.filter { $0.manager != nil && $0.id != node }.sorted { $0.hostname < $1.hostname }
    var actions: [Action] = []
    for other in others {
      var spec = other.spec
      spec.role = .worker
      actions += [.nodeManager(other.id, nil), .nodeSpec(other.id, spec, at: now)]
    }
    var me = content.state.nodes[node] ?? Node(id: node, spec: NodeSpec(role: .manager), createdAt: now)
    me.spec.role = .manager
    if me.description == nil { me.description = Host.description(hostname: Host.hostname) }
    me.manager = ManagerStatus(raftID: raftID, address: address)
    actions.append(.putNode(me))
    try Consensus.bootstrap(
      path: database, raftID: raftID, node: node, address: address, actions: actions, from: content.state, term: content.term + 1)
    return others.map(\.hostname)
  }
}
