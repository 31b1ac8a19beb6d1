import Glibc
import LinuxSystem
import Model
import Synchronization
import Testing

@testable import AgentImage

/// A registry that lies: answers made by hand on a real socket, pulled by a real store.
struct EvilRegistry: Sendable, CustomTestStringConvertible {
  struct Answer: Sendable {
    var body: [UInt8]
    var headers: [String] = []
  }
  var name: String
  var reason: String
  /// By the last part of the path: a tag or a digest.
  var answers: [String: Answer]
  /// Pulled by it, if not by the tag 1.
  var digest: String?
  var testDescription: String { name }

  fileprivate static let layer: [UInt8] = {
    var tar = TarWriter()
    tar.add("x", "x")
    return tar.finished()
  }()
  private static func digest(_ bytes: [UInt8]) -> String { Digest(of: bytes).description }
  private static func config(_ count: Int = 1) -> [UInt8] {
    let ids = Array(repeating: "\"\(digest(layer))\"", count: count).joined(separator: ",")
    return Array(
      "{\"architecture\":\"\(hostArchitecture)\",\"os\":\"linux\",\"config\":{},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\(ids)]}}".utf8)
  }

  /// An honest image, with one lie.
  private static func image(
    _ name: String, _ reason: String, configType: String = MediaType.ociConfig, configSize: Int? = nil, config: [UInt8] = config(),
    sent: [UInt8]? = nil,
    layerType: String = MediaType.ociLayer, layerSize: Int? = nil, layerSent: [UInt8]? = nil, layers: Int = 1, padding: Int = 0,
    headers: [String] = []
  ) -> EvilRegistry {
    let layerText = "{\"mediaType\":\"\(layerType)\",\"digest\":\"\(digest(layer))\",\"size\":\(layerSize ?? layer.count)}"
    let manifest =
      Array(
        "{\"schemaVersion\":2,\"mediaType\":\"\(MediaType.ociManifest)\",\"config\":{\"mediaType\":\"\(configType)\",\"digest\":\"\(digest(config))\",\"size\":\(configSize ?? config.count)},\"layers\":[\(Array(repeating: layerText, count: layers).joined(separator: ","))]}"
          .utf8) + [UInt8](repeating: 32, count: padding)
    return EvilRegistry(
      name: name, reason: reason,
      answers: [
        "1": Answer(body: manifest, headers: headers), digest(manifest): Answer(body: manifest, headers: headers),
        digest(config): Answer(body: sent ?? config),
        digest(layer): Answer(body: layerSent ?? layer),
      ])
  }

  static let all: [EvilRegistry] = {
    var indexes: [String: Answer] = [:]
    var last = Array("{}".utf8)
    for _ in 0..<6 {
      last = Array(
        "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"\(MediaType.ociIndex)\",\"digest\":\"\(digest(last))\",\"size\":\(last.count)}]}".utf8)
      indexes[digest(last)] = Answer(body: last)
    }
    indexes["1"] = Answer(body: last)
    var other = layer
    other[0] ^= 1
    var otherConfig = config()
    otherConfig[otherConfig.count - 1] = 32
    let zeros = "sha256:" + String(repeating: "0", count: 64)
    return [
      EvilRegistry(name: "indexes in indexes", reason: "nested", answers: indexes),
      image("a configuration that is a chart", "no container image", configType: "application/vnd.cncf.helm.config.v1+json"),
      image("1001 layers", "at most 1000", config: config(1001), layers: 1001),
      image("a layer that is a program", "media type", layerType: "application/x-msdownload"),
      image("more layers than diff ids", "diff ids", layers: 2),
      image("a manifest of an old kind", "media type", headers: ["Content-Type: application/vnd.docker.distribution.manifest.v1+prettyjws"]),
      image("a manifest of 5 MiB", "more than 4194304 bytes", padding: 5 << 20),
      image("a configuration of 5 MiB", "is not read", configSize: 5 << 20, config: config() + [UInt8](repeating: 32, count: 5 << 20)),
      image("a configuration with other bytes", "with the digest", sent: otherConfig),
      image("a configuration that is cut", "with the digest", sent: Array(config().dropLast())),
      image("a layer of 2^50 bytes", "is not taken", layerSize: 1 << 50), image("a layer of a size below zero", "is not taken", layerSize: -1),
      image("a layer that does not end", "sent more than", layerSent: layer + [UInt8](repeating: 0, count: 1 << 20)),
      image("a layer with other bytes", "its bytes have the digest", layerSent: other),
      image("a layer that is cut", "sent only", layerSent: Array(layer.dropLast(512))),
      image("a manifest that is not what its header says", "sent another one", headers: ["Docker-Content-Digest: \(zeros)"]),
      {
        var evil = image("a manifest that is not what was asked for", "sent another one")
        evil.answers[zeros] = evil.answers["1"]
        evil.digest = zeros
        return evil
      }(),
    ]
  }()
}

@Suite(.enabled(if: geteuid() == 0)) struct EvilRegistries {
  @Test("nothing of what a lying registry sends is kept", arguments: EvilRegistry.all)
  func evil(_ evil: EvilRegistry) async throws {
    let world = try EvilWorld()
    let listener = try HTTPListener { request, client in
      let last = request.target.split(separator: "/").last.map(String.init) ?? ""
      guard let answer = evil.answers[last] else { return HTTPListener.send(client, "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n") }
      let lines = ["HTTP/1.1 200 OK", "Content-Length: \(answer.body.count)", "Connection: close"] + answer.headers
      HTTPListener.send(client, lines.joined(separator: "\r\n") + "\r\n\r\n")
      HTTPListener.send(client, answer.body)
    }
    var configuration = ImageStoreConfiguration()
    configuration.attempts = 1
    let store = try ImageStore(directory: world.images, configuration: configuration)
    do {
      _ = try await store.pull("127.0.0.1:\(listener.port)/evil" + (evil.digest.map { "@" + $0 } ?? ":1"))
      Issue.record("it was taken")
    } catch { #expect("\(error)".contains(evil.reason), "\(error)") }
    #expect(store.list().isEmpty && world.damage().isEmpty)
    #expect(try Files.list(world.images + "/layers").isEmpty)
  }

  private static let user = RegistryCredentials(username: "user", password: "hunter2")

  @Test("where a redirect leads may not ask for credentials, nor name who gets them")
  func challenges() async throws {
    let heard = Mutex<[String]>([])
    let thief = try HTTPListener { request, client in
      heard.withLock { $0.append("\(request.method) \(request.target) \(request.header("authorization") ?? "-")") }
      HTTPListener.send(client, "HTTP/1.1 200 OK\r\nContent-Length: 13\r\nConnection: close\r\n\r\n{\"token\":\"t\"}")
    }
    for challenge in ["Bearer realm=\"http://127.0.0.1:\(thief.port)/token\"", "Basic realm=x"] {
      let storage = try HTTPListener { request, client in
        heard.withLock { $0.append("storage \(request.header("authorization") ?? "-")") }
        HTTPListener.send(client, "HTTP/1.1 401 Who\r\nWWW-Authenticate: \(challenge)\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
      }
      let manifest = EvilRegistry.all.first { $0.name == "a layer that is cut" }!.answers["1"]!.body
      // It has asked for the password before it leads away.
      let registry = try HTTPListener { request, client in
        let isKnown = request.header("authorization") != nil
        let leads = request.target.contains("/blobs/")
        let head =
          !isKnown ? "401 Who\r\nWWW-Authenticate: Basic realm=x" : leads ? "307 There\r\nLocation: http://127.0.0.1:\(storage.port)/x" : "200 OK"
        let body = isKnown && !leads ? manifest : []
        HTTPListener.send(client, "HTTP/1.1 \(head)\r\nContent-Length: \(body.count)\r\nConnection: close\r\n\r\n")
        HTTPListener.send(client, body)
      }
      let folder = Folder()
      var configuration = ImageStoreConfiguration()
      configuration.attempts = 1
      let store = try ImageStore(directory: folder.path + "/images", configuration: configuration)
      await #expect(throws: ImageError.self) { try await store.pull("127.0.0.1:\(registry.port)/web:1", credentials: Self.user) }
      // A second challenge of the storage would be the mark of one that was answered.
      #expect(heard.withLock { $0 } == ["storage -"], "\(challenge)")
      heard.withLock { $0 = [] }
    }
  }

  @Test("a token server without TLS gets no password; a token that would end a header is none")
  func tokens() async throws {
    let authorizer = Authorizer(Self.user)
    let asked = Mutex(0)
    await #expect {
      try await authorizer.answer(
        ["Bearer realm=\"http://token.test/t\""], scopes: [], registry: "r.test", plain: false, object: "o"
      ) { _ in
        asked.withLock { $0 += 1 }
        throw CancellationError()
      }
    } throws: { "\($0)".contains("without HTTPS") }
    #expect(asked.withLock { $0 } == 0)
    for token in ["a\\r\\nX: y", "", "a b", "\\u0000"] {
      #expect(throws: ImageError.self) { try TokenAnswer(Array("{\"token\":\"\(token)\"}".utf8), "r") }
    }
  }

  @Test("a client's certificate is for the registry alone, wherever it leads; its authorities go along")
  func clientCertificate() throws {
    let certificate = try Certificate()
    let folder = Folder()
    try Files.makeDirectories(folder.path + "/r.test", mode: 0o700)
    for (name, path) in [("ca.crt", certificate.path), ("client.cert", certificate.path), ("client.key", certificate.keyPath)] {
      try folder.write("r.test/" + name, Files.read(path))
    }
    var configuration = ImageStoreConfiguration()
    configuration.certificateFolders = [folder.path]
    let host = try #require(RegistryHost.candidates(ImageReference("r.test/web:1"), configuration).last)
    for (url, shown) in [
      ("https://r.test/v2/web/blobs/x", true), ("https://R.test/x", true), ("https://storage.test/x", false), ("https://r.test:8443/x", false),
      ("https://r.test@storage.test/x", false), ("https://storage.test/r.test", false),
    ] {
      let tls = try #require(host.tls(for: url))
      #expect(!tls.certificateChain.isEmpty == shown && (tls.privateKey != nil) == shown, "\(url)")
      #expect(!tls.additionalTrustRoots.isEmpty)
    }
  }

  @Test("a redirect leaves neither TLS nor names a user")
  func redirects() throws {
    let host = try #require(RegistryHost.candidates(ImageReference("r.test/web:1"), ImageStoreConfiguration()).last)
    for location in ["http://r.test/x", "http://evil.test/x", "https://user@evil.test/x", "ftp://r.test/x", "file:///etc/passwd"] {
      #expect(throws: ImageError.self, "\(location)") { try host.follow(location, from: "https://r.test/v2/a/b", "o") }
    }
    #expect(try host.follow("//s.test/x", from: "https://r.test/v2/a/b", "o") == "https://s.test/x")
    #expect(try host.follow("c?d=e", from: "https://r.test/v2/a/b?x=/", "o") == "https://r.test/v2/a/c?d=e")
  }
}
