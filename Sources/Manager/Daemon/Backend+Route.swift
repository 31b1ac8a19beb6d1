import Consensus
import ControlAPI
import Identity
import Logging
import Synchronization
import Transport

extension Backend {
  /// An election takes well under a second: a request waits for its outcome, and for a connection to who won, rather than fail.
  static var routePatience: Duration { .seconds(3) }

  func route() async -> ControlRoute {
    // A lone manager whose disk fails still tells what it knows, and why it changes nothing.
    if consensus.isLeader || (consensus.diskFailure != nil && consensus.isAlone) { return .local }
    if let found = await within(Self.routePatience, { await wayToLeader() }) { return found }
    if let leader = consensus.leader {
      return .unreachable(
        "this manager (\(address)) does not reach the leader at \(leader.address): nothing was changed; ask another manager (ORCH_HOST), or mend the network between the two"
      )
    }
    if let failure = consensus.diskFailure { return .noLeader("\(ConsensusError.storage(failure))") }
    let voters = consensus.membership.members.values.count { $0.role == .voter }
    return .noLeader(
      "\(voters / 2 + 1) of the \(voters) managers must be up and reach each other: see `orch managers`, and start those that are down")
  }

  /// Until it is found, the task is cancelled, or this member ends.
  private func wayToLeader() async -> ControlRoute? {
    for await leadership in consensus.leadership() {
      switch leadership {
      case .leader: return .local
      case .follower(nil): continue
      case .follower(let leader?):
        // The link paces its dials, and `leaderChanged` ends one to a manager that leads no longer.
        while !Task.isCancelled, consensus.leader == leader {
          guard let connection = try? await leaderLink.connection(to: leader.address) else { continue }
          return .forward { try await APIForwarding.ask(connection, $0) }
        }
      }
    }
    return nil
  }
}

extension Consensus {
  /// Whether this manager leads, or is about to: followers hear of their leader a little before it may decide anything.
  func leads(within patience: Duration) async -> Bool {
    if isLeader { return true }
    return await within(patience) {
      for await leadership in self.leadership() {
        switch leadership {
        case .leader: return true
        case .follower(nil): continue
        case .follower: return false
        }
      }
      return false
    } ?? false
  }
}

/// Nil when it took longer, and was cancelled.
private func within<Result: Sendable>(_ patience: Duration, _ body: @escaping @Sendable () async -> Result?) async -> Result? {
  await withTaskGroup(of: Result?.self) { group in
    group.addTask { await body() }
    group.addTask {
      try? await Task.sleep(for: patience)
      return nil
    }
    defer { group.cancelAll() }
    return await group.next() ?? nil
  }
}

/// The connection to whichever manager leads.
final class LeaderLink: Sendable {
  private let credentials: Credentials
  private let log: Logger
  private let links = Mutex<[String: PeerLink]>([:])

  init(credentials: Credentials, log: Logger) {
    self.credentials = credentials
    self.log = log
  }

  func connection(to address: String) async throws -> Connection {
    guard let target = HostPort(address) else { throw APIError(500, "the leader's address '\(address)' is not HOST:PORT") }
    let link = links.withLock { links in
      if let link = links[address] { return link }
      let link = PeerLink(host: target.host, port: target.port, credentials: credentials, timeout: .seconds(1), log: log)
      links[address] = link
      return link
    }
    return try await link.connection()
  }

  /// Whoever waits for the leader before, or for a connection to it, need not wait until its silence is noticed. nil: this manager leads.
  func leaderChanged(to address: String?) {
    let old = links.withLock { links in
      defer { links = links.filter { $0.key == address } }
      return links.filter { $0.key != address }
    }
    for link in old.values { link.close() }
  }
}
