import API
import Model
import NIOCore
import Surroundings

extension ControlAPI {
  func taskLogs(_ name: String, _ target: Target) async throws -> APIResponse {
    let state = try await backend.state()
    let task = try state.lookUpTask(name)
    let options = try LogOptions(target)
    let format = LogFormat(target, tty: state.spec(of: task)?.taskTemplate.containerSpec.tty ?? false)
    let response = Pipe<ByteBuffer>(capacity: 64)
    let pump = Task {
      await follow(task, options, format, into: response)
      response.finish()
    }
    return stream(response, pump, format)
  }

  /// Without follow the tasks' logs are merged by time; with it they come as they come, new tasks' included.
  func serviceLogs(_ name: String, _ target: Target) async throws -> APIResponse {
    let options = try LogOptions(target)
    let changes = options.follow ? await backend.watch() : nil
    let state = try await backend.state()
    let service = try state.lookUpService(name)
    let format = LogFormat(target, tty: state.spec(of: service)?.taskTemplate.containerSpec.tty ?? false)
    let tasks = state.tasks(of: service.id).filter(\.hasLog).sorted { $0.createdAt < $1.createdAt }
    let response = Pipe<ByteBuffer>(capacity: 64)
    let pump = Task {
      if let changes {
        await followAll(service.id, tasks, changes, options, format, into: response)
      } else {
        await merge(tasks, options, format, into: response)
      }
      response.finish()
    }
    return stream(response, pump, format)
  }

  private func stream(_ response: Pipe<ByteBuffer>, _ pump: Task<Void, Never>, _ format: LogFormat) -> APIResponse {
    let type = format.tty ? "application/vnd.docker.raw-stream" : "application/vnd.docker.multiplexed-stream"
    return APIResponse(status: 200, headers: [APIHeader("Content-Type", type)], body: APIBody(stream: Guarded(response, holding: pump)))
  }

  private func follow(_ task: ClusterTask, _ options: LogOptions, _ format: LogFormat, into response: Pipe<ByteBuffer>) async {
    do {
      for try await record in try await backend.logs(task, options) where options.accepts(record) {
        guard await response.send(format.frame(record, task)) else { return }
      }
    } catch {
      await response.send(format.frame(.failure(task, error), task))
    }
  }

  private func followAll(
    _ service: ServiceID, _ tasks: [ClusterTask], _ changes: AsyncStream<([StateChange], ClusterState)>, _ options: LogOptions,
    _ format: LogFormat, into response: Pipe<ByteBuffer>
  ) async {
    // All of a new task's lines are new.
    var fromItsStart = options
    fromItsStart.tail = nil
    let all = fromItsStart
    await withDiscardingTaskGroup { group in
      var known = Set(tasks.map(\.id))
      for task in tasks { group.addTask { await follow(task, options, format, into: response) } }
      var changes = Self.ending(changes, at: options.until)
      // Afterwards no task is new that has lines to show; agents end the logs of those that there are.
      while !Task.isCancelled, options.until.map({ $0 > .now }) ?? true {
        for await (batch, state) in changes {
          if state.services[service] == nil { return }
          for case .task(_, let task?) in batch where task.service == service && task.hasLog && known.insert(task.id).inserted {
            group.addTask { await follow(task, all, format, into: response) }
          }
        }
        // The watch fell behind, or the manager ends.
        changes = Self.ending(await backend.watch(), at: options.until)
        guard let state = try? await backend.state(), state.services[service] != nil else { return }
        for task in state.tasks(of: service) where task.hasLog && known.insert(task.id).inserted {
          group.addTask { await follow(task, all, format, into: response) }
        }
      }
    }
  }

  /// Ends at that moment, if not before: also when it is not read as fast as things change.
  private static func ending<Element: Sendable>(_ changes: AsyncStream<Element>, at end: Timestamp?) -> AsyncStream<Element> {
    guard let end else { return changes }
    let (stream, continuation) = AsyncStream.makeStream(of: Element.self, bufferingPolicy: .bufferingOldest(256))
    let forwarding = Task {
      for await change in changes { if case .dropped = continuation.yield(change) { break } }
      continuation.finish()
    }
    let timer = Task {
      try? await Task.sleep(for: (end - .now).duration)
      continuation.finish()
    }
    continuation.onTermination = { _ in
      forwarding.cancel()
      timer.cancel()
    }
    return stream
  }

  private func merge(_ tasks: [ClusterTask], _ options: LogOptions, _ format: LogFormat, into response: Pipe<ByteBuffer>) async {
    struct Source {
      let task: ClusterTask
      var iterator: AsyncThrowingStream<LogRecord, any Error>.Iterator
      var head: LogRecord
    }
    var sources: [Source] = []
    for task in tasks {
      do {
        var iterator = try await backend.logs(task, options).makeAsyncIterator()
        if let head = try await iterator.next() { sources.append(Source(task: task, iterator: iterator, head: head)) }
      } catch {
        guard await response.send(format.frame(.failure(task, error), task)) else { return }
      }
    }
    while let first = sources.indices.min(by: { sources[$0].head.timestamp < sources[$1].head.timestamp }) {
      let task = sources[first].task
      let record = sources[first].head
      if options.accepts(record) { guard await response.send(format.frame(record, task)) else { return } }
      do {
        if let next = try await sources[first].iterator.next() { sources[first].head = next } else { sources.remove(at: first) }
      } catch {
        sources.remove(at: first)
        guard await response.send(format.frame(.failure(task, error), task)) else { return }
      }
    }
  }
}

extension LogOptions {
  init(_ target: Target) throws {
    self.init()
    stdout = target.flag("stdout")
    stderr = target.flag("stderr")
    guard stdout || stderr else { throw APIError(400, "Bad parameters: you must choose at least one stream") }
    follow = target.flag("follow")
    since = try target.instant("since")
    until = try target.instant("until")
    if let text = target["tail"], !text.isEmpty, text != "all" {
      // Docker takes what is no number, or negative, for all.
      if let count = Int(text), count >= 0 { tail = count }
    }
  }

  func accepts(_ record: LogRecord) -> Bool {
    (record.stream == .stdout ? stdout : stderr) && since.map { record.timestamp >= $0 } ?? true && until.map { record.timestamp <= $0 } ?? true
  }
}

extension ClusterTask {
  /// One that has, or had, a container.
  fileprivate var hasLog: Bool { node != nil && status.containerID != nil }
}

extension LogRecord {
  /// A host that cannot give its logs is told of in their place; the others' go on.
  fileprivate static func failure(_ task: ClusterTask, _ error: any Error) -> LogRecord {
    LogRecord(stream: .stderr, timestamp: .now, bytes: Array("orch: the log of task \(task.id) cannot be read: \(error)\n".utf8))
  }
}

/// A record as Docker's API writes it: `[timestamp ][details ]line` in a frame, or raw with a TTY.
struct LogFormat: Sendable {
  var timestamps: Bool
  var details: Bool
  var tty: Bool

  init(_ target: Target, tty: Bool) {
    self.tty = tty
    timestamps = target.flag("timestamps")
    details = target.flag("details")
  }

  func frame(_ record: LogRecord, _ task: ClusterTask) -> ByteBuffer {
    var prefix = ""
    if timestamps { prefix += record.timestamp.withNineDecimals + " " }
    if details {
      prefix +=
        "com.docker.swarm.node.id=\(task.node?.description ?? ""),com.docker.swarm.service.id=\(task.service),com.docker.swarm.task.id=\(task.id) "
    }
    var buffer = ByteBuffer()
    let length = prefix.utf8.count + record.bytes.count
    if !tty { buffer.writeBytes(StreamFrame.header(record.stream == .stdout ? .stdout : .stderr, length: length)) }
    buffer.writeString(prefix)
    buffer.writeBytes(record.bytes)
    return buffer
  }
}
