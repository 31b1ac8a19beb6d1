import API
import APIClient
import ArgumentParser
import Model
import NIOCore

struct Networks: AsyncParsableCommand {
  static let configuration = CommandConfiguration(abstract: "List the networks.", discussion: "Example: orch networks")
  @OptionGroup var connection: Connection
  @OptionGroup var list: ListOptions

  func run() async throws {
    let networks = try await connection.client().get("/networks", as: [NetworkInspect].self)
    var table = Table([
      .init("ID", "NETWORK ID"), .init("Name", "NAME", flexible: true), .init("Driver", "DRIVER"), .init("Scope", "SCOPE"), .init("Subnet", "SUBNET"),
      .init("Internal", nil), .init("IPv6", nil), .init("Labels", nil), .init("CreatedAt", nil),
    ])
    for network in networks {
      table.add([
        list.short(network.id), network.name, network.driver, network.scope, network.ipam.config?.first?.subnet ?? "", String(network.internalOnly),
        String(network.enableIPv6), network.labels.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: ","),
        network.created.description,
      ])
    }
    list.show(table, ids: networks.map { list.short($0.id) })
  }
}

struct Volumes: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "List the volumes; --rm deletes some.",
    discussion: "A volume's data is on the hosts whose tasks mount it.\n\nExample: orch volumes\nExample: orch volumes --rm web_data")
  @OptionGroup var connection: Connection
  @Option(name: .customLong("rm"), help: ArgumentHelp("Delete a volume and its data on every host; repeatable.", valueName: "name")) var remove:
    [String] = []
  @OptionGroup var list: ListOptions

  func run() async throws {
    let client = try connection.client()
    if !remove.isEmpty {
      for name in remove {
        try await client.call("DELETE", "/volumes/\(percentEncoded(name))")
        Terminal.print(name)
      }
      return
    }
    let volumes = try await client.get("/volumes", as: VolumeList.self).volumes
    var table = Table([
      .init("Driver", "DRIVER"), .init("Name", "VOLUME NAME", flexible: true), .init("Labels", nil), .init("Mountpoint", nil), .init("Scope", nil),
    ])
    for volume in volumes {
      table.add([
        volume.driver, volume.name, volume.labels.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: ","),
        volume.mountpoint,
        volume.scope,
      ])
    }
    list.show(table, ids: volumes.map(\.name))
  }
}

struct ImageCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "image", abstract: "Bring images to the hosts and list them.", discussion: "Example: orch image load web.tar",
    subcommands: [Load.self, Import.self, List.self])

  struct Load: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Load a docker save or OCI archive on every ready host.",
      discussion: "Example: docker save web:1 | orch image load -\nExample: orch image load web.tar")
    @OptionGroup var connection: Connection
    @Argument(help: "The archive; - reads stdin.", completion: .file(extensions: ["tar", "gz"])) var file: String
    @Flag(name: .shortAndLong, help: "Print nothing but errors.") var quiet = false
    func run() async throws { try await send(file, to: "/orch/v1/images/load", [], connection, quiet: quiet) }
  }

  struct Import: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Make an image of a root file system in a tar file, on every ready host.",
      discussion: "Example: orch image import busybox:1 rootfs.tar")
    @OptionGroup var connection: Connection
    @Argument(help: "The image's name, such as web:1.") var name: String
    @Argument(help: "The tar file; - reads stdin.", completion: .file(extensions: ["tar", "gz"])) var file: String
    @Flag(name: .shortAndLong, help: "Print nothing but errors.") var quiet = false
    func run() async throws { try await send(file, to: "/orch/v1/images/import", [("name", name)], connection, quiet: quiet) }
  }

  struct List: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "ls", abstract: "List the images and the hosts that have them.", discussion: "Example: orch image ls")
    @OptionGroup var connection: Connection
    @OptionGroup var list: ListOptions
    func run() async throws {
      let images = try await connection.client().get("/orch/v1/images", as: [ImageSummary].self)
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
        let id = image.id.hasPrefix("sha256:") && !list.noTruncation ? String(image.id.dropFirst(7)) : image.id
        table.add([repository, tag, list.short(id), image.createdAt?.description ?? "", humanSize(image.size), hosts.sorted().joined(separator: ",")])
      }
      list.show(table, ids: groups.map { list.short($0.first.id.hasPrefix("sha256:") ? String($0.first.id.dropFirst(7)) : $0.first.id) })
    }
    /// The tag is after the last colon that no slash follows.
    private func split(_ name: String) -> (String, String) {
      guard let colon = name.lastIndex(of: ":"), !name[colon...].contains("/") else { return (name, "<none>") }
      return (String(name[..<colon]), String(name[name.index(after: colon)...]))
    }
  }

  private static func send(_ file: String, to path: String, _ query: APIClient.Query, _ connection: Connection, quiet: Bool) async throws {
    let chunks = try FileChunks(file)
    let client = try connection.client()
    let answer: [UInt8]
    do {
      let body = try await client.upload(path, query, chunks, length: chunks.length, type: "application/x-tar")
      answer = Array(try await body.collect(upTo: 16 << 20).readableBytesView)
    } catch ClientError.refused(let status, let message) {
      throw ClientError.refused(status: status, message: "\(file == "-" ? "stdin" : file): \(message)")
    }
    var failed = false
    for line in answer.split(separator: 10) {
      let result = try JSONText.decode(ImageLoadResult.self, Array(line))
      if let error = result.error {
        failed = true
        Terminal.warn("orch: \(result.host): \(error)")
      } else if !quiet {
        Terminal.print("\(result.host): \(result.images?.joined(separator: ", ") ?? "")")
      }
    }
    if failed { throw ExitCode(1) }
  }
}
