import CLinux
import Glibc
import LinuxSystem

/// A container's own stdin and output, as its monitor hands them over.
public struct AttachedProcess: Sendable {
  /// Where input and sizes go. Its signals reach nobody: who leaves does not end a container.
  public let input: ExecProcess
  private let socket: SharedDescriptor

  init(input: ExecProcess, socket: SharedDescriptor) { (self.input, self.socket) = (input, socket) }

  /// The next piece of output, at most 16 KiB; nil at the end of all output. Blocking.
  public func next() throws(SystemError) -> (stream: LogLine.Stream, bytes: [UInt8])? {
    var record = [UInt8](repeating: 0, count: (16 << 10) + 1)
    while true {
      let count = read(socket.rawValue, &record, record.count)
      if count < 0, Errno.current == .interrupted { continue }
      if count < 0 { throw SystemError("read", "the output of a container", .current) }
      guard count > 0 else { return nil }
      guard let stream = LogLine.Stream(rawValue: record[0]) else { continue }
      return (stream, Array(record[1..<count]))
    }
  }

  /// Ends a `next` that waits, on another thread too; the container goes on.
  public func leave() { shutdown(socket.rawValue, Int32(SHUT_RDWR)) }
}

extension ContainerRuntime {
  /// To the stdin and the output of a container that was started with `openStdin`: one at a time, later ones wait until it leaves. Who is the
  /// first gets stdin, which ends when they close it; with a terminal everybody gets that. Throws `notRunning` when it has ended.
  public func attach(_ id: String) async throws(RuntimeError) -> AttachedProcess {
    let record = try record(id)
    return try await blocking { () throws(RuntimeError) in
      do throws(SystemError) {
        let socket = SharedDescriptor(owning: try checkResult(clinux_attach_connect(record.paths.state), "attach to", id))
        var (hello, handed): (UInt8, Int32) = (0, -1)
        let count = clinux_receive_fd(socket.rawValue, &hello, 1, &handed)
        let descriptor = handed >= 0 ? SharedDescriptor(owning: handed) : nil
        guard count == 1 else { throw SystemError("attach to", id, Errno(ECONNREFUSED)) }
        let tty = record.stored.tty
        let input = ExecProcess(pid: 0, process: nil, tty: tty, stdin: descriptor, stdout: tty ? descriptor ?? socket : socket, stderr: nil)
        return AttachedProcess(input: input, socket: socket)
      } catch {
        if error.errno == .noEntry {
          throw RuntimeError(.invalid, "attach to container", id, "its stdin was not kept open: start it with stdin_open (orch run -i)")
        }
        if error.errno == Errno(ECONNREFUSED) || error.errno == Errno(ECONNRESET) {
          throw RuntimeError(.notRunning, "attach to container", id, "it has ended")
        }
        throw RuntimeError("attach to container \(id)", error)
      }
    }
  }
}
