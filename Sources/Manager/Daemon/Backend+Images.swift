import ControlAPI
import Foundation
import Model
import Transport
import Wire

extension Backend {
  func image(_ command: ImageCommand, on node: NodeID) async throws -> AsyncThrowingStream<ImageEvent, any Error> {
    let stream = try await agent(node).open(.imageCommand)
    try await stream.send(WireImageCommand(command), end: true)
    return Self.pulled(stream) {
      guard let event = try await stream.receive(WireImageEvent.self) else { return nil }
      switch event.kind {
      case .progress(let progress):
        return .progress(layer: progress.layer, .init(progress.phase), done: progress.done, total: progress.total)
      case .data(let data): return .data([UInt8](data))
      case .image(let image):
        return .image(
          ImageDetail(
            names: image.names, id: image.id, digest: image.digest, config: [UInt8](image.config), size: image.size, layerSizes: image.layerSizes,
            inUse: image.inUse))
      case .removal(let removal): return .removed(untagged: removal.untagged, deleted: removal.deleted, bytes: removal.bytes)
      case .digest(let digest): return .digest(digest)
      case .failure(let failure): throw APIError(Int(failure.status), failure.message)
      case nil: throw APIError(500, "the agent sent an event of unknown kind: upgrade this manager")
      }
    }
  }
}

extension WireImageCommand {
  fileprivate init(_ command: ImageCommand) {
    self.init()
    switch command {
    case .pull(let name, let platform, let login):
      pull = .init(name, login)
      pull.platform = platform ?? ""
    case .push(let name, let login): push = .init(name, login)
    case .tag(let source, let target): tag = .with { ($0.source, $0.target) = (source, target) }
    case .remove(let name, let force): remove = .with { ($0.name, $0.force) = (name, force) }
    case .inspect(let name): inspect = name
    case .prune(let all, let before): prune = .with { ($0.all, $0.before) = (all, before?.nanoseconds ?? 0) }
    case .save(let names, let oci): save = .with { ($0.names, $0.oci) = (names, oci) }
    }
  }
}

extension WireImageTransfer {
  fileprivate init(_ name: String, _ login: RegistryCredentials?) {
    self.init()
    self.name = name
    if let login {
      self.login = .with { ($0.username, $0.password, $0.identityToken) = (login.username, login.password, login.identityToken) }
    }
  }
}

extension ImageEvent.Phase {
  fileprivate init(_ phase: WireImagePhase) {
    switch phase {
    case .waiting, .UNRECOGNIZED: self = .waiting
    case .downloading: self = .downloading
    case .unpacking: self = .unpacking
    case .done: self = .done
    case .alreadyThere: self = .alreadyThere
    case .uploading: self = .uploading
    case .mounted: self = .mounted
    }
  }
}
