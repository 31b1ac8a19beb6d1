import AsyncHTTPClient
import LinuxSystem
import Model
import NIOCore
import Synchronization

/// Speaks to one repository of a registry: OCI distribution specification v1.1. What the network or a busy registry is to blame for is tried
/// again, with growing pauses. Credentials go to the registry and to the token server it names, and never along a redirect to another host.
final class RegistryClient: Sendable {
  let name: ImageReference
  let host: RegistryHost
  /// What the host calls it: a mirror may have it below a path.
  let repository: String
  let configuration: ImageStoreConfiguration
  /// Whom it asks, as whom: clients with the same may share what they bring.
  let source: String
  private let authorizer: Authorizer
  /// "repository:PATH:ACTIONS" that the requests need.
  private let scopes: [String]
  /// "pull" or "push", for errors.
  let verb: String

  /// One for the process and each proxy; redirects are followed here, by hand.
  private static let clients = Mutex<[ProxySettings.Proxy?: HTTPClient]>([:])
  static func client(_ proxy: ProxySettings.Proxy?) -> HTTPClient {
    clients.withLock { clients in
      if let client = clients[proxy] { return client }
      let client = make(proxy)
      clients[proxy] = client
      return client
    }
  }
  private static func make(_ proxy: ProxySettings.Proxy?) -> HTTPClient {
    var configuration = HTTPClient.Configuration(redirectConfiguration: .disallow)
    configuration.timeout = .init(connect: .seconds(10), read: .seconds(60))
    // `Patience` decides; otherwise a refused connection takes the whole ten seconds.
    configuration.connectionPool.retryConnectionEstablishment = false
    configuration.proxy = proxy?.setting
    return HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
  }

  /// - Parameters:
  ///   - credentials: for this host.
  ///   - mountable: repositories of the same registry that a push may take layers from.
  init(
    _ name: ImageReference, _ credentials: RegistryCredentials?, _ host: RegistryHost, _ configuration: ImageStoreConfiguration, pushes: Bool = false,
    mountable: [String] = []
  ) {
    self.name = name
    self.host = host
    self.configuration = configuration
    repository = host.prefix + name.path
    authorizer = Authorizer(credentials)
    source = "\(host.base) \(credentials.hashValue)"
    scopes = ["repository:\(repository):\(pushes ? "pull,push" : "pull")"] + mountable.map { "repository:\($0):pull" }
    verb = pushes ? "push" : "pull"
  }

  func url(_ path: String) -> String { "\(host.base)/v2/\(repository)/\(path)" }

  // MARK: - Content

  /// A manifest or index by tag or digest; verified when asked by digest.
  func manifest(_ reference: String) async throws -> (bytes: [UInt8], digest: Digest) {
    let object = "\(name.repository):\(reference)"
    let (response, bytes) = try await whole(
      Request(.GET, url("manifests/\(reference)"), [("accept", MediaType.manifests.joined(separator: ", "))], object))
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
    let bytes = try await whole(Request(.GET, url("blobs/\(digest)"), [], "blob \(digest)")).bytes
    guard Int64(bytes.count) == descriptor.size, Digest(of: bytes) == digest else {
      throw ImageError(.corrupt, "verify", "blob \(digest)", "the registry sent \(bytes.count) bytes with the digest \(Digest(of: bytes))")
    }
    return bytes
  }

  /// The answer and its body, at most 4 MiB; a body that breaks off is asked for again.
  private func whole(_ request: Request) async throws -> (response: HTTPClientResponse, bytes: [UInt8]) {
    let limit = Int(ManifestDocument.maximumSize)
    var patience = Patience(configuration)
    while true {
      let response = try await exchange(request)
      do {
        return (response, Array(try await response.body.collect(upTo: limit).readableBytesView))
      } catch is NIOTooManyBytesError {
        throw ImageError(.hostile, verb, request.object, "it has more than \(limit) bytes")
      } catch let error where !Task.isCancelled {
        guard try await patience.again() else { throw unreachable(error) }
      }
    }
  }

  // MARK: - Requests

  struct Request: Sendable {
    var method: String
    var url: String
    var headers: [(String, String)]
    var object: String
    var body: (@Sendable () -> HTTPClientRequest.Body)?
    enum Method: String { case GET, HEAD, POST, PUT, PATCH, DELETE }
    init(_ method: Method, _ url: String, _ headers: [(String, String)], _ object: String, body: (@Sendable () -> HTTPClientRequest.Body)? = nil) {
      (self.method, self.url, self.headers, self.object, self.body) = (method.rawValue, url, headers, object, body)
    }
    var isRead: Bool { method == "GET" || method == "HEAD" }
  }

  /// Sends; answers challenges, follows up to five redirects of a read, waits when the registry or the network wants it.
  /// Returns for any status below 300, and for those in `accepting`; throws for the others what they mean.
  /// - Parameter repeats: whether the request may be sent again once it may have arrived.
  func exchange(_ request: Request, accepting: Set<UInt> = [], repeats: Bool = true) async throws -> HTTPClientResponse {
    var url = request.url
    var (challenged, redirects) = (false, 0)
    var patience = Patience(configuration)
    while true {
      let response: HTTPClientResponse
      do { response = try await send(request, url) } catch {
        if repeats, try await patience.again(error) { continue }
        throw unreachable(error)
      }
      let code = response.status.code
      if code < 300 || accepting.contains(code) { return response }
      switch code {
      case 301, 302, 303, 307, 308:
        redirects += 1
        guard request.isRead, redirects <= 5, let location = response.headers.first(name: "location") else {
          throw ImageError(.network, verb, request.object, "the registry redirects too often or nowhere")
        }
        url = try host.follow(location, from: url, request.object)
      case 401 where !challenged && RegistryHost.origin(of: url) == host.base:
        challenged = true
        try await authorizer.answer(
          response.headers["www-authenticate"], scopes: scopes, registry: name.registry, plain: host.plain, object: request.object
        ) { try await self.sendPatiently($0) }
      case 408, 429, 500, 502, 503, 504:
        guard repeats || code == 429 || code == 503, try await patience.again(response.headers.first(name: "retry-after")) else {
          throw ImageError(
            .network, verb, request.object, "the registry \(name.registry) answered \(code)\(await Self.said(response)); try again later")
        }
      case 401, 403:
        throw ImageError(
          .unauthorized, verb, request.object,
          "the registry \(name.registry) denies it\(await Self.said(response)): the image is missing, or it needs other credentials ('docker login')")
      case 404:
        throw ImageError(.notFound, verb, request.object, "the registry \(name.registry) has no such image; check name and tag")
      default: throw ImageError(.network, verb, request.object, "the registry \(name.registry) answered \(code)\(await Self.said(response))")
      }
    }
  }

  private func send(_ request: Request, _ url: String) async throws -> HTTPClientResponse {
    var message = HTTPClientRequest(url: url)
    message.method = .RAW(value: request.method)
    for (name, value) in request.headers { message.headers.add(name: name, value: value) }
    // Another host gets no credentials: its address carries its own.
    let isRegistry = RegistryHost.origin(of: url) == host.base
    if isRegistry, let value = authorizer.header(for: scopes) { message.headers.add(name: "authorization", value: value) }
    message.body = request.body?()
    return try await execute(message)
  }

  /// For a token server, which may be busy as well.
  private func sendPatiently(_ message: HTTPClientRequest) async throws -> HTTPClientResponse {
    var patience = Patience(configuration)
    while true {
      do {
        let response = try await execute(message)
        guard response.status.code == 429 || response.status.code >= 500,
          try await patience.again(response.headers.first(name: "retry-after"))
        else { return response }
      } catch let error where !(error is CancellationError) {
        guard try await patience.again(error) else { throw unreachable(error) }
      }
    }
  }

  private func execute(_ message: HTTPClientRequest) async throws -> HTTPClientResponse {
    var message = message
    message.headers.replaceOrAdd(name: "user-agent", value: "orch")
    if let tls = host.tls(for: message.url) { message.tlsConfiguration = tls }
    return try await Self.client(configuration.proxies.proxy(for: message.url)).execute(message, timeout: .hours(6))
  }

  /// The message of an error's body (distribution specification, "Error Codes"), in parentheses.
  private static func said(_ response: HTTPClientResponse) async -> String {
    guard let bytes = try? await response.body.collect(upTo: 64 << 10) else { return "" }
    return said(Array(bytes.readableBytesView))
  }
  static func said(_ body: [UInt8]) -> String {
    struct Errors: Codable {
      struct One: Codable { var code: String?; var message: String? }
      var errors: [One]?
    }
    guard let document: Errors = try? decode(body, ""), let first = document.errors?.first,
      let text = first.message ?? first.code
    else { return "" }
    return " (\(String(text.unicodeScalars.filter { $0.value >= 32 && !(127...159).contains($0.value) }.prefix(200))))"
  }

  func unreachable(_ error: any Error) -> any Error {
    if error is ImageError || error is SystemError || error is CancellationError { return error }
    let client = error as? HTTPClientError
    let text = "\(error)"
    let what =
      if client == .connectTimeout || client == .deadlineExceeded || client == .readTimeout {
        "it does not answer"
      } else if text.contains("CERTIFICATE_VERIFY_FAILED") || text.contains("unableToValidateCertificate") {
        "its certificate is of no authority known here: put the authority's into /etc/orch/certs.d/\(name.registry)/ca.crt"
      } else if text.contains("WRONG_VERSION_NUMBER") {
        "it does not speak TLS: if plain HTTP is meant, start the agents with --insecure-registry \(name.registry)"
      } else {
        text
      }
    let why =
      verb == "pull"
      ? "the image is not on this host and the registry \(name.registry) cannot be reached (\(what)); load it with 'orch image load', or check name and network"
      : "the registry \(name.registry) cannot be reached (\(what)); check name and network"
    return ImageError(.network, verb, name.familiar, why)
  }
}
