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

  /// Tells usage every `interval`, and each OOM kill when it comes, until the container ends.
  public func events(_ id: String, every interval: Duration, _ tell: (BundleEvent) -> Void) throws(BundleError) {
    let stored = try BundleFolder.open(root: root, id, locked: false).stored()
    guard let process = process(stored), let group = try cgroup(stored) else { throw BundleError("container not running") }
    let watch: OOMWatch
    do throws(SystemError) { watch = try OOMWatch(group) } catch { throw BundleError("watch for OOM kills of container \(id)", error) }
    var kills = clinux_oom_kills(group.oomFile)
    var next = ContinuousClock.now + interval
    // v1 tells before it kills: till then it is looked at again and again.
    var alertEnd = ContinuousClock.now
    while true {
      let now = ContinuousClock.now
      let wait = min(next - now, alertEnd > now ? .milliseconds(20) : .seconds(1_000_000))
      var entries = [
        pollfd(fd: process.rawValue, events: Int16(POLLIN), revents: 0), pollfd(fd: watch.rawValue, events: watch.events, revents: 0),
      ]
      poll(&entries, 2, wait > .zero ? Int32(wait / .milliseconds(1)) + 1 : 0)
      if entries[1].revents != 0 {
        watch.take()
        if !group.isV2 { alertEnd = ContinuousClock.now + .seconds(5) }
      }
      let total = clinux_oom_kills(group.oomFile)
      for _ in kills..<max(kills, total) { tell(BundleEvent(type: "oom", id: id)) }
      kills = max(kills, total)
      if entries[0].revents != 0 { return }
      guard ContinuousClock.now >= next else { continue }
      guard let event = try? usage(id) else { return }
      tell(event)
      next = max(next + interval, ContinuousClock.now)
    }
  }
}
