import Glibc
import LinuxSystem
import Model
import Synchronization
import Testing

@testable import AgentImage

/// A real registry (Debian's docker-registry), what stands before it, and what breaks in between.
@Suite(.serialized, .enabled(if: geteuid() == 0 && installed("docker-registry") && installed("skopeo") && installed("openssl"))) struct Registries {
  let folder = Folder()
  private func open(_ name: String = "images", _ change: (inout ImageStoreConfiguration) -> Void = { _ in }) throws -> ImageStore {
    var configuration = ImageStoreConfiguration()
    configuration.firstPause = .milliseconds(20)
    configuration.certificateFolders = [folder.path + "/certs.d"]
    change(&configuration)
    return try ImageStore(directory: "\(folder.path)/\(name)", configuration: configuration)
  }
  /// A layer of bytes that do not compress.
  static func noise(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
    var state = seed
    var tar = TarWriter()
    tar.add(
      "noise",
      (0..<count).map { _ in
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return UInt8(truncatingIfNeeded: state >> 33)
      })
    return tar.finished()
  }
  private func archive(_ size: Int = 300_000) throws -> String {
    try folder.write("web.tar", savedImage(layers: [Self.noise(size), Stores.layer([("top", "22")])], name: "web:1", config: "{\"Cmd\":[\"x\"]}"))
  }
  private func filled(_ access: Registry.Access = .open, size: Int = 300_000) throws -> Registry {
    let registry = try Registry(access)
    let pushed = registry.push(try archive(size), "web:1")
    #expect(pushed.code == 0, "\(pushed.output)")
    return registry
  }

  // MARK: - Push

  @Test("what is pushed is what skopeo, and another store, pull: same digests; pushed again nothing is sent")
  func push() async throws {
    let registry = try Registry()
    let store = try open { $0.pushChunkBytes = 100_000 }
    let loaded = try await store.load(archive(), name: "\(registry.host)/team/web:1")
    let phases = Mutex<[PullProgress.Phase]>([])
    let digest = try await store.push("\(registry.host)/team/web:1") { update in phases.withLock { $0.append(update.phase) } }
    #expect(phases.withLock { $0.filter { $0 == .done }.count } == 2)
    let other = try open("other")
    let pulled = try await other.pull("\(registry.host)/team/web:1")
    #expect(pulled.digest == digest && pulled.id == loaded[0].id)
    let raw = run(["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", "docker://\(registry.host)/team/web:1"])
    #expect(raw.output.contains(digest.description), "\(raw.output)")
    phases.withLock { $0 = [] }
    try await store.push("\(registry.host)/team/web:1") { update in phases.withLock { $0.append(update.phase) } }
    #expect(phases.withLock { $0.filter { $0 == .alreadyThere }.count == 2 && !$0.contains(.uploading) })
    await #expect(throws: ImageError.self) { try await store.push("\(registry.host)/none:1") }
    await #expect(throws: ImageError.self) { try await store.push("\(registry.host)/team/web@\(digest)") }
  }

  @Test("plain layers are sent as gzip, made once; another repository mounts them; what was pulled keeps its digest")
  func compressed() async throws {
    let registry = try Registry()
    let store = try open()
    let path = try folder.write(
      "zeros.tar",
      savedImage(layers: [Stores.layer([("zeros", String(repeating: "0", count: 2_000_000))]), Stores.layer([("top", "22")])], name: "web:1"))
    let loaded = try await store.load(path, name: "\(registry.host)/web:1")
    let phases = Mutex<[PullProgress.Phase]>([])
    func push(_ name: String) async throws -> Digest {
      phases.withLock { $0 = [] }
      return try await store.push("\(registry.host)/\(name)") { update in phases.withLock { $0.append(update.phase) } }
    }
    func count(_ phase: PullProgress.Phase) -> Int { phases.withLock { $0.count { $0 == phase } } }
    let digest = try await push("web:1")
    #expect(count(.done) == 2 && digest != loaded[0].digest)
    let raw = run(["skopeo", "inspect", "--raw", "--tls-verify=false", "docker://\(registry.host)/web:1"])
    #expect(raw.output.components(separatedBy: "tar+gzip").count == 3, "\(raw.output)")
    let blobs = run(["du", "-s", "--block-size=1", registry.blobs])
    #expect(Int(blobs.output.prefix { $0.isNumber }).map { $0 < 200_000 } == true, "\(blobs.output)")
    #expect(try await push("web:1") == digest)
    #expect(count(.alreadyThere) == 2 && count(.uploading) == 0)
    try await store.tag("\(registry.host)/web:1", as: "\(registry.host)/copy:1")
    #expect(try await push("copy:1") == digest)
    #expect(count(.mounted) == 2 && count(.uploading) == 0)
    // A store that does not know makes the same bytes.
    let other = try open("other")
    _ = try await other.load(path, name: "\(registry.host)/web:1")
    #expect(try await other.push("\(registry.host)/web:1") == digest)
    let pulled = try await open("third").pull("\(registry.host)/copy:1")
    #expect(pulled.digest == digest && pulled.id == loaded[0].id)
    #expect(try Files.list(store.directory + "/ingest").isEmpty)
    // The registry's own plain layers stay what they are.
    let plain = run([
      "skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false", "--dest-decompress", "docker-archive:" + path, "dir:\(folder.path)/dir",
    ])
    #expect(plain.code == 0, "\(plain.output)")
    #expect(
      run([
        "skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false", "--preserve-digests", "dir:\(folder.path)/dir",
        "docker://\(registry.host)/plain:1",
      ]).code == 0)
    let kept = try await other.pull("\(registry.host)/plain:1")
    try await other.tag("\(registry.host)/plain:1", as: "\(registry.host)/again:1")
    #expect(try await other.push("\(registry.host)/again:1") == kept.digest)
  }

  @Test("layers that another repository of the registry has are mounted, not sent")
  func mounts() async throws {
    let registry = try filled()
    let proxy = try FaultProxy(registry.port)
    let store = try open()
    _ = try await store.pull("\(proxy.host)/web:1")
    try await store.tag("\(proxy.host)/web:1", as: "\(proxy.host)/other/copy:2")
    let phases = Mutex<[PullProgress.Phase]>([])
    try await store.push("\(proxy.host)/other/copy:2") { update in phases.withLock { $0.append(update.phase) } }
    #expect(phases.withLock { $0.filter { $0 == .mounted }.count } == 2)
    #expect(proxy.requests("PATCH", "").isEmpty)
    // The configuration alone is sent: it is no layer.
    #expect(proxy.requests("PUT", "/blobs/uploads/").count <= 1)
    #expect(try await open("third").pull("\(registry.host)/other/copy:2").config.cmd == ["x"])
  }

  @Test("zstd layers are pulled, and go on as they came")
  func zstandard() async throws {
    let registry = try Registry()
    let pushed = registry.push(try archive(), "web:1", extra: ["--dest-compress-format", "zstd", "--format", "oci"])
    #expect(pushed.code == 0, "\(pushed.output)")
    let store = try open()
    let record = try await store.pull("\(registry.host)/web:1")
    #expect(try Files.text(record.layerPaths[1] + "/top") == "22")
    try await store.tag("\(registry.host)/web:1", as: "\(registry.host)/again:1")
    #expect(try await store.push("\(registry.host)/again:1") == record.digest)
    let raw = run(["skopeo", "inspect", "--raw", "--tls-verify=false", "docker://\(registry.host)/again:1"])
    #expect(raw.output.contains("tar+zstd"), "\(raw.output)")
  }

  // MARK: - Who asks

  @Test("a password is asked for and taken, for pull and push")
  func passwords() async throws {
    let registry = try Registry(.password)
    let store = try open()
    _ = try await store.load(archive(), name: "\(registry.host)/web:1")
    let none = await #expect(throws: ImageError.self) { try await store.push("\(registry.host)/web:1") }
    #expect(none?.kind == .unauthorized && none?.description.contains("docker login") == true)
    let wrong = RegistryCredentials(username: "user", password: "hunter2")
    let refused = await #expect(throws: ImageError.self) { try await store.push("\(registry.host)/web:1", credentials: wrong) }
    #expect(refused?.kind == .unauthorized && refused?.description.contains("hunter2") == false)
    let right = RegistryCredentials(username: "user", password: "secret")
    try await store.push("\(registry.host)/web:1", credentials: right)
    #expect(try await open("other").pull("\(registry.host)/web:1", credentials: right).config.cmd == ["x"])
    // The host's own, as tasks use them.
    try folder.write("config.json", Array("{\"auths\":{\"\(registry.host)\":{\"auth\":\"dXNlcjpzZWNyZXQ=\"}}}".utf8))
    let file = folder.path + "/config.json"
    #expect(try await open("third") { $0.credentialsFiles = [file] }.pull("\(registry.host)/web:1").config.cmd == ["x"])
  }

  @Test("tokens: anonymous where that is allowed, several scopes for a mount, wrong credentials are told")
  func tokens() async throws {
    let server = try TokenServer()
    let registry = try Registry(.token(realm: server.realm, certificate: server.certificate.path))
    let user = RegistryCredentials(username: "user", password: "secret")
    let store = try open()
    for name in ["public/web:1", "private/web:1"] {
      _ = try await store.load(archive(), name: "\(registry.host)/\(name)")
      try await store.push("\(registry.host)/\(name)", credentials: user)
    }
    let anonymous = try open("anonymous")
    #expect(try await anonymous.pull("\(registry.host)/public/web:1").config.cmd == ["x"])
    #expect(server.asked.withLock { $0.last?.user == nil && $0.last?.scopes == ["repository:public/web:pull"] })
    let denied = await #expect(throws: ImageError.self) { try await anonymous.pull("\(registry.host)/private/web:1") }
    #expect(denied?.kind == .unauthorized)
    let wrong = await #expect(throws: ImageError.self) {
      try await anonymous.pull("\(registry.host)/private/web:1", credentials: .init(username: "user", password: "no"))
    }
    #expect(wrong?.kind == .unauthorized && wrong?.description.contains("token server") == true)
    // From one repository to another: one token for both.
    let pulled = try open("pulled")
    _ = try await pulled.pull("\(registry.host)/private/web:1", credentials: user)
    try await pulled.tag("\(registry.host)/private/web:1", as: "\(registry.host)/copy:1")
    let phases = Mutex<[PullProgress.Phase]>([])
    try await pulled.push("\(registry.host)/copy:1", credentials: user) { update in phases.withLock { $0.append(update.phase) } }
    #expect(phases.withLock { $0.filter { $0 == .mounted }.count } == 2)
    #expect(
      server.asked.withLock { $0.last.map { Set($0.scopes).isSuperset(of: ["repository:copy:pull,push", "repository:private/web:pull"]) } } == true)
  }

  @Test("a token that ends in the midst of a layer is replaced and the layer goes on; a registry that takes no token is not asked for ever")
  func tokenEnds() async throws {
    let server = try TokenServer()
    let registry = try Registry(.token(realm: server.realm, certificate: server.certificate.path))
    let user = RegistryCredentials(username: "user", password: "secret")
    let loader = try open("loader")
    let path = try folder.write("one.tar", savedImage(layers: [Self.noise(2_000_000)], name: "web:1", config: "{\"Cmd\":[\"x\"]}"))
    _ = try await loader.load(path, name: "\(registry.host)/web:1")
    try await loader.push("\(registry.host)/web:1", credentials: user)
    let challenge = "WWW-Authenticate: Bearer realm=\"\(server.realm)\",service=\"registry\",scope=\"repository:web:pull\""
    // Each connection of a blob is cut, and its token has ended by then, whatever the token server said of its time.
    let ended = Mutex<Set<String>>([])
    let proxy = try FaultProxy(registry.port) { request, _ in
      guard let token = request.header("authorization"), request.target.contains("/blobs/") else { return nil }
      return ended.withLock { $0.insert(token).inserted } ? .cut(600_000) : .status(401, headers: [challenge])
    }
    server.asked.withLock { $0 = [] }
    let store = try open { $0.attempts = 2 }
    #expect(try await store.pull("\(proxy.host)/web:1", credentials: user).config.cmd == ["x"])
    let ranges = proxy.requests("GET", "/blobs/").compactMap { $0.header("range") }
    #expect(Set(ranges).count >= 3, "\(ranges)")
    let asked = server.asked.withLock { $0 }
    #expect(asked.count == ended.withLock { $0.count } && asked.count >= 4, "\(asked)")
    #expect(asked.allSatisfy { $0.user == "user:secret" && $0.scopes == ["repository:web:pull"] }, "\(asked)")

    server.asked.withLock { $0 = [] }
    proxy.fault { request, _ in request.target.contains("/blobs/") ? .status(401, headers: [challenge]) : nil }
    let denied = await #expect(throws: ImageError.self) { try await open("denied").pull("\(proxy.host)/web:1", credentials: user) }
    #expect(denied?.kind == .unauthorized && denied?.description.contains("docker login") == true)
    #expect(proxy.requests("GET", "/blobs/").count <= 4 && server.asked.withLock { $0.count } <= 3)
    #expect(try Files.list(folder.path + "/denied/ingest").isEmpty)
  }

  @Test("what cannot be noted of a push is no error of it; pushes at once note all")
  func notes() async throws {
    let registry = try Registry()
    let store = try open()
    let loaded = try await store.load(archive(), name: "\(registry.host)/team/web:1")
    // No file can take the place of a folder, whoever asks.
    let layers = try Files.list(store.directory + "/layers")
    for layer in layers { try Files.makeDirectories("\(store.directory)/layers/\(layer)/pushed/x") }
    let digest = try await store.push("\(registry.host)/team/web:1")
    let pulled = try await open("other").pull("\(registry.host)/team/web:1")
    #expect(pulled.digest == digest && pulled.id == loaded[0].id)

    let layer = try #require(layers.first.flatMap { Digest("sha256:" + $0) })
    try Files.removeTree("\(store.directory)/layers/\(layer.hex)/pushed")
    let names = (0..<PushedLayer.repositoriesMax).map { "r.test/\($0)" }
    let packing = Packing(digest: layer, size: 1, mediaType: "x")
    try await withThrowingTaskGroup { group in
      for name in names { group.addTask { [content = store.content] in try await onOwnThread { try content.remember(layer, packing, in: name) } } }
      try await group.waitForAll()
    }
    #expect(Set(store.content.pushed(layer)?.repositories ?? []) == Set(names))
  }

  @Test(
    "an address and the same with its scheme's port are one origin: the registry's own, which gets its credentials",
    arguments: [
      ("https://reg.example:443/v2/a/blobs/uploads/1", "https://reg.example"), ("HTTPS://Reg.Example:443?x", "https://reg.example"),
      ("https://reg.example:80/", "https://reg.example:80"), ("https://reg.example:8443/", "https://reg.example:8443"),
      ("http://reg.example:80/x", "http://reg.example"), ("http://reg.example:443/x", "http://reg.example:443"),
      ("https://[fe80::443]/x", "https://[fe80::443]"), ("https://[::1]:443/x", "https://[::1]"), ("https://user@reg.example:443/x", ""),
    ])
  func origins(url: String, origin: String) { #expect(RegistryHost.origin(of: url) == origin) }

  @Test("a registry's own origin is one, whichever way its name and its Location say the port")
  func defaultPorts() throws {
    var configuration = ImageStoreConfiguration()
    configuration.certificateFolders = []
    configuration.insecureRegistries = ["plain.example:80"]
    for (name, location) in [
      ("reg.example/web", "https://reg.example:443/v2/web/blobs/uploads/1"), ("reg.example:443/web", "https://reg.example/v2/web/blobs/uploads/1"),
      ("reg.example:443/web", "https://reg.example:443/v2/web/blobs/uploads/1"),
      ("plain.example:80/web", "http://plain.example/v2/web/blobs/uploads/1"),
    ] {
      let host = try RegistryHost.candidates(ImageReference(name), configuration)[0]
      let next = try host.follow(location, from: host.base + "/v2/web/blobs/uploads/", name)
      #expect(RegistryHost.origin(of: next) == host.base, "\(name) \(location)")
      #expect(try host.follow("2", from: next, name).hasSuffix("/v2/web/blobs/uploads/2"), "\(next)")
    }
  }

  @Test("a registry with its own authority is believed when certs.d has it, and not otherwise")
  func ownAuthority() async throws {
    let certificate = try Certificate()
    let registry = try Registry(tls: certificate)
    let pushed = registry.push(try archive(), "web:1")
    #expect(pushed.code == 0, "\(pushed.output)")
    try Files.makeDirectories("\(folder.path)/certs.d/\(registry.host)")
    let other = try Certificate()
    try Files.writeAtomically("\(folder.path)/certs.d/\(registry.host)/ca.crt", Files.read(other.path))
    let unknown = await #expect(throws: ImageError.self) { try await open().pull("\(registry.host)/web:1") }
    #expect(unknown?.kind == .network && unknown?.description.contains("certs.d/\(registry.host)/ca.crt") == true, "\(String(describing: unknown))")
    try Files.writeAtomically("\(folder.path)/certs.d/\(registry.host)/ca.crt", Files.read(certificate.path))
    let store = try open()
    #expect(try await store.pull("\(registry.host)/web:1").config.cmd == ["x"])
    try await store.tag("\(registry.host)/web:1", as: "\(registry.host)/pushed:1")
    try await store.push("\(registry.host)/pushed:1")
    try Files.writeAtomically("\(folder.path)/certs.d/\(registry.host)/ca.crt", "no certificate")
    let broken = await #expect(throws: ImageError.self) { try await open("other").pull("\(registry.host)/web:1") }
    #expect(broken?.description.contains("read certificates") == true, "\(String(describing: broken))")
  }

  @Test("a mirror is asked first, without credentials; what it does not have, or has wrong, comes from the registry")
  func mirrors() async throws {
    let registry = try filled(.open)
    let origin = try FaultProxy(registry.port)
    let mirror = try FaultProxy(registry.port)
    let user = RegistryCredentials(username: "user", password: "secret")
    let host = origin.host
    let mirrored = { @Sendable (configuration: inout ImageStoreConfiguration) in configuration.mirrors = [host: ["http://\(mirror.host)"]] }
    #expect(try await open("1", mirrored).pull("\(host)/web:1", credentials: user).reference == "\(host)/web:1")
    #expect(origin.seen.withLock { $0.isEmpty } && mirror.seen.withLock { !$0.isEmpty })
    for (name, fault) in [
      ("2", FaultProxy.Fault.status(404)), ("3", .status(500)), ("4", .flip(100)), ("5", .status(401, headers: ["WWW-Authenticate: Basic realm=x"])),
    ] {
      mirror.fault { _, _ in fault }
      #expect(try await open(name, mirrored).pull("\(host)/web:1", credentials: user).config.cmd == ["x"])
      #expect(mirror.seen.withLock { $0.allSatisfy { $0.header("authorization") == nil } })
    }
    #expect(origin.seen.withLock { !$0.isEmpty })
    // Beyond a bound: a manifest of 5 MB.
    let hostile = try HTTPListener { _, client in
      let type = "application/vnd.oci.image.manifest.v1+json"
      guard HTTPListener.send(client, Array("HTTP/1.1 200 OK\r\nContent-Type: \(type)\r\nContent-Length: 5000000\r\n\r\n".utf8)) else { return }
      HTTPListener.send(client, [UInt8](repeating: 32, count: 5_000_000))
    }
    let misled = { @Sendable (configuration: inout ImageStoreConfiguration) in configuration.mirrors = [host: ["http://127.0.0.1:\(hostile.port)"]] }
    #expect(try await open("6", misled).pull("\(host)/web:1", credentials: user).config.cmd == ["x"])
    // A push goes to the registry itself.
    let store = try open("1", mirrored)
    mirror.fault(nil)
    try await store.push("\(host)/web:1")
    #expect(mirror.seen.withLock { $0.isEmpty })
  }

  @Test("a mirror has the registry's repositories below its path, and is shown what the host has for it, never the registry's own")
  func mirrorsOfTheirOwn() async throws {
    let registry = try Registry(.password)
    let pushed = registry.push(try archive(), "proxy/docker/team/web:1", credentials: "user:secret")
    #expect(pushed.code == 0, "\(pushed.output)")
    // The registry itself has nothing.
    let origin = try FaultProxy(registry.port) { _, _ in .status(404) }
    let mirror = try FaultProxy(registry.port)
    let theirs = RegistryCredentials(username: "user", password: "secret")
    func pull(_ name: String, _ auths: [String: String], path: String = "/proxy/docker/") async throws -> ImageRecord {
      let entries = auths.map { "\"\($0)\":{\"username\":\"user\",\"password\":\"\($1)\"}" }.joined(separator: ",")
      try folder.write("auth.json", Array("{\"auths\":{\(entries)}}".utf8))
      let store = try open(name) {
        $0.mirrors = [origin.host: ["http://\(mirror.host)\(path)"]]
        $0.credentialsFiles = [folder.path + "/none", folder.path + "/auth.json"]
      }
      return try await store.pull("\(origin.host)/team/web:1", credentials: theirs)
    }
    #expect(try await pull("1", [mirror.host: "secret"]).reference == "\(origin.host)/team/web:1")
    #expect(origin.seen.withLock { $0.isEmpty })
    #expect(mirror.seen.withLock { $0.allSatisfy { $0.target.hasPrefix("/v2/proxy/docker/team/web/") } })
    // An entry for that part of it.
    #expect(try await pull("2", ["\(mirror.host)/proxy/docker": "secret", mirror.host: "wrong"]).config.cmd == ["x"])
    mirror.fault(nil)
    await #expect(throws: ImageError.self) { try await pull("3", [origin.host: "secret"]) }
    #expect(mirror.seen.withLock { !$0.isEmpty && $0.allSatisfy { $0.header("authorization") == nil } })
    for path in ["/../x", "/Upper", "/a//b", "/a?b", "/a:1", "/a b"] {
      let error = await #expect(throws: ImageError.self) { try await pull("4", [:], path: path) }
      #expect(error?.description.contains("a mirror is https://HOST[:PORT][/PATH]") == true, "\(String(describing: error))")
    }
  }

  // MARK: - Faults

  @Test("a layer whose connections are cut again and again goes on where it stopped")
  func cuts() async throws {
    let registry = try filled(size: 3_000_000)
    let proxy = try FaultProxy(registry.port) { request, _ in request.method == "GET" && request.target.contains("/blobs/") ? .cut(400_000) : nil }
    let store = try open { $0.attempts = 3 }
    #expect(try await store.pull("\(proxy.host)/web:1").config.cmd == ["x"])
    let ranges = proxy.requests("GET", "/blobs/").compactMap { $0.header("range") }
    #expect(ranges.count >= 5, "\(ranges)")
    #expect(Set(ranges).count == ranges.count)
    // Nothing at all comes: that ends.
    proxy.fault { request, _ in request.method == "GET" && request.target.contains("/blobs/") ? .cut(0) : nil }
    let dead = await #expect(throws: ImageError.self) { try await open("dead").pull("\(proxy.host)/web:1") }
    #expect(dead?.kind == .network)
    #expect(try Files.list(folder.path + "/dead/ingest").isEmpty)
  }

  @Test("a slow registry is waited for")
  func slow() async throws {
    let registry = try filled()
    let proxy = try FaultProxy(registry.port) { request, _ in request.target.contains("/blobs/") ? .slow(16_384, milliseconds: 20) : nil }
    #expect(try await open().pull("\(proxy.host)/web:1").config.cmd == ["x"])
  }

  @Test("429 is waited for as long as it says, 500 and a cut manifest are asked again, 403 and 418 are not", arguments: [429, 500, 503, 0, 403, 418])
  func busy(_ code: Int) async throws {
    let registry = try filled()
    let proxy = try FaultProxy(registry.port) { _, before in
      before > 0 ? nil : code == 0 ? .cut(100) : .status(code, headers: code == 429 ? ["Retry-After: 1"] : [])
    }
    let begin = ContinuousClock.now
    if [403, 418].contains(code) {
      let error = await #expect(throws: ImageError.self) { try await open().pull("\(proxy.host)/web:1") }
      #expect(error?.kind == (code == 403 ? .unauthorized : .network) && proxy.seen.withLock { $0.count } == 1)
      return
    }
    #expect(try await open().pull("\(proxy.host)/web:1").config.cmd == ["x"])
    #expect(proxy.seen.withLock { $0.count } >= 2)
    if code == 429 { #expect(ContinuousClock.now - begin >= .seconds(1)) }
  }

  @Test("a registry that is busy for ever is given up, and a Retry-After of a year is not waited for")
  func patience() async throws {
    let registry = try filled()
    let proxy = try FaultProxy(registry.port) { _, _ in .status(429, headers: ["Retry-After: 31536000"]) }
    let error = await #expect(throws: ImageError.self) {
      try await open {
        $0.attempts = 3
        $0.longestPause = .milliseconds(50)
      }.pull("\(proxy.host)/web:1")
    }
    #expect(error?.kind == .network && error?.description.contains("429") == true)
    #expect(proxy.seen.withLock { $0.count } == 3)
  }

  @Test("a turned bit anywhere is noticed, and nothing is kept", arguments: [0, 200, 1500])
  func wrongBytes(_ position: Int) async throws {
    let registry = try filled()
    let proxy = try FaultProxy(registry.port) { request, _ in
      request.method == "GET" && request.target.contains("/blobs/") ? .flip(position) : nil
    }
    let store = try open()
    await #expect(throws: ImageError.self) { try await store.pull("\(proxy.host)/web:1") }
    #expect(store.list().isEmpty)
    #expect(try Files.list(store.directory + "/ingest").isEmpty)
    proxy.fault(nil)
    #expect(try await store.pull("\(proxy.host)/web:1").config.cmd == ["x"])
  }

  @Test("a redirect is followed without credentials; round in circles it is not")
  func redirects() async throws {
    let registry = try filled(.open)
    let storage = try FaultProxy(registry.port)
    let elsewhere = storage.host
    let proxy = try FaultProxy(registry.port) { request, before in
      if request.header("authorization") == nil { return .status(401, headers: ["WWW-Authenticate: Basic realm=x"]) }
      return request.target.contains("/blobs/") ? .status(307, headers: ["Location: http://\(elsewhere)\(request.target)"]) : nil
    }
    let user = RegistryCredentials(username: "user", password: "secret")
    #expect(try await open().pull("\(proxy.host)/web:1", credentials: user).config.cmd == ["x"])
    #expect(proxy.seen.withLock { $0.contains { $0.header("authorization") != nil } })
    #expect(storage.seen.withLock { !$0.isEmpty && $0.allSatisfy { $0.header("authorization") == nil } })
    for location in ["/v2/web/blobs/x", "ftp://127.0.0.1/x", "http://user:pass@127.0.0.1/x", "", "http://"] {
      proxy.fault { request, _ in request.target.contains("/blobs/") ? .status(307, headers: ["Location: \(location)"]) : nil }
      await #expect(throws: ImageError.self, "\(location)") {
        try await open("circle") { $0.attempts = 1 }.pull("\(proxy.host)/web:1", credentials: user)
      }
    }
  }

  @Test("registries are asked by the environment's proxy, plain ones too by CONNECT, with its password; NO_PROXY and loopback are asked directly")
  func proxies() async throws {
    let certificate = try Certificate(names: "IP:127.0.0.1,DNS:registry.test")
    for (registry, variable) in [(try filled(), "http_proxy"), (try Registry(tls: certificate), "HTTPS_PROXY")] {
      let asked = Mutex<[HTTPListener.Request]>([])
      // The port alone: connections that stay open must not keep the registry's process.
      let port = registry.port
      // Every name is the registry's: who comes this way did not look it up himself.
      let proxy = try HTTPListener { request, client in
        asked.withLock { $0.append(request) }
        guard request.header("proxy-authorization") == "Basic dXNlcjpwQHNz" else {
          return HTTPListener.send(client, "HTTP/1.1 407 Who\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        }
        guard let server = try? HTTPListener.connect(port) else { return }
        HTTPListener.send(client, "HTTP/1.1 200 Go on\r\n\r\n")
        HTTPListener.send(server, request.rest)
        HTTPListener.join(client, server)
      }
      let host = "registry.test:\(registry.port)"
      try Files.makeDirectories("\(folder.path)/certs.d/\(host)")
      if registry.tls != nil {
        try Files.writeAtomically("\(folder.path)/certs.d/\(host)/ca.crt", Files.read(certificate.path))
        try Files.makeDirectories("\(folder.path)/certs.d/\(registry.host)")
        try Files.writeAtomically("\(folder.path)/certs.d/\(registry.host)/ca.crt", Files.read(certificate.path))
      }
      func open(_ name: String, _ environment: [String: String]) throws -> ImageStore {
        try self.open("\(variable)-\(name)") {
          $0.proxies = ProxySettings(environment: environment)
          $0.attempts = 1
          if registry.tls == nil { $0.insecureRegistries = [host] }
        }
      }
      let address = "http://user:p%40ss@127.0.0.1:\(proxy.port)"
      let store = try open("pushing", [variable: address, "NO_PROXY": "other.test,10.0.0.0/8"])
      let loaded = try await store.load(archive(), name: "\(host)/web:2")
      let digest = try await store.push("\(host)/web:2")
      let pulled = try await open("pulling", [variable: address]).pull("\(host)/web:2")
      #expect(pulled.digest == digest && pulled.id == loaded[0].id)
      #expect(asked.withLock { !$0.isEmpty && $0.allSatisfy { $0.method == "CONNECT" && $0.target == host } })
      asked.withLock { $0 = [] }
      // The name is nobody's: directly it cannot be found.
      for exception in ["*", "test", ".test", "registry.test", "registry.test:\(registry.port)"] {
        await #expect(throws: ImageError.self) { try await open("direct", [variable: address, "no_proxy": exception]).pull("\(host)/web:2") }
      }
      #expect(try await open("loopback", [variable: address]).pull("\(registry.host)/web:2").digest == digest)
      #expect(asked.withLock { $0.isEmpty })
      let wrong = await #expect(throws: ImageError.self) {
        try await open("wrong", [variable: address.replacing("p%40ss", with: "hunter2")]).pull("\(host)/web:2")
      }
      #expect(wrong?.description.contains("hunter2") == false, "\(String(describing: wrong))")
      let none = await #expect(throws: ImageError.self) { try await open("none", [variable: "https://user:hunter2@x:1"]).pull("\(host)/web:2") }
      #expect(none?.kind == .unsupported && none?.description.contains("hunter2") == false)
    }
  }

  @Test(
    "a Retry-After is seconds or a date",
    arguments: [
      ("3", 3), ("-3", 0), ("999999999999", 86_400), ("Sun, 06 Nov 1994 08:49:47 GMT", 10), ("Sun, 06 Nov 1994 08:49:27 GMT", 0),
      ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400), ("soon", nil), ("", nil), ("99999999999999999999", nil), ("1994-11-06", nil),
    ])
  func retryAfter(header: String, seconds: Int64?) {
    // RFC 9110's own example is 784111777.
    #expect(Patience.seconds(header, now: Timestamp(nanoseconds: 784_111_777_000_000_000)) == seconds)
  }

  @Test("a push that is cut begins its layer anew; chunks too", arguments: [Int64(1 << 30), 500_000])
  func cutPush(chunk: Int64) async throws {
    let registry = try Registry()
    let cuts = Mutex(0)
    let proxy = try FaultProxy(registry.port) { request, _ in
      guard ["PUT", "PATCH"].contains(request.method), request.target.contains("/blobs/") else { return nil }
      return cuts.withLock { count in
        count += 1
        return count <= 2 ? .cutRequest(100_000) : nil
      }
    }
    let store = try open { $0.pushChunkBytes = chunk }
    let loaded = try await store.load(archive(2_000_000), name: "\(proxy.host)/web:1")
    let digest = try await store.push("\(proxy.host)/web:1")
    let pulled = try await open("other").pull("\(registry.host)/web:1")
    #expect(pulled.digest == digest && pulled.id == loaded[0].id)
    #expect(proxy.requests("POST", "/blobs/uploads/").count > 3)
  }

  // MARK: - Room

  @Test("disk pressure takes what a registry has, longest unused first, and never what a container uses or nobody could bring back")
  func room() async throws {
    let registry = try Registry()
    for name in ["a", "b", "c"] {
      let path = try folder.write("\(name).tar", savedImage(layers: [Stores.layer([(name, name)])], name: "\(name):1"))
      #expect(registry.push(path, "\(name):1").code == 0)
    }
    let store = try open { $0.highWater = 100 }
    for name in ["b", "a", "c"] { _ = try await store.pull("\(registry.host)/\(name):1") }
    _ = try await store.load(folder.path + "/a.tar", name: "mine:1")
    let used = try #require(try store.resolve("\(registry.host)/c:1"))
    try await store.use(used, by: "container")
    let order = store.collectable().compactMap { digest in store.list().first { $0.digest == digest }?.name }
    #expect(Set(order) == ["\(registry.host)/a:1", "\(registry.host)/b:1"])
    #expect(try await store.makeRoom(down: 0))
    #expect(Set(store.list().compactMap(\.name)) == ["\(registry.host)/c:1", "mine:1"])
    #expect(Files.exists(used.layerPaths[0] + "/c"))
    #expect(try Files.text(#require(try store.resolve("mine:1")).layerPaths[0] + "/a") == "a")
    #expect(try Files.list(store.directory + "/layers").count == 2)
  }
}
