import LinuxSystem

/// What the runtime must remember of a container to find it again and to enter it: one file of `key value` lines.
struct StoredContainer: Hashable, Sendable {
  var user = ""
  var groups: [String] = []
  var env: [String] = []
  var cwd = "/"
  var capabilities: UInt64 = 0
  var noNewPrivileges = true
  var unconfined = false
  var stopSignal: Int32 = 15
  var tty = false
  var oomScoreAdj: Int?
  var labels: [String: String] = [:]
  /// Its cgroup's name where that is a stub's and not its id.
  var cgroup: String?
  /// What that is below; nil of a container of an agent that did not write it down.
  var parent: String?

  /// Its ulimits, of every process that `exec` adds, too.
  var limits: [Limit] = []
  struct Limit: Hashable, Sendable {
    /// As setrlimit(2) has it without RLIMIT_, in lower case.
    var name: String
    /// All ones: none.
    var soft: UInt64
    var hard: UInt64
  }

  /// On v1 it is in the hierarchy of cpuset, too.
  var isPinned = false

  var text: String {
    var lines = ["user \(Self.escape(user))", "cwd \(Self.escape(cwd))", "capabilities \(capabilities)", "stop \(stopSignal)"]
    if !noNewPrivileges { lines.append("newprivileges 1") }
    if unconfined { lines.append("unconfined 1") }
    if tty { lines.append("tty 1") }
    if let oomScoreAdj { lines.append("oom \(oomScoreAdj)") }
    if isPinned { lines.append("pinned 1") }
    if let cgroup { lines.append("cgroup \(Self.escape(cgroup))") }
    if let parent { lines.append("parent \(Self.escape(parent))") }
    lines += limits.map { "limit \(Self.escape($0.name)) \($0.soft) \($0.hard)" }
    lines += groups.map { "group \(Self.escape($0))" }
    lines += env.map { "env \(Self.escape($0))" }
    for (key, value) in labels.sorted(by: { $0.key < $1.key }) { lines.append("label \(Self.escape(key)) \(Self.escape(value))") }
    return lines.joined(separator: "\n") + "\n"
  }

  init() {}
  init(text: String) {
    for line in text.utf8.split(separator: 10) {
      let words = String(Substring(line)).split(separator: " ", omittingEmptySubsequences: false).map { Self.unescape($0) }
      guard words.count >= 2 else { continue }
      switch words[0] {
      case "user": user = words[1]
      case "cwd": cwd = words[1]
      case "capabilities": capabilities = UInt64(words[1]) ?? 0
      case "stop": stopSignal = Int32(words[1]) ?? 15
      case "newprivileges": noNewPrivileges = false
      case "unconfined": unconfined = true
      case "tty": tty = true
      case "oom": oomScoreAdj = Int(words[1])
      case "pinned": isPinned = true
      case "cgroup": cgroup = words[1]
      case "parent": parent = words[1]
      case "limit":
        if words.count == 4, let soft = UInt64(words[2]), let hard = UInt64(words[3]) { limits.append(Limit(name: words[1], soft: soft, hard: hard)) }
      case "group": groups.append(words[1])
      case "env": env.append(words[1])
      case "label": if words.count > 2 { labels[words[1]] = words[2] }
      default: break
      }
    }
  }

  /// Space, newline and backslash as backslash and a letter.
  static func escape(_ text: String) -> String {
    var out: [UInt8] = []
    for byte in text.utf8 {
      switch byte {
      case 92: out += [92, 92]
      case 32: out += [92, 115]
      case 10: out += [92, 110]
      case 13: out += [92, 114]
      default: out.append(byte)
      }
    }
    return String(decoding: out, as: UTF8.self)
  }
  static func unescape(_ text: Substring) -> String {
    var out: [UInt8] = []
    var escaped = false
    for byte in text.utf8 {
      if escaped {
        out.append(byte == 115 ? 32 : byte == 110 ? 10 : byte == 114 ? 13 : byte)
        escaped = false
      } else if byte == 92 {
        escaped = true
      } else {
        out.append(byte)
      }
    }
    return String(decoding: out, as: UTF8.self)
  }
}
