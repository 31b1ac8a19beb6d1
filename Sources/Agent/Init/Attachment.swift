import CLinux

/// Who is attached to the container's first process: one at a time. On connecting they get a record of kind 0 that carries the write end of
/// stdin (the first only, so that their closing it is its end) or the terminal; then output as it comes, kind 1 stdout, 2 stderr.
/// Whoever is attached and does not read holds the container's output back, as a pipe's reader would; the log goes on when they leave.
struct Attachment {
  private let listener: Int32
  /// Write end of stdin, or -1.
  private var input: Int32
  private var terminal: Int32
  private let process: Int32
  private(set) var client: Int32 = -1
  /// Until then output waits for the first who attaches; 0: it waits no more.
  private var deadline: Int64

  init(listener: Int32, seconds: UInt64, input: Int32, terminal: Int32, process: Int32) {
    self.listener = listener
    self.input = input
    self.terminal = terminal
    self.process = process
    deadline = listener >= 0 && seconds > 0 ? clinux_monotonic_ms() + Int64(seconds) * 1000 : 0
  }

  /// What poll(2) is to look at; -1 is passed over. Nobody else is let in while somebody is attached.
  var polled: Int32 { client >= 0 ? client : listener }
  var isAwaited: Bool { deadline > 0 }
  /// Milliseconds for poll(2).
  var timeout: Int32 { deadline == 0 ? -1 : Int32(max(0, min(deadline - clinux_monotonic_ms(), 1 << 30))) }

  /// Its number may soon be another file's.
  mutating func terminalIsGone() { terminal = -1 }

  /// The time is over, or somebody came or went.
  mutating func look() {
    if client >= 0 {
      // They never send: what can be read is their end.
      var byte: UInt8 = 0
      let got = read(client, &byte, 1)
      if got == 0 || (got < 0 && clinux_errno() != 11 && clinux_errno() != 4) { leave() }
    } else if listener >= 0 {
      let came = clinux_accept(listener)
      if came >= 0 { enter(came) }
    }
    if deadline > 0, clinux_monotonic_ms() >= deadline { deadline = 0 }
  }

  private mutating func enter(_ came: Int32) {
    var hello: UInt8 = 0
    let sent = clinux_send_fd(came, &hello, 1, terminal >= 0 ? terminal : input)
    if sent != 1 {
      close(came)
      return
    }
    if input >= 0 {
      close(input)
      input = -1
    }
    _ = clinux_nonblocking(came)
    client = came
    deadline = 0
  }

  private mutating func leave() {
    close(client)
    client = -1
  }

  mutating func send(_ kind: UInt8, _ bytes: UnsafePointer<UInt8>, _ count: Int) {
    // Of a container that has ended nothing is held back for ever.
    var patience = 10
    while client >= 0, patience > 0 {
      let sent = clinux_send_record(client, kind, bytes, count)
      if sent != -11 {
        if sent < 0 { leave() }
        return
      }
      var waited = (pollfd(fd: client, events: Int16(POLLOUT), revents: 0), pollfd(fd: process, events: Int16(POLLIN), revents: 0))
      // The end of the process is no news a second time.
      let count: UInt = patience < 10 ? 1 : 2
      _ = withUnsafeMutablePointer(to: &waited) { $0.withMemoryRebound(to: pollfd.self, capacity: 2) { poll($0, count, patience < 10 ? 1000 : -1) } }
      if patience < 10 || waited.1.revents != 0 { patience -= waited.0.revents == 0 ? 1 : 0 }
    }
    if client >= 0 { leave() }
  }
}
