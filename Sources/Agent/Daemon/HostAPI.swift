import AgentImage
import Build
import Foundation
import Glibc
import LinuxSystem
import Logging
import Model
import Transport
import Wire

/// Requests of the public API that concern this host alone: a manager hands them on as they came (docs/architecture.md).
struct HostAPI: Sendable {
  let rooms: Rooms
  let agent: Agent
  let log: Logger

  /// Bytes of a build's context as it travels, and of its files unpacked.
  static let contextMax: Int64 = 4 << 30
  static let contextEntriesMax = 1_000_000

  func serve(_ stream: TransportStream) async throws {
    guard case .request(let head)? = try await stream.receive(WireAPIMessage.self)?.kind else {
      throw StreamError(.invalidArgument, "a request begins with its head")
    }
    let request = HostRequest(uri: head.uri)
    do {
      switch (head.method, request.path) {
      case ("POST", ["build"]): try await build(request, secrets(head.headers), stream)
      case ("POST", ["build", "prune"]):
        let pruned = try await rooms.builder.prune()
        try await stream.answer(200, type: "application/json")
        // As docker's; of our steps nobody knows the ids.
        try await stream.send(data: Data("{\"CachesDeleted\":[],\"StepsDeleted\":\(pruned.steps),\"SpaceReclaimed\":\(pruned.bytes)}\n".utf8))
      case ("GET", ["stats"]): try await stats(request, stream)
      case ("POST", let path) where path.count == 3 && path[0] == "tasks" && path[2] == "kill":
        try await kill(path[1], request.query.first { $0.name == "signal" }?.value ?? "KILL", stream)
      default: try await stream.answer(404, "this host does not serve \(head.method) /\(request.path.joined(separator: "/")): upgrade its agent")
      }
    } catch let error as Refusal {
      try await stream.answer(error.status, error.message)
    }
    stream.finish()
  }

  private struct Refusal: Error {
    var status: Int
    var message: String
  }

  /// `POST /tasks/ID/kill?signal=INT`: the container's first process gets the signal, as of docker's `/containers/{id}/kill`.
  private func kill(_ task: String, _ signal: String, _ stream: TransportStream) async throws {
    guard let id = TaskID(task) else { throw Refusal(status: 400, message: "'\(task)' is no task's id") }
    do { try await rooms.runtime.signal(id.description, named: signal) } catch {
      switch error.kind {
      case .noSuchContainer, .notRunning: throw Refusal(status: 409, message: "task \(task) is not running")
      case .invalid: throw Refusal(status: 400, message: "\(error)")
      default: throw Refusal(status: 500, message: "\(error)")
      }
    }
    try await stream.answer(204, type: "application/json")
  }

  // MARK: - Build

  /// Of `X-Orch-Build-Secrets`: base64 of a JSON object, each value base64 again. They are in no URL and no log.
  private func secrets(_ headers: [WireAPIHeader]) throws -> [String: [UInt8]] {
    guard let header = headers.first(where: { $0.name.lowercased() == "x-orch-build-secrets" }) else { return [:] }
    guard let data = Data(base64Encoded: header.value), let secrets = try? JSONDecoder().decode([String: Data].self, from: data) else {
      throw Refusal(status: 400, message: "X-Orch-Build-Secrets is not what it should be")
    }
    return secrets.mapValues { [UInt8]($0) }
  }

  private func build(_ request: HostRequest, _ secrets: [String: [UInt8]], _ stream: TransportStream) async throws {
    var (build, isQuiet) = try buildRequest(request)
    build.secrets = secrets
    let folder = try await offPool { try rooms.images.workFolder() }
    defer { Task.detached { try? await offPool { try Files.removeTree(folder) } } }
    let (archive, context) = ("\(folder)/context.tar", "\(folder)/context")
    do {
      guard try await stream.receiveBody(into: archive, limit: Self.contextMax) else {
        throw Refusal(status: 413, message: "the build's context has more than \(Self.contextMax >> 30) GiB: leave files out by .dockerignore")
      }
      try await offPool {
        try Files.makeDirectories(context, mode: 0o755)
        let opened = try OwnedDescriptor.open(context, O_RDONLY | O_DIRECTORY)
        try ImageStore.unpack(file: archive, into: opened.rawValue, maximumBytes: Self.contextMax, maximumEntries: Self.contextEntriesMax)
        unlink(archive)
      }
    } catch let error as ImageError { throw Refusal(status: 400, message: "the build's context: \(error)") }
    try await stream.answer(200, type: "application/json")
    let report = BuildReport(stream: stream, isQuiet: isQuiet)
    await agent.networkApplied()
    do {
      let image = try await rooms.builder.build(build, context: context) { try await report.tell($0) }
      try await report.done(image, names: build.names, node: "\(rooms.node)")
    } catch let error as CancellationError {
      throw error
    } catch {
      var code = 1
      if let error = error as? BuildError, case .command(let exit) = error.kind { code = Int(exit) }
      try await report.failed("\(error)", code: code)
    }
  }

  private func buildRequest(_ request: HostRequest) throws -> (BuildRequest, isQuiet: Bool) {
    func bad(_ message: String) -> Refusal { Refusal(status: 400, message: message) }
    var build = BuildRequest()
    var isQuiet = false
    for (name, value) in request.query {
      switch name {
      case "dockerfile": if !value.isEmpty { build.dockerfile = value }
      case "t": if !value.isEmpty { build.names.append(value) }
      case "target": build.target = value.isEmpty ? nil : value
      case "nocache": build.usesCache = !HostRequest.flag(value)
      case "pull": build.pulls = HostRequest.flag(value)
      case "q": isQuiet = HostRequest.flag(value)
      case "buildargs", "labels":
        guard !value.isEmpty else { continue }
        // A null is docker's word for an argument that has no value here.
        guard let pairs = try? JSONDecoder().decode([String: String?].self, from: Data(value.utf8)) else {
          throw bad("\(name) is no JSON object of texts")
        }
        let given = pairs.compactMapValues { $0 }
        if name == "labels" { build.labels = given } else { build.arguments = given }
      case "networkmode":
        switch value {
        // Docker's clients may name what is its default.
        case "", "default", Network.bridgeName: build.network = .standard
        case "host": build.network = .host
        case "none": build.network = .none
        default: throw bad("a build's network is default, host or none, not '\(value)'")
        }
      case "platform":
        let mine = "linux/\(ImageStore.architecture)"
        if !value.isEmpty, value != mine, value != ImageStore.architecture { throw bad("this host builds for \(mine), not for \(value)") }
      case "version": if value == "2" { throw bad("BuildKit is not served: set DOCKER_BUILDKIT=0, or use orch build") }
      // Containers of steps are always removed, and a cache of ours needs no other images.
      case "rm", "forcerm", "cachefrom", "node", "ulimits", "cgroupparent", "session", "buildid":
        if name == "ulimits", !["", "null", "[]"].contains(value) { throw bad("a build takes no ulimits") }
        if name == "cgroupparent", !value.isEmpty { throw bad("a build takes no cgroupparent") }
      case "remote", "extrahosts", "squash", "shmsize", "memory", "memswap", "cpushares", "cpuquota", "cpuperiod", "cpusetcpus", "cpusetmems",
        "outputs",
        "isolation":
        if !["", "0", "null", "default", "[]"].contains(value) { throw bad("a build takes no \(name)") }
      default: throw bad("a build knows no parameter '\(name)'")
      }
    }
    return (build, isQuiet)
  }
}

/// Path and query of a request that a manager handed on.
struct HostRequest {
  /// Without the version.
  var path: [String]
  var query: [(name: String, value: String)]

  init(uri: String) {
    let parts = uri.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
    path = parts[0].split(separator: "/").map { $0.removingPercentEncoding ?? String($0) }
    if let first = path.first, first.hasPrefix("v1.") { path.removeFirst() }
    func decoded(_ text: Substring) -> String {
      let spaced = text.replacing("+", with: " ")
      return spaced.removingPercentEncoding ?? String(spaced)
    }
    query = (parts.count == 2 ? parts[1] : "").split(separator: "&").map { item in
      let pair = item.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      return (decoded(pair[0]), pair.count == 2 ? decoded(pair[1]) : "")
    }
  }

  static func flag(_ value: String) -> Bool { !["", "0", "no", "false", "none"].contains(value.lowercased()) }
}

extension TransportStream {
  func answer(_ status: Int, type: String) async throws {
    var message = WireAPIMessage()
    message.response.status = UInt32(status)
    message.response.headers = [WireAPIHeader.with { ($0.name, $0.value) = ("Content-Type", type) }]
    try await send(message)
  }
  /// An error as Docker's API has it.
  func answer(_ status: Int, _ message: String) async throws {
    try await answer(status, type: "application/json")
    try await send(data: (try? JSONEncoder().encode(["message": message])) ?? Data())
  }
  func send(data: Data) async throws {
    var message = WireAPIMessage()
    message.data = data
    try await send(message)
  }
  /// false: there is more than `limit` bytes of it.
  func receiveBody(into path: String, limit: Int64) async throws -> Bool {
    let file = SharedDescriptor(try .open(path, O_WRONLY | O_CREAT | O_EXCL))
    var count: Int64 = 0
    while let message = try await receive(WireAPIMessage.self) {
      guard case .data(let data)? = message.kind else { continue }
      count += Int64(data.count)
      if count > limit { return false }
      try await offPool { try Files.writeAll(file.rawValue, [UInt8](data), name: path) }
    }
    return true
  }
}
