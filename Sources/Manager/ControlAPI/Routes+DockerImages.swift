import API
import Model
import NIOCore
import RegistryLogin

// Docker's /images of one host: the one that `node` names (orch's own parameter: an id, a part of one, or a host's name), else the one whose
// manager was asked. docker's commands work on it: pull, push, images, rmi, tag, inspect, history, save, load, image prune.
extension ControlAPI {
  /// The request with the host that it is about, before it may go to the leader on another one.
  func placed(_ request: APIRequest, _ target: Target) async -> APIRequest {
    guard target.path.first == "images", target["node"] == nil else { return request }
    var request = request
    request.uri += (request.uri.contains("?") ? "&" : "?") + "node=\(await backend.info().node)"
    return request
  }

  func routeImages(_ request: APIRequest, _ target: Target) async throws -> APIResponse {
    let path = target.path
    let name = path.dropFirst().dropLast().joined(separator: "/")
    switch (request.method, path.last ?? "", path.count) {
    case ("GET", "json", 2): return try await dockerImages(target)
    case ("POST", "create", 2): return try await pullImage(request, target)
    case ("POST", "load", 2): return try await dockerLoad(request, target)
    case ("POST", "prune", 2): return try await pruneImages(target)
    case ("GET", "get", 2): return try await saveImages((target.query["names"] ?? []).flatMap { $0.split(separator: ",").map(String.init) }, target)
    case ("GET", "json", 3...): return try await inspectImage(name, target)
    case ("GET", "history", 3...): return try await imageHistory(name, target)
    case ("GET", "get", 3...): return try await saveImages([name], target)
    case ("POST", "push", 3...): return try await pushImage(name, request, target)
    case ("POST", "tag", 3...): return try await tagImage(name, target)
    case ("DELETE", _, 2...): return try await removeImage(path.dropFirst().joined(separator: "/"), target)
    default: throw APIError(501, "orch does not serve \(request.method) /\(path.joined(separator: "/")); docs/images.md lists what it does")
    }
  }

  // MARK: - Which host

  func imageHost(_ target: Target) async throws -> Node {
    let state = try await backend.state()
    var named = target["node"] ?? ""
    if named.isEmpty { named = await backend.info().node.description }
    let node = try state.lookUpNode(named)
    guard node.status.state == .ready else {
      throw APIError(503, "host \(node.hostname) is not ready, or has no agent: name another one (orch: --node; docs/images.md)")
    }
    return node
  }

  /// The one event that answers.
  private func ask(_ command: ImageCommand, _ target: Target) async throws -> (event: ImageEvent, node: Node) {
    let node = try await imageHost(target)
    for try await event in try await backend.image(command, on: node.id) {
      if case .progress = event { continue }
      return (event, node)
    }
    throw APIError(500, "host \(node.hostname) ended without an answer")
  }

  // MARK: - Questions

  private func dockerImages(_ target: Target) async throws -> APIResponse {
    let filters = try Filters(target, accepted: ["reference", "dangling"])
    let node = try await imageHost(target)
    var items: [ImageListItem] = []
    for image in try await backend.images(on: node.id) {
      let dangling = image.name.isEmpty
      if let wanted = filters["dangling"]?.first, ["true", "1"].contains(wanted) != dangling { continue }
      if let wanted = filters["reference"], !wanted.contains(where: { $0 == image.name || $0 == repository(image.name) }) { continue }
      let names = dangling ? [] : [image.name]
      let digests = dangling || image.digest.isEmpty ? [] : [repository(image.name) + "@" + image.digest]
      if let index = items.firstIndex(where: { $0.id == image.id }) {
        items[index].repoTags += names
        for digest in digests where !items[index].repoDigests.contains(digest) { items[index].repoDigests.append(digest) }
      } else {
        items.append(
          ImageListItem(
            id: image.id, repoTags: names, repoDigests: digests, created: (image.createdAt?.nanoseconds ?? 0) / 1_000_000_000, size: image.sizeBytes))
      }
    }
    return .json(items.sorted { ($1.created, $0.id) < ($0.created, $1.id) })
  }

  private func detail(_ name: String, _ target: Target) async throws -> (ImageDetail, ImageDocument, Node) {
    guard case (.image(let detail), let node) = try await ask(.inspect(name: name), target) else {
      throw APIError(500, "another answer than an image")
    }
    return (detail, try JSON.parse(ImageDocument.self, detail.config), node)
  }

  private func inspectImage(_ name: String, _ target: Target) async throws -> APIResponse {
    let (detail, document, node) = try await detail(name, target)
    return .json(
      document.inspect(
        id: detail.id, digest: detail.digest, names: detail.names, size: detail.size, host: node.hostname, inUse: detail.inUse))
  }

  private func imageHistory(_ name: String, _ target: Target) async throws -> APIResponse {
    let (detail, document, _) = try await detail(name, target)
    return .json(document.historyItems(id: detail.id, names: detail.names, sizes: detail.layerSizes))
  }

  // MARK: - Changes

  private func removeImage(_ name: String, _ target: Target) async throws -> APIResponse {
    guard case (.removed(let untagged, let deleted, _), _) = try await ask(.remove(name: name, force: target.flag("force")), target) else {
      throw APIError(500, "another answer than a removal")
    }
    return .json(untagged.map { ImageDeleteItem(untagged: $0) } + deleted.map { ImageDeleteItem(deleted: $0) })
  }

  private func tagImage(_ name: String, _ target: Target) async throws -> APIResponse {
    guard let repository = target["repo"], !repository.isEmpty else { throw APIError(400, "give the new name: ?repo=NAME&tag=TAG") }
    let tag = target["tag"].flatMap { $0.isEmpty ? nil : ":" + $0 } ?? ""
    _ = try await ask(.tag(source: name, target: repository + tag), target)
    return APIResponse(status: 201)
  }

  private func pruneImages(_ target: Target) async throws -> APIResponse {
    let filters = try Filters(target, accepted: ["dangling", "until"])
    let all = filters["dangling"].map { $0.contains { ["false", "0"].contains($0) } } ?? false
    var before: Timestamp?
    if let text = filters["until"]?.first {
      guard let time = Timestamp(text) ?? Self.ago(text) else {
        throw APIError(400, "invalid filter 'until=\(text)': a time (RFC 3339), or how long ago, such as 24h or 10m")
      }
      before = time
    }
    guard case (.removed(let untagged, let deleted, let bytes), _) = try await ask(.prune(all: all, before: before), target) else {
      throw APIError(500, "another answer than a removal")
    }
    return .json(
      ImagePruneReport(
        deleted: untagged.map { ImageDeleteItem(untagged: $0) } + deleted.map { ImageDeleteItem(deleted: $0) }, spaceReclaimed: bytes))
  }

  private static func ago(_ text: String) -> Timestamp? {
    let units: [Character: Int64] = ["s": 1, "m": 60, "h": 3600, "d": 86_400]
    guard let last = text.last, let unit = units[last], let count = Int64(text.dropLast()), (0...100_000_000).contains(count) else { return nil }
    return Timestamp(nanoseconds: Timestamp.now.nanoseconds - count * unit * 1_000_000_000)
  }

  // MARK: - Streams

  private func login(_ request: APIRequest) throws -> RegistryCredentials? {
    try request.header("x-registry-auth").flatMap(credentials)
  }

  /// docker's `--platform`: OS/ARCHITECTURE[/VARIANT].
  private func platform(_ target: Target) throws -> String? {
    guard let text = target["platform"], !text.isEmpty else { return nil }
    var parts = text.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
    guard (2...3).contains(parts.count), !parts.contains("") else {
      throw APIError(400, "'\(text)' is no platform: OS/ARCHITECTURE, such as linux/amd64")
    }
    guard parts[0] == "linux" else { throw APIError(400, "hosts are Linux, and keep no images for \(text)") }
    parts[1] = goArchitecture(parts[1])
    return parts.joined(separator: "/")
  }

  private func pullImage(_ request: APIRequest, _ target: Target) async throws -> APIResponse {
    guard let image = target["fromImage"], !image.isEmpty else {
      throw APIError(501, "an image is made of a tar file by POST /orch/v1/images/import (orch image import)")
    }
    let tag = target["tag"].flatMap { $0.isEmpty ? nil : $0 }
    let name = tag.map { image + ($0.hasPrefix("sha256:") ? "@" : ":") + $0 } ?? image
    let reference: ImageReference
    do { reference = try ImageReference(name) } catch { throw APIError(400, "\(error)") }
    let node = try await imageHost(target)
    let events = try await backend.image(.pull(name: name, platform: try platform(target), try login(request)), on: node.id)
    let head = ImageMessage(status: "Pulling from \(reference.path)", id: reference.tag ?? reference.digest?.description)
    return try await messages(events, head: head, words: Self.pullWords) { digest, changed in
      [
        ImageMessage(status: "Digest: \(digest)"),
        ImageMessage(status: "Status: " + (changed ? "Downloaded newer image for " : "Image is up to date for ") + reference.familiar),
      ]
    }
  }

  private func pushImage(_ name: String, _ request: APIRequest, _ target: Target) async throws -> APIResponse {
    let tag = target["tag"].flatMap { $0.isEmpty ? nil : ":" + $0 } ?? ""
    let reference: ImageReference
    do { reference = try ImageReference(name + tag) } catch { throw APIError(400, "\(error)") }
    let node = try await imageHost(target)
    let events = try await backend.image(.push(name: name + tag, try login(request)), on: node.id)
    let head = ImageMessage(status: "The push refers to repository [\(reference.repository)]")
    return try await messages(events, head: head, words: Self.pushWords) { digest, _ in
      let tag = reference.tag ?? ""
      return [
        ImageMessage(status: "\(tag): digest: \(digest)"), ImageMessage(progressDetail: .init(), aux: .init(Tag: tag, Digest: digest, Size: 0)),
      ]
    }
  }

  private static func pullWords(_ phase: ImageEvent.Phase) -> String {
    switch phase {
    case .waiting, .uploading, .mounted: "Pulling fs layer"
    case .downloading: "Downloading"
    case .unpacking: "Extracting"
    case .done: "Pull complete"
    case .alreadyThere: "Already exists"
    }
  }
  private static func pushWords(_ phase: ImageEvent.Phase) -> String {
    switch phase {
    case .waiting, .downloading, .unpacking: "Preparing"
    case .uploading: "Pushing"
    case .done: "Pushed"
    case .alreadyThere: "Layer already exists"
    case .mounted: "Mounted"
    }
  }

  /// Docker's lines. What fails before anything was said is the answer's status; what fails later is its last line.
  private func messages(
    _ events: AsyncThrowingStream<ImageEvent, any Error>, head: ImageMessage, words: @escaping @Sendable (ImageEvent.Phase) -> String,
    end: @escaping @Sendable (_ digest: String, _ changed: Bool) -> [ImageMessage]
  ) async throws -> APIResponse {
    let source = EventSource(events)
    let first = try await source.next()
    let lines = AsyncThrowingStream<ByteBuffer, any Error> {
      while true {
        guard let step = await source.step(first, head, words, end) else { return nil }
        return ByteBuffer(bytes: step.flatMap { JSON.encode($0) + [13, 10] })
      }
    }
    return APIResponse(status: 200, headers: [APIHeader("Content-Type", "application/json")], body: APIBody(stream: lines), hasReadRequest: false)
  }

  private actor EventSource {
    private var iterator: AsyncThrowingStream<ImageEvent, any Error>.Iterator
    private var begun = false
    private var ended = false
    private var changed = false
    init(_ events: AsyncThrowingStream<ImageEvent, any Error>) { iterator = events.makeAsyncIterator() }

    func next() async throws -> ImageEvent? {
      var iterator = iterator
      defer { self.iterator = iterator }
      return try await iterator.next(isolation: self)
    }

    func data(_ first: [UInt8]) async throws -> [UInt8]? {
      if !begun {
        begun = true
        return first
      }
      guard case .data(let bytes)? = try await next() else { return nil }
      return bytes
    }

    func step(
      _ first: ImageEvent?, _ head: ImageMessage, _ words: (ImageEvent.Phase) -> String, _ end: (String, Bool) -> [ImageMessage]
    ) async -> [ImageMessage]? {
      if ended { return nil }
      var result: [ImageMessage] = []
      let event: ImageEvent?
      if begun {
        do { event = try await next() } catch {
          ended = true
          return [ImageMessage(error: "\(error)", errorDetail: .init(message: "\(error)"))]
        }
      } else {
        begun = true
        result = [head]
        event = first
      }
      switch event {
      case .progress(let layer, let phase, let done, let total):
        if phase != .alreadyThere { changed = true }
        let shows = phase == .downloading || phase == .uploading
        result.append(
          ImageMessage(
            status: words(phase), id: String(layer.dropFirst(7).prefix(12)),
            progressDetail: shows ? .init(current: done, total: total) : .init()))
      case .digest(let digest):
        ended = true
        result += end(digest, changed)
      case nil:
        ended = true
        result.append(ImageMessage(error: "the host ended without an answer", errorDetail: .init(message: "the host ended without an answer")))
      default: break
      }
      return result
    }
  }

  private func saveImages(_ names: [String], _ target: Target) async throws -> APIResponse {
    let format = target["format"] ?? "docker"
    guard ["docker", "oci"].contains(format) else { throw APIError(400, "invalid format '\(format)': docker or oci") }
    let archive = try await savedImages(names, oci: format == "oci", on: imageHost(target))
    return APIResponse(status: 200, headers: [APIHeader("Content-Type", "application/x-tar")], body: archive)
  }

  /// One archive of them. What cannot be saved is thrown before its first byte.
  func savedImages(_ names: [String], oci: Bool, on node: Node) async throws -> APIBody {
    let source = EventSource(try await backend.image(.save(names: names, oci: oci), on: node.id))
    guard case .data(let start)? = try await source.next() else { throw APIError(500, "host \(node.hostname) ended without an answer") }
    return APIBody(stream: AsyncThrowingStream { try await source.data(start).map { ByteBuffer(bytes: $0) } })
  }

  private func dockerLoad(_ request: APIRequest, _ target: Target) async throws -> APIResponse {
    let node = try await imageHost(target)
    let names = try await backend.loadImage(.archive, on: node.id, body: request.body)
    let lines = names.map { ImageMessage(stream: "Loaded image: \($0)\n") }
    return APIResponse(
      status: 200, headers: [APIHeader("Content-Type", "application/json")], body: APIBody(bytes: lines.flatMap { JSON.encode($0) + [13, 10] }))
  }
}
