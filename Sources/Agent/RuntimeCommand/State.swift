import ArgumentParser
import Bundle
import DurationText
import FoundationEssentials
import Glibc
import Launch
import LinuxSystem
import OCI

struct StateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "state", abstract: "Print a container's state as JSON.")
  @ParentCommand var parent: OrchRuntime
  @Argument var id: String
  func run() throws { Output.write(Document.write(try parent.bundles().state(id), pretty: true)) }
}

enum TableFormat: String, ExpressibleByArgument { case table, json }

struct ListCommand: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "list", abstract: "List containers.")
  @ParentCommand var parent: OrchRuntime
  @Option(name: .shortAndLong, help: "table or json.") var format: TableFormat = .table
  @Flag(name: .shortAndLong, help: "Ids alone.") var quiet = false
  func run() throws {
    let states = parent.bundles().list()
    if quiet { return states.forEach { Output.line($0.id) } }
    if format == .json { return Output.write(Document.write(states) + [10]) }
    let rows =
      [["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]]
      + states.map {
        [$0.id, "\($0.pid)", $0.status.rawValue, $0.bundle, $0.created ?? "", $0.owner ?? ""]
      }
    let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
    for row in rows {
      let cells = zip(row, widths).map { $0 + String(repeating: " ", count: max(0, $1 - $0.count)) }
      Output.line(cells.joined(separator: "   ").trimmingSuffix { $0 == " " })
    }
  }
}

struct Kill: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "kill", abstract: "Send a signal to a container's first process.")
  @ParentCommand var parent: OrchRuntime
  @Flag(name: .shortAndLong, help: "To every process of the container.") var all = false
  @Flag(name: .shortAndLong, help: Matching.help) var regex = false
  @Argument var id: String
  @Argument(help: "KILL, SIGTERM or a number; 0 asks whether there is a process.") var signal = "SIGTERM"
  func run() throws {
    guard let number = signal == "0" ? 0 : SignalName.number(signal) else { throw BundleError("unknown signal \"\(signal)\"") }
    let bundles = parent.bundles()
    guard regex else { return try bundles.kill(id, number, all: all) }
    try Matching.each(of: id, bundles) { try bundles.kill($0, number, all: all) }
  }
}

/// Containers by a regular expression.
private enum Matching {
  static let help: ArgumentHelp = "ID is an extended regular expression (regex(7)): every container whose id it finds something in."

  /// One that fails keeps no other from its turn; the first failure is thrown.
  static func each(of text: String, _ bundles: Bundles, _ body: (String) throws -> Void) throws {
    var pattern = regex_t()
    guard regcomp(&pattern, text, REG_EXTENDED | REG_NOSUB) == 0 else { throw BundleError("--regex \(text): is no regular expression") }
    defer { regfree(&pattern) }
    var failed: (any Error)?
    for state in bundles.list() where regexec(&pattern, state.id, 0, nil, 0) == 0 {
      do { try body(state.id) } catch { failed = failed ?? error }
    }
    if let failed { throw failed }
  }
}

struct Delete: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "delete", abstract: "Remove a stopped container.")
  @ParentCommand var parent: OrchRuntime
  @Flag(name: .shortAndLong, help: "Kill it first where it runs; fine when there is none.") var force = false
  @Flag(name: .shortAndLong, help: Matching.help) var regex = false
  @Argument var id: String
  func run() throws {
    let bundles = parent.bundles()
    guard regex else { return try delete(id, bundles) }
    try Matching.each(of: id, bundles) { try delete($0, bundles) }
  }
  private func delete(_ id: String, _ bundles: Bundles) throws { for warning in try bundles.delete(id, force: force) { Log.warning(warning) } }
}

struct Pause: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "pause", abstract: "Stop every process of a container until resume.")
  @ParentCommand var parent: OrchRuntime
  @Argument var id: String
  func run() throws { try parent.bundles().pause(id) }
}

struct Resume: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "resume", abstract: "Let a paused container go on.")
  @ParentCommand var parent: OrchRuntime
  @Argument var id: String
  func run() throws { try parent.bundles().resume(id) }
}

struct Ps: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "ps", abstract: "Show the processes of a container.")
  @ParentCommand var parent: OrchRuntime
  @Option(name: .shortAndLong, help: "table (by ps) or json (process ids).") var format: TableFormat = .table
  @Argument var id: String
  @Argument(parsing: .captureForPassthrough, help: "Arguments of ps; -ef when there are none.") var options: [String] = []
  func run() throws {
    let pids = try parent.bundles().processes(id)
    if format == .json { return Output.write(Document.write(pids) + [10]) }
    let text = try Programs.output("ps", options.isEmpty ? ["-ef"] : options)
    let lines = text.split(separator: "\n")
    guard let header = lines.first, let column = header.split(separator: " ").firstIndex(of: "PID") else {
      throw BundleError("ps prints no column PID with \(options.joined(separator: " "))")
    }
    Output.line(String(header))
    for line in lines.dropFirst() {
      let fields = line.split(separator: " ")
      if fields.indices.contains(column), let pid = Int32(fields[column]), pids.contains(pid) { Output.line(String(line)) }
    }
  }
}

struct Events: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "events", abstract: "Print OOM kills and usage as JSON, a line each.")
  @ParentCommand var parent: OrchRuntime
  @Flag(help: "Print usage once.") var stats = false
  @Option(help: "Between two lines of usage, as in 5s, 500ms or 1m30s.") var interval = "5s"
  @Argument var id: String
  func run() throws {
    let bundles = parent.bundles()
    if stats { return Output.write(Document.write(try bundles.usage(id)) + [10]) }
    guard let time = Self.duration(interval), time > .zero else {
      throw BundleError("--interval \(interval): a time above zero, as in 5s, 500ms or 1m30s")
    }
    try bundles.events(id, every: time) { Output.write(Document.write($0) + [10]) }
  }
}

extension Events {
  /// As runc reads it; a number alone is of seconds. At most 31 years. nil: not a time.
  static func duration(_ text: String) -> Duration? {
    let isNumber = !text.isEmpty && text.allSatisfy { $0.isASCII && ($0.isNumber || $0 == ".") }
    guard let nanoseconds = DurationText.nanoseconds(isNumber ? text + "s" : text), nanoseconds < 1_000_000_000 * 1_000_000_000 else { return nil }
    return .nanoseconds(nanoseconds)
  }
}

extension String {
  fileprivate func trimmingSuffix(_ isTrimmed: (Character) -> Bool) -> String {
    var text = self
    while let last = text.last, isTrimmed(last) { text.removeLast() }
    return text
  }
}
