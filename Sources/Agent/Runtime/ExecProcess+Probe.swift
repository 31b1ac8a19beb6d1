import CLinux
import Glibc
import Launch
import LinuxSystem

/// How a short program in a container ended.
public struct ProbeResult: Hashable, Sendable {
  /// As a shell has it; nil: it was killed because it did not end in time.
  public var exitCode: Int32?
  /// The first of what it wrote to stdout and stderr.
  public var output: [UInt8]
}

extension ContainerRuntime {
  /// Runs a program in the container as `exec` does, without input, and waits for its end: at most `timeout`, then it and all of its session
  /// are killed. Output beyond `outputMax` bytes is read and dropped, so that nobody waits for a reader.
  /// Takes one thread while it runs. A program that cannot be executed is a result (126, 127), not an error.
  public func probe(_ id: String, _ args: [String], timeout: Duration, outputMax: Int) async throws(RuntimeError) -> ProbeResult {
    let record = try record(id)
    guard record.exit == nil, let process = record.process, !process.hasEnded else {
      throw RuntimeError(.notRunning, "probe container", id, "it is not running")
    }
    let plan = try Plan.makeExec(ExecConfig(args: args), stored: record.stored, cgroup: record.cgroup)
    return try await blocking { () throws(RuntimeError) in
      do {
        return try self.probeBlocking(record, plan, process, timeout, outputMax)
      } catch {
        let failure = Self.startError("exec in container \(id)", plan, args[0], error)
        if case .command(let code) = failure.kind { return ProbeResult(exitCode: code, output: Array("\(failure)".utf8.prefix(outputMax))) }
        throw failure
      }
    }
  }

  private func probeBlocking(
    _ record: ContainerRecord, _ plan: PlanWriter, _ process: PidDescriptor, _ timeout: Duration, _ outputMax: Int
  ) throws -> ProbeResult {
    let deadline = ContinuousClock.now + timeout
    let ends = try OwnedDescriptor.pipe()
    let reader = SharedDescriptor(owning: ends.read)
    let launched = try withExtendedLifetime(SharedDescriptor(owning: ends.write)) { writer in
      try launcher.launch(plan, name: record.id, stdio: (nil, writer.rawValue, writer.rawValue), fifth: process.rawValue)
    }
    let helper = try PidDescriptor(pid: launched.monitor)
    var result = ProbeResult(exitCode: nil, output: [])
    while true {
      let left = deadline - .now
      let milliseconds = left.components.seconds * 1000 + left.components.attoseconds / 1_000_000_000_000_000 + 1
      if left <= .zero { break }
      var polled = [
        pollfd(fd: helper.rawValue, events: Int16(POLLIN), revents: 0), pollfd(fd: reader.rawValue, events: Int16(POLLIN), revents: 0),
      ]
      if poll(&polled, 2, Int32(clamping: milliseconds)) < 0 { continue }
      if polled[1].revents != 0, !Self.take(from: reader, into: &result.output, outputMax) {
        // Nobody holds the other end any more: only the end is left to wait for.
        var end = pollfd(fd: helper.rawValue, events: Int16(POLLIN), revents: 0)
        _ = poll(&end, 1, Int32(clamping: milliseconds))
        if end.revents == 0 { continue }
        polled[0].revents = end.revents
      }
      if polled[0].revents != 0 {
        let status = helper.reap() ?? 255 << 8
        // What it left in the pipe; something that it left running may hold the other end, so only what is there.
        var rest = pollfd(fd: reader.rawValue, events: Int16(POLLIN), revents: 0)
        while poll(&rest, 1, 0) == 1, Self.take(from: reader, into: &result.output, outputMax) {}
        result.exitCode = status & 0x7f == 0 ? status >> 8 & 0xff : 128 + (status & 0x7f)
        return result
      }
    }
    // It leads a session and a group of its own; as long as its monitor has not reaped it, the number is its.
    if ProcessIdentity.parent(of: launched.pid) == launched.monitor { kill(-launched.pid, SIGKILL) }
    watcher.whenEnded(helper) { _ = helper.reap() }
    return result
  }

  /// false at the end.
  private static func take(from reader: SharedDescriptor, into output: inout [UInt8], _ max: Int) -> Bool {
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = read(reader.rawValue, &buffer, buffer.count)
    if count <= 0 { return count < 0 && errno == EINTR }
    output += buffer[..<min(count, Swift.max(0, max - output.count))]
    return true
  }
}
