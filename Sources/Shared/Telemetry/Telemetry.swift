// Telemetry: what daemons say about themselves. Log lines go to stderr (journald or a file takes them), one line an event, one write a line.
//
// Invariants: a line is never split by another's; what is not logged costs no formatting. Refuses to know: what is worth saying.

import Glibc
import Logging

public enum Telemetry {
  /// Once per process, first thing. `level` (--log-level) wins over the variable ORCH_LOG; otherwise `info`. Throws for a word that is no level.
  public static func bootstrap(level: String? = nil) throws(LevelError) {
    let text = level ?? getenv("ORCH_LOG").map { String(cString: $0) }
    var chosen = Logger.Level.info
    if let text, !text.isEmpty {
      guard let level = Logger.Level(rawValue: text.lowercased()) else { throw LevelError(text: text) }
      chosen = level
    }
    let level = chosen
    LoggingSystem.bootstrap { StderrHandler(label: $0, level: level) }
  }

  public struct LevelError: Error, Sendable, CustomStringConvertible {
    public let text: String
    public var description: String {
      "log level \(text): not one of \(Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")) (--log-level, ORCH_LOG)"
    }
  }
}

/// `2026-11-21T12:00:00.123Z info raft: became leader term=3`
struct StderrHandler: LogHandler {
  let label: String
  var logLevel: Logger.Level
  var metadata: Logger.Metadata = [:]

  init(label: String, level: Logger.Level) {
    self.label = label
    logLevel = level
  }

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    let line = Self.line(
      seconds: time.tv_sec, milliseconds: time.tv_nsec / 1_000_000, level: event.level, label: label, message: "\(event.message)",
      metadata: metadata.merging(event.metadata ?? [:]) { $1 })
    var bytes = Array(line.utf8)
    // Beyond PIPE_BUF a write may be mixed with another process's; nothing that is said is that long on purpose.
    _ = bytes.withUnsafeMutableBytes { Glibc.write(2, $0.baseAddress, $0.count) }
  }

  static func line(
    seconds: Int, milliseconds: Int, level: Logger.Level, label: String, message: String, metadata: Logger.Metadata
  ) -> String {
    var instant = seconds
    var fields = tm()
    gmtime_r(&instant, &fields)
    func pad(_ value: Int, _ width: Int) -> String { String(repeating: "0", count: max(0, width - "\(value)".count)) + "\(value)" }
    var line = "\(pad(Int(fields.tm_year) + 1900, 4))-\(pad(Int(fields.tm_mon) + 1, 2))-\(pad(Int(fields.tm_mday), 2))T"
    line += "\(pad(Int(fields.tm_hour), 2)):\(pad(Int(fields.tm_min), 2)):\(pad(Int(fields.tm_sec), 2)).\(pad(milliseconds, 3))Z"
    line += " \(level.rawValue) \(label): \(clean(message))"
    for (key, value) in metadata.sorted(by: { $0.key < $1.key }) {
      let text = clean("\(value)")
      line += text.contains(" ") || text.isEmpty ? " \(key)=\"\(text)\"" : " \(key)=\(text)"
    }
    return line + "\n"
  }

  /// What others sent may be in a message: it cannot begin a line of its own.
  private static func clean(_ text: String) -> String {
    guard text.utf8.contains(where: { $0 < 32 }) else { return text }
    return String(text.unicodeScalars.map { $0.value < 32 ? " " : Character($0) })
  }
}
