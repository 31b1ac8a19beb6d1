import AgentImage
import Foundation
import LinuxSystem
import Model
import Synchronization
import Transport
import Wire

extension ManagerStreams {
  /// One command; its last event says how it ended.
  func images(_ stream: TransportStream) async throws {
    guard let command = try await stream.receive(WireImageCommand.self), let kind = command.kind else {
      throw StreamError(.invalidArgument, "the command for images is of unknown kind: upgrade this agent")
    }
    var last = WireImageEvent()
    do {
      last.kind = try await answer(kind, stream)
    } catch let error where !(error is StreamError) && !(error is CancellationError) {
      last.failure = .with { ($0.status, $0.message) = (Self.status(error), Self.sentence(error)) }
    }
    if last.kind != nil { try await stream.send(last, end: true) } else { stream.finish() }
  }

  /// nil: everything was sent already.
  private func answer(_ kind: WireImageCommand.OneOf_Kind, _ stream: TransportStream) async throws -> WireImageEvent.OneOf_Kind? {
    let images = rooms.images
    switch kind {
    case .pull(let pull):
      return try await telling(stream) { tell in
        let platform = try pull.platform.isEmpty ? nil : ImagePlatform(pull.platform)
        return .digest(
          try await images.pull(pull.name, platform: platform, credentials: pull.credentials, always: true, progress: tell).digest.description)
      }
    case .push(let push):
      return try await telling(stream) { tell in
        .digest(try await images.push(push.name, credentials: push.credentials, progress: tell).description)
      }
    case .tag(let tag):
      try await images.tag(tag.source, as: tag.target)
      return .digest("")
    case .remove(let remove): return .removal(.init(try await images.remove(remove.name, force: remove.force)))
    case .inspect(let name):
      let detail = try await images.inspect(name)
      var image = WireImageDetail()
      (image.names, image.id, image.digest, image.config) = (
        detail.names, "\(detail.record.id)", "\(detail.record.digest)", Data(detail.configuration)
      )
      (image.size, image.layerSizes, image.inUse) = (detail.record.size, detail.layerSizes, detail.inUse)
      return .image(image)
    case .prune(let prune):
      return .removal(.init(try await images.prune(all: prune.all, before: prune.before == 0 ? nil : Timestamp(nanoseconds: prune.before))))
    case .save(let save):
      try await self.save(save, stream)
      return nil
    }
  }

  /// Runs `body`; what it tells is sent as far as the other side keeps up, the newest first when it does not.
  private func telling(
    _ stream: TransportStream, _ body: (@escaping @Sendable (PullProgress) -> Void) async throws -> WireImageEvent.OneOf_Kind
  ) async throws -> WireImageEvent.OneOf_Kind {
    let (updates, continuation) = AsyncStream.makeStream(of: PullProgress.self, bufferingPolicy: .bufferingNewest(1024))
    let sending = Task {
      for await update in updates {
        var event = WireImageEvent()
        event.progress = .with {
          ($0.layer, $0.phase, $0.done, $0.total) = (update.layer.description, update.phase.wire, update.done, update.total)
        }
        try? await stream.send(event)
      }
    }
    let result: Result<WireImageEvent.OneOf_Kind, any Error>
    do { result = .success(try await body { continuation.yield($0) }) } catch { result = .failure(error) }
    continuation.finish()
    await sending.value
    return try result.get()
  }

  /// The writer's thread waits for the other side: at most four chunks are under way.
  private func save(_ save: WireImageSave, _ stream: TransportStream) async throws {
    let (chunks, continuation) = AsyncStream.makeStream(of: [UInt8].self, bufferingPolicy: .unbounded)
    let room = Semaphore(4)
    let broken = Flag()
    let sending = Task {
      for await chunk in chunks {
        do {
          for start in stride(from: 0, to: chunk.count, by: 256 << 10) {
            var event = WireImageEvent()
            event.data = Data(chunk[start..<min(start + 256 << 10, chunk.count)])
            try await stream.send(event)
          }
        } catch { broken.set() }
        room.signal()
      }
    }
    let result: Result<Void, any Error>
    do {
      try await rooms.images.save(save.names, format: save.oci ? .oci : .docker) { bytes in
        room.wait()
        if broken.isSet { throw AgentError("whoever asked is gone") }
        continuation.yield(bytes)
      }
      result = .success(())
    } catch { result = .failure(error) }
    continuation.finish()
    await sending.value
    try result.get()
  }

  private static func status(_ error: any Error) -> UInt32 {
    switch (error as? ImageError)?.kind {
    case .notFound: 404
    case .inUse: 409
    case .invalidReference: 400
    case .unauthorized: 401
    case .corrupt, .hostile, .unsupported, .network, .system: 500
    case nil: error is ReferenceError ? 400 : 500
    }
  }
  /// Docker's clients look for these words.
  private static func sentence(_ error: any Error) -> String {
    if let error = error as? ImageError, error.kind == .notFound, ["inspect", "remove", "tag", "save", "push"].contains(error.operation) {
      return "No such image: \(error.object) (\(error.cause))"
    }
    return "\(error)"
  }
}

/// Set once, from anywhere.
private final class Flag: Sendable {
  private let value = Mutex(false)
  var isSet: Bool { value.withLock { $0 } }
  func set() { value.withLock { $0 = true } }
}

extension WireImageTransfer {
  fileprivate var credentials: RegistryCredentials? {
    hasLogin ? RegistryCredentials(username: login.username, password: login.password, identityToken: login.identityToken) : nil
  }
}

extension WireImageRemoval {
  fileprivate init(_ removal: ImageRemoval) {
    self.init()
    (untagged, deleted, bytes) = (removal.untagged, removal.deleted.map(\.description), removal.bytes)
  }
}

extension PullProgress.Phase {
  fileprivate var wire: WireImagePhase {
    switch self {
    case .waiting: .waiting
    case .downloading: .downloading
    case .unpacking: .unpacking
    case .done: .done
    case .alreadyThere: .alreadyThere
    case .uploading: .uploading
    case .mounted: .mounted
    }
  }
}
