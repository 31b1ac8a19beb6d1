import API
import APIClient
import ArgumentParser
import Model

struct Build: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Build an image from a Dockerfile on one host.",
    discussion: """
      The image is on that host; with --all-hosts on every ready one, as services need it. orch deploy --build does so too.
      A failing RUN's exit code is the command's own.

      Example: orch build -t web:1 .
      Example: orch build -t web:2 -f docker/Dockerfile --target production --build-arg VERSION=2 --all-hosts .
      """)
  enum ProgressStyle: String, ExpressibleByArgument, CaseIterable { case auto, plain, quiet, json }

  @OptionGroup var connection: Connection
  @Option(
    name: .shortAndLong, help: ArgumentHelp("The Dockerfile; PATH/Dockerfile otherwise; - reads stdin.", valueName: "file"), completion: .file())
  var file: String?
  @Option(name: .shortAndLong, help: ArgumentHelp("Name the image; repeatable.", valueName: "name:tag")) var tag: [String] = []
  @Option(help: ArgumentHelp("Build up to this stage.", valueName: "stage")) var target: String?
  @Option(help: ArgumentHelp("Set an ARG; NAME alone takes it from the environment; repeatable.", valueName: "name=value")) var buildArg: [String] =
    []
  @Option(help: ArgumentHelp("Label the image; repeatable.", valueName: "name=value")) var label: [String] = []
  @Option(
    help: ArgumentHelp("For RUN --mount=type=secret: a file's content, or a variable's; repeatable.", valueName: "id=NAME[,src=FILE|env=VARIABLE]"))
  var secret: [String] = []
  @Flag(help: "Carry out every step, whatever was built before.") var noCache = false
  @Flag(help: "Ask the registry for newer bases.") var pull = false
  @Option(help: ArgumentHelp("For RUN that does not say: default, a way out of its own; host, the host's network; none.", valueName: "mode"))
  var network: String?
  @Option(help: "auto and plain show every step, quiet the image's id, json the manager's own lines.") var progress: ProgressStyle = .auto
  @Flag(name: .shortAndLong, help: "As --progress quiet.") var quiet = false
  @Option(help: ArgumentHelp("Build on this host; the manager's own otherwise.", valueName: "host")) var node: String?
  @Flag(help: "Bring the image to every ready host.") var allHosts = false
  @Argument(help: "The context: a folder, or - for a tar on stdin.", completion: .directory) var path: String

  func validate() throws {
    if file == "-", path == "-" { throw ValidationError("stdin is the Dockerfile or the context, not both") }
    if allHosts, tag.isEmpty { throw ValidationError("--all-hosts needs a name: give -t NAME") }
  }

  func run() async throws {
    let client = try connection.client()
    var options = ImageBuild.Options(context: path, dockerfile: file)
    (options.names, options.target, options.noCache, options.pull) = (tag, target, noCache, pull)
    (options.network, options.node) = (network, node)
    options.arguments = try ImageBuild.pairs(buildArg, "--build-arg", environment: Terminal.allEnvironment)
    options.labels = try ImageBuild.pairs(label, "--label", environment: [:])
    options.secrets = try BuildSecrets.read(secret)
    let style = quiet ? .quiet : progress
    let build = ImageBuild(client: client, options: options)
    let made = try await build.run { line in
      switch style {
      case .json: Terminal.print(line.json)
      case .quiet: break
      case .auto, .plain: if let text = line.stream { Terminal.write(1, Array(text.utf8)) }
      }
    }
    if style == .quiet { Terminal.print(made.id) }
    if allHosts { try await build.distribute(made, quiet: style != .auto && style != .plain) }
  }
}

/// A build by the public API: packs the context, sends it, reads what comes back.
struct ImageBuild {
  struct Options {
    var context: String
    var dockerfile: String?
    var names: [String] = []
    var target: String?
    var arguments: [String: String] = [:]
    var labels: [String: String] = [:]
    var secrets: [String: [UInt8]] = [:]
    var noCache = false
    var pull = false
    var network: String?
    var node: String?
  }
  /// One line of the answer.
  struct Line: Decodable {
    struct Failure: Decodable {
      var code: Int?
      var message: String?
    }
    struct Made: Decodable {
      var id: String
      var node: String?
      enum CodingKeys: String, CodingKey { case id = "ID", node = "Node" }
    }
    var stream: String?
    var aux: Made?
    var error: String?
    var errorDetail: Failure?
    var json = ""
    enum CodingKeys: String, CodingKey { case stream, aux, error, errorDetail }
  }

  let client: APIClient
  var options: Options

  static func pairs(_ list: [String], _ option: String, environment: [String: String]) throws -> [String: String] {
    var pairs: [String: String] = [:]
    for item in list {
      let parts = item.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      if parts[0].isEmpty { throw ValidationError("\(option) '\(item)': write NAME=VALUE") }
      if parts.count == 2 { pairs[parts[0]] = parts[1] } else if let value = environment[parts[0]] { pairs[parts[0]] = value }
    }
    return pairs
  }

  /// The image, once it is made. What a RUN's failure was is the process's exit code.
  func run(_ show: (Line) -> Void) async throws -> Line.Made {
    var query: APIClient.Query = options.names.map { ("t", $0) }
    let body: ContextChunks
    if options.context == "-" {
      body = ContextChunks(descriptor: 0)
      if let file = options.dockerfile { query.append(("dockerfile", file)) }
    } else {
      let context = try BuildContext(options.context, dockerfile: options.dockerfile)
      query.append(("dockerfile", context.dockerfile))
      body = ContextChunks(context)
    }
    if let target = options.target { query.append(("target", target)) }
    if let node = options.node { query.append(("node", node)) }
    if let network = options.network { query.append(("networkmode", network)) }
    if options.noCache { query.append(("nocache", "1")) }
    if options.pull { query.append(("pull", "1")) }
    if !options.arguments.isEmpty { query.append(("buildargs", JSONText.line(options.arguments))) }
    if !options.labels.isEmpty { query.append(("labels", JSONText.line(options.labels))) }
    Terminal.explainInterrupt("Interrupted: the build is given up; its finished steps stay in the cache.")
    let answer: APIClient.Body
    do {
      answer = try await client.upload("/build", query, body, type: "application/x-tar", headers: BuildSecrets.headers(options.secrets))
    } catch {
      if let problem = body.problem { throw ClientError.broken("the build's context: \(problem)") }
      throw error
    }
    var made: Line.Made?
    var lines = LineSplitter()
    for try await part in answer {
      for text in lines.add(Array(part.readableBytesView)) {
        var line = try JSONText.decode(Line.self, text)
        line.json = String(decoding: text, as: UTF8.self)
        show(line)
        if let error = line.error {
          Terminal.warn("orch: \(line.errorDetail?.message ?? error)")
          throw ExitCode(Int32(clamping: max(1, line.errorDetail?.code ?? 1)))
        }
        if let found = line.aux { made = found }
      }
    }
    guard let made else { throw ClientError.broken("the build's answer ended before the image was made: its host or the manager went away") }
    return made
  }

  /// To every other host.
  func distribute(_ made: Line.Made, quiet: Bool) async throws {
    for name in options.names {
      let answer = try await client.call("POST", "/orch/v1/images/distribute", [("name", name), ("from", made.node ?? "")])
      try ImageCommand.show(answer, of: name, quiet: quiet)
    }
  }
}
