import CLinux
import Glibc
import LinuxSystem
import Synchronization

/// One thread that waits for the end of processes (pidfds) and tells once for each. No polling: poll(2) without timeout.
final class Watcher: Sendable {
  private struct State {
    var watched: [Int32: @Sendable () -> Void] = [:]
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
        let (descriptors, urgent, stopped) = state.withLock { (Array($0.watched.keys), $0.urgent, $0.stopped) }
        if stopped { return }
        var polled = [pollfd(fd: wake, events: Int16(POLLIN), revents: 0)] + descriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        if let urgent { polled.append(pollfd(fd: urgent.descriptor.rawValue, events: Int16(POLLPRI), revents: 0)) }
        if poll(&polled, nfds_t(polled.count), -1) < 0 { continue }
        if let urgent, let entry = polled.popLast(), entry.revents != 0 {
          if entry.revents & Int16(POLLPRI) != 0 { urgent.body() }
          // Its file is gone (psi.rst).
          if entry.revents & Int16(POLLERR) != 0 { state.withLock { $0.urgent = nil } }
        }
        if polled[0].revents != 0 {
          var count: UInt64 = 0
          read(wake, &count, 8)
        }
        for entry in polled.dropFirst() where entry.revents != 0 {
          let body = state.withLock { $0.watched.removeValue(forKey: entry.fd) }
          body?()
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

  /// `body` runs once, on the watcher's thread; the descriptor must stay open until then (let `body` hold it).
  func whenReadable(_ descriptor: Int32, _ body: @escaping @Sendable () -> Void) {
    core.state.withLock { $0.watched[descriptor] = body }
    core.notify()
  }

  /// False: its body runs, or has run.
  func forget(_ descriptor: Int32) -> Bool { core.state.withLock { $0.watched.removeValue(forKey: descriptor) != nil } }

  /// `body` runs on the watcher's thread whenever the one descriptor of this kind has an urgent event (POLLPRI).
  func whenUrgent(_ descriptor: SharedDescriptor, _ body: @escaping @Sendable () -> Void) {
    core.state.withLock { $0.urgent = (descriptor, body) }
    core.notify()
  }
}
