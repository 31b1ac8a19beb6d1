import CLinux
import Cgroups
import Launch
import LinuxSystem
import OCI
import Seccomp

/// From a checked configuration to the plan that CLinux carries out. The order is runc's (libcontainer, rootfs_linux.go and standard_init_linux.go).
enum BundlePlan {
  typealias Value = PlanWriter.Value
  /// Of the operations whose failure is the program's: errors say so.
  static let programName = "execute the program"

  struct Options: Hashable, Sendable {
    var noPivot = false
    var keepKeyring = false
    /// For each descriptor from 3 on whether there is one.
    var preserved: [Bool] = []
    /// For the message to a seccomp listener.
    var id = ""
    var bundle = ""
    /// Where compiled seccomp lists are kept.
    var programs: SeccompCache?
  }

  static func make(_ config: Config, rootfs: String, cgroup: Cgroup?, options: Options) throws(BundleError) -> PlanWriter {
    let process = config.process ?? ConfigProcess(args: [], cwd: "/")
    let linux = config.linux ?? Linux.empty
    var plan = PlanWriter()
    namespaces(linux, &plan)
    join(cgroup, &plan)
    plan.add(CLINUX_OP_DETACHED, "outlive the runtime", [.number(options.keepKeyring ? 1 : 0)])
    oomScore(process, &plan)
    let state = State(
      id: options.id, pid: 0, status: process.noNewPrivileges == true ? .created : .creating, bundle: options.bundle, annotations: config.annotations)
    listener(linux.seccomp, state, &plan)
    memoryPolicy(linux, &plan)
    let propagation = MountOptions.propagation(linux.rootfsPropagation)
    if !config.hasOwnMounts {
      // Others are in that namespace: nothing of theirs is changed.
    } else if propagation & UInt64(CLINUX_MS_SHARED) != 0 {
      plan.add(CLINUX_OP_KEEP_SHARED, "share mounts with the host", [.text(rootfs)])
    } else {
      // Nothing that is mounted here may reach the host.
      let first = propagation & UInt64(CLINUX_MS_PRIVATE) != 0 ? UInt64(CLINUX_MS_PRIVATE) : UInt64(CLINUX_MS_SLAVE)
      plan.add(CLINUX_OP_PROPAGATION, "keep mounts from the host", ["/", .number(first | UInt64(CLINUX_MS_REC))])
    }
    plan.add(CLINUX_OP_ROOT, "use root \(rootfs)", [.text(rootfs), .text(rootfs), 1])
    try mounts(config, cgroup: cgroup, &plan)
    try devices(config, &plan)
    hooks(config, &plan)
    for path in linux.maskedPaths ?? [] { plan.add(CLINUX_OP_MASK, "mask \(path)", [.text(path)]) }
    for path in linux.readonlyPaths ?? [] { plan.add(CLINUX_OP_READONLY, "make \(path) read-only", [.text(path)]) }
    for (name, value) in (linux.sysctl ?? [:]).sorted(by: { $0.key < $1.key }) {
      plan.add(CLINUX_OP_SYSCTL, "set sysctl \(name)", [.text(String(name.map { $0 == "." ? "/" : $0 })), .text(value)])
    }
    if !config.hasOwnMounts {
      plan.add(CLINUX_OP_CHROOT, "change the root", [0])
    } else if options.noPivot {
      plan.add(CLINUX_OP_MOVE_ROOT, "move the root")
    } else {
      plan.add(CLINUX_OP_PIVOT, "change the root")
    }
    if process.terminal == true { terminal(process, console: true, &plan) }
    if propagation != 0 { plan.add(CLINUX_OP_PROPAGATION, "set linux.rootfsPropagation", ["/", .number(propagation)]) }
    plan.add(CLINUX_OP_CWD, "chdir to working directory \(process.cwd)", [.text(process.cwd), 1])
    if config.root?.readonly == true { plan.add(CLINUX_OP_ROOT_READONLY, "make the root read-only") }
    if let name = config.hostname { plan.add(CLINUX_OP_HOSTNAME, "set hostname \(name)", [.text(name)]) }
    if let name = config.domainname { plan.add(CLINUX_OP_DOMAINNAME, "set domainname \(name)", [.text(name)]) }
    if linux.personality?.domain == "LINUX32" { plan.add(CLINUX_OP_PERSONALITY, "set the personality", [8]) }
    try self.process(
      process, linux, start: config.hooks ?? Config.Hooks.empty, preserved: options.preserved, waits: true, config.annotations ?? [:],
      options.programs, &plan)
    return try bounded(plan)
  }
  /// What the parent makes before the clone it holds all at once.
  private static func bounded(_ plan: PlanWriter) throws(BundleError) -> PlanWriter {
    guard plan.trees <= UInt64(CLINUX_TREES) else {
      throw BundleError("mounts: with a new user namespace at most \(CLINUX_TREES) bind mounts and device nodes are made; these are \(plan.trees)")
    }
    return plan
  }

  /// One more process in a running container: `process` is its own, the rest is the container's.
  static func makeExec(
    _ config: Config, _ process: ConfigProcess, cgroups: [Cgroup], root: String, preserved: [Bool], _ state: State, _ programs: SeccompCache? = nil
  ) throws(BundleError) -> PlanWriter {
    let linux = config.linux ?? Linux.empty
    var plan = PlanWriter()
    enter(linux, &plan)
    for cgroup in cgroups { join(cgroup, isThere: true, &plan) }
    plan.add(CLINUX_OP_DETACHED, "outlive the runtime", [1])
    if !config.hasOwnMounts {
      plan.add(CLINUX_OP_TREE_FOLDER, "open the container's root", [.text(root)])
      plan.add(CLINUX_OP_CHROOT, "change the root", [.number(plan.trees)])
    }
    oomScore(process, &plan)
    listener(linux.seccomp, state, &plan)
    memoryPolicy(linux, &plan)
    if let cpus = process.execCPUAffinity?.initial.flatMap({ BitList($0) })?.mask, !cpus.isEmpty {
      plan.add(CLINUX_OP_FIRST_CPUS, "set process.execCPUAffinity.initial", [.bytes(cpus)])
    }
    if let cpus = process.execCPUAffinity?.final.flatMap({ BitList($0) })?.mask, !cpus.isEmpty {
      plan.add(CLINUX_OP_CPUS, "set process.execCPUAffinity.final", [.bytes(cpus)])
    }
    if process.terminal == true { terminal(process, console: false, &plan) }
    plan.add(CLINUX_OP_CWD, "chdir to working directory \(process.cwd)", [.text(process.cwd), 0])
    if linux.personality?.domain == "LINUX32" { plan.add(CLINUX_OP_PERSONALITY, "set the personality", [8]) }
    try self.process(process, linux, start: Config.Hooks.empty, preserved: preserved, waits: false, config.annotations ?? [:], programs, &plan)
    return plan
  }

  /// Adds mounts to a running container, or takes them away, the last one first.
  static func makeMounts(_ config: Config, adding: Bool) throws(BundleError) -> PlanWriter {
    var plan = PlanWriter()
    enter(config.linux ?? Linux.empty, &plan)
    plan.add(CLINUX_OP_DETACHED, "outlive the runtime", [1])
    plan.add(CLINUX_OP_HERE, "open the root")
    if adding {
      try mounts(config, cgroup: nil, fromOutside: true, &plan)
    } else {
      for mount in (config.mounts ?? []).reversed() {
        let target = Self.target(mount)
        plan.add(CLINUX_OP_DETACH, "unmount /\(target)", [.text(target)])
      }
    }
    plan.add(CLINUX_OP_END, "end")
    return try bounded(plan)
  }
  private static func enter(_ linux: Linux, _ plan: inout PlanWriter) {
    let kinds = (linux.namespaces ?? []).reduce(UInt64(0)) { $0 | $1.type.flag }
    plan.add(CLINUX_OP_JOIN, "enter the container", [.number(kinds)])
  }

  /// As uid_map and gid_map read it (user_namespaces(7)).
  static func text(_ maps: [Config.IDMapping]?) -> String { (maps ?? []).map { "\($0.containerID) \($0.hostID) \($0.size)\n" }.joined() }
  private static func namespaces(_ linux: Linux, _ plan: inout PlanWriter) {
    var fresh: UInt64 = 0
    for namespace in linux.namespaces ?? [] {
      if let path = namespace.path, !path.isEmpty {
        plan.add(CLINUX_OP_SETNS, "join \(namespace.type.rawValue) namespace", [.number(namespace.type.flag), .text(path)])
      } else {
        fresh |= namespace.type.flag
      }
    }
    plan.add(CLINUX_OP_NAMESPACES, "make namespaces", [.number(fresh)])
    if fresh & Linux.Namespace.Kind.user.flag != 0 {
      plan.add(CLINUX_OP_ID_MAPS, "map ids", [.text(text(linux.uidMappings)), .text(text(linux.gidMappings))])
    }
    if let offsets = linux.timeOffsets, !offsets.isEmpty {
      let lines = offsets.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value.secs ?? 0) \($0.value.nanosecs ?? 0)\n" }
      plan.add(CLINUX_OP_TIME_OFFSETS, "move clocks", [.text(lines.joined())])
    }
    if fresh & Linux.Namespace.Kind.network.flag != 0 { plan.add(CLINUX_OP_LOOPBACK_UP, "bring up the loopback") }
  }
  /// runtime-spec, config-linux.md, "The Container Process State": written here but for the pid, which is known when the process is there.
  private static func listener(_ seccomp: Linux.Seccomp?, _ state: State, _ plan: inout PlanWriter) {
    guard let seccomp, let path = seccomp.listenerPath, !path.isEmpty else { return }
    struct Message: Encodable {
      var fds = ["seccompFd"]
      var metadata: String?
      var ociVersion = OCI.version
    }
    struct Unborn: Encodable {
      var annotations: [String: String]?
      var bundle: String
      var id: String
      var ociVersion: String
      var status: State.Status
    }
    let unborn = Unborn(annotations: state.annotations, bundle: state.bundle, id: state.id, ociVersion: state.ociVersion, status: state.status)
    func open(_ value: some Encodable) -> String { String(decoding: Document.write(value).dropLast(), as: UTF8.self) }
    plan.add(
      CLINUX_OP_LISTENER, "connect to the seccomp listener",
      [.text(path), .text(open(Message(metadata: seccomp.listenerMetadata)) + ",\"pid\":"), .text(",\"state\":" + open(unborn) + ",\"pid\":"), "}}"])
  }
  private static func memoryPolicy(_ linux: Linux, _ plan: inout PlanWriter) {
    guard let policy = linux.memoryPolicy else { return }
    plan.add(CLINUX_OP_MEMORY_POLICY, "set linux.memoryPolicy \(policy.mode)", [.number(policy.number), .bytes(policy.mask)])
  }
  private static func join(_ cgroup: Cgroup?, isThere: Bool = false, _ plan: inout PlanWriter) {
    guard let cgroup else { return }
    if let directory = cgroup.cloneDirectory { plan.add(CLINUX_OP_CGROUP, "join cgroup", [.text(directory)]) }
    for file in isThere ? cgroup.presentJoinFiles : cgroup.joinFiles { plan.add(CLINUX_OP_CGROUP_TASKS, "join cgroup", [.text(file)]) }
  }
  private static func oomScore(_ process: ConfigProcess, _ plan: inout PlanWriter) {
    guard let score = process.oomScoreAdj else { return }
    plan.add(CLINUX_OP_OOM_SCORE, "set oom_score_adj \(score)", [.number(UInt64(score + 1000))])
  }
  private static func terminal(_ process: ConfigProcess, console: Bool, _ plan: inout PlanWriter) {
    let size = process.consoleSize
    plan.add(
      CLINUX_OP_TTY, "make a terminal", [.number(UInt64(size?.height ?? 0)), .number(UInt64(size?.width ?? 0)), .number(console ? 1 : 0)])
  }

  /// createRuntime is run by us when the child asks; createContainer by the child, in its namespaces, before the root changes.
  private static func hooks(_ config: Config, _ plan: inout PlanWriter) {
    guard let hooks = config.hooks else { return }
    let before = (hooks.prestart ?? []) + (hooks.createRuntime ?? [])
    guard !before.isEmpty || !(hooks.createContainer ?? []).isEmpty else { return }
    plan.add(CLINUX_OP_HOOKS, "run createRuntime hooks")
    for hook in hooks.createContainer ?? [] { add(hook, "createContainer", environment: Hooks.environment(), &plan) }
  }
  static func add(_ hook: Config.Hook, _ kind: String, environment: [String] = [], _ plan: inout PlanWriter) {
    let (args, env) = (hook.args ?? [hook.path], hook.env ?? environment)
    plan.add(
      CLINUX_OP_HOOK, "run \(kind) hook \(hook.path)",
      [.text(hook.path), .number(UInt64(hook.timeout ?? 0)), .number(UInt64(args.count))] + args.map(Value.text) + [.number(UInt64(env.count))]
        + env.map(Value.text))
  }
}

extension Linux.Namespace.Kind {
  var flag: UInt64 {
    switch self {
    case .pid: UInt64(CLINUX_CLONE_NEWPID)
    case .network: UInt64(CLINUX_CLONE_NEWNET)
    case .mount: UInt64(CLINUX_CLONE_NEWNS)
    case .ipc: UInt64(CLINUX_CLONE_NEWIPC)
    case .uts: UInt64(CLINUX_CLONE_NEWUTS)
    case .user: UInt64(CLINUX_CLONE_NEWUSER)
    case .cgroup: UInt64(CLINUX_CLONE_NEWCGROUP)
    case .time: 0x80
    }
  }
}
