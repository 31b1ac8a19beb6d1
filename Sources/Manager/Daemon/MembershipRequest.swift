import Consensus
import Identity
import Logging
import Model
import Transport
import Wire

/// Asks for a place in the Raft group: any manager is asked, the leader answers. Waits through elections, up to 15 s.
struct MembershipRequest {
  let identity: NodeIdentity
  let request: WireJoinMemberRequest
  let log: Logger

  /// One of `targets` after the other, until one answers or names the leader.
  func ask(_ targets: [HostPort]) async throws -> WireJoinMemberResponse {
    let credentials = try Credentials(identity)
    var turn = 0
    var next = targets[0]
    let deadline = ContinuousClock.now + .seconds(15)
    while true {
      do {
        let connection = try await TransportClient.connect(host: next.host, port: next.port, credentials: credentials, log: log)
        defer { connection.close() }
        return try await connection.call(.joinMember, request)
      } catch let error as StreamError where [.notLeader, .unavailable].contains(error.code) && ContinuousClock.now < deadline {
        log.info("asking the leader", metadata: ["reason": "\(error)", "leader": "\(error.detail)"])
        if let leader = HostPort(error.detail), leader != next {
          next = leader
          continue
        }
      } catch let error as TransportError where (targets.count > 1 || next != targets[0]) && ContinuousClock.now < deadline {
        // The leader that was named may have just died.
        log.info("a manager is not reached", metadata: ["address": "\(next)", "error": "\(error)"])
      }
      turn += 1
      next = targets[turn % targets.count]
      try await Task.sleep(for: .milliseconds(200))
    }
  }
}

extension WireJoinMemberResponse {
  var contacts: [Membership.Member] {
    get throws { try members.map { .init(raftID: RaftID($0.raftID), node: try NodeID(wire: $0.node), address: $0.address, role: .contact) } }
  }
}
