import API
import APIClient
import ControlAPI
import LinuxSystem
import Logging
import Model
import NIOCore
import ServiceLifecycle
import Synchronization
import Testing

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#endif

/// Serves until it is told to stop, as a daemon is: swift-nio ends the process when a task that serves is cancelled while a connection is accepted and
/// nobody has read it yet (swift-nio, issue 2637).
private func start(_ server: ControlServer, ended: @escaping @Sendable () -> Void = {}) -> ServiceGroup {
  struct Part: ServiceLifecycle.Service {
    let server: ControlServer
    func run() async throws { try await server.run() }
  }
  var quiet = Logger(label: "test")
  quiet.logLevel = .critical
  let group = ServiceGroup(services: [Part(server: server)], logger: quiet)
  Task {
    defer { ended() }
    try await group.run()
  }
  return group
}

/// A server on a socket of its own, for one test.
func withServer<Result: Sendable>(
  _ backend: MemoryBackend = MemoryBackend(), _ body: @Sendable (MemoryBackend, String) async throws -> Result
) async throws -> Result {
  var template = Array("/tmp/orch-api-XXXXXX".utf8CString)
  guard mkdtemp(&template) != nil else { throw APIError(500, "mkdtemp: \(errno)") }
  let folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  let path = folder + "/orch.sock"
  defer {
    unlink(path)
    rmdir(folder)
  }
  let (ready, isReady) = AsyncStream.makeStream(of: Void.self)
  let server = ControlServer(ControlAPI(backend: backend), on: .unix(path: path), logger: Logger(label: "test")) { _ in isReady.finish() }
  let group = start(server) { isReady.finish() }
  for await _ in ready {}
  defer { Task { await group.triggerGracefulShutdown() } }
  return try await body(backend, path)
}

@Suite struct ServerTests {
  @Test("the socket belongs to owner and group; a dead daemon's socket is replaced, a live one's is not, and a plain file never")
  func socket() async throws {
    try await withServer { backend, path in
      var status = stat()
      #expect(stat(path, &status) == 0 && status.st_mode & 0o777 == 0o660)
      let second = ControlServer(ControlAPI(backend: backend), on: .unix(path: path), logger: Logger(label: "test"))
      await #expect(throws: ControlServer.Problem.self) { try await second.run() }
      let client = APIClient(endpoint: .unix(path: path))
      let version = try await client.get("/version", as: Version.self)
      #expect(version.apiVersion == "1.45")
    }
    let plain = "/tmp/orch-api-plain-\(getpid())"
    close(open(plain, O_CREAT | O_WRONLY, 0o600))
    defer { unlink(plain) }
    let onFile = ControlServer(ControlAPI(backend: MemoryBackend()), on: .unix(path: plain), logger: Logger(label: "test"))
    await #expect(throws: ControlServer.Problem.self) { try await onFile.run() }
    // A socket file that nobody answers on.
    unlink(plain)
    let descriptor = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    _ = try withUnixAddress(plain) { bind(descriptor, $0, $1) }
    close(descriptor)
    let (ready, isReady) = AsyncStream.makeStream(of: Void.self)
    let replacing = ControlServer(ControlAPI(backend: MemoryBackend()), on: .unix(path: plain), logger: Logger(label: "test")) { _ in isReady.finish()
    }
    let group = start(replacing) { isReady.finish() }
    for await _ in ready {}
    #expect(try await APIClient(endpoint: .unix(path: plain)).call("GET", "/_ping") == Array("OK".utf8))
    await group.triggerGracefulShutdown()
  }

  @Test("a read whose leader is lost on the way is asked again of the next; a change is not, for nobody knows what became of it")
  func leaderLost() async throws {
    try await withServer { backend, path in
      struct Lost: Error {}
      let asked = Mutex(0)
      let api = ControlAPI(backend: MemoryBackend())
      backend.world.withLock { world in
        world.route = .forward { request in
          // As the way to a leader does.
          for try await _ in request.body {}
          guard
            asked.withLock({
              $0 += 1; return $0
            }) > 1
          else { throw Lost() }
          return await api.respond(to: request)
        }
      }
      let client = APIClient(endpoint: .unix(path: path))
      let services = try await client.get("/services", as: [ServiceInspect].self)
      #expect(services.isEmpty && asked.withLock { $0 } == 2)
      asked.withLock { $0 = 0 }
      await #expect { try await client.call("POST", "/networks/create", [], Array(#"{"Name":"n"}"#.utf8)) } throws: { error in
        (error as? ClientError)?.status == 503 && "\(error)".contains("look whether it was done")
      }
      #expect(asked.withLock { $0 } == 1)
    }
  }

  @Test("an error reaches the client as its code and message; a missing manager as a sentence that says what to do")
  func errors() async throws {
    try await withServer { _, path in
      let client = APIClient(endpoint: .unix(path: path))
      await #expect(throws: ClientError.refused(status: 404, message: "service web not found")) { try await client.call("GET", "/services/web") }
    }
    let nobody = APIClient(endpoint: .unix(path: "/tmp/orch-nobody.sock"))
    do {
      try await nobody.call("GET", "/services")
      Issue.record("nobody answered")
    } catch let error as ClientError {
      #expect(error.description.contains("there is no such socket") && error.description.contains("ORCH_HOST"))
    }
  }

  @Test("exec streams both ways at once: what was answered decides what is typed next")
  func duplex() async throws {
    try await withServer { backend, path in
      let client = APIClient(endpoint: .unix(path: path))
      try await client.createWeb()
      let input = Pipe<StreamFrame>(capacity: 4)
      let seen = Mutex<[String]>([])
      try await client.exec("web.1", ExecStart(command: ["sh", "-c", "x"], stdin: true), input: input) { event in
        switch event {
        case .stderr(let bytes):
          seen.withLock { $0.append("err " + String(decoding: bytes, as: UTF8.self)) }
          await input.send(StreamFrame(.resize, [0, 24, 0, 80]))
          await input.send(StreamFrame(.stdin, Array("one".utf8)))
        case .stdout(let bytes):
          seen.withLock { $0.append("out " + String(decoding: bytes, as: UTF8.self)) }
          // The second line is only typed when the first was answered.
          if bytes == Array("ONE".utf8) {
            await input.send(StreamFrame(.stdin, Array("two".utf8)))
          } else {
            await input.send(StreamFrame(.endOfInput))
          }
        case .exit(let code): seen.withLock { $0.append("exit \(code)") }
        }
      }
      #expect(seen.withLock { $0 } == ["err sh -c x ready\n", "out ONE", "out TWO", "exit 7"])
      #expect(backend.world.withLock { $0.execInput.contains(.resize(.init(rows: 24, columns: 80))) })
      // The connection pool and the server are well afterwards.
      #expect(try await client.get("/services", as: [ServiceInspect].self).count == 1)

      // Who leaves by word, or never came, gets an exit of 0.
      let leaving = Pipe<StreamFrame>(capacity: 4)
      let codes = Mutex<[Int32]>([])
      try await client.exec("web.1", ExecStart(command: ["cat"], stdin: true), input: leaving) {
        event in
        if case .exit(let code) = event {
          codes.withLock { $0.append(code) }
        } else {
          await leaving.send(StreamFrame(.detach))
        }
      }
      #expect(backend.world.withLock { $0.execInput.last == .detach })
      try await client.exec(
        "web.1", ExecStart(command: ["ls"], detach: true), input: Pipe(capacity: 1)
      ) { event in
        if case .exit(let code) = event { codes.withLock { $0.append(code) } }
      }
      #expect(codes.withLock { $0 } == [0, 0])
    }
  }

  @Test("a process whose client leaves gets the end of its input; a task that does not run says so")
  func execEnds() async throws {
    try await withServer { backend, path in
      let client = APIClient(endpoint: .unix(path: path))
      try await client.createWeb()
      let running = Task {
        try await client.exec("web.1", ExecStart(command: ["cat"], stdin: true), input: Pipe<StreamFrame>(capacity: 4)) { _ in
          withUnsafeCurrentTask { $0?.cancel() }
        }
      }
      _ = try? await running.value
      try await eventually { backend.world.withLock { $0.execEnded } == 1 }
      await #expect(throws: ClientError.refused(status: 400, message: "exec missing: no such file")) {
        try await client.exec("web.1", ExecStart(command: ["missing"]), input: Pipe(capacity: 1)) { _ in }
      }
      await #expect(throws: ClientError.self) { try await client.exec("web.9", ExecStart(command: ["ls"]), input: Pipe(capacity: 1)) { _ in } }
    }
  }

  @Test("changes that come at once are all made: whoever was behind reads and writes anew")
  func edits() async throws {
    try await withServer { _, path in
      let client = APIClient(endpoint: .unix(path: path))
      try await client.createWeb()
      try await withThrowingTaskGroup(of: Void.self) { group in
        for number in 0..<8 {
          group.addTask {
            _ = try await client.edit("web", as: ServiceInspect.self, attempts: 50) { spec in
              spec.labels = (spec.labels ?? [:]).merging(["\(number)": ""]) { $1 }
            }
          }
        }
        try await group.waitForAll()
      }
      let (old, _) = try await client.edit("web", as: ServiceInspect.self, if: { _, _ in false }) { $0.name = "unwritten" }
      #expect(old.spec.name == "web" && Set((old.spec.labels ?? [:]).keys) == Set((0..<8).map(String.init)))
      await #expect { try await client.call("POST", "/services/\(old.id)/update", [("version", "1")], JSONText.encode(old.spec)) } throws: {
        ($0 as? ClientError)?.isOutOfSequence == true
      }
    }
  }

  @Test("a process that does not read its input ends with its client, though what the client sent is stuck")
  func deafExecEnds() async throws {
    try await withServer { backend, path in
      try await APIClient(endpoint: .unix(path: path)).createWeb()
      let descriptor = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
      let connected = try withUnixAddress(path) { connect(descriptor, $0, $1) }
      try #require(connected == 0)
      try Self.fill(descriptor)
      #expect(backend.world.withLock { $0.execEnded } == 0)
      close(descriptor)
      try await eventually { backend.world.withLock { $0.execEnded } == 1 }
    }
  }

  @Test("… and over TCP, where the end of who was killed waits behind what it sent")
  func deafExecEndsOverTCP() async throws {
    let backend = MemoryBackend()
    let (ready, isReady) = AsyncStream.makeStream(of: UInt16.self)
    let server = ControlServer(ControlAPI(backend: backend), on: .tcp(host: "127.0.0.1", port: 0, tls: nil), logger: Logger(label: "test")) {
      address in
      isReady.yield(UInt16(address?.port ?? 0))
      isReady.finish()
    }
    let group = start(server) { isReady.finish() }
    defer { Task { await group.triggerGracefulShutdown() } }
    var port: UInt16 = 0
    for await one in ready { port = one }
    try #require(port > 0)
    // Through the API itself: the service is the backend's.
    let created = await ControlAPI(backend: backend).serve(
      APIRequest(
        method: "POST", uri: "/services/create", headers: [],
        body: APIBody(string: #"{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"web:1"}},"Mode":{"Replicated":{"Replicas":1}}}"#)))
    try #require(created.status == 201)
    let descriptor = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    let connected = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
    }
    try #require(connected == 0)
    try Self.fill(descriptor)
    // As long as it lives, nothing happens to it.
    try await Task.sleep(for: .seconds(3))
    #expect(backend.world.withLock { $0.execEnded } == 0)
    // What came meanwhile is read, or closing would be a reset.
    var answer = [UInt8](repeating: 0, count: 4096)
    #expect(read(descriptor, &answer, answer.count) > 0)
    close(descriptor)
    try await eventually { backend.world.withLock { $0.execEnded } == 1 }
  }

  /// Begins an exec that reads nothing and sends it input until nobody takes any more for a second.
  private static func fill(_ descriptor: Int32) throws {
    _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
    func chunk(_ frame: StreamFrame) -> [UInt8] { Array("\(String(frame.bytes.count, radix: 16))\r\n".utf8) + frame.bytes + [13, 10] }
    var rest = Array("POST /orch/v1/tasks/web.1/exec HTTP/1.1\r\nHost: orch\r\nTransfer-Encoding: chunked\r\n\r\n".utf8)
    rest += chunk(StreamFrame(.start, Array(#"{"Cmd":["deaf"],"Tty":false,"AttachStdin":true}"#.utf8)))
    let more = chunk(StreamFrame(.stdin, [UInt8](repeating: 65, count: 32 << 10)))
    var sent = 0
    while true {
      if rest.isEmpty { rest = more }
      let count = write(descriptor, rest, rest.count)
      if count > 0 {
        rest.removeFirst(count)
        sent += count
        try #require(sent < 256 << 20, "nothing holds the client up")
        continue
      }
      var entry = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
      if poll(&entry, 1, 1000) == 0 { return }
      try #require(entry.revents & Int16(POLLERR) == 0, "the client ended")
    }
  }

  @Test("events come as they happen, and the watch ends with its reader")
  func events() async throws {
    try await withServer { backend, path in
      let client = APIClient(endpoint: .unix(path: path))
      let reader = Task {
        var lines: [Event] = []
        var text: [UInt8] = []
        for try await part in try await client.stream("/events", [("filters", #"{"type":["service"]}"#)]) {
          text += Array(part.readableBytesView)
          while let end = text.firstIndex(of: 10) {
            lines.append(try JSONText.decode(Event.self, Array(text[..<end])))
            text.removeFirst(end + 1)
          }
          if lines.count == 2 { return lines }
        }
        return lines
      }
      try await eventually { backend.world.withLock { $0.watchers.count } == 1 }
      try await client.createWeb()
      _ = try await client.post("/orch/v1/scale", [], ["web": 2], as: ScaleResponse.self)
      let events = try await reader.value
      #expect(events.map(\.action) == ["create", "update"])
      #expect(events.last?.actor.attributes["replicas.new"] == "2")
      try await eventually { backend.world.withLock { $0.watchers.isEmpty } }
    }
  }

  @Test("a followed log brings the lines of tasks that came while its watch had fallen behind")
  func followBehind() async throws {
    try await withServer { backend, path in
      let client = APIClient(endpoint: .unix(path: path))
      try await client.createWeb()
      let service = try await client.get("/services/web", as: ServiceInspect.self)
      var task = ClusterTask(id: .random(), service: ServiceID(service.id)!, revision: 1, slot: 7, createdAt: MemoryBackend.now)
      (task.node, task.status.state, task.status.containerID) = (backend.nodes[0], .running, "c7")
      let late = task
      backend.world.withLock { $0.logs[late.id] = [LogRecord(stream: .stdout, timestamp: MemoryBackend.now, bytes: Array("late\n".utf8))] }
      let reader = Task { try await client.followed() }
      try await eventually { backend.world.withLock { $0.watchers.count } == 1 }
      let behind = backend.world.withLock { world in
        defer { world.watchers = [:] }
        return Array(world.watchers.values)
      }
      backend.apply([.createTask(late)])
      for watcher in behind { watcher.finish() }
      #expect(try await reader.value == "late\n")
      try await eventually { backend.world.withLock { $0.watchers.isEmpty } }
    }
  }

  @Test("a statement in SQL ends when its reader leaves, though it has nothing to write")
  func queryLeft() async throws {
    try await withServer { backend, path in
      let reader = Task {
        let request = QueryRequest(query: "slow", timeout: 60, stale: nil)
        for try await _ in try await APIClient(endpoint: .unix(path: path)).stream("/orch/v1/sql", posting: request) {}
      }
      try await eventually { backend.world.withLock { $0.slowQueries } == 1 }
      reader.cancel()
      try await eventually { backend.world.withLock { $0.slowQueries } == 0 }
    }
  }

  @Test("a followed log brings new tasks' lines, and ends with its reader")
  func follow() async throws {
    try await withServer { backend, path in
      let client = APIClient(endpoint: .unix(path: path))
      try await client.createWeb()
      let task = try await client.get("/tasks/web.1", as: TaskInspect.self)
      backend.world.withLock { $0.logs[TaskID(task.id)!] = [LogRecord(stream: .stdout, timestamp: MemoryBackend.now, bytes: Array("old\n".utf8))] }
      #expect(try await client.followed() == "old\n")
      try await eventually { backend.world.withLock { $0.watchers.isEmpty } }
    }
  }
}

extension APIClient {
  /// The first piece of the followed log.
  func followed() async throws -> String {
    var parser = StreamFrame.Parser()
    for try await part in try await stream("/services/web/logs", [("stdout", "1"), ("follow", "1")]) {
      parser.append(part.readableBytesView)
      if let frame = try parser.next() { return String(decoding: frame.payload, as: UTF8.self) }
    }
    return ""
  }

  func createWeb() async throws {
    let spec = ServiceSpec(name: "web", taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "web:1")), mode: .replicated(1))
    _ = try await post("/services/create", [], spec, as: ServiceCreateResponse.self)
  }
}

func eventually(_ condition: () -> Bool) async throws {
  let clock = ContinuousClock()
  let end = clock.now + .seconds(45)
  while !condition() {
    guard clock.now < end else {
      Issue.record("it did not happen within 10 s")
      return
    }
    try await Task.sleep(for: .milliseconds(10))
  }
}
