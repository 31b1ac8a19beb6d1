import LinuxSystem

extension Cgroup {
  /// v1: real-time shares are handed down from group to group (kernel, scheduler/sched-rt-group.rst), and a new group has none. Gives the groups above
  /// this one what all below them have, and `runtime` of `period` microseconds more. Does nothing without that kernel option.
  public func makeRealtimeRoom(_ runtime: Int64, period: Int64) throws(SystemError) {
    guard case .v1(let hierarchies, _) = host.version, let root = hierarchies.first(where: { $0.controller == "cpu" })?.root, period > 0 else {
      return
    }
    var directory = root
    for name in parent.split(separator: "/") {
      directory += "/" + name
      guard let own = Self.realtime(directory) else { return }
      // In millionths, rounded up.
      var share = (runtime * 1_000_000 + period - 1) / period
      for child in Self.folders(directory) where child != path(root) {
        if let given = Self.realtime(child) { share += (given.runtime * 1_000_000 + given.period - 1) / given.period }
      }
      let needed = (share * own.period + 999_999) / 1_000_000
      if own.runtime < needed { try Files.writeExisting(directory + "/cpu.rt_runtime_us", "\(needed)") }
    }
  }

  private static func realtime(_ directory: String) -> (runtime: Int64, period: Int64)? {
    guard let runtime = CgroupFile.optional(directory + "/cpu.rt_runtime_us"), let period = CgroupFile.optional(directory + "/cpu.rt_period_us"),
      period > 0
    else { return nil }
    return (max(runtime, 0), period)
  }
}
