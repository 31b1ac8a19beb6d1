import Consensus
import Identity
import Logging
import Model
import Surroundings
import Transport
import Wire

/// The cluster's side of joining: certificates for tokens, places in the Raft group for managers. Any manager is asked, the leader answers.
struct JoinService: Sendable {
  let consensus: Consensus
  let leader: LeaderLink
  let unlock: UnlockKey
  let log: Logger

  func register(on router: Router) {
    router.unary(.joinIssueCertificate, allow: .anyone) { peer, request in try await issue(request, peer) }
    router.unary(.renewCertificate, allow: [.manager, .worker]) { peer, request in try await renew(request, peer) }
    router.unary(.joinMember, allow: .manager) { peer, request in
      do { return try await addMember(request, peer) } catch let refusal as StreamError {
        if let peer, [.invalidArgument, .failedPrecondition, .permissionDenied].contains(refusal.code) { await withdraw(peer.node) }
        throw refusal
      }
    }
    // A node that was removed is refused at once, whatever its certificate says. Raft's own streams are let through: a member that
    // is far behind must hear those that it does not know yet (PeerTransport refuses removed members by itself).
    router.admit { [consensus] peer, method in
      guard method != .raft, method != .raftSnapshot, consensus.snapshot.cluster != nil, consensus.snapshot.nodes[peer.node] == nil else {
        return nil
      }
      let leads = consensus.isLeader
      return StreamError(
        leads ? .permissionDenied : .unavailable,
        leads
          ? "node \(peer.node) was removed from the cluster: remove its state folder and join again"
          : "this manager does not know node \(peer.node): it was removed, or is too new; try again")
    }
  }

  private func issue(_ request: WireIssueCertificateRequest, _ peer: PeerIdentity?) async throws -> WireIssueCertificateResponse {
    guard !request.sameNode || peer != nil else { throw StreamError(.permissionDenied, "to join as a known node needs its certificate") }
    guard consensus.isLeader else {
      if request.sameNode { throw notLeader() }
      // A manager's request has been handed on once already.
      if peer?.role == .manager { throw notLeader() }
      guard let address = consensus.leader?.address else { throw notLeader() }
      return try await leader.connection(to: address).call(.joinIssueCertificate, request, timeout: .seconds(5))
    }
    let (cluster, authority) = try self.authority()
    let tokens = try (worker: JoinToken(parsing: cluster.workerToken), manager: JoinToken(parsing: cluster.managerToken))
    guard let role = JoinToken.role(ofSecret: request.secret, worker: tokens.worker, manager: tokens.manager) else {
      log.notice("join refused: the token's secret is not valid", metadata: ["hostname": "\(request.hostname.prefix(64))"])
      throw StreamError(.permissionDenied, "the join token's secret is not valid (any longer): get a current token from a manager")
    }
    guard request.role.isEmpty || request.role == role.rawValue else {
      throw StreamError(
        .failedPrecondition,
        role == .worker
          ? "this is the workers' join token: with it, run `orch-agent join`; a manager needs the managers' token"
          : "this is the managers' join token: with it, run `orch-manager join`; an agent needs the workers' token")
    }
    let now = Timestamp.now
    // A follower refuses to hand such a request on, so `peer` is the joiner itself.
    let known = request.sameNode ? peer?.node : nil
    let node = known ?? NodeID.random()
    let certificate = try authority.issue(request.signingRequest, node: node, role: role, hosts: request.hosts, now: now)
    if let row = consensus.snapshot.nodes[node] {
      if role == .manager, row.spec.role != .manager {
        var spec = row.spec
        spec.role = .manager
        try await propose([.nodeSpec(node, spec, at: now)])
      }
      return response(certificate, authority)
    }
    var row = Node(id: node, spec: NodeSpec(role: role), createdAt: now)
    row.description = Host.description(hostname: request.hostname)
    try await propose([.putNode(row)])
    log.info("node joins", metadata: ["node": "\(node)", "role": "\(role.rawValue)", "hostname": "\(request.hostname.prefix(64))"])
    return response(certificate, authority)
  }

  private func renew(_ request: WireRenewCertificateRequest, _ peer: PeerIdentity?) async throws -> WireIssueCertificateResponse {
    guard let peer else { throw StreamError(.permissionDenied, "renewal needs a certificate") }
    guard consensus.isLeader else { throw notLeader() }
    guard let row = consensus.snapshot.nodes[peer.node] else {
      throw StreamError(.permissionDenied, "node \(peer.node) was removed from the cluster")
    }
    guard peer.role == .worker || row.spec.role == .manager || row.manager != nil else {
      throw StreamError(.permissionDenied, "node \(peer.node) is a manager no more")
    }
    let authority = try authority().1
    let certificate = try authority.issue(request.signingRequest, node: peer.node, role: peer.role, hosts: request.hosts, now: .now)
    return response(certificate, authority)
  }

  /// Asking twice makes one member: the row keeps its Raft id, unless that one has had something of the log. Then it is lost, and the leader
  /// would wait for ever for a log that agrees with what it was told.
  private func addMember(_ request: WireJoinMemberRequest, _ peer: PeerIdentity?) async throws -> WireJoinMemberResponse {
    guard let peer else { throw StreamError(.permissionDenied, "a member needs a certificate") }
    guard consensus.isLeader else { throw notLeader() }
    guard HostPort(request.address) != nil else { throw StreamError(.invalidArgument, "the manager's address \(request.address) is not HOST:PORT") }
    guard let row = consensus.snapshot.nodes[peer.node] else {
      throw StreamError(.permissionDenied, "node \(peer.node) was removed from the cluster")
    }
    guard row.spec.role == .manager || row.manager != nil else {
      throw StreamError(.permissionDenied, "node \(peer.node) is a manager no more: join again with the managers' token")
    }
    let known = consensus.snapshot.nodes.values.first { $0.id != peer.node && $0.manager?.address == request.address }
    if let known {
      throw StreamError(
        .failedPrecondition,
        "manager \(known.hostname) (node \(known.id)) has the address \(request.address) already: choose another with --advertise-addr, or remove that node first"
      )
    }
    let voter = row.manager.flatMap { consensus.membership.members[$0.raftID]?.role == .voter ? $0.raftID : nil }
    if let voter, !request.reseed {
      // With an empty database it would vote again as somebody whose promises it has forgotten.
      throw StreamError(
        .failedPrecondition,
        "node \(row.hostname) has a manager that votes (\(voter)): if its state is lost, `orch manager remove \(row.hostname)` first, then join again"
      )
    }
    if request.reseed { try await forgetMembers(of: row) }
    // An id that was removed can never come back.
    var kept = row.manager.map(\.raftID).flatMap { consensus.membership.members[$0]?.role == .removed ? nil : $0 }
    if request.reseed { kept = nil }
    if let id = kept, try await hasMatched(id) {
      try await forget(id, of: row)
      kept = nil
    }
    let raftID = kept ?? consensus.newRaftID()
    try await propose([.nodeManager(peer.node, ManagerStatus(raftID: raftID, address: request.address))])
    do { try await consensus.addMember(raftID, node: peer.node, address: request.address) } catch let error as ConsensusError {
      throw StreamError(error)
    }
    log.info("manager joins", metadata: ["node": "\(peer.node)", "raft": "\(raftID)", "address": "\(request.address)"])
    var response = WireJoinMemberResponse()
    response.raftID = raftID.rawValue
    response.unlockKey = .init(unlock.bytes)
    response.members = consensus.membership.members.values.filter { $0.role == .voter }.map { member in
      var wire = WireJoinMemberResponse.Member()
      wire.raftID = member.raftID.rawValue
      wire.address = member.address
      wire.node = .init(member.node?.bytes ?? [])
      return wire
    }
    return response
  }

  /// A manager that is refused for good leaves nothing of what its certificate's issue made: no row, and no role of a manager at a row
  /// that an agent had before.
  private func withdraw(_ node: NodeID) async {
    guard let row = consensus.snapshot.nodes[node], row.spec.role == .manager else { return }
    let isMember = consensus.membership.members.values.contains { $0.node == node && $0.role != .removed }
    guard !isMember, row.manager.map({ consensus.membership.members[$0.raftID]?.role == .removed }) ?? true else { return }
    var actions: [Action] = []
    if row.manager != nil { actions.append(.nodeManager(node, nil)) }
    if row.status.state == .unknown {
      actions.append(.removeNode(node))
    } else {
      var spec = row.spec
      spec.role = .worker
      actions.append(.nodeSpec(node, spec, at: .now))
    }
    do { try await propose(actions) } catch {
      log.warning("what is left of a refused join stays", metadata: ["node": "\(node)", "error": "\(error)"])
    }
  }

  /// Its disk is lost, and with it what it promised: none of its ids may vote again. Refused when the rest could not decide.
  private func forgetMembers(of row: Node) async throws {
    for member in consensus.membership.members.values where member.role != .removed {
      guard member.node == row.id || member.raftID == row.manager?.raftID else { continue }
      guard member.raftID != consensus.id else { throw StreamError(.failedPrecondition, "node \(row.id) leads the cluster: its state is not lost") }
      try await forget(member.raftID, of: row)
    }
  }

  private func forget(_ member: RaftID, of row: Node) async throws {
    do { try await consensus.removeMember(member) } catch let error as ConsensusError { throw StreamError(error) }
    log.notice("manager lost its state", metadata: ["node": "\(row.id)", "raft": "\(member)"])
  }

  private func hasMatched(_ member: RaftID) async throws -> Bool {
    do { return try await consensus.status().members.contains { $0.member.raftID == member && ($0.match ?? 0) > 0 } } catch let error
      as ConsensusError
    { throw StreamError(error) }
  }

  func authority() throws -> (Cluster, CertificateAuthority) {
    guard let cluster = consensus.snapshot.cluster else {
      throw StreamError(.unavailable, "this manager does not have the cluster's state yet; try again")
    }
    let key = try unlock.open(cluster.sealedKey, context: ClusterSecrets.authorityKey(cluster.id))
    return (cluster, try CertificateAuthority(certificatePEM: cluster.certificateAuthority, keyPEM: String(decoding: key, as: UTF8.self)))
  }

  private func response(_ certificate: String, _ authority: CertificateAuthority) -> WireIssueCertificateResponse {
    var response = WireIssueCertificateResponse()
    response.certificate = certificate
    response.authority = authority.certificatePEM
    response.managers = consensus.snapshot.nodes.values.compactMap { $0.manager?.address }
    return response
  }

  private func propose(_ actions: [Action]) async throws {
    do { try await consensus.propose(Command(actions: actions)) } catch let error as ConsensusError { throw StreamError(error) }
  }

  private func notLeader() -> StreamError { StreamError(ConsensusError.notLeader(leader: consensus.leader)) }
}

extension StreamError {
  /// As another daemon should understand it.
  init(_ error: ConsensusError) {
    switch error {
    case .notLeader(let leader): self.init(.notLeader, "\(error)", detail: leader?.address ?? "")
    case .busy, .unavailable, .unknownOutcome, .stopped: self.init(.unavailable, "\(error)")
    case .refused, .membership, .removed, .tooLarge: self.init(.failedPrecondition, "\(error)")
    case .storage, .inconsistent: self.init(.internalError, "\(error)")
    }
  }
}
