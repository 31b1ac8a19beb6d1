import CLinux
import Cgroups
import Glibc
import Launch
import LinuxSystem
import OCI

extension Bundles {
  public struct ExecOptions: Hashable, Sendable {
    public var pidFile: String?
    public var consoleSocket: String?
    public var pidfdSocket: String?
    public var preserved: [Int32?] = []
    public var ignorePaused = false
    /// As `exec --cgroup` has them: PATH, a group below the container's own; on v1 also CONTROLLER[,CONTROLLER]:PATH. Each must be there.
    public var cgroups: [String] = []
    public init() {}
  }

  /// What a process that names nothing else gets: the container's own.
  public func process(of id: String) throws(BundleError) -> ConfigProcess {
    let config = try BundleFolder.open(root: root, id, locked: false).config()
    guard var process = config.process else { throw BundleError("the container has no process") }
    (process.terminal, process.consoleSize) = (nil, nil)
    return process
  }

  /// Runs one more process in a running container; it is a child of this process. The folder is not held while it runs.
  public func exec(_ id: String, _ process: ConfigProcess, _ options: ExecOptions) throws(BundleError) -> Created {
    let folder = try BundleFolder.open(root: root, id)
    let stored = try folder.stored()
    switch status(stored, folder) {
    case .running, .created: break
    case .paused: if !options.ignorePaused { throw BundleError("cannot exec in a paused container (use --ignore-paused to override)") }
    case .stopped, .creating: throw BundleError("cannot exec in a stopped container")
    }
    do throws(OCIError) { try process.check("process") } catch { throw BundleError("exec", error) }
    guard let first = self.process(stored) else { throw BundleError("cannot exec in a stopped container") }
    // By a descriptor of the very process, whatever becomes of its number.
    let root: OwnedDescriptor
    do throws(SystemError) {
      root = try OwnedDescriptor.open("/proc/\(stored.pid)/root", Int32(CLINUX_O_PATH) | O_DIRECTORY)
    } catch { throw BundleError("exec failed", error) }
    if first.hasEnded { throw BundleError("cannot exec in a stopped container") }
    let plan = try BundlePlan.makeExec(
      folder.config(), process, cgroups: execCgroups(stored, options.cgroups), root: "/proc/\(getpid())/fd/\(root.rawValue)",
      preserved: options.preserved.map { $0 != nil },
      State(id: id, pid: 0, status: .running, bundle: stored.bundle, annotations: stored.annotations), programs)
    // As with `start`: till the program is executed others must reach the container.
    folder.unlock()
    let launched: Launcher.Launched
    do {
      launched = try Launcher(initPath: initPath).launch(
        plan, name: id, stdio: (0, 1, 2), fifth: first.rawValue, kept: options.preserved)
    } catch let failure as Launcher.Failure {
      throw BundleError("exec failed", failure, plan.names, program: process.args?.first ?? "")
    } catch { throw (error as? SystemError).map { BundleError("exec failed", $0) } ?? BundleError("exec failed: \(error)") }
    ChildProcess.reap(launched.monitor)
    do throws(BundleError) { try tell(of: launched, options) } catch {
      // Nobody knows of it: whoever is told that there is none would run it a second time. Not reaped yet, its number is its own.
      Glibc.kill(launched.pid, SIGKILL)
      ChildProcess.reap(launched.pid)
      if let terminal = launched.terminal { close(terminal) }
      throw error
    }
    if options.consoleSocket != nil, let terminal = launched.terminal { close(terminal) }
    return Created(
      identity: ProcessIdentity(pid: launched.pid, startTime: launched.startTime),
      terminal: options.consoleSocket == nil ? launched.terminal : nil, warnings: plan.warnings + launched.warnings)
  }

  private func tell(of launched: Launcher.Launched, _ options: ExecOptions) throws(BundleError) {
    if let path = options.consoleSocket, let terminal = launched.terminal {
      do throws(SystemError) { try StartSocket.send(terminal, toConsole: path) } catch { throw BundleError("exec failed", error) }
    }
    if let path = options.pidFile { try Self.writePid(path, launched.pid) }
    if let path = options.pidfdSocket { try Self.sendPidDescriptor(of: launched.pid, to: path) }
  }

  /// runc's forms of `--cgroup` (exec.go, getSubCgroupPaths; libcontainer, newSetnsProcess): a hierarchy that none names is joined where the container
  /// is. On v2 a colon is part of the path, as crun has it: there is one tree for all controllers.
  private func execCgroups(_ stored: StoredBundle, _ places: [String]) throws(BundleError) -> [Cgroup] {
    let own = try cgroup(stored)
    guard let first = places.first else { return own.map { [$0.place(beside: stored.pid)] } ?? [] }
    guard let own else { throw BundleError("exec: --cgroup \(first): the container has no cgroup of its own") }
    var groups: [Cgroup] = []
    var rest = own
    var taken: Set<String> = []
    for place in places {
      let colon = own.isV2 ? nil : place.firstIndex(of: ":")
      if colon == nil, places.count > 1 {
        throw BundleError("exec: --cgroup \(place): one of several needs its controllers: CONTROLLER[,CONTROLLER]:PATH")
      }
      let path = colon.map { place[place.index(after: $0)...] } ?? place[...]
      let names = path.split(separator: "/").filter { $0 != "." }
      if names.contains("..") { throw BundleError("exec: --cgroup \(place): \"\(path)\" is not a sub cgroup path: it must not contain \"..\"") }
      if let colon {
        let controllers = place[..<colon].split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        for controller in controllers {
          guard own.path(controller: controller) != nil else {
            throw BundleError("exec: --cgroup \(place): unknown controller \"\(controller)\": the container is in no hierarchy of it")
          }
          guard taken.insert(controller).inserted, rest.path(controller: controller) != nil else {
            throw BundleError("exec: --cgroup \(place): \(controller) has a place already")
          }
        }
        let (these, others) = rest.split(controllers)
        rest = others
        groups.append(names.reduce(these) { $0.below(String($1)) })
      } else {
        groups.append(names.reduce(own) { $0.below(String($1)) })
      }
      if let missing = groups.last?.missing {
        throw BundleError("exec: --cgroup \(place): \(missing): no such file or directory: the container makes its groups itself")
      }
    }
    return taken.isEmpty ? groups : [rest] + groups
  }

  /// Changes the limits of a container in place; fields that are absent stay. So do devices: containerd hands over all of linux.resources, and
  /// runc leaves them as they are.
  /// - Returns: warnings.
  public func update(_ id: String, _ resources: Resources) throws(BundleError) -> [String] {
    do throws(OCIError) { try resources.check() } catch { throw BundleError("update", error) }
    let folder = try BundleFolder.open(root: root, id)
    var stored = try folder.stored()
    if status(stored, folder) == .stopped { throw BundleError("container not running") }
    guard var group = try cgroup(stored) else { throw BundleError("cannot update a container without a cgroup") }
    let cpuMax = group.isV2 ? group.read(controller: "cpu", file: "cpu.max") : nil
    let writes = try ResourceWrites(resources, v2: group.isV2, isUpdate: true, cpuMax: cpuMax ?? "max")
    let missing = writes.controllers.filter { group.path(controller: $0) == nil }
    if !missing.isEmpty {
      // v1: it was made without them; its processes join the hierarchies now.
      stored.controllers += missing
      guard let wider = try cgroup(stored), missing.allSatisfy({ wider.path(controller: $0) != nil }) else {
        throw BundleError("update: this host has no cgroup hierarchy for \(missing.joined(separator: ", "))")
      }
      let processes = group.processes()
      group = wider
      do throws(SystemError) {
        try group.create(CgroupLimits())
        if missing.contains("cpuset") { try group.inheritCpuset() }
        for controller in missing { try group.join(controller: controller, processes) }
      } catch { throw BundleError("update", error) }
      try folder.save(stored)
    }
    try writes.apply(to: group)
    guard let devices = resources.devices, try devices != folder.config().linux?.resources?.devices else { return [] }
    return ["update: devices cannot be changed, they stay as they are"]
  }
}
