// Cgroups: one container's group in the v2 tree, or in each v1 hierarchy, by one set of verbs.
// Invariants: a group is made below the configured parent only and removed with its container; a limit that cannot be set is an
// error, never silence. It refuses to know containers and processes.
import Glibc
import LinuxSystem

/// How this host mounts its cgroups (cgroups(7)).
public struct CgroupHost: Hashable, Sendable {
  public enum Version: Hashable, Sendable {
    /// The v2 tree's root.
    case v2(root: String)
    /// Controller to its hierarchy's root, in order of use; and the v2 tree without controllers, when there is one.
    case v1([Hierarchy], unified: String?)
  }
  public struct Hierarchy: Hashable, Sendable {
    public var controller: String
    public var root: String
  }
  public var version: Version
  public init(_ version: Version) { self.version = version }

  /// Those a container is put into on v1: limits and accounting. What isolates otherwise (devices: no mount of a container
  /// honours device nodes but the bound ones) costs a join each and is left out.
  static let used = ["memory", "cpu", "cpuacct", "pids", "blkio"]

  /// Reads /proc/self/mountinfo. `more`: controllers beside the usual ones that a container needs.
  public static func detect(more: [String] = []) throws(SystemError) -> CgroupHost {
    try parse(mountinfo: Files.text("/proc/self/mountinfo"), more: more)
  }

  static func parse(mountinfo: String, more: [String] = []) throws(SystemError) -> CgroupHost {
    let used = Self.used + more.filter { !Self.used.contains($0) }
    var v2: [String] = []
    var v1: [String: String] = [:]
    for line in mountinfo.split(separator: "\n") {
      let halves = line.split(separator: " - ", maxSplits: 1)
      guard halves.count == 2 else { continue }
      let left = halves[0].split(separator: " ")
      let right = halves[1].split(separator: " ")
      guard left.count > 4, right.count > 2 else { continue }
      let path = String(left[4])
      if right[0] == "cgroup2" { v2.append(path) }
      if right[0] == "cgroup" {
        for option in right[2].split(separator: ",") where used.contains(String(option)) { v1[String(option)] = v1[String(option)] ?? path }
      }
    }
    if v1.isEmpty {
      guard let root = v2.first else { throw SystemError("find cgroups in", "/proc/self/mountinfo", .noEntry) }
      return CgroupHost(.v2(root: root))
    }
    return CgroupHost(.v1(used.compactMap { name in v1[name].map { Hierarchy(controller: name, root: $0) } }, unified: v2.first))
  }

  public func group(parent: String, name: String) -> Cgroup { Cgroup(host: self, parent: parent, name: name) }

  /// Groups that are below `parent`, in whichever tree.
  public func names(below parent: String) -> [String] {
    let folders = group(parent: parent, name: "").directories.flatMap { Cgroup.folders(String($0.dropLast())) }
    return Set(folders.compactMap { $0.split(separator: "/").last.map(String.init) }).sorted()
  }
}

/// One group. Blocking calls, all of them short.
public struct Cgroup: Hashable, Sendable {
  let host: CgroupHost
  let parent: String
  public let name: String

  func path(_ root: String) -> String { parent.isEmpty ? "\(root)/\(name)" : "\(root)/\(parent)/\(name)" }
  public func path(controller: String) -> String? {
    switch host.version {
    case .v2(let root): path(root)
    case .v1(let hierarchies, _): hierarchies.first { $0.controller == controller }.map { path($0.root) }
    }
  }

  /// The v2 directory for CLONE_INTO_CGROUP; nil on v1 without a v2 tree.
  public var cloneDirectory: String? {
    switch host.version {
    case .v2(let root): path(root)
    case .v1(_, let unified): unified.map(path)
    }
  }
  /// On v1 the files that a process with one thread writes 0 to. Not cgroup.procs: for whole processes the kernel first waits until no CPU is in
  /// an RCU section, 7 to 15 ms (kernel/cgroup/cgroup.c, cgroup_procs_write_start); a thread that moves itself needs no such lock.
  public var joinFiles: [String] { v1Directories.map { $0 + "/tasks" } }
  /// Of a container that runs: whoever made it may not have known all hierarchies that are used now.
  public var presentJoinFiles: [String] { joinFiles.filter { Files.exists($0) } }
  /// On v1 the files with its processes.
  var processLists: [String] { v1Directories.map { $0 + "/cgroup.procs" } }
  private var v1Directories: [String] {
    guard case .v1(let hierarchies, _) = host.version else { return [] }
    return hierarchies.reduce(into: []) { if !$0.contains(path($1.root)) { $0.append(path($1.root)) } }
  }
  /// The file with the counter `oom_kill`.
  public var oomFile: String {
    switch host.version {
    case .v2(let root): path(root) + "/memory.events"
    case .v1: path(controller: "memory").map { $0 + "/memory.oom_control" } ?? ""
    }
  }

  var directories: [String] {
    switch host.version {
    case .v2(let root): [path(root)]
    case .v1(let hierarchies, let unified):
      hierarchies.map { path($0.root) }.reduce(into: []) { if !$0.contains($1) { $0.append($1) } } + (unified.map { [path($0)] } ?? [])
    }
  }

  /// `more`: v2's controllers beside memory, cpu, pids and io.
  public func create(_ limits: CgroupLimits, more: [String] = []) throws(SystemError) {
    try enableControllers(more)
    for directory in directories { try Files.makeDirectories(directory, mode: 0o755) }
    try limit(limits)
  }

  /// v2 hands a controller down one level at a time.
  func enableControllers(_ more: [String]) throws(SystemError) {
    guard case .v2(let root) = host.version else { return }
    var directory = root
    for component in [""] + parent.split(separator: "/").map(String.init) {
      if !component.isEmpty { directory += "/" + component }
      try Files.makeDirectories(directory, mode: 0o755)
      let available = Set(try Files.text(directory + "/cgroup.controllers").split(whereSeparator: \.isWhitespace).map(String.init))
      let enabled = Set(try Files.text(directory + "/cgroup.subtree_control").split(whereSeparator: \.isWhitespace).map(String.init))
      for controller in ["memory", "cpu", "pids", "io"] + more where available.contains(controller) && !enabled.contains(controller) {
        try Files.writeExisting(directory + "/cgroup.subtree_control", "+" + controller)
      }
    }
  }

  /// SIGKILL to every process in it. cgroup.kill where there is one, else one by one until none is left.
  public func killAll() {
    let isDone = cloneDirectory.map { (try? Files.writeExisting($0 + "/cgroup.kill", "1")) != nil } ?? false
    if isDone, isV2 { return }
    // What is in v1's hierarchies alone, as after a start that a crash cut short, no cgroup.kill reaches.
    if !isDone { for pid in processes() where pid > 1 { kill(pid, SIGKILL) } }
    for list in processLists + (cloneDirectory.map { isDone ? [] : [$0 + "/cgroup.procs"] } ?? []) {
      for line in ((try? Files.text(list)) ?? "").split(separator: "\n") {
        if let pid = Int32(line), pid > 1 { kill(pid, SIGKILL) }
      }
    }
  }

  /// In one tree at least.
  public var exists: Bool { directories.contains { Files.exists($0) } }

  /// Removes the group (not its parent); fine when it is not there. EBUSY while a process is in it.
  public func remove() throws(SystemError) {
    for directory in directories {
      // A killed process leaves its group a moment after its parent was told; the kernel has no event for that on v1.
      var attempts = 0
      while rmdir(directory) < 0 {
        let error = Errno.current
        if error == .noEntry { break }
        if error == .notEmpty || error == .busy, attempts < 200 {
          attempts += 1
          Self.removeBelow(directory, 32)
          usleep(attempts < 20 ? 200 : 5000)
          continue
        }
        throw SystemError("remove cgroup", directory, error)
      }
    }
  }

  /// The groups above it, up to and with `top`, as far as nobody is in them any more.
  public func removeEmptyParents(from top: String) {
    let names = parent.split(separator: "/")
    guard names.starts(with: top.split(separator: "/")) else { return }
    for directory in directories {
      var path = Substring(directory)
      for _ in 0..<(names.count - top.split(separator: "/").count + 1) {
        path = path.prefix(upTo: path.lastIndex(of: "/") ?? path.startIndex)
        if rmdir(String(path)) < 0 { break }
      }
    }
  }

  /// What a container made for itself; a group's files are no folders, rmdir(2) passes over them.
  private static func removeBelow(_ directory: String, _ depth: Int) {
    guard depth > 0 else { return }
    for child in folders(directory) {
      removeBelow(child, depth - 1)
      rmdir(child)
    }
  }
  static func folders(_ directory: String) -> [String] {
    var status = stat()
    // Two links and one a folder: most groups have none, and dozens of files.
    guard lstat(directory, &status) == 0, status.st_nlink > 2 else { return [] }
    return ((try? Files.list(directory)) ?? []).map { "\(directory)/\($0)" }.filter { lstat($0, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR }
  }

  /// v1's controllers with their mount data, for a read-only view inside the container; empty on v2. Without blkio: a mount for what is counted alone.
  public var controllers: [String] {
    guard case .v1(let hierarchies, _) = host.version else { return [] }
    return hierarchies.map(\.controller).filter { $0 != "blkio" }
  }
}
