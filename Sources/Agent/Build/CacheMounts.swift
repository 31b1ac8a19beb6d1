import AgentImage
import Dockerfile
import Glibc
import LinuxSystem
import Synchronization

/// Folders of the host that builds keep between them (`RUN --mount=type=cache`), named by a digest of their ids. Losing one costs time only:
/// beyond `foldersMax` and `bytesMax` the longest unused go.
final class CacheMounts: Sendable {
  static let foldersMax = 64
  private let folder: String
  private let bytesMax: Int64
  private struct State {
    /// Steps that have it now.
    var users: [String: Int] = [:]
    var locked: Set<String> = []
    var waiters: [String: [CheckedContinuation<Void, Never>]] = [:]
  }
  private let state = Mutex(State())

  /// - Parameter bytesMax: on the disk, of all folders that no step has.
  init(_ folder: String, bytesMax: Int64 = 20 << 30) { (self.folder, self.bytesMax) = (folder, bytesMax) }

  /// A folder for one step; `release` it. Waits while a step has it `locked`, or for all to leave it when this one locks it.
  func take(_ mount: RunMount) async throws -> (name: String, path: String) {
    let base = ImageStore.digest(Array(mount.id.utf8)).hex
    var name = base
    var number = 0
    while true {
      let key = name
      let isTaken = state.withLock { state in
        let others = state.users[key, default: 0]
        if state.locked.contains(key) || (mount.sharing != .shared && others > 0) { return false }
        state.users[key] = others + 1
        if mount.sharing == .locked { state.locked.insert(key) }
        return true
      }
      if isTaken { break }
      if mount.sharing == .private {
        number += 1
        name = "\(base)-\(number)"
        continue
      }
      await withCheckedContinuation { continuation in
        let isFree = state.withLock { state in
          // It may have been left meanwhile.
          if state.users[key] == nil { return true }
          state.waiters[key, default: []].append(continuation)
          return false
        }
        if isFree { continuation.resume() }
      }
      try Task.checkCancellation()
    }
    let taken = name
    do {
      return (taken, try await onOwnThread("orch-build") { [self] in try make(taken, mount) })
    } catch {
      release(taken)
      throw error
    }
  }

  func release(_ name: String) {
    let waiters = state.withLock { state -> [CheckedContinuation<Void, Never>] in
      let left = state.users[name, default: 1] - 1
      state.users[name] = left > 0 ? left : nil
      state.locked.remove(name)
      return state.waiters.removeValue(forKey: name) ?? []
    }
    for waiter in waiters { waiter.resume() }
  }

  /// Blocking.
  private func make(_ name: String, _ mount: RunMount) throws -> String {
    let path = "\(folder)/\(name)"
    if !Files.exists(path) {
      try Files.makeDirectories(folder, mode: 0o711)
      try Files.makeDirectories(path, mode: 0o755)
      try check(chown(path, mount.uid, mount.gid), "change the owner of", path)
      try check(chmod(path, mode_t(mount.mode ?? 0o755)), "set the mode of", path)
      try trim()
    }
    // The time of its last use.
    try check(utimensat(AT_FDCWD, path, nil, 0), "set the time of", path)
    return path
  }

  /// After steps that wrote into some: until what is there fits, the longest unused go. Blocking.
  func bound() throws {
    let found = try byUse().map { (name: $0, bytes: Self.size("\(folder)/\($0)")) }
    var excess = found.reduce(0) { $0 + $1.bytes } - bytesMax
    for one in found where excess > 0 { if try remove(one.name) { excess -= one.bytes } }
  }

  private func trim() throws {
    let found = try byUse()
    var excess = found.count - Self.foldersMax
    for name in found where excess > 0 { if try remove(name) { excess -= 1 } }
  }

  /// Removes what no step has now; its bytes on the disk, about. Blocking.
  func prune() throws -> Int64 {
    guard Files.exists(folder) else { return 0 }
    var bytes: Int64 = 0
    for name in try Files.list(folder) {
      let size = Self.size("\(folder)/\(name)")
      if try remove(name) { bytes += size }
    }
    return bytes
  }

  /// The longest unused first.
  private func byUse() throws -> [String] {
    var found: [(name: String, used: (Int, Int))] = []
    for name in try Files.list(folder) {
      var status = stat()
      if lstat("\(folder)/\(name)", &status) == 0 { found.append((name, (status.st_mtim.tv_sec, status.st_mtim.tv_nsec))) }
    }
    return found.sorted { $0.used < $1.used }.map(\.name)
  }

  /// False: a step has it. Nobody gets it while it goes.
  private func remove(_ name: String) throws -> Bool {
    let isFree = state.withLock { state in
      guard state.users[name] == nil else { return false }
      state.users[name] = 1
      return state.locked.insert(name).inserted
    }
    guard isFree else { return false }
    defer { release(name) }
    try Files.removeTree("\(folder)/\(name)")
    return true
  }

  private static func size(_ path: String) -> Int64 {
    var status = stat()
    guard lstat(path, &status) == 0 else { return 0 }
    guard status.st_mode & S_IFMT == S_IFDIR else { return Int64(status.st_blocks) * 512 }
    return ((try? Files.list(path)) ?? []).reduce(0) { $0 + size("\(path)/\($1)") }
  }
}
