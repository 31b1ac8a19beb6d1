import ArgumentParser
import Bundle
import FoundationEssentials
import Glibc
import LinuxSystem
import OCI

@main struct OrchRuntime: ParsableCommand {
  static var configuration: CommandConfiguration { isReading ? whileReading : described }
  private static let described = CommandConfiguration(
    commandName: "orch-runtime",
    abstract: "Run containers from OCI bundles, as runc and crun do (OCI runtime specification \(OCI.version)).",
    version: "orch-runtime version 0.1.0\nspec: \(OCI.version)",
    subcommands: named.isEmpty ? all : named)
  /// The parser looks for --generate-completion-script by parsing two commands of its own first, 39 % of the time of a short command; not in a command
  /// that is part of another. Errors and help are `described`.
  private static let whileReading = {
    var configuration = described
    configuration._superCommandName = ""
    return configuration
  }()
  // Set by `main` alone, which has one thread.
  nonisolated(unsafe) private static var isReading = false
  private static let all: [any ParsableCommand.Type] = [
    Create.self, Start.self, Run.self, Exec.self, StateCommand.self, Kill.self, Delete.self, ListCommand.self, Ps.self, Pause.self, Resume.self,
    Update.self, Mounts.self, Events.self, Spec.self, FeaturesCommand.self, Checkpoint.self, Restore.self,
  ]
  /// Those whose names are among the arguments: the parser looks into the types of all that it is given, which takes longer than to parse.
  private static var named: [any ParsableCommand.Type] {
    let words = Set(CommandLine.arguments.dropFirst())
    return all.filter { words.contains($0.configuration.commandName ?? "") && !words.contains("help") && !words.contains("--help") }
  }

  @OptionGroup var globals: Globals

  private static let normalized = Words.normalized(
    Array(CommandLine.arguments.dropFirst()), commands: Set(all.map { $0.configuration.commandName ?? "" }))
  private static var arguments: [String] { normalized.words }
  /// What `exec` executes.
  static var program: [String] { normalized.program }

  /// orch-init is where this program is.
  func bundles() -> Bundles {
    let own = (try? Files.link("/proc/self/exe")) ?? "/usr/bin/orch-runtime"
    let folder = own.lastIndex(of: "/").map { String(own[..<$0]) } ?? "/usr/bin"
    // Of the caller's folder, not of the bundle's, which some commands change to.
    return Bundles(
      root: absolute(globals.root), initPath: folder + "/orch-init", cgroupManager: globals.systemdCgroup ? .systemd : globals.cgroupManager)
  }

  static func main() {
    if getenv("LISTEN_FDS") != nil || CommandLine.arguments.contains(where: { $0.contains("preserve-fds") }) { Inherited.remember() }
    do {
      isReading = !named.isEmpty && !CommandLine.arguments.contains { $0.hasPrefix("--generate-completion-script") }
      defer { isReading = false }
      var command = try parseAsRoot(arguments)
      try command.run()
    } catch let error as BundleError {
      Log.error(error.description)
      Glibc.exit(error.exitCode)
    } catch {
      let code = exitCode(for: error)
      guard code != .success, !(error is ExitCode) else { exit(withError: error) }
      // As with runc: 1, and in the log, which may not have been opened yet.
      let path = Words.value(of: "--log", in: arguments)
      if !Log.isOpen, let path { _ = Log.open(path, json: Words.value(of: "--log-format", in: arguments) == "json") }
      Log.keep(.error, message(for: error))
      Output.error(fullMessage(for: error))
      Glibc.exit(1)
    }
  }
}

/// Before the command's name, as runc and crun have them.
struct Globals: ParsableArguments {
  @Option(help: "Where the state of containers is kept; on a tmpfs.") var root = "/run/orch-runtime"
  @Option(help: "Write messages to this file as well, or to syslog:IDENT or journald:ID.") var log: String?
  @Option(name: .customLong("log-format"), help: "text or json.") var logFormat: LogFormat = .text
  @Option(name: .customLong("log-level"), help: "error: no warnings; warning; debug: there is nothing more to say.") var logLevel: LogLevel = .warning
  @Option(help: "Ignored: nothing is checkpointed.") var criu: String?
  @Option(name: .customLong("cgroup-manager"), help: "cgroupfs, systemd or disabled.") var cgroupManager = Bundles.CgroupManager.cgroupfs
  @Flag(name: .customLong("systemd-cgroup"), help: "As --cgroup-manager systemd: containers are in scopes of systemd's (cgroup v2).")
  var systemdCgroup = false
  @Flag(help: "Understood for the callers that give it; there is nothing more to say.") var debug = false

  enum LogFormat: String, ExpressibleByArgument { case text, json }

  enum LogLevel: String, ExpressibleByArgument { case error, warning, debug }

  func validate() throws {
    Log.hidesWarnings = logLevel == .error
    if let log, !Log.open(log, json: logFormat == .json) { throw ValidationError("--log \(log): \(Errno.current.message.lowercased())") }
  }
}

extension Bundles.CgroupManager: ExpressibleByArgument {}

struct Spec: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "spec", abstract: "Write a config.json that runs a shell in ./rootfs.")
  @Option(name: .shortAndLong, help: "The bundle.") var bundle = "."
  @Option(name: .shortAndLong, help: "Another place for it.") var file: String?
  @Flag(help: "With a user namespace whose root is the caller, and the host's network.") var rootless = false

  func run() throws {
    let path = file ?? bundle + "/config.json"
    if Files.exists(path) { throw BundleError("File \(path) exists. Remove it first") }
    let config = rootless ? Config.rootless : Config.standard
    do throws(SystemError) { try Files.writeAtomically(path, Document.write(config, pretty: true), mode: 0o666) } catch {
      throw BundleError("\(error)")
    }
  }
}

struct FeaturesCommand: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "features", abstract: "Print what of the specification is supported, as JSON.")
  func run() throws { Output.write(Document.write(Features(capabilities: CapabilitySet.all.names, systemd: SystemdScope.isSupported), pretty: true)) }
}
