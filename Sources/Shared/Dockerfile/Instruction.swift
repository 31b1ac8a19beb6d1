import DurationText

/// One instruction, read but not expanded: what variables are is known only when its turn comes.
public struct Instruction: Hashable, Sendable {
  /// As the user wrote it, on one line; what a build shows.
  public var text: String
  public var line: Int
  public var kind: Kind

  public enum Kind: Hashable, Sendable {
    case from(From)
    case run(Run)
    /// ADD is a COPY that unpacks local archives.
    case copy(Copy)
    case env([Pair])
    case label([Pair])
    case arg([Dockerfile.Argument])
    case workdir(String)
    case user(String)
    case expose([String])
    case volume([String])
    case cmd(Command)
    case entrypoint(Command)
    case healthcheck(Health?)
    case shell([String])
    case stopSignal(String)
    /// The text of an instruction, for builds on top of this image.
    case onbuild(String)
    case maintainer(String)
  }

  public struct Pair: Hashable, Sendable {
    public var name: String
    public var value: String
  }
  public enum Command: Hashable, Sendable {
    case shell(String)
    case exec([String])
  }
  public struct Run: Hashable, Sendable {
    public var command: Command
    public var heredocs: [Heredoc]
    public var mounts: [RunMount] = []
    public var network: Network = .standard
    public enum Network: String, Hashable, Sendable { case standard = "default", none, host }
  }
  public struct Copy: Hashable, Sendable {
    public var sources: [String]
    public var target: String
    /// Files written here, in place of sources.
    public var heredocs: [Heredoc]
    public var from: String?
    public var owner: String?
    public var mode: String?
    /// ADD.
    public var unpacks: Bool
    /// What of the sources is left out, as a .dockerignore's lines.
    public var excludes: [String] = []
    /// Folders above the sources come too, from a `/./` on.
    public var parents = false
    /// Of a URL's content.
    public var checksum: String?
  }
  public struct Health: Hashable, Sendable {
    public var command: Command
    /// Nanoseconds; nil: as the runtime has it.
    public var interval: Int64?
    public var timeout: Int64?
    public var startPeriod: Int64?
    public var startInterval: Int64?
    public var retries: Int?
  }

  /// One instruction from its text, such as that of an image's ONBUILD.
  public init(onbuild text: String, line: Int) throws(DockerfileError) {
    let lines: LogicalLines
    do throws(DockerfileError) { lines = try LogicalLines(text) } catch { throw DockerfileError(line, "ONBUILD \(text): \(error.message)") }
    guard lines.lines.count == 1, var logical = lines.lines.first else { throw DockerfileError(line, "ONBUILD '\(text)' is no instruction") }
    logical.number = line
    try self.init(logical, escape: "\\")
    if case .from = kind { throw DockerfileError(line, "ONBUILD may not hold FROM") }
  }

  init(_ logical: LogicalLine, escape: Character) throws(DockerfileError) {
    line = logical.number
    text = logical.keyword + (logical.rest.isEmpty ? "" : " " + logical.rest)
    kind = try InstructionReader(line: logical, words: Words(escape: escape)).kind()
  }
}

private struct InstructionReader {
  var line: LogicalLine
  var words: Words

  func fail(_ message: String) -> DockerfileError { DockerfileError(line.number, message) }

  func kind() throws(DockerfileError) -> Instruction.Kind {
    if line.rest.isEmpty { throw fail("\(line.keyword) needs an argument") }
    switch line.keyword {
    case "FROM": return .from(try from())
    case "RUN": return .run(try run())
    case "COPY", "ADD": return .copy(try copy())
    case "ENV": return .env(try pairs())
    case "LABEL": return .label(try pairs())
    case "ARG": return .arg(try arguments())
    case "WORKDIR": return .workdir(line.rest)
    case "USER": return .user(line.rest)
    case "EXPOSE": return .expose(words.split(line.rest))
    case "VOLUME":
      let paths = Words.jsonArray(line.rest) ?? words.split(line.rest)
      if paths.isEmpty || paths.contains(where: \.isEmpty) { throw fail("VOLUME needs paths") }
      return .volume(paths)
    case "CMD": return .cmd(command(line.rest))
    case "ENTRYPOINT": return .entrypoint(command(line.rest))
    case "HEALTHCHECK": return .healthcheck(try health())
    case "SHELL":
      guard let shell = Words.jsonArray(line.rest), !shell.isEmpty else {
        throw fail("SHELL takes a JSON array, such as [\"/bin/bash\", \"-c\"]")
      }
      return .shell(shell)
    case "STOPSIGNAL": return .stopSignal(line.rest)
    case "ONBUILD": return .onbuild(try onbuild())
    case "MAINTAINER": return .maintainer(line.rest)
    default: throw fail("'\(line.keyword)' is no instruction of a Dockerfile")
    }
  }

  private func command(_ text: String) -> Instruction.Command { Words.jsonArray(text).map { .exec($0) } ?? .shell(text) }

  /// Leading `--name=value` words, and the rest.
  private func flags() -> (flags: [(name: String, value: String?)], rest: String) {
    var rest = Substring(line.rest)
    var flags: [(name: String, value: String?)] = []
    while rest.hasPrefix("--") {
      // Quotes and escapes hold a flag's value together.
      let word = words.split(String(rest)).first ?? ""
      if word == "--" {
        rest = rest.dropFirst(2)
        break
      }
      let pair = word.dropFirst(2).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      flags.append((String(pair[0]), pair.count == 2 ? String(pair[1]) : nil))
      rest = LogicalLines.trim(rest.dropFirst(word.count))
    }
    return (flags, String(LogicalLines.trim(rest)))
  }

  private func from() throws(DockerfileError) -> From {
    let (flags, rest) = flags()
    var from = From(image: "")
    for flag in flags {
      guard flag.name == "platform", let value = flag.value else { throw fail("FROM has no flag --\(flag.name)") }
      from.platform = value
    }
    let parts = words.split(rest)
    guard parts.count == 1 || parts.count == 3 && parts[1].uppercased() == "AS" else { throw fail("write FROM IMAGE, or FROM IMAGE AS NAME") }
    from.image = parts[0]
    if parts.count == 3 {
      let name = parts[2].lowercased()
      let isName =
        name.utf8.first.map { (97...122).contains($0) } == true
        && name.utf8.allSatisfy { (97...122).contains($0) || (48...57).contains($0) || "_-.".utf8.contains($0) }
      guard isName else { throw fail("'\(parts[2])' cannot name a stage: a letter, then letters, digits, '-', '_' or '.'") }
      from.name = name
    }
    return from
  }

  private func run() throws(DockerfileError) -> Instruction.Run {
    let (flags, rest) = flags()
    if rest.isEmpty { throw fail("RUN needs a command") }
    let command = line.heredocs.isEmpty ? command(rest) : .shell(rest)
    if case .exec([]) = command { throw fail("RUN needs a command") }
    var run = Instruction.Run(command: command, heredocs: line.heredocs)
    for flag in flags {
      switch (flag.name, flag.value) {
      case ("network", let value?):
        guard let network = Instruction.Run.Network(rawValue: value) else { throw fail("RUN --network is default, none or host, not '\(value)'") }
        run.network = network
      case ("mount", let value?): do { run.mounts.append(try RunMount(value)) } catch { throw fail("RUN --mount: \(error.message)") }
      case ("security", let value?) where value == "sandbox": continue
      default: throw fail("RUN has no flag --\(flag.name)" + (flag.name == "security" ? "=\(flag.value ?? "")" : ""))
      }
    }
    return run
  }

  private func copy() throws(DockerfileError) -> Instruction.Copy {
    let (flags, rest) = flags()
    var copy = Instruction.Copy(sources: [], target: "", heredocs: [], unpacks: line.keyword == "ADD")
    for flag in flags {
      // A layer is made of what was copied alone, so every copy is one already.
      if ["link", "parents"].contains(flag.name), flag.name == "link" || !copy.unpacks {
        guard ["true", "false", nil].contains(flag.value?.lowercased()) else {
          throw fail("\(line.keyword) --\(flag.name) is true or false, not '\(flag.value ?? "")'")
        }
        if flag.name == "parents" { copy.parents = flag.value?.lowercased() != "false" }
        continue
      }
      guard let value = flag.value else { throw fail("\(line.keyword) --\(flag.name) needs a value, or is not supported") }
      switch flag.name {
      case "from" where !copy.unpacks: copy.from = value
      case "chown": copy.owner = value
      case "chmod": copy.mode = value
      case "exclude": copy.excludes.append(value)
      case "checksum" where copy.unpacks: copy.checksum = value
      default:
        throw fail(
          "\(line.keyword) --\(flag.name) is not supported: --chown, --chmod, --exclude and --link are, COPY's --from and --parents, ADD's --checksum"
        )
      }
    }
    var parts: [String]
    if rest.hasPrefix("["), let list = Words.jsonArray(rest) { parts = list } else { parts = words.split(rest) }
    guard parts.count >= 2 else { throw fail("\(line.keyword) needs a source and a target") }
    copy.target = parts.removeLast()
    let markers = parts.filter { !LogicalLines.markers($0).isEmpty }
    guard markers.count == line.heredocs.count else { throw fail("a heredoc cannot be \(line.keyword)'s target") }
    copy.sources = parts.filter { LogicalLines.markers($0).isEmpty }
    copy.heredocs = line.heredocs
    return copy
  }

  private func pairs() throws(DockerfileError) -> [Instruction.Pair] {
    let parts = words.split(line.rest)
    guard parts[0].contains("=") else {
      // The old form: a name, then everything else.
      let value = LogicalLines.trim(Substring(line.rest).dropFirst(parts[0].count))
      guard !value.isEmpty else { throw fail("\(line.keyword) \(parts[0]) has no value: write \(parts[0])=…") }
      return [.init(name: parts[0], value: String(value))]
    }
    var pairs: [Instruction.Pair] = []
    for part in parts {
      let pair = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard pair.count == 2, !pair[0].isEmpty else { throw fail("'\(part)' is not NAME=VALUE: a value with spaces wants quotes") }
      pairs.append(.init(name: String(pair[0]), value: String(pair[1])))
    }
    return pairs
  }

  private func arguments() throws(DockerfileError) -> [Dockerfile.Argument] {
    var arguments: [Dockerfile.Argument] = []
    for part in words.split(line.rest) {
      let pair = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      let isName = pair[0].utf8.allSatisfy { (97...122).contains($0) || (65...90).contains($0) || (48...57).contains($0) || "_-.".utf8.contains($0) }
      guard !pair[0].isEmpty, isName else { throw fail("'\(part)' is not NAME or NAME=VALUE") }
      arguments.append(.init(name: String(pair[0]), value: pair.count == 2 ? String(pair[1]) : nil))
    }
    return arguments
  }

  private func health() throws(DockerfileError) -> Instruction.Health? {
    let (flags, rest) = flags()
    let parts = words.split(rest)
    if parts.count == 1, parts[0].uppercased() == "NONE" {
      if let flag = flags.first { throw fail("HEALTHCHECK NONE has no flag --\(flag.name)") }
      return nil
    }
    guard parts.count >= 2, parts[0].uppercased() == "CMD" else { throw fail("write HEALTHCHECK CMD …, or HEALTHCHECK NONE") }
    var health = Instruction.Health(command: command(String(LogicalLines.trim(Substring(rest).dropFirst(parts[0].count)))))
    if case .exec([]) = health.command { throw fail("HEALTHCHECK CMD needs a command") }
    for flag in flags {
      let value = flag.value ?? ""
      if flag.name == "retries" {
        guard let retries = Int(value), retries >= 0 else { throw fail("HEALTHCHECK --retries is a number, not '\(value)'") }
        health.retries = retries
        continue
      }
      guard let time = DurationText.nanoseconds(value) else {
        throw fail("HEALTHCHECK --\(flag.name)=\(value): expected a time such as 30s or 1m30s")
      }
      switch flag.name {
      case "interval": health.interval = time
      case "timeout": health.timeout = time
      case "start-period": health.startPeriod = time
      case "start-interval": health.startInterval = time
      default: throw fail("HEALTHCHECK has no flag --\(flag.name)")
      }
    }
    return health
  }

  private func onbuild() throws(DockerfileError) -> String {
    let keyword = line.rest.prefix { !$0.isWhitespace }.uppercased()
    if ["ONBUILD", "FROM", "MAINTAINER"].contains(keyword) { throw fail("ONBUILD may not hold \(keyword)") }
    // Its heredocs follow it, as they did here; BuildKit's images have it so.
    let text = line.heredocs.reduce(line.rest) { "\($0)\n\($1.content)\($1.name)" }
    // Read once, so that a mistake is told here and not by who builds on top.
    _ = try Instruction(onbuild: text, line: line.number)
    return text
  }
}
