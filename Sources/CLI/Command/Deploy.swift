import API
import APIClient
import ArgumentParser
import Manifest
import Model

/// Shared by the commands that change services.
struct WaitOptions: ParsableArguments {
  @Flag(name: .shortAndLong, help: "Return as soon as the cluster has accepted it.")
  var detach = false
  @Flag(name: .shortAndLong, help: "Show no progress.")
  var quiet = false
  @Option(help: "Seconds after which to stop waiting.")
  var timeout = 300

  func wait(_ client: APIClient, _ services: [String], rollingBack: Bool = false, unchanged: Set<String> = []) async throws {
    guard !detach else { return }
    try await Progress(client: client, quiet: quiet, timeout: timeout, rollingBack: rollingBack, unchanged: unchanged).wait(for: services)
  }
}

struct Deploy: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Deploy a manifest (a Compose file) as a stack, or bring a stack to what its manifest says now.",
    discussion: """
      What is new is created, what differs is updated, what the manifest lacks is removed, the rest is left alone.

      Example: orch deploy manifests/web.yaml
      """)
  @OptionGroup var connection: Connection
  @Argument(help: "The manifest; - reads it from stdin.", completion: .file(extensions: ["yaml", "yml"]))
  var file: String?
  @Option(
    name: [.customShort("c"), .customLong("compose-file")], help: ArgumentHelp("The manifest, as docker stack deploy has it.", valueName: "file"),
    completion: .file(extensions: ["yaml", "yml"]))
  var composeFile: String?
  @Option(
    name: [.customLong("name"), .customLong("stack")],
    help: ArgumentHelp("The stack's name; otherwise the manifest's, or its file's.", valueName: "stack"))
  var name: String?
  @Flag(help: "Build the images of services that say how (build:) on one host, and bring them to all.") var build = false
  @Option(help: ArgumentHelp("With --build: on this host; the manager's own otherwise.", valueName: "host")) var buildNode: String?
  @OptionGroup var auth: RegistryAuthOption
  @OptionGroup var waiting: WaitOptions

  func run() async throws {
    var path = file
    var stackName = name
    if let composeFile {
      // docker stack deploy -c FILE STACK
      path = composeFile
      if let file { stackName = stackName ?? file }
    }
    guard let path else { throw ValidationError("Name the manifest: orch deploy FILE") }
    let text = try Terminal.readFile(path)
    let stack: StackSpec
    do {
      stack = try Manifest.parse(
        text: text, path: path == "-" ? "stdin" : path, projectName: stackName, workingDirectory: Terminal.workingDirectory,
        environment: Terminal.allEnvironment)
    } catch {
      for diagnostic in error.diagnostics { Terminal.warn(diagnostic.description) }
      Terminal.fail("\(path) was not deployed: \(error.errors.count) \(error.errors.count == 1 ? "error" : "errors")")
    }
    for warning in stack.warnings { Terminal.warn(warning.description) }
    let client = try connection.client()
    try await checkExternals(stack, client)
    if build { try await buildImages(stack, client) } else { try await checkBuilt(stack, client) }
    var request = StackDeployRequest(
      manifest: text, services: stack.services, networks: stack.networks,
      volumes: stack.volumes.map { VolumeSpec(name: $0.name, labels: $0.labels, driver: $0.driver, driverOptions: $0.driverOptions) },
      secrets: try contents(.secret, stack), configs: try contents(.config, stack))
    if auth.withRegistryAuth {
      request.registryLogins = [:]
      for service in stack.services { request.registryLogins?[service.name] = try auth.header(for: service.taskTemplate.containerSpec.image) }
    }
    let result = try await client.post("/orch/v1/stacks/\(percentEncoded(stack.name))", [], request, as: StackDeployResponse.self)
    for warning in result.warnings { Terminal.warn("warning: \(warning)") }
    if !waiting.quiet {
      for line in result.created { Terminal.print("created    \(line)") }
      for line in result.updated { Terminal.print("updated    \(line)") }
      for line in result.removed { Terminal.print("removed    \(line)") }
      for line in result.unchanged { Terminal.print("unchanged  \(line)") }
    }
    let names = Set(stack.services.map(\.name))
    let services = try await client.get(
      "/services", [("filters", JSONText.line(["label": ["\(StackLabel.namespace)=\(stack.name)"]]))], as: [ServiceInspect].self)
    // How an earlier update of a service ended is no news for one that this deploy left alone.
    let unchanged = Set(services.filter { result.unchanged.contains("service \($0.spec.name)") }.map(\.id))
    try await waiting.wait(client, services.filter { names.contains($0.spec.name) }.map(\.id), unchanged: unchanged)
  }

  private func buildImages(_ stack: StackSpec, _ client: APIClient) async throws {
    if stack.builds.isEmpty { Terminal.warn("warning: no service of the manifest says how to build its image (build:)") }
    for wanted in stack.builds {
      if !waiting.quiet { Terminal.print("building   \(wanted.image) for service \(wanted.service)") }
      var options = ImageBuild.Options(
        context: wanted.context, dockerfile: wanted.dockerfile.map { $0.hasPrefix("/") ? $0 : "\(wanted.context)/\($0)" })
      options.names = [wanted.image] + wanted.tags
      (options.target, options.arguments, options.labels) = (wanted.target, wanted.arguments, wanted.labels)
      (options.noCache, options.pull, options.network, options.node) = (wanted.noCache, wanted.pull, wanted.network, buildNode)
      let building = ImageBuild(client: client, options: options)
      let quiet = waiting.quiet
      let made = try await building.run { if !quiet, let text = $0.stream { Terminal.write(1, Array(text.utf8)) } }
      try await building.distribute(made, quiet: quiet)
    }
  }

  /// An image that only a build makes is in no registry: better told now than by every task.
  private func checkBuilt(_ stack: StackSpec, _ client: APIClient) async throws {
    let own = stack.builds.filter(\.isUnnamed)
    guard !own.isEmpty else { return }
    let names = Set(try await client.get("/orch/v1/images", as: [ImageSummary].self).map(\.name))
    for build in own {
      let known = (try? ImageReference(build.image))?.familiar ?? build.image
      guard !names.contains(known) else { continue }
      throw ClientError.broken(
        "service \(build.service): the image \(known) is on no host: build it with orch deploy --build, or orch build -t \(known) --all-hosts \(build.context)"
      )
    }
  }

  private func contents(_ kind: StoredFile.Kind, _ stack: StackSpec) throws -> [FileSpec] {
    try stack.files.filter { $0.kind == kind }.map { file in
      switch file.source {
      case .text(let text): FileSpec(name: file.name, labels: file.labels, data: Array(text.utf8))
      case .path(let path): FileSpec(name: file.name, labels: file.labels, data: try Terminal.readBytes(path))
      }
    }
  }

  private func checkExternals(_ stack: StackSpec, _ client: APIClient) async throws {
    for network in stack.externalNetworks {
      do { _ = try await client.get("/networks/\(percentEncoded(network))", as: NetworkInspect.self) } catch let error as ClientError
        where error.status == 404
      {
        throw ClientError.broken(
          "network \(network) is declared external and does not exist: create it first (docker network create -d overlay \(network)), or drop external: true"
        )
      }
    }
    for file in stack.externalFiles {
      do { _ = try await client.get("/\(file.kind)s/\(percentEncoded(file.name))", as: FileInspect.self) } catch let error as ClientError
        where error.status == 404
      {
        throw ClientError.broken(
          "\(file.kind) \(file.name) is declared external and does not exist: create it first (orch \(file.kind) create \(file.name) FILE), or drop external: true"
        )
      }
    }
    for volume in stack.externalVolumes {
      do { _ = try await client.get("/volumes/\(percentEncoded(volume))", as: VolumeInspect.self) } catch let error as ClientError
        where error.status == 404
      {
        throw ClientError.broken(
          "volume \(volume) is declared external and does not exist: create it first (docker volume create \(volume)), or drop external: true")
      }
    }
  }
}

struct Down: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Remove a stack: its services, their tasks and its networks; its volumes only with --volumes.",
    discussion: "Waits until all of it is gone.\n\nExample: orch down web --volumes")
  @OptionGroup var connection: Connection
  @Argument(help: "The stack's name.") var stack: String
  @Flag(name: .shortAndLong, help: "Delete its volumes and their data too.") var volumes = false
  @OptionGroup var waiting: WaitOptions

  func run() async throws {
    let client = try connection.client()
    let filter = JSONText.line(["label": ["\(StackLabel.namespace)=\(stack)"]])
    let services = try await client.get("/services", [("filters", filter)], as: [ServiceInspect].self)
    let answer = try JSONText.decode(
      StackRemoveResponse.self, try await client.call("DELETE", "/orch/v1/stacks/\(percentEncoded(stack))", volumes ? [("volumes", "1")] : []))
    if !waiting.quiet { for line in answer.removed { Terminal.print("removing   \(line)") } }
    if !waiting.detach { try await waitUntilGone(client, services) }
    for warning in answer.warnings { Terminal.warn("orch: \(warning)") }
    if !waiting.quiet, !waiting.detach { Terminal.print("stack \(stack) is gone" + (volumes ? "" : "; its volumes stay (orch volumes)")) }
    if !answer.warnings.isEmpty { throw ExitCode(1) }
  }

  /// The stack's end is the last event of its removal.
  private func waitUntilGone(_ client: APIClient, _ services: [ServiceInspect]) async throws {
    guard !services.isEmpty else { return }
    Terminal.explainInterrupt("Stopped watching; the removal goes on.")
    let pulses = Pulses(client, types: ["task", "service", "stack"])
    defer { pulses.end() }
    let limit = ContinuousClock.now + .seconds(waiting.timeout)
    let alarm = Task {
      try? await Task.sleep(until: limit)
      pulses.now()
    }
    defer { alarm.cancel() }
    var left = services
    for await _ in pulses.stream {
      var problem: ClientError?
      while problem == nil, let next = left.first {
        do {
          _ = try await client.get("/services/\(next.id)", as: ServiceInspect.self)
          break
        } catch let error as ClientError where error.status == 404 {
          left.removeFirst()
        } catch let error as ClientError where error.isTransient {
          problem = error
        }
      }
      guard let next = left.first else { return }
      if ContinuousClock.now >= limit {
        throw problem
          ?? ClientError.broken(
            "service \(next.spec.name) is not gone after \(waiting.timeout) s: the removal goes on; orch ps shows what still runs")
      }
    }
  }
}

struct Stacks: AsyncParsableCommand {
  static let configuration = CommandConfiguration(abstract: "List the stacks.", discussion: "Example: orch stacks --format json")
  @OptionGroup var connection: Connection
  @OptionGroup var list: ListOptions

  func run() async throws {
    let stacks = try await connection.client().get("/orch/v1/stacks", as: [StackInspect].self)
    var table = Table([.init("Name", "NAME"), .init("Services", "SERVICES"), .init("Revision", "REVISION"), .init("UpdatedAt", "UPDATED")])
    for stack in stacks {
      table.add([
        stack.name, String(stack.services.count), String(stack.revision),
        list.format == .json ? stack.updatedAt.description : stack.updatedAt.ago,
      ])
    }
    list.show(table, ids: stacks.map(\.name))
  }
}
