import Glibc
import LinuxSystem
import Model

extension ImageStore {
  /// From a registry (OCI distribution specification), unless it is here already (`always` asks the registry nevertheless).
  /// Several pulls of one image or of one layer share the work. A pull that fails leaves whole layers, but no image.
  public func pull(
    _ reference: String, credentials: RegistryCredentials? = nil, always: Bool = false,
    progress: @escaping @Sendable (PullProgress) -> Void = { _ in }
  ) async throws -> ImageRecord {
    let name = try ImageReference(reference)
    if !always, let record = try resolve(name.description) { return record }
    try await flights.join("image \(name) \(credentials?.username ?? "")") { [self] in
      try await operation { [self] in try await fetch(name, credentials, progress) }
    }
    guard let record = try resolve(name.description) else {
      throw ImageError(.notFound, "pull", name.familiar, "it was removed meanwhile; pull again")
    }
    return record
  }

  private func fetch(_ name: ImageReference, _ credentials: RegistryCredentials?, _ progress: @escaping @Sendable (PullProgress) -> Void) async throws
  {
    let client = RegistryClient(name, credentials, insecure: configuration.insecureRegistries)
    let first = try await retrying { try await client.manifest(name.digest?.description ?? name.tag ?? "latest") }
    var (bytes, digest) = first
    var manifest = try ManifestDocument(bytes, "manifest of \(name)")
    var depth = 0
    while manifest.manifests != nil {
      depth += 1
      guard depth <= 3 else { throw ImageError(.hostile, "pull", name.familiar, "indexes are nested more than 3 deep") }
      let choice = try manifest.choose(name.familiar).checkedDigest()
      (bytes, digest) = try await retrying { try await client.manifest(choice.description) }
      manifest = try ManifestDocument(bytes, "manifest of \(name)")
    }
    guard let configDescriptor = manifest.config, let layers = manifest.layers else {
      throw ImageError(.unsupported, "pull", name.familiar, "its manifest has no config and layers")
    }
    guard configDescriptor.mediaType.map(MediaType.configs.contains) ?? true else {
      throw ImageError(.unsupported, "pull", name.familiar, "it is no container image, but '\(configDescriptor.mediaType ?? "")'")
    }
    for layer in layers { try layer.checkIsLayer() }
    let config = try await retrying { try await client.document(configDescriptor) }
    let diffIDs = try (decode(config, "config of \(name)") as ConfigDocument).diffIDs("config of \(name)")
    guard diffIDs.count == layers.count else {
      throw ImageError(.corrupt, "pull", name.familiar, "it has \(layers.count) layers and \(diffIDs.count) diff ids")
    }
    try await fetch(Array(zip(layers, diffIDs)), client, progress)
    let (manifestBytes, manifestDigest, requested) = (bytes, digest, first.digest)
    try await onOwnThread("orch-image") { [self] in
      try content.addBlob(config)
      try content.addBlob(manifestBytes)
      try add(manifestDigest, names: [name.description], requested: requested)
    }
  }

  /// All layers, `concurrentDownloads` at a time.
  private func fetch(
    _ layers: [(Descriptor, Digest)], _ client: RegistryClient, _ progress: @escaping @Sendable (PullProgress) -> Void
  ) async throws {
    for (layer, diffID) in layers where !content.hasLayer(diffID) {
      progress(PullProgress(layer: try layer.checkedDigest(), phase: .waiting, done: 0, total: layer.size))
    }
    try await withThrowingTaskGroup(of: Void.self) { group in
      for (index, (layer, diffID)) in layers.enumerated() {
        if index >= max(1, configuration.concurrentDownloads) { try await group.next() }
        group.addTask { [self] in
          // The same diff id may come in several packings: then the first to come is taken.
          try await flights.join("layer \(diffID)") { [self] in try await fetch(layer, diffID, client, progress) }
        }
      }
      try await group.waitForAll()
    }
  }

  private func fetch(
    _ layer: Descriptor, _ diffID: Digest, _ client: RegistryClient, _ progress: @escaping @Sendable (PullProgress) -> Void
  ) async throws {
    let digest = try layer.checkedDigest()
    let tell = { @Sendable (phase: PullProgress.Phase, done: Int64) in
      progress(PullProgress(layer: digest, phase: phase, done: done, total: layer.size))
    }
    if content.hasLayer(diffID) { return tell(.alreadyThere, layer.size) }
    let path = content.temporary()
    defer { unlink(path) }
    try await retrying { try await client.download(layer, to: path) { tell(.downloading, $0) } }
    tell(.unpacking, layer.size)
    try await onOwnThread("orch-image") { [content] in _ = try content.addLayer(FileSource(path), diffID: diffID, transferred: digest) }
    tell(.done, layer.size)
  }

  /// Three attempts when the network is to blame; anything else is final.
  private func retrying<Result>(_ body: () async throws -> Result) async throws -> Result {
    for pause in [Duration.milliseconds(200), .seconds(1)] {
      do { return try await body() } catch let error as ImageError where error.kind == .network { try await Task.sleep(for: pause) }
    }
    return try await body()
  }
}
