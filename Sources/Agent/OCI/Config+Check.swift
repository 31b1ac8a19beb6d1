extension Config {
  /// Throws the first thing that is wrong or that orch cannot do yet. `exec`'s process is checked by `ConfigProcess.check`.
  public func check() throws(OCIError) {
    guard let major = ociVersion.split(separator: ".").first, major == "1", ociVersion.split(separator: ".").count >= 3 else {
      throw OCIError("ociVersion", "\"\(ociVersion)\" is not a version 1 of the specification")
    }
    guard let root else { throw OCIError("root", "is required") }
    if root.path.isEmpty { throw OCIError("root.path", "is empty") }
    // Without one the container can be made, and `start` has nothing to execute.
    try process?.check("process")
    for (index, mount) in (mounts ?? []).enumerated() { try check(mount, "mounts[\(index)]") }
    try hooks?.check()
    try linux?.check()
    if hostname != nil || domainname != nil, !has(.uts) {
      throw OCIError(hostname == nil ? "domainname" : "hostname", "needs a uts namespace in linux.namespaces")
    }
    if let domainname, let other = linux?.sysctl?["kernel.domainname"], other != domainname {
      throw OCIError("linux.sysctl.kernel.domainname", "is \"\(other)\", and domainname \"\(domainname)\"")
    }
    try checkSharedMounts()
  }

  /// Of a container that is made, or one that runs (`mounts add`).
  public func check(_ mount: Mount, _ path: String) throws(OCIError) {
    guard !mount.destination.isEmpty else { throw OCIError(path + ".destination", "is empty") }
    if mount.destination.split(separator: "/").contains("..") { throw OCIError(path + ".destination", "contains \"..\"") }
    let options = try MountOptions(mount.options ?? [], path: path)
    if let map = options.idMap {
      guard options.isBind, !options.isRemount else { throw OCIError(path + ".options", "idmap needs a bind mount") }
      let own = !(mount.uidMappings ?? []).isEmpty || !map.uids.isEmpty
      if !own, (linux?.uidMappings ?? []).isEmpty {
        throw OCIError(path + ".uidMappings", "idmap needs mappings: there are none here nor in linux")
      }
    } else if mount.uidMappings != nil || mount.gidMappings != nil {
      guard options.isBind else { throw OCIError(path + ".uidMappings", "idmapped mounts are bind mounts") }
    }
    guard (mount.uidMappings ?? []).isEmpty == (mount.gidMappings ?? []).isEmpty else {
      throw OCIError(path + ".uidMappings", "and gidMappings belong together")
    }
    if options.bindsLink || options.coversLink || options.copiesLink {
      guard options.isBind, !options.isRemount else {
        throw OCIError(path + ".options", "src-nofollow, dest-nofollow and copy-symlink are for bind mounts")
      }
      if options.copiesLink, options.bindsLink || options.coversLink {
        throw OCIError(path + ".options", "copy-symlink excludes src-nofollow and dest-nofollow")
      }
    }
    if options.isRemount { return }
    if options.isBind, (mount.source ?? "").isEmpty { throw OCIError(path + ".source", "is required for a bind mount") }
    if !options.isBind, (mount.type ?? "").isEmpty { throw OCIError(path + ".type", "is required where \"bind\" is not an option") }
  }

  /// In a mount namespace that is the host's, or joined, everything that is mounted is undone with the container, or stays: never may that reach
  /// what others mounted.
  private func checkSharedMounts() throws(OCIError) {
    guard !hasOwnMounts else { return }
    let path = "linux.namespaces"
    if let user = namespace(.user), (user.path ?? "").isEmpty { throw OCIError(path, "a new user namespace needs a new mount namespace") }
    if !(linux?.rootfsPropagation ?? "").isEmpty { throw OCIError("linux.rootfsPropagation", "needs a new mount namespace in linux.namespaces") }
    for (index, mount) in (mounts ?? []).enumerated() where try MountOptions(mount.options ?? [], path: "mounts[\(index)]").propagation != 0 {
      throw OCIError("mounts[\(index)].options", "a propagation needs a new mount namespace in linux.namespaces")
    }
  }
  /// Whether its mount namespace is new; else it is the host's or one that is joined.
  public var hasOwnMounts: Bool { namespace(.mount).map { ($0.path ?? "").isEmpty } ?? false }

  /// Whether a namespace of this kind is listed, new or by path.
  public func has(_ kind: Linux.Namespace.Kind) -> Bool { namespace(kind) != nil }
  public func namespace(_ kind: Linux.Namespace.Kind) -> Linux.Namespace? { linux?.namespaces?.first { $0.type == kind } }
}

extension ConfigProcess {
  public func check(_ path: String) throws(OCIError) {
    guard let first = args?.first else { throw OCIError(path + ".args", "must not be empty") }
    if first.isEmpty { throw OCIError(path + ".args[0]", "is empty") }
    if !cwd.hasPrefix("/") { throw OCIError(path + ".cwd", "must be an absolute path") }
    for (index, text) in ((args ?? []) + (env ?? [])).enumerated() where text.utf8.contains(0) {
      throw OCIError(path, "argument or variable \(index) holds a NUL byte")
    }
    var seen: Set<String> = []
    for (index, limit) in (rlimits ?? []).enumerated() {
      if !seen.insert(limit.type).inserted { throw OCIError("\(path).rlimits[\(index)].type", "\"\(limit.type)\" is there twice") }
      if !limit.type.hasPrefix("RLIMIT_") { throw OCIError("\(path).rlimits[\(index)].type", "\"\(limit.type)\" is no resource limit") }
      if limit.soft > limit.hard { throw OCIError("\(path).rlimits[\(index)].soft", "is above hard") }
    }
    if let score = oomScoreAdj, !(-1000...1000).contains(score) { throw OCIError(path + ".oomScoreAdj", "is not from -1000 to 1000") }
    try scheduler?.check(path + ".scheduler")
    try ioPriority?.check(path + ".ioPriority")
    for (key, list) in [("initial", execCPUAffinity?.initial), ("final", execCPUAffinity?.final)] {
      if let list, BitList(list) == nil { throw OCIError("\(path).execCPUAffinity.\(key)", "\"\(list)\" is no list of CPUs as in 0-2,5") }
    }
  }
}

extension Config.Hooks {
  func check() throws(OCIError) {
    for (name, list) in all {
      for (index, hook) in list.enumerated() {
        if !hook.path.hasPrefix("/") { throw OCIError("hooks.\(name)[\(index)].path", "must be an absolute path") }
        if let timeout = hook.timeout, timeout <= 0 { throw OCIError("hooks.\(name)[\(index)].timeout", "must be above zero") }
      }
    }
  }
  var all: [(String, [Config.Hook])] {
    [
      ("prestart", prestart ?? []), ("createRuntime", createRuntime ?? []), ("createContainer", createContainer ?? []),
      ("startContainer", startContainer ?? []), ("poststart", poststart ?? []), ("poststop", poststop ?? []),
    ]
  }
}

extension Linux {
  func check() throws(OCIError) {
    var seen: Set<Namespace.Kind> = []
    for (index, namespace) in (namespaces ?? []).enumerated() {
      if !seen.insert(namespace.type).inserted { throw OCIError("linux.namespaces[\(index)].type", "\"\(namespace.type.rawValue)\" is there twice") }
      if let path = namespace.path, !path.isEmpty, !path.hasPrefix("/") {
        throw OCIError("linux.namespaces[\(index)].path", "must be an absolute path")
      }
    }
    if (uidMappings ?? []).isEmpty != (gidMappings ?? []).isEmpty { throw OCIError("linux.uidMappings", "and gidMappings belong together") }
    if !seen.contains(.user), !(uidMappings ?? []).isEmpty { throw OCIError("linux.uidMappings", "needs a user namespace in linux.namespaces") }
    if !(timeOffsets ?? [:]).isEmpty {
      if !seen.contains(.time) { throw OCIError("linux.timeOffsets", "needs a time namespace in linux.namespaces") }
      for name in timeOffsets!.keys where name != "monotonic" && name != "boottime" { throw OCIError("linux.timeOffsets.\(name)", "no such clock") }
    }
    for (index, device) in (devices ?? []).enumerated() {
      let path = "linux.devices[\(index)]"
      guard ["c", "b", "u", "p"].contains(device.type) else { throw OCIError(path + ".type", "\"\(device.type)\" is none of c, b, u and p") }
      if !device.path.hasPrefix("/") || device.path.split(separator: "/").contains("..") {
        throw OCIError(path + ".path", "must be an absolute path without \"..\"")
      }
      if device.type != "p", device.major == nil || device.minor == nil { throw OCIError(path + ".major", "and minor are required") }
    }
    if let path = cgroupsPath, path.split(separator: "/").contains("..") { throw OCIError("linux.cgroupsPath", "contains \"..\"") }
    try resources?.check()
    if let propagation = rootfsPropagation, !propagation.isEmpty, MountOptions.propagationNames[propagation] == nil {
      throw OCIError(
        "linux.rootfsPropagation", "\"\(propagation)\" is none of \(MountOptions.propagationNames.keys.sorted().joined(separator: ", "))")
    }
    for name in (sysctl ?? [:]).keys.sorted() {
      let plain = String(name.map { $0 == "/" ? "." : $0 })
      // runc and crun have it so: two names for one thing.
      if plain == "kernel.hostname" { throw OCIError("linux.sysctl.\(name)", "is not allowed: say it with hostname") }
      let needed: Namespace.Kind? =
        plain.hasPrefix("net.")
        ? .network
        : plain == "kernel.domainname"
          ? .uts : plain.hasPrefix("fs.mqueue.") || Self.ipcSysctls.contains(plain) ? .ipc : nil
      guard let needed else { throw OCIError("linux.sysctl.\(name)", "is not in a separate kernel namespace") }
      if !seen.contains(needed) { throw OCIError("linux.sysctl.\(name)", "needs a \(needed.rawValue) namespace in linux.namespaces") }
    }
    if intelRdt != nil { throw OCIError("linux.intelRdt", "is not supported") }
    if netDevices != nil { throw OCIError("linux.netDevices", "is not supported") }
    try memoryPolicy?.check()
    if let personality {
      if personality.domain != "LINUX" && personality.domain != "LINUX32" {
        throw OCIError("linux.personality.domain", "is neither LINUX nor LINUX32")
      }
      if !(personality.flags ?? []).isEmpty { throw OCIError("linux.personality.flags", "are not supported") }
    }
    if let seccomp {
      let listens = !(seccomp.listenerPath ?? "").isEmpty
      if listens, !seccomp.listenerPath!.hasPrefix("/") { throw OCIError("linux.seccomp.listenerPath", "must be an absolute path") }
      if !listens, !(seccomp.listenerMetadata ?? "").isEmpty { throw OCIError("linux.seccomp.listenerMetadata", "needs listenerPath") }
      if seccomp.defaultAction == "SCMP_ACT_NOTIFY" {
        // The process that loads the filter would wait for itself.
        throw OCIError("linux.seccomp.defaultAction", "SCMP_ACT_NOTIFY is for single system calls")
      }
      if !listens, seccomp.flags?.contains("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV") ?? false {
        throw OCIError("linux.seccomp.flags", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs listenerPath")
      }
      for (index, rule) in (seccomp.syscalls ?? []).enumerated() {
        if rule.action == "SCMP_ACT_NOTIFY", !listens {
          throw OCIError("linux.seccomp.syscalls[\(index)].action", "SCMP_ACT_NOTIFY needs listenerPath")
        }
        if rule.names.isEmpty { throw OCIError("linux.seccomp.syscalls[\(index)].names", "must not be empty") }
      }
    }
  }
  static let ipcSysctls: Set<String> = [
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
  ]
}

extension Resources {
  public func check() throws(OCIError) {
    for (index, rule) in (devices ?? []).enumerated() {
      let path = "linux.resources.devices[\(index)]"
      if let type = rule.type, !["a", "b", "c", ""].contains(type) { throw OCIError(path + ".type", "\"\(type)\" is none of a, b and c") }
      if let access = rule.access, !access.allSatisfy({ "rwm".contains($0) }) {
        throw OCIError(path + ".access", "\"\(access)\" is not made of r, w and m")
      }
    }
    for name in (unified ?? [:]).keys.sorted() {
      if name.contains("/") { throw OCIError("linux.resources.unified.\(name)", "is not the name of a cgroup file") }
      // crun's words.
      if !name.contains(".") { throw OCIError("linux.resources.unified", "the specified key has not the form CONTROLLER.VALUE `\(name)`") }
    }
    for (index, limit) in (hugepageLimits ?? []).enumerated() {
      let size = limit.pageSize.utf8
      guard size.dropLast(2).allSatisfy({ (48...57).contains($0) }), size.count > 2, ["KB", "MB", "GB"].contains(String(limit.pageSize.suffix(2)))
      else {
        throw OCIError("linux.resources.hugepageLimits[\(index)].pageSize", "\"\(limit.pageSize)\" is not a size as in 2MB")
      }
    }
    if let swap = memory?.swap, let limit = memory?.limit, swap > 0, limit > 0, swap < limit {
      throw OCIError("linux.resources.memory.swap", "is memory and swap together, so not less than limit")
    }
  }
}
