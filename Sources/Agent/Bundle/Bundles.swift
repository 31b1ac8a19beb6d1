// Bundle: OCI containers for callers that are commands: each finds the containers again in files and the kernel, does one thing and ends.
// Invariants: what changes a container holds its folder's lock, but not while hooks run; a container's process is a child of whoever ran the command's process, as
// conmon and containerd's shim expect; after a failed create nothing is left. It refuses to know command lines.
import CLinux
import Cgroups
import FoundationEssentials
import Glibc
import Launch
import LinuxSystem
import OCI
import Seccomp

/// All containers below one root folder.
public struct Bundles: Sendable {
  public let root: String
  let initPath: String
  let cgroupManager: CgroupManager

  public enum CgroupManager: String, CaseIterable, Sendable {
    /// Made by us, where `linux.cgroupsPath` says.
    case cgroupfs
    /// In a scope that systemd makes (`SystemdScope`).
    case systemd
    /// None: containers stay in the caller's cgroups and resources are refused.
    case disabled
  }

  /// `root`: on a tmpfs; made with mode 0700. `initPath`: the executable orch-init.
  public init(root: String, initPath: String, cgroupManager: CgroupManager = .cgroupfs) {
    self.root = root
    self.initPath = initPath
    self.cgroupManager = cgroupManager
  }

  public struct CreateOptions: Hashable, Sendable {
    public var pidFile: String?
    public var consoleSocket: String?
    public var pidfdSocket: String?
    public var noPivot = false
    public var noNewKeyring = false
    /// Of this process, for the container's descriptors from 3 on; nil: none at that place.
    public var preserved: [Int32?] = []
    /// The terminal is handed back by `create` instead of to a socket.
    public var returnsTerminal = false
    public init() {}
  }
  public struct Created: Sendable {
    /// A child of this process.
    public var identity: ProcessIdentity
    public var pid: Int32 { identity.pid }
    public var terminal: Int32?
    public var warnings: [String]
  }

  static let operations = "operations"
  var programs: SeccompCache { SeccompCache(below: root) }

  /// A new user namespace without maps: crun maps who runs it; runc refuses. Whether that is the case.
  static func mapCaller(_ config: inout Config) -> Bool {
    guard let namespace = config.namespace(.user), (namespace.path ?? "").isEmpty, (config.linux?.uidMappings ?? []).isEmpty else { return false }
    config.linux?.uidMappings = [Config.IDMapping(containerID: 0, hostID: geteuid(), size: 1)]
    config.linux?.gidMappings = [Config.IDMapping(containerID: 0, hostID: getegid(), size: 1)]
    return true
  }

  /// Makes a container whose first process waits for `start`. `bundle` is an absolute path.
  public func create(_ id: String, bundle: String, configFile: String = "config.json", _ options: CreateOptions) throws(BundleError) -> Created {
    try BundleFolder.checkID(id)
    guard geteuid() == 0 else {
      throw BundleError(
        "create container: permission denied: orch-runtime needs root, on the host or in a user namespace, as in: unshare --user --map-root-user --mount orch-runtime …"
      )
    }
    let file = configFile.hasPrefix("/") ? configFile : "\(bundle)/\(configFile)"
    let document = try BundleFolder.readBytes(file)
    var config = try BundleFolder.config(document, file)
    if config.process?.terminal == true, options.consoleSocket == nil, !options.returnsTerminal {
      throw BundleError("cannot allocate a terminal for a detached container without --console-socket")
    }
    if config.process?.terminal != true, options.consoleSocket != nil {
      throw BundleError("--console-socket is given, but process.terminal is not true")
    }
    let rootPath = config.root?.path ?? ""
    guard let rootfs = realpath(rootPath.hasPrefix("/") ? rootPath : "\(bundle)/\(rootPath)", nil) else {
      throw BundleError("root.path: \(rootPath): \(Errno.current.message.lowercased())")
    }
    defer { free(rootfs) }
    Self.listenDescriptors(&config)
    let unmapped = Self.mapCaller(&config)
    var stored = StoredBundle(
      id: id, bundle: bundle, rootfs: String(cString: rootfs), created: Self.now(), owner: "root", annotations: config.annotations,
      program: config.process?.args?.first ?? "", poststart: config.hooks?.poststart, poststop: config.hooks?.poststop)
    if config.hooks?.startContainer?.isEmpty == false { stored.hasStartHooks = true }
    if !config.has(.mount) { stored.rootMount = Self.mountID(stored.rootfs) }
    let folder = try BundleFolder.make(root: root, id)
    var group: Cgroup?
    var isLaunched = false
    do throws(BundleError) {
      let scope = cgroupManager == .systemd ? try SystemdScope(config, id).start() : nil
      defer { scope?.release() }
      group = try makeCgroup(config, id, scope?.cgroup, &stored)
      try folder.save(stored)
      do throws(SystemError) { try Files.writeAtomically(folder.path + "/config.json", document, durable: false) } catch {
        throw BundleError("keep the configuration", error)
      }
      isLaunched = true
      var created = try launch(config, folder, &stored, group, options)
      if unmapped { created.warnings.append("linux.uidMappings: absent, so that the new user namespace has the caller's user alone, as its root") }
      return created
    } catch {
      // Deleted meanwhile by another command, with all that was its own.
      guard folder.isThere else { throw error }
      try? process(stored)?.send(SIGKILL)
      if group != nil, let now = try? cgroup(stored) { group = now }
      group?.killAll()
      if let group { try? Self.remove(group) }
      Self.unmountRoot(stored)
      try? folder.remove()
      folder.unlock()
      // Lifecycle, steps 12 and 13: what the hooks before set up is taken down. As with runc, whether or not it came to them.
      let warnings = isLaunched ? Self.runPoststop(stored) : []
      throw BundleError(([error.description] + warnings).joined(separator: "; "), exitCode: error.exitCode)
    }
  }

  private func launch(
    _ config: Config, _ folder: borrowing BundleFolder, _ stored: inout StoredBundle, _ group: Cgroup?, _ options: CreateOptions
  ) throws(BundleError) -> Created {
    var plan = try BundlePlan.make(
      config, rootfs: stored.rootfs, cgroup: group,
      options: BundlePlan.Options(
        noPivot: options.noPivot, keepKeyring: options.noNewKeyring, preserved: options.preserved.map { $0 != nil }, id: stored.id,
        bundle: stored.bundle, programs: programs))
    if config.linux?.mountLabel?.isEmpty == false, !Labels.hasSELinux {
      plan.warnings.append("linux.mountLabel: this kernel runs without SELinux, nothing is labelled")
    }
    // For `start`, which learns of a failure by the operation's number.
    try? Files.writeAtomically(
      "\(folder.path)/\(Self.operations)", plan.names.map { $0.replacing("\n", with: " ") }.joined(separator: "\n"), durable: false)
    var state = State(id: stored.id, pid: 0, status: .creating, bundle: stored.bundle, annotations: stored.annotations)
    var isHeld = true
    let outcome: Result<Launcher.Launched, any Error>
    do {
      let launcher = try Launcher(initPath: initPath)
      let listener = try StartSocket.listen(in: folder.lock.rawValue)
      outcome = .success(
        try launcher.launch(
          plan, name: stored.id, stdio: (0, 1, 2), fifth: listener.rawValue, kept: options.preserved,
          hooks: { pid in
            state.pid = pid
            (stored.pid, stored.startTime, stored.isBeingMade) = (pid, ProcessIdentity.of(pid)?.startTime ?? 0, true)
            try folder.save(stored)
            folder.unlock()
            isHeld = false
            try Hooks.run(config.hooks?.prestart, "prestart", state)
            try Hooks.run(config.hooks?.createRuntime, "createRuntime", state)
            return try Hooks.input(state)
          }))
    } catch { outcome = .failure(error) }
    if !isHeld {
      // Now that createContainer hooks have ended, too. What other commands changed stays (`update`).
      try folder.relock(after: "its hooks ran")
      stored = try folder.stored()
      stored.isBeingMade = nil
    }
    let launched: Launcher.Launched
    do { launched = try outcome.get() } catch let failure as Launcher.Failure {
      throw BundleError("create container", failure, plan.names, program: stored.program)
    } catch {
      throw (error as? BundleError) ?? (error as? SystemError).map { BundleError("create container", $0) }
        ?? BundleError("create container: \(error)")
    }
    ChildProcess.reap(launched.monitor)
    stored.pid = launched.pid
    stored.startTime = ProcessIdentity.of(launched.pid)?.startTime ?? 0
    try folder.save(stored)
    if let path = options.consoleSocket {
      guard let terminal = launched.terminal else { throw BundleError("create container: no terminal was made") }
      defer { close(terminal) }
      do throws(SystemError) { try StartSocket.send(terminal, toConsole: path) } catch { throw BundleError("create container", error) }
    }
    if let path = options.pidFile { try Self.writePid(path, launched.pid) }
    if let path = options.pidfdSocket { try Self.sendPidDescriptor(of: launched.pid, to: path) }
    return Created(
      identity: stored.identity, terminal: options.consoleSocket == nil ? launched.terminal : nil, warnings: plan.warnings + launched.warnings)
  }

  /// Lets the first process of a created container go on; returns when its program has been executed.
  public func start(_ id: String) throws(BundleError) -> [String] {
    let folder = try BundleFolder.open(root: root, id)
    let stored = try folder.stored()
    switch status(stored, folder) {
    case .created: break
    case .stopped: throw BundleError("cannot start a container that has stopped")
    case .creating: throw BundleError("cannot start a container that is not created yet")
    case .paused: throw BundleError("cannot start a paused container: resume it first")
    case .running: throw BundleError("cannot start an already running container")
    }
    if folder.isBeingStarted { throw BundleError("cannot start a container that is being started") }
    if stored.program.isEmpty { throw BundleError("cannot start a container without a process: config.json has no \"process\"") }
    var state = State(id: id, pid: stored.pid, status: .created, bundle: stored.bundle, annotations: stored.annotations)
    var failure: BundleError?
    // Without hooks the end of the connection is exec; with them, of the whole process, too.
    var hooksHaveEnded = stored.hasStartHooks != true
    do throws(SystemError) {
      let connection = try StartSocket.connect(in: folder.lock.rawValue)
      let input = try Hooks.input(state)
      try folder.beginStart()
      try checkResult(clinux_send_fd(connection.rawValue, "s", 1, input.rawValue), "start", id)
      // Hooks take their time, and so may exec: of a program on a file server that hangs, or where a seccomp listener is asked first.
      folder.unlock()
      var record = clinux_report()
      var descriptor: Int32 = -1
      while withUnsafeMutableBytes(of: &record, { clinux_receive_fd(connection.rawValue, $0.baseAddress, $0.count, &descriptor) }) > 0 {
        if Int(record.kind) == CLINUX_REPORT_READY { hooksHaveEnded = true }
        guard Int(record.kind) == CLINUX_REPORT_FAILED else { continue }
        let step = withUnsafeBytes(of: record.text) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        failure = BundleError(
          "start container", Launcher.Failure(index: Int(record.index), step: step, errno: Errno(record.error)),
          (try? Files.text(folder.path + "/" + Self.operations).split(separator: "\n").map(String.init)) ?? [],
          program: stored.program)
      }
    } catch {
      if error.errno == Errno(ECONNREFUSED) { throw BundleError("cannot start a container that has stopped") }
      throw BundleError("start container", error)
    }
    try folder.relock(after: stored.hasStartHooks == true ? "its hooks ran" : "it was being started")
    folder.endStart()
    if let failure { throw failure }
    if !hooksHaveEnded {
      // Its descriptors are closed a moment before it has ended, and it is then that `state` and `delete` may be asked.
      process(stored)?.ends(within: 10_000)
      throw BundleError("start container: its first process was killed while startContainer hooks ran")
    }
    state.status = .running
    folder.unlock()
    do throws(BundleError) { try Hooks.run(stored.poststart, "poststart", state) } catch {
      // An error, and the end of the container (runtime-spec 1.2.1, runtime.md, "Lifecycle", step 9).
      let warnings = (try? delete(id, force: true, only: stored.identity)) ?? []
      throw BundleError(([error.description] + warnings).joined(separator: "; "))
    }
    return []
  }
}
