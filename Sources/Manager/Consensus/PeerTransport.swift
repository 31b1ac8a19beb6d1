import Logging
import Model
import Raft
import Store
import Synchronization
import Transport
import Wire

/// RaftTransport over the daemons' own connections: to each peer one long-lived stream "raft" of batches, one way; the answers come on
/// the peer's stream to us. A snapshot travels on a stream of its own, so that heartbeats do not wait behind it.
public final class PeerTransport: RaftTransport {
  /// Bytes of messages that wait for one peer; more are dropped and Raft is told.
  static let waitingBytesMax = 16 << 20
  /// Of one batch; a single message may be larger (`RaftConfig.maxMessageBytes`, `ConsensusConfiguration.commandBytesMax`).
  static let batchBytesMax = 1 << 20

  private let link: @Sendable (RaftPeer) -> PeerLink
  private let log: Logger
  private let state = Mutex(State())
  let inbox = SnapshotInbox()
  /// A snapshot's sending is given up after so many broken connections in a row that brought nothing over.
  static let snapshotAttemptsMax = 5

  private struct State {
    weak var consensus: Consensus?
    var peers: [RaftID: PeerStream] = [:]
  }

  /// `link` makes the connection to a peer, for this transport alone; it is closed when the peer is no member any longer.
  public init(log: Logger, link: @escaping @Sendable (RaftPeer) -> PeerLink) {
    self.link = link
    self.log = log
  }

  /// Brings what arrives to the member, and answers the methods "raft" and "raft.snapshot". Before `Consensus.start`.
  public func attach(to consensus: Consensus, router: Router) {
    state.withLock { $0.consensus = consensus }
    router.on(.raft, allow: .manager, onEventLoop: true) { [weak consensus] peer, stream in
      while let batch = try await stream.receive(WireRaftBatch.self) {
        guard let consensus else { throw StreamError(.unavailable, "this manager is stopping") }
        // A snapshot without its state, which comes on a stream of its own, could only end this member.
        let messages = try batch.messages.map { try $0.model() }.filter { if case .snapshot = $0.body { false } else { true } }
        for sender in Set(messages.map(\.from)) { try consensus.check(sender, node: peer?.node) }
        consensus.receive(messages, address: batch.senderAddress)
      }
    }
    router.on(.raftSnapshot, allow: .manager) { [weak consensus, inbox] peer, stream in
      guard let first = try await stream.receive(WireRaftSnapshotChunk.self), first.hasHeader else {
        throw StreamError(.invalidArgument, "a snapshot that does not begin with its header")
      }
      guard let consensus else { throw StreamError(.unavailable, "this manager is stopping") }
      try consensus.check(try first.header.message.model().from, node: peer?.node)
      let (number, objects) = inbox.begin(first.header)
      do {
        try await stream.send(WireRaftSnapshotResume.with { $0.objects = objects })
        while let chunk = try await stream.receive(WireRaftSnapshotChunk.self) {
          guard let snapshot = try inbox.add(chunk, from: number) else { continue }
          consensus.receive(snapshot)
          return try await stream.send(WireRaftSnapshotDone(), end: true)
        }
      } catch {
        inbox.interrupted(number)
        throw error
      }
      inbox.interrupted(number)
      throw StreamError(.invalidArgument, "a snapshot without its end")
    }
  }

  public func send(_ messages: [Message], to peer: RaftPeer) { stream(to: peer).send(messages) }

  public func send(_ snapshot: OutgoingSnapshot, to peer: RaftPeer, completion: @escaping @Sendable (Bool) -> Void) {
    let link = stream(to: peer).link
    let log = log
    Task {
      do {
        try await Self.deliver(snapshot, over: link, log)
        completion(true)
      } catch {
        log.warning("a snapshot was not sent", metadata: ["to": "\(peer.id) at \(peer.address)", "error": "\(error)"])
        completion(false)
      }
    }
  }

  /// Goes on where it was when the connection breaks.
  private static func deliver(_ snapshot: OutgoingSnapshot, over link: PeerLink, _ log: Logger) async throws {
    let transfer = UInt64.random(in: .min ... .max)
    let arrived = Mutex<UInt64>(0)
    var attempts = 0
    while true {
      let before = arrived.withLock { $0 }
      do {
        return try await link.connection().withStream(.raftSnapshot) { stream in
          try await stream.send(snapshot.header(transfer: transfer))
          guard let resume = try await stream.receive(WireRaftSnapshotResume.self) else { throw StreamError(.unknown, "no answer to its header") }
          arrived.withLock { $0 = resume.objects }
          for chunk in snapshot.chunks(after: resume.objects) { try await stream.send(chunk) }
          stream.finish()
          guard try await stream.receive(WireRaftSnapshotDone.self) != nil else { throw StreamError(.unknown, "no confirmation") }
        }
      } catch let error as StreamError where [.failedPrecondition, .permissionDenied, .invalidArgument].contains(error.code) {
        throw error
      } catch {
        attempts = arrived.withLock { $0 } > before ? 1 : attempts + 1
        guard attempts < Self.snapshotAttemptsMax else { throw error }
        log.info("a snapshot's sending broke, it goes on", metadata: ["objects": "\(arrived.withLock { $0 })", "error": "\(error)"])
        try await Task.sleep(for: .milliseconds(100 << attempts))
      }
    }
  }

  public func peersChanged(_ peers: [RaftPeer]) {
    let gone = state.withLock { state in
      let gone = state.peers.filter { entry in !peers.contains(entry.value.peer) }
      for id in gone.keys { state.peers[id] = nil }
      return gone
    }
    for stream in gone.values { stream.close() }
  }

  /// Ends all streams; messages are lost from then on.
  public func close() {
    let peers = state.withLock { state in
      defer { state.peers = [:] }
      return state.peers
    }
    for stream in peers.values { stream.close() }
  }

  private func stream(to peer: RaftPeer) -> PeerStream {
    let (stream, old) = state.withLock { state -> (PeerStream, PeerStream?) in
      if let known = state.peers[peer.id], known.peer == peer { return (known, nil) }
      let consensus: @Sendable () -> Consensus? = { [weak self] in self?.state.withLock { $0.consensus } ?? nil }
      let made = PeerStream(peer: peer, link: link(peer), log: log, consensus: consensus)
      return (made, state.peers.updateValue(made, forKey: peer.id))
    }
    old?.close()
    return stream
  }
}

/// The queue and the stream to one peer.
private final class PeerStream: Sendable {
  let peer: RaftPeer
  let link: PeerLink
  private let queue = Mutex(Queue())
  private let wakeUp: AsyncStream<Void>.Continuation
  private let consensus: @Sendable () -> Consensus?

  private struct Queue {
    var messages: [Message] = []
    var bytes = 0
    /// While it is open and nothing waits, a message leaves at once, by the member's own thread.
    var stream: TransportStream?
  }

  init(peer: RaftPeer, link: PeerLink, log: Logger, consensus: @escaping @Sendable () -> Consensus?) {
    self.peer = peer
    self.link = link
    self.consensus = consensus
    let (wakeUps, continuation) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    wakeUp = continuation
    Task { [weak self] in
      var stream: TransportStream?
      var reachable = true
      for await _ in wakeUps {
        do {
          try await self?.deliver(&stream)
          if !reachable { log.info("manager reached again", metadata: ["peer": "\(peer.id) at \(peer.address)"]) }
          reachable = true
        } catch {
          stream = nil
          self?.queue.withLock { $0.stream = nil }
          if reachable { log.info("manager not reached", metadata: ["peer": "\(peer.id) at \(peer.address)", "error": "\(error)"]) }
          reachable = false
          self?.failed(error)
        }
      }
      stream?.finish()
    }
  }

  func send(_ messages: [Message]) {
    let size = messages.reduce(0) { $0 + $1.byteCount }
    enum Outcome { case sent, queued, full }
    let outcome = queue.withLock { queue -> Outcome in
      if queue.messages.isEmpty, size <= PeerTransport.batchBytesMax, let stream = queue.stream, sent(messages, on: stream) { return .sent }
      guard queue.messages.isEmpty || queue.bytes + size <= PeerTransport.waitingBytesMax else { return .full }
      queue.messages += messages
      queue.bytes += size
      return .queued
    }
    switch outcome {
    case .sent: break
    case .queued: wakeUp.yield()
    case .full: consensus()?.reportUnreachable(peer.id)
    }
  }

  /// false: to be queued; the one who delivers finds out why.
  private func sent(_ messages: [Message], on stream: TransportStream) -> Bool {
    guard let bytes: [UInt8] = try? WireRaftBatch(messages, from: consensus()?.address ?? "").serializedBytes() else { return false }
    return (try? stream.trySend(bytes)) == true
  }

  func close() {
    wakeUp.finish()
    link.close()
  }

  /// Everything that waits, in batches.
  private func deliver(_ stream: inout TransportStream?) async throws {
    while true {
      let open: TransportStream
      if let stream { open = stream } else { open = try await link.connection().open(.raft) }
      stream = open
      let batch = takeBatch(open)
      if batch.isEmpty { return }
      try await open.send(WireRaftBatch(batch, from: consensus()?.address ?? ""))
    }
  }

  /// Empty when nothing waits; then `stream` is good for whoever comes.
  private func takeBatch(_ stream: TransportStream) -> [Message] {
    queue.withLock { queue in
      queue.stream = queue.messages.isEmpty ? stream : nil
      var size = 0
      var count = 0
      for message in queue.messages {
        size += message.byteCount
        if count > 0, size > PeerTransport.batchBytesMax {
          size -= message.byteCount
          break
        }
        count += 1
      }
      defer {
        queue.messages.removeFirst(count)
        queue.bytes -= size
      }
      return Array(queue.messages.prefix(count))
    }
  }

  /// What waited while the peer was not reached is stale.
  private func failed(_ error: any Error) {
    queue.withLock { $0 = Queue() }
    guard let consensus = consensus() else { return }
    consensus.reportUnreachable(peer.id)
    if let refusal = error as? StreamError, refusal.code == .failedPrecondition, refusal.detail == "removed" { consensus.reportRemoved() }
  }
}
