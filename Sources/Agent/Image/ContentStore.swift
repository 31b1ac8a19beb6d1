import Glibc
import LinuxSystem
import Model

/// How a layer is packed: the blob of it that the store keeps.
struct Packing: Hashable, Sendable, CustomStringConvertible {
  var digest: Digest
  var size: Int64
  var mediaType: String

  init(digest: Digest, size: Int64, mediaType: String) { (self.digest, self.size, self.mediaType) = (digest, size, mediaType) }
  init?(_ text: String) {
    let words = text.split(separator: " ")
    guard words.count == 3, let digest = Digest(String(words[0])), let size = Int64(words[1]) else { return nil }
    self.init(digest: digest, size: size, mediaType: String(words[2]))
  }
  var description: String { "\(digest) \(size) \(mediaType)" }
  var descriptor: Descriptor { Descriptor(mediaType: mediaType, digest: digest.description, size: size) }
}

/// The folders on disk: what is there is whole. Blocking; safe from several threads, since everything becomes visible by a rename.
struct ContentStore: Sendable {
  let directory: String
  let maximumLayerBytes: Int64
  let maximumLayerEntries: Int
  let pins = Pins()

  func prepare() throws {
    for folder in ["blobs/sha256", "layers"] { try Files.makeDirectories("\(directory)/\(folder)", mode: 0o711) }
    try Files.removeTree(ingest)
    try Files.makeDirectories(ingest, mode: 0o700)
  }

  var ingest: String { directory + "/ingest" }
  func temporary() -> String { "\(ingest)/\(UInt64.random(in: 0...UInt64.max))" }

  // MARK: - Blobs

  func blobPath(_ digest: Digest) -> String { "\(directory)/blobs/sha256/\(digest.hex)" }

  func hasBlob(_ digest: Digest) -> Bool {
    pins.pin(blobs: [digest])
    return Files.exists(blobPath(digest))
  }

  func blob(_ digest: Digest) throws -> [UInt8] {
    pins.pin(blobs: [digest])
    let bytes = try Files.read(blobPath(digest), limit: Int(ManifestDocument.maximumSize))
    guard Digest(of: bytes) == digest else {
      throw ImageError(.corrupt, "read", "blob \(digest)", "the disk returned other bytes; remove and pull the image again")
    }
    return bytes
  }

  @discardableResult
  func addBlob(_ bytes: [UInt8]) throws -> Digest {
    let digest = Digest(of: bytes)
    if !hasBlob(digest) { try Files.writeAtomically(blobPath(digest), bytes, mode: 0o644) }
    return digest
  }

  // MARK: - Layers

  func layerFolder(_ diffID: Digest) -> String { "\(directory)/layers/\(diffID.hex)" }
  /// The tree itself; beside it stand `size`, `blob`, and what `stack` needs.
  func layerPath(_ diffID: Digest) -> String { layerFolder(diffID) + "/fs" }
  func hasLayer(_ diffID: Digest) -> Bool {
    pins.pin(layers: [diffID])
    return Files.exists(layerFolder(diffID) + "/size")
  }
  func layerSize(_ diffID: Digest) -> Int64 { (try? Files.text(layerFolder(diffID) + "/size")).flatMap { Int64($0) } ?? 0 }

  /// The packing of a layer that is kept as a blob: what push and save send. nil: an agent older than those unpacked it.
  func packing(_ diffID: Digest) -> Packing? {
    pins.pin(layers: [diffID])
    return packing(ofKept: diffID)
  }
  /// The same without a pin; a layer that is kept keeps its blob.
  func packing(ofKept diffID: Digest) -> Packing? {
    guard let text = try? Files.text(layerFolder(diffID) + "/blob"), let packing = Packing(text), Files.exists(blobPath(packing.digest)) else {
      return nil
    }
    return packing
  }

  /// Of a layer that is here whole, unpacked and packed.
  func whole(_ diffID: Digest) -> Packing? { hasLayer(diffID) ? packing(diffID) : nil }

  /// Unpacks a layer (gzip, zstd or plain) and makes it visible, with its blob, if it is what it should be. Nothing is left otherwise.
  /// - Parameters:
  ///   - diffID: of the plain tar; nil: whatever it is (import).
  ///   - transferred: digest of the bytes as they come; nil: not known.
  ///   - file: where the source's bytes already are, in `ingest` and of no other use; nil: they are copied.
  func addLayer(_ source: any ByteSource, diffID: Digest?, transferred: Digest? = nil, file: String? = nil) throws -> (
    diffID: Digest, packing: Packing
  ) {
    if let diffID, let packing = whole(diffID) { return (diffID, packing) }
    let folder = temporary()
    let blob = file ?? temporary()
    do {
      try Files.makeDirectories(folder + "/fs", mode: 0o755)
      // Not the process's umask decides.
      try check(chmod(folder + "/fs", 0o755), "set the mode of", folder)
      // Headers, padding and what follows the archive's end count too.
      let overhead = min(Int64(maximumLayerEntries) * 4096, .max / 2)
      let limit = maximumLayerBytes > .max / 2 ? .max : maximumLayerBytes + overhead
      // What is packed may come out of another packing (import).
      let outer =
        if file == nil {
          HashingSource(source, limit: limit, copy: SharedDescriptor(try OwnedDescriptor.open(blob, O_WRONLY | O_CREAT | O_EXCL, mode: 0o644)))
        } else { HashingSource(source) }
      let inflating = try InflatingSource(outer)
      let plain = HashingSource(inflating, limit: limit)
      let unpacker = try LayerUnpacker(folder: folder + "/fs", maximumBytes: maximumLayerBytes, maximumEntries: maximumLayerEntries)
      try unpacker.unpack(TarReader(plain))
      // What is left of the packing: a decompressor may stop before its source ends.
      try outer.drain()
      if let transferred, outer.digest != transferred {
        throw ImageError(.corrupt, "verify", "layer \(transferred)", "its bytes have the digest \(outer.digest)")
      }
      let digest = plain.digest
      if let diffID, digest != diffID { throw ImageError(.corrupt, "verify", "layer \(diffID)", "its tar has the digest \(digest)") }
      let packing = Packing(digest: outer.digest, size: outer.count, mediaType: inflating.compression.mediaType)
      pins.pin(layers: [digest], blobs: [packing.digest])
      try publish(blob: blob, packing.digest)
      try Files.writeAtomically(folder + "/size", String(unpacker.bytes), mode: 0o644)
      try writeImplicit(unpacker.implicit, of: folder)
      try Files.writeAtomically(folder + "/blob", packing.description, mode: 0o644)
      try check(chmod(folder, 0o711), "set the mode of", folder)
      try publish(folder, digest, packing)
      return (digest, packing)
    } catch {
      try? Files.removeTree(folder)
      unlink(blob)
      throw error
    }
  }

  /// Before the layer that names it: a crash in between leaves a blob that nobody names, which the next sweep takes.
  private func publish(blob: String, _ digest: Digest) throws {
    let file = try OwnedDescriptor.open(blob, O_RDONLY)
    try check(fsync(file.rawValue), "sync", blob)
    try check(fchmod(file.rawValue, 0o644), "set the mode of", blob)
    try check(rename(blob, blobPath(digest)), "rename \(blob) to", blobPath(digest))
  }

  private func publish(_ folder: String, _ digest: Digest, _ packing: Packing) throws {
    if rename(folder, layerFolder(digest)) < 0 {
      let error = Errno.current
      // Another thread was faster with the same layer, or it was there without its blob.
      guard error == .notEmpty || error == .exists, hasLayer(digest) else { throw SystemError("rename \(folder) to", layerFolder(digest), error) }
      if self.packing(digest) == nil { try Files.writeAtomically(layerFolder(digest) + "/blob", packing.description, mode: 0o644) }
      try Files.removeTree(folder)
      return
    }
    let layers = try OwnedDescriptor.open(directory + "/layers", O_RDONLY | O_DIRECTORY)
    try check(fsync(layers.rawValue), "sync", directory + "/layers")
  }

  /// Takes layers and blobs out of sight that are neither named here nor pinned; their removal may take longer (`sweep`).
  func hideAllBut(layers: Set<Digest>, blobs: Set<Digest>) throws -> (hidden: [String], isAll: Bool) {
    try pins.collecting { pinned in
      let layersKept = layers.union(pinned.layers.keys)
      let blobsKept = blobs.union(pinned.blobs.keys).union(layersKept.compactMap { packing(ofKept: $0)?.digest })
      let layersHidden = try hide("layers", but: layersKept)
      let isAll = layersKept.count == layers.count && pinned.blobs.keys.allSatisfy(blobs.contains)
      return (layersHidden + (try hide("blobs/sha256", but: blobsKept)), isAll)
    }
  }

  private func hide(_ folder: String, but kept: Set<Digest>) throws -> [String] {
    var hidden: [String] = []
    for name in try Files.list("\(directory)/\(folder)") where Digest(hex: name).map({ !kept.contains($0) }) ?? true {
      let trash = temporary()
      try check(rename("\(directory)/\(folder)/\(name)", trash), "move away", name)
      hidden.append(trash)
    }
    return hidden
  }
}
