import AsyncHTTPClient
import Model
import NIOCore
import Synchronization

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// Answers a registry's challenges: basic authentication, and tokens as in Docker's registry token specification (distribution, "token.md",
/// "oauth2.md"). Tokens are kept in memory until shortly before they end, one for each set of scopes.
final class Authorizer: Sendable {
  private struct Kept {
    var header: String
    var ends: ContinuousClock.Instant
  }
  private let credentials: RegistryCredentials?
  private let kept = Mutex<[String: Kept]>([:])

  init(_ credentials: RegistryCredentials?) { self.credentials = credentials }

  /// What to send with a request of these scopes; nil: the registry has not asked yet.
  func header(for scopes: [String]) -> String? {
    kept.withLock { kept in
      guard let entry = kept[key(scopes)] ?? kept[""] else { return nil }
      return entry.ends > .now ? entry.header : nil
    }
  }

  private func key(_ scopes: [String]) -> String { scopes.sorted().joined(separator: " ") }

  /// Does what the registry asks for. `send` must not add credentials of its own.
  func answer(
    _ headers: [String], scopes: [String], registry: String, plain: Bool, object: String,
    send: @Sendable (HTTPClientRequest) async throws -> HTTPClientResponse
  ) async throws {
    let challenges = Challenge.all(headers)
    if let challenge = challenges.first(where: { $0.scheme == "bearer" && $0.parameters["realm"] != nil }) {
      let (header, seconds) = try await token(challenge, scopes, registry, plain, object, send)
      // A token that ends on its way is of no use.
      let ends = ContinuousClock.now + .seconds(max(0, min(seconds, 86_400) - 10))
      return kept.withLock { $0[key(scopes)] = Kept(header: header, ends: ends) }
    }
    guard challenges.contains(where: { $0.scheme == "basic" }), let basic else {
      throw ImageError(
        .unauthorized, "ask", object,
        "the registry \(registry) wants credentials: log in where they are looked for ('docker login', 'podman login', 'skopeo login')")
    }
    kept.withLock { $0[""] = Kept(header: basic, ends: .now + .seconds(86_400)) }
  }

  private var basic: String? {
    credentials.flatMap { $0.username.isEmpty ? nil : "Basic " + Data("\($0.username):\($0.password)".utf8).base64EncodedString() }
  }

  private func token(
    _ challenge: Challenge, _ scopes: [String], _ registry: String, _ plain: Bool, _ object: String,
    _ send: @Sendable (HTTPClientRequest) async throws -> HTTPClientResponse
  ) async throws -> (header: String, seconds: Int64) {
    let realm = challenge.parameters["realm"] ?? ""
    let origin = RegistryHost.origin(of: realm)
    guard origin.hasPrefix("https://") || (plain && origin.hasPrefix("http://")) else {
      throw ImageError(.unauthorized, "ask", object, "the registry \(registry) names a token server without HTTPS")
    }
    // What it says is needed for this request, and what we know to need: a mount needs the other repository, too.
    var wanted = scopes
    for scope in (challenge.parameters["scope"] ?? "").split(separator: " ").map(String.init) where !wanted.contains(scope) { wanted.append(scope) }
    var query = challenge.parameters["service"].map { [("service", $0)] } ?? []
    var request: HTTPClientRequest
    if let token = credentials?.identityToken, !token.isEmpty {
      query += [("grant_type", "refresh_token"), ("refresh_token", token), ("client_id", "orch"), ("scope", wanted.joined(separator: " "))]
      request = HTTPClientRequest(url: realm)
      request.method = .POST
      request.headers.add(name: "content-type", value: "application/x-www-form-urlencoded")
      request.body = .bytes(ByteBuffer(string: Self.form(query)))
    } else {
      query += wanted.map { ("scope", $0) }
      request = HTTPClientRequest(url: realm + (realm.contains("?") ? "&" : "?") + Self.form(query))
      if let basic { request.headers.add(name: "authorization", value: basic) }
    }
    let response = try await send(request)
    let bytes: [UInt8]
    do { bytes = Array(try await response.body.collect(upTo: 1 << 20).readableBytesView) } catch {
      throw ImageError(.network, "ask", object, "the token server of \(registry) sent no whole answer (\(error))")
    }
    guard response.status.code == 200 else {
      let kind: ImageError.Kind = response.status.code == 429 || response.status.code >= 500 ? .network : .unauthorized
      throw ImageError(
        kind, "ask", object,
        "the token server of \(registry) answered \(response.status.code): \(credentials == nil ? "it wants credentials" : "the credentials are wrong, or not enough")"
      )
    }
    let answer = try TokenAnswer(bytes, registry)
    return ("Bearer " + answer.token, answer.seconds)
  }

  private static func form(_ fields: [(String, String)]) -> String { fields.map { "\($0)=\(escaped($1))" }.joined(separator: "&") }

  static func escaped(_ text: String) -> String {
    var result = ""
    for byte in text.utf8 {
      let plain = (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte) || [45, 46, 95, 126, 58, 47].contains(byte)
      let hex = String(byte, radix: 16, uppercase: true)
      result += plain ? String(UnicodeScalar(byte)) : "%" + (hex.count == 1 ? "0" : "") + hex
    }
    return result
  }
}

/// A token server's answer.
struct TokenAnswer {
  var token: String
  var seconds: Int64

  init(_ bytes: [UInt8], _ registry: String) throws {
    struct Answer: Codable {
      var token: String?
      var access_token: String?
      var expires_in: Int64?
    }
    let answer: Answer = try decode(bytes, "the token of \(registry)")
    let token = answer.token.flatMap { $0.isEmpty ? nil : $0 } ?? answer.access_token ?? ""
    // A header's value: nothing that could end it.
    guard !token.isEmpty, token.utf8.allSatisfy({ (33...126).contains($0) }) else {
      throw ImageError(.unauthorized, "ask", "the token server of \(registry)", "it sent no token")
    }
    self.token = token
    // "Defaults to 60 seconds" (token.md).
    seconds = max(60, min(answer.expires_in ?? 60, 86_400))
  }
}
