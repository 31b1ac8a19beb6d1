import AsyncHTTPClient
import Glibc
import LinuxSystem
import Model
import NIOCore

extension RegistryClient {
  /// Whether the repository has the blob.
  func has(_ digest: Digest) async throws -> Bool {
    try await exchange(Request(.HEAD, url("blobs/\(digest)"), [], "blob \(digest)"), accepting: [404]).status.code == 200
  }

  /// From another repository of the registry. - Returns: whether it is here now; false when that one has it no more, or does not let us.
  func mount(_ digest: Digest, from other: String) async throws -> Bool {
    do {
      // 202: an upload was opened instead; it ends by itself.
      return try await open(digest, mountFrom: other).status.code == 201
    } catch let error as ImageError where [.unauthorized, .notFound].contains(error.kind) {
      return false
    }
  }

  /// An upload, or with `mountFrom` at once the blob of that repository.
  private func open(_ digest: Digest, mountFrom: String?) async throws -> HTTPClientResponse {
    let query = mountFrom.map { "?mount=\(digest)&from=\(Authorizer.escaped($0))" } ?? ""
    return try await exchange(Request(.POST, url("blobs/uploads/") + query, [("content-length", "0")], "blob \(digest)"))
  }

  /// Brings a blob to the repository: from another one of the registry when that has it (cross-repository mount), else in one piece, or in
  /// chunks when it is large. - Returns: whether it was mounted.
  func upload(_ digest: Digest, _ source: BlobSource, mountFrom: String?, progress: @escaping @Sendable (Int64) -> Void) async throws -> Bool {
    let object = "blob \(digest)"
    var patience = Patience(configuration)
    var mount = mountFrom
    while true {
      let opened: HTTPClientResponse
      do {
        opened = try await open(digest, mountFrom: mount)
      } catch let error as ImageError where mount != nil && [.unauthorized, .notFound].contains(error.kind) {
        // Some answer a mount from where they do not let us look with an error.
        mount = nil
        continue
      }
      if opened.status.code == 201 { return true }
      guard opened.status.code == 202, let location = opened.headers.first(name: "location") else {
        throw ImageError(.network, verb, object, "the registry \(name.registry) opens no upload (\(opened.status.code))")
      }
      do {
        try await put(digest, source, to: try host.follow(location, from: url("blobs/uploads/"), object), opened, progress)
        return false
      } catch let error as ImageError where error.kind == .network {
        // The upload may be lost with its connection: a new one.
        guard try await patience.again() else { throw error }
        mount = nil
      }
    }
  }

  private func put(
    _ digest: Digest, _ source: BlobSource, to location: String, _ opened: HTTPClientResponse, _ progress: @escaping @Sendable (Int64) -> Void
  ) async throws {
    let object = "blob \(digest)"
    var location = location
    let minimum = opened.headers.first(name: "oci-chunk-min-length").flatMap { Int64($0) } ?? 0
    let chunk = max(configuration.pushChunkBytes, minimum)
    var sent: Int64 = 0
    if source.size > chunk {
      while sent < source.size {
        let end = min(sent + chunk, source.size)
        let (from, to) = (sent, end)
        let headers = [
          ("content-type", "application/octet-stream"), ("content-range", "\(from)-\(to - 1)"), ("content-length", "\(to - from)"),
        ]
        let response = try await exchange(
          Request(.PATCH, location, headers, object) { .stream(source.part(from..<to) { progress(from + $0) }, length: .known(to - from)) },
          repeats: false)
        guard let next = response.headers.first(name: "location") else {
          throw ImageError(.network, verb, object, "the registry \(name.registry) does not say where the next chunk goes")
        }
        location = try host.follow(next, from: location, object)
        sent = end
      }
    }
    let rest = sent
    let headers = [("content-type", "application/octet-stream"), ("content-length", "\(source.size - rest)")]
    _ = try await exchange(
      Request(.PUT, location + (location.contains("?") ? "&" : "?") + "digest=\(digest)", headers, object) {
        .stream(source.part(rest..<source.size) { progress(rest + $0) }, length: .known(source.size - rest))
      }, repeats: false)
    progress(source.size)
  }

  /// By tag, or by its digest.
  func put(manifest bytes: [UInt8], _ mediaType: String, _ reference: String) async throws {
    let object = "\(name.repository):\(reference)"
    let buffer = ByteBuffer(bytes: bytes)
    let response = try await exchange(
      Request(.PUT, url("manifests/\(reference)"), [("content-type", mediaType), ("content-length", "\(bytes.count)")], object) { .bytes(buffer) })
    if let stated = response.headers.first(name: "docker-content-digest").flatMap({ Digest($0) }), stated != Digest(of: bytes) {
      throw ImageError(.corrupt, "push", object, "the registry keeps another manifest than was sent (\(stated))")
    }
  }
}

/// A blob's file, read in parts on threads of their own while it is sent.
struct BlobSource: Sendable {
  let path: String
  let size: Int64

  init(_ path: String) throws {
    self.path = path
    var status = stat()
    try check(stat(path, &status), "look at", path)
    size = Int64(status.st_size)
  }

  func part(_ range: Range<Int64>, _ progress: @escaping @Sendable (Int64) -> Void) -> Part { Part(path: path, range: range, progress: progress) }

  struct Part: AsyncSequence, Sendable {
    typealias Element = ByteBuffer
    let path: String
    let range: Range<Int64>
    let progress: @Sendable (Int64) -> Void
    func makeAsyncIterator() -> Iterator { Iterator(part: self, offset: range.lowerBound) }

    struct Iterator: AsyncIteratorProtocol {
      let part: Part
      var offset: Int64

      mutating func next() async throws -> ByteBuffer? {
        guard offset < part.range.upperBound else { return nil }
        let (path, from, count) = (part.path, offset, Int(Swift.min(1 << 20, part.range.upperBound - offset)))
        let bytes = try await onOwnThread("orch-image") {
          let file = try FileSource(path).part(from..<(from + Int64(count)))
          var bytes = [UInt8](repeating: 0, count: count)
          guard try file.fill(&bytes) == count else { throw ImageError(.corrupt, "read", path, "it is shorter than it was") }
          return bytes
        }
        offset += Int64(count)
        part.progress(offset - part.range.lowerBound)
        return ByteBuffer(bytes: bytes)
      }
    }
  }
}
