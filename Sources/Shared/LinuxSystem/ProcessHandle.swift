import CLinux
import Glibc

/// A process that cannot be mistaken for another with the same number: pid and the kernel's start time.
public struct ProcessIdentity: Hashable, Sendable {
  public var pid: Int32
  /// Clock ticks since boot: field 22 of /proc/PID/stat (proc(5)).
  public var startTime: UInt64
  public init(pid: Int32, startTime: UInt64) {
    self.pid = pid
    self.startTime = startTime
  }

  /// nil when there is no such process.
  public static func of(_ pid: Int32) -> ProcessIdentity? {
    statistics(pid).flatMap { UInt64($0[19]) }.map { ProcessIdentity(pid: pid, startTime: $0) }
  }
  public static func parent(of pid: Int32) -> Int32? { statistics(pid).flatMap { Int32($0[1]) } }

  /// The fields of /proc/PID/stat behind the name: state, parent and so on.
  private static func statistics(_ pid: Int32) -> [Substring]? {
    guard let text = try? Files.text("/proc/\(pid)/stat"), let end = text.lastIndex(of: ")") else { return nil }
    let fields = text[text.index(after: end)...].split(separator: " ")
    return fields.count > 19 ? fields : nil
  }

  /// A pidfd of exactly this process; nil when it has gone (a pid used again counts as gone).
  public func open() -> PidDescriptor? {
    let fd = clinux_pidfd_open(pid, 0)
    guard fd >= 0 else { return nil }
    let descriptor = PidDescriptor(owning: fd)
    // Looked at after opening: if the identity still holds now, the descriptor is the right one.
    return ProcessIdentity.of(pid) == self ? descriptor : nil
  }
}

/// A pidfd (pidfd_open(2)): readable when the process has ended.
public final class PidDescriptor: Sendable {
  public let rawValue: Int32
  public init(owning rawValue: Int32) { self.rawValue = rawValue }
  public init(pid: Int32) throws(SystemError) { rawValue = try checkResult(clinux_pidfd_open(pid, 0), "open pidfd of", "\(pid)") }
  deinit { close(rawValue) }

  /// ESRCH when it has ended.
  public func send(_ signal: Int32) throws(SystemError) {
    try checkResult(clinux_pidfd_send_signal(rawValue, signal), "send signal \(signal) to pidfd", "\(rawValue)")
  }
  public var hasEnded: Bool { ends(within: 0) }
  /// Blocks until it has ended, or for so many milliseconds.
  @discardableResult
  public func ends(within milliseconds: Int32) -> Bool {
    var entry = pollfd(fd: rawValue, events: Int16(POLLIN), revents: 0)
    return poll(&entry, 1, milliseconds) == 1
  }
  /// Reaps a child of ours and returns its wait status; nil when it is not ours. Blocks until it has ended.
  public func reap() -> Int32? {
    var status: Int32 = 0
    return clinux_pidfd_wait(rawValue, 0, &status) == 0 ? status : nil
  }
}
