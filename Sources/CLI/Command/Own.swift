import API
import APIClient
import ArgumentParser
import Model

extension Orch {
  static let own: [any ParsableCommand.Type] = [VersionCommand.self, Completion.self]
}

struct VersionCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "version", abstract: "Show the version of orch and of the manager.", discussion: "Example: orch version")
  @OptionGroup var connection: Connection
  @Option(help: "table or json.") var format: Format = .table

  func run() async throws {
    struct Both: Encodable {
      struct Client: Encodable {
        var Version = Orch.version
        var ApiVersion = APIVersion.current
      }
      var Client = Client()
      var Server: Version?
    }
    var both = Both()
    var problem: String?
    do { both.Server = try await connection.client().get("/version") } catch let error as ClientError { problem = error.description }
    if format == .json {
      Terminal.print(JSONText.line(both))
    } else {
      Terminal.print("Client:\n  Version:      \(Orch.version)\n  API version:  \(APIVersion.current)")
      if let server = both.Server {
        Terminal.print(
          "Server:\n  Version:      \(server.version)\n  API version:  \(server.apiVersion)\n  Kernel:       \(server.kernelVersion)\n  OS/Arch:      \(server.os)/\(server.arch)"
        )
      }
    }
    if let problem { Terminal.fail(problem) }
  }
}

struct Completion: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Print the completion script for bash or zsh.",
    discussion: "Example: source <(orch completion bash)\nFor zsh: orch completion zsh > ~/.zsh/completion/_orch")
  enum Shell: String, ExpressibleByArgument, CaseIterable { case bash, zsh, fish }
  @Argument(help: "bash, zsh or fish.") var shell: Shell

  func run() throws {
    Terminal.print(Orch.completionScript(for: shell == .bash ? .bash : shell == .zsh ? .zsh : .fish))
  }
}
