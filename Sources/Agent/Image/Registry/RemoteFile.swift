import AsyncHTTPClient
import Glibc
import LinuxSystem
import Model
import NIOCore

/// A file of an HTTP server, for ADD.
public struct RemoteFile: Hashable, Sendable {
  public var digest: Digest
  public var size: Int64
  /// Seconds since 1970 of Last-Modified (RFC 9110 8.8.2); nil: the server does not say.
  public var modified: Int64?
}

extension ImageStore {
  /// Brings what is at a URL into a new file, by the proxies and authorities that registries are reached by, without credentials
  /// and without a client's certificate. Up to ten
  /// redirects are followed, none out of TLS. http:// in the URL declares plain HTTP.
  /// - Parameter limit: bytes; more are an error.
  public func download(_ url: String, to path: String, limit: Int64) async throws -> RemoteFile {
    var target = String(url.prefix { $0 != "#" })
    var (redirects, patience) = (0, Patience(configuration))
    while true {
      let (address, configuration) = (target, configuration)
      let host = try await onOwnThread("orch-image") { try RegistryHost(server: address, configuration) }
      var message = HTTPClientRequest(url: target)
      message.headers.add(name: "user-agent", value: "orch")
      // What the file is, not what it is packed as on the way.
      message.headers.add(name: "accept-encoding", value: "identity")
      if let tls = host.tls { message.tlsConfiguration = tls }
      do {
        let response = try await RegistryClient.client(configuration.proxies.proxy(for: target)).execute(message, timeout: .hours(6))
        switch response.status.code {
        case 200: return try await receive(response, url, path, limit)
        case 301, 302, 303, 307, 308:
          redirects += 1
          guard redirects <= 10, let location = response.headers.first(name: "location") else {
            throw ImageError(.network, "download", url, "the server redirects too often or nowhere")
          }
          target = try host.follow(location, from: target, url)
        case 408, 429,
          500...599 where try await patience.again(response.headers.first(name: "retry-after")):
          continue
        case 404, 410: throw ImageError(.notFound, "download", url, "the server has it not (\(response.status.code))")
        case let code: throw ImageError(.network, "download", url, "the server answered \(code)")
        }
      } catch let error where !(error is ImageError || error is SystemError || error is CancellationError) {
        if try await patience.again(error) { continue }
        throw ImageError(.network, "download", url, "\(error)")
      }
    }
  }

  private func receive(_ response: HTTPClientResponse, _ url: String, _ path: String, _ limit: Int64) async throws -> RemoteFile {
    let tooLong = ImageError(.hostile, "download", url, "it has more than \(limit) bytes")
    if let length = response.headers.first(name: "content-length").flatMap({ Int64($0) }), length > limit { throw tooLong }
    let file = try await onOwnThread("orch-image") { try BlobWriter(path) }
    var chunk: [UInt8] = []
    func flush() async throws {
      let full = chunk
      chunk.removeAll(keepingCapacity: true)
      try await onOwnThread("orch-image") { try file.write(full) }
    }
    for try await buffer in response.body {
      guard file.count + Int64(chunk.count + buffer.readableBytes) <= limit else { throw tooLong }
      chunk += buffer.readableBytesView
      if chunk.count >= 1 << 20 { try await flush() }
    }
    try await flush()
    return RemoteFile(digest: file.digest, size: file.count, modified: response.headers.first(name: "last-modified").flatMap(Patience.time))
  }
}
