import Bundle
import FoundationEssentials
import Glibc
import LinuxSystem

enum Output {
  static func write(_ bytes: [UInt8]) { try? Files.writeAll(1, bytes, name: "stdout") }
  static func line(_ text: String) { write(Array((text + "\n").utf8)) }
  static func error(_ text: String) { try? Files.writeAll(2, Array((text + "\n").utf8), name: "stderr") }
}

/// Messages on stderr, and where --log says, which callers read to tell their users why something failed.
enum Log {
  /// Where messages go as well. A path is a path as with runc, even with a colon in it, but for crun's three words before one.
  private enum Destination {
    case file(Int32, json: Bool)
    case syslog
    /// The field ID of each entry.
    case journal(String)
  }
  enum Level: Int { case error = 3, warning = 4 }  // syslog(3)'s

  // Set once while the command line is read.
  nonisolated(unsafe) private static var destination: Destination?
  nonisolated(unsafe) static var hidesWarnings = false

  static var isOpen: Bool { destination != nil }

  /// A path, file:PATH, syslog:IDENT or journald:ID. False, with errno, when a file cannot be opened.
  static func open(_ text: String, json: Bool) -> Bool {
    if text.hasPrefix("syslog:") {
      let name = String(text.dropFirst("syslog:".count))
      // Kept by the C library.
      openlog(strdup(name.isEmpty ? "orch-runtime" : name), LOG_PID, LOG_USER)
      destination = .syslog
      return true
    }
    if text.hasPrefix("journald:") {
      destination = .journal(String(text.dropFirst("journald:".count)))
      return true
    }
    let path = text.hasPrefix("file:") ? String(text.dropFirst("file:".count)) : text
    let descriptor = Glibc.open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
    if descriptor >= 0 { destination = .file(descriptor, json: json) }
    return descriptor >= 0
  }
  static func error(_ message: String) {
    Output.error("orch-runtime: \(message)")
    keep(.error, message)
  }
  static func warning(_ message: String) {
    if hidesWarnings { return }
    Output.error("orch-runtime: warning: \(message)")
    keep(.warning, message)
  }

  private struct Entry: Encodable {
    var level: String
    var msg: String
    var time: String
  }
  /// In the log alone.
  static func keep(_ level: Level, _ message: String) {
    switch destination {
    case nil: return
    case .file(let descriptor, let json):
      let entry = Entry(level: "\(level)", msg: message, time: Date.now.ISO8601Format())
      try? Files.writeAll(descriptor, (json ? self.json(entry) : text(entry)) + [10], name: "the log")
    case .syslog: message.withCString { text in withVaList([text]) { vsyslog(Int32(level.rawValue), "%s", $0) } }
    case .journal(let id): journal(id, level, message)
    }
  }
  private static func json(_ entry: Entry) -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.withoutEscapingSlashes, .sortedKeys]
    return Array((try? encoder.encode(entry)) ?? Data())
  }
  /// As runc's library quotes it: a line a message, whatever is in it.
  private static func text(_ entry: Entry) -> [UInt8] {
    let quoted = entry.msg.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
    return Array("time=\"\(entry.time)\" level=\(entry.level) msg=\"\(quoted)\"".utf8)
  }
  /// systemd's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): a datagram of NAME=VALUE lines; a value with line ends has its length before it.
  private static func journal(_ id: String, _ level: Level, _ message: String) {
    var bytes = Array("PRIORITY=\(level.rawValue)\nSYSLOG_IDENTIFIER=orch-runtime\nID=\(id.replacing("\n", with: " "))\nMESSAGE\n".utf8)
    withUnsafeBytes(of: UInt64(message.utf8.count).littleEndian) { bytes += $0 }
    bytes += Array(message.utf8) + [10]
    let socket = Glibc.socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    defer { close(socket) }
    _ = try? withUnixAddress("/run/systemd/journal/socket") { sendto(socket, bytes, bytes.count, Int32(MSG_NOSIGNAL), $0, $1) }
  }
}
