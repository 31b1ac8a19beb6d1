import CLinux
import Cgroups
import Glibc
import LinuxSystem
import OCI

extension Bundles {
  public func usage(_ id: String) throws(BundleError) -> BundleEvent {
    let folder = try BundleFolder.open(root: root, id, locked: false)
    let stored = try folder.stored()
    guard let process = process(stored), !process.hasEnded else { throw BundleError("container not running") }
    guard let group = try cgroup(stored) else { throw BundleError("the container has no cgroup to count in") }
    do throws(SystemError) {
      return BundleEvent(type: "stats", id: id, data: BundleEvent.Usage(try group.usage(), InterfaceCounters.own(of: stored.pid)))
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
