import AsyncHTTPClient
import LinuxSystem
import Model
import NIOCore
import Synchronization

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// Reads one repository of a registry: OCI distribution specification v1.1, "Pull"; tokens as in Docker's registry token specification.
/// Credentials go to the registry and to the token server it names, and never along a redirect to another host.
final class RegistryClient: Sendable {
  private let name: ImageReference
  private let credentials: RegistryCredentials?
  private let plain: Bool
  private let base: String
  /// The value of Authorization that the registry last accepted or asked for.
  private let authorization = Mutex<String?>(nil)

  /// One for the process; redirects are followed here, by hand.
  private static let http: HTTPClient = {
    var configuration = HTTPClient.Configuration(redirectConfiguration: .disallow)
    configuration.timeout = .init(connect: .seconds(10), read: .seconds(60))
    // `retrying` decides; otherwise a refused connection takes the whole ten seconds.
    configuration.connectionPool.retryConnectionEstablishment = false
    return HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
  }()
  private static let documentLimit = Int(ManifestDocument.maximumSize)

  init(_ name: ImageReference, _ credentials: RegistryCredentials?, insecure: Set<String>) {
    self.name = name
    self.credentials = credentials
    plain = Self.isLoopback(name.registry) || insecure.contains(name.registry)
    let host = name.registry == "docker.io" ? "registry-1.docker.io" : name.registry
    base = "\(plain ? "http" : "https")://\(host)"
  }

  private static func isLoopback(_ registry: String) -> Bool {
    if registry.hasPrefix("[::1]") { return true }
    let host = registry.split(separator: ":").first.map(String.init) ?? ""
    let parts = host.split(separator: ".", omittingEmptySubsequences: false)
    return host == "localhost" || (parts.count == 4 && parts[0] == "127" && parts.allSatisfy { UInt8($0) != nil })
  }

  // MARK: - Content

  /// A manifest or index by tag or digest; verified when asked by digest.
  func manifest(_ reference: String) async throws -> (bytes: [UInt8], digest: Digest) {
    let object = "\(name.repository):\(reference)"
    let response = try await get("/v2/\(name.path)/manifests/\(reference)", accept: MediaType.manifests, object)
    let bytes = try await collect(response, object)
    let digest = Digest(of: bytes)
    // By tag the registry's own word is all there is to compare with.
    let stated = Digest(reference) ?? response.headers.first(name: "docker-content-digest").flatMap { Digest($0) }
    if let wanted = stated, wanted != digest {
      throw ImageError(.corrupt, "verify", "manifest \(wanted)", "the registry sent another one, \(digest)")
    }
    if let type = response.headers.first(name: "content-type")?.split(separator: ";").first.map(String.init), type.contains("manifest"),
      !MediaType.manifests.contains(type)
    {
      throw ImageError(.unsupported, "pull", object, "its manifest has the media type '\(type)'")
    }
    return (bytes, digest)
  }

  /// A small blob, verified.
  func document(_ descriptor: Descriptor) async throws -> [UInt8] {
    let digest = try descriptor.checkedDigest()
    guard (0...ManifestDocument.maximumSize).contains(descriptor.size) else {
      throw ImageError(.hostile, "pull", "blob \(digest)", "a configuration of \(descriptor.size) bytes is not read")
    }
    let response = try await get("/v2/\(name.path)/blobs/\(digest)", accept: [], "blob \(digest)")
    let bytes = try await collect(response, "blob \(digest)")
    guard Int64(bytes.count) == descriptor.size, Digest(of: bytes) == digest else {
      throw ImageError(.corrupt, "verify", "blob \(digest)", "the registry sent \(bytes.count) bytes with the digest \(Digest(of: bytes))")
    }
    return bytes
  }

  /// A blob into a file; verified, or the file is of no use.
  func download(_ descriptor: Descriptor, to path: String, progress: @Sendable (Int64) -> Void) async throws {
    let digest = try descriptor.checkedDigest()
    let object = "layer \(digest)"
    let response = try await get("/v2/\(name.path)/blobs/\(digest)", accept: [], object)
    let file = try await onOwnThread("orch-image") { try BlobWriter(path) }
    var chunk: [UInt8] = []
    var received: Int64 = 0
    do {
      for try await buffer in response.body {
        received += Int64(buffer.readableBytes)
        guard received <= descriptor.size else { break }
        chunk += buffer.readableBytesView
        if chunk.count >= 1 << 20 {
          let full = chunk
          try await onOwnThread("orch-image") { try file.write(full) }
          chunk.removeAll(keepingCapacity: true)
          progress(received)
        }
      }
    } catch let error where !(error is SystemError) {
      throw unreachable(error)
    }
    let rest = chunk
    try await onOwnThread("orch-image") { try file.write(rest) }
    guard received == descriptor.size else {
      throw ImageError(
        .corrupt, "verify", object, "the registry sent \(received > descriptor.size ? "more than" : "only \(received) of") \(descriptor.size) bytes")
    }
    guard file.digest == digest else { throw ImageError(.corrupt, "verify", object, "its bytes have the digest \(file.digest)") }
    progress(received)
  }

  private func collect(_ response: HTTPClientResponse, _ object: String) async throws -> [UInt8] {
    do {
      return Array(try await response.body.collect(upTo: Self.documentLimit).readableBytesView)
    } catch is NIOTooManyBytesError {
      throw ImageError(.hostile, "pull", object, "it has more than \(Self.documentLimit) bytes")
    } catch {
      throw unreachable(error)
    }
  }

  private func unreachable(_ error: any Error) -> ImageError {
    let what = (error as? HTTPClientError) == .connectTimeout || (error as? HTTPClientError) == .deadlineExceeded ? "it does not answer" : "\(error)"
    return ImageError(
      .network, "pull", name.familiar,
      "the image is not on this host and the registry \(name.registry) cannot be reached (\(what)); load it with 'orch image load', or check name and network"
    )
  }

  // MARK: - Requests

  /// Answers a challenge once, follows up to five redirects.
  private func get(_ path: String, accept: [String], _ object: String) async throws -> HTTPClientResponse {
    var url = base + path
    var challenged = false
    var redirects = 0
    while true {
      var request = HTTPClientRequest(url: url)
      for type in accept { request.headers.add(name: "accept", value: type) }
      request.headers.add(name: "user-agent", value: "orch")
      // Another host gets no credentials: its address carries its own.
      if origin(of: url) == base, let value = authorization.withLock({ $0 }) { request.headers.add(name: "authorization", value: value) }
      let response = try await send(request)
      switch response.status.code {
      case 200: return response
      case 301, 302, 303, 307, 308:
        redirects += 1
        guard redirects <= 5, let location = response.headers.first(name: "location") else {
          throw ImageError(.network, "pull", object, "the registry redirects too often or nowhere")
        }
        url = try follow(location, from: url, object)
      case 401 where !challenged && origin(of: url) == base:
        challenged = true
        let answer = try await self.answer(response.headers["www-authenticate"], object)
        authorization.withLock { $0 = answer }
      case 401, 403:
        throw ImageError(.unauthorized, "pull", object, "the registry \(name.registry) denies it: the image is missing or needs other credentials")
      case 404: throw ImageError(.notFound, "pull", object, "the registry \(name.registry) has no such image; check name and tag")
      default: throw ImageError(.network, "pull", object, "the registry \(name.registry) answered \(response.status.code)")
      }
    }
  }

  private func send(_ request: HTTPClientRequest) async throws -> HTTPClientResponse {
    do {
      return try await Self.http.execute(request, timeout: .hours(2))
    } catch {
      throw unreachable(error)
    }
  }

  /// `https://host:port` in lower case; empty for anything else.
  private func origin(of url: String) -> String {
    guard let scheme = url.firstRange(of: "://") else { return "" }
    let end = url[scheme.upperBound...].firstIndex { "/?#".contains($0) } ?? url.endIndex
    return url[..<end].lowercased() == base.lowercased() ? base : url[..<end].lowercased()
  }

  private func follow(_ location: String, from url: String, _ object: String) throws -> String {
    let target = location.hasPrefix("/") && !location.hasPrefix("//") ? origin(of: url) + location : location
    guard target.lowercased().hasPrefix("https://") || (plain && target.lowercased().hasPrefix("http://")) else {
      throw ImageError(.network, "pull", object, "the registry redirects to '\(location.prefix(100))', which is not HTTPS")
    }
    return target
  }

  // MARK: - Authentication

  private func answer(_ challenges: [String], _ object: String) async throws -> String {
    let basic = credentials.map { "Basic " + Data("\($0.username):\($0.password)".utf8).base64EncodedString() }
    for challenge in challenges {
      let (scheme, parameters) = Self.parse(challenge)
      if scheme == "basic", let basic { return basic }
      if scheme == "bearer", let realm = parameters["realm"] { return try await token(realm, parameters, basic, object) }
    }
    throw ImageError(.unauthorized, "pull", object, "the registry \(name.registry) wants credentials")
  }

  private func token(_ realm: String, _ parameters: [String: String], _ basic: String?, _ object: String) async throws -> String {
    guard realm.lowercased().hasPrefix("https://") || (plain && realm.lowercased().hasPrefix("http://")) else {
      throw ImageError(.unauthorized, "pull", object, "the registry \(name.registry) names a token server without HTTPS")
    }
    var query = "scope=" + Self.escaped(parameters["scope"] ?? "repository:\(name.path):pull")
    if let service = parameters["service"] { query += "&service=" + Self.escaped(service) }
    var request = HTTPClientRequest(url: realm + (realm.contains("?") ? "&" : "?") + query)
    if let basic { request.headers.add(name: "authorization", value: basic) }
    let response = try await send(request)
    guard response.status.code == 200 else {
      throw ImageError(
        .unauthorized, "pull", object, "the token server of \(name.registry) answered \(response.status.code): the credentials are wrong or missing")
    }
    struct Answer: Codable {
      var token: String?
      var access_token: String?
    }
    let answer: Answer = try decode(await collect(response, "a token"), "the token of \(name.registry)")
    guard let token = answer.token ?? answer.access_token else { throw ImageError(.unauthorized, "pull", object, "the token server sent no token") }
    return "Bearer " + token
  }

  /// RFC 9110 11.6.1, one challenge a header: `Bearer realm="...",service="...",scope="..."`.
  static func parse(_ challenge: String) -> (scheme: String, parameters: [String: String]) {
    let scheme = challenge.prefix { $0 != " " }
    var parameters: [String: String] = [:]
    var rest = challenge.dropFirst(scheme.count)
    while true {
      rest = rest.drop { $0 == " " || $0 == "," }
      guard let equals = rest.firstIndex(of: "=") else { break }
      let key = rest[..<equals].lowercased()
      rest = rest[rest.index(after: equals)...]
      if rest.first == "\"" {
        rest = rest.dropFirst()
        let value = rest.prefix { $0 != "\"" }
        parameters[key] = String(value)
        rest = rest.dropFirst(value.count + 1)
      } else {
        let value = rest.prefix { $0 != "," }
        parameters[key] = String(value)
        rest = rest.dropFirst(value.count)
      }
    }
    return (scheme.lowercased(), parameters)
  }

  private static func escaped(_ text: String) -> String {
    var result = ""
    for byte in text.utf8 {
      let plain = (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte) || [45, 46, 95, 126, 58, 47].contains(byte)
      let hex = String(byte, radix: 16, uppercase: true)
      result += plain ? String(UnicodeScalar(byte)) : "%" + (hex.count == 1 ? "0" : "") + hex
    }
    return result
  }
}
