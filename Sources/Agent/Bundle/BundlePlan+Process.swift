import CLinux
import Cgroups
import Launch
import LinuxSystem
import OCI
import Seccomp

extension BundlePlan {
  /// From the resource limits to exec: the same for a container's first process and for every later one.
  static func process(
    _ process: ConfigProcess, _ linux: Linux, start hooks: Config.Hooks, preserved: [Bool], waits: Bool, _ annotations: [String: String],
    _ programs: SeccompCache?, _ plan: inout PlanWriter
  ) throws(BundleError) {
    for limit in process.rlimits ?? [] {
      let resource = clinux_rlimit(String(limit.type.dropFirst("RLIMIT_".count)).lowercased())
      guard resource >= 0 else { throw BundleError("process.rlimits: \"\(limit.type)\" is no resource limit") }
      plan.add(CLINUX_OP_RLIMIT, "set \(limit.type)", [.number(UInt64(resource)), .number(limit.soft), .number(limit.hard)])
    }
    // Before the user changes: some need CAP_SYS_NICE or CAP_SYS_ADMIN.
    if let priority = process.ioPriority { plan.add(CLINUX_OP_IO_PRIORITY, "set process.ioPriority", [.number(priority.value)]) }
    if let scheduler = process.scheduler {
      plan.add(
        CLINUX_OP_SCHEDULER, "set process.scheduler",
        [
          .number(scheduler.policyNumber), .number(scheduler.flagBits), .number(UInt64(bitPattern: Int64(scheduler.nice ?? 0))),
          .number(UInt64(scheduler.priority ?? 0)), .number(scheduler.runtime ?? 0), .number(scheduler.deadline ?? 0), .number(scheduler.period ?? 0),
        ])
    }
    var filter: (bytes: [UInt8], flags: UInt64)?
    if let seccomp = linux.seccomp { filter = try Filters.compile(seccomp, strict: annotations[Annotations.failUnknownSyscall] == "1", programs) }
    func load(_ plan: inout PlanWriter) {
      if let filter { plan.add(CLINUX_OP_SECCOMP, "load the seccomp filter", [.bytes(filter.bytes), .number(filter.flags)]) }
    }
    try Labels.add(process, &plan)
    let confined = process.noNewPrivileges == true
    let user = process.user ?? ConfigProcess.User(uid: 0, gid: 0)
    plan.add(CLINUX_OP_HOME, "look up the home of user \(user.uid)", [.number(UInt64(user.uid))])
    // Without no_new_privs loading needs CAP_SYS_ADMIN, which the next steps take away.
    if !confined { load(&plan) }
    let keeps = annotations[Annotations.keepGroups] != nil
    let groups = keeps ? [] : user.additionalGids ?? []
    plan.add(
      CLINUX_OP_IDS, "become user \(user.uid):\(user.gid)",
      [.number(UInt64(user.uid)), .number(UInt64(user.gid)), .number(keeps ? .max : UInt64(groups.count))] + groups.map { .number(UInt64($0)) })
    capabilities(process.capabilities, &plan)
    plan.add(CLINUX_OP_UMASK, "set the umask", [.number(UInt64(user.umask ?? 0o022))])
    if confined { plan.add(CLINUX_OP_NO_NEW_PRIVS, "set no_new_privs") }
    if !preserved.isEmpty {
      plan.add(CLINUX_OP_PRESERVE, "keep descriptors", [.number(UInt64(preserved.count))] + preserved.map { .number($0 ? 1 : 0) })
    }
    let (args, env) = (process.args ?? [], process.env ?? [])
    let path = env.last { $0.hasPrefix("PATH=") }.map { String($0.dropFirst(5)) } ?? ""
    guard !args.isEmpty else {
      // No process is configured: it waits for what never comes.
      plan.add(CLINUX_OP_WAIT, "wait for start")
      plan.add(CLINUX_OP_END, "end")
      return
    }
    plan.add(CLINUX_OP_LOOKUP, programName, [.text(args.first ?? ""), .text(path)])
    if waits { plan.add(CLINUX_OP_WAIT, "wait for start") }
    for hook in hooks.startContainer ?? [] { add(hook, "startContainer", &plan) }
    if hooks.startContainer?.isEmpty == false { plan.add(CLINUX_OP_HOOKS_DONE, "tell that startContainer hooks have ended") }
    if confined { load(&plan) }
    plan.add(
      CLINUX_OP_EXEC, programName,
      [.number(UInt64(args.count))] + args.map(Value.text) + [.number(UInt64(env.count))] + env.map(Value.text))
  }

  /// Names that nobody knows are left out with a warning, and so is what cannot be granted, as the specification asks.
  private static func capabilities(_ sets: ConfigProcess.Capabilities?, _ plan: inout PlanWriter) {
    var unknown: [String] = []
    var lost: [String] = []
    func mask(_ set: String, _ names: [String]?, within limit: CapabilitySet, _ why: String) -> CapabilitySet {
      var sum = CapabilitySet(rawValue: 0)
      for name in names ?? [] {
        if name.hasPrefix("CAP_"), let one = CapabilitySet(name: name) {
          sum = sum.union(one)
        } else if !unknown.contains(name) {
          unknown.append(name)
        }
      }
      let rest = sum.subtracting(limit).names
      if !rest.isEmpty { lost.append("\(set) \(rest.joined(separator: ", ")) (\(why))") }
      return sum.intersection(limit)
    }
    let own = "not in orch-runtime's bounding set"
    let bounding = mask("bounding", sets?.bounding, within: .bounding, own)
    let permitted = mask("permitted", sets?.permitted, within: .bounding, own)
    let effective = mask("effective", sets?.effective, within: permitted, "not permitted")
    let inheritable = mask("inheritable", sets?.inheritable, within: .bounding, own)
    // capabilities(7)
    let ambient = mask("ambient", sets?.ambient, within: permitted.intersection(inheritable), "not both permitted and inheritable")
    if !unknown.isEmpty { plan.warnings.append("process.capabilities: unknown, left out: \(unknown.joined(separator: ", "))") }
    if !lost.isEmpty { plan.warnings.append("process.capabilities: cannot be granted, left out: \(lost.joined(separator: "; "))") }
    plan.add(
      CLINUX_OP_CAPABILITIES, "set capabilities", [bounding, effective, permitted, inheritable, ambient].map { .number($0.rawValue) })
  }
}

enum Filters {
  /// `strict`: a name that libseccomp does not know is an error, not passed over.
  static func compile(
    _ seccomp: Linux.Seccomp, strict: Bool = false, _ programs: SeccompCache? = nil
  ) throws(BundleError) -> (bytes: [UInt8], flags: UInt64) {
    func action(_ name: String, _ errno: UInt32?, _ path: String) throws(BundleError) -> UInt32 {
      guard let base = SeccompNames.actions[name] else { throw BundleError("linux.seccomp.\(path): unknown action \"\(name)\"") }
      let carries = name == "SCMP_ACT_ERRNO" || name == "SCMP_ACT_TRACE"
      if errno != nil, !carries { throw BundleError("linux.seccomp.\(path): \(name) takes no errno") }
      // EPERM, as the specification says.
      return carries ? base | (errno ?? 1) & 0xffff : base
    }
    var rules: [SeccompFilter.Rule] = []
    for (index, rule) in (seccomp.syscalls ?? []).enumerated() {
      if strict, let name = rule.names.first(where: { !Seccomp.knows($0) }) {
        throw BundleError("linux.seccomp.syscalls[\(index)].names: unknown system call \"\(name)\"")
      }
      var conditions: [SeccompFilter.Condition] = []
      for argument in rule.args ?? [] {
        guard let comparison = SeccompNames.operators[argument.op] else {
          throw BundleError("linux.seccomp.syscalls[\(index)].args: unknown operator \"\(argument.op)\"")
        }
        guard argument.index < 6 else { throw BundleError("linux.seccomp.syscalls[\(index)].args: index \(argument.index) is above 5") }
        let masked = argument.op == "SCMP_CMP_MASKED_EQ"
        conditions.append(
          SeccompFilter.Condition(argument: argument.index, comparison: comparison, a: argument.value, b: masked ? argument.valueTwo ?? 0 : 0))
      }
      rules.append(
        SeccompFilter.Rule(names: rule.names, action: try action(rule.action, rule.errnoRet, "syscalls[\(index)].action"), conditions: conditions))
    }
    var architectures: [UInt32] = []
    for name in seccomp.architectures ?? [] {
      guard let number = SeccompNames.architectures[name] else { throw BundleError("linux.seccomp.architectures: unknown architecture \"\(name)\"") }
      architectures.append(number)
    }
    var flags: UInt64 = 0
    for name in seccomp.flags ?? [] {
      guard let flag = SeccompNames.flags[name] else { throw BundleError("linux.seccomp.flags: \"\(name)\" is not supported") }
      // The process has one thread; TSYNC would change what the system call answers.
      if flag != 1 { flags |= UInt64(flag) }
    }
    let filter = SeccompFilter(
      defaultAction: try action(seccomp.defaultAction, seccomp.defaultErrnoRet, "defaultAction"), architectures: architectures, rules: rules)
    do throws(SystemError) {
      let program = if let programs { try programs.program(filter) } else { try Seccomp.compile(filter) }
      return (program.bytes, flags)
    } catch { throw BundleError("linux.seccomp", error) }
  }
}
