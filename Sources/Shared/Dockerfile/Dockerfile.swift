// Dockerfile: a Dockerfile's text in, stages of instructions out; what each instruction means for a build; what a .dockerignore leaves out.
//
// Invariants
// - Pure and total: every text is a Dockerfile or a DockerfileError with the line where it goes wrong.
// - Nothing is dropped in silence: an instruction, flag or form that is not carried out is refused by name.
// - What decides a step's result is in its cache key, and nothing else is (`BuildStage`).
// It refuses to know files, images and containers: those who carry a step out tell it digests.
//
// Source: docs.docker.com/reference/dockerfile (frontend 1.7); moby/buildkit frontend/dockerfile for what the text leaves open.

/// A whole Dockerfile.
public struct Dockerfile: Hashable, Sendable {
  /// `\`, or what the directive `escape` says.
  public var escape: Character
  /// ARGs before the first FROM; only FROM lines see them.
  public var globals: [Argument]
  /// At least one.
  public var stages: [Stage]
  public var warnings: [String]

  public struct Argument: Hashable, Sendable {
    public var name: String
    /// Not expanded; nil: no default.
    public var value: String?
  }

  /// Bytes; a longer text is refused.
  public static let maximumSize = 1 << 20

  public init(_ text: String) throws(DockerfileError) {
    guard text.utf8.count <= Self.maximumSize else { throw DockerfileError(1, "the Dockerfile has more than \(Self.maximumSize) bytes") }
    let lines = try LogicalLines(text)
    escape = lines.escape
    globals = []
    stages = []
    warnings = []
    for line in lines.lines {
      let instruction = try Instruction(line, escape: escape)
      if case .from(let from) = instruction.kind {
        if let name = from.name, stages.contains(where: { $0.name == name }) {
          throw DockerfileError(line.number, "a stage named '\(name)' stands above already: give it another name")
        }
        stages.append(Stage(from: from, line: line.number))
      } else if stages.isEmpty {
        guard case .arg(let arguments) = instruction.kind else {
          throw DockerfileError(line.number, "\(line.keyword) before the first FROM: only ARG may stand there")
        }
        globals += arguments
      } else {
        if case .maintainer = instruction.kind {
          warnings.append("line \(line.number): MAINTAINER is deprecated: write LABEL org.opencontainers.image.authors=…")
        }
        stages[stages.count - 1].instructions.append(instruction)
      }
    }
    guard !stages.isEmpty else { throw DockerfileError(max(1, lines.count), "there is no FROM: begin with FROM IMAGE, or FROM scratch") }
  }
}

/// From one FROM to the next.
public struct Stage: Hashable, Sendable {
  public var from: From
  public var line: Int
  public var instructions: [Instruction] = []
  public var name: String? { from.name }
}

public struct From: Hashable, Sendable {
  /// Not expanded yet; an image, `scratch`, or an earlier stage.
  public var image: String
  /// Lower case.
  public var name: String?
  /// Not expanded yet.
  public var platform: String?
}

/// What is wrong, and in which line (counted from 1).
public struct DockerfileError: Error, Hashable, Sendable, CustomStringConvertible {
  public var line: Int
  public var message: String
  public init(_ line: Int, _ message: String) { (self.line, self.message) = (line, message) }
  public var description: String { "Dockerfile line \(line): \(message)" }
}
