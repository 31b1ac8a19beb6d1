import CLinux
import Glibc
import LinuxSystem

/// Tells when the kernel runs out of a group's memory. What it kills for that is counted in `Cgroup.oomFile`: on v2 by then, on v1 soon after.
public final class OOMWatch: Sendable {
  private let descriptor: OwnedDescriptor
  private let isV2: Bool

  /// v2: POLLPRI of memory.events (cgroup-v2.rst, "Control File Change"); v1: an eventfd by cgroup.event_control (cgroup-v1/memory.rst, "OOM Control").
  public init(_ group: Cgroup) throws(SystemError) {
    isV2 = group.isV2
    let file = try OwnedDescriptor.open(group.oomFile, O_RDONLY)
    guard !isV2 else {
      descriptor = file
      take()
      return
    }
    descriptor = OwnedDescriptor(owning: try check(eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK)), "make an eventfd"))
    try group.write(controller: "memory", file: "cgroup.event_control", "\(descriptor.rawValue) \(file.rawValue)")
  }

  /// For poll(2), with `events`.
  public var rawValue: Int32 { descriptor.rawValue }
  public var events: Int16 { Int16(isV2 ? POLLPRI : POLLIN) }

  /// After it was ready: until the next time.
  public func take() {
    var bytes = [UInt8](repeating: 0, count: 4096)
    if isV2 { _ = pread(descriptor.rawValue, &bytes, bytes.count, 0) } else { _ = read(descriptor.rawValue, &bytes, 8) }
  }
}
