// orch-init: a container's parent. It makes the child that becomes the container (CLinux), keeps its output in a log that
// never blocks it, waits for it, and leaves an exit record. Or, as `exec`, puts one more process into a container and waits.
// Or, for orch-runtime, it makes the child and ends.
// Descriptors it inherits: 3 the plan, 4 the report socket, 5 a pidfd of the container (exec), the attach socket, or the socket of the start (OCI),
// 6 its own program, from 7 on what a container is to keep.
// It outlives the agent, so it holds nothing of it; it allocates nothing after its start; no NIO, no Foundation, no concurrency.
import CLinux

func fail(_ code: Int32) -> Never {
  _exit(code)
}

nonisolated(unsafe) var plan = clinux_plan()
// One thread: globals need no guard.
nonisolated(unsafe) var launch = clinux_launch()
let map = clinux_plan_map(3, &plan)
let refusal = map < 0 ? map : clinux_plan_launch(&plan, &launch)
if refusal < 0 {
  clinux_refuse(4, -refusal)
  fail(125)
}
close(3)
close(6)
if launch.detached != 0 { runDetached() } else if launch.join != 0 { runExec() } else { runContainer() }

func send(_ kind: UInt32, pid: pid_t, terminal: Int32) {
  var report = clinux_report()
  report.kind = kind
  report.pid = pid
  report.start = clinux_start_time(pid)
  _ = clinux_send_fd(4, &report, MemoryLayout<clinux_report>.size, terminal)
}

/// As a shell has it: the code, or 128 + signal. `status` is waitpid's.
func exitCode(_ status: Int32) -> Int32 { status & 0x7f == 0 ? status >> 8 & 0xff : 128 + (status & 0x7f) }

/// Makes the child; ends where it could not, which CLinux has then reported.
func start(_ stdio: (Int32, Int32, Int32)) -> (pid: pid_t, pidfd: Int32, terminal: Int32) {
  var stdio = stdio
  var pidfd: Int32 = -1
  var terminal: Int32 = -1
  let pid = withUnsafePointer(to: &stdio) {
    $0.withMemoryRebound(to: Int32.self, capacity: 3) { clinux_launch(&plan, &launch, $0, 4, &pidfd, &terminal) }
  }
  if pid < 0 { fail(127) }
  return (pid, pidfd, terminal)
}

/// An OCI container or exec: the child is our sibling, so its parent is whoever started us, and we are no longer needed.
func runDetached() -> Never {
  let (pid, _, terminal) = start((0, 1, 2))
  send(UInt32(CLINUX_REPORT_STARTED), pid: pid, terminal: terminal)
  fail(0)
}

func runExec() -> Never {
  let (pid, pidfd, terminal) = start((0, 1, 2))
  send(UInt32(CLINUX_REPORT_STARTED), pid: pid, terminal: terminal)
  // Our copies go, so that the reader sees the end when the last process inside is gone.
  for fd: Int32 in 0...5 { close(fd) }
  if terminal >= 0 { close(terminal) }
  var status: Int32 = 0
  _ = clinux_pidfd_wait(pidfd, 0, &status)
  fail(exitCode(status))
}

func runContainer() -> Never {
  _ = clinux_set_subreaper()
  let listens = launch.listens != 0
  if !listens { close(5) }
  var out: (Int32, Int32) = (-1, -1)
  var err: (Int32, Int32) = (-1, -1)
  var stdio: (Int32, Int32, Int32) = (0, 1, 2)
  if launch.tty == 0 {
    if clinux_make_pipe(&out.0, &out.1) < 0 || clinux_make_pipe(&err.0, &err.1) < 0 { fail(125) }
    stdio = (0, out.1, err.1)
  }
  var input: (Int32, Int32) = (-1, -1)
  if listens, launch.tty == 0 {
    if clinux_make_pipe(&input.0, &input.1) < 0 { fail(125) }
    stdio.0 = input.0
  }
  let (pid, pidfd, terminal) = start(stdio)
  // Now only: a stub does not know its container before.
  var log = Log(path: launch.log, limit: launch.log_size, files: Int(launch.log_files))
  if launch.tty == 0 {
    close(out.1)
    close(err.1)
  } else {
    out.0 = terminal
    // Kept open: a terminal whose other end everybody closed can only be closed here, too, and the container may come back to it.
    _ = clinux_terminal_peer(terminal)
  }
  if input.0 >= 0 { close(input.0) }
  // Known to the next agent before it is known to this one.
  var record = Text()
  record.number(UInt64(pid))
  record.byte(32)
  record.number(clinux_start_time(pid))
  record.byte(32)
  record.number(UInt64(getpid()))
  record.byte(32)
  record.number(clinux_start_time(getpid()))
  record.byte(10)
  record.save(folder: launch.state, name: "pid")
  send(UInt32(CLINUX_REPORT_STARTED), pid: pid, terminal: -1)
  close(4)

  var attachment = Attachment(
    listener: listens ? 5 : -1, seconds: launch.attach_seconds, input: input.1, terminal: launch.tty == 0 ? -1 : terminal, process: pidfd)
  var stdout = Stream(out.0, name: "stdout", kind: 1)
  var stderr = Stream(err.0, name: "stderr", kind: 2)
  var polled = (pollfd(), pollfd(), pollfd(), pollfd())
  let readable = Int16(POLLIN)
  while true {
    // A closed stream is -1, which poll(2) passes over.
    let waits = attachment.isAwaited
    polled.0 = pollfd(fd: waits ? -1 : stdout.fd, events: readable, revents: 0)
    polled.1 = pollfd(fd: waits ? -1 : stderr.fd, events: readable, revents: 0)
    polled.2 = pollfd(fd: pidfd, events: readable, revents: 0)
    polled.3 = pollfd(fd: attachment.polled, events: readable, revents: 0)
    let count = withUnsafeMutablePointer(to: &polled) {
      $0.withMemoryRebound(to: pollfd.self, capacity: 4) { poll($0, 4, attachment.timeout) }
    }
    if count < 0 { continue }
    if waits || polled.3.revents != 0 { attachment.look() }
    if polled.0.revents != 0 { stdout.read(into: &log, &attachment) }
    if polled.1.revents != 0 { stderr.read(into: &log, &attachment) }
    if launch.tty != 0, stdout.fd < 0 { attachment.terminalIsGone() }
    log.flush()
    if polled.2.revents != 0 { break }
  }
  // Who has just come gets what there is.
  if attachment.isAwaited { attachment.look() }
  // Its processes are gone with it, so what is in the pipes is all there will be of them.
  stdout.drain(into: &log, &attachment)
  stderr.drain(into: &log, &attachment)
  stdout.finish(into: &log)
  stderr.finish(into: &log)
  log.flush()

  var status: Int32 = 0
  _ = clinux_pidfd_wait(pidfd, 0, &status)
  var now = timespec()
  clock_gettime(CLOCK_REALTIME, &now)
  record = Text()
  record.number(UInt64(exitCode(status)))
  record.byte(32)
  record.number(UInt64(status & 0x7f))
  record.byte(32)
  record.number(clinux_oom_kills(launch.oom))
  record.byte(32)
  record.number(UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec))
  record.byte(10)
  record.save(folder: launch.state, name: "exit")
  fail(0)
}
