import API
import APIClient
import ArgumentParser
import Model

#if canImport(Glibc)
  import func Glibc.isatty
#elseif canImport(Musl)
  import func Musl.isatty
#endif

struct Exec: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Run a command in a task's container, on whatever host it is.",
    discussion: """
      The exit code is the command's. With -d it is 0 once the command runs; what it writes goes nowhere, and it ends with the container.
      With -it the detach keys leave the command running.

      Example: orch exec -it web.2 sh
      Example: orch exec web.1 cat /etc/hosts
      Example: orch exec -d web.1 sh -c 'sleep 60; kill -HUP 1'
      """)
  @OptionGroup var connection: Connection
  @Flag(name: .shortAndLong, help: "Pass stdin on.") var interactive = false
  @Flag(name: .shortAndLong, help: "Give the command a terminal.") var tty = false
  @OptionGroup var leaving: Leaving
  @Flag(name: .shortAndLong, help: "Start it and return.") var detach = false
  @Option(name: .shortAndLong, help: "As this user: name, uid, or uid:gid.") var user: String?
  @Option(name: .shortAndLong, help: "In this folder.") var workdir: String?
  @Option(name: .shortAndLong, help: ArgumentHelp("Set a variable; repeatable.", valueName: "name=value")) var env: [String] = []
  @Argument(parsing: .captureForPassthrough, help: ArgumentHelp("A task (web.2, or an id) and the command.", valueName: "task command"))
  var words: [String]

  func validate() throws {
    if words.first == "--help" || words.first == "-h" { throw CleanExit.helpRequest(self) }
    let words = target
    if words.first?.first == "-" { throw ValidationError("Unknown option '\(words[0])'") }
    if words.count < 2 { throw ValidationError("Name a task and a command: orch exec web.1 ls") }
  }

  /// The task and the command, without the "--" that may stand before or between them.
  private var target: [String] {
    var words = words.first == "--" ? Array(words.dropFirst()) : words
    if words.count > 1, words[1] == "--" { words.remove(at: 1) }
    return words
  }

  func run() async throws {
    let words = target
    let talks = interactive && !detach
    if tty, talks, isatty(0) == 0 { throw ValidationError("the input device is not a terminal: leave out -t") }
    let client = try connection.client()
    let start = ExecStart(
      command: Array(words.dropFirst()), env: env.isEmpty ? nil : env, user: user, workingDir: workdir, tty: tty, stdin: talks,
      detach: detach ? true : nil)
    let conversation = Conversation(tty: tty && !detach, input: talks, keys: tty && talks ? leaving.keys : nil)
    do {
      throw ExitCode(try await conversation.run(client, words[0], start))
    } catch is Conversation.Left {
      Terminal.warn("\norch: the command goes on in \(words[0])")
    }
  }
}
