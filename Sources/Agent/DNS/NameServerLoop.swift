import CLinux
import Glibc
import LinuxSystem
import Logging
import Model
import Synchronization

/// The thread of the name server: epoll(7) over all sockets. Everything but the inbox and the zone belongs to that thread alone.
final class NameServerLoop: @unchecked Sendable {
  enum Command {
    case add(TaskID, NameServer.Sockets, DNSClient)
    case remove(TaskID)
    /// In place of sockets that were destroyed; nil: their namespace is gone.
    case renewed(TaskID, number: UInt64, NameServer.Sockets?, DNSClient)
    /// The zone has its first records.
    case filled
    /// An answer that was fetched over TCP, from servers of a task's own or the host's; nil: nobody answered. `task` asked first.
    /// `serving`: of the task's sockets at that time.
    case fetched(TaskID, serving: UInt64?, own: TaskID?, [Asker], query: [UInt8], answer: [UInt8]?)
    case finish
  }
  private enum Source {
    case inbox
    case datagrams(TaskID)
    case listener(TaskID)
    case connection
    case upstream
  }
  enum Asker {
    /// With this number.
    case connection(UInt64)
    /// By a datagram; what came by one was cut.
    case datagram(Waiting, cut: [UInt8])
  }
  /// Who asked by a datagram what another resolver is asked.
  struct Waiting {
    var task: TaskID
    var asker: sockaddr_in
    /// As it came: its id and its spelling are the answer's.
    var query: [UInt8]
  }
  private struct Served {
    /// No other's.
    var number: UInt64
    var sockets: NameServer.Sockets
    var client: DNSClient
    /// Of its own servers.
    var answers = AnswerCache(answersMax: 128)
    var prepared = PreparedAnswers()
    var connections: Set<Int32> = []
    /// Questions that wait for other resolvers, by datagram and by TCP.
    var waiting = 0
    var fetching = 0
  }
  /// One container's share of the questions under way, and of those by TCP.
  static let waitingMax = 128
  static let fetchingMax = 32
  private struct Connection {
    var number: UInt64
    var task: TaskID
    var input: [UInt8] = []
    var deadline: Int64
  }
  /// Equal ones are asked once: many of one name on their way would make a guess at the answer to one of them many times as good.
  private struct QuestionKey: Hashable {
    /// Whose servers are asked; nil: the host's.
    var own: TaskID?
    var question: [UInt8]
  }
  /// A question under way to another resolver.
  private struct Pending {
    var key: QuestionKey
    /// One at least.
    var waiting: [Waiting]
    var rest: ArraySlice<Upstream>
    /// As it was asked last, and whom.
    var sent: (question: UpstreamQuestion, server: Upstream)?
    /// Who did not keep the spelling, and was asked again.
    var respelt: Upstream?
    /// What is said when nobody says more.
    var failure: [UInt8]?
    var deadline: Int64 = 0
  }

  /// Written by the thread alone.
  final class Counters: Sendable {
    let answered = Atomic<UInt64>(0), kept = Atomic<UInt64>(0), forwarded = Atomic<UInt64>(0), failed = Atomic<UInt64>(0),
      malformed = Atomic<UInt64>(0)
    var values: (UInt64, UInt64, UInt64, UInt64, UInt64) {
      func value(_ counter: borrowing Atomic<UInt64>) -> UInt64 { counter.load(ordering: .relaxed) }
      return (value(answered), value(kept), value(forwarded), value(failed), value(malformed))
    }
  }
  let counters = Counters()
  private let inbox = Mutex<[Command]>([])
  private let wake: Int32
  private let epoll: Int32
  /// The host's namespace.
  private let home: Int32
  /// Whether the servers are those of the host's resolv.conf.
  private let readsHost: Bool
  private let log: Logger
  /// Not by way of the inbox: a question that comes after an update may be read in the round that the one before it began. Nobody takes a copy of it:
  /// the next change would copy it all.
  private let zone = Mutex((zone: Zone(), version: UInt64(0)))
  /// The zone has records: until then it cannot say what is the cluster's, and what comes waits in its socket. Nobody else is asked for a name that
  /// may be of the cluster, nobody is told that it is not there; a client waits for 5 s.
  private var isFilled = false
  private var sources: [Int32: Source] = [:]
  private var served: [TaskID: Served] = [:]
  private var connections: [Int32: Connection] = [:]
  private var pending: [Int32: Pending] = [:]
  private var underWay: [QuestionKey: Int32] = [:]
  /// Servers that do not give a name back in the spelling in which they were asked.
  private var respelling: Set<Upstream> = []
  /// Tasks whose sockets are being made anew, with the number of that attempt.
  private var renewals: [TaskID: UInt64] = [:]
  private var renewalNumber: UInt64 = 0
  private var servings: UInt64 = 0
  private var turn = 0
  private var connectionNumber: UInt64 = 0
  private var upstreams: ResolvConf
  /// nil: not yet.
  private var upstreamsReadAt: Int64?
  private var forwarded = AnswerCache()
  /// Given up for a moment when no descriptor is left.
  private var spare: Int32 = -1
  /// Threads that fetch by TCP.
  private var fetching = 0
  private var buffer = [UInt8](repeating: 0, count: 65_536)

  init(upstreams: ResolvConf?, log: Logger) throws {
    (self.upstreams, readsHost) = (upstreams ?? ResolvConf(), upstreams == nil)
    self.log = log
    wake = eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK))
    epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
    home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)
    guard wake >= 0, epoll >= 0, home >= 0 else { throw SystemError("open", "event loop", Errno(errno)) }
    keepSpare()
    watch(wake, .inbox)
  }

  func update(_ updates: [AssignmentItem], _ removals: [AssignmentItem.Key]) {
    let isFirst = zone.withLock { zone in
      for key in removals { zone.zone.remove(key) }
      for item in updates { zone.zone.update(item) }
      zone.version += 1
      return zone.version == 1
    }
    if isFirst { push(.filled) }
  }

  func push(_ command: Command) {
    inbox.withLock { $0.append(command) }
    eventfd_write(wake, 1)
  }

  func run() {
    var events = [epoll_event](repeating: epoll_event(), count: 128)
    while true {
      let count = epoll_wait(epoll, &events, Int32(events.count), wait())
      for index in 0..<max(0, Int(count)) {
        let descriptor = events[index].data.fd
        // An earlier event of the same round may have closed it.
        guard let source = sources[descriptor] else { continue }
        switch source {
        case .inbox: if !readInbox() { return finish() }
        case .datagrams(let task): readDatagrams(descriptor, task)
        case .listener(let task): accept(descriptor, task)
        case .connection: readConnection(descriptor)
        case .upstream: readUpstream(descriptor)
        }
      }
      expire()
    }
  }

  private func finish() {
    for descriptor in sources.keys { close(descriptor) }
    // Of a zone that was never filled.
    for served in served.values {
      if isFilled { if served.sockets.namespace >= 0 { close(served.sockets.namespace) } } else { served.sockets.close() }
    }
    for descriptor in [home, epoll, spare] where descriptor >= 0 { close(descriptor) }
  }

  private func watch(_ descriptor: Int32, _ source: Source) {
    var event = epoll_event()
    event.events = UInt32(EPOLLIN.rawValue)
    event.data.fd = descriptor
    epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event)
    sources[descriptor] = source
  }
  private func drop(_ descriptor: Int32) {
    sources[descriptor] = nil
    if let question = pending.removeValue(forKey: descriptor), underWay[question.key] == descriptor { underWay[question.key] = nil }
    if let connection = connections.removeValue(forKey: descriptor) { served[connection.task]?.connections.remove(descriptor) }
    close(descriptor)
    keepSpare()
  }
  /// Another thread may have taken the number that was given up: it is tried again whenever one may be free.
  private func keepSpare() { if spare < 0 { spare = open("/dev/null", O_RDONLY | O_CLOEXEC) } }

  /// Milliseconds.
  private func now() -> Int64 { Int64(MonotonicClock.now / 1_000_000) }
  private func wait() -> Int32 {
    guard
      let first = (pending.values.lazy.map(\.deadline).min()).map({ a in min(a, connections.values.lazy.map(\.deadline).min() ?? a) })
        ?? connections.values.lazy.map(\.deadline).min()
    else { return -1 }
    return Int32(clamping: max(0, first - now()) + 1)
  }
  private func expire() {
    guard !pending.isEmpty || !connections.isEmpty else { return }
    let now = now()
    for (descriptor, question) in pending where question.deadline <= now {
      drop(descriptor)
      ask(question)
    }
    for (descriptor, connection) in connections where connection.deadline <= now { drop(descriptor) }
  }

  private func readInbox() -> Bool {
    var count: eventfd_t = 0
    eventfd_read(wake, &count)
    let commands = inbox.withLock { commands in
      defer { commands = [] }
      return commands
    }
    for command in commands {
      switch command {
      case .add(let task, let sockets, let client):
        remove(task)
        serve(task, sockets, client)
        if isFilled { watch(task) }
      case .remove(let task): remove(task)
      case .renewed(let task, let number, let sockets, let client):
        guard renewals[task] == number else {
          sockets?.close()
          continue
        }
        remove(task)
        guard let sockets else { continue }
        serve(task, sockets, client)
        watch(task)
      case .filled:
        isFilled = true
        for task in served.keys { watch(task) }
      case .fetched(let task, let serving, let own, let askers, let query, let answer):
        fetching -= 1
        // One that is served anew meanwhile has asked nothing yet.
        if let serving, served[task]?.number == serving { served[task]!.fetching -= 1 }
        if let answer { keep(answer, to: query, of: own) }
        for asker in askers {
          switch asker {
          case .connection(let number):
            guard let descriptor = connections.first(where: { $0.value.number == number })?.key else { continue }
            reply(addressed(answer, to: query), to: descriptor)
          case .datagram(let waiting, let cut):
            guard let served = served[waiting.task] else { continue }
            let whole = answer.map { addressed($0, to: waiting.query) }
            send(whole.flatMap { fits($0, waiting.query) ? $0 : nil } ?? cut, served.sockets.datagrams, waiting.asker)
          }
        }
      case .finish: return false
      }
    }
    return true
  }

  private func serve(_ task: TaskID, _ sockets: NameServer.Sockets, _ client: DNSClient) {
    servings += 1
    served[task] = Served(number: servings, sockets: sockets, client: client)
  }

  private func watch(_ task: TaskID) {
    guard let served = served[task] else { return }
    watch(served.sockets.datagrams, .datagrams(task))
    watch(served.sockets.listener, .listener(task))
  }

  /// Another program destroyed them (sock_diag(7), `ss -K`): a listener is told for ever and accepts nothing any more.
  private func renew(_ task: TaskID) {
    guard let old = served[task] else { return }
    log.warning("the name server's sockets of task \(task) were destroyed: making new ones")
    remove(task)
    renewalNumber += 1
    renewals[task] = renewalNumber
    startThread("orch-dns-renew") { [weak self, renewalNumber, log] in
      var sockets: NameServer.Sockets?
      do { sockets = try NameServer.sockets(old.sockets.path, old.client) } catch { log.error("names of task \(task): \(error)") }
      guard let self else {
        sockets?.close()
        return
      }
      push(.renewed(task, number: renewalNumber, sockets, old.client))
    }
  }

  private func remove(_ task: TaskID) {
    renewals[task] = nil
    guard let old = served.removeValue(forKey: task) else { return }
    for descriptor in old.connections { drop(descriptor) }
    for (descriptor, question) in pending where question.waiting.contains(where: { $0.task == task }) {
      pending[descriptor]!.waiting.removeAll { $0.task == task }
      if pending[descriptor]!.waiting.isEmpty { drop(descriptor) }
    }
    drop(old.sockets.datagrams)
    drop(old.sockets.listener)
    if old.sockets.namespace >= 0 { close(old.sockets.namespace) }
  }

  // MARK: UDP

  private func readDatagrams(_ descriptor: Int32, _ task: TaskID) {
    guard let client = served[task]?.client else { return }
    // Not for ever on one container while others wait.
    for _ in 0..<64 {
      var asker = sockaddr_in()
      var size = socklen_t(MemoryLayout<sockaddr_in>.size)
      let count = withUnsafeMutablePointer(to: &asker) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { recvfrom(descriptor, &buffer, buffer.count, 0, $0, &size) }
      }
      guard count >= 0 else { return }
      let version = zone.withLock { $0.version }
      let question = Array(buffer[min(2, count)..<count])
      let (turn, prepared) = served[task]!.prepared.next(question, version: version)
      if let answer = prepared {
        counters.answered.add(1, ordering: .relaxed)
        // The id that was asked with is in the buffer already.
        buffer.replaceSubrange(2..<answer.count, with: answer[2...])
        sendBuffer(answer.count, descriptor, &asker)
        continue
      }
      let bytes = Array(buffer[..<count])
      guard let query = try? Message(bytes) else {
        counters.malformed.add(1, ordering: .relaxed)
        if let answer = formatError(bytes) { send(answer, descriptor, asker) }
        continue
      }
      let (resolution, known) = zone.withLock { ($0.zone.resolve(query, from: client, turn: turn), $0.version) }
      switch resolution {
      case .ignore: break
      case .answer(let message):
        counters.answered.add(1, ordering: .relaxed)
        let answer = message.encoded(limit: Self.limit(query))
        if known == version { served[task]?.prepared.keep(answer, to: question, turn: turn, of: message.answers.count) }
        send(answer, descriptor, asker)
      case .forward:
        if let answer = kept(bytes, for: task) {
          counters.kept.add(1, ordering: .relaxed)
          send(fits(answer, bytes) ? answer : Self.cut(query), descriptor, asker)
        } else {
          counters.forwarded.add(1, ordering: .relaxed)
          ask(Waiting(task: task, asker: asker, query: bytes))
        }
      }
    }
  }

  /// Bytes of a datagram that the asker takes.
  private static func limit(_ query: Message) -> Int { max(512, min(4096, Int(query.udpPayloadSize ?? 512))) }
  private func fits(_ answer: [UInt8], _ query: [UInt8]) -> Bool {
    answer.count <= 512 || ((try? Message(query)).map { answer.count <= Self.limit($0) } ?? false)
  }
  /// Header and question of an answer that does not fit.
  private static func cut(_ query: Message) -> [UInt8] {
    var message = Message(id: query.id)
    message.isResponse = true
    message.truncated = true
    message.recursionDesired = query.recursionDesired
    message.recursionAvailable = true
    message.questions = query.questions
    message.udpPayloadSize = query.udpPayloadSize.map { _ in 4096 }
    return message.encoded(limit: 512)
  }

  private func sendBuffer(_ count: Int, _ descriptor: Int32, _ asker: inout sockaddr_in) {
    withUnsafePointer(to: &asker) { pointer in
      _ = pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        sendto(descriptor, &buffer, count, Int32(MSG_DONTWAIT), $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
  }

  private func send(_ bytes: [UInt8], _ descriptor: Int32, _ asker: sockaddr_in) {
    var asker = asker
    withUnsafePointer(to: &asker) { pointer in
      _ = pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        sendto(descriptor, bytes, bytes.count, Int32(MSG_DONTWAIT), $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
  }

  // MARK: Other resolvers

  /// The host's resolv.conf again, when it is older than 5 s; what its servers answered is kept as long as they are the same.
  private func readUpstreams() {
    let now = now()
    guard readsHost, upstreamsReadAt.map({ now - $0 > 5000 }) ?? true else { return }
    let conf = ResolvConf.ofHost()
    // Others may know other names.
    if conf.servers != upstreams.servers { forwarded.removeAll() }
    (upstreams, upstreamsReadAt) = (conf, now)
  }

  private func ask(_ asker: Waiting) {
    let own = own(asker.task)
    guard let question = AnswerCache.key(asker.query), let waiting = served[asker.task]?.waiting, waiting < Self.waitingMax else {
      if let served = served[asker.task] { send(failure(asker.query), served.sockets.datagrams, asker.asker) }
      return
    }
    served[asker.task]!.waiting += 1
    let key = QuestionKey(own: own, question: question)
    if let descriptor = underWay[key] {
      pending[descriptor]!.waiting.append(asker)
    } else {
      ask(Pending(key: key, waiting: [asker], rest: servers(of: own).order(turn: nextTurn())[...]))
    }
  }

  /// Asks the next resolver of the list; when there is none left, what the last one that answered said: SERVFAIL when none did.
  private func ask(_ question: Pending) {
    var question = question
    while let server = question.rest.popFirst(), pending.count < 512 {
      guard let sent = UpstreamQuestion(question.waiting[0].query, isSpelt: !respelling.contains(server)) else { break }
      let descriptor = connect(server, of: question.key.own)
      guard descriptor >= 0 else { continue }
      guard Glibc.send(descriptor, sent.bytes, sent.bytes.count, 0) == sent.bytes.count else {
        close(descriptor)
        continue
      }
      question.sent = (sent, server)
      question.deadline = now() + servers(of: question.key.own).timeoutMilliseconds
      pending[descriptor] = question
      underWay[question.key] = descriptor
      watch(descriptor, .upstream)
      return
    }
    answer(question, question.failure)
  }

  private func readUpstream(_ descriptor: Int32) {
    guard var question = pending[descriptor], let sent = question.sent else { return drop(descriptor) }
    let count = recv(descriptor, &buffer, buffer.count, 0)
    if count < 0 {
      // Refused: try the next at once.
      if errno == EAGAIN || errno == EINTR { return }
      drop(descriptor)
      return ask(question)
    }
    let answer = Array(buffer[..<count])
    switch sent.question.judge(answer) {
    // Somebody's guess: the answer may still come.
    case .foreign: return
    case .otherSpelling where question.respelt != sent.server:
      // A guess at that, or a server that does not keep it: who guesses has to guess twice.
      drop(descriptor)
      question.respelt = sent.server
      question.rest = [sent.server] + question.rest
      return ask(question)
    case .otherSpelling:
      if respelling.count >= 64 { respelling = [] }
      respelling.insert(sent.server)
    case .answer: break
    }
    drop(descriptor)
    let isCut = answer[2] & 2 != 0
    if !isCut, UpstreamQuestion.isFailure(answer) {
      question.failure = answer
      return ask(question)
    }
    if !isCut {
      keep(answer, to: question.waiting[0].query, of: question.key.own)
      return self.answer(question, answer)
    }
    for asker in question.waiting { served[asker.task]?.waiting -= 1 }
    let first = question.waiting[0]
    fetch(first.query, of: first.task, for: question.waiting.map { .datagram($0, cut: addressed(answer, to: $0.query)) })
  }

  /// nil: nobody said anything.
  private func answer(_ question: Pending, _ answer: [UInt8]?) {
    for asker in question.waiting {
      guard let served = served[asker.task] else { continue }
      self.served[asker.task]!.waiting -= 1
      send(addressed(answer, to: asker.query), served.sockets.datagrams, asker.asker)
    }
  }

  private func addressed(_ answer: [UInt8]?, to query: [UInt8]) -> [UInt8] {
    answer.flatMap { UpstreamQuestion.address($0, to: query) } ?? failure(query, answer.flatMap { Message.ResponseCode(rawValue: $0[3] & 0x0f) })
  }

  private func nextTurn() -> Int {
    turn = (turn + 1) & 0xffff
    return turn
  }

  // A task's own servers may know other names, and are others in another namespace: what they say is kept for that task alone.

  /// The task itself, if it has servers of its own.
  private func own(_ task: TaskID) -> TaskID? { served[task]?.client.servers == nil ? nil : task }

  private func servers(of own: TaskID?) -> ResolvConf {
    if let own { return served[own]?.client.servers ?? ResolvConf() }
    readUpstreams()
    return upstreams
  }
  private func kept(_ query: [UInt8], for task: TaskID) -> [UInt8]? {
    if let served = served[task], served.client.servers != nil { return served.answers.answer(query, at: now()) }
    readUpstreams()
    return forwarded.answer(query, at: now())
  }
  private func keep(_ answer: [UInt8], to query: [UInt8], of own: TaskID?) {
    // No copy of what is served: its cache would be copied with each answer.
    if let own { served[own]?.answers.keep(answer, to: query, at: now()) } else { forwarded.keep(answer, to: query, at: now()) }
  }

  /// From the host's namespace; to a task's own servers from the task's. A socket stays where it was made.
  private func connect(_ upstream: Upstream, of own: TaskID?) -> Int32 {
    guard let own else { return upstream.connect(SOCK_DGRAM, waiting: nil) }
    guard let served = served[own], clinux_setns(served.sockets.namespace, Int32(CLINUX_CLONE_NEWNET)) == 0 else { return -1 }
    defer {
      let status = clinux_setns(home, Int32(CLINUX_CLONE_NEWNET))
      precondition(status == 0, "the name server's thread is back in the host's namespace")
    }
    return upstream.connect(SOCK_DGRAM, waiting: nil)
  }

  // MARK: TCP

  private func accept(_ listener: Int32, _ task: TaskID) {
    while true {
      keepSpare()
      let descriptor = Glibc.accept(listener, nil, nil)
      guard descriptor >= 0 else {
        if errno == EINVAL { renew(task) }
        // Who waits would be told of for ever, and the one thread with it: it is closed, by a descriptor that is kept for that.
        if errno == EMFILE || errno == ENFILE, spare >= 0 {
          close(spare)
          let refused = Glibc.accept(listener, nil, nil)
          if refused >= 0 { close(refused) }
          spare = -1
          keepSpare()
          if refused >= 0 { continue }
        }
        return
      }
      _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
      _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
      guard let count = served[task]?.connections.count, count < 64 else {
        close(descriptor)
        continue
      }
      connectionNumber += 1
      connections[descriptor] = Connection(number: connectionNumber, task: task, deadline: now() + 10_000)
      served[task]?.connections.insert(descriptor)
      watch(descriptor, .connection)
    }
  }

  private func readConnection(_ descriptor: Int32) {
    let count = recv(descriptor, &buffer, buffer.count, 0)
    if count < 0, errno == EAGAIN || errno == EINTR { return }
    guard count > 0, var connection = connections[descriptor], let client = served[connection.task]?.client else { return drop(descriptor) }
    connection.input += buffer[..<count]
    var queries: [[UInt8]] = []
    while connection.input.count >= 2 {
      let length = Int(connection.input[0]) << 8 | Int(connection.input[1])
      guard connection.input.count >= 2 + length else { break }
      queries.append(Array(connection.input[2..<2 + length]))
      connection.input.removeFirst(2 + length)
    }
    connection.deadline = now() + 10_000
    connections[descriptor] = connection
    for bytes in queries {
      guard let query = try? Message(bytes) else { return drop(descriptor) }
      switch zone.withLock({ $0.zone.resolve(query, from: client, turn: .random(in: 0...0xffff)) }) {
      case .ignore: break
      case .answer(let message):
        counters.answered.add(1, ordering: .relaxed)
        reply(message.encoded(), to: descriptor)
      case .forward:
        if let answer = kept(bytes, for: connection.task) {
          counters.kept.add(1, ordering: .relaxed)
          reply(answer, to: descriptor)
        } else {
          counters.forwarded.add(1, ordering: .relaxed)
          fetch(bytes, of: connection.task, for: [.connection(connection.number)])
        }
      }
    }
  }

  /// Over TCP: the asker came that way, or the answer is too large for a datagram.
  private func fetch(_ query: [UInt8], of task: TaskID, for askers: [Asker]) {
    let own = own(task)
    let conf = servers(of: own)
    fetching += 1
    served[task]?.fetching += 1
    guard fetching <= 64, let sockets = served[task]?.sockets, served[task]!.fetching <= Self.fetchingMax,
      let sent = UpstreamQuestion(query, isSpelt: false)
    else { return push(.fetched(task, serving: served[task]?.number, own: own, askers, query: query, answer: nil)) }
    let serving = served[task]!.number
    let servers = conf.order(turn: nextTurn())
    // Its own: the task may stop meanwhile.
    let namespace = own == nil ? -1 : fcntl(sockets.namespace, F_DUPFD_CLOEXEC, 0)
    startThread("orch-dns-tcp") { [weak self] in
      defer { if namespace >= 0 { close(namespace) } }
      var answer: [UInt8]?
      if own == nil || clinux_setns(namespace, Int32(CLINUX_CLONE_NEWNET)) == 0 {
        asking: for server in servers {
          guard let said = server.askByTCP(sent.bytes, milliseconds: conf.timeoutMilliseconds) else { continue }
          if sent.judge(said) == .foreign { continue }
          answer = said
          if !UpstreamQuestion.isFailure(said) { break asking }
        }
      }
      self?.push(.fetched(task, serving: serving, own: own, askers, query: query, answer: answer))
    }
  }

  private func reply(_ bytes: [UInt8], to descriptor: Int32) {
    guard connections[descriptor] != nil, bytes.count <= 65_535 else { return }
    let framed = [UInt8(bytes.count >> 8), UInt8(bytes.count & 0xff)] + bytes
    // One that does not read its answers is let go.
    if Glibc.send(descriptor, framed, framed.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT)) != framed.count { drop(descriptor) }
  }

  // MARK: Errors

  private func failure(_ query: [UInt8], _ code: Message.ResponseCode? = nil) -> [UInt8] {
    counters.failed.add(1, ordering: .relaxed)
    guard let query = try? Message(query) else { return [] }
    var answer = Message(id: query.id)
    answer.isResponse = true
    answer.recursionDesired = query.recursionDesired
    answer.recursionAvailable = true
    answer.questions = query.questions
    answer.code = code ?? .serverFailure
    return answer.encoded(limit: 512)
  }

  /// To bytes that are no message but have the header of a query.
  private func formatError(_ bytes: [UInt8]) -> [UInt8]? {
    guard bytes.count >= 12, bytes[2] & 0x80 == 0 else { return nil }
    var answer = Message(id: UInt16(bytes[0]) << 8 | UInt16(bytes[1]))
    answer.isResponse = true
    answer.code = .formatError
    return answer.encoded()
  }
}
