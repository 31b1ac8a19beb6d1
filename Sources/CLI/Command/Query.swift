import API
import APIClient
import ArgumentParser
import NIOCore

struct SQL: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "sql", abstract: "Ask the cluster's state in SQL; it reads, and changes nothing.",
    discussion: """
      The language is SQLite's SELECT; the views and their columns are listed by: orch sql "select view, name from columns"

      Example: orch sql "select node, count(*) from tasks group by node"
      Example: orch sql --format csv "select * from nodes" > nodes.csv
      Example: orch sql "select service, error from tasks where state = 'rejected'"
      """)
  enum Format: String, ExpressibleByArgument, CaseIterable { case table, json, csv }
  @OptionGroup var connection: Connection
  @Argument(help: "One SELECT; - reads it from stdin.") var query: String
  @Option(help: "table; json: one object a line; csv: with a header.") var format: Format = .table
  @Option(help: "Seconds after which the statement is stopped, reading its rows included; at most 600.") var timeout = 10.0
  @Flag(help: "Ask this manager's own copy, without the others: perhaps old, but there without a majority.") var stale = false
  @Flag(name: .customLong("no-trunc"), help: "Cut nothing.") var noTruncation = false

  func validate() throws {
    guard timeout > 0, timeout <= 600 else { throw ValidationError("--timeout takes more than 0 and at most 600 seconds") }
  }

  func run() async throws {
    let text = query == "-" ? try Terminal.readFile("-") : query
    let body = try await connection.client().stream(
      "/orch/v1/sql", posting: QueryRequest(query: text, timeout: timeout, stale: stale ? true : nil))
    let kind: QueryPrinter.Format = format == .table ? .table : format == .json ? .json : .csv
    let output = LineBuffer()
    var printer = QueryPrinter(kind, width: noTruncation ? nil : Terminal.width) { output.add($0) }
    for try await part in body {
      try printer.add(part.readableBytesView)
      output.flush()
    }
    try printer.finish()
    output.flush()
  }

  /// Lines that came together are written together.
  private final class LineBuffer {
    private var bytes: [UInt8] = []
    func add(_ line: String) {
      bytes += line.utf8
      bytes.append(10)
      if bytes.count >= 64 << 10 { flush() }
    }
    func flush() {
      Terminal.write(1, bytes)
      bytes.removeAll(keepingCapacity: true)
    }
  }
}
