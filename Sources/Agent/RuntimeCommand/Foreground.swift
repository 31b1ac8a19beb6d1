import Bundle
import CLinux
import Glibc
import LinuxSystem

/// Beside a process in the foreground: hands on signals, carries its terminal, waits for its end.
enum Foreground {
  // Read by signal handlers.
  nonisolated(unsafe) private static var pid: Int32 = 0
  nonisolated(unsafe) private static var terminal: Int32 = -1

  /// The exit code as a shell has it.
  static func wait(for created: Bundles.Created) -> Int32 {
    pid = created.pid
    // Those that ask a process to do something; SIGCHLD is ours, SIGTTIN and the like the shell's.
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGCONT, SIGALRM] {
      Glibc.signal(signal) { number in Glibc.kill(Foreground.pid, number) }
    }
    if let master = created.terminal { carry(master) }
    let status = ChildProcess.reap(pid)
    if created.terminal != nil { _ = clinux_ioctl_raw_terminal(0, 0) }
    return ChildProcess.exitCode(status)
  }

  /// Between our terminal and the container's until that one closes.
  private static func carry(_ master: Int32) {
    terminal = master
    _ = clinux_copy_winsize(0, master)
    Glibc.signal(SIGWINCH) { _ in _ = clinux_copy_winsize(0, Foreground.terminal) }
    _ = clinux_ioctl_raw_terminal(0, 1)
    var buffer = [UInt8](repeating: 0, count: 16384)
    var input: Int32 = 0
    while true {
      var polled = [pollfd(fd: master, events: Int16(POLLIN), revents: 0), pollfd(fd: input, events: Int16(POLLIN), revents: 0)]
      if poll(&polled, 2, -1) < 0 { continue }
      if polled[0].revents != 0 {
        // EIO: the last process that had it is gone (pty(7)).
        let count = read(master, &buffer, buffer.count)
        if count <= 0 { break }
        try? Files.writeAll(1, Array(buffer[..<count]), name: "stdout")
      }
      if polled[1].revents != 0 {
        let count = read(input, &buffer, buffer.count)
        if count > 0 {
          try? Files.writeAll(master, Array(buffer[..<count]), name: "the terminal")
        } else {
          // The end of a pipe is Ctrl-D to a program that reads a terminal.
          try? Files.writeAll(master, [4], name: "the terminal")
          input = -1
        }
      }
    }
    close(master)
  }
}
