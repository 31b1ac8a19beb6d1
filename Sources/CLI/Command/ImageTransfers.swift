import API
import APIClient
import ArgumentParser
import Foundation
import struct LinuxSystem.OwnedDescriptor
import Model
import NIOCore

extension ImageCommand {
  struct Pull: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Pull an image from its registry.", discussion: "Example: orch image pull registry.example:5000/web:1 --all-hosts")
    @OptionGroup var connection: Connection
    @Argument(help: "Names, such as web:1, HOST:PORT/web:1 or web@sha256:DIGEST.") var images: [String]
    @OptionGroup var place: Where
    @Option(help: ArgumentHelp("For this platform, such as linux/arm64; otherwise each host pulls for its own.", valueName: "os/architecture"))
    var platform: String?
    @Flag(name: .shortAndLong, help: "Print nothing but the name.") var quiet = false
    func run() async throws {
      let client = try connection.client()
      let hosts = try await place.hosts(client)
      let wanted = platform.map { [(name: "platform", value: $0)] } ?? []
      for image in images {
        let reference = try ImageReference(image)
        try await transfer(hosts, reference, client, quiet: quiet) { host in ("/images/create", query(host, [("fromImage", image)] + wanted)) }
        Terminal.print(reference.description)
      }
    }
  }

  struct Push: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Push an image to the registry that its name says.", discussion: "Example: orch image push registry.example:5000/web:1")
    @OptionGroup var connection: Connection
    @Argument(help: "The image's name.") var image: String
    @Option(help: ArgumentHelp("The host that has it.", valueName: "host")) var node: String?
    @Flag(name: .shortAndLong, help: "Print nothing but the name.") var quiet = false
    func run() async throws {
      let reference = try ImageReference(image)
      guard let tag = reference.tag, reference.digest == nil else { throw ValidationError("Push by tag: NAME:TAG, or HOST/NAME:TAG") }
      try await transfer([node], reference, connection.client(), quiet: quiet) { host in
        (path(reference.repository, "/push"), query(host, [("tag", tag)]))
      }
      if quiet { Terminal.print(reference.description) }
    }
  }

  struct Save: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Write images to one archive that orch, docker, podman and skopeo load.",
      discussion: "Example: orch image save web:1 -o web.tar\nExample: orch image save --format oci web:1 > web.oci.tar")
    @OptionGroup var connection: Connection
    @Argument(help: "Names, digests or ids.") var images: [String]
    @Option(name: .shortAndLong, help: "The file to make (with --format oci-dir the folder); otherwise stdout.", completion: .file()) var output:
      String?
    @Option(help: "docker (layers plain), oci (an OCI layout in a tar file: layers as they came), or oci-dir (the layout's folder).") var format:
      SaveFormat =
        .docker
    @Option(help: ArgumentHelp("The host that has them.", valueName: "host")) var node: String?
    enum SaveFormat: String, ExpressibleByArgument, CaseIterable {
      case docker, oci
      case folder = "oci-dir"
    }

    func run() async throws {
      if output == nil, format == .folder { throw ValidationError("Name the folder to make with -o") }
      if output == nil, isatty(1) == 1 { throw ValidationError("An archive is no text: redirect stdout, or name a file with -o") }
      let wire = format == .docker ? "docker" : "oci"
      let client = try connection.client()
      let body = try await client.stream("/images/get", query(node, [("format", wire)] + images.map { ("names", $0) }))
      guard let output else {
        for try await part in body { Terminal.write(1, Array(part.readableBytesView)) }
        return
      }
      if access(output, F_OK) == 0, format == .folder { throw ClientError.broken("\(output) exists: name a folder that does not") }
      // It has its name when it is whole.
      let partial = "\(output).partial-\(getpid())"
      if format == .folder { try await unpack(body, to: partial, output) } else { try await write(body, to: partial, output) }
    }

    private func write(_ body: some AsyncSequence<ByteBuffer, any Error>, to partial: String, _ output: String) async throws {
      let descriptor = open(partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o644)
      guard descriptor >= 0 else { throw Self.problem(output) }
      defer {
        close(descriptor)
        unlink(partial)
      }
      try await Self.copy(body, to: descriptor, output)
      guard fsync(descriptor) == 0, rename(partial, output) == 0 else { throw Self.problem(output) }
    }

    private func unpack(_ body: some AsyncSequence<ByteBuffer, any Error>, to partial: String, _ output: String) async throws {
      guard mkdir(partial, 0o755) == 0 else { throw Self.problem(output) }
      do {
        signal(SIGPIPE, SIG_IGN)
        let (descriptor, process) = try Archives.tar(["-C", partial, "-xf", "-"], child: 0)
        let copied: Result<Void, any Error>
        do { copied = .success(try await Self.copy(body, to: descriptor, output)) } catch { copied = .failure(error) }
        close(descriptor)
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0, errno == EINTR {}
        try copied.get()
        guard status == 0, rename(partial, output) == 0 else { throw ClientError.broken("write \(output): tar ended with \(status >> 8)") }
      } catch {
        try? FileManager.default.removeItem(atPath: partial)
        throw error
      }
    }

    private static func copy(_ body: some AsyncSequence<ByteBuffer, any Error>, to descriptor: Int32, _ output: String) async throws {
      for try await part in body {
        var rest = Array(part.readableBytesView)[...]
        while !rest.isEmpty {
          let count = rest.withUnsafeBytes { Foundation.write(descriptor, $0.baseAddress, $0.count) }
          if count < 0, errno == EINTR { continue }
          guard count > 0 else { throw problem(output) }
          rest = rest.dropFirst(count)
        }
      }
    }
    private static func problem(_ output: String) -> ClientError { .broken("write \(output): \(String(cString: strerror(errno)))") }
  }

  // MARK: - Pull and push

  /// On all hosts at once; each line names its host when there are several.
  private static func transfer(
    _ hosts: [String?], _ reference: ImageReference, _ client: APIClient, quiet: Bool,
    _ request: @escaping @Sendable (String?) -> (path: String, query: APIClient.Query)
  ) async throws {
    let header = try RegistryAuth.header(for: reference).map { [(name: "X-Registry-Auth", value: $0)] } ?? []
    let display = TransferDisplay(quiet: quiet, isTerminal: Terminal.isInteractive)
    let failures = await withTaskGroup(of: String?.self) { group in
      for host in hosts {
        group.addTask {
          let prefix = hosts.count > 1 ? "\(host ?? ""): " : ""
          do {
            let (path, query) = request(host)
            let body = try await client.stream(posting: path, query, headers: header)
            var lines = LineSplitter()
            for try await part in body {
              for line in lines.add(Array(part.readableBytesView)) {
                let message = try JSONText.decode(ImageMessage.self, line)
                if let error = message.error { return prefix + error }
                await display.show(message, prefix)
              }
            }
            return nil
          } catch { return prefix + "\(error)" }
        }
      }
      return await group.reduce(into: [String]()) { if let failure = $1 { $0.append(failure) } }
    }
    if failures.isEmpty { return }
    for failure in failures.sorted().dropLast() { Terminal.warn("orch: " + failure) }
    throw ClientError.broken(failures.sorted().last!)
  }
}

/// Bytes to lines.
struct LineSplitter {
  private var rest: [UInt8] = []
  mutating func add(_ bytes: [UInt8]) -> [[UInt8]] {
    rest += bytes
    var lines = rest.split(separator: 10, omittingEmptySubsequences: false).map { Array($0) }
    rest = lines.removeLast()
    return lines.map { $0.last == 13 ? $0.dropLast() : $0 }.filter { !$0.isEmpty }
  }
}

/// A line for each layer that redraws on a terminal; elsewhere a line when a layer's state changes.
actor TransferDisplay {
  private let quiet: Bool
  private let isTerminal: Bool
  private var order: [String] = []
  private var states: [String: String] = [:]
  init(quiet: Bool, isTerminal: Bool) { (self.quiet, self.isTerminal) = (quiet, isTerminal) }

  func show(_ message: ImageMessage, _ prefix: String) {
    guard !quiet, let status = message.status else { return }
    // Heads and ends are no layers.
    guard let id = message.id, let detail = message.progressDetail else {
      order = []
      return Terminal.print(prefix + (message.id.map { "\($0): " } ?? "") + status)
    }
    let key = prefix + id
    guard isTerminal else {
      if states.updateValue(status, forKey: key) != status { Terminal.print("\(key): \(status)") }
      return
    }
    var line = "\(key): \(status)"
    if let current = detail.current, let total = detail.total, total > 0 { line += " " + Self.bar(current, total) }
    let limit = max(20, (Terminal.width ?? 80) - 1)
    line = String(line.prefix(limit))
    if let index = order.firstIndex(of: key) {
      let up = order.count - index
      Terminal.write(1, Array("\u{1b}[\(up)A\r\u{1b}[2K\(line)\u{1b}[\(up)B\r".utf8))
    } else {
      order.append(key)
      Terminal.print(line)
    }
  }

  /// docker's: `[====>    ]  1.2MB/5MB`.
  static func bar(_ current: Int64, _ total: Int64) -> String {
    let width = 50
    let done = Int(min(Int64(width), current * Int64(width) / max(1, total)))
    let bar = String(repeating: "=", count: done) + (done < width ? ">" : "") + String(repeating: " ", count: max(0, width - done - 1))
    return "[\(bar)]  \(humanSize(current))/\(humanSize(total))"
  }
}

/// An archive's bytes: of a file, of stdin, or of a folder, which tar(1) packs on the way.
enum Archives {
  static func open(_ path: String) throws -> FileChunks {
    var status = stat()
    guard path != "-", stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else { return try FileChunks(path) }
    guard access(path + "/index.json", F_OK) == 0 else {
      throw Terminal.FileProblem(path: path, cause: "the folder has no index.json: it is no OCI layout")
    }
    return FileChunks(descriptor: try tar(["-C", path, "-cf", "-", "."], child: 1).descriptor, length: nil)
  }

  /// Starts tar with one end of a pipe as its descriptor `child`; our end and its process.
  static func tar(_ arguments: [String], child: Int32) throws -> (descriptor: Int32, process: pid_t) {
    let ends = try OwnedDescriptor.pipe()
    let (ours, theirs) = child == 1 ? (ends.read, ends.write) : (ends.write, ends.read)
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_adddup2(&actions, theirs, child)
    var words: [UnsafeMutablePointer<CChar>?] = (["tar"] + arguments).map { strdup($0) }
    words.append(nil)
    defer { for word in words { free(word) } }
    var process: pid_t = 0
    let result = posix_spawnp(&process, "tar", &actions, nil, words, environ)
    close(theirs)
    guard result == 0 else { throw ClientError.broken("run tar: \(String(cString: strerror(result)))") }
    return (ours, process)
  }
}
