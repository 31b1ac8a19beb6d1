import Glibc
import LinuxSystem

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// docker's config.json (docker/cli, "config/configfile"), as docker, and podman and skopeo as auth.json, write it at login. Blocking; runs
/// credential helpers.
public enum CredentialsFile {
  struct Document: Codable {
    struct Entry: Codable {
      var auth: String?
      var username: String?
      var password: String?
      var identitytoken: String?
    }
    var auths: [String: Entry]?
    var credsStore: String?
    var credHelpers: [String: String]?
  }

  /// Where `docker login`, `podman login` and `skopeo login` put credentials, in the order in which podman and skopeo look there
  /// (containers-auth.json(5); containers/common, pkg/auth: each of the first two variables names the only file).
  public static func paths(environment: (String) -> String?, user: UInt32 = getuid()) -> [String] {
    func value(_ name: String) -> String? { environment(name).flatMap { $0.isEmpty ? nil : $0 } }
    if let file = value("REGISTRY_AUTH_FILE") { return [file] }
    if let folder = value("DOCKER_CONFIG") { return [folder + "/config.json"] }
    let home = value("HOME")
    // /run/containers/UID/auth.json itself has no further `containers` in it.
    let primary = value("XDG_RUNTIME_DIR").map { $0 + "/containers/auth.json" } ?? "/run/containers/\(user)/auth.json"
    let configuration = (value("XDG_CONFIG_HOME") ?? home.map { $0 + "/.config" }).map { $0 + "/containers/auth.json" }
    return [primary, configuration, home.map { $0 + "/.docker/config.json" }].compactMap { $0 }
  }

  /// The same of the first file that has something for the registry.
  public static func credentials(for registry: String, path: String = "", in files: [String]) throws -> RegistryCredentials? {
    for file in files {
      if let found = try credentials(for: registry, path: path, in: file) { return found }
    }
    return nil
  }

  /// What the file, or a helper it names, has for the registry ("docker.io", "host:port"); nil: nothing, or there is no such file.
  /// - Parameter path: of the repository ("team/web"): podman's file may have an entry for it or for what is above it
  ///   (containers-auth.json(5)), and the longest one counts. Empty: the registry itself is meant.
  public static func credentials(for registry: String, path: String = "", in file: String) throws -> RegistryCredentials? {
    guard Files.exists(file) else { return nil }
    let document: Document
    do { document = try JSONDecoder().decode(Document.self, from: Data(try Files.read(file, limit: 4 << 20))) } catch let error as SystemError {
      throw LoginError("\(error)")
    } catch {
      throw LoginError("read \(file): it is neither docker's config.json nor podman's auth.json")
    }
    // docker.io's is kept under the address of its first version.
    let keys = registry == "docker.io" ? ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io"] : [registry]
    for key in keys {
      if let helper = document.credHelpers?[key] { return try ask(helper, key, file) }
    }
    if let helper = document.credsStore, !helper.isEmpty {
      for key in keys { if let found = try ask(helper, key, file) { return found } }
    }
    let auths = document.auths ?? [:]
    for name in namespaces(registry, path) + keys {
      if let found = auths[name].flatMap(credentials) { return found }
    }
    // One file gives one answer, whatever order a dictionary has.
    for (name, entry) in auths.sorted(by: { $0.key < $1.key }) where host(name).map(keys.contains) ?? false {
      if let found = credentials(entry) { return found }
    }
    return nil
  }

  /// "host/a/b" and "host/a" of the repository "a/b", the longest first.
  private static func namespaces(_ registry: String, _ path: String) -> [String] {
    let parts = path.split(separator: "/")
    return parts.indices.reversed().map { "\(registry)/\(parts[...$0].joined(separator: "/"))" }
  }

  /// "host:port" of "https://host:port/v1/", as docker wrote registries; nil for "host/namespace", which is not all of the registry.
  static func host(_ name: String) -> String? {
    for scheme in ["https://", "http://"] where name.hasPrefix(scheme) { return String(name.dropFirst(scheme.count).prefix { $0 != "/" }) }
    let host = name.prefix { $0 != "/" }
    return ["", "/", "/v1", "/v1/", "/v2", "/v2/"].contains(name[host.endIndex...]) ? String(host) : nil
  }

  private static func credentials(_ entry: Document.Entry) -> RegistryCredentials? {
    var found = RegistryCredentials(username: entry.username ?? "", password: entry.password ?? "", identityToken: entry.identitytoken ?? "")
    if let auth = entry.auth, let both = RegistryCredentials.pair(auth) { (found.username, found.password) = both }
    return found.username.isEmpty && found.identityToken.isEmpty ? nil : found
  }

  /// `docker-credential-NAME get` (docker/docker-credential-helpers): the registry on stdin, JSON on stdout.
  private static func ask(_ helper: String, _ registry: String, _ file: String) throws -> RegistryCredentials? {
    guard !helper.isEmpty, helper.utf8.allSatisfy({ $0 != 47 && $0 > 32 && $0 < 127 }) else {
      throw LoginError("read \(file): '\(helper)' is no credential helper's name")
    }
    let program = "docker-credential-\(helper)"
    let (code, output) = try HelperProcess.run([program, "get"], input: Array((registry + "\n").utf8))
    struct Answer: Codable {
      var Username: String
      var Secret: String
    }
    guard code == 0 else {
      let said = String(decoding: output.prefix { $0 != 10 }.prefix(300), as: UTF8.self)
      if said.contains("credentials not found") { return nil }
      throw LoginError("ask \(program) for \(registry): it ended with \(code)\(said.isEmpty ? "" : " (\(said))")")
    }
    guard let answer = try? JSONDecoder().decode(Answer.self, from: Data(output)) else {
      throw LoginError("ask \(program) for \(registry): its answer is not the JSON it should be")
    }
    if answer.Username == "<token>" { return RegistryCredentials(username: "", password: "", identityToken: answer.Secret) }
    return answer.Username.isEmpty ? nil : RegistryCredentials(username: answer.Username, password: answer.Secret)
  }
}
