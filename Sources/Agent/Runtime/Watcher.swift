import CLinux
import Glibc
import LinuxSystem
import Synchronization

/// One thread that waits for the end of processes and tells once for each. No polling: poll(2) without timeout.
///
/// A descriptor's number means another file once it is closed. So what is watched is known by a token, and its descriptor stays open until the
/// thread does not look at it any more.
final class Watcher: Sendable {
  struct Token: Hashable, Sendable { fileprivate let number: UInt64 }

  private struct Watched {
    var process: PidDescriptor
    var body: @Sendable () -> Void
  }
  private struct State {
    var watched: [Token: Watched] = [:]
    var next: UInt64 = 0
    var urgent: (descriptor: SharedDescriptor, body: @Sendable () -> Void)?
    var stopped = false
  }
  private final class Core: Sendable {
    let state = Mutex(State())
    let wake: Int32
    init(wake: Int32) { self.wake = wake }
    deinit { close(wake) }
    func notify() {
      var one: UInt64 = 1
      write(wake, &one, 8)
    }
    func loop() {
      while true {
        // The processes' descriptors are held by `watched` until the next round.
        let (watched, urgent, stopped) = state.withLock { ($0.watched.map { (token: $0, process: $1.process) }, $0.urgent, $0.stopped) }
        if stopped { return }
        var polled = [pollfd(fd: wake, events: Int16(POLLIN), revents: 0)]
        polled += watched.map { pollfd(fd: $0.process.rawValue, events: Int16(POLLIN), revents: 0) }
        if let urgent { polled.append(pollfd(fd: urgent.descriptor.rawValue, events: Int16(POLLPRI), revents: 0)) }
        let count = withExtendedLifetime((watched, urgent)) { poll(&polled, nfds_t(polled.count), -1) }
        if count < 0 { continue }
        if let urgent, let entry = polled.popLast(), entry.revents != 0 {
          if entry.revents & Int16(POLLPRI) != 0 { urgent.body() }
          // Its file is gone (psi.rst).
          if entry.revents & Int16(POLLERR) != 0 { state.withLock { $0.urgent = nil } }
        }
        if polled[0].revents != 0 {
          var count: UInt64 = 0
          read(wake, &count, 8)
        }
        for (entry, (token, _)) in zip(polled.dropFirst(), watched) where entry.revents != 0 {
          let ended = state.withLock { $0.watched.removeValue(forKey: token) }
          ended?.body()
        }
      }
    }
  }
  private let core: Core

  init() throws(SystemError) {
    let core = Core(wake: try checkResult(clinux_eventfd(), "make an event descriptor"))
    self.core = core
    startThread("orch-watch") { core.loop() }
  }
  deinit {
    core.state.withLock { $0.stopped = true }
    core.notify()
  }

  /// `body` runs once, on the watcher's thread.
  @discardableResult
  func whenEnded(_ process: PidDescriptor, _ body: @escaping @Sendable () -> Void) -> Token {
    let token = core.state.withLock { state in
      state.next += 1
      let token = Token(number: state.next)
      state.watched[token] = Watched(process: process, body: body)
      return token
    }
    core.notify()
    return token
  }

  /// False: its body runs, or has run.
  func forget(_ token: Token) -> Bool {
    // The thread gives the descriptor back when something else wakes it.
    core.state.withLock { $0.watched.removeValue(forKey: token) != nil }
  }

  /// `body` runs on the watcher's thread whenever the one descriptor of this kind has an urgent event (POLLPRI).
  func whenUrgent(_ descriptor: SharedDescriptor, _ body: @escaping @Sendable () -> Void) {
    core.state.withLock { $0.urgent = (descriptor, body) }
    core.notify()
  }
}
