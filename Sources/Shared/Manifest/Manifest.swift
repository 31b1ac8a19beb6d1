import Model
import Yams

// Manifest: a Compose file's text in, specs of the Model out, with a position and a reason for everything it refuses.
//
// Invariants
// - Nothing is dropped in silence: a key is understood, warned about, or refused by file, line, column and path.
// - All errors are reported at once, in the order of the text; a manifest with one error yields no specs.
// - Scalars are read by what the place expects, not by what YAML 1.1 would guess: `22:22` is text, `on` is not a boolean.
// - Interpolation touches values only, and happens before merging (Compose specification, 12-interpolation.md).
//
// It refuses to know the cluster: whether an external network, an image or a node exists is the manager's to say.

/// Compose text to specs.
public enum Manifest {
  /// Reads one Compose file.
  ///
  /// - Parameters:
  ///   - text: the file's content; at most `maximumSize` bytes.
  ///   - path: the file's path: shown in diagnostics, and the base of relative paths.
  ///   - projectName: the stack's name; nil: `COMPOSE_PROJECT_NAME`, then top-level `name`, then the file's own name
  ///     (`web.yaml` -> `web`), or its directory's for `compose.yaml` and `docker-compose.yml`.
  ///   - workingDirectory: what a relative `path` is relative to, an absolute path; nil: relative paths stay relative.
  ///   - environment: variables for interpolation and for `environment` entries without a value.
  ///   - readFile: reads an `env_file`; nil when there is no such file.
  /// - Throws: `ManifestError` with every diagnostic, warnings included.
  public static func parse(
    text: String, path: String, projectName: String? = nil, workingDirectory: String? = nil, environment: [String: String] = [:],
    readFile: (String) -> String? = FileText.read
  ) throws(ManifestError) -> StackSpec {
    try withoutActuallyEscaping(readFile) { readFile throws(ManifestError) -> StackSpec in
      let reader = Reader(file: path, workingDirectory: workingDirectory, environment: environment, readFile: readFile)
      let stack = reader.stack(text: text, projectName: projectName)
      let sorted = reader.diagnostics.sorted { ($0.line, $0.column, $0.path) < ($1.line, $1.column, $1.path) }
      guard var stack, !sorted.contains(where: { $0.severity == .error }) else { throw ManifestError(diagnostics: sorted) }
      stack.warnings = sorted
      return stack
    }
  }

  /// Bytes of text; a longer manifest is refused.
  public static let maximumSize = 4 << 20
  /// A service may ask for no more replicas than this.
  public static let maximumReplicas: UInt64 = 1_000_000
}

/// What a manifest declares. Names are the cluster's: `stack_service`, `stack_network`, `stack_volume`.
public struct StackSpec: Hashable, Sendable {
  public var name: String
  /// In the order of the text.
  public var services: [ServiceSpec]
  /// Networks to make, `<stack>_default` among them when a service names none. Without the external ones.
  public var networks: [NetworkSpec]
  /// Volumes to make; `createdAt` is zero. Without the external ones.
  public var volumes: [Volume]
  /// Secrets and configs to make. Without the external ones.
  public var files: [StackFile]
  /// Names that must exist already.
  public var externalFiles: [StoredFile.Name]
  public var externalNetworks: [String]
  public var externalVolumes: [String]
  /// Images that services have built, in the order of the text.
  public var builds: [StackBuild]
  public var warnings: [Diagnostic]
}

/// A secret or a config that a manifest declares.
public struct StackFile: Hashable, Sendable {
  public enum Source: Hashable, Sendable {
    /// Of a file that can be read; its bytes are for the caller to bring.
    case path(String)
    case text(String)
  }
  public var kind: StoredFile.Kind
  /// The cluster's: `stack_name`, or as the manifest says.
  public var name: String
  public var labels: [String: String]
  public var source: Source
}
