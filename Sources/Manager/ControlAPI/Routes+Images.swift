import API
import Model
import NIOCore

extension ControlAPI {
  /// Streams the body to every ready host at once, or to the one that `node` names; the slowest paces. One JSON line a host; 500 when no host
  /// has it.
  func loadImage(_ load: ImageLoad, _ request: APIRequest, _ target: Target) async throws -> APIResponse {
    let nodes =
      target["node"] != nil
      ? [try await imageHost(target)]
      : try await backend.state().nodes.values.filter { $0.status.state == .ready }.sorted { $0.hostname < $1.hostname }
    if nodes.isEmpty { throw APIError(503, "no host is ready to take the image: look at orch nodes") }
    return try await spread(load, request.body, to: nodes)
  }

  /// The same to these hosts.
  func spread(_ load: ImageLoad, _ body: APIBody, to nodes: [Node]) async throws -> APIResponse {
    let results: [ImageLoadResult] = try await withThrowingTaskGroup(of: ImageLoadResult?.self) { group in
      var pipes: [Pipe<ByteBuffer>] = []
      for node in nodes {
        let pipe = Pipe<ByteBuffer>(capacity: 4)
        pipes.append(pipe)
        group.addTask {
          defer { pipe.cancel() }
          do {
            let images = try await backend.loadImage(load, on: node.id, body: APIBody(stream: pipe))
            return ImageLoadResult(host: node.hostname, nodeID: node.id.description, images: images)
          } catch {
            return ImageLoadResult(host: node.hostname, nodeID: node.id.description, error: "\(error)")
          }
        }
      }
      let copies = pipes
      group.addTask {
        do {
          for try await part in body {
            var anyone = false
            for pipe in copies where await pipe.send(part) { anyone = true }
            if !anyone { return nil }
          }
          for pipe in copies { pipe.finish() }
        } catch {
          for pipe in copies { pipe.finish(throwing: error) }
        }
        return nil
      }
      var results: [ImageLoadResult] = []
      for try await case let result? in group { results.append(result) }
      return results.sorted { $0.host < $1.host }
    }
    if let error = results.first?.error, results.allSatisfy({ $0.error != nil }) {
      let same = results.allSatisfy { $0.error == error }
      throw APIError(
        500, "no host took the image: " + (same ? error : results.map { "\($0.host): \($0.error ?? "")" }.joined(separator: "; ")))
    }
    return APIResponse(
      status: 200, headers: [APIHeader("Content-Type", "application/json")], body: APIBody(bytes: results.flatMap { JSON.encode($0) + [10] }))
  }

  /// Every ready host's images; a host that does not answer is left out of the list, and an answer of nobody is an error.
  func listImages() async throws -> APIResponse {
    let nodes = try await backend.state().nodes.values.filter { $0.status.state == .ready }
    let lists = await withTaskGroup(of: Result<[ImageSummary], any Error>.self) { group in
      for node in nodes {
        group.addTask {
          do {
            return .success(
              try await backend.images(on: node.id).map {
                ImageSummary(host: node.hostname, name: $0.name, id: $0.id, size: $0.sizeBytes, createdAt: $0.createdAt)
              })
          } catch { return .failure(error) }
        }
      }
      return await group.reduce(into: [Result<[ImageSummary], any Error>]()) { $0.append($1) }
    }
    let found = lists.compactMap { try? $0.get() }
    if found.isEmpty, case .failure(let error)? = lists.first { throw error }
    return .json(found.flatMap { $0 }.sorted { ($0.name, $0.host) < ($1.name, $1.host) })
  }
}
