import CLinux
import Glibc
import LinuxSystem

extension Cgroup {
  public var isV2: Bool { if case .v2 = host.version { true } else { false } }

  /// Writes one of its files, e.g. cpu, cpu.shares; ENOTSUP where the host has not this controller (v1).
  public func write(controller: String, file: String, _ value: String) throws(SystemError) {
    guard let base = path(controller: controller) else { throw SystemError("set \(file) of", name, .unsupported) }
    try Files.writeExisting("\(base)/\(file)", value)
  }
  public func has(controller: String, file: String) -> Bool { path(controller: controller).map { Files.exists("\($0)/\(file)") } ?? false }
  public func read(controller: String, file: String) -> String? { path(controller: controller).flatMap { try? Files.text("\($0)/\(file)") } }

  /// Every process in it and in the groups below, as the host counts; empty when it is gone.
  public func processes() -> [Int32] {
    guard let list = cloneDirectory ?? processLists.first.map({ String($0.dropLast("/cgroup.procs".count)) }) else { return [] }
    func below(_ folder: String, _ depth: Int) -> [Int32] {
      let here = ((try? Files.text(folder + "/cgroup.procs")) ?? "").split(separator: "\n").compactMap { Int32($0) }
      guard depth < 32 else { return here }
      return Self.folders(folder).reduce(into: here) { $0 += below($1, depth + 1) }
    }
    return Array(Set(below(list, 0))).sorted()
  }

  public func below(_ name: String) -> Cgroup { Cgroup(host: host, parent: parent.isEmpty ? self.name : "\(parent)/\(self.name)", name: name) }
  /// The first of its folders that is not there.
  public var missing: String? { directories.first { !Files.exists($0) } }

  /// v1: the hierarchies of these controllers (and of those that share one with them), and the others with the v2 tree.
  public func split(_ controllers: [String]) -> (these: Cgroup, others: Cgroup) {
    guard case .v1(let hierarchies, let unified) = host.version else { return (self, self) }
    let roots = Set(hierarchies.filter { controllers.contains($0.controller) }.map(\.root))
    func group(_ hierarchies: [CgroupHost.Hierarchy], _ unified: String?) -> Cgroup {
      Cgroup(host: CgroupHost(.v1(hierarchies, unified: unified)), parent: parent, name: name)
    }
    return (group(hierarchies.filter { roots.contains($0.root) }, nil), group(hierarchies.filter { !roots.contains($0.root) }, unified))
  }

  /// Where one more process goes beside `pid`. v2: a container that hands controllers to groups of its own, as systemd does, has left this one,
  /// which takes no process any more (cgroup-v2.rst, "No Internal Process Constraint"): then to where `pid` is.
  public func place(beside pid: Int32) -> Cgroup {
    guard isV2, let handed = read(controller: "cgroup", file: "cgroup.subtree_control"), !handed.allSatisfy(\.isWhitespace),
      let line = try? Files.text("/proc/\(pid)/cgroup").split(separator: "\n").first(where: { $0.hasPrefix("0::") }),
      // What is before it is where this host's tree is mounted; what the container named itself comes after.
      let own = line.firstRange(of: (parent.isEmpty ? "/" : "/\(parent)/") + name + "/")
    else { return self }
    let names = line[own.upperBound...].split(separator: "/")
    return names.contains("..") ? self : names.reduce(self) { $0.below(String($1)) }
  }

  /// v1: moves whole processes into this group of one hierarchy; one that has ended meanwhile is passed over.
  public func join(controller: String, _ processes: [Int32]) throws(SystemError) {
    for process in processes {
      do throws(SystemError) { try write(controller: controller, file: "cgroup.procs", "\(process)") } catch {
        if error.errno != Errno(ESRCH) { throw error }
      }
    }
  }

  /// Stops or continues everything in it; returns when it is so. Needs a v2 tree (a hybrid host's, too). A process in uninterruptible sleep (a file
  /// server that is gone) cannot be stopped: ETIMEDOUT after `within` (runc's 10 s), and what was to be frozen is not.
  public func freeze(_ frozen: Bool, within: Duration = .seconds(10)) throws(SystemError) {
    let end = ContinuousClock.now + within
    do throws(SystemError) {
      if let directory = cloneDirectory { try freeze(directory, frozen, until: end) } else { try freezeV1(frozen, until: end) }
    } catch {
      // What is half frozen would neither run nor take a signal.
      if frozen { try? setFrozen(false) }
      throw error
    }
  }
  private func setFrozen(_ frozen: Bool) throws(SystemError) {
    if let directory = cloneDirectory { return try Files.writeExisting(directory + "/cgroup.freeze", frozen ? "1" : "0") }
    try write(controller: "freezer", file: "freezer.state", frozen ? "FROZEN" : "THAWED")
  }
  /// v1 tells nobody when it is done; it takes as long as the processes need to leave the kernel. While new ones come it may stay FREEZING, until it is
  /// thawed and frozen anew (runc, cgroups/fs/freezer.go).
  private func freezeV1(_ frozen: Bool, until end: ContinuousClock.Instant) throws(SystemError) {
    try setFrozen(frozen)
    var looks = 0
    while frozen, read(controller: "freezer", file: "freezer.state")?.hasPrefix("FROZEN") != true {
      if ContinuousClock.now >= end { throw SystemError("freeze", name, Errno(ETIMEDOUT)) }
      looks += 1
      if looks % 500 == 0 {
        try setFrozen(false)
        usleep(10_000)
        try setFrozen(true)
      }
      usleep(200)
    }
  }
  private func freeze(_ directory: String, _ frozen: Bool, until end: ContinuousClock.Instant) throws(SystemError) {
    // Watched before the change: cgroup.events tells by POLLPRI when it is done (cgroup-v2.rst).
    let events = try OwnedDescriptor.open(directory + "/cgroup.events", O_RDONLY)
    try setFrozen(frozen)
    while true {
      lseek(events.rawValue, 0, SEEK_SET)
      let text = String(decoding: try Files.read(descriptor: events.rawValue, name: "cgroup.events"), as: UTF8.self)
      // An empty group is never frozen.
      if text.contains("frozen \(frozen ? 1 : 0)") || text.contains("populated 0") { return }
      let left = end - ContinuousClock.now
      if left <= .zero { throw SystemError(frozen ? "freeze" : "thaw", name, Errno(ETIMEDOUT)) }
      var entry = pollfd(fd: events.rawValue, events: Int16(POLLPRI), revents: 0)
      poll(&entry, 1, Int32(min(left / .milliseconds(1), 1000)) + 1)
    }
  }
  public var isFrozen: Bool {
    guard let directory = cloneDirectory else {
      return read(controller: "freezer", file: "freezer.state").map { $0.hasPrefix("FROZEN") || $0.hasPrefix("FREEZING") } ?? false
    }
    guard let text = try? Files.text(directory + "/cgroup.freeze") else { return false }
    return text.hasPrefix("1")
  }

  /// What a container needs here for `freeze` and `restrictDevices` beside the usual controllers.
  public var controllersOfPureV1: [String] { cloneDirectory == nil ? ["devices", "freezer"] : [] }

  /// Lets only what the rules allow open device nodes; on a v2 tree by BPF (BPF_PROG_TYPE_CGROUP_DEVICE), else by v1's devices hierarchy.
  public func restrictDevices(_ rules: [DeviceProgram.Rule]) throws(SystemError) {
    guard let directory = cloneDirectory else {
      for rule in rules {
        for line in rule.text.split(separator: "\n") {
          try write(controller: "devices", file: rule.allow ? "devices.allow" : "devices.deny", String(line))
        }
      }
      return
    }
    let program = DeviceProgram(rules)
    let folder = try OwnedDescriptor.open(directory, O_RDONLY | O_DIRECTORY)
    try checkResult(clinux_bpf_devices(folder.rawValue, program.instructions, program.instructions.count), "restrict the devices of", name)
  }

  /// v1: a new cpuset is empty and takes no process; each level takes what the one above has where it has nothing (cpusets(7)).
  public func inheritCpuset() throws(SystemError) {
    guard case .v1(let hierarchies, _) = host.version, let root = hierarchies.first(where: { $0.controller == "cpuset" })?.root else { return }
    var folder = root
    for component in parent.split(separator: "/").map(String.init) + [name] {
      let above = folder
      folder += "/" + component
      for file in ["cpuset.cpus", "cpuset.mems"] where try Files.text("\(folder)/\(file)").allSatisfy(\.isWhitespace) {
        try Files.writeExisting("\(folder)/\(file)", try Files.text("\(above)/\(file)").filter { !$0.isWhitespace })
      }
    }
  }
}

extension CgroupHost {
  /// v1: back to the hierarchy's root, where nobody is frozen; whatever else is in its group stays as it is. Does nothing without that hierarchy.
  public static func takeOutOfFreezer(_ pid: Int32) {
    guard case .v1(let hierarchies, _)? = try? detect(more: ["freezer"]).version,
      let freezer = hierarchies.first(where: { $0.controller == "freezer" })
    else { return }
    try? Files.writeExisting(freezer.root + "/cgroup.procs", "\(pid)")
  }
}
