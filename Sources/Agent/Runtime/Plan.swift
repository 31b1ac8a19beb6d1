import CLinux
import Cgroups
import Glibc
import Launch
import LinuxSystem
import Model
import Seccomp

/// Where one container's things are on this host.
struct ContainerPaths: Hashable, Sendable {
  var state: String
  var data: String
  var root: String { data + "/root" }
  var upper: String { data + "/upper" }
  var work: String { data + "/work" }
  var logFolder: String { data + "/log" }
  var log: String { logFolder + "/container.log" }
  init(_ configuration: RuntimeConfiguration, _ id: String) {
    state = "\(configuration.stateDirectory)/containers/\(id)"
    data = "\(configuration.dataDirectory)/containers/\(id)"
  }
}

enum Plan {
  /// Docker's default set (docs.docker.com/engine/containers/run, "Runtime privilege and Linux capabilities").
  static let defaultCapabilities = [
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT",
    "KILL", "AUDIT_WRITE",
  ]
  static let masked = [
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
    "/proc/timer_list", "/proc/timer_stats", "/sys/firmware", "/sys/devices/virtual/powercap",
  ]
  static let readOnly = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
  static let defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

  static func capabilities(_ config: ContainerConfig) throws(RuntimeError) -> CapabilitySet {
    func set(_ names: [String]) throws(RuntimeError) -> CapabilitySet {
      var sum = CapabilitySet(rawValue: 0)
      for name in names {
        if name.uppercased() == "ALL" {
          sum = .all
          continue
        }
        guard let one = CapabilitySet(name: name) else { throw RuntimeError(.invalid, "add or drop capability", name, "no such capability") }
        sum = sum.union(one)
      }
      return sum
    }
    let dropsAll = config.capabilityDrop.contains { $0.uppercased() == "ALL" }
    let base = dropsAll ? CapabilitySet(rawValue: 0) : try set(defaultCapabilities)
    let added = base.union(try set(config.capabilityAdd))
    let dropped = dropsAll ? added : added.subtracting(try set(config.capabilityDrop))
    return dropped.intersection(.bounding)
  }

  static func stored(_ config: ContainerConfig) throws(RuntimeError) -> StoredContainer {
    var stored = StoredContainer()
    stored.user = config.user
    stored.groups = config.groups
    stored.env = config.env
    let names = Set(config.env.map { String($0.prefix { $0 != "=" }) })
    if !names.contains("PATH") { stored.env.append(defaultPath) }
    if !names.contains("HOSTNAME") { stored.env.append("HOSTNAME=\(hostname(config))") }
    if config.tty, !names.contains("TERM") { stored.env.append("TERM=xterm") }
    stored.cwd = config.cwd.isEmpty ? "/" : config.cwd
    stored.capabilities = try capabilities(config).rawValue
    stored.noNewPrivileges = config.noNewPrivileges
    stored.unconfined = config.seccomp == .unconfined
    guard let signal = SignalName.number(config.stopSignal.isEmpty ? "SIGTERM" : config.stopSignal) else {
      throw RuntimeError(.invalid, "use stop signal", config.stopSignal, "no such signal")
    }
    stored.stopSignal = signal
    stored.tty = config.tty
    stored.oomScoreAdj = config.oomScoreAdj
    stored.labels = config.labels
    stored.limits = config.ulimits.map { limit in
      func value(_ number: Int64?, _ other: Int64?) -> UInt64 { UInt64(bitPattern: number ?? other ?? -1) }
      return .init(name: limit.name, soft: value(limit.soft, limit.hard), hard: value(limit.hard, limit.soft))
    }
    stored.isPinned = config.resources.cpuset != nil
    return stored
  }

  static func hostname(_ config: ContainerConfig) -> String {
    if let name = config.hostname, !name.isEmpty { return name }
    return String(config.id.prefix(12))
  }

  static func validate(_ config: ContainerConfig) throws(RuntimeError) {
    let id = config.id.utf8
    let allowed = id.allSatisfy { byte in
      switch byte {
      case 48...57, 65...90, 97...122, 45, 46, 95: true
      default: false
      }
    }
    guard allowed, (1...128).contains(id.count), id.first != 46 else {
      throw RuntimeError(.invalid, "make container", config.id, "an id is 1 to 128 of [A-Za-z0-9_.-] and does not begin with a dot")
    }
    guard let command = config.args.first, !command.isEmpty else { throw RuntimeError(.invalid, "start container", config.id, "no command given") }
    guard config.rootDirectory != nil || !config.layers.isEmpty else { throw RuntimeError(.invalid, "make container", config.id, "no layers") }
    guard hostname(config).utf8.count <= 64 else { throw RuntimeError(.invalid, "set hostname", hostname(config), "longer than 64 bytes") }
    if let name = config.domainname, name.utf8.count > 64 { throw RuntimeError(.invalid, "set domainname", name, "longer than 64 bytes") }
    let texts =
      config.args + config.env + [config.cwd, config.user, hostname(config), config.domainname ?? ""] + config.groups + config.mounts.flatMap(\.texts)
      + config.files.map(\.target) + config.layers
    if let bad = texts.first(where: { $0.utf8.contains(0) }) { throw RuntimeError(.invalid, "make container", config.id, "a NUL byte in \(bad)") }
    guard stringIsAbsolute(config.cwd) else { throw RuntimeError(.invalid, "use working directory", config.cwd, "not an absolute path") }
    for target in config.mounts.map(\.target) + config.files.map(\.target) {
      guard target.hasPrefix("/"), !normalized(target).isEmpty else {
        throw RuntimeError(.invalid, "mount on", target, "a target is an absolute path and not the root")
      }
      if target.split(separator: "/").contains("..") { throw RuntimeError(.invalid, "mount on", target, "a target has no \"..\"") }
    }
    for (name, _) in config.sysctls {
      let spaced = ["net.", "fs.mqueue."].contains { name.hasPrefix($0) }
      let ipc = [
        "kernel.shmmax", "kernel.shmall", "kernel.shmmni", "kernel.shm_rmid_forced", "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem",
      ]
      guard spaced || ipc.contains(name), !name.contains("/"), !name.contains(".."), !(name.hasPrefix("net.") && config.network == .host) else {
        throw RuntimeError(.invalid, "set sysctl", name, "it does not belong to a namespace of the container")
      }
    }
  }

  private static func stringIsAbsolute(_ path: String) -> Bool { path.isEmpty || path.hasPrefix("/") }
  private static func normalized(_ path: String) -> String { path.split(separator: "/").filter { $0 != "." }.joined(separator: "/") }

  private static let safe = UInt64(CLINUX_MS_NOSUID | CLINUX_MS_NODEV | CLINUX_MS_NOEXEC)

  /// What the kernel shows of itself, in the order of mounting.
  private static func kernelMounts(_ cgroup: Cgroup, shmSize: Int64) -> [(type: String, target: String, flags: UInt64, data: String)] {
    let readOnly = safe | UInt64(CLINUX_MS_RDONLY)
    let groups =
      cgroup.controllers.isEmpty
      ? [("cgroup2", "sys/fs/cgroup", readOnly, "")]
      : [("tmpfs", "sys/fs/cgroup", safe, "mode=755,size=64k")] + cgroup.controllers.map { ("cgroup", "sys/fs/cgroup/\($0)", readOnly, $0) }
    return [("sysfs", "sys", readOnly, "")] + groups + [
      ("tmpfs", "dev", UInt64(CLINUX_MS_NOSUID | CLINUX_MS_NODEV), "mode=755,size=65536k"),
      ("devpts", "dev/pts", UInt64(CLINUX_MS_NOSUID | CLINUX_MS_NOEXEC), "newinstance,ptmxmode=0666,mode=0620,gid=5"),
      ("mqueue", "dev/mqueue", safe, ""), ("tmpfs", "dev/shm", safe, "mode=1777,size=\(max(4096, shmSize))"),
    ]
  }

  private static let namespaces =
    CLINUX_CLONE_NEWNS | CLINUX_CLONE_NEWPID | CLINUX_CLONE_NEWIPC | CLINUX_CLONE_NEWUTS | CLINUX_CLONE_NEWCGROUP

  private static func join(_ cgroup: Cgroup, _ plan: inout PlanWriter) {
    if let directory = cgroup.cloneDirectory { plan.add(CLINUX_OP_CGROUP, "join cgroup", [.text(directory)]) }
    for file in cgroup.joinFiles { plan.add(CLINUX_OP_CGROUP_TASKS, "join cgroup", [.text(file)]) }
  }

  /// What any container of that kind will need. Its mounts are taken by those of the container's plan that are the same.
  static func stub(_ kind: StubPolicy.Kind, cgroup: Cgroup) -> PlanWriter {
    var plan = PlanWriter()
    // The mounts' namespace is made when the container is: it begins as a copy of the host's.
    let network = kind == .ownNetwork ? CLINUX_CLONE_NEWNET : 0
    plan.add(CLINUX_OP_STUB, "be a stub")
    plan.add(CLINUX_OP_NAMESPACES, "make namespaces", [.number(UInt64(namespaces & ~CLINUX_CLONE_NEWNS | network))])
    join(cgroup, &plan)
    // A sysfs shows the network namespace that it was made in.
    let mounts = kernelMounts(cgroup, shmSize: ContainerConfig.defaultShmSize).filter { kind == .ownNetwork || $0.type != "sysfs" }
    for (type, _, flags, data) in [("proc", "proc", safe, "")] + mounts {
      plan.add(CLINUX_OP_STAGE, "make \(type)", [.text(type), .number(flags), .text(data)])
    }
    plan.add(CLINUX_OP_AWAIT, "wait for its container")
    return plan
  }

  static func make(
    _ config: ContainerConfig, stored: StoredContainer, paths: ContainerPaths, cgroup: Cgroup
  ) throws(RuntimeError) -> PlanWriter {
    typealias V = PlanWriter.Value
    var plan = PlanWriter()
    let network = config.network == .new ? CLINUX_CLONE_NEWNET : 0
    plan.add(CLINUX_OP_NAMESPACES, "make namespaces", [.number(UInt64(namespaces | network))])
    join(cgroup, &plan)
    if case .path(let path) = config.network {
      plan.add(CLINUX_OP_SETNS, "join network namespace", [.number(UInt64(CLINUX_CLONE_NEWNET)), .text(path)])
    }
    plan.add(CLINUX_OP_STATE, "keep state", [.text(paths.state), .text(cgroup.oomFile)])
    plan.add(
      CLINUX_OP_LOG, "keep logs", [.text(paths.log), .number(UInt64(max(0, config.log.maxSize))), .number(UInt64(max(1, config.log.maxFiles)))])
    if config.openStdin { plan.add(CLINUX_OP_LISTEN, "keep stdin open", [.number(config.attachSeconds)]) }

    plan.add(CLINUX_OP_PRIVATE, "make mounts private")
    if let root = config.rootDirectory {
      plan.add(CLINUX_OP_ROOT, "use root \(root)", [.text(paths.root), .text(root), 0])
    } else {
      let lowers = config.layers.reversed().map { V.text($0) }
      plan.add(
        CLINUX_OP_OVERLAY, "mount the image's layers",
        [.text(paths.root), .text(paths.upper), .text(paths.work), .number(UInt64(lowers.count))] + lowers)
    }
    plan.add(CLINUX_OP_PROC, "mount proc on /proc")
    if let score = config.oomScoreAdj {
      plan.add(CLINUX_OP_OOM_SCORE, "set oom_score_adj \(score)", [.number(UInt64(min(1000, max(-1000, score)) + 1000))])
    }
    if config.network == .new { plan.add(CLINUX_OP_LOOPBACK_UP, "bring up the loopback") }
    var sysctls = config.sysctls
    if config.network != .host {
      // As Docker does: no capability is needed to bind a low port or to ping.
      sysctls["net.ipv4.ip_unprivileged_port_start"] = sysctls["net.ipv4.ip_unprivileged_port_start"] ?? "0"
      sysctls["net.ipv4.ping_group_range"] = sysctls["net.ipv4.ping_group_range"] ?? "0 2147483647"
    }
    for (name, value) in sysctls.sorted(by: { $0.key < $1.key }) {
      plan.add(CLINUX_OP_SYSCTL, "set sysctl \(name) to \(value)", [.text(String(name.map { $0 == "." ? "/" : $0 })), .text(value)])
    }
    func mount(_ type: String, _ target: String, _ flags: UInt64, _ data: String = "", plain: Bool = true) {
      plan.add(CLINUX_OP_MOUNT, "mount \(type) on /\(target)", [.text(type), .text(target), .number(flags), .text(data), .number(plain ? 1 : 0)])
    }
    for (type, target, flags, data) in kernelMounts(cgroup, shmSize: config.shmSize) { mount(type, target, flags, data) }
    if !cgroup.controllers.isEmpty { plan.add(CLINUX_OP_READONLY, "make /sys/fs/cgroup read-only", ["sys/fs/cgroup"]) }
    for (name, major, minor) in [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)] {
      plan.add(CLINUX_OP_DEVICE, "bind device /dev/\(name)", [.text(name), .number(UInt64(major)), .number(UInt64(minor))])
    }
    for (content, path) in [
      ("/proc/self/fd", "dev/fd"), ("/proc/self/fd/0", "dev/stdin"), ("/proc/self/fd/1", "dev/stdout"), ("/proc/self/fd/2", "dev/stderr"),
      ("pts/ptmx", "dev/ptmx"), ("/proc/kcore", "dev/core"),
    ] {
      plan.add(CLINUX_OP_SYMLINK, "link /\(path)", [.text(content), .text(path), 0])
    }
    // A mount below another comes after it, in whatever order they were given.
    let mounts = config.mounts.enumerated().sorted {
      let (a, b) = ($0.element.target.split(separator: "/").count, $1.element.target.split(separator: "/").count)
      return a == b ? $0.offset < $1.offset : a < b
    }
    for (_, item) in mounts {
      let target = normalized(item.target)
      switch item.kind {
      case .bind(let source, let subpath, let recursive):
        let flags = (item.readOnly ? CLINUX_BIND_READONLY : 0) | (recursive ? CLINUX_BIND_RECURSIVE : 0)
        let named = subpath.isEmpty ? source : "\(subpath) of \(source)"
        plan.add(CLINUX_OP_BIND, "bind \(named) to /\(target)", [.text(source), .text(target), .number(UInt64(flags)), .text(subpath)])
      case .tmpfs(let size, let mode, let isExecutable):
        let data = "mode=\(String(mode, radix: 8))" + (size.map { ",size=\($0)" } ?? "")
        // Docker's, whose `exec` undoes the last (moby volume/mounts, linux_parser.go).
        let flags = isExecutable ? safe & ~UInt64(CLINUX_MS_NOEXEC) : safe
        mount("tmpfs", target, flags | (item.readOnly ? UInt64(CLINUX_MS_RDONLY) : 0), data, plain: false)
      }
    }
    if !config.files.isEmpty {
      // Written to a tmpfs that is mounted for this alone, each bound to its target, then the tmpfs's own place is taken away: it lives as
      // long as the binds do.
      let folder = "dev/.files"
      // A page for each beyond its content, so that a small one fits.
      let size = config.files.reduce(64 << 10) { $0 + $1.content.count + 8192 }
      mount("tmpfs", folder, safe, "mode=700,size=\(size)")
      for (number, file) in config.files.enumerated() {
        let target = normalized(file.target)
        plan.add(
          CLINUX_OP_FILE, "make the file for /\(target)",
          [.text("\(folder)/\(number)"), .number(UInt64(file.uid)), .number(UInt64(file.gid)), .number(UInt64(file.mode)), .bytes(file.content)])
        plan.add(
          CLINUX_OP_BIND, "bind a file to /\(target)",
          [.text("\(paths.root)/\(folder)/\(number)"), .text(target), .number(UInt64(CLINUX_BIND_READONLY)), ""])
      }
      plan.add(CLINUX_OP_UNMOUNT, "take the files' folder away", [.text(folder)])
    }
    for path in masked { plan.add(CLINUX_OP_MASK, "mask \(path)", [.text(path)]) }
    for path in readOnly { plan.add(CLINUX_OP_READONLY, "make \(path) read-only", [.text(path)]) }
    plan.add(CLINUX_OP_HOSTNAME, "set hostname \(hostname(config))", [.text(hostname(config))])
    if let name = config.domainname { plan.add(CLINUX_OP_DOMAINNAME, "set domainname \(name)", [.text(name)]) }
    try add(stored.limits, &plan)
    plan.add(CLINUX_OP_PIVOT, "change the root")
    if config.tty { plan.add(CLINUX_OP_TTY, "make a terminal", [0, 0, 1]) }
    plan.add(CLINUX_OP_CWD, "enter working directory \(stored.cwd)", [.text(stored.cwd), 1])
    if config.readOnlyRoot { plan.add(CLINUX_OP_ROOT_READONLY, "make the root read-only") }
    try finish(&plan, stored: stored, args: config.args, env: stored.env, useInit: config.useInit)
    return plan
  }

  static func makeExec(_ exec: ExecConfig, stored: StoredContainer, cgroup: Cgroup) throws(RuntimeError) -> PlanWriter {
    var plan = PlanWriter()
    var stored = stored
    let kinds =
      CLINUX_CLONE_NEWNS | CLINUX_CLONE_NEWPID | CLINUX_CLONE_NEWIPC | CLINUX_CLONE_NEWUTS | CLINUX_CLONE_NEWNET | CLINUX_CLONE_NEWCGROUP
    plan.add(CLINUX_OP_JOIN, "enter the container", [.number(UInt64(kinds))])
    if let directory = cgroup.cloneDirectory { plan.add(CLINUX_OP_CGROUP, "join cgroup", [.text(directory)]) }
    for file in cgroup.presentJoinFiles { plan.add(CLINUX_OP_CGROUP_TASKS, "join cgroup", [.text(file)]) }
    if let score = stored.oomScoreAdj {
      plan.add(CLINUX_OP_OOM_SCORE, "set oom_score_adj \(score)", [.number(UInt64(min(1000, max(-1000, score)) + 1000))])
    }
    if exec.tty {
      plan.add(CLINUX_OP_TTY, "make a terminal", [.number(UInt64(exec.size?.rows ?? 0)), .number(UInt64(exec.size?.columns ?? 0)), 0])
    }
    let cwd = exec.cwd.flatMap { $0.isEmpty ? nil : $0 } ?? stored.cwd
    plan.add(CLINUX_OP_CWD, "enter working directory \(cwd)", [.text(cwd), 0])
    try add(stored.limits, &plan)
    if let user = exec.user, !user.isEmpty {
      stored.user = user
    }
    let given = Set(exec.env.map { String($0.prefix { $0 != "=" }) })
    var env = stored.env.filter { !given.contains(String($0.prefix { $0 != "=" })) } + exec.env
    if exec.tty, !env.contains(where: { $0.hasPrefix("TERM=") }) { env.append("TERM=xterm") }
    try finish(&plan, stored: stored, args: exec.args, env: env, useInit: false)
    return plan
  }

  private static func add(_ limits: [StoredContainer.Limit], _ plan: inout PlanWriter) throws(RuntimeError) {
    for limit in limits {
      let resource = clinux_rlimit(limit.name)
      guard resource >= 0 else { throw RuntimeError(.invalid, "set ulimit", limit.name, "no such limit") }
      plan.add(CLINUX_OP_RLIMIT, "set ulimit \(limit.name)", [.number(UInt64(resource)), .number(limit.soft), .number(limit.hard)])
    }
  }

  /// From here on it is the same for a container's first process and for every later one.
  private static func finish(
    _ plan: inout PlanWriter, stored: StoredContainer, args: [String], env: [String], useInit: Bool
  ) throws(RuntimeError) {
    typealias V = PlanWriter.Value
    let capabilities = CapabilitySet(rawValue: stored.capabilities)
    var filter: [UInt8] = []
    if !stored.unconfined {
      do { filter = try Seccomp.standard(for: capabilities).bytes } catch { throw RuntimeError("compile the seccomp profile", error) }
    }
    func seccomp() { if !filter.isEmpty { plan.add(CLINUX_OP_SECCOMP, "load the seccomp filter", [.bytes(filter), 0]) } }
    // Without no_new_privs loading needs CAP_SYS_ADMIN, which the next steps take away.
    if !stored.noNewPrivileges { seccomp() }
    plan.add(
      CLINUX_OP_USER, "become user \(stored.user.isEmpty ? "root" : stored.user)",
      [.text(stored.user), .number(UInt64(stored.groups.count))] + stored.groups.map(V.text))
    plan.add(
      CLINUX_OP_CAPABILITIES, "set capabilities", [.number(stored.capabilities), .number(stored.capabilities), .number(stored.capabilities), 0, 0])
    if stored.noNewPrivileges {
      plan.add(CLINUX_OP_NO_NEW_PRIVS, "set no_new_privs")
      seccomp()
    }
    if useInit { plan.add(CLINUX_OP_INIT, "stay as init") }
    plan.add(
      CLINUX_OP_EXEC, args[0], [.number(UInt64(args.count))] + args.map(V.text) + [.number(UInt64(env.count))] + env.map(V.text))
  }
}

extension StubPolicy.Kind {
  /// nil: one with a terminal or an open stdin is made from nothing; people wait for those.
  init?(_ config: ContainerConfig) {
    // On v1 a stub is in no cpuset.
    if config.tty || config.openStdin || config.resources.cpuset != nil { return nil }
    self = config.network == .new ? .ownNetwork : .givenNetwork
  }
}
