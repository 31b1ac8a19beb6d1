/// Which stages a target needs, in the order in which they are built, and what each begins with.
public struct BuildPlan: Hashable, Sendable {
  public enum Source: Hashable, Sendable {
    case scratch
    case image(String)
    /// By its number in the Dockerfile.
    case stage(Int)
  }
  public struct Item: Hashable, Sendable {
    public var number: Int
    public var stage: Stage
    public var base: Source
  }
  /// Only those that the target needs; the target is the last.
  public var items: [Item]
  /// What ARG sees: build arguments and those before the first FROM.
  public var arguments: BuildArguments

  /// - Parameter target: a stage's name or number; nil: the last.
  public init(_ dockerfile: Dockerfile, target: String?, arguments given: [String: String], platform: BuildPlatform) throws(DockerfileError) {
    var arguments = BuildArguments(given: given, platform: platform)
    let words = Words(escape: dockerfile.escape)
    for argument in dockerfile.globals {
      do throws(Words.Problem) {
        let value: String? = if let text = argument.value { try words.expand(text, { arguments.global($0) }) } else { nil }
        arguments.declareGlobal(argument.name, value)
      } catch { throw DockerfileError(1, "ARG \(argument.name): \(error.message)") }
    }
    self.arguments = arguments
    var bases: [Source] = []
    for (number, stage) in dockerfile.stages.enumerated() {
      let image = try Self.expand(stage.from.image, words, arguments, stage)
      if let text = stage.from.platform {
        let wanted = try Self.expand(text, words, arguments, stage)
        guard platform.fits(wanted) else { throw DockerfileError(stage.line, "--platform=\(wanted): this host builds for \(platform) only") }
      }
      if image.isEmpty { throw DockerfileError(stage.line, "FROM \(stage.from.image) names no image: give the ARG a default, or --build-arg") }
      if let earlier = dockerfile.stages[..<number].lastIndex(where: { $0.name == image.lowercased() }) {
        bases.append(.stage(earlier))
      } else {
        bases.append(image == "scratch" ? .scratch : .image(image))
      }
    }
    var wanted = dockerfile.stages.count - 1
    if let target, !target.isEmpty {
      if let named = dockerfile.stages.firstIndex(where: { $0.name == target.lowercased() }) {
        wanted = named
      } else if let number = Int(target), dockerfile.stages.indices.contains(number) {
        wanted = number
      } else {
        let names = dockerfile.stages.compactMap(\.name)
        throw DockerfileError(1, "there is no stage '\(target)'" + (names.isEmpty ? "" : ": there are \(names.joined(separator: ", "))"))
      }
    }
    var needed: Set<Int> = []
    var queue = [wanted]
    while let number = queue.popLast() {
      guard needed.insert(number).inserted else { continue }
      if case .stage(let base) = bases[number] { queue.append(base) }
      for instruction in dockerfile.stages[number].instructions {
        for from in instruction.sources {
          if case .stage(let source) = try Self.source(from, stages: dockerfile.stages[..<number], line: instruction.line) { queue.append(source) }
        }
      }
    }
    items = needed.sorted().map { Item(number: $0, stage: dockerfile.stages[$0], base: bases[$0]) }
  }

  private static func expand(_ text: String, _ words: Words, _ arguments: BuildArguments, _ stage: Stage) throws(DockerfileError) -> String {
    do throws(Words.Problem) { return try words.expand(text) { arguments.global($0) } } catch {
      throw DockerfileError(stage.line, "FROM \(stage.from.image): \(error.message)")
    }
  }

  /// What `COPY --from=` means in the stage of that number.
  public func source(_ from: String, in number: Int, line: Int) throws(DockerfileError) -> Source {
    if let item = items.first(where: { $0.stage.name == from.lowercased() }), item.number < number { return .stage(item.number) }
    if let index = Int(from) {
      guard items.contains(where: { $0.number == index }), index < number else { throw DockerfileError(line, "there is no stage \(from) above") }
      return .stage(index)
    }
    return .image(from)
  }

  private static func source(_ from: String, stages: ArraySlice<Stage>, line: Int) throws(DockerfileError) -> Source {
    if let index = stages.lastIndex(where: { $0.name == from.lowercased() }) { return .stage(index) }
    if let number = Int(from) {
      guard stages.indices.contains(number) else { throw DockerfileError(line, "COPY --from=\(from): there is no stage \(from) above") }
      return .stage(number)
    }
    return .image(from)
  }
}

/// What a build is for and made on.
public struct BuildPlatform: Hashable, Sendable, CustomStringConvertible {
  public var os: String
  public var architecture: String
  public init(os: String = "linux", architecture: String) { (self.os, self.architecture) = (os, architecture) }
  public var description: String { "\(os)/\(architecture)" }
  func fits(_ wanted: String) -> Bool {
    let parts = wanted.lowercased().split(separator: "/")
    guard parts.count >= 2 else { return wanted == architecture || wanted == os }
    let machine = ["x86_64": "amd64", "aarch64": "arm64"][String(parts[1])] ?? String(parts[1])
    return parts[0] == os && machine == architecture
  }
}

/// Build arguments: what was given, what stands before the first FROM, what is always there.
public struct BuildArguments: Hashable, Sendable {
  var given: [String: String]
  private var globals: [String: String] = [:]
  private var platform: [String: String]
  /// Names that an ARG asked for.
  var consumed: Set<String> = []

  /// Known without an ARG, and no part of any cache key.
  static let predefined: Set<String> = [
    "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "FTP_PROXY", "ftp_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy",
  ]

  init(given: [String: String], platform: BuildPlatform) {
    self.given = given
    self.platform = [:]
    for side in ["TARGET", "BUILD"] {
      self.platform[side + "PLATFORM"] = platform.description
      self.platform[side + "OS"] = platform.os
      self.platform[side + "ARCH"] = platform.architecture
      self.platform[side + "VARIANT"] = ""
    }
  }

  func global(_ name: String) -> String? { globals[name] ?? platform[name] }

  mutating func declareGlobal(_ name: String, _ value: String?) {
    consumed.insert(name)
    if let value = given[name] ?? value { globals[name] = value }
  }

  mutating func value(of name: String, default value: String?) -> String? {
    consumed.insert(name)
    return given[name] ?? value ?? globals[name] ?? platform[name]
  }

  var proxies: [String: String] { given.filter { Self.predefined.contains($0.key) } }
  /// Given, and no ARG took it.
  public var unused: [String] { given.keys.filter { !consumed.contains($0) && !Self.predefined.contains($0) }.sorted() }
}
