import Glibc
import LinuxSystem
import Model

/// The folders on disk: what is there is whole. Blocking; safe from several threads, since everything becomes visible by a rename.
struct ContentStore: Sendable {
  let directory: String
  let maximumLayerBytes: Int64
  let maximumLayerEntries: Int

  func prepare() throws {
    for folder in ["blobs/sha256", "layers"] { try Files.makeDirectories("\(directory)/\(folder)", mode: 0o711) }
    try Files.removeTree(ingest)
    try Files.makeDirectories(ingest, mode: 0o700)
  }

  var ingest: String { directory + "/ingest" }
  func temporary() -> String { "\(ingest)/\(UInt64.random(in: 0...UInt64.max))" }

  // MARK: - Blobs

  func blobPath(_ digest: Digest) -> String { "\(directory)/blobs/sha256/\(digest.hex)" }

  func blob(_ digest: Digest) throws -> [UInt8] {
    let bytes = try Files.read(blobPath(digest), limit: Int(ManifestDocument.maximumSize))
    guard Digest(of: bytes) == digest else {
      throw ImageError(.corrupt, "read", "blob \(digest)", "the disk returned other bytes; remove and pull the image again")
    }
    return bytes
  }

  @discardableResult
  func addBlob(_ bytes: [UInt8]) throws -> Digest {
    let digest = Digest(of: bytes)
    if !Files.exists(blobPath(digest)) { try Files.writeAtomically(blobPath(digest), bytes, mode: 0o644) }
    return digest
  }

  // MARK: - Layers

  func layerFolder(_ diffID: Digest) -> String { "\(directory)/layers/\(diffID.hex)" }
  /// The tree itself; beside it stands `size`.
  func layerPath(_ diffID: Digest) -> String { layerFolder(diffID) + "/fs" }
  func hasLayer(_ diffID: Digest) -> Bool { Files.exists(layerFolder(diffID) + "/size") }
  func layerSize(_ diffID: Digest) -> Int64 { (try? Files.text(layerFolder(diffID) + "/size")).flatMap { Int64($0) } ?? 0 }

  /// Unpacks a layer, gzip or plain, and makes it visible if it is what it should be. Nothing is left of it otherwise.
  /// - Parameters:
  ///   - diffID: of the plain tar; nil: whatever it is (import).
  ///   - transferred: digest of the bytes as they come; nil: not known.
  func addLayer(_ source: any ByteSource, diffID: Digest?, transferred: Digest? = nil) throws -> Digest {
    if let diffID, hasLayer(diffID) { return diffID }
    let folder = temporary()
    try Files.makeDirectories(folder + "/fs", mode: 0o755)
    // Not the process's umask decides.
    try check(chmod(folder + "/fs", 0o755), "set the mode of", folder)
    do {
      let outer = HashingSource(source)
      let plain = HashingSource(try InflatingSource(outer))
      let unpacker = try LayerUnpacker(folder: folder + "/fs", maximumBytes: maximumLayerBytes, maximumEntries: maximumLayerEntries)
      try unpacker.unpack(TarReader(plain))
      if let transferred, outer.digest != transferred {
        throw ImageError(.corrupt, "verify", "layer \(transferred)", "its bytes have the digest \(outer.digest)")
      }
      let digest = plain.digest
      if let diffID, digest != diffID { throw ImageError(.corrupt, "verify", "layer \(diffID)", "its tar has the digest \(digest)") }
      try Files.writeAtomically(folder + "/size", String(unpacker.bytes), mode: 0o644)
      try check(chmod(folder, 0o711), "set the mode of", folder)
      try publish(folder, digest)
      return digest
    } catch {
      try? Files.removeTree(folder)
      throw error
    }
  }

  private func publish(_ folder: String, _ digest: Digest) throws {
    if rename(folder, layerFolder(digest)) < 0 {
      let error = Errno.current
      // Another thread was faster with the same layer.
      guard error == .notEmpty || error == .exists, hasLayer(digest) else { throw SystemError("rename \(folder) to", layerFolder(digest), error) }
      try Files.removeTree(folder)
      return
    }
    let layers = try OwnedDescriptor.open(directory + "/layers", O_RDONLY | O_DIRECTORY)
    try check(fsync(layers.rawValue), "sync", directory + "/layers")
  }

  /// Takes layers and blobs that are not named here out of sight; their removal may take longer (`sweep`).
  func hideAllBut(layers: Set<Digest>, blobs: Set<Digest>) throws -> [String] {
    var hidden: [String] = []
    for (folder, kept) in [("layers", layers), ("blobs/sha256", blobs)] {
      for name in try Files.list("\(directory)/\(folder)") where Digest(hex: name).map({ !kept.contains($0) }) ?? true {
        let trash = temporary()
        try check(rename("\(directory)/\(folder)/\(name)", trash), "move away", name)
        hidden.append(trash)
      }
    }
    return hidden
  }
}
