import API
import APIClient
import ArgumentParser
import Model

struct Secrets: AsyncParsableCommand {
  static let configuration = CommandConfiguration(abstract: "List the secrets.", discussion: "Example: orch secrets")
  @OptionGroup var connection: Connection
  @OptionGroup var list: ListOptions
  func run() async throws { try await listFiles(.secret, connection, list) }
}

struct Configs: AsyncParsableCommand {
  static let configuration = CommandConfiguration(abstract: "List the configs.", discussion: "Example: orch configs")
  @OptionGroup var connection: Connection
  @OptionGroup var list: ListOptions
  func run() async throws { try await listFiles(.config, connection, list) }
}

struct SecretCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "secret", abstract: "Give the cluster secrets for its services: create, ls, inspect, rm.",
    discussion: """
      A secret is sealed on the managers' disks, given to the hosts whose tasks use it, and found by them at /run/secrets/NAME. Nobody can read
      it back.

      Example: openssl rand -hex 32 | orch secret create db_password -
      """, subcommands: [Create.self, List.self, Show.self, Remove.self])

  struct Create: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Make a secret of a file's content, at most 500 KiB.", discussion: "Example: orch secret create db_password password.txt")
    @OptionGroup var connection: Connection
    @OptionGroup var content: FileContent
    func run() async throws { try await content.create(.secret, connection) }
  }
  struct List: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "ls", abstract: "List the secrets.", discussion: "Example: orch secret ls")
    @OptionGroup var connection: Connection
    @OptionGroup var list: ListOptions
    func run() async throws { try await listFiles(.secret, connection, list) }
  }
  struct Show: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "inspect", abstract: "Show all but the content, as JSON.", discussion: "Example: orch secret inspect db_password")
    @OptionGroup var connection: Connection
    @Argument(help: "Names or ids.") var names: [String]
    func run() async throws { try await inspectFiles(.secret, names, connection) }
  }
  struct Remove: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "rm", abstract: "Remove secrets that no service uses.", discussion: "Example: orch secret rm db_password")
    @OptionGroup var connection: Connection
    @Argument(help: "Names or ids.") var names: [String]
    func run() async throws { try await removeFiles(.secret, names, connection) }
  }
}

struct ConfigCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "config", abstract: "Give the cluster files for its services: create, ls, inspect, rm.",
    discussion:
      "A config is found by the tasks that use it at /NAME, or where the service says.\n\nExample: orch config create nginx.conf nginx.conf",
    subcommands: [Create.self, List.self, Show.self, Remove.self])

  struct Create: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Make a config of a file's content, at most 1000 KiB.", discussion: "Example: orch config create nginx.conf nginx.conf")
    @OptionGroup var connection: Connection
    @OptionGroup var content: FileContent
    func run() async throws { try await content.create(.config, connection) }
  }
  struct List: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "ls", abstract: "List the configs.", discussion: "Example: orch config ls")
    @OptionGroup var connection: Connection
    @OptionGroup var list: ListOptions
    func run() async throws { try await listFiles(.config, connection, list) }
  }
  struct Show: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "inspect", abstract: "Show a config, as JSON; Data is its content in base64.",
      discussion: "Example: orch config inspect nginx.conf")
    @OptionGroup var connection: Connection
    @Argument(help: "Names or ids.") var names: [String]
    func run() async throws { try await inspectFiles(.config, names, connection) }
  }
  struct Remove: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "rm", abstract: "Remove configs that no service uses.", discussion: "Example: orch config rm nginx.conf")
    @OptionGroup var connection: Connection
    @Argument(help: "Names or ids.") var names: [String]
    func run() async throws { try await removeFiles(.config, names, connection) }
  }
}

/// What `create` takes.
struct FileContent: ParsableArguments {
  @Option(name: .shortAndLong, help: ArgumentHelp("Set a label; repeatable.", valueName: "key=value")) var label: [String] = []
  @Argument(help: "Its name.") var name: String
  @Argument(help: "The file; - reads stdin.", completion: .file()) var file: String

  func create(_ kind: StoredFile.Kind, _ connection: Connection) async throws {
    var labels: [String: String] = [:]
    for text in label {
      let pair = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      labels[String(pair[0])] = pair.count == 2 ? String(pair[1]) : ""
    }
    let spec = FileSpec(name: name, labels: labels, data: try Terminal.readBytes(file))
    Terminal.print(try await connection.client().post("/\(kind)s/create", [], spec, as: FileCreateResponse.self).id)
  }
}

private func listFiles(_ kind: StoredFile.Kind, _ connection: Connection, _ list: ListOptions) async throws {
  let files = try await connection.client().get("/\(kind)s", as: [FileInspect].self)
  var table = Table([
    .init("ID", "ID"), .init("Name", "NAME", flexible: true), .init("CreatedAt", "CREATED"), .init("UpdatedAt", "UPDATED"), .init("Labels", nil),
  ])
  for file in files {
    let isJSON = list.format == .json
    table.add([
      list.short(file.id), file.spec.name, isJSON ? file.createdAt.description : file.createdAt.ago,
      isJSON ? file.updatedAt.description : file.updatedAt.ago,
      (file.spec.labels ?? [:]).sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: ","),
    ])
  }
  list.show(table, ids: files.map { list.short($0.id) })
}

private func inspectFiles(_ kind: StoredFile.Kind, _ names: [String], _ connection: Connection) async throws {
  let client = try connection.client()
  var found: [FileInspect] = []
  for name in names { found.append(try await client.get("/\(kind)s/\(percentEncoded(name))", as: FileInspect.self)) }
  Terminal.print(JSONText.indented(JSONText.encode(found)))
}

/// All that can be removed; what cannot is told.
private func removeFiles(_ kind: StoredFile.Kind, _ names: [String], _ connection: Connection) async throws {
  let client = try connection.client()
  var failed = false
  for name in names {
    do {
      try await client.call("DELETE", "/\(kind)s/\(percentEncoded(name))")
      Terminal.print(name)
    } catch let error as ClientError where error.status != nil {
      Terminal.warn("orch: \(error)")
      failed = true
    }
  }
  if failed { throw ExitCode(1) }
}
