#if DEBUG
  @testable import AgentImage
  @testable import ControlAPI
  import API
  @testable import Bundle
  @testable import DNS
  import Dockerfile
  import Glibc
  import Identity
  import LinuxSystem
  import Manifest
  import Model
  import OCI
  import SwiftProtobuf
  @testable import Transport
  import Wire

  private func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

  /// Errors stand in the text; a stack that is accepted reads the same twice.
  func feedManifest(_ bytes: [UInt8]) {
    let text = text(bytes)
    func read() throws(ManifestError) -> StackSpec {
      try Manifest.parse(text: text, path: "/stack/web.yaml", workingDirectory: "/stack", environment: ["A": "b"]) {
        $0.hasSuffix(".env") ? "A=1\n" : nil
      }
    }
    do {
      let stack = try read()
      promise((try? read()) == stack, "a manifest reads otherwise the second time")
    } catch {
      promise(error.diagnostics.contains { $0.severity == .error }, "a refusal without a reason")
      let lines = text.utf8.count { $0 == 10 || $0 == 13 } + text.unicodeScalars.count { [0x85, 0x2028, 0x2029].contains($0.value) } + 2
      for diagnostic in error.diagnostics {
        // What is wrong with the whole has no place.
        if diagnostic.line == 0 { continue }
        promise(diagnostic.line >= 1 && diagnostic.line <= lines && diagnostic.column >= 1, "a place outside the text: \(diagnostic)")
      }
    }
  }

  /// Errors stand in the text; what is accepted can be planned and evaluated to its end, or refused with a line.
  func feedDockerfile(_ bytes: [UInt8]) {
    let text = text(bytes)
    let lines = text.utf8.count { $0 == 10 } + 1
    let dockerfile: Dockerfile
    do { dockerfile = try Dockerfile(text) } catch {
      return promise((1...lines).contains(error.line) && !error.message.isEmpty, "a place outside the text: \(error)")
    }
    guard let plan = try? BuildPlan(dockerfile, target: nil, arguments: ["A": "b"], platform: BuildPlatform(architecture: "amd64")) else { return }
    promise(!plan.items.isEmpty, "nothing to build")
    for item in plan.items {
      var stage = BuildStage(ImageSettings(), arguments: plan.arguments, escape: dockerfile.escape)
      for instruction in item.stage.instructions {
        guard let step = try? stage.step(instruction) else { break }
        if case .copy(let copy) = step.action { promise(copy.target.hasPrefix("/"), "a target that is not absolute: \(copy.target)") }
        if case .folder(let path, _) = step.action { promise(path.hasPrefix("/") && !path.contains("/../"), "a folder outside: \(path)") }
      }
    }
  }

  /// First line: a path; the rest: the rules. A folder that is left out leaves out what is below, unless something is taken back.
  func feedIgnoreRules(_ bytes: [UInt8]) {
    let parts = bytes.split(separator: 10, maxSplits: 1, omittingEmptySubsequences: false).map(Array.init)
    guard parts.count == 2, let rules = try? IgnoreRules(text(parts[1])) else { return }
    let path = text(parts[0])
    if rules.excludes(path), !rules.takesSomethingBack { promise(rules.excludes(path + "/x"), "'\(path)/x' is in, its folder is not") }
    _ = Glob(path)?.matches(path)
  }

  func feedEnvironmentFile(_ bytes: [UInt8]) { _ = try? EnvironmentFile.parse(text(bytes), environment: ["A": "b"]) }

  /// Never more data than the archive has, and forward only.
  func feedTar(_ bytes: [UInt8]) {
    guard let source = try? InflatingSource(Bytes(bytes)) else { return }
    let reader = TarReader(source)
    var chunk = [UInt8](repeating: 0, count: 4096)
    var total: Int64 = 0
    do {
      while let entry = try reader.next() {
        promise(entry.size >= 0, "a size below zero")
        if entry.kind != .file { continue }
        while case let count = try chunk.withUnsafeMutableBytes({ try reader.read(into: $0) }), count > 0 {
          total += Int64(count)
          // gzip gives 1,032 times as much at most.
          promise(total <= Int64(bytes.count) * 1100 + 4096, "more data than there is")
        }
      }
      try reader.drain()
    } catch {}
  }

  /// Unpacked into a folder of its own: whatever happens, what is beside it stays as it was. Whiteouts need root.
  func feedLayer(_ bytes: [UInt8]) {
    let folder = "/tmp/orch-fuzz-\(getpid())"
    let secret = folder + "/outside/secret"
    do {
      try Files.removeTree(folder)
      try Files.makeDirectories(folder + "/layer", mode: 0o755)
      try Files.makeDirectories(folder + "/outside", mode: 0o755)
      try Files.writeAtomically(secret, "secret", durable: false)
    } catch { fatalError("\(error)") }
    defer { try? Files.removeTree(folder) }
    if let source = try? InflatingSource(Bytes(bytes), isLayer: false),
      let unpacker = try? LayerUnpacker(folder: folder + "/layer", maximumBytes: 1 << 20, maximumEntries: 200)
    {
      try? unpacker.unpack(TarReader(source))
    }
    promise((try? Files.list(folder)) == ["layer", "outside"] && (try? Files.list(folder + "/outside")) == ["secret"], "something was made outside")
    promise((try? Files.text(secret)) == "secret", "something was written outside")
    var status = stat()
    promise(lstat(secret, &status) == 0 && status.st_nlink == 1 && status.st_mode & 0o7777 == 0o600, "a link or a mode outside")
  }

  private final class Bytes: ByteSource {
    private var rest: ArraySlice<UInt8>
    init(_ bytes: [UInt8]) { rest = bytes[...] }
    func read(into buffer: UnsafeMutableRawBufferPointer) throws -> Int {
      let part = rest.prefix(buffer.count)
      buffer.copyBytes(from: part)
      rest = rest.dropFirst(part.count)
      return part.count
    }
  }

  func feedImageDocument(_ bytes: [UInt8]) {
    if let manifest = try? ManifestDocument(bytes, "fuzz") {
      for descriptor in (manifest.layers ?? []) + (manifest.manifests ?? []) { _ = try? descriptor.checkedDigest() }
      _ = try? manifest.choose("fuzz")
    }
    if let config: ConfigDocument = try? decode(bytes, "fuzz") { _ = try? config.diffIDs("fuzz") }
    if let saved: [SavedImage] = try? decode(bytes, "fuzz") { _ = saved.count }
    if let index: IndexDocument = try? decode(bytes, "fuzz") { _ = index }
  }

  /// What a registry says beside its documents: challenges, tokens, where to go, from which byte, when to come again, what is wrong.
  func feedChallenge(_ bytes: [UInt8]) {
    let lines = text(bytes).split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
    let challenges = Challenge.all(lines)
    promise(challenges.allSatisfy { !$0.scheme.isEmpty }, "a challenge without a scheme")
    if let answer = try? TokenAnswer(bytes, "fuzz") {
      promise(answer.token.utf8.allSatisfy { (33...126).contains($0) } && (60...86_400).contains(answer.seconds), "a token that is no header's value")
    }
    let said = RegistryClient.said(bytes).unicodeScalars
    promise(
      said.count <= 203 && said.allSatisfy { $0.value >= 32 && !(127...159).contains($0.value) },
      "an error's text that moves a terminal's cursor")
    let configuration = ImageStoreConfiguration()
    let (now, secure) = (
      Timestamp(nanoseconds: 1_000_000_000_000), "https://registry.test/v2/a/blobs/uploads/1?x=y"
    )
    for line in lines {
      _ = RegistryHost.origin(of: line)
      if let seconds = Patience.seconds(line, now: now) {
        promise((0...86_400).contains(seconds), "a pause of \(seconds) s")
      }
      if let start = RegistryClient.start(of: line) { promise(start >= 0, "a range from \(start)") }
      if let digest = Digest(line) {
        promise(
          Digest(digest.description) == digest, "a digest reads otherwise after it was written")
      }
      guard let host = try? RegistryHost(server: secure, configuration) else {
        fatalError("promise broken: \(secure) is a server")
      }
      // Wherever an upload or a download is led to, and from there on: never out of TLS, nor to a user's name.
      guard let next = try? host.follow(line, from: secure, "fuzz") else { continue }
      promise(next.lowercased().hasPrefix("https://"), "led out of TLS: \(next)")
      promise(!RegistryHost.origin(of: next).isEmpty, "led to nobody: \(next)")
      if let after = try? host.follow("next", from: next, "fuzz") {
        promise(RegistryHost.origin(of: after) == RegistryHost.origin(of: next), "\(after)")
      }
    }
  }

  /// What was read is written and read again; the zone answers or is silent.
  func feedDNS(_ bytes: [UInt8]) {
    guard let message = try? Message(bytes) else { return }
    guard let again = try? Message(message.encoded()) else { fatalError("promise broken: what was written cannot be read") }
    if !again.truncated { promise(again.questions == message.questions && again.answers == message.answers, "other questions or answers") }
    promise(message.encoded(limit: 512).count <= 512, "over the limit of UDP")
    if case .answer(let answer) = Zone().resolve(message, from: DNSClient(networks: [], forwards: false), turn: bytes.count) {
      promise(answer.isResponse && answer.id == message.id, "an answer to another question")
    }
  }

  /// Two bytes say how long a query is, then come the query and an answer to it: whatever is kept comes again as it was, but for the id, the
  /// spelling and what is left of its TTLs, and not for ever.
  func feedAnswerCache(_ bytes: [UInt8]) {
    guard bytes.count >= 2 else { return }
    let length = min(Int(bytes[0]) << 8 | Int(bytes[1]), bytes.count - 2)
    let (query, answer) = (Array(bytes[2..<2 + length]), Array(bytes[(2 + length)...]))
    var cache = AnswerCache()
    _ = cache.answer(query, at: 0)
    cache.keep(answer, to: query, at: 1000)
    guard cache.count == 1 else { return promise(cache.answer(query, at: 1000) == nil, "an answer that nobody gave") }
    var other = query
    other[0] ^= 0xff
    for now: Int64 in [1000, 1999, 61_000, 3_600_999] {
      guard let again = cache.answer(other, at: now) else { continue }
      promise(again.count == answer.count && again.prefix(2) == other.prefix(2), "an answer to another question")
      guard let kept = try? Message(answer), let message = try? Message(again) else { continue }
      promise(message.answers.map(\.data) == kept.answers.map(\.data) && message.code == kept.code, "another answer")
      let passed = UInt32((now - 1000) / 1000)
      for (left, all) in zip(message.answers, kept.answers) where all.type != RecordType.opt {
        promise(left.ttl == (all.ttl > passed ? all.ttl - passed : 0), "a TTL that grew: \(all.ttl) to \(left.ttl) after \(passed) s")
      }
    }
    promise(cache.answer(other, at: 1000 + AnswerCache.timeMax) == nil, "kept for more than an hour")
    _ = cache.answer(answer, at: 1000)
  }

  /// The reader by hand takes what the generated one takes, and says the same of it.
  func feedFrame(_ bytes: [UInt8]) {
    let mine = bytes.withUnsafeBytes { try? InboundFrame($0) }
    guard let frame = mine, let theirs = try? WireFrame(serializedBytes: bytes) else { return }
    promise(
      frame.stream == theirs.stream && frame.method == theirs.method && frame.payload == Array(theirs.payload) && frame.end == theirs.end
        && frame.withPayload == theirs.withPayload && frame.credit == theirs.credit && frame.version == theirs.version,
      "two readers disagree: \(frame) \(theirs)")
  }

  func feedCommand(_ bytes: [UInt8]) {
    guard let command = try? Command(serialized: bytes) else { return }
    guard let written = try? command.serialized(), let again = try? Command(serialized: written) else {
      fatalError("promise broken: a command that was read cannot be written")
    }
    promise(again.actions.count == command.actions.count && again.conditions.count == command.conditions.count, "another command")
  }

  /// First line: the request's target; the rest: its body.
  func feedAPIRequest(_ bytes: [UInt8]) {
    let parts = bytes.split(separator: 10, maxSplits: 1, omittingEmptySubsequences: false).map(Array.init)
    let target = Target(uri: text(parts[0]))
    _ = try? Filters(target, accepted: ["id", "label", "name", "node.label"])
    _ = try? target.version()
    guard parts.count == 2 else { return }
    if let spec = try? JSON.parse(ServiceSpec.self, parts[1]) {
      promise((try? JSON.parse(ServiceSpec.self, JSON.encode(spec))) == spec, "a service's spec reads otherwise after it was written")
    }
    _ = try? JSON.parse(NodeSpec.self, parts[1])
    _ = try? JSON.parse(NetworkSpec.self, parts[1])
    _ = try? JSON.parse(FileSpec.self, parts[1])
  }

  /// A config.json, and a file of `update --resources`: what is accepted survives writing, and becomes a plan or an error.
  func feedBundle(_ bytes: [UInt8]) {
    if let config = try? Document.read(Config.self, bytes), (try? config.check()) != nil {
      // Values that are only looked at for being there are written as empty objects.
      promise((try? Document.read(Config.self, Document.write(config))) == config, "a configuration reads otherwise after it was written")
      _ = try? SystemdScope(config, "one")
      _ = try? BundlePlan.make(config, rootfs: "/rootfs", cgroup: nil, options: BundlePlan.Options())
      if let process = config.process {
        _ = try? BundlePlan.makeExec(config, process, cgroups: [], root: "/", preserved: [], State(id: "a", pid: 1, status: .running, bundle: "/b"))
      }
      _ = DeviceRules.all(config.linux ?? Linux.empty)
    }
    if let resources = try? Document.read(Resources.self, bytes), (try? resources.check()) != nil {
      for v2 in [false, true] { _ = try? ResourceWrites(resources, v2: v2) }
    }
    if let process = try? Document.read(ConfigProcess.self, bytes) { try? process.check("process") }
  }

  /// Whatever users and registries name in a word.
  func feedWord(_ bytes: [UInt8]) {
    let text = text(bytes)
    _ = try? JoinToken(parsing: text)
    if let name = try? ImageReference(text) {
      promise((try? ImageReference("\(name)")) == name, "an image's name reads otherwise after it was written: \(name)")
    }
    if let address = IPv4Address(text) { promise(IPv4Address("\(address)") == address, "an address reads otherwise after it was written") }
    if let subnet = IPv4Prefix(text) { promise(IPv4Prefix("\(subnet)") == subnet, "a subnet reads otherwise after it was written") }
    if let time = Timestamp(text) { promise(Timestamp("\(time)") == time, "a time reads otherwise after it was written: \(time)") }
    _ = HostPort(text, defaultPort: 1)
    _ = Digest(text)
  }
#endif
