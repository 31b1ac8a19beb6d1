import LinuxSystem
import Logging
import Model
import Raft
import Replica
import Store

/// The member's thread: takes what waits in the mailbox and the time that passed, steps the core, carries out what it says. The disk has
/// a thread of its own, so a slow fsync holds up neither heartbeats nor answers. While there is little to do, whoever brings an event (a
/// connection's event loop, the disk's thread) steps the core itself: for a lone client a change of threads costs more than the work.
///
/// When the disk fails the core is given up, and with it every promise not kept yet; until the disk takes writes again this manager says
/// nothing to the others and refuses what is asked, by the reason (`DiskTrouble`). Then another core is made from what the disk holds.
final class ReplicaDriver: @unchecked Sendable {
  // Its state belongs to whoever has the mailbox's turn.
  enum Event: Sendable {
    case input(ReplicaCore.Input)
    case ask(Question)
    case disk(DiskThread.Report)
  }

  /// A request; it gets its number here.
  struct Question: Sendable {
    var input: @Sendable (RequestID) -> ReplicaCore.Input
    var reply: @Sendable (ReplicaCore.Answer) -> Void
  }

  /// Of one step. Many clients that wait for the same write would else all come back at once, and the disk and this thread, each with all of
  /// them in one batch, would wait for each other.
  static let eventsMax = 128

  typealias Publish = (ReplicaCore.View, ChangeBatch?, _ resync: Bool) -> Void

  let configuration: ConsensusConfiguration
  private let transport: any RaftTransport
  private let mailbox: Mailbox<Event>
  let publish: Publish
  let disk: DiskThread
  private(set) var log: Logger
  private var core: ReplicaCore?
  /// Cores that were made.
  private var lives: UInt64 = 0
  var trouble: DiskTrouble?
  var lastRecovery: (time: UInt64, attempts: Int)?
  private var replies: [RequestID: @Sendable (ReplicaCore.Answer) -> Void] = [:]
  private var lastRequest: RequestID = 0
  var end: ConsensusError?

  init(
    configuration: ConsensusConfiguration, gate: RowGate, transport: any RaftTransport, mailbox: Mailbox<Event>, log: Logger,
    publish: @escaping Publish
  ) {
    self.configuration = configuration
    self.transport = transport
    self.mailbox = mailbox
    self.log = log
    self.publish = publish
    disk = DiskThread(path: configuration.path, gate: gate) { report in
      if case .written = report { _ = mailbox.put([(.disk(report), 0)], as: .written) } else { _ = mailbox.put(.disk(report)) }
    }
    mailbox.onTurn { [unowned self] in work($0) }
    disk.open()
  }

  /// Until it ends; says why. `started` hears once whether it began. The database is closed when it returns.
  func run(started: (Result<RaftID, ConsensusError>) -> Void) -> ConsensusError {
    let interval = UInt64(configuration.tick / .nanoseconds(1))
    var tick = MonotonicClock.now + interval
    var isStarted = false
    var events: ArraySlice<Event> = []
    // What comes while the database is being loaded waits.
    var inputs: [ReplicaCore.Input] = []
    var deadline = UInt64.max
    var hasTurn = false
    while true {
      if !hasTurn { events = mailbox.takeTurn(until: deadline)[...] }
      hasTurn = true
      // By whoever had the turn.
      guard end == nil else { break }
      inputs.reserveCapacity(Self.eventsMax + 1)
      for event in events.prefix(Self.eventsMax) { if let input = input(event) { inputs.append(input) } }
      events = events.dropFirst(Self.eventsMax)
      let now = MonotonicClock.now
      if trouble != nil {
        for input in inputs { answerInTrouble(input) }
        retryIfDue(now)
        tick = now + interval
      } else if now >= tick, core != nil {
        // After a pause of the whole process one tick is enough: what was heard meanwhile counts first.
        inputs.append(.tick)
        tick = max(tick + interval, now)
      }
      if core != nil, !inputs.isEmpty { carryOut(core!.step(inputs)) }
      if core != nil || trouble != nil { inputs.removeAll(keepingCapacity: true) }
      if !isStarted, let core {
        isStarted = true
        started(.success(core.id))
      }
      guard events.isEmpty, end == nil else { continue }
      deadline = trouble.map(\.deadline) ?? (core == nil ? .max : tick)
      mailbox.endTurn(admitted: admitted)
      hasTurn = false
    }
    let reason = end ?? .stopped
    core = nil
    disk.close()
    if !isStarted { started(.failure(reason)) }
    for event in events + mailbox.close() { if case .ask(let question) = event { question.reply(.failed(reason)) } }
    for reply in replies.values { reply(.failed(reason)) }
    replies = [:]
    return reason
  }

  /// By whoever has the turn, instead of the thread.
  private func work(_ events: [Event]) {
    if core != nil { carryOut(core!.step(events.compactMap(input))) }
    mailbox.endTurn(admitted: admitted, calls: end != nil || trouble != nil)
  }

  /// What may be worked off by whoever brings it: nothing that could read the disk or take long.
  private var admitted: Mailbox<Event>.Kinds {
    guard let core, trouble == nil, end == nil else { return [] }
    return switch core.load {
    case .idle: [.ask, .message, .written]
    case .little: core.isWriting && !core.isLeader ? .written : [.message, .written]
    case .much: []
    }
  }

  private func input(_ event: Event) -> ReplicaCore.Input? {
    switch event {
    case .input(let input): return input
    case .ask(let question): return number(question)
    case .disk(.written(let number, let failure)): return .written(number, failure: failure)
    case .disk(.opened(let result)):
      opened(result)
      return nil
    }
  }

  func reply(_ request: RequestID, _ answer: ReplicaCore.Answer) { replies.removeValue(forKey: request)?(answer) }

  private func number(_ question: Question) -> ReplicaCore.Input {
    lastRequest += 1
    replies[lastRequest] = question.reply
    return question.input(lastRequest)
  }

  private func opened(_ result: Result<OpenedStore, StoreError>) {
    do {
      let opened = try result.get()
      var config = configuration.replica
      // An answer to a read of the life before must not be taken for one of this life's.
      config.raft.seed &+= lives << 32
      lives += 1
      var core = try ReplicaCore(config: config, loaded: opened.loaded, reader: opened.log, decoder: .wire)
      log[metadataKey: "raft"] = "\(core.id)"
      log.info("database opened", metadata: ["sqlite": "\(Store.sqliteVersion)", "path": "\(configuration.path)"])
      if trouble != nil { overcame() }
      let first = core.begin()
      self.core = core
      carryOut(first)
    } catch let error as StoreError {
      if trouble != nil, error.mayPass { failedAgain(error) } else { end = .storage(error) }
    } catch { end = error as? ConsensusError ?? .inconsistent("\(error)") }
  }

  private func carryOut(_ outputs: [ReplicaCore.Output]) {
    // Whoever hears of a failure can look for its reason at once.
    if case .ended(.storage(let error))? = outputs.last, error.mayPass, let core { diskFailed(error, core.view, core.status) }
    for output in outputs {
      switch output {
      case .send(let messages, let peer): transport.send(messages, to: peer)
      case .write(let batch, let number): disk.write(batch, number: number)
      case .publish(let view, let batch, let resync): if trouble == nil { publish(view, batch, resync) }
      case .answer(let request, let answer): reply(request, answer)
      case .sendSnapshot(let snapshot, let peer):
        let mailbox = mailbox
        transport.send(snapshot, to: peer) { _ = mailbox.put(.input(.snapshotSent(peer.id, succeeded: $0))) }
      case .peersChanged(let peers): transport.peersChanged(peers)
      case .note(let note): write(note)
      case .ended where trouble != nil:
        // With it goes its connection to the file.
        core = nil
      case .ended(let reason): end = reason
      }
    }
  }

  private func write(_ note: ReplicaCore.Note) {
    switch note {
    case .roleChanged(let role, let leader, let term):
      log.info("role changed", metadata: ["role": "\(role)", "leader": "\(leader.map { "\($0)" } ?? "none")", "term": "\(term)"])
    case .leading(let term): log.notice("leading", metadata: ["term": "\(term)"])
    case .sendingSnapshot(let peer, let index):
      log.info("sending a snapshot", metadata: ["to": "\(peer.id) at \(peer.address)", "index": "\(index)"])
    case .installingSnapshot(let index): log.notice("installing a snapshot", metadata: ["index": "\(index)"])
    case .compacted(let index): log.debug("log compacted", metadata: ["to": "\(index)"])
    case .membersChanged(let membership):
      let members = membership.members.values.map { "\($0.raftID) \($0.address) \($0.role)" }.sorted()
      log.notice("managers changed", metadata: ["members": "\(members)"])
    case .changeWithoutEffect(let reason): log.warning("a change of the managers had no effect", metadata: ["reason": "\(reason)"])
    }
  }
}
