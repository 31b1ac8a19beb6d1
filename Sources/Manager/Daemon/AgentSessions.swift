import Consensus
import Dispatcher
import FoundationEssentials
import Glibc
import Identity
import Logging
import Model
import Synchronization
import Transport
import Wire

/// The agents' sessions: sockets of the dispatcher's decisions, and the way to each agent for logs, exec and images.
final class AgentSessions: Sendable {
  private struct Open {
    var node: NodeID
    var connection: Connection
    var queue: AsyncStream<WireManagerMessage>.Continuation
  }
  private struct State {
    var open: [SessionID: Open] = [:]
    var next: UInt64 = 1
    var managers: [String] = []
  }
  private let state = Mutex(State())
  private let log: Logger
  private let vault: FileVault
  /// Messages that may wait for one slow agent; beyond it the session is closed and begins anew with a whole set.
  private static let waitingMax = 4096

  init(vault: FileVault, log: Logger) {
    self.vault = vault
    self.log = log
  }

  /// Serves one agent's session until it ends. Throws `notLeader` with the leader's address at once when this manager does not lead.
  func serve(_ peer: PeerIdentity, _ stream: TransportStream, loop: ControlLoop, consensus: Consensus) async throws {
    func refusal() -> StreamError { StreamError(.notLeader, "another manager leads", detail: consensus.leader?.address ?? "") }
    guard await loop.isLeading else { throw refusal() }
    guard case .register(let register)? = try await stream.receive(WireAgentMessage.self)?.kind else {
      throw StreamError(.invalidArgument, "a session begins with a registration")
    }
    // One that stood still may not know yet that another leads, and would have the agent stop what that one had it start.
    guard (try? await consensus.linearizableState()) != nil, consensus.isLeader else { throw refusal() }
    let description: NodeDescription = try ModelJSON.decode(from: register.description_p)
    let (messages, queue) = AsyncStream.makeStream(of: WireManagerMessage.self, bufferingPolicy: .bufferingOldest(Self.waitingMax))
    let session = state.withLock { state in
      let id = SessionID(state.next)
      state.next += 1
      state.open[id] = Open(node: peer.node, connection: stream.connection, queue: queue)
      return id
    }
    announce(to: queue)
    await loop.input(.connected(node: peer.node, session: session, description: description, underlay: IPv4Address(register.underlay)))
    // Leadership that ended meanwhile did not know of this session, and nobody would serve it.
    guard await loop.isLeading else {
      remove(session)
      throw refusal()
    }
    do {
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask {
          for await message in messages { try await stream.send(message) }
          stream.finish()
        }
        group.addTask { try await self.listen(stream, session, loop) }
        // Whichever ends first ends the session.
        try await group.next()
        group.cancelAll()
        stream.cancel()
      }
    } catch {
      log.debug("\(session) of node \(peer.node): \(error)")
    }
    remove(session)
    await loop.input(.disconnected(session))
  }

  private func listen(_ stream: TransportStream, _ session: SessionID, _ loop: ControlLoop) async throws {
    while let message = try await stream.receive(WireAgentMessage.self) {
      switch message.kind {
      case .heartbeat: await loop.input(.heartbeat(session))
      case .reports(let reports): await loop.input(.report(session, try reports.reports.map { try $0.model() }))
      case .resync: await loop.input(.resync(session))
      case .applied(let sequence): await loop.input(.applied(session, sequence))
      case .description_p(let description): await loop.input(.described(session, try ModelJSON.decode(from: description)))
      case .register, nil: throw StreamError(.invalidArgument, "not a message of a session that has begun")
      }
    }
  }

  // MARK: - The dispatcher's orders

  func send(_ message: AssignmentsMessage, to session: SessionID) {
    guard let queue = state.withLock({ $0.open[session]?.queue }) else { return }
    do {
      let parts = try WireAssignments(opened(message)).parts(itemMax: Limits.message) { weight in
        log.error("an assignment for \(session) is left out: \(weight) bytes, at most \(Limits.message) can be sent")
      }
      for part in parts {
        var wrapped = WireManagerMessage()
        wrapped.assignments = part
        if case .dropped = queue.yield(wrapped) { return close(session, "it is \(Self.waitingMax) messages behind") }
      }
    } catch {
      log.error("assignments for \(session): \(error)")
      close(session, "its assignments cannot be sent")
    }
  }

  /// The agent has no key: over its own mutual TLS it gets the content itself. One that cannot be opened is left out, so that its tasks
  /// alone fail, and say so.
  private func opened(_ message: AssignmentsMessage) -> AssignmentsMessage {
    var message = message
    message.updates = message.updates.compactMap { item in
      if case .revision(var revision) = item, let login = revision.spec.registryLogin {
        do { revision.spec.registryLogin?.data = try vault.content(of: login.file) } catch {
          // Its hosts' own credentials may do.
          log.error("registry login of \(revision.spec.name): \(error)")
          revision.spec.registryLogin = nil
        }
        return .revision(revision)
      }
      guard case .file(var file) = item else { return item }
      do { file.data = try vault.content(of: file) } catch {
        log.error("\(file.kind) \(file.name) (\(file.id)): \(error)")
        return nil
      }
      return .file(file)
    }
    return message
  }

  func close(_ session: SessionID, _ reason: String) {
    guard let open = remove(session) else { return }
    log.info("\(session) of node \(open.node) closed: \(reason)")
    open.queue.finish()
    open.connection.close(reason)
  }

  func closeAll(_ reason: String) {
    for session in state.withLock({ Array($0.open.keys) }) { close(session, reason) }
  }

  @discardableResult
  private func remove(_ session: SessionID) -> Open? { state.withLock { $0.open.removeValue(forKey: session) } }

  /// Where the managers are, for every agent's memory.
  func managers(_ addresses: [String]) {
    let changed = state.withLock { state in
      defer { state.managers = addresses }
      return state.managers != addresses
    }
    if changed { announce() }
  }

  func announce() { for open in state.withLock({ Array($0.open.values) }) { announce(to: open.queue) } }

  private func announce(to queue: AsyncStream<WireManagerMessage>.Continuation) {
    var message = WireManagerMessage()
    message.managers.addresses = state.withLock { $0.managers }
    if !message.managers.addresses.isEmpty { queue.yield(message) }
  }

  // MARK: - Asking an agent

  /// The connection of the node's newest session.
  func connection(to node: NodeID) -> Connection? {
    state.withLock { state in
      state.open.filter { $0.value.node == node && $0.value.connection.isOpen }.max { $0.key < $1.key }?.value.connection
    }
  }
}
