/// The command line in the one form that the parser takes. runc's (urfave/cli) takes long options with one dash as well, and -v; both runc and crun take
/// `--rootless VALUE` before the command, on which nothing here depends and whose name `spec` has for another option. Flags may have a value: runc's all of Go's
/// (strconv.ParseBool), crun's `exec --tty` any, of which `false` and `no` mean no.
enum Words {
  /// Options with a value after them, long and short; -f and -r are flags of `delete` and `kill`.
  private static let valued: Set<String> = [
    "additional-gids", "apparmor", "blkio-weight", "bundle", "cap", "cgroup", "cgroup-manager", "config", "console-socket", "cpu-burst", "cpu-idle",
    "cpu-period", "cpu-quota", "cpu-rt-period", "cpu-rt-runtime", "cpu-share", "cpuset-cpus", "cpuset-mems", "criu", "cwd", "env", "file", "format",
    "interval", "kernel-memory", "kernel-memory-tcp", "l3-cache-schema", "log", "log-format", "log-level", "mem-bw-schema", "memory",
    "memory-reservation", "memory-swap", "pid-file", "pidfd-socket", "pids-limit", "preserve-fds", "process", "process-label", "resources", "root",
    "user", "b", "c", "e", "f", "g", "p", "r", "u",
  ]
  private static let flags: Set<String> = [
    "all", "debug", "detach", "force", "help", "ignore-paused", "keep", "no-new-keyring", "no-new-privs", "no-pivot", "no-subreaper", "quiet",
    "regex", "stats", "systemd-cgroup", "tty", "version",
  ]
  private static let shortFlags: [String: Set<String>] = [
    "delete": ["f", "r"], "exec": ["d", "t"], "kill": ["a", "r"], "list": ["q"], "run": ["d"],
  ]
  /// After the container's name comes a command line of somebody else's.
  private static let handingOn: Set<String> = ["checkpoint", "exec", "ps", "restore"]

  /// `program`: what follows the container's name in `exec`, apart, since the parser's time grows with the square of its words.
  static func normalized(_ list: [String], commands: Set<String>) -> (words: [String], program: [String]) {
    var words: [String] = []
    var program: [String] = []
    var command: String?
    var index = 0
    func takeRest() {
      var end = list.endIndex
      if command == "exec", let id = list[index...].firstIndex(where: { $0 != "--" }) { end = id + 1 }
      words += list[index..<end]
      program += list[end...]
    }
    while index < list.count {
      let word = list[index]
      guard word.hasPrefix("-"), word != "-" else {
        if let command, handingOn.contains(command) || !commands.contains(command) { takeRest(); break }
        if command == nil { command = word }
        words.append(word)
        index += 1
        continue
      }
      if word == "--" { takeRest(); break }
      let dashes = word.hasPrefix("--") ? 2 : 1
      let name = String(word.dropFirst(dashes).prefix { $0 != "=" })
      let isWhole = !word.contains("=")
      index += 1
      if command == nil, name == "rootless" {
        if isWhole { index += 1 }
        continue
      }
      if command == nil, dashes == 1, name == "v" || name == "V" {
        words.append("--version")
        continue
      }
      if let isOn = Self.isOn(word.dropFirst(dashes), of: command) {
        if isOn { words.append((name.count > 1 ? "--" : "-") + name) }
        continue
      }
      let isLong = name.count > 1 && (valued.contains(name) || flags.contains(name) || name == "rootless")
      words.append(dashes == 1 && isLong ? "-" + word : word)
      let isFlag = name.count == 1 && (command == "delete" || command == "kill")
      if isWhole, valued.contains(name), !isFlag, dashes == 2 || isLong || name.count == 1, index < list.count {
        words.append(list[index])
        index += 1
      }
    }
    return (words, program)
  }

  /// "tty=false", without its dashes; nil: not a flag with a value.
  private static func isOn(_ word: Substring, of command: String?) -> Bool? {
    guard let sign = word.firstIndex(of: "=") else { return nil }
    let (name, value) = (String(word[..<sign]), String(word[word.index(after: sign)...]))
    guard flags.contains(name) || name == "rootless" || (shortFlags[command ?? ""] ?? []).contains(name) else { return nil }
    let isTerminal = command == "exec" && (name == "tty" || name == "t")
    if ["0", "f", "F", "FALSE", "false", "False"].contains(value) || (isTerminal && value == "no") { return false }
    return isTerminal || ["1", "t", "T", "TRUE", "true", "True"].contains(value) ? true : nil
  }

  /// The value of an option before the command, where the parser itself failed.
  static func value(of option: String, in words: [String]) -> String? {
    for (index, word) in words.enumerated() {
      if word == option { return words.indices.contains(index + 1) ? words[index + 1] : nil }
      if word.hasPrefix(option + "=") { return String(word.dropFirst(option.count + 1)) }
      let isValue = index > 0 && words[index - 1].hasPrefix("--") && valued.contains(String(words[index - 1].dropFirst(2)))
      if !word.hasPrefix("-"), !isValue { return nil }
    }
    return nil
  }
}
