import Consensus
import ControlAPI
import Model
import NIOCore
import Store

/// The Raft group, and questions in SQL.
extension Backend {
  func query(_ statement: String, limit: Duration, stale: Bool) async throws -> APIBody {
    do {
      let answer = try await translated { try await queries.ask(statement, limit: limit, stale: stale) }
      return APIBody(stream: Lines(answer: answer))
    } catch let error as QueryError {
      if case .storage = error { throw APIError(500, "\(error)") }
      throw APIError(400, "\(error)")
    }
  }

  private struct Lines: AsyncSequence, Sendable {
    let answer: QueryAnswer
    struct AsyncIterator: AsyncIteratorProtocol {
      let lines: QueryAnswer.AsyncIterator
      func next() async throws -> ByteBuffer? { await lines.next().map { ByteBuffer(bytes: $0) } }
    }
    func makeAsyncIterator() -> AsyncIterator { AsyncIterator(lines: answer.makeAsyncIterator()) }
  }

  func managers() async -> [ManagerRecord] {
    guard let status = try? await consensus.status() else { return [] }
    return status.members.compactMap { member in
      guard member.member.role.isMember, let node = member.member.node else { return nil }
      return ManagerRecord(
        raftID: member.member.raftID, node: node, hostname: consensus.snapshot.nodes[node]?.hostname ?? "", address: member.member.address,
        leader: member.member.raftID == status.leader,
        votes: member.member.role == .voter, term: status.term, reachable: member.isReachable, matchIndex: member.match,
        lag: member.match.map { status.lastIndex - min($0, status.lastIndex) })
    }
  }

  func removeManager(_ node: NodeID, force: Bool) async throws {
    for member in consensus.membership.members.values where member.node == node && member.role.isMember {
      if member.raftID == consensus.id {
        throw APIError(409, "manager \(name(node)) leads the cluster: hand over first (orch manager transfer-leadership)")
      }
      do { try await changing(node, "removed") { try await consensus.removeMember(member.raftID, force: force) } } catch {
        // The same request, sent again when its answer was lost with the old leader, or another one was faster.
        if consensus.membership.members[member.raftID]?.role.isMember == true { throw error }
      }
    }
  }

  func setVote(_ node: NodeID, _ votes: Bool, force: Bool) async throws {
    let status = try await translated { try await consensus.status() }
    guard let member = status.members.first(where: { $0.member.node == node && $0.member.role.isMember }) else {
      throw APIError(409, "node \(name(node)) is no manager: see orch managers")
    }
    if (member.member.role == .voter) == votes { return }
    if votes, member.isReachable != true {
      throw APIError(409, "manager \(name(node)) cannot be promoted: it is not reachable; start its orch-manager, and it is promoted by itself")
    }
    // The leader promotes whoever has caught up.
    if votes, let match = member.match, status.lastIndex > match + 1000 { return }
    try await changing(node, votes ? "promoted" : "demoted") {
      try await consensus.setVote(member.member.raftID, votes, force: force)
    }
  }

  func transferLeadership(to node: NodeID?) async throws -> NodeID {
    let status = try await translated { try await consensus.status() }
    let others = status.members.filter { $0.member.role == .voter && $0.member.raftID != status.id }
    let target: ConsensusStatus.Member
    if let node {
      if node == self.node { return node }
      guard let found = status.members.first(where: { $0.member.node == node && $0.member.role.isMember }) else {
        throw APIError(409, "node \(name(node)) is no manager: see orch managers")
      }
      guard found.member.role == .voter else {
        throw APIError(409, "manager \(name(node)) has no vote and cannot lead: promote it first (orch manager promote \(name(node)))")
      }
      guard found.isReachable == true else {
        throw APIError(409, "manager \(name(node)) is not reachable and cannot lead: start its orch-manager, or hand over to another")
      }
      target = found
    } else {
      guard let best = others.filter({ $0.isReachable == true }).max(by: { ($0.match ?? 0) < ($1.match ?? 0) }) else {
        throw APIError(409, "no other manager with a vote is reachable: there is nobody to hand over to (see orch managers)")
      }
      target = best
    }
    let changes = consensus.leadership()
    try await translated { try await consensus.transferLeadership(to: target.member.raftID) }
    let leader = await withTaskGroup(of: RaftID?.self) { group in
      group.addTask {
        for await leadership in changes { if case .follower(let leader?) = leadership { return leader.id } }
        return nil
      }
      group.addTask {
        try? await Task.sleep(for: .seconds(3))
        return nil
      }
      defer { group.cancelAll() }
      return await group.next() ?? nil
    }
    guard let leader, let found = status.members.first(where: { $0.member.raftID == leader })?.member.node else {
      throw APIError(503, "manager \(target.member.node.map(name) ?? "") did not take over within 3 s; see orch managers and try again")
    }
    return found
  }

  private func name(_ node: NodeID) -> String { consensus.snapshot.nodes[node]?.hostname ?? "\(node)" }

  private func changing(_ node: NodeID, _ what: String, _ body: () async throws -> Void) async throws {
    do { try await body() } catch ConsensusError.membership(let objection) {
      throw APIError(409, "manager \(name(node)) cannot be \(what): \(objection)")
    } catch let error as ConsensusError {
      throw APIError(503, "\(error)")
    }
  }
}
