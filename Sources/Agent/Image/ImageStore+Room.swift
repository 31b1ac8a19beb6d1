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
    return try await onOwnThread("orch-image") { [self] in
      if target == nil, usedPercent() <= configuration.highWater { return false }
      // Images would lose their names and free nothing.
      guard state.withLock({ $0.knowsAllUsed }) else { return false }
      // What pulls left that were cancelled, before anything that somebody may want.
      let before = usedPercent()
      try sweep()
      var taken = usedPercent() < before
      for digest in collectable() {
        if usedPercent() <= target ?? configuration.lowWater { break }
        try change { state in
          // Used, tagged or loaded since it was looked at.
          guard isCollectable(digest, state, content.pins.pinned) else { return }
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

  /// An operation that brings something: room is made before it, and once more when the disk gets full in its midst.
  func adding<Result: Sendable>(_ body: @Sendable () async throws -> Result) async throws -> Result {
    func once() async throws -> Swift.Result<Result, SystemError> {
      do { return .success(try await operation(body)) } catch let error as SystemError where error.errno == Errno(ENOSPC) { return .failure(error) }
    }
    try await makeRoom()
    var result = try await once()
    // When there is something that can be pulled again.
    if case .failure = result, try await makeRoom(down: configuration.lowWater) { result = try await once() }
    return try result.mapError { error in
      ImageError(.system, "store", "an image", "\(error): make room on this host ('orch image prune --all' takes images that no container uses)")
    }.get()
  }

  /// Not what an operation under way relies on: it would lose its names and free nothing.
  private func isCollectable(_ digest: Digest, _ state: State, _ pinned: Pins.Pinned) -> Bool {
    guard state.isCollectable(digest), let known = state.images[digest] else { return false }
    return pinned.blobs[digest] == nil && pinned.blobs[known.id] == nil && known.layers.allSatisfy { pinned.layers[$0] == nil }
  }

  /// Longest unused first.
  func collectable() -> [Digest] {
    let (state, pinned) = (state.withLock { $0 }, content.pins.pinned)
    let age = { (digest: Digest) in state.entries(of: digest).values.compactMap(\.used).max() ?? 0 }
    return state.images.keys.filter { isCollectable($0, state, pinned) }.sorted { (age($0), $0) < (age($1), $1) }
  }
}

extension ImageStore.State {
  func isCollectable(_ digest: Digest) -> Bool {
    if uses.values.contains(digest) || images[digest] == nil { return false }
    return entries(of: digest).values.allSatisfy { $0.pulled == true }
  }
}
