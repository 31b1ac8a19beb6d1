import Consensus
import ControlAPI
import FoundationEssentials
import Glibc
import Identity
import Logging
import Model
import NIOSSL
import ServiceLifecycle
import Surroundings
import Telemetry
import Transport

/// One running manager: who gets to know whom, in which order they start (as listed in `services`) and stop (the other way round).
struct ManagerDaemon {
  /// What has to be so before it is announced as ready.
  enum Condition {
    /// The API and the daemon port are open.
    case answers
    /// It leads.
    case leads
    /// It has the state, and its vote, unless its node is a worker by its spec (it was demoted).
    case member
  }

  let folder: StateFolder
  let settings: Settings
  let readiness: Readiness
  let credentials: Credentials
  let unlock: UnlockKey

  init(folder: StateFolder, identity: NodeIdentity, settings: Settings, unlock: UnlockKey, readiness: Readiness) throws {
    self.folder = folder
    self.settings = settings
    self.unlock = unlock
    self.readiness = readiness
    credentials = try Credentials(identity)
  }

  /// Returns after SIGTERM or SIGINT and a graceful stop; throws when it cannot go on. `announce` once `condition` holds,
  /// with whether it votes.
  func run(until condition: Condition, announce: @escaping @Sendable (_ votes: Bool) -> Void) async throws {
    let log = Logger(label: "manager")
    folder.removeTemporaryFiles()
    guard let listen = HostPort(settings.listen) else {
      throw UserError("\(folder.settingsFile): listen address \(settings.listen) is not HOST:PORT")
    }
    let router = Router()
    let raft = PeerTransport(log: Logger(label: "raft")) { [credentials] peer in
      let address = HostPort(peer.address) ?? HostPort(host: peer.address, port: HostPort.defaultPort)
      return PeerLink(
        host: address.host, port: address.port, credentials: credentials, router: router, timeout: .seconds(1), log: Logger(label: "raft"))
    }
    let consensus = Consensus(configuration: ConsensusConfiguration(path: folder.database), transport: raft, log: Logger(label: "raft"))
    raft.attach(to: consensus, router: router)

    let leaderLink = LeaderLink(credentials: credentials, log: log)
    let vault = FileVault(consensus: consensus, unlock: unlock)
    let sessions = AgentSessions(vault: vault, log: Logger(label: "sessions"))
    let loop = ControlLoop(consensus: consensus, sessions: sessions, log: Logger(label: "control"))
    let joining = JoinService(consensus: consensus, leader: leaderLink, unlock: unlock, log: log)
    let backend = Backend(
      consensus: consensus, queries: StateQueries(consensus), sessions: sessions, loop: loop, leaderLink: leaderLink, vault: vault,
      joining: joining, node: credentials.identity.node,
      address: settings.advertise)
    let api = ControlAPI(backend: backend)
    joining.register(on: router)
    register(router, consensus, sessions, loop, api)

    // Everything that the world can refuse comes first.
    let endpoints = try apiEndpoints(consensus)
    let server = try await TransportServer.bind(
      host: listen.host, port: listen.port, credentials: credentials, router: router, log: Logger(label: "transport"))
    let (opened, open) = AsyncStream.makeStream(of: Void.self)
    do { try await consensus.start() } catch {
      await server.close()
      throw error
    }

    var services: [any ServiceLifecycle.Service] = [
      Part { try await cancelWhenGracefulShutdown { try await consensus.run() } },
      Part {
        try? await gracefulShutdown()
        await server.close()
        raft.close()
      },
      Part { await cancelWhenGracefulShutdown { await loop.run() } },
      Part { await cancelWhenGracefulShutdown { await tellManagers(consensus, sessions) } },
      Part { await cancelWhenGracefulShutdown { await follow(consensus, leaderLink) } },
      Part {
        await cancelWhenGracefulShutdown { await Renewal(manager: self, consensus: consensus, joining: joining, leader: leaderLink, log: log).run() }
      },
    ]
    for endpoint in endpoints {
      let server = ControlServer(api, on: endpoint, logger: Logger(label: "api")) { _ in open.yield() }
      services.append(Part { try await server.run() })
    }
    services.append(
      Part {
        try? await gracefulShutdown()
        readiness.stopping()
        if let heir = await consensus.handOver() { log.info("leadership handed over", metadata: ["to": "\(heir.address)"]) }
      })
    services.append(
      Part {
        await cancelWhenGracefulShutdown {
          var waiting = endpoints.count
          for await _ in opened {
            waiting -= 1
            if waiting == 0 { break }
          }
          await wait(for: condition, consensus)
          if Task.isCancelled { return }
          readiness.announce()
          announce(role(consensus) == .voter)
          log.info("ready", metadata: ["node": "\(credentials.identity.node)", "address": "\(settings.advertise)", "socket": "\(settings.socket)"])
        }
        try? await gracefulShutdown()
      })

    var configuration = ServiceGroupConfiguration(
      services: services.map { .init(service: $0) }, gracefulShutdownSignals: [.sigterm, .sigint], logger: quiet())
    configuration.maximumGracefulShutdownDuration = .seconds(10)
    do { try await ServiceGroup(configuration: configuration).run() } catch {
      // When consensus ends (full disk, removed from the cluster), what watches it ends too, maybe first: the reason is its own.
      try await consensus.run()
      throw error
    }
    unlink(settings.socket)
    log.info("stopped")
  }

  /// The group says every step at info.
  private func quiet() -> Logger {
    var log = Logger(label: "services")
    log.logLevel = max(log.logLevel, .warning)
    return log
  }

  private func register(_ router: Router, _ consensus: Consensus, _ sessions: AgentSessions, _ loop: ControlLoop, _ api: ControlAPI) {
    // A manager's host may run an agent under the manager's own certificate, as SwarmKit's nodes do.
    router.on(.session, allow: [.worker, .manager]) { peer, stream in
      guard let peer else { throw StreamError(.permissionDenied, "a session needs a certificate") }
      try await sessions.serve(peer, stream, loop: loop, consensus: consensus)
    }
    router.on(.forwardAPI, allow: .manager) { _, stream in
      guard await consensus.leads(within: .seconds(1)) else { throw StreamError(ConsensusError.notLeader(leader: consensus.leader)) }
      try await APIForwarding.serve(stream) { await api.respond(to: $0) }
    }
  }

  private func wait(for condition: Condition, _ consensus: Consensus) async {
    switch condition {
    case .answers: return
    case .leads: for await leadership in consensus.leadership() where leadership.isLeader { return }
    case .member:
      // A change of the members is an entry, too, and told as one that changed no object.
      for await _ in consensus.changes() {
        let state = consensus.snapshot
        guard state.cluster != nil else { continue }
        switch role(consensus) {
        case .voter: return
        case .learner: if state.nodes[credentials.identity.node]?.spec.role == .worker { return }
        case .contact, .removed, nil: continue
        }
      }
    }
  }

  private func role(_ consensus: Consensus) -> Membership.Role? { consensus.id.flatMap { consensus.membership.members[$0]?.role } }
}

/// Agents remember where the managers are.
private func tellManagers(_ consensus: Consensus, _ sessions: AgentSessions) async {
  for await event in consensus.changes() {
    let state: ClusterState
    switch event {
    case .resync(let newest): state = newest
    case .changes(let batch):
      guard batch.changes.contains(where: { if case .node(let old, let new) = $0 { old?.manager != new?.manager } else { false } }) else { continue }
      state = batch.state
    }
    sessions.managers(state.nodes.values.compactMap { $0.manager?.address }.sorted())
  }
}

private func follow(_ consensus: Consensus, _ link: LeaderLink) async {
  for await leadership in consensus.leadership() {
    switch leadership {
    case .leader: link.leaderChanged(to: nil)
    case .follower(let leader?): link.leaderChanged(to: leader.address)
    case .follower(nil): break
    }
  }
}

/// A long-lived part of the daemon.
private struct Part: ServiceLifecycle.Service {
  let body: @Sendable () async throws -> Void
  init(_ body: @escaping @Sendable () async throws -> Void) { self.body = body }
  func run() async throws { try await body() }
}

/// Renews this node's certificate when half of its time is over. Connections that are open keep the old one, which stays valid.
private struct Renewal {
  let manager: ManagerDaemon
  let consensus: Consensus
  let joining: JoinService
  let leader: LeaderLink
  let log: Logger

  func run() async {
    while !Task.isCancelled {
      let half = Nanoseconds(-CertificateAuthority.nodeValidity.rawValue / 2)
      let due = manager.credentials.identity.notAfter + half - Timestamp.now
      if due.rawValue > 0 {
        do { try await Task.sleep(for: due.duration) } catch { return }
      }
      do {
        let renewed = try await renew()
        try renewed.save(folder: manager.folder.path)
        try manager.credentials.update(renewed)
        log.info("certificate renewed", metadata: ["until": "\(renewed.notAfter)"])
      } catch {
        log.warning("the certificate was not renewed; trying again in a minute", metadata: ["error": "\(error)"])
        try? await Task.sleep(for: .seconds(60))
      }
    }
  }

  private func renew() async throws -> NodeIdentity {
    let identity = manager.credentials.identity
    guard consensus.isLeader else {
      guard let address = consensus.leader?.address else { throw StreamError(.unavailable, "the cluster has no leader now") }
      return try await JoinClient.renew(identity, over: leader.connection(to: address), hosts: manager.settings.hosts)
    }
    let key = identity.key
    let pem = try joining.authority().1.issue(
      key.signingRequest(), node: identity.node, role: identity.role, hosts: manager.settings.hosts, now: .now)
    return try NodeIdentity(certificatePEM: pem, key: key, authorityPEM: identity.authorityPEM)
  }
}
