import Consensus
import ControlAPI
import FoundationEssentials
import Glibc
import Identity
import Logging
import Model
import NIOCore
import Surroundings
import Synchronization
import Telemetry
import Transport
import Wire

import struct API.CertificateResponse

/// What the public API stands on: consensus here, agents through their sessions, the leader through a stream.
struct Backend: ControlBackend {
  let consensus: Consensus
  let queries: StateQueries
  let sessions: AgentSessions
  let loop: ControlLoop
  let leaderLink: LeaderLink
  let vault: FileVault
  let joining: JoinService
  let node: NodeID
  let address: String

  func state() async throws -> ClusterState { try await translated { try await consensus.linearizableState() } }

  func propose(_ command: Command) async throws -> UInt64 { try await translated { try await consensus.propose(command).index } }

  func seal(_ content: [UInt8], as id: FileID) throws -> [UInt8] { try vault.seal(content, as: id) }

  func content(of file: StoredFile) throws -> [UInt8] { try vault.content(of: file) }

  func translated<Value>(_ body: () async throws -> Value) async throws -> Value {
    do { return try await body() } catch ConsensusError.refused(let refusal) { throw refusal } catch let error as ConsensusError {
      if case .tooLarge = error { throw APIError(413, "\(error)") }
      throw APIError(503, "\(error)")
    }
  }

  func watch() async -> AsyncStream<([StateChange], ClusterState)> {
    // An AsyncStream is read by one task: this with it.
    nonisolated(unsafe) var batches = await consensus.changesFromNow().makeAsyncIterator()
    return AsyncStream { await batches.next().map { ($0.changes, $0.state) } }
  }

  // MARK: - Agents

  func agent(_ node: NodeID?) throws -> Connection {
    guard let node else { throw APIError(409, "the task is not assigned to a node yet") }
    guard let connection = sessions.connection(to: node) else {
      let name = consensus.snapshot.nodes[node]?.hostname ?? "\(node)"
      throw APIError(503, "the agent on \(name) is not connected: see `orch nodes`")
    }
    return connection
  }

  func logs(_ task: ClusterTask, _ options: LogOptions) async throws -> AsyncThrowingStream<LogRecord, any Error> {
    let stream = try await agent(task.node).open(.logs)
    var request = WireLogsRequest()
    request.task = task.id.data
    request.follow = options.follow
    if let tail = options.tail { request.tail = UInt64(max(0, tail)) }
    request.since = options.since?.nanoseconds ?? 0
    request.until = options.until?.nanoseconds ?? 0
    (request.stdout, request.stderr) = (options.stdout, options.stderr)
    try await stream.send(request)
    return Self.pulled(stream) {
      guard let record = try await stream.receive(WireLogRecord.self) else { return nil }
      return LogRecord(stream: record.stderr ? .stderr : .stdout, timestamp: Timestamp(nanoseconds: record.timestamp), bytes: [UInt8](record.line))
    }
  }

  /// One element for each demand, so that a slow reader slows the agent and not this manager's memory.
  static func pulled<Element>(
    _ stream: TransportStream, _ next: @escaping @Sendable () async throws -> Element?
  ) -> AsyncThrowingStream<Element, any Error> {
    AsyncThrowingStream {
      try await withTaskCancellationHandler {
        do {
          return try await next()
        } catch let error as StreamError {
          throw APIError(error.code == .notFound ? 404 : 500, "\(error)")
        }
      } onCancel: {
        stream.cancel()
      }
    }
  }

  func exec(_ task: ClusterTask, _ request: ExecRequest, input: Pipe<ExecInput>) async throws -> AsyncThrowingStream<ExecOutput, any Error> {
    let stream = try await agent(task.node).open(.exec)
    var start = WireExecInput()
    start.start.task = task.id.data
    start.start.arguments = request.command
    start.start.environment = request.env
    start.start.directory = request.workingDir
    start.start.user = request.user
    start.start.tty = request.tty
    start.start.attach = request.attach
    start.start.detach = request.detach
    if let size = request.size { start.start.size = WireTerminalSize.with { ($0.rows, $0.columns) = (UInt32(size.rows), UInt32(size.columns)) } }
    try await stream.send(start)
    if !request.stdin {
      var end = WireExecInput()
      end.endOfInput = true
      try await stream.send(end)
    }
    let feeding = Task {
      while let element = try await input.next() {
        var message = WireExecInput()
        switch element {
        case .stdin(let bytes): message.stdin = Data(bytes)
        case .endOfInput: message.endOfInput = true
        case .detach: message.detach = true
        case .resize(let size): message.resize = WireTerminalSize.with { ($0.rows, $0.columns) = (UInt32(size.rows), UInt32(size.columns)) }
        }
        try await stream.send(message)
      }
      // The client is gone: the agent hangs up.
      stream.cancel()
    }
    let done = Mutex(false)
    return Self.pulled(stream) {
      if done.withLock({ $0 }) { return nil }
      guard let output = try await stream.receive(WireExecOutput.self) else {
        feeding.cancel()
        return nil
      }
      switch output.kind {
      case .stdout(let data): return .stdout([UInt8](data))
      case .stderr(let data): return .stderr([UInt8](data))
      case .exitCode(let code):
        done.withLock { $0 = true }
        feeding.cancel()
        return .exit(code)
      case .error(let text): throw APIError(500, text)
      case nil: throw APIError(500, "the agent sent an output of unknown kind: upgrade this manager")
      }
    }
  }

  func loadImage(_ load: ImageLoad, on node: NodeID, body: APIBody) async throws -> [String] {
    let connection = try agent(node)
    let result = try await connection.withStream(.imageLoad) { stream in
      var message = WireImageLoad()
      if case .rootfs(let name) = load { message.start.name = name } else { message.start = WireImageLoadStart() }
      try await stream.send(message)
      for try await buffer in body {
        var rest = buffer
        while let part = rest.readSlice(length: min(rest.readableBytes, 256 << 10)), part.readableBytes > 0 {
          var data = WireImageLoad()
          data.data = Data(part.readableBytesView)
          try await stream.send(data)
        }
      }
      stream.finish()
      return try await stream.receive(WireImageResult.self)
    }
    guard let result else { throw APIError(500, "the agent ended without an answer") }
    if !result.error.isEmpty { throw APIError(400, result.error) }
    return result.names
  }

  func ask(_ request: APIRequest, on node: NodeID) async throws -> APIResponse {
    do { return try await APIForwarding.ask(agent(node), request, .hostAPI) } catch let error as StreamError {
      throw APIError(error.code == .unimplemented ? 501 : 500, "\(error)")
    }
  }

  func images(on node: NodeID) async throws -> [ImageRecord] {
    let list: WireImageList = try await agent(node).call(.imageList, WireEmpty())
    return list.images.map {
      ImageRecord(
        name: $0.name, id: $0.id, digest: $0.digest, sizeBytes: $0.size, createdAt: $0.createdAt == 0 ? nil : Timestamp(nanoseconds: $0.createdAt))
    }
  }

  func portConflicts(_ ports: [PortConfig], on node: NodeID) async throws -> [NodeDescription.PortConflict] {
    var request = WirePortCheck()
    request.ports = try ModelJSON.encode(ports)
    let answer: WirePortConflicts = try await agent(node).call(.portCheck, request, timeout: .seconds(1))
    return try ModelJSON.decode(from: answer.conflicts)
  }

  func learn(asked: [PortClaim], taken: [PortClaim]) async { await loop.learn(asked: asked, taken: taken) }

  func removeVolume(_ name: String, on node: NodeID) async throws {
    var request = WireVolumeRemove()
    request.name = name
    do {
      let _: WireEmpty = try await agent(node).call(.volumeRemove, request, timeout: .seconds(60))
    } catch let error as StreamError {
      throw APIError(409, "\(error)")
    }
  }

  func issueCertificate(user: String, signingRequest: String, validity: Nanoseconds?) async throws -> CertificateResponse {
    let authority: CertificateAuthority
    do { authority = try joining.authority().1 } catch let error as StreamError { throw APIError(503, "\(error)") }
    let (now, validity) = (Timestamp.now, validity ?? UserCertificate.defaultValidity)
    do {
      let certificate = try authority.issue(signingRequest, user: user, validity: validity, now: now)
      joining.log.notice("certificate issued", metadata: ["user": "\(user)", "until": "\(now + validity)"])
      return CertificateResponse(certificate: certificate, authority: authority.certificatePEM, notAfter: now + validity)
    } catch {
      throw APIError(400, "\(error)")
    }
  }

  func info() async -> ManagerInfo {
    var name = utsname()
    uname(&name)
    func text<T>(_ field: inout T) -> String { withUnsafeBytes(of: &field) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) } }
    let release = (try? String(contentsOfFile: "/etc/os-release", encoding: .utf8)) ?? ""
    let pretty = release.split(separator: "\n").first { $0.hasPrefix("PRETTY_NAME=") }?.dropFirst(12).filter { $0 != "\"" }
    return ManagerInfo(
      node: node, hostname: text(&name.nodename), address: address, version: Version.text, kernelVersion: text(&name.release),
      operatingSystem: pretty.map { String($0) } ?? "Linux", architecture: text(&name.machine), cpuCount: sysconf(Int32(_SC_NPROCESSORS_ONLN)),
      memoryBytes: Int64(sysconf(Int32(_SC_PHYS_PAGES))) * Int64(sysconf(Int32(_SC_PAGESIZE))))
  }
}
