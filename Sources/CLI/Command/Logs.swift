import API
import APIClient
import ArgumentParser
import Model
import Surroundings

struct Logs: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show what a service's tasks, or one task, wrote; each line with its task's name.",
    discussion: "Example: orch logs -f --tail 10 web\nExample: orch logs web.2 --since 1h --until 50m")
  @OptionGroup var connection: Connection
  @Argument(help: "A service, or a task (name or id).") var name: String
  @Flag(name: .shortAndLong, help: "Go on with what comes.") var follow = false
  @Option(name: [.customShort("n"), .long], help: ArgumentHelp("The last lines of each task only.", valueName: "count")) var tail: String = "all"
  @Option(help: ArgumentHelp("Since a time (2026-01-31T12:00:00Z, or seconds since 1970) or a span before now (10m).", valueName: "time"))
  var since: String?
  @Option(help: ArgumentHelp("Up to such a time, from which --tail counts back and with which --follow ends.", valueName: "time")) var until: String?
  @Flag(name: .shortAndLong, help: "Show when each line was written.") var timestamps = false
  @Flag(name: .customLong("no-task-ids"), help: "Show the lines without their task's name.") var bare = false

  func run() async throws {
    let client = try connection.client()
    guard tail == "all" || Int(tail).map({ $0 >= 0 }) == true else { throw ValidationError("--tail \(tail): give a number of lines or all") }
    var query: APIClient.Query = [("stdout", "1"), ("stderr", "1"), ("details", "1"), ("tail", tail)]
    if follow { query.append(("follow", "1")) }
    if timestamps { query.append(("timestamps", "1")) }
    if let since { query.append(("since", try moment("--since", since))) }
    if let until { query.append(("until", try moment("--until", until))) }
    var names = try await Names(client)
    let path: String
    let isTTY: Bool
    do {
      let service = try await client.get("/services/\(percentEncoded(name))", as: ServiceInspect.self)
      path = "/services/\(service.id)/logs"
      isTTY = service.spec.taskTemplate.containerSpec.tty == true
    } catch let error as ClientError where error.status == 404 {
      let task: TaskInspect
      do { task = try await client.get("/tasks/\(percentEncoded(name))") } catch let error as ClientError where error.status == 404 {
        throw ClientError.broken("no service and no task is called \(name): see orch services and orch ps")
      }
      path = "/tasks/\(task.id)/logs"
      isTTY = task.spec.containerSpec.tty == true
    }
    let body = try await client.stream(path, query)
    if isTTY {
      for try await part in body { Terminal.write(1, Array(part.readableBytesView)) }
      return
    }
    var parser = StreamFrame.Parser()
    for try await part in body {
      parser.append(part.readableBytesView)
      while let frame = try parser.next() {
        let descriptor: Int32 = frame.kind == .stderr ? 2 : 1
        Terminal.write(descriptor, try await line(frame.payload, &names))
      }
    }
  }

  /// `[timestamp ]details text` to `[timestamp ]name | text`.
  private func line(_ payload: [UInt8], _ names: inout Names) async throws -> [UInt8] {
    let parts = payload.split(separator: 32, maxSplits: timestamps ? 2 : 1, omittingEmptySubsequences: false)
    guard parts.count == (timestamps ? 3 : 2) else { return payload }
    let details = String(decoding: parts[timestamps ? 1 : 0], as: UTF8.self)
    var text = Array(parts[timestamps ? 2 : 1])
    if text.last != 10 { text.append(10) }
    let stamp = timestamps ? Array(parts[0]) + [32] : []
    if bare { return stamp + text }
    let id = details.split(separator: ",").first { $0.hasPrefix("com.docker.swarm.task.id=") }.map {
      String($0.dropFirst("com.docker.swarm.task.id=".count))
    }
    let title = try await names.title(ofTask: id ?? "")
    return Array((title + String(repeating: " ", count: max(0, names.width - title.count)) + " | ").utf8) + stamp + text
  }

  private func moment(_ option: String, _ text: String) throws -> String {
    if let moment = parseMoment(text, now: .now) { return moment }
    throw ValidationError("\(option) \(text): give a time like 2026-01-31T12:00:00Z, seconds since 1970, or a span before now like 10m")
  }

  /// Names of tasks, asked for once each.
  private struct Names {
    let client: APIClient
    var services: [String: String] = [:]
    var nodes: [String: String] = [:]
    var titles: [String: String] = [:]
    /// Of the widest name so far: the lines stay in columns.
    var width = 0

    init(_ client: APIClient) async throws {
      self.client = client
      for service in try await client.get("/services", as: [ServiceInspect].self) { services[service.id] = service.spec.name }
      for node in try await client.get("/nodes", as: [NodeInspect].self) { nodes[node.id] = node.hostname }
    }

    mutating func title(ofTask id: String) async throws -> String {
      if let known = titles[id] { return known }
      var title = String(id.prefix(12))
      if let task = try? await client.get("/tasks/\(id)", as: TaskInspect.self) {
        let host = task.nodeID.map { nodes[$0] ?? String($0.prefix(12)) }
        title = (services[task.serviceID] ?? String(task.serviceID.prefix(12))) + (task.slot.map { ".\($0)" } ?? "") + (host.map { "@\($0)" } ?? "")
      }
      titles[id] = title
      width = max(width, title.count)
      return title
    }
  }
}
