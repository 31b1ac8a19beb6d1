import Glibc
import LinuxSystem
import Model

// Disk pressure. What no container uses and a registry has goes, by age of its last use, when the file system is fuller than
// `configuration.highWater` percent, until it is at `lowWater` (as the kubelet's image garbage collection). What was loaded, imported or built
// is never taken: nobody could bring it back.
extension ImageStore {
  /// Percent of the file system of the images that is used; blocking.
  func usedPercent() -> Int {
    var status = statvfs()
    guard statvfs(directory, &status) == 0, status.f_blocks > 0 else { return 0 }
    // As df(1): what only root may use is not free.
    let used = UInt64(status.f_blocks) - UInt64(status.f_bfree)
    return Int((used * 100 + used + UInt64(status.f_bavail) - 1) / max(1, used + UInt64(status.f_bavail)))
  }

  /// - Parameter down: percent to come down to; nil: `lowWater`, and only when it is over `highWater`.
  /// - Returns: whether anything was taken.
  @discardableResult
  func makeRoom(down target: Int? = nil) async throws -> Bool {
    if target == nil, configuration.highWater >= 100 { return false }
    // Nothing is swept during a pull, load or build: images would lose their names and free nothing.
    if state.withLock({ $0.operations > 0 }) { return false }
    return try await onOwnThread("orch-image") { [self] in
      if target == nil, usedPercent() <= configuration.highWater { return false }
      var taken = false
      for digest in collectable() {
        if usedPercent() <= target ?? configuration.lowWater { break }
        try change { state in
          // Used, tagged or loaded since it was looked at.
          guard state.isCollectable(digest) else { return }
          for name in state.entries(of: digest).keys { state.index.images[name] = nil }
          state.images[digest] = nil
          state.needsSweep = true
          taken = true
        }
        try sweep()
      }
      return taken
    }
  }

  /// Longest unused first.
  func collectable() -> [Digest] {
    let state = state.withLock { $0 }
    let age = { (digest: Digest) in state.entries(of: digest).values.compactMap(\.used).max() ?? 0 }
    return state.images.keys.filter(state.isCollectable).sorted { (age($0), $0) < (age($1), $1) }
  }
}

extension ImageStore.State {
  func isCollectable(_ digest: Digest) -> Bool {
    if uses.values.contains(digest) || images[digest] == nil { return false }
    return entries(of: digest).values.allSatisfy { $0.pulled == true }
  }
}
