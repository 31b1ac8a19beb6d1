// The executable `orch`: parse, call the public API, print. It talks to that API alone and never reaches into a daemon.
// Exit codes: 0 done, 1 refused or failed (a sentence on stderr says why and what to do), 2 wrong usage; `exec` passes on the
// command's own; 130 when Ctrl-C ended the watching.
import API
import APIClient
import ArgumentParser
import Model

import enum Telemetry.Version

@main
struct Main {
  static func main() async {
    var command: any ParsableCommand
    do { command = try Orch.parseAsRoot() } catch { finish(parse: error) }
    do {
      if var asynchronous = command as? any AsyncParsableCommand { try await asynchronous.run() } else { try command.run() }
    } catch let code as ExitCode {
      Terminal.exit(code.rawValue)
    } catch let error as ClientError {
      if case .usage = error { Terminal.fail(error.description, code: 2) }
      Terminal.fail(error.description)
    } catch let error as ValidationError {
      Terminal.fail(error.message, code: 2)
    } catch {
      // Help and its like are errors to the parser's run as well.
      if Orch.exitCode(for: error) != .failure { finish(parse: error) }
      Terminal.fail("\(error)")
    }
    Terminal.exit(0)
  }

  private static func finish(parse error: any Error) -> Never {
    let text = Orch.fullMessage(for: error)
    let code = Orch.exitCode(for: error)
    if code == .success {
      Terminal.print(text)
      Terminal.exit(0)
    }
    Terminal.warn(text)
    Terminal.exit(code == .validationFailure ? 2 : code.rawValue)
  }
}

struct Orch: AsyncParsableCommand {
  static let version = Version.text
  static let configuration = CommandConfiguration(
    commandName: "orch", abstract: "Run services on a cluster of hosts.",
    discussion: """
      ORCH_HOST chooses the manager: unix:///run/orch/orch.sock (default), or tcp://host:2376 with ORCH_CERT_PATH (orch cert create).

      Begin with:
        orch deploy manifests/web.yaml
        orch services
        orch ps web
        orch scale web=3
      """,
    version: "orch \(version)",
    groupedSubcommands: [
      CommandGroup(
        name: "Stacks and services",
        subcommands: [Deploy.self, Down.self, Stacks.self, Services.self, Scale.self, Update.self, Rollback.self, Remove.self]),
      CommandGroup(
        name: "What runs",
        subcommands: [ListTasks.self, Why.self, Run.self, Stats.self, Logs.self, Exec.self, Attach.self, Inspect.self, Events.self, SQL.self]),
      CommandGroup(
        name: "The cluster",
        subcommands: [
          Nodes.self, NodeCommand.self, Managers.self, ManagerCommand.self, Networks.self, NetworkCommand.self, Volumes.self, Secrets.self,
          SecretCommand.self,
          Configs.self, ConfigCommand.self, ImageCommand.self, Build.self, BuilderCommand.self, JoinToken.self, CertificateCommand.self, Backup.self,
          Restore.self,
          Dev.self,
        ]),
      CommandGroup(name: "orch itself", subcommands: Orch.own),
    ])
}

/// Which manager to ask.
struct Connection: ParsableArguments {
  @Option(name: [.customShort("H"), .customLong("host")], help: ArgumentHelp("The manager to talk to; ORCH_HOST otherwise.", valueName: "url"))
  var host: String?

  func client() throws -> APIClient {
    APIClient(endpoint: try Endpoint(host ?? Terminal.environment("ORCH_HOST"), certificates: Terminal.environment("ORCH_CERT_PATH")))
  }
}

enum Format: String, ExpressibleByArgument, CaseIterable { case table, json }
/// Of what is no table.
enum JSONFormat: String, ExpressibleByArgument, CaseIterable { case json }

/// How lists are printed.
struct ListOptions: ParsableArguments {
  @Option(help: "table, or json: one object a line with docker's keys.")
  var format: Format = .table
  @Flag(name: .shortAndLong, help: "Print ids only.")
  var quiet = false
  @Flag(name: .customLong("no-trunc"), help: "Cut nothing.")
  var noTruncation = false

  func show(_ table: Table, ids: [String]) {
    if quiet {
      for id in ids { Terminal.print(id) }
    } else if format == .json {
      for line in table.jsonLines { Terminal.print(line) }
    } else {
      for line in table.lines(width: noTruncation ? nil : Terminal.width) { Terminal.print(line) }
    }
  }

  /// Beside the table, on stderr.
  func warn(_ lines: [String]) {
    if quiet { return }
    for line in lines { Terminal.warn("warning: \(line)") }
  }

  func short(_ id: String) -> String { noTruncation ? id : String(id.prefix(12)) }
  /// Of an image's id, as docker shows it.
  func short(digest: String) -> String { noTruncation ? digest : short(digest.hasPrefix("sha256:") ? String(digest.dropFirst(7)) : digest) }
}
