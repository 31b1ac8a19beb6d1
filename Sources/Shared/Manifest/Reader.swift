/// Reads the tree by what each place expects, and collects everything there is to tell.
final class Reader {
  let file: String
  let environment: [String: String]
  let readFile: (String) -> String?
  private(set) var diagnostics: [Diagnostic] = []
  var valueCount = 0
  /// Full name -> key in the manifest; and where its ports stand.
  var serviceKeys: [String: String] = [:]
  var portPositions: [String: Value.Position] = [:]
  /// By the full name of the service that waits.
  var dependencies: [String: [DeclaredDependency]] = [:]

  var builds: [StackBuild] = []

  /// Directory that relative paths of the manifest start from.
  let directory: String

  init(file: String, workingDirectory: String?, environment: [String: String], readFile: @escaping (String) -> String?) {
    self.file = file
    let own = file.contains("/") ? String(file[..<file.lastIndex(of: "/")!]) : "."
    directory = if let workingDirectory, !file.hasPrefix("/") { workingDirectory + "/" + own } else { own }
    self.environment = environment
    self.readFile = readFile
  }

  func error(_ position: Value.Position, _ path: String, _ problem: String, _ advice: String) {
    report(.error, position, path, problem, advice)
  }
  func warning(_ position: Value.Position, _ path: String, _ problem: String, _ advice: String) {
    report(.warning, position, path, problem, advice)
  }
  func error(_ value: Value, _ problem: String, _ advice: String = "") { error(value.position, value.path, problem, advice) }
  func warning(_ value: Value, _ problem: String, _ advice: String = "") { warning(value.position, value.path, problem, advice) }

  /// Understood and kept with the service, but nothing carries it out in this version: said aloud, so that nobody relies on it.
  func notYet(_ value: Value, _ instead: String) {
    let key = value.path.split(separator: ".").last.map(String.init) ?? value.path
    warning(value, "'\(key)' has no effect yet", instead)
  }

  private func report(_ severity: Diagnostic.Severity, _ position: Value.Position, _ path: String, _ problem: String, _ advice: String) {
    let diagnostic = Diagnostic(
      severity: severity, file: file, line: position.line, column: position.column, path: path, problem: problem, advice: advice)
    // An anchor used twice would tell the same twice.
    if !diagnostics.contains(diagnostic) { diagnostics.append(diagnostic) }
  }
}

/// A map's entries, taken one by one; what nobody asked for is told at the end.
struct Fields {
  let value: Value
  private let reader: Reader
  private var entries: [String: Value.Entry] = [:]
  private var order: [String] = []
  private var asked: [String] = []

  /// nil, and told, when it is no map.
  init?(_ value: Value, _ reader: Reader) {
    guard case .map(let entries) = value.kind else {
      reader.error(value, "expected a map, found \(value.found)", "write 'key: value' lines")
      return nil
    }
    self.value = value
    self.reader = reader
    for entry in entries {
      self.entries[entry.key] = entry
      order.append(entry.key)
    }
  }

  /// The value; nil when absent or null.
  mutating func take(_ key: String) -> Value? {
    asked.append(key)
    guard let value = entries.removeValue(forKey: key)?.value, !value.isNull else { return nil }
    return value
  }

  /// Tells every key that was not taken: by its rule, or as unknown with the nearest known one.
  func finish(_ rules: [String: KeyRule] = [:]) {
    for key in order {
      guard let entry = entries[key], !key.hasPrefix("x-") else { continue }
      let path = entry.value.path
      switch rules[key] {
      case .ignored(let reason): reader.warning(entry.position, path, "'\(key)' is ignored", reason)
      case .unsupported(let advice): reader.error(entry.position, path, "'\(key)' is not supported", advice)
      case nil:
        let near = nearest(to: key, among: asked + rules.keys)
        reader.error(
          entry.position, path, "unknown key '\(key)'",
          near.map { "did you mean '\($0)'?" } ?? "remove it, or begin it with 'x-' if it is your own")
      }
    }
  }
}

/// What becomes of a key of the Compose specification that is not carried out.
enum KeyRule {
  case ignored(String)
  case unsupported(String)
}

/// The closest of `names` by edit distance, if it is close enough to be meant (a third of the letters, transpositions count one).
func nearest(to word: String, among names: some Sequence<String>) -> String? {
  let limit = max(1, word.count / 3)
  var best: (name: String, distance: Int)?
  for name in names.sorted() where abs(name.count - word.count) <= limit {
    let distance = editDistance(Array(word.lowercased().utf8), Array(name.utf8))
    if distance <= limit, distance < best?.distance ?? .max { best = (name, distance) }
  }
  return best?.name
}

/// Optimal string alignment distance.
private func editDistance(_ a: [UInt8], _ b: [UInt8]) -> Int {
  var rows = [[Int]](repeating: [Int](repeating: 0, count: b.count + 1), count: a.count + 1)
  for i in 0...a.count { rows[i][0] = i }
  for j in 0...b.count { rows[0][j] = j }
  guard !a.isEmpty, !b.isEmpty else { return max(a.count, b.count) }
  for i in 1...a.count {
    for j in 1...b.count {
      rows[i][j] = min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1))
      if i > 1, j > 1, a[i - 1] == b[j - 2], a[i - 2] == b[j - 1] { rows[i][j] = min(rows[i][j], rows[i - 2][j - 2] + 1) }
    }
  }
  return rows[a.count][b.count]
}
