import AgentImage
import AgentNetwork
import DNS
import Dockerfile
import Glibc
import LinuxSystem
import Model
import Runtime
import Surroundings
import TreeArchive

/// One build under way.
struct BuildRun {
  let builder: Builder
  let request: BuildRequest
  /// A folder of its own, removed at the end.
  let work: String
  let tell: @Sendable (BuildEvent) async throws -> Void
  private let namespace: BuildNamespace
  private let context: SourceTree
  private let dockerfile: Dockerfile
  private let plan: BuildPlan
  private var stages: [Int: Done] = [:]
  private var number = 0
  private var folders = 0
  /// That ADD brought by URLs.
  private var remoteBytes: Int64 = 0
  private let total: Int
  /// SOURCE_DATE_EPOCH (reproducible-builds.org): no time in the image exceeds it.
  private let epoch: Int?

  /// How far a stage is.
  struct Done {
    var stage: BuildStage
    var layers: [Digest]
    var key: Digest
    var created: Timestamp
    var history: [BuiltImage.Step]
  }

  init(
    _ builder: Builder, _ request: BuildRequest, context folder: String, work: String, _ namespace: BuildNamespace,
    _ tell: @escaping @Sendable (BuildEvent) async throws -> Void
  ) throws {
    (self.builder, self.request, self.work, self.namespace, self.tell) = (builder, request, work, namespace, tell)
    let root = SharedDescriptor(try .open(folder, O_RDONLY | O_DIRECTORY))
    func text(_ path: String) throws -> String? {
      do throws(SystemError) {
        let file = try OwnedDescriptor.open(inRoot: root.rawValue, path, O_RDONLY)
        return String(decoding: try Files.read(descriptor: file.rawValue, name: path, limit: Dockerfile.maximumSize + 1), as: UTF8.self)
      } catch {
        if error.errno == .noEntry || error.errno == .notDirectory { return nil }
        throw error
      }
    }
    guard let source = try text(request.dockerfile) else {
      throw BuildError(.invalid, "there is no \(request.dockerfile) in the context: name it with -f")
    }
    dockerfile = try Dockerfile(source)
    let ignore = try text(request.dockerfile + ".dockerignore") ?? text(".dockerignore") ?? ""
    // One from elsewhere travels in the context, and is no part of it (docker's and orch's clients name it so).
    let hidden: Set<String> = request.dockerfile.hasPrefix(".dockerfile.") ? [request.dockerfile] : []
    context = SourceTree(root: root, rules: try IgnoreRules(ignore), hidden: hidden, isContext: true)
    plan = try BuildPlan(
      dockerfile, target: request.target, arguments: request.arguments, platform: BuildPlatform(architecture: ImageStore.architecture))
    total = plan.items.reduce(0) { $0 + 1 + $1.stage.instructions.count }
    if let text = request.arguments["SOURCE_DATE_EPOCH"] {
      guard let seconds = Int(text), seconds >= 0 else { throw BuildError(.invalid, "SOURCE_DATE_EPOCH=\(text) is no number of seconds since 1970") }
      epoch = seconds
    } else {
      epoch = nil
    }
  }

  private func now() -> Timestamp { epoch.map { Timestamp(nanoseconds: Int64($0) * 1_000_000_000) } ?? .now }

  mutating func carryOut() async throws -> ImageRecord {
    for warning in dockerfile.warnings { try await tell(.warning(warning)) }
    var arguments = plan.arguments
    var last: Done?
    for item in plan.items {
      let done = try await build(item, arguments)
      arguments = done.stage.arguments
      stages[item.number] = done
      last = done
    }
    guard let last else { throw BuildError(.invalid, "there is nothing to build") }
    // SOURCE_DATE_EPOCH is taken without an ARG.
    let unused = arguments.unused.filter { $0 != "SOURCE_DATE_EPOCH" }
    if !unused.isEmpty { try await tell(.warning("no ARG takes the build arguments \(unused.joined(separator: ", "))")) }
    var config = ImageConfig(last.stage.settings)
    config.labels.merge(request.labels) { $1 }
    let image = BuiltImage(config: config, layers: last.layers, created: last.created, author: last.stage.settings.author, history: last.history)
    try Task.checkCancellation()
    return try await builder.store.commit(config: image.configuration(), names: request.names)
  }

  private func blocking<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result {
    try await onOwnThread("orch-build", body)
  }

  private mutating func announce(_ text: String) async throws {
    try Task.checkCancellation()
    number += 1
    try await tell(.step(number: number, of: max(total, number), text: text))
  }

  // MARK: - Stages

  private mutating func build(_ item: BuildPlan.Item, _ arguments: BuildArguments) async throws -> Done {
    let name = item.stage.name.map { " AS \($0)" } ?? ""
    var done: Done
    var triggers: [String] = []
    switch item.base {
    case .scratch:
      try await announce("FROM scratch\(name)")
      done = Done(
        stage: BuildStage(.init(), arguments: arguments, escape: dockerfile.escape), layers: [], key: ImageStore.digest(Array("scratch".utf8)),
        created: now(), history: [])
      // The same image from the same steps, whenever: nothing of it is of now.
      done.created = epoch == nil ? .zero : now()
    case .image(let reference):
      try await announce("FROM \(reference)\(name)")
      let record = try await image(reference, line: item.stage.line)
      let settings = ImageSettings(record.config)
      let layers = try layers(of: record, line: item.stage.line)
      triggers = settings.onbuild
      done = Done(
        stage: BuildStage(settings, arguments: arguments, escape: dockerfile.escape), layers: layers,
        key: ImageStore.digest(Array("image \(record.id)".utf8)), created: record.createdAt,
        history: try await history(of: record, layers: layers.count))
    case .stage(let number):
      guard let below = stages[number] else { throw DockerfileError(item.stage.line, "stage \(number) was not built") }
      try await announce("FROM \(item.stage.from.image)\(name)")
      triggers = below.stage.settings.onbuild
      done = below
      done.stage = BuildStage(below.stage.settings, arguments: arguments, parent: below.stage, escape: dockerfile.escape)
    }
    for text in triggers {
      try await carry(Instruction(onbuild: text, line: item.stage.line), &done, in: item.number)
    }
    for instruction in item.stage.instructions { try await carry(instruction, &done, in: item.number) }
    return done
  }

  private func image(_ reference: String, line: Int) async throws -> ImageRecord {
    do {
      // One of another platform may have the name: its programs are not what RUN runs.
      if !request.pulls, let record = try builder.store.resolve(reference), ImagePlatform.host.isArchitecture(of: record) { return record }
      return try await builder.store.pull(reference, platform: .host, always: request.pulls)
    } catch let error as ReferenceError {
      throw DockerfileError(line, "'\(reference)' is neither a stage above nor an image's name: \(error)")
    } catch let error as ImageError {
      throw DockerfileError(line, "\(reference): \(error)")
    }
  }

  /// Diff ids, base first; all are here whole.
  private func layers(of record: ImageRecord, line: Int) throws -> [Digest] {
    let layers = builder.store.layers(of: record)
    guard !layers.isEmpty || record.layerPaths.isEmpty else { throw DockerfileError(line, "\(record.reference) was removed meanwhile") }
    guard layers.allSatisfy({ builder.store.layer($0) != nil }) else {
      throw DockerfileError(line, "an older agent unpacked \(record.reference) and kept no packing: pull or load the image again")
    }
    return layers
  }

  /// Of a base: an entry for each of its layers, since ours follow.
  private func history(of record: ImageRecord, layers: Int) async throws -> [BuiltImage.Step] {
    let steps = try await builder.store.history(of: record)
    if steps.count(where: { !$0.isEmpty }) == layers { return steps }
    return (0..<layers).map { _ in .init(created: record.createdAt, text: "", isEmpty: false) }
  }

  private func stack(_ layers: [Digest]) async throws -> [String] {
    let store = builder.store
    do { return try await blocking { try store.stack(layers) } } catch let error as ImageError where error.kind == .notFound {
      throw BuildError(.invalid, "\(error): build again")
    }
  }

  // MARK: - Steps

  private mutating func carry(_ instruction: Instruction, _ done: inout Done, in number: Int) async throws {
    try await announce(instruction.text)
    let begin = ContinuousClock.now
    let step = try done.stage.step(instruction)
    if step.fingerprint.isEmpty { return try await tell(.finished(ContinuousClock.now - begin)) }
    var decides = "\(done.key.hex) \(step.fingerprint)"
    // The build's own word for it, where the step says nothing; as BuildKit, whose key has the mode of each step.
    if case .run(let run) = step.action, run.network == .standard {
      switch request.network {
      case .standard: break
      case .none: decides += " without a network"
      case .host: decides += " on the host's network"
      }
    }
    var copying: [Copying] = []
    for copy in step.copies {
      let found = try await sources(copy, instruction, in: number)
      decides += found.digests.map { " \($0.count):\($0)" }.joined()
      copying.append(found)
    }
    let key = ImageStore.digest(Array(decides.utf8))
    done.key = key
    let layer: Digest?
    if request.usesCache, let entry = builder.cache.entry(key, now: .now) {
      layer = entry.layer
      done.created = max(done.created, entry.created)
      try await tell(.cached)
    } else {
      layer = try await make(step, copying, instruction, done)
      let now = now()
      builder.cache.put(key, layer: layer, now: now)
      done.created = max(done.created, now)
      try await tell(.finished(ContinuousClock.now - begin))
    }
    if let layer { done.layers.append(layer) }
    done.history.append(.init(created: done.created, text: instruction.text, isEmpty: layer == nil))
  }

  private mutating func make(_ step: BuildStage.Step, _ copying: [Copying], _ instruction: Instruction, _ done: Done) async throws -> Digest? {
    let place = try newFolder()
    defer { try? Files.removeTree(place) }
    let layers = try await stack(done.layers)
    let (epoch, builder) = (epoch, builder)
    switch step.action {
    case .none: return nil
    case .folder(let path, let user):
      let line = instruction.line
      return try await blocking {
        try Self.layer(of: place, layers, epoch, builder.store) { root in
          _ = try Target.folder(path, in: root, owner: user.isEmpty ? nil : Target.owner(ofWorkdir: user, in: root, line: line))
        }
      }
    case .copy(let copy):
      guard let copying = copying.first else { return nil }
      let line = instruction.line
      return try await blocking {
        try Self.layer(of: place, layers, epoch, builder.store) { root in try copying.write(copy, into: root, line: line) }
      }
    case .run(let run):
      return try await self.run(run, copying, instruction, layers: layers, place: place)
    }
  }

  /// A folder of its own below `work`.
  mutating func newFolder() throws -> String {
    folders += 1
    let path = "\(work)/\(folders)"
    try Files.makeDirectories(path, mode: 0o755)
    return path
  }

  /// What `change` writes into the layers' tree, as one more layer; nil when that is nothing. Blocking.
  private static func layer(
    of place: String, _ layers: [String], _ epoch: Int?, _ store: ImageStore, _ change: (SharedDescriptor) throws -> Void
  ) throws -> Digest? {
    let upper = "\(place)/upper"
    try Files.makeDirectories(upper, mode: 0o755)
    do {
      let tree = try RootTree(layers: layers, work: place, upper: upper)
      try change(tree.descriptor)
    }
    return try commit(upper, epoch, store)
  }

  /// Blocking.
  static func commit(_ upper: String, _ epoch: Int?, _ store: ImageStore, leavingOut: Set<String> = []) throws -> Digest? {
    let folder = SharedDescriptor(try .open(upper, O_RDONLY | O_DIRECTORY))
    if try Files.list(upper).allSatisfy(leavingOut.contains) { return nil }
    var options = TreeArchive.Options()
    options.isOverlay = true
    options.keepsLists = true
    options.latest = epoch
    if !leavingOut.isEmpty { options.includes = { !leavingOut.contains($0) } }
    return try store.addLayer(try TreeArchive([.init(folder, "", as: "")], options))
  }

  // MARK: - RUN

  private func run(
    _ run: BuildStage.RunAction, _ copies: [Copying], _ instruction: Instruction, layers: [String], place: String
  ) async throws -> Digest? {
    try Files.makeDirectories("\(place)/empty", mode: 0o755)
    let id = Builder.containerPrefix + String(UInt64.random(in: 0...UInt64.max), radix: 16)
    var config = ContainerConfig(id: id, layers: layers.isEmpty ? ["\(place)/empty"] : layers, args: run.arguments)
    config.env = run.env
    config.cwd = run.workingDir
    config.user = run.user
    config.hostname = "build"
    config.log = .init(maxSize: 1 << 30, maxFiles: 1)
    var names = (hosts: "127.0.0.1\tlocalhost\n::1\tlocalhost\n", resolv: (try? Files.text("/etc/resolv.conf")) ?? "")
    switch run.network == .standard ? request.network : run.network {
    case .host: config.network = .host
    case .none:
      config.network = .new
      names.resolv = ""
    case .standard:
      let opened: AttachedNamespace
      do { opened = try await namespace.open() } catch { throw BuildError(.invalid, "line \(instruction.line): a network for RUN: \(error)") }
      config.networkNamespacePath = opened.path
      let files = NameFiles(ContainerSpec(image: ""), hostname: "build", on: .bridge(opened.bridged.map { .v4($0) }, resolv: names.resolv))
      names = (files.hosts, files.resolv)
    }
    try Files.writeAtomically("\(place)/hosts", names.hosts, mode: 0o644, durable: false)
    try Files.writeAtomically("\(place)/resolv.conf", names.resolv, mode: 0o644, durable: false)
    for file in ["hosts", "resolv.conf"] { config.mounts.append(.bind("\(place)/\(file)", "/etc/\(file)", readOnly: true)) }
    let mounted = try await mount(run, copies, layers: layers, place: place, line: instruction.line)
    defer { unmount(mounted) }
    config.mounts += mounted.mounts
    if let script = run.script {
      let folder = "\(place)/script"
      try Files.makeDirectories(folder, mode: 0o755)
      try Files.writeAtomically("\(folder)/\(script.name)", Array(script.content.utf8), mode: 0o755, durable: false)
      config.mounts.append(.bind(folder, BuildStage.RunAction.scriptFolder, readOnly: true))
    }
    config.files = mounted.files
    config.env += mounted.env
    let runtime = builder.runtime
    let code: Int32
    do {
      _ = try await runtime.start(config)
      code = try await follow(id)
    } catch {
      try? await runtime.delete(id)
      if let error = error as? RuntimeError, case .command(let code) = error.kind {
        throw BuildError(.command(code), "line \(instruction.line): \(instruction.text): \(error.cause)")
      }
      throw error
    }
    guard code == 0 else {
      try? await runtime.delete(id)
      throw BuildError(.command(code), "line \(instruction.line): '\(instruction.text)' ended with code \(code)")
    }
    let result: Result<Digest?, any Error>
    do {
      let upper = try runtime.upperFolder(id)
      let (epoch, store) = (epoch, builder.store)
      result = .success(
        try await blocking {
          // What the runtime made to mount on, where the image had nothing.
          var made: Set<String> = []
          for path in ["etc/hosts", "etc/resolv.conf"] {
            var status = stat()
            if lstat("\(upper)/\(path)", &status) == 0, status.st_mode & S_IFMT == S_IFREG, status.st_size == 0 { made.insert(path) }
          }
          mounted.removeStubs(from: upper)
          for path in ["proc", "sys", "dev"] where rmdir("\(upper)/\(path)") == 0 { made.insert(path) }
          return try Self.commit(upper, epoch, store, leavingOut: made)
        })
    } catch { result = .failure(error) }
    try await runtime.delete(id)
    return try result.get()
  }

  /// Tells what the container writes until it ends; ends it when the build is cancelled.
  private func follow(_ id: String) async throws -> Int32 {
    let runtime = builder.runtime
    return try await withTaskCancellationHandler {
      for try await line in runtime.logs(id, LogOptions(follow: true)) { try await tell(.output(line.bytes, isError: line.stream == .stderr)) }
      try Task.checkCancellation()
      return try await runtime.wait(id).code
    } onCancel: {
      Task { try? await runtime.signal(id, SIGKILL) }
    }
  }

  // MARK: - COPY

  /// The sources of one COPY or bind, and a digest of each.
  private mutating func sources(_ copy: BuildStage.CopyAction, _ instruction: Instruction, in number: Int) async throws -> Copying {
    var tree = context
    if let from = copy.from {
      let layers: [Digest]
      switch try plan.source(from, in: number, line: instruction.line) {
      case .scratch: layers = []
      case .image(let reference): layers = try self.layers(of: await image(reference, line: instruction.line), line: instruction.line)
      case .stage(let other):
        guard let done = stages[other] else { throw DockerfileError(instruction.line, "the stage \(from) was not built") }
        layers = done.layers
      }
      let (place, paths) = (try newFolder(), try await stack(layers))
      let root = try await blocking { try RootTree(layers: paths, work: place, upper: nil) }
      tree = SourceTree(root: root.descriptor, rules: .none, hidden: [], isContext: false)
    }
    var remote: [String: SourceTree] = [:]
    for url in copy.sources where copy.urls.contains(url) && remote[url] == nil {
      remote[url] = try await download(url, copy, line: instruction.line)
    }
    let (source, fetched) = (tree, remote)
    return try await blocking { try Copying(copy, from: source, remote: fetched, line: instruction.line) }
  }

  /// A folder with the one file: mode 0600, and the server's time (docs.docker.com/reference/dockerfile, ADD).
  private mutating func download(_ url: String, _ copy: BuildStage.CopyAction, line: Int) async throws -> SourceTree {
    let path = url.prefix { $0 != "?" && $0 != "#" }.split(separator: "/", omittingEmptySubsequences: false).dropFirst(3)
    // Without a folder to put it into the target says the name.
    let isNamed = !copy.target.hasSuffix("/")
    let name = path.last.map(String.init).flatMap { ["", ".", ".."].contains($0) || $0.utf8.count > 255 ? nil : $0 } ?? (isNamed ? "file" : nil)
    guard let name else { throw DockerfileError(line, "ADD \(url): the URL ends with no file's name, so the target must: \(copy.target)NAME") }
    let folder = try newFolder()
    let file: RemoteFile
    let limit = builder.remoteBytesMax
    do { file = try await builder.store.download(url, to: "\(folder)/\(name)", limit: limit - remoteBytes) } catch let error as ImageError {
      let bound = error.kind == .hostile ? "; the URLs of one build may have \(limit) bytes together" : ""
      throw DockerfileError(line, "ADD: \(error)\(bound)")
    }
    remoteBytes += file.size
    if let checksum = copy.checksum, file.digest.hex != checksum {
      throw DockerfileError(line, "ADD \(url): its content has the checksum sha256:\(file.digest.hex), not sha256:\(checksum)")
    }
    return try await blocking {
      try check(chmod("\(folder)/\(name)", 0o600), "set the mode of", name)
      let time = timespec(tv_sec: Int(file.modified ?? 0), tv_nsec: 0)
      try check(utimensat(AT_FDCWD, "\(folder)/\(name)", [time, time], 0), "set the times of", name)
      let root = SharedDescriptor(try .open(folder, O_RDONLY | O_DIRECTORY))
      return SourceTree(root: root, rules: .none, hidden: [], isContext: true)
    }
  }
}

extension BuildStage.Step {
  /// What it takes from the context, stages and images.
  fileprivate var copies: [BuildStage.CopyAction] {
    switch action {
    case .copy(let copy): [copy]
    case .run(let run): run.mounts.filter { $0.kind == .bind }.map(\.copied)
    case .none, .folder: []
    }
  }
}
