import Bundle
import CLinux
import Glibc
import LinuxSystem

/// Beside a process in the foreground: hands on signals, carries its terminal, waits for its end.
enum Foreground {
  // Read by signal handlers. 0: nobody to hand on to.
  nonisolated(unsafe) private static var pid: Int32 = 0
  nonisolated(unsafe) private static var terminal: Int32 = -1

  /// What a process can be sent, as runc has it. SIGCHLD is ours; SIGPIPE and SIGWINCH come from our own output and terminal; 32 and 33 are the C
  /// library's (nptl(7)).
  private static let handedOn = (Int32(1)...31).filter { ![SIGKILL, SIGSTOP, SIGCHLD, SIGPIPE, SIGWINCH].contains($0) } + Array(Int32(34)...64)

  /// Before anything is made: a signal that comes while it is would leave it behind. It is handed on when there is somebody.
  static func holdSignals() {
    var held = sigset_t()
    sigemptyset(&held)
    // Our own faults are not held up.
    for signal in handedOn where ![SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGABRT].contains(signal) { sigaddset(&held, signal) }
    sigprocmask(SIG_BLOCK, &held, nil)
  }

  /// The exit code as a shell has it.
  static func wait(for created: Bundles.Created) -> Int32 {
    pid = created.pid
    var action = sigaction()
    action.__sigaction_handler.sa_sigaction = { number, info, _ in Foreground.take(number, sent: (info?.pointee.si_code ?? 0) <= 0) }
    action.sa_flags = SA_SIGINFO | SA_RESTART
    for signal in handedOn { sigaction(signal, &action, nil) }
    // Whoever read our output is gone: the process goes on without, and is deleted at its end. No SIG_IGN, which hooks would have, too.
    Glibc.signal(SIGPIPE) { _ in }
    var none = sigset_t()
    sigemptyset(&none)
    sigprocmask(SIG_SETMASK, &none, nil)
    if let master = created.terminal { carry(master) }
    // Not reaped until no handler takes its number for a process.
    var ended = siginfo_t()
    while waitid(P_PID, id_t(created.pid), &ended, WEXITED | WNOWAIT) < 0, Errno.current == .interrupted {}
    pid = 0
    let status = ChildProcess.reap(created.pid)
    if created.terminal != nil { _ = clinux_ioctl_raw_terminal(0, 0) }
    return ChildProcess.exitCode(status)
  }

  /// `sent`: by a process; else by the kernel (sigaction(2), si_code).
  private static func take(_ number: Int32, sent: Bool) {
    let before = errno
    defer { errno = before }
    switch number {
    case SIGTSTP, SIGTTIN, SIGTTOU:
      // The shell's own, from the terminal: we are stopped as anybody is.
      if !sent { raise(SIGSTOP); return }
    case SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS:
      // A fault of ours.
      if !sent { Glibc.signal(number, SIG_DFL); raise(number); return }
    default: break
    }
    if pid > 0 { Glibc.kill(pid, number) }
  }

  /// Between our terminal and the container's until that one closes. Neither side waits for the other: a program that writes while nobody reads takes
  /// no input.
  private static func carry(_ master: Int32) {
    terminal = master
    _ = clinux_copy_winsize(0, master)
    Glibc.signal(SIGWINCH) { _ in _ = clinux_copy_winsize(0, Foreground.terminal) }
    _ = clinux_ioctl_raw_terminal(0, 1)
    _ = fcntl(master, F_SETFL, fcntl(master, F_GETFL) | O_NONBLOCK)
    var buffer = [UInt8](repeating: 0, count: 16384)
    // What was read and the program has not taken yet.
    var pending: ArraySlice<UInt8> = []
    var input: Int32 = 0
    while true {
      var polled = [
        pollfd(fd: master, events: Int16(pending.isEmpty ? POLLIN : POLLIN | POLLOUT), revents: 0),
        pollfd(fd: pending.isEmpty ? input : -1, events: Int16(POLLIN), revents: 0),
      ]
      if poll(&polled, 2, -1) < 0 { continue }
      if polled[0].revents & ~Int16(POLLOUT) != 0 {
        let count = read(master, &buffer, buffer.count)
        if count > 0 {
          try? Files.writeAll(1, Array(buffer[..<count]), name: "stdout")
        } else if count == 0 || (Errno.current != Errno(EAGAIN) && Errno.current != .interrupted) {
          // EIO: the last process that had it is gone (pty(7)).
          break
        }
      }
      if polled[0].revents & Int16(POLLOUT) != 0 {
        let count = pending.withUnsafeBytes { write(master, $0.baseAddress, $0.count) }
        if count > 0 { pending = pending.dropFirst(count) }
      }
      if polled[1].revents != 0 {
        let count = read(input, &buffer, buffer.count)
        if count > 0 {
          pending = buffer[..<count]
        } else if count == 0 || Errno.current != .interrupted {
          // The end of a pipe is Ctrl-D to a program that reads a terminal.
          pending = [4]
          input = -1
        }
      }
    }
    close(master)
  }
}
