import Yams

/// Builds the tree from Yams' nodes: aliases are already followed there, merges and interpolation happen here.
extension Reader {
  /// More values than this, aliases followed, is an attack or a mistake ("billion laughs").
  static let maximumValues = 200_000

  /// nil after a syntax error, which is then told.
  func root(of text: String) -> Value? {
    let top = Value.Position.none
    guard text.utf8.count <= Manifest.maximumSize else {
      error(top, "", "the manifest has \(text.utf8.count) bytes", "at most \(Manifest.maximumSize) are accepted")
      return nil
    }
    do {
      guard let node = try Yams.Parser(yaml: text, resolver: .basic, constructor: .default, encoding: .utf8).singleRoot() else {
        error(top, "", "the manifest is empty", "a manifest needs at least a 'services' map")
        return nil
      }
      return convert(node, "")
    } catch let problem as YamlError {
      tell(problem)
    } catch {
      self.error(top, "", "the manifest is not YAML: \(error)", "")
    }
    return nil
  }

  private func tell(_ problem: YamlError) {
    func at(_ mark: Mark, _ text: String) {
      let tab = text.contains("cannot start any token") ? "YAML is indented with spaces, not tabs" : "correct the YAML here"
      error(.init(line: mark.line, column: mark.column), "", "not valid YAML: \(text)", tab)
    }
    switch problem {
    case .scanner(let context, let text, let mark, _), .parser(let context, let text, let mark, _):
      at(mark, (context.map { $0.text + ": " } ?? "") + text)
    case .composer(let context, let text, let mark, _):
      at(mark, context?.text == "expected a single document in the stream" ? "found a second document" : text)
    case .duplicatedKeysInMapping(let keys, let context):
      let names = keys.map { "'\($0)'" }.joined(separator: ", ")
      error(
        .init(line: context.mark.line, column: context.mark.column), "", "\(names) stands twice in one map", "keep one of them")
    case .reader(let text, _, _, _):
      error(.none, "", "not valid YAML: \(text)", "save the file as UTF-8 without control characters")
    default:
      error(.none, "", "not valid YAML: \(problem)", "")
    }
  }

  func convert(_ node: Node, _ path: String) -> Value {
    let position = node.mark.map { Value.Position(line: $0.line, column: $0.column) } ?? .none
    valueCount += 1
    guard valueCount <= Self.maximumValues else {
      if valueCount == Self.maximumValues + 1 {
        error(position, path, "the manifest grows beyond \(Self.maximumValues) values when its aliases are followed", "use fewer aliases")
      }
      return Value(kind: .null, position: position, path: path)
    }
    switch node {
    case .scalar(let scalar):
      refuseTag(node.tag.rawValue, ["str", "int", "float", "bool", "null"], position, path)
      let quoted = scalar.style != .plain && scalar.style != .any
      if !quoted, ["", "~", "null", "Null", "NULL"].contains(scalar.string) {
        return Value(kind: .null, position: position, path: path)
      }
      return Value(kind: .scalar(interpolate(scalar.string, position, path), quoted: quoted), position: position, path: path)
    case .sequence(let sequence):
      refuseTag(node.tag.rawValue, ["seq"], position, path)
      let items = sequence.enumerated().map { convert($1, "\(path)[\($0)]") }
      return Value(kind: .list(items), position: position, path: path)
    case .mapping(let mapping):
      refuseTag(node.tag.rawValue, ["map"], position, path)
      return Value(kind: .map(entries(of: mapping, path)), position: position, path: path)
    case .alias:
      error(position, path, "an alias without an anchor", "define it with '&' earlier in the file")
      return Value(kind: .null, position: position, path: path)
    }
  }

  private func refuseTag(_ tag: String, _ accepted: [String], _ position: Value.Position, _ path: String) {
    let prefix = "tag:yaml.org,2002:"
    if tag.isEmpty || tag == "!" || (tag.hasPrefix(prefix) && accepted.contains(String(tag.dropFirst(prefix.count)))) { return }
    error(position, path, "the YAML tag '\(tag)' is not supported", "remove it")
  }

  /// Own keys first, then those of `<<` that are not there yet; the first of several merged maps wins.
  private func entries(of mapping: Node.Mapping, _ path: String) -> [Value.Entry] {
    var entries: [Value.Entry] = []
    var seen: Set<String> = []
    var merged: [Node] = []
    for (key, node) in mapping {
      let position = key.mark.map { Value.Position(line: $0.line, column: $0.column) } ?? .none
      guard let name = key.scalar else {
        error(position, path, "a key must be plain text", "write a single word as the key")
        continue
      }
      if name.string == "<<", name.style == .plain {
        merged.append(node)
        continue
      }
      // Extensions are ours to ignore; their anchors work all the same.
      if path.isEmpty, name.string.hasPrefix("x-") { continue }
      seen.insert(name.string)
      entries.append(.init(key: name.string, position: position, value: convert(node, path.isEmpty ? name.string : "\(path).\(name.string)")))
    }
    for node in merged.flatMap({ node in node.sequence.map(Array.init) ?? [node] }) {
      guard let inner = node.mapping else {
        let position = node.mark.map { Value.Position(line: $0.line, column: $0.column) } ?? .none
        error(position, path, "'<<' merges maps only", "write '<<: *name' or '<<: [*one, *two]' with anchors of maps")
        continue
      }
      valueCount += 1
      guard valueCount <= Self.maximumValues else { break }
      for entry in self.entries(of: inner, path) where seen.insert(entry.key).inserted { entries.append(entry) }
    }
    return entries
  }
}
