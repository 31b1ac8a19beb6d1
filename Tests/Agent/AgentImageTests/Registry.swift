import Crypto
import Glibc
import LinuxSystem
import Synchronization

@testable import AgentImage

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// Debian's registry on a loopback port of its own, gone with the test.
final class Registry: @unchecked Sendable {
  enum Access {
    case open, password
    /// Asks this token server; what it signs with is in this certificate.
    case token(realm: String, certificate: String)
  }
  // Written in init alone.
  private var process: pid_t = 0
  let folder = Folder()
  let port: Int
  let tls: Certificate?
  var host: String { "127.0.0.1:\(port)" }
  var blobs: String { folder.path + "/data/docker/registry/v2/blobs/sha256" }

  init(_ access: Access = .open, tls: Certificate? = nil) throws {
    port = Int.random(in: 20_000..<30_000)
    self.tls = tls
    var auth = ""
    switch access {
    case .open: break
    case .password:
      // bcrypt of "secret".
      try folder.write("htpasswd", Array("user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n".utf8))
      auth = "auth:\n  htpasswd:\n    realm: test\n    path: \(folder.path)/htpasswd\n"
    case .token(let realm, let certificate):
      auth = "auth:\n  token:\n    realm: \(realm)\n    service: registry\n    issuer: test\n    rootcertbundle: \(certificate)\n"
    }
    let secure = tls.map { ", tls: {certificate: \($0.path), key: \($0.keyPath)}" } ?? ""
    let configuration = """
      version: 0.1
      log: {level: error}
      storage: {filesystem: {rootdirectory: \(folder.path)/data}, delete: {enabled: true}}
      http: {addr: "127.0.0.1:\(port)"\(secure)}
      \(auth)
      """
    let path = try folder.write("config.yml", Array(configuration.utf8))
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 2, folder.path + "/log", O_WRONLY | O_CREAT, 0o600)
    var arguments: [UnsafeMutablePointer<CChar>?] = ["docker-registry", "serve", path].map { (word: String) in strdup(word) }
    arguments.append(nil)
    let result = posix_spawn(&process, "/usr/bin/docker-registry", &actions, nil, arguments, environ)
    arguments.forEach { free($0) }
    guard result == 0 else { throw SystemError("start", "docker-registry", Errno(result)) }
    for _ in 0..<800 {
      if let socket = try? HTTPListener.connect(port) { close(socket); break }
      usleep(25_000)
    }
  }
  deinit {
    kill(process, SIGKILL)
    waitpid(process, nil, 0)
  }
  func push(_ archive: String, _ name: String, credentials: String? = nil, extra: [String] = []) -> (code: Int32, output: String) {
    run(
      ["skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false"] + (credentials.map { ["--dest-creds", $0] } ?? []) + extra
        + ["docker-archive:" + archive, "docker://\(host)/\(name)"])
  }
}

/// A certificate for 127.0.0.1 that is its own authority, made by openssl.
struct Certificate {
  let folder: Folder
  var path: String { folder.path + "/server.crt" }
  var keyPath: String { folder.path + "/server.key" }

  init(names: String = "IP:127.0.0.1") throws {
    folder = Folder()
    let made = run([
      "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
      "-addext", "subjectAltName=\(names)", "-keyout", folder.path + "/server.key", "-out", folder.path + "/server.crt",
    ])
    guard made.code == 0 else { throw ImageError(.system, "make", "a certificate", made.output) }
  }
}

/// A token server (distribution, "token.md"): checks a password, signs what is asked for with ES256.
final class TokenServer: Sendable {
  struct Asked: Sendable {
    var scopes: [String]
    var user: String?
  }
  let certificate: Certificate
  let asked = Mutex<[Asked]>([])
  private let listener = Mutex<HTTPListener?>(nil)
  var realm: String { "http://127.0.0.1:\(listener.withLock { $0!.port })/token" }

  init() throws {
    certificate = try Certificate()
    let key = try P256.Signing.PrivateKey(pemRepresentation: Files.text(certificate.keyPath))
    let der = try Files.text(certificate.path).split(separator: "\n").filter { !$0.hasPrefix("-----") }.joined()
    let server = try HTTPListener { [weak self] request, socket in
      guard let self else { return }
      let answer = self.answer(request, key, der)
      HTTPListener.send(socket, "HTTP/1.1 \(answer.status)\r\nContent-Length: \(answer.body.utf8.count)\r\nConnection: close\r\n\r\n\(answer.body)")
    }
    listener.withLock { $0 = server }
  }

  private func answer(_ request: HTTPListener.Request, _ key: P256.Signing.PrivateKey, _ der: String) -> (status: String, body: String) {
    var scopes: [String] = []
    let query = request.target.split(separator: "?", maxSplits: 1).dropFirst().first ?? ""
    for item in query.split(separator: "&") where item.hasPrefix("scope=") {
      scopes.append(String(item.dropFirst(6)).replacing("%2C", with: ",").replacing("%20", with: " "))
    }
    let user = request.header("authorization").flatMap { $0.hasPrefix("Basic ") ? Data(base64Encoded: String($0.dropFirst(6))) : nil }
      .map { String(decoding: $0, as: UTF8.self) }
    if let user, user != "user:secret" { return ("401 Unauthorized", "{}") }
    asked.withLock { $0.append(Asked(scopes: scopes, user: user)) }
    let access = scopes.compactMap { scope -> String? in
      let parts = scope.split(separator: ":").map(String.init)
      guard parts.count == 3 else { return nil }
      // Nobody in particular may pull what is public.
      let actions = user != nil ? parts[2].split(separator: ",") : parts[1].hasPrefix("public/") ? ["pull"] : []
      return "{\"type\":\"repository\",\"name\":\"\(parts[1])\",\"actions\":[\(actions.map { "\"\($0)\"" }.joined(separator: ","))]}"
    }
    let now = Int(time(nil))
    func base64(_ bytes: some DataProtocol) -> String {
      Data(bytes).base64EncodedString().replacing("+", with: "-").replacing("/", with: "_").replacing("=", with: "")
    }
    let head = base64(Array("{\"typ\":\"JWT\",\"alg\":\"ES256\",\"x5c\":[\"\(der)\"]}".utf8))
    let claims = base64(
      Array(
        "{\"iss\":\"test\",\"sub\":\"user\",\"aud\":\"registry\",\"exp\":\(now + 300),\"nbf\":\(now - 900),\"iat\":\(now - 900),\"jti\":\"\(UInt64.random(in: 0...UInt64.max))\",\"access\":[\(access.joined(separator: ","))]}"
          .utf8))
    let signature = try! key.signature(for: Array("\(head).\(claims)".utf8))
    return ("200 OK", "{\"token\":\"\(head).\(claims).\(base64(signature.rawRepresentation))\",\"expires_in\":300}")
  }
}
