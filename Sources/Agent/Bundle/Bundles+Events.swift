import CLinux
import Cgroups
import Glibc
import LinuxSystem
import OCI

/// One line of `events`, in the shape of runc's.
public struct BundleEvent: Encodable, Sendable {
  public var type: String
  public var id: String
  public var data: Usage?

  public struct Usage: Encodable, Sendable {
    public struct CPU: Encodable, Sendable {
      /// Nanoseconds.
      public struct Total: Encodable, Sendable { public var total: Int64 }
      public var usage: Total
    }
    /// Bytes.
    public struct Memory: Encodable, Sendable {
      public struct Amount: Encodable, Sendable {
        public var usage: Int64
        public var limit: Int64?
      }
      public var usage: Amount
    }
    public struct Pids: Encodable, Sendable { public var current: Int64 }
    public var cpu: CPU
    public var memory: Memory
    public var pids: Pids
  }
}

extension Bundles {
  public func usage(_ id: String) throws(BundleError) -> BundleEvent {
    let folder = try BundleFolder.open(root: root, id, locked: false)
    let stored = try folder.stored()
    guard let process = process(stored), !process.hasEnded else { throw BundleError("container not running") }
    guard let group = try cgroup(stored) else { throw BundleError("the container has no cgroup to count in") }
    do throws(SystemError) {
      let usage = try group.usage()
      let (seconds, attoseconds) = usage.cpu.components
      return BundleEvent(
        type: "stats", id: id,
        data: BundleEvent.Usage(
          cpu: .init(usage: .init(total: seconds * 1_000_000_000 + attoseconds / 1_000_000_000)),
          memory: .init(usage: .init(usage: usage.memory, limit: usage.memoryLimit)), pids: .init(current: usage.pids)))
    } catch { throw BundleError("read usage of container \(id)", error) }
  }

  /// Tells usage every `interval`, and the OOM kills between, until the container ends.
  public func events(_ id: String, every interval: Duration, _ tell: (BundleEvent) -> Void) throws(BundleError) {
    let stored = try BundleFolder.open(root: root, id, locked: false).stored()
    guard let process = process(stored), let group = try cgroup(stored) else { throw BundleError("container not running") }
    var kills = clinux_oom_kills(group.oomFile)
    var entry = pollfd(fd: process.rawValue, events: Int16(POLLIN), revents: 0)
    while poll(&entry, 1, Int32(clamping: interval.components.seconds * 1000)) <= 0 {
      let now = clinux_oom_kills(group.oomFile)
      if now > kills { tell(BundleEvent(type: "oom", id: id)) }
      kills = now
      guard let event = try? usage(id) else { break }
      tell(event)
    }
    // The one that ended it.
    if clinux_oom_kills(group.oomFile) > kills { tell(BundleEvent(type: "oom", id: id)) }
  }
}
