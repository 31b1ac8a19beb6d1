import AsyncHTTPClient
import LinuxSystem
import Model
import NIOCore

extension RegistryClient {
  /// A blob into a file; verified, or the file is of no use. What breaks off goes on where it stopped (Range, RFC 9110 14.2) when the registry
  /// can do that, as long as each connection brings something.
  func download(_ descriptor: Descriptor, to path: String, progress: @Sendable (Int64) -> Void) async throws {
    let digest = try descriptor.checkedDigest()
    let object = "layer \(digest)"
    guard (0...configuration.maximumTransferBytes).contains(descriptor.size) else {
      throw ImageError(
        .hostile, "pull", object, "a layer of \(descriptor.size) bytes is not taken, at most \(configuration.maximumTransferBytes) are")
    }
    let file = try await onOwnThread("orch-image") { try BlobWriter(path) }
    var patience = Patience(configuration)
    // However small the steps: a registry that breaks off after each byte is not followed for ever.
    for _ in 0..<1000 {
      let before = file.count
      do {
        try await part(of: descriptor, into: file, object, progress)
        if file.count == descriptor.size { break }
        // Fewer bytes than announced, and no error: a connection that was closed in an orderly way.
        if file.count > before { patience.renew(configuration) }
        guard try await patience.again() else {
          throw ImageError(.corrupt, "verify", object, "the registry sent only \(file.count) of \(descriptor.size) bytes")
        }
      } catch let error where !(error is ImageError) && !(error is SystemError) && !Task.isCancelled {
        if file.count > before { patience.renew(configuration) }
        guard try await patience.again(error) else { throw unreachable(error) }
      }
    }
    guard file.count == descriptor.size else {
      throw ImageError(.corrupt, "verify", object, "the registry sent only \(file.count) of \(descriptor.size) bytes")
    }
    guard file.digest == digest else { throw ImageError(.corrupt, "verify", object, "its bytes have the digest \(file.digest)") }
    progress(file.count)
  }

  /// One answer: from where the file ends, or from the start when the registry does not know ranges.
  private func part(of descriptor: Descriptor, into file: BlobWriter, _ object: String, _ progress: @Sendable (Int64) -> Void) async throws {
    let offset = file.count
    let headers = offset > 0 ? [("range", "bytes=\(offset)-")] : []
    let response = try await exchange(Request(.GET, url("blobs/\(descriptor.digest)"), headers, object), accepting: [416])
    let continues = response.status.code == 206 && Self.start(of: response.headers.first(name: "content-range")) == offset
    if offset > 0, !continues { try await onOwnThread("orch-image") { try file.restart() } }
    // Neither from here nor from the start: the next attempt begins anew.
    if response.status.code == 416 || (response.status.code == 206 && !continues) { return }

    var chunk: [UInt8] = []
    func flush() async throws {
      let full = chunk
      chunk.removeAll(keepingCapacity: true)
      try await onOwnThread("orch-image") { try file.write(full) }
      progress(file.count)
    }
    do {
      for try await buffer in response.body {
        guard file.count + Int64(chunk.count + buffer.readableBytes) <= descriptor.size else {
          throw ImageError(.corrupt, "verify", object, "the registry sent more than \(descriptor.size) bytes")
        }
        chunk += buffer.readableBytesView
        if chunk.count >= 1 << 20 { try await flush() }
      }
    } catch let error where !(error is ImageError) && !(error is SystemError) && !Task.isCancelled {
      // What came before the cut counts.
      try await flush()
      throw error
    }
    try await flush()
  }

  /// Of `bytes 5-9/10`.
  static func start(of range: String?) -> Int64? {
    guard let range, range.hasPrefix("bytes ") else { return nil }
    return Int64(range.dropFirst(6).prefix { $0 != "-" })
  }
}
