import API
import APIClient
import ControlAPI
import Model
import NIOCore
import Surroundings
import Synchronization

/// The daemon's part in memory: one `ClusterState`, commands applied at once, and a reconciler of ten lines that makes tasks run.
final class MemoryBackend: ControlBackend {
  struct World {
    var state = ClusterState()
    var watchers: [Int: AsyncStream<([StateChange], ClusterState)>.Continuation] = [:]
    var nextWatcher = 0
    var route: ControlRoute = .local
    var logs: [TaskID: [LogRecord]] = [:]
    var slowQueries = 0
    var loaded: [NodeID: Int] = [:]
    var logins: [RegistryCredentials?] = []
    var imageHosts: [NodeID] = []
    var removedVolumes: [String] = []
    /// As NAME@HOST: a host refuses to remove them.
    var heldVolumes: Set<String> = []
    var removedManagers: [NodeID] = []
    var members: [(number: Int, votes: Bool)] = [(1, true)]
    var leader = 1
    var backups: [String: ClusterState] = [:]
    var execInput: [ExecInput] = []
    var execEnded = 0
    var proposals = 0
    /// What processes of hosts have.
    var taken: [NodeID: [NodeDescription.PortConflict]] = [:]
    /// What the allocator was told of them.
    var learned: [(asked: [PortClaim], taken: [PortClaim])] = []
  }
  let world = Mutex(World())
  let nodes: [NodeID] = (1...3).map { NodeID(value: UInt128($0)) }

  init() {
    world.withLock { world in
      var cluster = Cluster(id: ClusterID(value: 99), createdAt: Self.now)
      cluster.workerToken = "ORCHTKN-1-abc-worker"
      cluster.managerToken = "ORCHTKN-1-abc-manager"
      var actions: [Action] = [.putCluster(cluster)]
      for (number, id) in zip(1..., nodes) {
        var node = Node(id: id, spec: NodeSpec(role: number == 1 ? .manager : .worker), createdAt: Self.now)
        node.description = NodeDescription(
          hostname: "h\(number)", platform: Platform(architecture: "x86_64", os: "linux"),
          resources: .init(nanoCPUs: 2_000_000_000, memoryBytes: 1 << 30), engine: .init(engineVersion: "0.1.0"))
        node.status = NodeStatus(state: .ready, address: IPv4Address("10.9.0.\(number)"))
        if number == 1 { node.manager = ManagerStatus(raftID: RaftID(1), address: "10.9.0.1:7946") }
        actions.append(.putNode(node))
      }
      _ = world.state.apply(Command(actions: actions), at: 1)
    }
  }
  static let now = Timestamp("2026-01-02T03:04:05.000000006Z")!

  func route() async -> ControlRoute { world.withLock { $0.route } }
  func state() async throws -> ClusterState { world.withLock { $0.state } }

  func propose(_ command: Command) async throws -> UInt64 {
    try world.withLock { world in
      world.proposals += 1
      try Self.apply(command, &world)
      let index = world.state.index
      let settling = settle(world.state)
      if !settling.isEmpty { try Self.apply(Command(actions: settling), &world) }
      return index
    }
  }

  private static func apply(_ command: Command, _ world: inout World) throws {
    let changes = try world.state.apply(command, at: world.state.index + 1).get()
    for watcher in world.watchers.values { watcher.yield((changes, world.state)) }
  }

  func portConflicts(_ ports: [PortConfig], on node: NodeID) async throws -> [NodeDescription.PortConflict] {
    world.withLock { ($0.taken[node] ?? []).filter { taken in ports.contains { $0.publishedPort == taken.port } } }
  }

  func learn(asked: [PortClaim], taken: [PortClaim]) async { world.withLock { $0.learned.append((asked, taken)) } }

  func settle(_ state: ClusterState) -> [Action] {
    var actions: [Action] = []
    for service in state.services.values {
      guard let revision = state.revision(service.id, service.current) else { continue }
      let wanted = service.pendingDelete ? 0 : revision.spec.replicas ?? UInt64(nodes.count)
      for task in state.tasks(of: service.id) where task.desiredState <= .running {
        guard task.slot > wanted || task.revision != revision.template else { continue }
        actions.append(.taskDesiredState(task.id, .shutdown))
        actions.append(.taskStatus(task.id, TaskStatus(state: .shutdown, timestamp: .init(nanoseconds: 9_000_000_000), message: "shutdown")))
      }
      for slot in 1..<(wanted + 1) {
        if state.tasks(of: service.id).contains(where: { $0.slot == slot && $0.desiredState <= .running && $0.revision == revision.template }) {
          continue
        }
        let task = ClusterTask(id: .random(), service: service.id, revision: revision.template, slot: slot, createdAt: Self.now)
        actions.append(.createTask(task))
        actions.append(
          .assignTask(
            task.id, node: nodes[Int(slot) % nodes.count], attachments: [], status: TaskStatus(state: .assigned, timestamp: Self.now, message: "")))
        actions.append(
          .taskStatus(task.id, TaskStatus(state: .running, timestamp: Self.now, message: "started", containerID: "c\(slot)", pid: 42)))
      }
      if service.updateStatus?.state == .rollbackStarted {
        actions.append(.serviceUpdateStatus(service.id, .init(state: .rollbackCompleted, startedAt: Self.now, message: "rollback completed")))
      }
      if service.pendingDelete { actions.append(.removeService(service.id)) }
    }
    return actions
  }

  func apply(_ actions: [Action]) { world.withLock { try? Self.apply(Command(actions: actions), &$0) } }

  /// Not a seal, but not the content either.
  func seal(_ content: [UInt8], as id: FileID) throws -> [UInt8] { id.bytes + content.map { ~$0 } }
  func content(of file: StoredFile) throws -> [UInt8] {
    file.kind == .secret ? file.data.dropFirst(16).map { ~$0 } : file.data
  }

  func watch() async -> AsyncStream<([StateChange], ClusterState)> {
    let (stream, continuation) = AsyncStream.makeStream(of: ([StateChange], ClusterState).self)
    let number = world.withLock { world in
      world.nextWatcher += 1
      world.watchers[world.nextWatcher] = continuation
      return world.nextWatcher
    }
    continuation.onTermination = { [weak self] _ in self?.world.withLock { _ = $0.watchers.removeValue(forKey: number) } }
    return stream
  }

  func logs(_ task: ClusterTask, _ options: LogOptions) async throws -> AsyncThrowingStream<LogRecord, any Error> {
    let records = world.withLock { $0.logs[task.id] ?? [] }.filter { record in options.until.map { record.timestamp <= $0 } ?? true }
    return AsyncThrowingStream { continuation in
      for record in options.tail.map({ records.suffix($0) }) ?? records[...] { continuation.yield(record) }
      if !options.follow || options.until != nil { continuation.finish() }
    }
  }

  /// A process that answers every line with itself in capitals and ends with 7 at the end of its input.
  func exec(_ task: ClusterTask, _ request: ExecRequest, input: Pipe<ExecInput>) async throws -> AsyncThrowingStream<ExecOutput, any Error> {
    if request.command == ["missing"] { throw APIError(400, "exec missing: no such file") }
    if request.detach {
      return AsyncThrowingStream { continuation in
        continuation.yield(.exit(request.command == ["ls"] ? 0 : 126))
        continuation.finish()
      }
    }
    // Neither reads nor writes, until it is ended.
    if request.command == ["deaf"] {
      return AsyncThrowingStream { $0.onTermination = { _ in self.world.withLock { $0.execEnded += 1 } } }
    }
    return AsyncThrowingStream { continuation in
      let process = Task {
        continuation.yield(.stderr(Array("\(request.command.joined(separator: " ")) ready\n".utf8)))
        var ended = false
        while let item = try? await input.next() {
          self.world.withLock { $0.execInput.append(item) }
          switch item {
          case .stdin(let bytes): continuation.yield(.stdout(Array(String(decoding: bytes, as: UTF8.self).uppercased().utf8)))
          case .resize: break
          case .endOfInput: ended = true
          case .detach:
            continuation.yield(.exit(0))
            return continuation.finish()
          }
          if ended { break }
        }
        self.world.withLock { $0.execEnded += 1 }
        continuation.yield(.exit(ended ? 7 : 137))
        continuation.finish()
      }
      continuation.onTermination = { _ in process.cancel() }
    }
  }

  func loadImage(_ load: ImageLoad, on node: NodeID, body: APIBody) async throws -> [String] {
    if node == nodes[2] { throw APIError(500, "no space left on device") }
    var count = 0
    for try await part in body { count += part.readableBytes }
    let total = count
    world.withLock { $0.loaded[node] = total }
    if case .rootfs(let name) = load { return [name] }
    return ["web:1"]
  }
  /// One task a host, whose name is the question; the line comes in two parts. The third host is an agent of before.
  private func stats(_ request: APIRequest, _ node: NodeID) throws -> APIResponse {
    if node == nodes[2] {
      let message = ErrorResponse(message: "this host does not serve GET /stats: upgrade its agent")
      return APIResponse(status: 404, body: APIBody(bytes: JSONText.encode(message)))
    }
    let task = TaskStatistics(
      id: "task\(node.value)", name: request.uri, service: "s", cpuPercent: 150.5, cpuNanoseconds: 3, memory: 3 << 20, memoryLimit: 6 << 20,
      oomKills: 1, pids: 7, pidsLimit: nil, readBytes: 4000, writtenBytes: 0, receivedBytes: 1500, sentBytes: 2,
      pressure: ["io": .init(some10: 1, full10: 0.5)])
    let line = JSONText.encode(HostStatistics(nodeID: "\(node)", host: "h\(node.value)", tasks: [task])) + [10]
    let parts = AsyncStream<ByteBuffer> { continuation in
      continuation.yield(ByteBuffer(bytes: line[..<20]))
      continuation.yield(ByteBuffer(bytes: line[20...]))
      continuation.finish()
    }
    return APIResponse(status: 200, body: APIBody(stream: parts))
  }
  /// Tells whom it asked, and what.
  func ask(_ request: APIRequest, on node: NodeID) async throws -> APIResponse {
    if request.uri.hasPrefix("/stats") { return try stats(request, node) }
    let body = try await request.body.collect(upTo: 1 << 20)
    return APIResponse(status: 200, body: APIBody(string: "\(request.method) \(request.uri) on \(node.value): \(body.readableBytes) bytes"))
  }
  func image(_ command: ImageCommand, on node: NodeID) async throws -> AsyncThrowingStream<ImageEvent, any Error> {
    let events: [ImageEvent]
    switch command {
    case .pull("gone:1", _, _), .inspect("gone:1"): throw APIError(404, "No such image: gone:1")
    case .pull(_, _, let login), .push(_, let login):
      world.withLock { $0.logins.append(login) }
      events = [
        .progress(layer: "sha256:0123456789abcdef", .downloading, done: 5, total: 10),
        .progress(layer: "sha256:0123456789abcdef", .done, done: 10, total: 10),
        .digest("sha256:feed"),
      ]
    case .tag: events = [.digest("")]
    case .remove(let name, let force): events = [.removed(untagged: [name], deleted: force ? ["sha256:0123"] : [], bytes: 0)]
    case .prune(let all, _): events = [.removed(untagged: all ? ["web:1"] : [], deleted: [], bytes: 7)]
    case .inspect(let name):
      let config =
        #"{"architecture":"amd64","os":"linux","created":"2026-01-02T03:04:05Z","config":{"Cmd":["x"]},"rootfs":{"type":"layers","diff_ids":["sha256:a","sha256:b"]},"history":[{"created_by":"ADD"},{"created_by":"ENV","empty_layer":true},{"created_by":"RUN"}]}"#
      events = [
        .image(
          ImageDetail(
            names: [name], id: "sha256:0123456789abcdef", digest: "sha256:feed", config: Array(config.utf8), size: 12, layerSizes: [5, 7],
            inUse: false))
      ]
    case .save(let names, let oci): events = [.data(Array("\(names) \(oci)".utf8)), .data([33])]
    }
    world.withLock { $0.imageHosts.append(node) }
    return AsyncThrowingStream { continuation in
      for event in events { continuation.yield(event) }
      continuation.finish()
    }
  }
  func images(on node: NodeID) async throws -> [ImageRecord] { [ImageRecord(name: "web:1", id: "sha256:0123456789abcdef", sizeBytes: 1_240_000)] }
  func removeVolume(_ name: String, on node: NodeID) async throws {
    let place = "\(name)@\(node.value)"
    if world.withLock({ $0.heldVolumes.contains(place) }) { throw APIError(409, "a container uses it") }
    world.withLock { $0.removedVolumes.append(place) }
  }
  func managers() async -> [ManagerRecord] {
    world.withLock { world in
      world.members.map { number, votes in
        ManagerRecord(
          raftID: RaftID(UInt64(number)), node: nodes[number - 1], hostname: "h\(number)", address: "10.9.0.\(number):7946",
          leader: number == world.leader, votes: votes,
          term: 3, reachable: true, matchIndex: 40 - UInt64(number), lag: UInt64(number) - 1)
      }
    }
  }
  func removeManager(_ node: NodeID, force: Bool) async throws {
    try world.withLock { world in
      let number = Int(node.value)
      if !force, world.members.count(where: \.votes) == 2 { throw APIError(409, "manager h\(number) cannot be removed: no majority") }
      world.members.removeAll { $0.number == number }
      world.removedManagers.append(node)
    }
  }
  func setVote(_ node: NodeID, _ votes: Bool, force: Bool) async throws {
    try world.withLock { world in
      let number = Int(node.value)
      if !world.members.contains(where: { $0.number == number && $0.votes != votes }) { return }
      if !votes, !force, world.members.count(where: \.votes) == 2 { throw APIError(409, "manager h\(number) cannot be demoted: no majority") }
      for index in world.members.indices where world.members[index].number == number { world.members[index].votes = votes }
    }
  }
  func transferLeadership(to node: NodeID?) async throws -> NodeID {
    world.withLock { world in
      world.leader = node.map { Int($0.value) } ?? world.members.first { $0.votes && $0.number != world.leader }!.number
      return nodes[world.leader - 1]
    }
  }
  func query(_ statement: String, limit: Duration, stale: Bool) async throws -> APIBody {
    if statement == "slow" {
      // Silent until its reader leaves.
      let silent = AsyncStream<ByteBuffer> { [self] in
        world.withLock { $0.slowQueries += 1 }
        do { try await Task.sleep(for: .seconds(60)) } catch { world.withLock { $0.slowQueries -= 1 } }
        return nil
      }
      return APIBody(stream: silent)
    }
    if statement.hasPrefix("delete") { throw APIError(400, "the statement would write") }
    return APIBody(
      string: "{\"columns\":[\"query\",\"limit\",\"stale\"]}\n[\"\(statement)\",\(limit / .seconds(1)),\(stale ? 1 : 0)]\n{\"rows\":1}\n")
  }
  func backup(stale: Bool) async throws -> (BackupSummary, APIBody) { (Self.summary, APIBody(string: "SQLite format 3")) }
  func readBackup(_ file: APIBody) async throws -> (BackupSummary, ClusterState) {
    let name = String(buffer: try await file.collect(upTo: 1 << 20))
    guard let state = world.withLock({ $0.backups[name] }) else { throw APIError(400, "the file cannot be restored: it is not a backup of orch") }
    return (Self.summary, state)
  }
  static let summary = BackupSummary(
    cluster: "c", index: 7, takenAt: now, bytes: 15, checksum: 1, nodes: 3, stacks: 1, services: 2, tasks: 3, networks: 4, volumes: 5)
  func issueCertificate(user: String, signingRequest: String, validity: Nanoseconds?) async throws -> CertificateResponse {
    CertificateResponse(
      certificate: "certificate of \(user) for \(signingRequest)", authority: "authority",
      notAfter: Self.now + (validity ?? .seconds(90 * 86_400)))
  }

  func info() async -> ManagerInfo {
    ManagerInfo(
      node: nodes[0], hostname: "h1", address: "10.9.0.1:7946", version: "0.1.0", kernelVersion: "6.18.0", operatingSystem: "Debian 12",
      architecture: "x86_64", cpuCount: 2, memoryBytes: 1 << 30)
  }
}
