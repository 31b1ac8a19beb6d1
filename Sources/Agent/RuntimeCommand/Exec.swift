import ArgumentParser
import Bundle
import Glibc
import LinuxSystem
import OCI

struct Exec: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "exec", abstract: "Run one more program in a running container.")
  @ParentCommand var parent: OrchRuntime
  @Option(name: .customLong("console-socket"), help: "Send the terminal's master to this Unix socket.") var consoleSocket: String?
  @Option(name: .customLong("pidfd-socket"), help: "Send a pidfd of the process to this Unix socket.") var pidfdSocket: String?
  @Option(help: "Working directory in the container.") var cwd: String?
  @Option(name: .shortAndLong, help: "NAME=VALUE; may be repeated.") var env: [String] = []
  @Flag(name: .shortAndLong, help: "With a terminal.") var tty = false
  @Option(name: .shortAndLong, help: "UID[:GID].") var user: String?
  @Option(name: [.short, .customLong("additional-gids")], help: "One more group; may be repeated.") var groups: [UInt32] = []
  @Option(name: .shortAndLong, help: "A file with the process as JSON, in the shape of config.json's process.") var process: String?
  @Flag(name: .shortAndLong, help: "Return when it is started.") var detach = false
  @Option(name: .customLong("pid-file"), help: "Write the process id to this file.") var pidFile: String?
  @Flag(name: .customLong("no-new-privs"), help: "Set no_new_privs.") var noNewPrivs = false
  @Option(name: .shortAndLong, help: "One more capability; may be repeated.") var cap: [String] = []
  @Option(name: .customLong("preserve-fds"), help: "Keep this many descriptors beside stdio.") var preserve = 0
  @Option(help: ArgumentHelp("A cgroup below the container's own; on v1 of some controllers, may be repeated.", valueName: "[controller,…:]path"))
  var cgroup: [String] = []
  @Flag(name: .customLong("ignore-paused"), help: "Also in a paused container; it then waits.") var ignorePaused = false
  @Option(name: .customLong("apparmor"), help: "AppArmor profile.") var apparmor: String?
  @Option(name: .customLong("process-label"), help: "SELinux label.") var label: String?
  @Argument var id: String
  @Argument(parsing: .captureForPassthrough, help: "The program and its arguments.") var command: [String] = []

  func run() throws {
    // runc and crun answer 255 where nothing could be executed.
    let created: Bundles.Created
    if !detach { Foreground.holdSignals() }
    do throws(BundleError) { created = try execute() } catch {
      throw BundleError(error.description, exitCode: error.exitCode == 1 ? 255 : error.exitCode)
    }
    for warning in created.warnings { Log.warning(warning) }
    if !detach { throw ExitCode(Foreground.wait(for: created)) }
  }

  private func execute() throws(BundleError) -> Bundles.Created {
    let bundles = parent.bundles()
    var wanted: ConfigProcess
    if let process {
      wanted = try Self.read(process)
    } else {
      wanted = try bundles.process(of: id)
      let args = command + OrchRuntime.program
      guard !args.isEmpty else { throw BundleError("exec: a program is required") }
      wanted.args = args
    }
    if let cwd { wanted.cwd = cwd }
    let replaced = Set(env.map { $0.prefix { $0 != "=" } })
    wanted.env = (wanted.env ?? []).filter { !replaced.contains($0.prefix { $0 != "=" }) } + env
    if tty { wanted.terminal = true }
    if noNewPrivs { wanted.noNewPrivileges = true }
    if let apparmor { wanted.apparmorProfile = apparmor }
    if let label { wanted.selinuxLabel = label }
    if let user { try setUser(user, &wanted) }
    if !groups.isEmpty {
      let own = wanted.user?.additionalGids ?? []
      wanted.user?.additionalGids = own + groups
    }
    if !cap.isEmpty {
      var sets = wanted.capabilities ?? .none
      // As runc: into every set that can hold it without being handed on.
      sets.bounding = (sets.bounding ?? []) + cap
      sets.effective = (sets.effective ?? []) + cap
      sets.permitted = (sets.permitted ?? []) + cap
      wanted.capabilities = sets
    }
    if wanted.terminal == true, detach, consoleSocket == nil {
      throw BundleError("cannot allocate a terminal for a detached process without --console-socket")
    }
    var options = Bundles.ExecOptions()
    (options.pidFile, options.consoleSocket, options.preserved, options.ignorePaused) = (
      pidFile, consoleSocket, Inherited.descriptors(preserve), ignorePaused
    )
    (options.cgroups, options.pidfdSocket) = (cgroup, pidfdSocket)
    return try bundles.exec(id, wanted, options)
  }

  private func setUser(_ text: String, _ process: inout ConfigProcess) throws(BundleError) {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count <= 2, let uid = UInt32(parts[0]), uid != .max, let gid = parts.count == 2 ? UInt32(parts[1]) : process.user?.gid ?? 0,
      gid != .max
    else {
      throw BundleError("--user \(text): UID[:GID], both as numbers")
    }
    let groups = process.user?.additionalGids
    process.user = ConfigProcess.User(uid: uid, gid: gid)
    process.user?.additionalGids = groups
  }

  private static func read(_ path: String) throws(BundleError) -> ConfigProcess {
    do {
      return try Document.read(ConfigProcess.self, Files.read(path))
    } catch { throw BundleError("--process \(path): \(error)") }
  }
}
