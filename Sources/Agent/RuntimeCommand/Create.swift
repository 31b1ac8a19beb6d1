import ArgumentParser
import Bundle
import Glibc
import LinuxSystem

/// What `create` and `run` share.
struct CreateArguments: ParsableArguments {
  @Option(name: .shortAndLong, help: "The folder with config.json.") var bundle = "."
  @Option(name: [.short, .customLong("config")], help: "Another name for config.json.") var file = "config.json"
  @Option(name: .customLong("pid-file"), help: "Write the process id to this file.") var pidFile: String?
  @Option(name: .customLong("console-socket"), help: "Send the terminal's master to this Unix socket.") var consoleSocket: String?
  @Option(name: .customLong("pidfd-socket"), help: "Send a pidfd of the first process to this Unix socket.") var pidfdSocket: String?
  @Option(name: .customLong("preserve-fds"), help: "Keep this many descriptors beside stdio.") var preserve = 0
  @Flag(name: .customLong("no-pivot"), help: "Move the root instead of pivot_root: for a root on a ramdisk.") var noPivot = false
  @Flag(name: .customLong("no-new-keyring"), help: "Keep the caller's session keyring.") var noNewKeyring = false
  @Flag(name: .customLong("no-subreaper"), help: "Ignored: there is never one.") var noSubreaper = false
  @Argument(help: "A name that is unique below --root.") var id: String

  var options: Bundles.CreateOptions {
    var options = Bundles.CreateOptions()
    (options.noPivot, options.noNewKeyring) = (noPivot, noNewKeyring)
    // Paths are the caller's, whose working directory this is till `enterBundle`.
    options.pidFile = pidFile.map(absolute)
    options.consoleSocket = consoleSocket.map(absolute)
    options.pidfdSocket = pidfdSocket.map(absolute)
    options.preserved = Inherited.descriptors(preserve + (getenv("LISTEN_FDS").flatMap { Int(String(cString: $0)) } ?? 0))
    return options
  }
  /// Hooks and relative paths see the bundle as their working directory, as with runc.
  func enterBundle() throws(BundleError) -> String {
    if chdir(bundle) < 0 { throw BundleError("chdir \(bundle): \(Errno.current.message.lowercased())") }
    guard let path = getcwd(nil, 0) else { throw BundleError("getcwd: \(Errno.current.message.lowercased())") }
    defer { free(path) }
    return String(cString: path)
  }
  func validate() throws {
    guard (0...Inherited.limit).contains(preserve) else { throw ValidationError("--preserve-fds \(preserve): from 0 to \(Inherited.limit)") }
  }
}

struct Create: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "create", abstract: "Make a container that waits for start.")
  @ParentCommand var parent: OrchRuntime
  @OptionGroup var arguments: CreateArguments

  func run() throws {
    let options = arguments.options
    let created = try parent.bundles().create(arguments.id, bundle: try arguments.enterBundle(), configFile: arguments.file, options)
    for warning in created.warnings { Log.warning(warning) }
  }
}

struct Start: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "start", abstract: "Execute the program of a created container.")
  @ParentCommand var parent: OrchRuntime
  @Argument var id: String
  func run() throws { for warning in try parent.bundles().start(id) { Log.warning(warning) } }
}

struct Run: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "run", abstract: "Create and start a container; wait for its end and delete it, unless --detach.")
  @ParentCommand var parent: OrchRuntime
  @Flag(name: .shortAndLong, help: "Return when it is started.") var detach = false
  @Flag(help: "Do not delete it at its end.") var keep = false
  @OptionGroup var arguments: CreateArguments

  func run() throws {
    var options = arguments.options
    options.returnsTerminal = !detach && options.consoleSocket == nil
    let bundles = parent.bundles()
    if !detach { Foreground.holdSignals() }
    let created = try bundles.create(arguments.id, bundle: try arguments.enterBundle(), configFile: arguments.file, options)
    for warning in created.warnings { Log.warning(warning) }
    do throws(BundleError) {
      for warning in try bundles.start(arguments.id) { Log.warning(warning) }
    } catch {
      _ = try? bundles.delete(arguments.id, force: true, only: created.identity)
      throw error
    }
    if detach { return }
    let code = Foreground.wait(for: created)
    if !keep { for warning in try bundles.delete(arguments.id, force: true, only: created.identity) { Log.warning(warning) } }
    throw ExitCode(code)
  }
}

/// Of this process's working directory, before it changes.
func absolute(_ path: String) -> String {
  if path.hasPrefix("/") { return path }
  guard let here = getcwd(nil, 0) else { return path }
  defer { free(here) }
  return String(cString: here) + "/" + path
}
