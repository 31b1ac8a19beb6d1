import CLinux
import Glibc
import LinuxSystem
import Logging
import Model
import Synchronization

/// The thread of the name server: epoll(7) over all sockets. Everything but the inbox and the zone belongs to that thread alone.
final class NameServerLoop: @unchecked Sendable {
  enum Command {
    case add(TaskID, datagrams: Int32, listener: Int32, DNSClient)
    case remove(TaskID)
    /// An answer that was fetched over TCP, for the connection with this number; nil: nobody answered.
    case fetched(connection: UInt64, query: [UInt8], answer: [UInt8]?)
    case finish
  }
  private enum Source {
    case inbox
    case datagrams(TaskID)
    case listener(TaskID)
    case connection
    case upstream
  }
  private struct Served {
    var datagrams: Int32
    var listener: Int32
    var client: DNSClient
    var connections: Set<Int32> = []
  }
  private struct Connection {
    var number: UInt64
    var task: TaskID
    var input: [UInt8] = []
    var deadline: Int64
  }
  /// A question under way to a resolver of the host.
  private struct Pending {
    var task: TaskID
    var asker: sockaddr_in
    var query: [UInt8]
    var rest: ArraySlice<Upstream>
    var deadline: Int64
  }

  private let inbox = Mutex<[Command]>([])
  private let wake: Int32
  private let epoll: Int32
  private let fixedUpstreams: [Upstream]?
  private let log: Logger
  /// Not by way of the inbox: a question that comes after an update may be read in the round that the one before it began.
  private let zone = Mutex(Zone())
  private var sources: [Int32: Source] = [:]
  private var served: [TaskID: Served] = [:]
  private var connections: [Int32: Connection] = [:]
  private var pending: [Int32: Pending] = [:]
  private var turn = 0
  private var connectionNumber: UInt64 = 0
  private var hostUpstreams: (list: [Upstream], readAt: Int64) = ([], .min)
  private var buffer = [UInt8](repeating: 0, count: 65_536)

  init(upstreams: [Upstream]?, log: Logger) throws {
    fixedUpstreams = upstreams
    self.log = log
    wake = eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK))
    epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
    guard wake >= 0, epoll >= 0 else { throw SystemError("open", "event loop", Errno(errno)) }
    watch(wake, .inbox)
  }

  func update(_ new: Zone) { zone.withLock { $0 = new } }

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
    close(epoll)
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
    pending[descriptor] = nil
    if let connection = connections.removeValue(forKey: descriptor) { served[connection.task]?.connections.remove(descriptor) }
    close(descriptor)
  }

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
      case .add(let task, let datagrams, let listener, let client):
        remove(task)
        served[task] = Served(datagrams: datagrams, listener: listener, client: client)
        watch(datagrams, .datagrams(task))
        watch(listener, .listener(task))
      case .remove(let task): remove(task)
      case .fetched(let number, let query, let answer):
        guard let descriptor = connections.first(where: { $0.value.number == number })?.key else { continue }
        reply(answer ?? failure(query), to: descriptor)
      case .finish: return false
      }
    }
    return true
  }

  private func remove(_ task: TaskID) {
    guard let old = served.removeValue(forKey: task) else { return }
    for descriptor in old.connections { drop(descriptor) }
    for (descriptor, question) in pending where question.task == task { drop(descriptor) }
    drop(old.datagrams)
    drop(old.listener)
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
      let bytes = Array(buffer[..<count])
      guard let query = try? Message(bytes) else {
        if let answer = formatError(bytes) { send(answer, descriptor, asker) }
        continue
      }
      turn &+= 1
      let zone = zone.withLock { $0 }
      switch zone.resolve(query, from: client, turn: turn & 0xffff) {
      case .ignore: break
      case .answer(let message):
        send(message.encoded(limit: max(512, min(4096, Int(query.udpPayloadSize ?? 512)))), descriptor, asker)
      case .forward: ask(Pending(task: task, asker: asker, query: bytes, rest: upstreams()[...], deadline: 0))
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

  // MARK: The host's resolvers

  private func upstreams() -> [Upstream] {
    if let fixedUpstreams { return fixedUpstreams }
    let now = now()
    if hostUpstreams.readAt == .min || now - hostUpstreams.readAt > 5000 { hostUpstreams = (Upstream.ofHost(), now) }
    return hostUpstreams.list
  }

  /// Asks the next resolver of the list; SERVFAIL when there is none left.
  private func ask(_ question: Pending) {
    var question = question
    while let upstream = question.rest.popFirst(), pending.count < 512 {
      let descriptor = upstream.connect(SOCK_DGRAM, blocking: false)
      guard descriptor >= 0 else { continue }
      guard Glibc.send(descriptor, question.query, question.query.count, 0) == question.query.count else {
        close(descriptor)
        continue
      }
      question.deadline = now() + 2000
      pending[descriptor] = question
      watch(descriptor, .upstream)
      return
    }
    if let served = served[question.task] { send(failure(question.query), served.datagrams, question.asker) }
  }

  private func readUpstream(_ descriptor: Int32) {
    guard let question = pending[descriptor] else { return drop(descriptor) }
    let count = recv(descriptor, &buffer, buffer.count, 0)
    if count < 0 {
      // Refused: try the next at once.
      if errno == EAGAIN || errno == EINTR { return }
      drop(descriptor)
      return ask(question)
    }
    // Another id than the question's is somebody's guess.
    guard count >= 12, buffer[0] == question.query[0], buffer[1] == question.query[1], buffer[2] & 0x80 != 0 else { return }
    let answer = Array(buffer[..<count])
    drop(descriptor)
    if let served = served[question.task] { send(answer, served.datagrams, question.asker) }
  }

  // MARK: TCP

  private func accept(_ listener: Int32, _ task: TaskID) {
    while true {
      let descriptor = Glibc.accept(listener, nil, nil)
      guard descriptor >= 0 else { return }
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
      turn &+= 1
      let zone = zone.withLock { $0 }
      switch zone.resolve(query, from: client, turn: turn & 0xffff) {
      case .ignore: break
      case .answer(let message): reply(message.encoded(), to: descriptor)
      case .forward: fetch(bytes, for: connection.number)
      }
    }
  }

  /// Over TCP, since the asker came that way: its answer is a large one.
  private func fetch(_ query: [UInt8], for connection: UInt64) {
    let list = upstreams()
    guard connections.count <= 256 else { return push(.fetched(connection: connection, query: query, answer: nil)) }
    startThread("orch-dns-tcp") { [weak self] in
      let answer = list.lazy.compactMap { $0.askByTCP(query) }.first
      self?.push(.fetched(connection: connection, query: query, answer: answer))
    }
  }

  private func reply(_ bytes: [UInt8], to descriptor: Int32) {
    guard connections[descriptor] != nil, bytes.count <= 65_535 else { return }
    let framed = [UInt8(bytes.count >> 8), UInt8(bytes.count & 0xff)] + bytes
    // One that does not read its answers is let go.
    if Glibc.send(descriptor, framed, framed.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT)) != framed.count { drop(descriptor) }
  }

  // MARK: Errors

  private func failure(_ query: [UInt8]) -> [UInt8] {
    guard let query = try? Message(query) else { return [] }
    var answer = Message(id: query.id)
    answer.isResponse = true
    answer.recursionDesired = query.recursionDesired
    answer.recursionAvailable = true
    answer.questions = query.questions
    answer.code = .serverFailure
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
