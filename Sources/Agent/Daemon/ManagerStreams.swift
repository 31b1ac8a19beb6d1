import AgentImage
import AgentVolume
import Foundation
import LinuxSystem
import Logging
import Model
import Runtime
import Synchronization
import Transport
import Wire

/// What a manager may ask of this host, on the connection that the agent made.
struct ManagerStreams: Sendable {
  let rooms: Rooms
  let agent: Agent
  let log: Logger

  func serve(on router: Router) {
    router.on(.logs, allow: .manager) { _, stream in try await logs(stream) }
    router.on(.exec, allow: .manager) { _, stream in try await exec(stream) }
    router.on(.hostAPI, allow: .manager) { _, stream in try await HostAPI(rooms: rooms, agent: agent, log: log).serve(stream) }
    router.on(.imageLoad, allow: .manager) { _, stream in try await load(stream) }
    router.on(.imageCommand, allow: .manager) { _, stream in try await images(stream) }
    router.unary(.imageList, allow: .manager) { (_, _: WireEmpty) in list() }
    router.unary(.portCheck, allow: .manager) { (_, request: WirePortCheck) in
      var answer = WirePortConflicts()
      answer.conflicts = try ModelJSON.encode(try await rooms.network.conflicts(on: ModelJSON.decode(from: request.ports)))
      return answer
    }
    router.unary(.volumeRemove, allow: .manager) { (_, request: WireVolumeRemove) in
      do {
        try await rooms.volumes.remove(request.name, inUse: await agent.volumesInUse, by: await agent.tasksInUse)
      } catch let error as VolumeError where error.kind == .notFound {
        // A volume is on the hosts that used it only.
      }
      return WireEmpty()
    }
  }

  // MARK: - Logs

  private func logs(_ stream: TransportStream) async throws {
    guard let request = try await stream.receive(WireLogsRequest.self) else { return }
    var options = LogOptions(
      follow: request.follow, tail: request.hasTail ? Int(clamping: request.tail) : nil,
      since: request.since == 0 ? nil : Timestamp(nanoseconds: request.since),
      until: request.until == 0 ? nil : Timestamp(nanoseconds: request.until),
      stdout: request.stdout, stderr: request.stderr)
    if !options.stdout && !options.stderr { (options.stdout, options.stderr) = (true, true) }
    do {
      for try await line in rooms.runtime.logs(try TaskID(wire: request.task).description, options) {
        var record = WireLogRecord()
        record.timestamp = line.time.nanoseconds
        record.stderr = line.stream == .stderr
        record.line = Data(line.bytes)
        try await stream.send(record)
      }
    } catch let error as RuntimeError where error.kind == .noSuchContainer {
      throw StreamError(.notFound, "no log of this task on this host")
    }
    stream.finish()
  }

  // MARK: - Exec

  private func exec(_ stream: TransportStream) async throws {
    guard case .start(let start)? = try await stream.receive(WireExecInput.self)?.kind else {
      throw StreamError(.invalidArgument, "exec begins with what to execute")
    }
    if start.attach { return try await attach(start, stream) }
    var config = ExecConfig(
      args: start.arguments, env: start.environment,
      cwd: start.directory.isEmpty ? nil : start.directory,
      user: start.user.isEmpty ? nil : start.user, tty: start.tty, stdin: !start.detach)
    config.isDetached = start.detach
    if start.hasSize {
      config.size = (UInt16(clamping: start.size.rows), UInt16(clamping: start.size.columns))
    }
    let process: ExecProcess
    do {
      process = try await rooms.runtime.exec(try TaskID(wire: start.task).description, config)
    } catch let error as RuntimeError {
      if case .command(let code) = error.kind {
        try await stream.send(output(.stderr(Data("\(error)\n".utf8))))
        return try await stream.send(output(.exitCode(code)), end: true)
      }
      throw StreamError(error.kind == .noSuchContainer || error.kind == .notRunning ? .notFound : .internalError, "\(error)")
    }
    let listener = Listener()
    enum End {
      case output(Result<Void, any Error>)
      case left
    }
    let (ends, tell) = AsyncStream.makeStream(of: End.self, bufferingPolicy: .bufferingOldest(2))
    // Of its own: a terminal is read on when nobody listens, or who writes there is held up.
    Task {
      do {
        try await withThrowingTaskGroup(of: Void.self) { group in
          group.addTask {
            try await drain(process.stdout) {
              if !listener.isGone { try await stream.send(output(.stdout($0))) }
            }
          }
          if let errors = process.stderr {
            group.addTask {
              try await drain(errors) {
                if !listener.isGone { try await stream.send(output(.stderr($0))) }
              }
            }
          }
          try await group.waitForAll()
        }
        tell.yield(.output(.success(())))
      } catch {
        if !listener.isGone { process.kill(SIGKILL) }
        tell.yield(.output(.failure(error)))
      }
    }
    if start.detach {
      listener.leave()
      return try await stream.send(output(.exitCode(0)), end: true)
    }
    let input = Task {
      guard await feed(process, from: stream) == .left else { return }
      listener.leave()
      tell.yield(.left)
    }
    defer { input.cancel() }
    // The client is gone: so is what it started, though nothing is read or written just then.
    let end = await withTaskCancellationHandler {
      for await end in ends { return end as End? }
      return nil
    } onCancel: {
      if listener.isGone { return }
      process.kill(SIGHUP)
      process.kill(SIGKILL)
    }
    switch end {
    case .left: try await stream.send(output(.exitCode(0)), end: true)
    case .output(let result):
      try result.get()
      try await stream.send(output(.exitCode(await process.wait())), end: true)
    case nil: throw CancellationError()
    }
  }

  /// Whoever reads an exec's output.
  private final class Listener: Sendable {
    private let gone = Mutex(false)
    var isGone: Bool { gone.withLock { $0 } }
    func leave() { gone.withLock { $0 = true } }
  }

  /// Who leaves ends nothing, but a stdin that is no terminal.
  private func attach(_ start: WireExec, _ stream: TransportStream) async throws {
    let container = try TaskID(wire: start.task).description
    let attached: AttachedProcess
    do { attached = try await rooms.runtime.attach(container) } catch { throw StreamError(.notFound, "\(error)") }
    defer { attached.leave() }
    if start.hasSize { attached.input.resize(rows: UInt16(clamping: start.size.rows), columns: UInt16(clamping: start.size.columns)) }
    // From here on all output comes this way.
    try await stream.send(output(.stdout(Data())))
    let input = Task { _ = await feed(attached.input, from: stream) }
    defer { input.cancel() }
    try await withTaskCancellationHandler {
      while let piece = try await onOwnThread("orch-attach", { try attached.next() }) {
        let data = Data(piece.bytes)
        try await stream.send(output(piece.stream == .stdout ? .stdout(data) : .stderr(data)))
      }
    } onCancel: {
      attached.leave()
    }
    try await stream.send(output(.exitCode(try await rooms.runtime.wait(container).code)), end: true)
  }

  private func output(_ kind: WireExecOutput.OneOf_Kind) -> WireExecOutput {
    var output = WireExecOutput()
    output.kind = kind
    return output
  }

  private enum Feeding { case left, ended }
  private func feed(_ process: ExecProcess, from stream: TransportStream) async -> Feeding {
    var input = process.stdin
    do {
      while let message = try await stream.receive(WireExecInput.self) {
        switch message.kind {
        case .stdin(let data): if let input { await put(data, into: input) }
        case .endOfInput:
          input = nil
          process.closeStdin()
        case .resize(let size):
          process.resize(rows: UInt16(clamping: size.rows), columns: UInt16(clamping: size.columns))
        case .detach:
          input = nil
          process.closeStdin()
          return .left
        case .start, nil: continue
        }
      }
      input = nil
      process.closeStdin()
    } catch {
      // The stream was lost before the end of the process: hang up.
      input = nil
      process.kill(SIGHUP)
      process.kill(SIGKILL)
    }
    return .ended
  }

  /// On a thread of its own: a process that does not read holds it up for as long as it lives.
  private func put(_ data: Data, into descriptor: SharedDescriptor) async {
    await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
      Thread.detachNewThread {
        defer { continuation.resume() }
        var rest = [UInt8](data)[...]
        while !rest.isEmpty {
          let count = rest.withUnsafeBytes { Foundation.write(descriptor.rawValue, $0.baseAddress, $0.count) }
          if count < 0 && errno == EINTR { continue }
          guard count > 0 else { return }
          rest = rest.dropFirst(count)
        }
      }
    }
  }

  /// Reads to the end on a thread of its own; a terminal's end is EIO.
  private func drain(_ descriptor: SharedDescriptor, _ send: @escaping @Sendable (Data) async throws -> Void) async throws {
    while true {
      let data: Data = await withCheckedContinuation { continuation in
        Thread.detachNewThread {
          var buffer = [UInt8](repeating: 0, count: 32 << 10)
          while true {
            let count = read(descriptor.rawValue, &buffer, buffer.count)
            if count < 0 && errno == EINTR { continue }
            return continuation.resume(returning: Data(buffer[..<max(0, count)]))
          }
        }
      }
      if data.isEmpty { return }
      try await send(data)
    }
  }

  // MARK: - Images and volumes

  private func load(_ stream: TransportStream) async throws {
    guard case .start(let start)? = try await stream.receive(WireImageLoad.self)?.kind else {
      throw StreamError(.invalidArgument, "an image begins with what it is")
    }
    var result = WireImageResult()
    do {
      let archive = AsyncThrowingStream<[UInt8], any Error> {
        while let message = try await stream.receive(WireImageLoad.self) {
          if case .data(let data)? = message.kind { return [UInt8](data) }
        }
        return nil
      }
      let names =
        start.name.isEmpty
        ? try await rooms.images.load(stream: archive).map(\.reference)
        : [try await rooms.images.import(stream: archive, name: start.name).reference]
      result.names = names.map { (try? ImageReference($0))?.familiar ?? $0 }
    } catch let error where !(error is StreamError) && !(error is CancellationError) {
      result.error = "\(error)"
      // Whoever sends does not hear the answer before its end.
      while try await stream.receive(WireImageLoad.self) != nil {}
    }
    try await stream.send(result, end: true)
  }

  private func list() -> WireImageList {
    var list = WireImageList()
    list.images = rooms.images.list().map { image in
      var entry = WireImage()
      entry.name = image.name ?? ""
      entry.id = image.id.description
      entry.digest = image.digest.description
      entry.size = image.size
      entry.createdAt = image.createdAt.nanoseconds
      return entry
    }
    return list
  }
}
