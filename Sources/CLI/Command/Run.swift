import API
import APIClient
import ArgumentParser
import Dispatch
import Model
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

struct Run: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Run one container on one host to its end; its output and exit code are the command's.",
    discussion: """
      It is a service of one task that is never started again: orch ps shows it, orch logs keeps its output until orch rm, or --rm.
      Without --node it runs on a host that has the image, if any has, and on any host otherwise.
      Without --network it reaches what its host reaches, and nobody reaches it but by -p (docker's bridge); none leaves it its loopback. Signals go to the command, which may do with them as it likes: Ctrl-C, too. The third Ctrl-C
      or SIGTERM ends orch itself. With -it the detach keys leave the command running, and orch attach comes back to it.
      Exit codes of its own: 125 when it could not be started, 126 when the command cannot be executed, 127 when it is not there.

      Example: orch run --rm busybox:1 echo hello
      Example: orch run --rm -it busybox:1 sh
      Example: orch run --rm --network demo_default visitor:1 wget -qO- http://web:8000/
      """)
  @OptionGroup var connection: Connection
  @Flag(name: .shortAndLong, help: "Pass stdin on.") var interactive = false
  @Flag(name: .shortAndLong, help: "Give the command a terminal.") var tty = false
  @OptionGroup var leaving: Leaving
  @Flag(name: .customLong("rm"), help: "Remove it when it has ended.") var remove = false
  @Flag(name: .shortAndLong, help: "Print its name and return once it runs.") var detach = false
  @Option(help: "Its name; a new one otherwise.") var name: String?
  @Option(
    name: .shortAndLong,
    help: ArgumentHelp(
      "Publish a port on every host: 8080:80, as many on either side (8000-8009:80-89), one that is free of a range (8000-8009:80); repeatable.",
      valueName: "[address:]published:target[/proto]"))
  var publish: [String] = []
  @Option(name: .shortAndLong, help: ArgumentHelp("Mount a volume or a folder of the host; repeatable.", valueName: "source:target[:ro]")) var volume:
    [String] = []
  @Option(name: .shortAndLong, help: ArgumentHelp("Set a variable; NAME alone takes it from here; repeatable.", valueName: "name=value")) var env:
    [String] = []
  @Option(help: ArgumentHelp("A network, such as a stack's, repeatable; or bridge, the default, host, or none.", valueName: "network")) var network:
    [String] = []
  @Option(help: ArgumentHelp("In place of the image's entrypoint; empty: none.", valueName: "command")) var entrypoint: String?
  @Option(name: .shortAndLong, help: "As this user: name, uid, or uid:gid.") var user: String?
  @Option(name: .shortAndLong, help: "In this folder.") var workdir: String?
  @Option(help: ArgumentHelp("On this host.", valueName: "host")) var node: String?
  @Option(help: ArgumentHelp("On a host of this platform.", valueName: "os/architecture")) var platform: String?
  @OptionGroup var auth: RegistryAuthOption
  @Argument(parsing: .captureForPassthrough, help: ArgumentHelp("The image and its command.", valueName: "image arguments")) var words: [String]

  func validate() throws {
    if words.first == "--help" || words.first == "-h" { throw CleanExit.helpRequest(self) }
    if words.first?.first == "-" { throw ValidationError("Unknown option '\(words[0])'") }
    if words.isEmpty { throw ValidationError("Name an image: orch run busybox:1 echo hello") }
    if entrypoint == "", words.count == 1 {
      throw ValidationError("Without an entrypoint the command stands behind the image: orch run --entrypoint '' \(words[0]) COMMAND")
    }
  }

  func run() async throws {
    if tty, interactive, !detach, isatty(0) == 0 { throw ValidationError("the input device is not a terminal: leave out -t") }
    let client = try connection.client()
    let host = if let node { node } else { try await holder(client) }
    let spec = try spec(on: host)
    // As docker does: a volume that is named is one, with `orch volumes` and `orch volumes --rm`.
    for mount in spec.taskTemplate.containerSpec.mounts ?? [] where mount.type == .volume {
      if let name = mount.source { _ = try await client.post("/volumes/create", [], VolumeSpec(name: name), as: VolumeInspect.self) }
    }
    let login = try auth.header(for: words[0]).map { [(name: "X-Registry-Auth", value: $0)] } ?? []
    let id = try await client.post("/services/create", [], spec, headers: login, as: ServiceCreateResponse.self).id
    let stopping = OneOff(client: client, service: id, name: spec.name, isRemoved: remove)
    let signals = detach ? [] : stopping.watchSignals(tty: tty)
    defer { for signal in signals { signal.cancel() } }
    do {
      let task = try await stopping.begin(until: detach ? .running : attaches ? .attachable : .logged)
      if detach {
        if remove { try await stopping.leaveToManagers() }
        return Terminal.print(spec.name)
      }
      if let task, !attaches {
        try await stopping.output(of: task)
      } else if let task {
        do {
          try await stopping.attach(to: task, Conversation(tty: tty, input: interactive, keys: tty ? leaving.keys : nil), tty: tty)
        } catch is Conversation.Left {
          var words = "\norch: \(spec.name) goes on: orch attach \(spec.name).1 comes back to it, orch rm \(spec.name) ends it"
          if remove {
            do {
              try await stopping.leaveToManagers()
              words += "; it is removed at its end"
            } catch { words += "; it is not removed at its end: \(error)" }
          }
          return Terminal.warn(words)
        }
      }
      let code = try await stopping.exitCode(of: task)
      if remove { await stopping.discard() }
      throw ExitCode(code)
    } catch let error as ClientError {
      if remove || !stopping.hasTask { await stopping.discard() }
      Terminal.fail(error.description, code: 125)
    } catch let error as OneOff.Unstarted {
      if remove { await stopping.discard() }
      Terminal.fail(error.reason, code: error.code)
    }
  }

  private var attaches: Bool { (interactive || tty) && !detach }

  /// A host to run on that has the image, when others have not; nil: any may.
  private func holder(_ client: APIClient) async throws -> String? {
    let names = [words[0], words[0] + ":latest"]
    let holders = Set(try await client.get("/orch/v1/images", as: [ImageSummary].self).filter { names.contains($0.name) }.map(\.host))
    let usable = try await client.get("/nodes", as: [NodeInspect].self)
      .filter { $0.spec.availability == .active && $0.status.state == "ready" }.compactMap(\.description?.hostname)
    let able = usable.filter(holders.contains).sorted()
    return able.count < usable.count ? able.first : nil
  }

  private func spec(on node: String?) throws -> ServiceSpec {
    var container = ContainerSpec(image: words[0])
    (container.command, container.args) = Self.command(entrypoint, Array(words.dropFirst()))
    let here = Terminal.allEnvironment
    container.env = env.isEmpty ? nil : env.compactMap { entry in entry.contains("=") ? entry : here[entry].map { "\(entry)=\($0)" } }
    container.user = user
    if tty { container.tty = true }
    if interactive || tty { container.openStdin = true }
    container.dir = workdir
    container.mounts = try volume.map(Self.mount)
    var task = TaskSpec(containerSpec: container)
    var restart = RestartPolicy()
    restart.condition = RestartPolicy.Condition.none
    task.restartPolicy = restart
    var constraints = node.map { ["node.hostname == \($0)"] } ?? []
    if let platform {
      let parts = platform.split(separator: "/", omittingEmptySubsequences: false)
      guard (2...3).contains(parts.count), parts[0] == "linux", !parts[1].isEmpty else {
        throw ValidationError("--platform '\(platform)': write linux/ARCHITECTURE, such as linux/arm64")
      }
      constraints.append("node.platform.arch == \(parts[1])")
    }
    if !constraints.isEmpty {
      var placement = Placement()
      placement.constraints = constraints
      task.placement = placement
    }
    if !network.isEmpty { task.networks = network.map { NetworkAttachmentConfig(target: $0) } }
    let name = name ?? "run-" + String(UInt32.random(in: 0 ... .max), radix: 36)
    var spec = ServiceSpec(name: name, labels: ["orch.run": attaches ? "attach" : "1"], taskTemplate: task, mode: .replicated(1))
    if !publish.isEmpty { spec.endpointSpec = EndpointSpec(mode: .vip, ports: try publish.flatMap(Self.ports)) }
    return spec
  }

  /// In place of the image's entrypoint and its command; nil: the image's own. As docker has it, an empty entrypoint is none, and one that is given leaves
  /// the image's command out.
  static func command(_ entrypoint: String?, _ words: [String]) -> (command: [String]?, args: [String]?) {
    guard let entrypoint else { return (nil, words.isEmpty ? nil : words) }
    return entrypoint.isEmpty ? (words, []) : ([entrypoint], words)
  }

  static func mount(_ text: String) throws -> Mount {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
    guard (1...3).contains(parts.count), parts.allSatisfy({ !$0.isEmpty }), parts.count < 3 || ["ro", "rw"].contains(parts[2]) else {
      throw ValidationError("-v '\(text)': write VOLUME:/target or /folder:/target, with :ro at the end for read-only")
    }
    if parts.count == 1 { return Mount(type: .volume, source: nil, target: parts[0]) }
    var source = parts[0]
    if source.hasPrefix("."), let here = Terminal.workingDirectory { source = here + "/" + source }
    return Mount(type: source.hasPrefix("/") ? .bind : .volume, source: source, target: parts[1], readOnly: parts.last == "ro" && parts.count == 3)
  }

  static func ports(_ text: String) throws -> [PortConfig] {
    do throws(PortTextError) { return try PortText.ports(text[...]) } catch {
      throw ValidationError("-p '\(text)': \(error)\(error.advice.isEmpty ? "" : "; \(error.advice)")")
    }
  }
}

/// The one task of a service that runs once.
private final class OneOff: Sendable {
  /// The command is not there, or cannot be executed: nothing has run.
  struct Unstarted: Error {
    var code: Int32
    var reason: String
    init?(_ status: TaskInspect.Status) {
      guard status.state == "failed", let container = status.containerStatus, container.containerID == nil, let code = container.exitCode else {
        return nil
      }
      (self.code, reason) = (code, status.err ?? status.message)
    }
  }

  let client: APIClient
  let service: String
  let name: String
  let isRemoved: Bool
  private struct State {
    /// It took the run away before there was a container to have it.
    var signal: Int32 = 0
    var terminations = 0
    var task: String?
  }
  private let state = Mutex(State())
  private let terminal = RawTerminal.current
  private let passing = AsyncStream.makeStream(of: (number: Int32, task: String).self, bufferingPolicy: .bufferingOldest(256))
  var hasTask: Bool { state.withLock { $0.task != nil } }

  init(client: APIClient, service: String, name: String, isRemoved: Bool) {
    (self.client, self.service, self.name, self.isRemoved) = (client, service, name, isRemoved)
  }

  // MARK: - Signals

  /// All that can be caught but those of the process's own making (faults, CHLD, PIPE, URG), and those by which a shell stops and continues it.
  private static func passed(tty: Bool) -> [Int32] {
    // A terminal's size travels by itself.
    [SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM, SIGVTALRM, SIGIO, SIGPWR] + (tty ? [] : [SIGWINCH]) + Array(Self.realtime)
  }
  private static let realtime = __libc_current_sigrtmin()...__libc_current_sigrtmax()
  private static let ending: Set<Int32> = [SIGINT, SIGTERM, SIGHUP, SIGQUIT]

  /// Passes signals on to the container, as docker's --sig-proxy. Before there is one, those that end a process end the run; the third of
  /// SIGINT and SIGTERM ends this process, whatever the container does.
  func watchSignals(tty: Bool) -> [any DispatchSourceSignal] {
    // One after another, as they came.
    Task { for await (number, task) in passing.stream { await pass(number, to: task) } }
    let queue = DispatchQueue(label: "orch-signals")
    return Self.passed(tty: tty).map { number in
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: queue)
      source.setEventHandler { [self] in take(number) }
      source.resume()
      return source
    }
  }

  private func take(_ number: Int32) {
    let (task, terminations, isFirst) = state.withLock { state in
      if number == SIGINT || number == SIGTERM { state.terminations += 1 }
      let isFirst = state.signal == 0
      if state.task == nil, Self.ending.contains(number) { state.signal = number }
      return (state.task, state.terminations, isFirst)
    }
    if terminations >= 3 { return leave() }
    if let task {
      passing.continuation.yield((number, task))
    } else if Self.ending.contains(number) {
      guard isFirst else { Terminal.exit(128 + number) }
      Task { await discard() }
    }
  }

  private func pass(_ number: Int32, to task: String) async {
    // A container that is just being made has it once it runs; one that has ended needs it no more.
    for _ in 0..<50 {
      do {
        _ = try await client.call("POST", "/orch/v1/tasks/\(task)/kill", [("signal", "\(number)")])
        return
      } catch let error as ClientError
        where error.status == 409 && Self.ending.contains(number)
      {
        guard let now: TaskInspect = try? await client.get("/tasks/\(task)"),
          ["preparing", "ready", "starting", "running"].contains(now.status.state)
        else { return }
        try? await Task.sleep(for: .milliseconds(100))
      } catch let error as ClientError where error.status == 409 || error.status == 404 { return } catch {
        return Terminal.warn("orch: pass signal \(number) on: \(error)")
      }
    }
  }

  /// Docker's exit code for it. What --rm promised is still done.
  private func leave() {
    if let terminal { RawTerminal.restore(terminal) }
    guard isRemoved else {
      Terminal.warn("\norch: \(name) goes on: orch rm \(name) ends it")
      Terminal.exit(1)
    }
    Terminal.warn("\norch: \(name) is taken away")
    Task {
      await discard()
      Terminal.exit(1)
    }
  }

  enum Wanted { case running, logged, attachable }

  private func task() async throws -> TaskInspect? {
    try await client.get("/tasks", [("filters", JSONText.line(["service": [service]]))], as: [TaskInspect].self).max { $0.createdAt < $1.createdAt }
  }

  /// Until there is output to read, or the container runs. nil: it was stopped before.
  func begin(until wanted: Wanted) async throws -> TaskInspect? {
    let pulses = Pulses(client, types: ["task", "service"])
    defer { pulses.end() }
    var told = ""
    for await _ in pulses.stream {
      let found: TaskInspect?
      do { found = try await task() } catch let error as ClientError where error.isTransient { continue } catch let error as ClientError
        where error.status == 404
      { return nil }
      guard let task = found else {
        if state.withLock({ $0.signal }) != 0 { return nil }
        continue
      }
      switch task.status.state {
      case "rejected",
        "failed" where task.status.containerStatus?.containerID == nil:
        state.withLock { $0.task = task.id }
        if let unstarted = Unstarted(task.status) { throw unstarted }
        throw ClientError.broken(task.status.err ?? task.status.message)
      case "starting", "running", "complete", "failed", "shutdown":
        let starts = task.status.state == "starting"
        if starts, wanted == .running || (wanted == .attachable && task.status.containerStatus?.health == nil) { continue }
        state.withLock { $0.task = task.id }
        return task
      case "pending":
        let why = task.status.err ?? ""
        if !why.isEmpty, why != told { Terminal.warn("orch: waiting for a host: \(why)") }
        told = why
      default: break
      }
    }
    return nil
  }

  /// To its end.
  func output(of task: TaskInspect) async throws {
    let body: APIClient.Body
    do {
      body = try await client.stream("/tasks/\(task.id)/logs", [("follow", "1"), ("stdout", "1"), ("stderr", "1")])
    } catch let error as ClientError where error.status == 404 { return }
    var parser = StreamFrame.Parser()
    do {
      for try await part in body {
        parser.append(part.readableBytesView)
        while let frame = try parser.next() { Terminal.write(frame.kind == .stderr ? 2 : 1, frame.payload) }
      }
    } catch let error as ClientError { throw error } catch {
      if state.withLock({ $0.signal }) == 0 { throw ClientError.broken("the connection broke while it ran: orch ps shows how it ended") }
    }
  }

  /// To its stdin and output; when it ended before, what its log has.
  func attach(to task: TaskInspect, _ conversation: Conversation, tty: Bool) async throws {
    do {
      _ = try await conversation.run(client, task.id, ExecStart(command: [], tty: tty, stdin: true, attach: true))
    } catch let error as ClientError where !conversation.began {
      guard let now: TaskInspect = try? await client.get("/tasks/\(task.id)"), ["complete", "failed", "shutdown"].contains(now.status.state) else {
        // Its end may not have been told yet: the log is followed until then.
        if state.withLock({ $0.signal }) == 0, error.status == nil { return try await output(of: task) }
        throw error
      }
      try await output(of: task)
    } catch let error as ClientError {
      if state.withLock({ $0.signal }) == 0 { throw error }
    }
  }

  func exitCode(of task: TaskInspect?) async throws -> Int32 {
    let signal = state.withLock { $0.signal }
    if signal != 0 { return 128 + signal }
    let pulses = Pulses(client, types: ["task", "service"])
    defer { pulses.end() }
    for await _ in pulses.stream {
      let signal = state.withLock { $0.signal }
      if signal != 0 { return 128 + signal }
      guard let task else { break }
      let now: TaskInspect
      do { now = try await client.get("/tasks/\(task.id)") } catch let error as ClientError where error.isTransient { continue }
      guard ["complete", "failed", "shutdown", "rejected", "orphaned"].contains(now.status.state) else { continue }
      if let unstarted = Unstarted(now.status) { throw unstarted }
      if let code = now.status.containerStatus?.exitCode { return code }
      throw ClientError.broken(now.status.err ?? now.status.message)
    }
    throw ClientError.broken("it was removed while it ran")
  }

  /// Here nobody waits for its end: they do. Not from its beginning on: why it did not start would be gone with it.
  func leaveToManagers() async throws {
    _ = try await client.edit(service, as: ServiceInspect.self) { spec in
      spec.labels = (spec.labels ?? [:]).merging([ServiceSpec.removedWhenOver: "1"]) { $1 }
    }
  }

  func discard() async {
    do { try await client.call("DELETE", "/services/\(service)") } catch let error as ClientError where error.status == 404 {} catch {
      Terminal.warn("orch: remove it: \(error)")
    }
  }
}
