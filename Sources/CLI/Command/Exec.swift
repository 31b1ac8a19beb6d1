import API
import APIClient
import ArgumentParser
import Dispatch
import Model

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

struct Exec: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Run a command in a task's container, on whatever host it is.",
    discussion: "The exit code is the command's.\n\nExample: orch exec -it web.2 sh\nExample: orch exec web.1 cat /etc/hosts")
  @OptionGroup var connection: Connection
  @Flag(name: .shortAndLong, help: "Pass stdin on.") var interactive = false
  @Flag(name: .shortAndLong, help: "Give the command a terminal.") var tty = false
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
    if tty, interactive, isatty(0) == 0 { throw ValidationError("the input device is not a terminal: leave out -t") }
    let client = try connection.client()
    let size = tty ? Terminal.size(of: 0) : nil
    let start = ExecStart(
      command: Array(words.dropFirst()), env: env.isEmpty ? nil : env, user: user, workingDir: workdir, tty: tty, stdin: interactive,
      size: size.map { .init(rows: $0.rows, columns: $0.columns) })
    let input = Pipe<StreamFrame>(capacity: 8)
    let raw = tty && interactive ? RawTerminal() : nil
    let winch = tty ? watchSize(input) : nil
    if interactive { forwardInput(to: input) } else { await input.send(StreamFrame(.endOfInput)) }
    let code = ExitBox()
    do {
      try await client.exec(words[0], start, input: input) { event in
        switch event {
        case .stdout(let bytes): Terminal.write(1, bytes)
        case .stderr(let bytes): Terminal.write(2, bytes)
        case .exit(let status): code.value = status
        }
      }
    } catch {
      raw?.restore()
      throw error
    }
    raw?.restore()
    winch?.cancel()
    throw ExitCode(code.value)
  }

  private final class ExitBox: @unchecked Sendable {
    // Written by the one reader of the stream, read after it ended.
    var value: Int32 = 0
  }

  private func forwardInput(to input: Pipe<StreamFrame>) {
    Task {
      while let chunk = try? await readChunk(0, upTo: 32 << 10) {
        guard await input.send(StreamFrame(.stdin, chunk)) else { return }
      }
      await input.send(StreamFrame(.endOfInput))
    }
  }

  private func watchSize(_ input: Pipe<StreamFrame>) -> any DispatchSourceSignal {
    signal(SIGWINCH, SIG_IGN)
    let source = DispatchSource.makeSignalSource(signal: SIGWINCH, queue: .global())
    source.setEventHandler {
      guard let size = Terminal.size(of: 0) else { return }
      let payload = [size.rows, size.columns].flatMap { [UInt8($0 >> 8), UInt8($0 & 255)] }
      Task { await input.send(StreamFrame(.resize, payload)) }
    }
    source.resume()
    return source
  }
}
