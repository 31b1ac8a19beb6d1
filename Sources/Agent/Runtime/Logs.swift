import CLinux
import Glibc
import LinuxSystem
import Model
import Surroundings
import Synchronization

extension ContainerRuntime {
  /// Lines of the log, oldest first. With `follow` it ends when the container has ended and all is read, or with the first line after `until`, or a
  /// second after that moment. The reader sets the pace:
  /// no more than a few thousand lines wait in memory. Stop iterating to stop it.
  public func logs(_ id: String, _ options: LogOptions = LogOptions()) -> AsyncThrowingStream<LogLine, any Error> {
    let record: ContainerRecord
    do { record = try self.record(id) } catch { return AsyncThrowingStream { throw error } }
    let feed = LogFeed()
    let handle = LogFeed.Handle(feed)
    let reader = LogReader(path: record.paths.log, state: record.paths.state, options: options, feed: feed)
    startThread("orch-logs") { reader.run() }
    return AsyncThrowingStream { try await handle.next() }
  }
}

/// Between the thread that reads a log and the task that wants its lines; bounded.
final class LogFeed: Sendable {
  static let bound = 4096
  fileprivate struct State {
    var lines: [LogLine] = []
    var taken = 0
    var ended: Result<Void, SystemError>?
    var cancelled = false
    var waiter: CheckedContinuation<LogLine?, any Error>?
  }
  private let state = Mutex(State())
  private let space = Semaphore()
  let wake: Int32 = clinux_eventfd()
  deinit { close(wake) }

  /// When the stream is dropped, the thread ends.
  final class Handle: Sendable {
    let feed: LogFeed
    init(_ feed: LogFeed) { self.feed = feed }
    deinit { feed.cancel() }
    func next() async throws -> LogLine? {
      try await withTaskCancellationHandler {
        try await feed.next()
      } onCancel: {
        feed.cancel()
      }
    }
  }

  var isCancelled: Bool { state.withLock { $0.cancelled } }

  /// Blocks while the bound is reached.
  func put(_ lines: [LogLine]) {
    if lines.isEmpty { return }
    let (waiter, first, full) = state.withLock { state -> (CheckedContinuation<LogLine?, any Error>?, LogLine?, Bool) in
      state.lines.append(contentsOf: lines)
      let waiter = state.waiter
      state.waiter = nil
      let first = waiter == nil ? nil : state.pop()
      return (waiter, first, state.lines.count - state.taken > Self.bound)
    }
    waiter?.resume(returning: first)
    if full {
      while !isCancelled, state.withLock({ $0.lines.count - $0.taken > Self.bound / 2 }) { space.wait() }
    }
  }
  func end(_ result: Result<Void, SystemError>) {
    let waiter = state.withLock { state in
      state.ended = result
      defer { state.waiter = nil }
      return state.waiter
    }
    switch result {
    case .success: waiter?.resume(returning: nil)
    case .failure(let error): waiter?.resume(throwing: error)
    }
  }
  func cancel() {
    let waiter = state.withLock { state in
      state.cancelled = true
      defer { state.waiter = nil }
      return state.waiter
    }
    waiter?.resume(returning: nil)
    space.signal()
    var one: UInt64 = 1
    write(wake, &one, 8)
  }
  private enum Next {
    case line(LogLine)
    case end
    case failure(SystemError)
    case later
  }
  func next() async throws -> LogLine? {
    try await withCheckedThrowingContinuation { continuation in
      let next: Next = state.withLock { state in
        if state.cancelled { return .end }
        if let line = state.pop() { return .line(line) }
        switch state.ended {
        case .success: return .end
        case .failure(let error): return .failure(error)
        case nil:
          state.waiter = continuation
          return .later
        }
      }
      switch next {
      case .line(let line):
        space.signal()
        continuation.resume(returning: line)
      case .end: continuation.resume(returning: nil)
      case .failure(let error): continuation.resume(throwing: error)
      case .later: break
      }
    }
  }
}

extension LogFeed.State {
  fileprivate mutating func pop() -> LogLine? {
    guard taken < lines.count else { return nil }
    defer {
      taken += 1
      if taken == lines.count {
        lines.removeAll(keepingCapacity: true)
        taken = 0
      } else if taken > 1024 {
        lines.removeFirst(taken)
        taken = 0
      }
    }
    return lines[taken]
  }
}

/// Reads a container's log files on a thread of its own: what is kept first, then, following, what comes (inotify(7)).
final class LogReader: Sendable {
  let path: String
  let state: String
  let options: LogOptions
  let feed: LogFeed
  private let makeWatch: @Sendable () -> Int32
  /// - Parameter makeWatch: an instance of inotify, or -1 and errno.
  init(
    path: String, state: String, options: LogOptions, feed: LogFeed,
    makeWatch: @escaping @Sendable () -> Int32 = { inotify_init1(Int32(IN_CLOEXEC | IN_NONBLOCK)) }
  ) {
    (self.path, self.state, self.options, self.feed, self.makeWatch) = (path, state, options, feed, makeWatch)
  }

  func run() {
    do throws(SystemError) {
      try read()
      feed.end(.success(()))
    } catch {
      feed.end(.failure(error))
    }
  }

  private func wanted(_ line: LogLine) -> Bool {
    if line.stream == .stdout ? !options.stdout : !options.stderr { return false }
    if let since = options.since, line.time < since { return false }
    if let until = options.until, line.time > until { return false }
    return true
  }
  /// A line is written soon after its moment, if not at once.
  private static let lateness = Nanoseconds(1_000_000_000)
  /// Till nothing can come that is wanted; nil: there is no such time.
  private var remaining: Nanoseconds? { options.until.map { $0 + Self.lateness - .now } }

  /// What tells of changes. nil: a user has 128 instances and a bounded number of watches, in all programs together; where they are used up the files
  /// are looked at every `glance`.
  private func watch() throws(SystemError) -> SharedDescriptor? {
    let descriptor = makeWatch()
    if descriptor < 0 {
      if [Errno(EMFILE), Errno(ENFILE)].contains(Errno.current) { return nil }
      throw SystemError("watch", path, .current)
    }
    let events = SharedDescriptor(owning: descriptor)
    let folder = String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
    for (watched, mask) in [(folder, IN_MODIFY | IN_CREATE | IN_MOVED_TO), (state, IN_MOVED_TO | IN_DELETE_SELF)] {
      if inotify_add_watch(events.rawValue, watched, UInt32(mask)) >= 0 { continue }
      if Errno.current == Errno(ENOSPC) { return nil }
      if Errno.current != .noEntry { throw SystemError("watch", watched, .current) }
    }
    return events
  }
  private static let glance = Nanoseconds(200_000_000)

  private func read() throws(SystemError) {
    // Watched before the first look, so that nothing falls between.
    let events = options.follow ? try watch() : nil
    var tail: [LogLine] = []
    var file = try oldest()
    var first = true
    var isPast = false
    func drain() throws(SystemError) {
      while !feed.isCancelled, !isPast, let lines = try file?.lines() {
        let kept = lines.filter(wanted)
        if let until = options.until { isPast = lines.contains { $0.time > until } }
        if first, let count = options.tail {
          tail.append(contentsOf: kept)
          if tail.count > count + 4096 { tail.removeFirst(tail.count - count) }
        } else {
          feed.put(kept)
        }
      }
    }
    while !feed.isCancelled {
      // Looked at before reading: when it says ended, all that is to be read is there.
      let ended =
        !options.follow || Files.exists(state + "/exit") || !Files.exists(state) || remaining.map { $0.rawValue <= 0 } ?? false
      while let current = file {
        try drain()
        guard !isPast, let next = try successor(of: current) else { break }
        // Rotated away, so now complete: what came between the last read and the rotation is still to be read.
        try drain()
        file = next
      }
      if first, let count = options.tail { feed.put(tail.suffix(max(0, count))) }
      first = false
      if ended || isPast { return }
      if file == nil {
        file = try oldest()
        if file != nil { continue }
      }
      // A descriptor of -1 is passed over by poll(2).
      var polled = [pollfd(fd: events?.rawValue ?? -1, events: Int16(POLLIN), revents: 0), pollfd(fd: feed.wake, events: Int16(POLLIN), revents: 0)]
      let wait = events == nil ? min(Self.glance, remaining ?? Self.glance) : remaining
      poll(&polled, 2, wait.map { Int32(clamping: max(0, $0.rawValue) / 1_000_000 + 1) } ?? -1)
      guard let events else { continue }
      var sink = [UInt8](repeating: 0, count: 4096)
      while Glibc.read(events.rawValue, &sink, sink.count) > 0 {}
    }
  }

  private func open(_ path: String) throws(SystemError) -> LogFile? {
    let fd = Glibc.open(path, O_RDONLY | O_CLOEXEC)
    if fd < 0 {
      if Errno.current == .noEntry { return nil }
      throw SystemError("open", path, .current)
    }
    return LogFile(SharedDescriptor(owning: fd))
  }
  /// container.log.N … container.log.1, container.log.
  private func oldest() throws(SystemError) -> LogFile? {
    var number = 0
    while Files.exists("\(path).\(number + 1)") { number += 1 }
    return try open(number == 0 ? path : "\(path).\(number)")
  }
  /// The file that was begun after this one; nil when this is the current one (or the chain has moved on past it: then the oldest).
  private func successor(of file: LogFile) throws(SystemError) -> LogFile? {
    var status = stat()
    var number = 0
    while stat(number == 0 ? path : "\(path).\(number)", &status) == 0 {
      if status.st_ino == file.inode {
        if number == 0 { return nil }
        return try open(number == 1 ? path : "\(path).\(number - 1)")
      }
      number += 1
    }
    return number == 0 ? nil : try oldest()
  }
}

/// One open log file, read forward.
final class LogFile {
  private let descriptor: SharedDescriptor
  let inode: UInt
  private var rest: [UInt8] = []
  private var chunk = [UInt8](repeating: 0, count: 65536)

  init(_ descriptor: SharedDescriptor) {
    self.descriptor = descriptor
    var status = stat()
    fstat(descriptor.rawValue, &status)
    inode = UInt(status.st_ino)
  }

  /// The next whole lines; nil at the end of what is there. A damaged line is passed over.
  func lines() throws(SystemError) -> [LogLine]? {
    let count = read(descriptor.rawValue, &chunk, chunk.count)
    if count < 0 {
      if Errno.current == .interrupted { return [] }
      throw SystemError("read", "log", .current)
    }
    if count == 0 { return nil }
    rest.append(contentsOf: chunk[..<count])
    var lines: [LogLine] = []
    var start = 0
    while let end = rest[start...].firstIndex(of: 10) {
      if let line = LogLine(json: rest[start..<end]) { lines.append(line) }
      start = end + 1
    }
    rest.removeFirst(start)
    return lines
  }
}

extension LogLine {
  /// Docker's json-file line; keys in any order.
  init?(json: ArraySlice<UInt8>) {
    var position = json.startIndex
    var (log, stream, time): ([UInt8]?, Stream?, Timestamp?) = (nil, nil, nil)
    func skip(_ byte: UInt8) -> Bool {
      guard position < json.endIndex, json[position] == byte else { return false }
      position += 1
      return true
    }
    func string() -> [UInt8]? {
      guard skip(34) else { return nil }
      var out: [UInt8] = []
      while position < json.endIndex {
        let byte = json[position]
        position += 1
        if byte == 34 { return out }
        guard byte == 92 else {
          out.append(byte)
          continue
        }
        guard position < json.endIndex else { return nil }
        let letter = json[position]
        position += 1
        switch letter {
        case 110: out.append(10)
        case 114: out.append(13)
        case 116: out.append(9)
        case 98: out.append(8)
        case 102: out.append(12)
        case 117:
          guard position + 4 <= json.endIndex, let code = UInt32(String(decoding: json[position..<position + 4], as: UTF8.self), radix: 16) else {
            return nil
          }
          position += 4
          out.append(contentsOf: String(Unicode.Scalar(code) ?? "\u{fffd}").utf8)
        default: out.append(letter)
        }
      }
      return nil
    }
    guard skip(123) else { return nil }
    while true {
      guard let key = string(), skip(58), let value = string() else { return nil }
      switch key {
      case Array("log".utf8): log = value
      case Array("stream".utf8): stream = value == Array("stderr".utf8) ? .stderr : .stdout
      case Array("time".utf8): time = Timestamp(String(decoding: value, as: UTF8.self))
      default: break
      }
      if skip(125) { break }
      guard skip(44) else { return nil }
    }
    guard let log, let stream, let time else { return nil }
    self.init(stream: stream, time: time, bytes: log)
  }
}
