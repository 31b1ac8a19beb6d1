import Cgroups
import Glibc
import LinuxSystem
import OCI

extension Bundles {
  /// What the kernel says of it now.
  func status(_ stored: StoredBundle, _ folder: borrowing BundleFolder) -> State.Status {
    if stored.pid == 0 { return .creating }
    guard let process = process(stored), !process.hasEnded else { return .stopped }
    if stored.isBeingMade == true { return .creating }
    // Before whether it was started, as with runc: a created one can be paused, too.
    if (try? cgroup(stored))?.isFrozen == true { return .paused }
    return Files.exists(folder.path + "/" + StartSocket.name) || folder.isBeingStarted ? .created : .running
  }
  func process(_ stored: StoredBundle) -> PidDescriptor? { stored.identity.open() }

  public func state(_ id: String) throws(BundleError) -> State {
    let folder = try BundleFolder.open(root: root, id, locked: false)
    return state(try folder.stored(), folder)
  }
  private func state(_ stored: StoredBundle, _ folder: borrowing BundleFolder) -> State {
    let status = status(stored, folder)
    var state = State(
      id: stored.id, pid: status == .stopped ? 0 : stored.pid, status: status, bundle: stored.bundle, annotations: stored.annotations)
    (state.rootfs, state.created, state.owner) = (stored.rootfs, stored.created, stored.owner)
    return state
  }

  /// All that are there, by id; one that is being made or removed meanwhile is left out.
  public func list() -> [State] { ((try? Files.list(root)) ?? []).compactMap { try? state($0) } }

  /// Sends a signal to the first process, or to every process of the container.
  public func kill(_ id: String, _ signal: Int32, all: Bool) throws(BundleError) {
    let folder = try BundleFolder.open(root: root, id)
    let stored = try folder.stored()
    if all, let group = try cgroup(stored) {
      if signal == SIGKILL { group.killAll() } else { for pid in group.processes() { Glibc.kill(pid, signal) } }
      return
    }
    guard let process = process(stored), !process.hasEnded else { throw BundleError("container not running") }
    do throws(SystemError) { try process.send(signal) } catch {
      throw error.errno == .noProcess ? BundleError("container not running") : BundleError("kill container \(id)", error)
    }
    // A frozen process takes SIGKILL only when it is thawed (v1; the kernel does so by itself on v2).
    if signal == SIGKILL, let group = try cgroup(stored), group.isFrozen { try? group.freeze(false) }
  }

  /// Removes a stopped container; `force`: any, and fine when there is none. `only`: none but the one with this first process, whatever has its name by
  /// now. poststop hooks that fail are returned as warnings.
  public func delete(_ id: String, force: Bool, only: ProcessIdentity? = nil) throws(BundleError) -> [String] {
    let folder: BundleFolder
    do throws(BundleError) { folder = try BundleFolder.open(root: root, id) } catch {
      if force, error == .noSuchContainer(id) { return [] }
      throw error
    }
    guard let stored = try? folder.stored() else {
      if only != nil { return [] }
      guard force else { throw BundleError("the state of container \"\(id)\" is incomplete: delete it with --force") }
      try folder.remove()
      return []
    }
    if let only, only != stored.identity { return [] }
    let status = status(stored, folder)
    let group = try cgroup(stored)
    if status == .paused, force { try? group?.freeze(false) }
    // Created and never started counts as ended with us, as runc has it.
    guard status == .stopped || status == .created || force else {
      throw BundleError("cannot delete container \"\(id)\" that is not stopped: \(status.rawValue)")
    }
    if let process = process(stored) {
      try? process.send(SIGKILL)
      if !process.ends(within: 200) {
        // Somebody froze it in a group of theirs (v1): there SIGKILL waits.
        for pid in [stored.pid] + (group?.processes() ?? []) { CgroupHost.takeOutOfFreezer(pid) }
        process.ends(within: 10_000)
      }
    }
    if let group {
      group.killAll()
      do throws(SystemError) { try Self.remove(group) } catch {
        // As the C library says it, which callers of crun look for.
        throw BundleError("delete container \(id): \(error.operation) \(error.object): \(error.errno.message)")
      }
    }
    Self.unmountRoot(stored)
    try folder.remove()
    // Whoever waits for this container need not wait for its hooks.
    folder.unlock()
    return Self.runPoststop(stored)
  }
  /// Each is tried: the specification has failures logged and the rest go on.
  static func runPoststop(_ stored: StoredBundle) -> [String] {
    let state = State(id: stored.id, pid: 0, status: .stopped, bundle: stored.bundle, annotations: stored.annotations)
    var warnings: [String] = []
    for hook in stored.poststop ?? [] {
      do throws(BundleError) { try Hooks.run([hook], "poststop", state) } catch { warnings.append(error.description) }
    }
    return warnings
  }

  /// Stops every process of the container until `resume`.
  public func pause(_ id: String) throws(BundleError) { try freeze(id, true) }
  public func resume(_ id: String) throws(BundleError) { try freeze(id, false) }
  private func freeze(_ id: String, _ frozen: Bool) throws(BundleError) {
    let folder = try BundleFolder.open(root: root, id)
    let stored = try folder.stored()
    let status = status(stored, folder)
    guard frozen ? status == .running || status == .created : status == .paused else {
      throw BundleError(frozen ? "container not running: it is \(status.rawValue)" : "container not paused")
    }
    guard let group = try cgroup(stored) else { throw BundleError("cannot \(frozen ? "pause" : "resume") a container without a cgroup") }
    do throws(SystemError) { try group.freeze(frozen) } catch {
      throw BundleError(frozen ? "pause container \(id)" : "resume container \(id)", error)
    }
  }

  /// As the host counts.
  public func processes(_ id: String) throws(BundleError) -> [Int32] {
    let folder = try BundleFolder.open(root: root, id, locked: false)
    let stored = try folder.stored()
    guard let process = process(stored), !process.hasEnded else { throw BundleError("container not running") }
    return try cgroup(stored)?.processes() ?? [stored.pid]
  }
}
