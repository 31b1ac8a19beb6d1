import API
import Model
import NIOCore

extension ControlAPI {
  /// `POST /orch/v1/tasks/{id}/kill?signal=INT`: its container's first process gets the signal; SIGKILL without one. 409: it has no container now.
  func signalTask(_ name: String, _ target: Target) async throws -> APIResponse {
    let state = try await backend.state()
    let task = try state.lookUpTask(name)
    guard let node = task.node, task.status.state == .running || task.status.state == .starting else {
      throw APIError(409, "task \(state.title(of: task)) is not running: it is \(task.status.state)")
    }
    let signal = target["signal"].flatMap { $0.isEmpty ? nil : $0 } ?? "KILL"
    guard signal.utf8.allSatisfy({ (48...57).contains($0) || (65...90).contains($0) || (97...122).contains($0) || $0 == 43 || $0 == 45 }) else {
      throw APIError(400, "'\(signal)' is no signal")
    }
    return try await backend.ask(
      APIRequest(method: "POST", uri: "/tasks/\(task.id)/kill?signal=\(signal.replacing("+", with: "%2B"))"), on: node)
  }

  /// Full duplex on one request: the body brings frames (start, stdin, resize, endOfInput, detach), the answer carries frames (stdout,
  /// stderr, exit) while the body is still open. The client closes its body after the exit frame; a body that ends before means
  /// that the client is gone.
  func exec(_ name: String, _ request: APIRequest) async throws -> APIResponse {
    let state = try await backend.state()
    let task = try state.lookUpTask(name)
    // One whose health check is waited for has a container too: to look into it is what one wants then.
    let hasContainer = task.status.state == .running || task.status.state == .starting && task.status.health != nil
    guard hasContainer, task.node != nil else {
      let why = task.status.error.isEmpty ? task.status.message : task.status.error
      throw APIError(409, "task \(state.title(of: task)) is not running: it is \(task.status.state)" + (why.isEmpty ? "" : " (\(why))"))
    }
    var frames = FrameReader(request.body)
    guard let first = try await frames.next(), first.kind == .start else {
      throw APIError(400, "an exec's request begins with a start frame (see docs of /orch/v1/tasks/{id}/exec)")
    }
    let start = try JSON.parse(ExecStart.self, first.payload)
    let attach = start.attach ?? false
    if start.command.isEmpty, !attach { throw APIError(400, "No exec command specified") }
    let input = Pipe<ExecInput>(capacity: 16)
    let run = ExecRequest(
      command: start.command, env: start.env ?? [], user: start.user ?? "",
      workingDir: start.workingDir ?? "", tty: start.tty,
      stdin: start.stdin, size: start.size.map { .init(rows: $0.rows, columns: $0.columns) },
      attach: attach,
      detach: start.detach ?? false)
    let output = try await backend.exec(task, run, input: input)
    let reader = frames
    let response = Pipe<ByteBuffer>(capacity: 16)
    let pump = Task {
      enum Part { case request, output, patience }
      await withTaskGroup(of: Part.self) { group in
        group.addTask {
          // Read to its end even when the process wants no more: a connection closed with unread bytes loses what was answered.
          var reader = reader
          do {
            while let frame = try await reader.next() {
              if input.isFull { await Self.probing(response) { await input.deliver(frame) } } else { await input.deliver(frame) }
            }
          } catch {}
          input.finish()
          return .request
        }
        group.addTask {
          do {
            for try await part in output {
              guard await response.send(ByteBuffer(bytes: StreamFrame(part).bytes)) else { break }
              if case .exit = part { break }
            }
          } catch {
            await response.send(ByteBuffer(bytes: StreamFrame(.systemError, Array("\(error)".utf8)).bytes))
          }
          input.cancel()
          return .output
        }
        var requestOpen = true
        while let part = await group.next() {
          if part == .request { requestOpen = false } else { break }
        }
        // The client ends its request when it has read the exit; one that does not is not waited for long.
        if requestOpen {
          group.addTask {
            try? await Task.sleep(for: .seconds(2))
            return .patience
          }
          _ = await group.next()
        }
        response.finish()
        group.cancelAll()
      }
    }
    return APIResponse(
      status: 200, headers: [APIHeader("Content-Type", "application/vnd.orch.exec-stream"), APIHeader("Connection", "close")],
      body: APIBody(stream: Guarded(response, holding: pump)))
  }
}

extension ControlAPI {
  /// A client that was killed is not heard of by TCP while nobody takes what it sent: its FIN waits behind that (RFC 9293 3.10.4), for minutes.
  /// What is written to it its host answers with a reset (RFC 1122 4.2.2.13): so as long as its input is stuck, output of no bytes.
  fileprivate static func probing(_ response: Pipe<ByteBuffer>, while body: @escaping @Sendable () async -> Void) async {
    await withTaskGroup(of: Void.self) { group in
      group.addTask { await body() }
      group.addTask {
        while (try? await Task.sleep(for: .seconds(1))) != nil { await response.send(ByteBuffer(bytes: StreamFrame(.stdout, []).bytes)) }
      }
      await group.next()
      group.cancelAll()
    }
  }
}

extension Pipe where Element == ExecInput {
  @discardableResult
  fileprivate func deliver(_ frame: StreamFrame) async -> Bool {
    switch frame.kind {
    case .stdin: return await send(.stdin(frame.payload))
    case .endOfInput: return await send(.endOfInput)
    case .detach: return await send(.detach)
    case .resize where frame.payload.count == 4:
      let numbers = frame.payload.map { UInt16($0) }
      return await send(.resize(.init(rows: numbers[0] << 8 | numbers[1], columns: numbers[2] << 8 | numbers[3])))
    default: return true
    }
  }
}

extension StreamFrame {
  fileprivate init(_ output: ExecOutput) {
    switch output {
    case .stdout(let bytes): self.init(.stdout, bytes)
    case .stderr(let bytes): self.init(.stderr, bytes)
    case .exit(let code): self.init(.exit, JSON.encode(ExecExit(exitCode: code)))
    }
  }
}

/// Frames out of a body.
struct FrameReader: @unchecked Sendable {
  // Handed from the request's task to the pump once: never used by both.
  private var iterator: APIBody.Iterator
  private var parser = StreamFrame.Parser()
  init(_ body: APIBody) { iterator = body.makeAsyncIterator() }

  mutating func next() async throws -> StreamFrame? {
    while true {
      if let frame = try parser.next() { return frame }
      guard let part = try await iterator.next() else { return nil }
      parser.append(part.readableBytesView)
    }
  }
}

/// A stream that ends the Swift task that feeds it when its reader is done or gone.
struct Guarded: AsyncSequence, Sendable {
  typealias Element = ByteBuffer
  final class Holder: Sendable {
    let pipe: Pipe<ByteBuffer>
    let task: Task<Void, Never>
    init(_ pipe: Pipe<ByteBuffer>, _ task: Task<Void, Never>) {
      self.pipe = pipe
      self.task = task
    }
    func end() {
      pipe.cancel()
      task.cancel()
    }
    deinit { end() }
  }
  let holder: Holder
  init(_ pipe: Pipe<ByteBuffer>, holding task: Task<Void, Never>) { holder = Holder(pipe, task) }

  struct Iterator: AsyncIteratorProtocol {
    let holder: Holder
    mutating func next() async throws -> ByteBuffer? {
      do {
        let part = try await holder.pipe.next()
        if part == nil {
          holder.end()
          // That task may be reading the request's body: the connection's next reader must not meet it there.
          await holder.task.value
        }
        return part
      } catch {
        holder.end()
        await holder.task.value
        throw error
      }
    }
  }
  func makeAsyncIterator() -> Iterator { Iterator(holder: holder) }
}
