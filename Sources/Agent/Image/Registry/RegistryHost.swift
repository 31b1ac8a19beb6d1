import LinuxSystem
import Model
import NIOSSL

/// Where a registry is, how it is spoken to, and whom to believe that it is it.
struct RegistryHost: Sendable {
  /// "https://host:port", lower case.
  let base: String
  let plain: Bool
  let tls: TLSConfiguration?
  /// Of a mirror: what it has before the repositories' names, "" or "proxy/docker/".
  let prefix: String
  /// "host:port" as it is written: what somebody logs in to.
  let authority: String

  /// The mirrors first, then the registry itself. Reads certificate folders: blocking.
  static func candidates(_ name: ImageReference, _ configuration: ImageStoreConfiguration, mirrors: Bool = true) throws -> [RegistryHost] {
    var hosts: [RegistryHost] = []
    for mirror in mirrors ? configuration.mirrors[name.registry] ?? [] : [] {
      let (scheme, authority, prefix) = try split(mirror)
      let plain = scheme == "http"
      hosts.append(try RegistryHost(authority: authority, plain: plain, prefix: prefix, configuration.certificateFolders))
    }
    let authority = name.registry == "docker.io" ? "registry-1.docker.io" : name.registry
    let folder = certificates(name.registry, configuration.certificateFolders)
    // Loopback is the one place where nobody can listen in between: plain, unless certificates for it are given.
    let plain = configuration.insecureRegistries.contains(name.registry) || (isLoopback(name.registry) && folder == nil)
    hosts.append(try RegistryHost(authority: authority, plain: plain, configuration.certificateFolders))
    return hosts
  }

  private init(authority: String, plain: Bool, prefix: String = "", showsClient: Bool = true, _ folders: [String]) throws {
    base = Self.origin(of: "\(plain ? "http" : "https")://\(authority)")
    self.plain = plain
    self.prefix = prefix
    self.authority = authority
    tls = plain ? nil : try Self.certificates(authority, folders).map { try Self.configuration($0, showsClient: showsClient) }
  }

  /// Of any URL: its scheme says how it is spoken to. The folder's authorities are believed; its client's certificate is for a registry, and not
  /// for whoever has a URL fetched.
  init(server url: String, _ configuration: ImageStoreConfiguration) throws {
    let origin = Self.written(url)
    let plain = origin.hasPrefix("http://")
    let authority = origin.dropFirst(plain ? 7 : 8)
    // It names a folder of certificates.
    let isName =
      !authority.isEmpty && !authority.hasPrefix(".")
      && authority.utf8.allSatisfy {
        (97...122).contains($0) || (48...57).contains($0) || "-.:[]_".utf8.contains($0)
      }
    guard plain || origin.hasPrefix("https://"), isName else {
      throw ImageError(.unsupported, "download", url, "it is no address such as https://HOST[:PORT]/FILE")
    }
    try self.init(authority: String(authority), plain: plain, showsClient: false, configuration.certificateFolders)
  }

  /// A path is what the mirror calls a project, a namespace or a remote, as podman's `location` has it (containers-registries.conf(5)).
  private static func split(_ mirror: String) throws -> (scheme: String, authority: String, prefix: String) {
    for scheme in ["https", "http"] where mirror.lowercased().hasPrefix(scheme + "://") {
      let rest = mirror.dropFirst(scheme.count + 3).trimmingSlash
      let authority = String(rest.prefix { $0 != "/" })
      let path = String(rest.dropFirst(authority.count + 1))
      if authority.isEmpty || authority.contains("@") { break }
      if path.isEmpty { return (scheme, authority, "") }
      // What a repository's name may be, and nothing that leads elsewhere.
      if (try? ImageReference("mirror.example/\(path)/x"))?.path == "\(path)/x" { return (scheme, authority, path + "/") }
    }
    throw ImageError(
      .unsupported, "use mirror", "'\(mirror)'",
      "a mirror is https://HOST[:PORT][/PATH], or http:// where that is meant, without a user; '/v2' is no part of it")
  }

  static func isLoopback(_ registry: String) -> Bool {
    if registry.hasPrefix("[::1]") { return true }
    let host = registry.split(separator: ":").first.map(String.init) ?? ""
    let parts = host.split(separator: ".", omittingEmptySubsequences: false)
    return host == "localhost" || (parts.count == 4 && parts[0] == "127" && parts.allSatisfy { UInt8($0) != nil })
  }

  // MARK: - Certificates

  private static func certificates(_ authority: String, _ folders: [String]) -> String? {
    // The authority was checked to be one: no slash, no "..".
    folders.map { "\($0)/\(authority)" }.first { !((try? Files.list($0)) ?? []).isEmpty }
  }

  /// As docker reads such a folder (docs.docker.com, "Verify repository client with certificates").
  private static func configuration(_ folder: String, showsClient: Bool) throws -> TLSConfiguration {
    var configuration = TLSConfiguration.makeClientConfiguration()
    let names = try Files.list(folder)
    do {
      let authorities = try names.filter { $0.hasSuffix(".crt") }.flatMap { try NIOSSLCertificate.fromPEMFile("\(folder)/\($0)") }
      if !authorities.isEmpty { configuration.additionalTrustRoots = [.certificates(authorities)] }
      if showsClient, let certificate = names.first(where: { $0.hasSuffix(".cert") }) {
        let key = certificate.dropLast(4) + "key"
        configuration.certificateChain = try NIOSSLCertificate.fromPEMFile("\(folder)/\(certificate)").map { .certificate($0) }
        configuration.privateKey = .privateKey(try NIOSSLPrivateKey(file: "\(folder)/\(key)", format: .pem))
      }
    } catch {
      throw ImageError(
        .system, "read certificates", folder, "\(error); it holds authorities as *.crt and a client's certificate as X.cert with X.key, all PEM")
    }
    return configuration
  }

  /// A client's certificate is for the registry alone; its authorities are for its token server and storage, too.
  func tls(for url: String) -> TLSConfiguration? {
    guard var tls, Self.origin(of: url) != base else { return tls }
    (tls.certificateChain, tls.privateKey) = ([], nil)
    return tls
  }

  // MARK: - URLs

  /// `https://host` or `https://host:port` of a URL in lower case, without the port that the scheme means anyway (RFC 6454 4: with it, it is the same
  /// origin; distribution's client compares so, too); empty for anything else, such as one that names a user.
  static func origin(of url: String) -> String {
    let origin = written(url)
    for (scheme, port) in [("https://", ":443"), ("http://", ":80")] where origin.hasPrefix(scheme) && origin.hasSuffix(port) {
      return String(origin.dropLast(port.count))
    }
    return origin
  }

  /// The same with the port as it stands.
  private static func written(_ url: String) -> String {
    guard let scheme = url.firstRange(of: "://") else { return "" }
    let end = url[scheme.upperBound...].firstIndex { "/?#\\".contains($0) } ?? url.endIndex
    let origin = url[..<end].lowercased()
    return origin.contains("@") ? "" : origin
  }

  /// Where a Location leads, seen from `url`. Refuses to leave TLS.
  func follow(_ location: String, from url: String, _ object: String) throws -> String {
    let target: String
    if location.hasPrefix("//") {
      target = (plain ? "http:" : "https:") + location
    } else if location.hasPrefix("/") {
      target = Self.origin(of: url) + location
    } else if location.contains("://") {
      target = location
    } else {
      // Relative to the folder of the path, the root where there is none (RFC 3986 5.2.3).
      let origin = Self.written(url)
      let path = url.prefix { $0 != "?" && $0 != "#" }.dropFirst(origin.count)
      target = origin + (path.lastIndex(of: "/").map { String(path[...$0]) } ?? "/") + location
    }
    let origin = Self.origin(of: target)
    guard origin.hasPrefix("https://") || (plain && origin.hasPrefix("http://")) else {
      throw ImageError(.network, "ask", object, "the server leads to '\(location.prefix(100))', which is not HTTPS")
    }
    return target
  }
}

extension Substring {
  fileprivate var trimmingSlash: String { String(hasSuffix("/") ? dropLast() : self) }
}
