import API
import APIClient
import ArgumentParser
import Model
import NIOCore

struct ImageCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "image", abstract: "Images of the hosts: pull, push, load, save, list, remove.",
    discussion: """
      load, import and ls are about every ready host; the others about the host of the manager that is asked, unless --node or --all-hosts says
      otherwise. Credentials for registries are those of this machine (docker login, podman login, skopeo login).

      Example: orch image pull registry.example:5000/web:1 --all-hosts
      Example: orch image save web:1 -o web.tar
      """,
    subcommands: [
      List.self, Pull.self, Push.self, Delete.self, Tag.self, InspectImage.self, History.self, Import.self, Load.self, Save.self, Prune.self,
    ])

  // MARK: - Which hosts

  struct Where: ParsableArguments {
    @Option(help: ArgumentHelp("The host to do it on: a name or node id.", valueName: "host")) var node: String?
    @Flag(name: .customLong("all-hosts"), help: "Do it on every ready host.") var allHosts = false

    func validate() throws {
      if node != nil, allHosts { throw ValidationError("Give --node or --all-hosts, not both") }
    }

    /// The hosts' names; nil: the one of the manager that is asked.
    func hosts(_ client: APIClient) async throws -> [String?] {
      guard allHosts else { return [node] }
      let nodes = try await client.get("/nodes", as: [NodeInspect].self).filter { $0.status.state == "ready" }
      if nodes.isEmpty { throw ClientError.broken("no host is ready: look at orch nodes") }
      return nodes.map(\.hostname).sorted()
    }
  }

  static func query(_ host: String?, _ rest: APIClient.Query = []) -> APIClient.Query { rest + (host.map { [("node", $0)] } ?? []) }

  /// A name in a path keeps its slashes.
  static func path(_ name: String, _ verb: String) -> String {
    "/images/" + name.split(separator: "/").map { percentEncoded(String($0)) }.joined(separator: "/") + verb
  }

  /// Does it on each host in turn. A failure on one does not keep the others from it; with several, each line names its host.
  static func each(_ hosts: [String?], _ body: (String?) async throws -> Void) async throws {
    var failed = false
    for host in hosts {
      do { try await body(host) } catch let error as ClientError where hosts.count > 1 {
        failed = true
        Terminal.warn("orch: \(host ?? ""): \(error)")
      }
    }
    if failed { throw ExitCode(1) }
  }

  // MARK: - In

  struct Load: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Load a docker save or OCI archive, on every ready host.",
      discussion: "Example: docker save web:1 | orch image load -\nExample: orch image load web.tar --node host2")
    @OptionGroup var connection: Connection
    @Argument(
      help: "The archive (plain, gzip or zstd), or an OCI layout's folder; - reads stdin.", completion: .file(extensions: ["tar", "gz", "zst"]))
    var file: String
    @Option(help: ArgumentHelp("Only on this host.", valueName: "host")) var node: String?
    @Flag(name: .shortAndLong, help: "Print nothing but errors.") var quiet = false
    func run() async throws { try await send(file, to: "/orch/v1/images/load", query(node), connection, quiet: quiet) }
  }

  struct Import: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Make an image of a root file system in a tar file, on every ready host.",
      discussion: "Example: orch image import busybox:1 rootfs.tar")
    @OptionGroup var connection: Connection
    @Argument(help: "The image's name, such as web:1.") var name: String
    @Argument(help: "The tar file; - reads stdin.", completion: .file(extensions: ["tar", "gz", "zst"])) var file: String
    @Option(help: ArgumentHelp("Only on this host.", valueName: "host")) var node: String?
    @Flag(name: .shortAndLong, help: "Print nothing but errors.") var quiet = false
    func run() async throws { try await send(file, to: "/orch/v1/images/import", query(node, [("name", name)]), connection, quiet: quiet) }
  }

  private static func send(_ file: String, to path: String, _ query: APIClient.Query, _ connection: Connection, quiet: Bool) async throws {
    let chunks = try Archives.open(file)
    let client = try connection.client()
    let answer: [UInt8]
    do {
      let body = try await client.upload(path, query, chunks, length: chunks.length, type: "application/x-tar")
      answer = Array(try await body.collect(upTo: 16 << 20).readableBytesView)
    } catch ClientError.refused(let status, let message) {
      throw ClientError.refused(status: status, message: "\(file == "-" ? "stdin" : file): \(message)")
    }
    try show(answer, quiet: quiet)
  }

  /// Each host's result; ends with 1 when one failed. `name`: of the image, where the answer does not say it.
  static func show(_ answer: [UInt8], of name: String? = nil, quiet: Bool) throws {
    var failed = false
    for line in answer.split(separator: 10) {
      let result = try JSONText.decode(ImageLoadResult.self, Array(line))
      if let error = result.error {
        failed = true
        Terminal.warn("orch: \(result.host): " + (name.map { "\($0): " } ?? "") + error)
      } else if !quiet {
        Terminal.print("\(result.host): \(result.images?.joined(separator: ", ") ?? name ?? "")")
      }
    }
    if failed { throw ExitCode(1) }
  }

  // MARK: - What there is

  struct List: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "ls", abstract: "List the images and the hosts that have them.", discussion: "Example: orch image ls")
    @OptionGroup var connection: Connection
    @Option(help: ArgumentHelp("Only this host's.", valueName: "host")) var node: String?
    @OptionGroup var list: ListOptions
    func run() async throws {
      var images = try await connection.client().get("/orch/v1/images", as: [ImageSummary].self)
      if let node { images = images.filter { $0.host == node } }
      var groups: [(first: ImageSummary, hosts: [String])] = []
      for image in images {
        if let index = groups.firstIndex(where: { $0.first.name == image.name && $0.first.id == image.id }) {
          groups[index].hosts.append(image.host)
        } else {
          groups.append((image, [image.host]))
        }
      }
      var table = Table([
        .init("Repository", "REPOSITORY", flexible: true), .init("Tag", "TAG"), .init("ID", "IMAGE ID"), .init("CreatedAt", nil),
        .init("Size", "SIZE"),
        .init("Hosts", "HOSTS", flexible: true),
      ])
      for (image, hosts) in groups {
        let (repository, tag) = split(image.name)
        table.add([
          repository, tag, list.short(digest: image.id), image.createdAt?.description ?? "", humanSize(image.size),
          hosts.sorted().joined(separator: ","),
        ])
      }
      list.show(table, ids: groups.map { list.short(digest: $0.first.id) })
    }
    private func split(_ name: String) -> (String, String) {
      if name.isEmpty { return ("<none>", "<none>") }
      let repository = repository(name)
      return repository == name ? (name, "<none>") : (repository, String(name.dropFirst(repository.count + 1)))
    }
  }

  struct InspectImage: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "inspect", abstract: "Show an image in full, as JSON.", discussion: "Example: orch image inspect web:1")
    @OptionGroup var connection: Connection
    @Argument(help: "Names, digests or ids.") var images: [String]
    @OptionGroup var place: Where
    func run() async throws {
      let client = try connection.client()
      var found: [ImageInspect] = []
      for host in try await place.hosts(client) {
        for image in images { found.append(try await client.get(path(image, "/json"), query(host), as: ImageInspect.self)) }
      }
      Terminal.print(JSONText.indented(JSONText.encode(found)))
    }
  }

  struct History: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Show how an image came about, newest step first.", discussion: "Example: orch image history web:1")
    @OptionGroup var connection: Connection
    @Argument(help: "A name, digest or id.") var image: String
    @Option(help: ArgumentHelp("The host that has it.", valueName: "host")) var node: String?
    @OptionGroup var list: ListOptions
    func run() async throws {
      let items = try await connection.client().get(path(image, "/history"), query(node), as: [ImageHistoryItem].self)
      var table = Table([
        .init("ID", "IMAGE"), .init("CreatedAt", "CREATED"), .init("CreatedBy", "CREATED BY", flexible: true), .init("Size", "SIZE"),
        .init("Comment", "COMMENT", flexible: true),
      ])
      for item in items {
        table.add([
          list.short(digest: item.id), item.created == 0 ? "" : Timestamp(nanoseconds: item.created * 1_000_000_000).description, item.createdBy,
          humanSize(item.size),
          item.comment,
        ])
      }
      list.show(table, ids: items.map { list.short(digest: $0.id) })
    }
  }

  // MARK: - Changes

  struct Tag: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Give an image another name.", discussion: "Example: orch image tag web:1 registry.example:5000/web:1")
    @OptionGroup var connection: Connection
    @Argument(help: "A name, digest or id.") var image: String
    @Argument(help: "The new name.") var name: String
    @OptionGroup var place: Where
    func run() async throws {
      let client = try connection.client()
      let repository = repository(name)
      let tag = repository == name ? [] : [("tag", String(name.dropFirst(repository.count + 1)))]
      try await each(place.hosts(client)) { host in try await client.call("POST", path(image, "/tag"), query(host, [("repo", repository)] + tag)) }
    }
  }

  struct Delete: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "rm", abstract: "Take names away, and images that have none left.",
      discussion: "An image that a container is made of is kept; --force takes its name.\n\nExample: orch image rm web:1 --all-hosts")
    @OptionGroup var connection: Connection
    @Argument(help: "Names, digests or ids.") var images: [String]
    @Flag(name: .shortAndLong, help: "Take all names of an id away, and the name of an image that is in use.") var force = false
    @OptionGroup var place: Where
    func run() async throws {
      let client = try connection.client()
      let hosts = try await place.hosts(client)
      var gone = false
      try await each(hosts) { host in
        for image in images {
          let items: [ImageDeleteItem]
          do {
            items = try JSONText.decode(
              [ImageDeleteItem].self, try await client.call("DELETE", path(image, ""), query(host, force ? [("force", "1")] : [])))
          } catch ClientError.refused(404, _) where hosts.count > 1 {
            // On every host: also on those that do not have it.
            continue
          }
          gone = true
          for item in items {
            Terminal.print((hosts.count > 1 ? "\(host ?? ""): " : "") + (item.untagged.map { "Untagged: \($0)" } ?? "Deleted: \(item.deleted ?? "")"))
          }
        }
      }
      if !gone, hosts.count > 1 { throw ClientError.broken("no host has such an image: see orch image ls") }
    }
  }

  struct Prune: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Remove images without a name that no container is made of.",
      discussion: "Example: orch image prune\nExample: orch image prune --all --until 168h --all-hosts")
    @OptionGroup var connection: Connection
    @Flag(name: .shortAndLong, help: "Those with a name, too.") var all = false
    @Option(help: ArgumentHelp("Only what was used last before this time (RFC 3339), or this long ago (24h).", valueName: "time")) var until: String?
    @OptionGroup var place: Where
    func run() async throws {
      let client = try connection.client()
      let hosts = try await place.hosts(client)
      var filters: [String: [String]] = [:]
      if all { filters["dangling"] = ["false"] }
      if let until { filters["until"] = [until] }
      let text = filters.isEmpty ? [] : [("filters", JSONText.line(filters))]
      try await each(hosts) { host in
        let report = try JSONText.decode(ImagePruneReport.self, try await client.call("POST", "/images/prune", query(host, text)))
        let prefix = hosts.count > 1 ? "\(host ?? ""): " : ""
        for item in report.deleted { Terminal.print(prefix + (item.untagged.map { "untagged: \($0)" } ?? "deleted: \(item.deleted ?? "")")) }
        Terminal.print("\(prefix)Total reclaimed space: \(humanSize(report.spaceReclaimed))")
      }
    }
  }
}
