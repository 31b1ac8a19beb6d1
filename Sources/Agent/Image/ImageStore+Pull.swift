import Glibc
import LinuxSystem
import Model
import RegistryLogin

extension ImageStore {
  /// From a registry (OCI distribution specification) or one of its mirrors, unless it is here already (`always` asks the registry nevertheless).
  /// Several pulls of one image or of one layer share the work. A pull that fails leaves whole layers, but no image.
  /// - Parameters:
  ///   - platform: nil: this machine's. Another's image is kept, and runs where the kernel can (`ImageRecord.checkRuns`).
  ///   - credentials: nil: those of `configuration.credentialsFiles`, if there are any.
  public func pull(
    _ reference: String, platform: ImagePlatform? = nil, credentials: RegistryCredentials? = nil, always: Bool = false,
    progress: @escaping @Sendable (PullProgress) -> Void = { _ in }
  ) async throws -> ImageRecord {
    let name = try ImageReference(reference)
    if !always, let record = try resolve(name.description), platform?.isArchitecture(of: record) ?? true { return record }
    let platform = platform ?? .host
    let credentials = try await self.credentials(credentials, for: name)
    // Who gives other credentials asks for himself: nobody gets by another's password what he may not have.
    try await flights.join("image \(name) \(platform) \(credentials.hashValue)") { [self] in
      try await adding { [self] in try await fetch(name, platform, credentials, progress) }
    }
    guard let record = try resolve(name.description) else {
      throw ImageError(.notFound, "pull", name.familiar, "it was removed meanwhile; pull again")
    }
    return record
  }

  func credentials(_ given: RegistryCredentials?, for name: ImageReference) async throws -> RegistryCredentials? {
    if let given { return given }
    return try await own(for: name.registry, path: name.path)
  }

  /// The host's own.
  private func own(for registry: String, path: String) async throws -> RegistryCredentials? {
    let files = configuration.credentialsFiles
    return try await onOwnThread("orch-image") { try CredentialsFile.credentials(for: registry, path: path, in: files) }
  }

  /// Each mirror, then the registry: what one does not have, refuses, or has wrong, is asked of the next.
  private func fetch(
    _ name: ImageReference, _ platform: ImagePlatform, _ credentials: RegistryCredentials?, _ progress: @escaping @Sendable (PullProgress) -> Void
  ) async throws {
    let configuration = configuration
    let hosts = try await onOwnThread("orch-image") { try RegistryHost.candidates(name, configuration) }
    for host in hosts.dropLast() {
      var hasty = configuration
      hasty.attempts = min(2, configuration.attempts)
      do {
        // Never the registry's: the mirror is somebody else.
        let own = try await own(for: host.authority, path: host.prefix + name.path)
        return try await fetch(RegistryClient(name, own, host, hasty), platform, progress)
      } catch let error where error is ImageError || error is LoginError {
        configuration.log.info("mirror \(host.base): \(error)")
      }
    }
    try await fetch(RegistryClient(name, credentials, hosts[hosts.count - 1], configuration), platform, progress)
  }

  private func fetch(_ client: RegistryClient, _ platform: ImagePlatform, _ progress: @escaping @Sendable (PullProgress) -> Void) async throws {
    let name = client.name
    let first = try await client.manifest(name.digest?.description ?? name.tag ?? "latest")
    var (bytes, digest) = first
    var manifest = try ManifestDocument(bytes, "manifest of \(name)")
    var depth = 0
    while manifest.manifests != nil {
      depth += 1
      guard depth <= 3 else { throw ImageError(.hostile, "pull", name.familiar, "indexes are nested more than 3 deep") }
      let choice = try manifest.choose(name.familiar, platform).checkedDigest()
      (bytes, digest) = try await client.manifest(choice.description)
      manifest = try ManifestDocument(bytes, "manifest of \(name)")
    }
    guard let configDescriptor = manifest.config, let layers = manifest.layers else {
      throw ImageError(.unsupported, "pull", name.familiar, "its manifest has no config and layers")
    }
    guard configDescriptor.mediaType.map(MediaType.configs.contains) ?? true else {
      throw ImageError(.unsupported, "pull", name.familiar, "it is no container image, but '\(configDescriptor.mediaType ?? "")'")
    }
    guard layers.count <= configuration.maximumLayers else {
      throw ImageError(.hostile, "pull", name.familiar, "it has \(layers.count) layers, at most \(configuration.maximumLayers) are taken")
    }
    for layer in layers { try layer.checkIsLayer() }
    let config = try await client.document(configDescriptor)
    let diffIDs = try (decode(config, "config of \(name)") as ConfigDocument).diffIDs("config of \(name)", for: platform.architecture)
    guard diffIDs.count == layers.count else {
      throw ImageError(.corrupt, "pull", name.familiar, "it has \(layers.count) layers and \(diffIDs.count) diff ids")
    }
    try await fetch(Array(zip(layers, diffIDs)), client, progress)
    let (manifestBytes, manifestDigest, requested) = (bytes, digest, first.digest)
    try await onOwnThread("orch-image") { [self] in
      try content.addBlob(config)
      try content.addBlob(manifestBytes)
      try add(manifestDigest, names: [name.description], requested: requested, pulled: true)
    }
  }

  /// All layers, `concurrentDownloads` at a time.
  private func fetch(
    _ layers: [(Descriptor, Digest)], _ client: RegistryClient, _ progress: @escaping @Sendable (PullProgress) -> Void
  ) async throws {
    for (layer, diffID) in layers where content.whole(diffID) == nil {
      progress(PullProgress(layer: try layer.checkedDigest(), phase: .waiting, done: 0, total: layer.size))
    }
    try await withThrowingTaskGroup(of: Void.self) { group in
      for (index, (layer, diffID)) in layers.enumerated() {
        if index >= max(1, configuration.concurrentDownloads) { try await group.next() }
        group.addTask { [self] in
          let digest = try layer.checkedDigest()
          if content.whole(diffID) != nil {
            return progress(PullProgress(layer: digest, phase: .alreadyThere, done: layer.size, total: layer.size))
          }
          let listener = hub.listen(to: digest, progress)
          defer { hub.leave(digest, listener) }
          // The same diff id may come in several packings: then the first to come is taken. What another registry does is not waited for, and what
          // another repository lacks may be in this one: asked once for all who want it of there.
          let flight = "layer \(diffID) \(digest) \(client.source)"
          try await flights.join(flight, orElse: "\(flight) \(client.repository)") { [self] in
            try await fetch(layer, digest, diffID, client)
          }
          progress(PullProgress(layer: digest, phase: .done, done: layer.size, total: layer.size))
        }
      }
      try await group.waitForAll()
    }
  }

  private func fetch(_ layer: Descriptor, _ digest: Digest, _ diffID: Digest, _ client: RegistryClient) async throws {
    let tell = { @Sendable [hub] (phase: PullProgress.Phase, done: Int64) in
      hub.tell(PullProgress(layer: digest, phase: phase, done: done, total: layer.size))
    }
    // Somebody else's pull has just ended with it.
    if content.whole(diffID) != nil { return }
    let path = content.temporary()
    defer { unlink(path) }
    tell(.downloading, 0)
    try await client.download(layer, to: path) { tell(.downloading, $0) }
    tell(.unpacking, layer.size)
    try await onOwnThread("orch-image") { [content] in _ = try content.addLayer(FileSource(path), diffID: diffID, transferred: digest, file: path) }
  }
}
