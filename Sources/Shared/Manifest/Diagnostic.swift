/// One thing to tell the manifest's author: where, what is wrong, what to do.
public struct Diagnostic: Hashable, Sendable, CustomStringConvertible {
  public enum Severity: String, Sendable { case error, warning }
  public var severity: Severity
  public var file: String
  /// From 1; 0 when the whole file is meant.
  public var line: Int
  public var column: Int
  /// Such as `services.web.ports[0]`; empty for the file itself.
  public var path: String
  public var problem: String
  /// What to do; may be empty when the problem says it.
  public var advice: String

  public init(severity: Severity, file: String, line: Int, column: Int, path: String, problem: String, advice: String) {
    self.severity = severity
    self.file = file
    self.line = line
    self.column = column
    self.path = path
    self.problem = problem
    self.advice = advice
  }

  /// `web.yaml:4:9: error: services.web.ports[0]: …; …`
  public var description: String {
    let place = line > 0 ? "\(file):\(line):\(column)" : file
    return "\(place): \(severity.rawValue): \(message)"
  }
  /// Without the place in the file.
  public var message: String {
    (path.isEmpty ? "" : path + ": ") + problem + (advice.isEmpty ? "" : "; " + advice)
  }
}

/// Why a manifest is refused: every error and warning, in the order of the text.
public struct ManifestError: Error, Hashable, Sendable, CustomStringConvertible {
  public var diagnostics: [Diagnostic]
  public init(diagnostics: [Diagnostic]) { self.diagnostics = diagnostics }
  public var errors: [Diagnostic] { diagnostics.filter { $0.severity == .error } }
  public var description: String { diagnostics.map(\.description).joined(separator: "\n") }
}
