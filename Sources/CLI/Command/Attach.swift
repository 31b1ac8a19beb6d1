import API
import APIClient
import ArgumentParser
import Model

#if canImport(Glibc)
  import func Glibc.isatty
#elseif canImport(Musl)
  import func Musl.isatty
#endif

/// The option of commands that a terminal can be taken away from.
struct Leaving: ParsableArguments {
  @Option(help: ArgumentHelp("What to type to leave a terminal without ending its command.", valueName: "keys")) var detachKeys = "ctrl-p,ctrl-q"
  var keys: DetachKeys? { DetachKeys(detachKeys) }
  func validate() throws {
    guard keys == nil else { return }
    throw ValidationError("--detach-keys '\(detachKeys)': write letters and ctrl-X with commas between, such as ctrl-p,ctrl-q")
  }
}

struct Attach: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Come to the stdin and output of a container that keeps its stdin open.",
    discussion: """
      For tasks of orch run -i or -t, and of services with stdin_open. One at a time: a second waits until the first leaves. Output of before is in
      orch logs. Without a terminal only the first who comes has stdin. The exit code is the command's.

      Example: orch attach run-1x8k2p.1
      """)
  @OptionGroup var connection: Connection
  @OptionGroup var leaving: Leaving
  @Flag(help: "Do not pass stdin on.") var noStdin = false
  @Argument(help: "A task: web.2, or an id.") var task: String

  func run() async throws {
    let client = try connection.client()
    let found: TaskInspect = try await client.get("/tasks/\(task)")
    let tty = found.spec.containerSpec.tty ?? false
    if tty, !noStdin, isatty(0) == 0 { throw ValidationError("the input device is not a terminal: give --no-stdin") }
    let conversation = Conversation(tty: tty, input: !noStdin, keys: tty ? leaving.keys : nil)
    do {
      throw ExitCode(try await conversation.run(client, found.id, ExecStart(command: [], tty: tty, stdin: true, attach: true)))
    } catch is Conversation.Left { Terminal.warn("\norch: \(task) goes on") }
  }
}
