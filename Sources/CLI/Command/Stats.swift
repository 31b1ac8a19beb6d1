import API
import APIClient
import ArgumentParser
import Model

struct Stats: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show what running tasks use: CPU, memory, network, disk, processes.",
    discussion: """
      Without names: all tasks of all ready hosts. Goes on each second until Ctrl-C, unless --no-stream. CPU is of one CPU: two busy ones are 200%.
      BLOCK I/O is read / written on block devices; NET I/O is received / sent, -- in the host's network.

      Example: orch stats web
      Example: orch stats --no-stream --format json
      """)
  @OptionGroup var connection: Connection
  @Argument(help: "Tasks or services; none: all.") var names: [String] = []
  @Flag(name: .customLong("no-stream"), help: "Show it once.") var once = false
  @Option(help: "table, or json: one object a line with docker's keys.") var format: Format = .table
  @Flag(name: .customLong("no-trunc"), help: "Cut nothing.") var noTruncation = false

  func run() async throws {
    let client = try connection.client()
    let query: APIClient.Query = names.map { ("task", $0) } + (once ? [] : [("stream", "1")])
    let body = try await client.stream("/orch/v1/stats", query)
    let screen = Screen(stats: self)
    var lines = Lines()
    for try await part in body {
      for line in lines.add(part.readableBytesView) { await screen.take(try JSONText.decode(HostStatistics.self, Array(line))) }
    }
    await screen.draw()
    if await screen.failed { throw ExitCode(1) }
    if !once { throw ClientError.broken("the manager ended the stream: \(names.isEmpty ? "ask again" : "none of these tasks runs, or ask again")") }
  }

  /// The newest of each host. Hosts tell at their own time within each second: one drawing a second has what came from all.
  private actor Screen {
    let stats: Stats
    private var hosts: [String: HostStatistics] = [:]
    private var drawing: Task<Void, Never>?
    private(set) var failed = false

    init(stats: Stats) { self.stats = stats }

    func take(_ host: HostStatistics) {
      if let error = host.error {
        failed = true
        hosts[host.nodeID] = nil
        return Terminal.warn("orch: \(host.host): \(error)")
      }
      hosts[host.nodeID] = host
      guard !stats.once, drawing == nil else { return }
      drawing = Task {
        try? await Task.sleep(for: .milliseconds(200))
        drawing = nil
        draw()
      }
    }

    func draw() {
      drawing?.cancel()
      let table = stats.table(Array(hosts.values))
      if stats.format == .json { return Terminal.print(table.jsonLines.joined(separator: "\n")) }
      let lines = table.lines(width: stats.noTruncation ? nil : Terminal.width)
      // To the upper left corner, and nothing below what is written.
      Terminal.print((!stats.once && Terminal.isInteractive ? "\u{1B}[H\u{1B}[J" : "") + lines.joined(separator: "\n"))
    }
  }

  func table(_ hosts: [HostStatistics]) -> Table {
    var table = Table([
      .init("ID", "ID"), .init("Container", nil), .init("Name", "NAME", flexible: true), .init("Node", "NODE"), .init("CPUPerc", "CPU %"),
      .init("MemUsage", "MEM USAGE / LIMIT"), .init("MemPerc", "MEM %"), .init("NetIO", "NET I/O"), .init("BlockIO", "BLOCK I/O"),
      .init("PIDs", "PIDS"), .init("OOMKills", nil), .init("Pressure", nil),
    ])
    let tasks = hosts.flatMap { host in host.tasks.map { (host.host, $0) } }.sorted { ($0.1.name, $0.1.id) < ($1.1.name, $1.1.id) }
    for (host, task) in tasks {
      // Without the task's id, which has a column.
      let name = noTruncation || !task.name.hasSuffix("." + task.id) ? task.name : String(task.name.dropLast(task.id.count + 1))
      let memory = task.memoryLimit > 0 ? 100 * Double(task.memory) / Double(task.memoryLimit) : 0
      let pressure = task.pressure.sorted { $0.key < $1.key }.map { "\($0.key)=\(humanPercent($0.value.some10))/\(humanPercent($0.value.full10))" }
      table.add([
        noTruncation ? task.id : String(task.id.prefix(12)), task.id, name, host, humanPercent(task.cpuPercent),
        "\(humanBinarySize(task.memory)) / \(humanBinarySize(task.memoryLimit))", humanPercent(memory),
        task.receivedBytes == 0 && task.sentBytes == 0
          ? "--" : "\(humanSize(Int64(clamping: task.receivedBytes))) / \(humanSize(Int64(clamping: task.sentBytes)))",
        "\(humanSize(task.readBytes)) / \(humanSize(task.writtenBytes))", "\(task.pids)", "\(task.oomKills)", pressure.joined(separator: " "),
      ])
    }
    return table
  }
}
