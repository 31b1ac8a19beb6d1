import Bundle
import FoundationEssentials
import Glibc
import LinuxSystem

enum Output {
  static func write(_ bytes: [UInt8]) { try? Files.writeAll(1, bytes, name: "stdout") }
  static func line(_ text: String) { write(Array((text + "\n").utf8)) }
}

/// Messages on stderr, and in the file of --log, which callers read to tell their users why something failed.
enum Log {
  // Set once while the command line is read.
  nonisolated(unsafe) private static var file: (descriptor: Int32, json: Bool)?

  static func open(_ path: String, json: Bool) -> Bool {
    let descriptor = Glibc.open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o644)
    if descriptor >= 0 { file = (descriptor, json) }
    return descriptor >= 0
  }
  static func error(_ message: String) { write("error", message) }
  static func warning(_ message: String) { write("warning", message) }

  private struct Entry: Encodable {
    var level: String
    var msg: String
    var time: String
  }
  private static func write(_ level: String, _ message: String) {
    try? Files.writeAll(2, Array("orch-runtime: \(level == "error" ? "" : level + ": ")\(message)\n".utf8), name: "stderr")
    guard let file else { return }
    let entry = Entry(level: level, msg: message, time: Date.now.ISO8601Format())
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.withoutEscapingSlashes, .sortedKeys]
    let json = String(decoding: (try? encoder.encode(entry)) ?? Data(), as: UTF8.self)
    // As runc's library quotes it: a line a message, whatever is in it.
    let quoted = message.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
    let text = "time=\"\(entry.time)\" level=\(level) msg=\"\(quoted)\""
    try? Files.writeAll(file.descriptor, Array((file.json ? json : text).utf8) + [10], name: "the log")
  }
}
