import CZlib
import Glibc
import LinuxSystem
import Model
import Synchronization

/// What a plain layer (built, imported or loaded) is in registries: the gzip of it, which the store does not keep, and who has it.
struct PushedLayer: Hashable, Sendable {
  var packing: Packing
  /// "HOST/PATH", the last first.
  var repositories: [String]
  static let repositoriesMax = 16

  init(packing: Packing, repositories: [String]) { (self.packing, self.repositories) = (packing, repositories) }
  init?(_ text: String) {
    let lines = text.split(separator: "\n").map(String.init)
    guard let packing = lines.first.flatMap({ Packing($0) }) else { return nil }
    self.init(packing: packing, repositories: Array(lines.dropFirst()))
  }
  var text: String { ([packing.description] + repositories).joined(separator: "\n") }

  mutating func add(_ repository: String) {
    repositories.removeAll { $0 == repository }
    repositories.insert(repository, at: 0)
    repositories.removeLast(max(0, repositories.count - Self.repositoriesMax))
  }
}

extension ContentStore {
  /// Beside the layer, and gone with it.
  private func pushedPath(_ diffID: Digest) -> String { layerFolder(diffID) + "/pushed" }
  func pushed(_ diffID: Digest) -> PushedLayer? { (try? Files.text(pushedPath(diffID))).flatMap { PushedLayer($0) } }
  /// Pushes that run at once change one file.
  private static let remembering = Mutex(())
  func remember(_ diffID: Digest, _ packing: Packing, in repository: String) throws {
    try Self.remembering.withLock { _ in try add(diffID, packing, repository) }
  }
  private func add(_ diffID: Digest, _ packing: Packing, _ repository: String) throws {
    var layer = pushed(diffID).flatMap { $0.packing == packing ? $0 : nil } ?? PushedLayer(packing: packing, repositories: [])
    if layer.repositories.first == repository { return }
    layer.add(repository)
    try Files.writeAtomically(pushedPath(diffID), layer.text, mode: 0o644, durable: false)
  }

  /// Writes the gzip (RFC 1952, no time and name: the same bytes each time) of a blob into a file of `ingest`, which the caller removes.
  func gzip(_ digest: Digest) throws -> (path: String, packing: Packing) {
    let path = temporary()
    do {
      let writer = try BlobWriter(path)
      let file = try FileSource(blobPath(digest))
      var stream = z_stream()
      // 15 bits of window, +16: a gzip header.
      guard
        deflateInit2_(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK
      else { throw ImageError(.system, "pack", "layer \(digest)", "zlib cannot start") }
      defer { deflateEnd(&stream) }
      var (input, output) = ([UInt8](repeating: 0, count: 256 << 10), [UInt8](repeating: 0, count: 256 << 10))
      var (isLast, isDone) = (false, false)
      while !isDone {
        let count = try file.fill(&input)
        isLast = count < input.count
        var used = 0
        repeat {
          let produced = input.withUnsafeMutableBufferPointer { bytes in
            output.withUnsafeMutableBufferPointer { room in
              stream.next_in = bytes.baseAddress! + used
              stream.avail_in = UInt32(count - used)
              stream.next_out = room.baseAddress!
              stream.avail_out = UInt32(room.count)
              // It fails only when it is called wrongly.
              isDone = deflate(&stream, isLast ? Z_FINISH : Z_NO_FLUSH) == Z_STREAM_END
              used = count - Int(stream.avail_in)
              return room.count - Int(stream.avail_out)
            }
          }
          if produced > 0 { try writer.write(Array(output[..<produced])) }
        } while used < count || (isLast && !isDone)
      }
      return (path, Packing(digest: writer.digest, size: writer.count, mediaType: Compression.gzip.mediaType))
    } catch {
      unlink(path)
      throw error
    }
  }
}
