// RegistryLogin: who somebody is to a registry, as docker keeps and sends it. Used where the credentials are (the CLI's host, or a host's own)
// and where they are needed (the agent that pulls or pushes). It refuses to know registries, HTTP and where a value goes.
#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// What a registry is told of who asks. Never printed, logged or stored by orch.
public struct RegistryCredentials: Hashable, Sendable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
  public var username: String
  public var password: String
  /// An OAuth2 refresh token instead of a password.
  public var identityToken: String
  public init(username: String, password: String, identityToken: String = "") {
    self.username = username
    self.password = password
    self.identityToken = identityToken
  }
  public var description: String { "credentials" }
  public var debugDescription: String { "credentials" }
  public var customMirror: Mirror { Mirror(self, children: [:]) }

  // MARK: - X-Registry-Auth

  private struct Header: Codable {
    var username: String?
    var password: String?
    /// What old clients send: base64 of "user:password".
    var auth: String?
    var identitytoken: String?
    var serveraddress: String?
  }

  /// The value of docker's header (Engine API, "Authentication"): base64url of JSON.
  public func header(for registry: String) throws -> String {
    let document = Header(
      username: username, password: password, identitytoken: identityToken.isEmpty ? nil : identityToken, serveraddress: registry)
    return try JSONEncoder().encode(document).base64EncodedString().replacing("+", with: "-").replacing("/", with: "_")
  }

  /// nil: the header names nobody. Throws ``LoginError`` for what is none.
  public init?(header: String) throws(LoginError) {
    guard header.utf8.count <= 64 << 10 else { throw LoginError("X-Registry-Auth has more than 64 KiB") }
    var text = header.replacing("-", with: "+").replacing("_", with: "/")
    while text.utf8.count % 4 != 0 { text += "=" }
    guard let data = Data(base64Encoded: text) else { throw LoginError("X-Registry-Auth is not base64") }
    if data.isEmpty { return nil }
    guard let document = try? JSONDecoder().decode(Header.self, from: data) else { throw LoginError("X-Registry-Auth is not the JSON it should be") }
    self.init(username: document.username ?? "", password: document.password ?? "", identityToken: document.identitytoken ?? "")
    if username.isEmpty, let auth = document.auth, let both = Self.pair(auth) { (username, password) = both }
    if username.isEmpty, identityToken.isEmpty { return nil }
  }

  /// Of base64 of "user:password".
  static func pair(_ auth: String) -> (String, String)? {
    guard let data = Data(base64Encoded: auth) else { return nil }
    let text = String(decoding: data, as: UTF8.self)
    guard let colon = text.firstIndex(of: ":") else { return nil }
    // docker writes zero bytes after the password.
    return (String(text[..<colon]), String(text[text.index(after: colon)...].prefix { $0 != "\0" }))
  }
}

/// Operation, object, cause; never a secret.
public struct LoginError: Error, Hashable, Sendable, CustomStringConvertible {
  public var description: String
  public init(_ description: String) { self.description = description }
}
