/// `$VAR`, `${VAR}`, `${VAR:-x}`, `${VAR-x}`, `${VAR:?x}`, `${VAR?x}`, `${VAR:+x}`, `${VAR+x}`, `$$`; x may hold the same again.
/// Compose specification, 12-interpolation.md.
struct Interpolation {
  enum Failure: Error, Hashable {
    /// A `$` that begins nothing.
    case invalid
    /// `${` without its `}`.
    case unclosed
    /// `:?`: the variable and the author's message.
    case required(String, String)
    case tooDeep
  }
  var environment: [String: String]
  /// Variables without value or default: read as empty.
  var unset: [String] = []

  init(environment: [String: String]) { self.environment = environment }

  mutating func expand(_ text: String) throws(Failure) -> String {
    guard text.utf8.contains(UInt8(ascii: "$")) else { return text }
    return try expand(Array(text.utf8)[...], depth: 0)
  }

  private mutating func expand(_ bytes: ArraySlice<UInt8>, depth: Int) throws(Failure) -> String {
    guard depth < 32 else { throw .tooDeep }
    var output: [UInt8] = []
    var rest = bytes
    while let byte = rest.popFirst() {
      guard byte == UInt8(ascii: "$") else {
        output.append(byte)
        continue
      }
      switch rest.first {
      case UInt8(ascii: "$"):
        rest.removeFirst()
        output.append(byte)
      case UInt8(ascii: "{"):
        rest.removeFirst()
        guard let end = closing(of: rest) else { throw .unclosed }
        output += try substitute(rest[..<end], depth: depth).utf8
        rest = rest[(end + 1)...]
      default:
        let name = takeName(&rest)
        guard !name.isEmpty else { throw .invalid }
        output += value(of: name).utf8
      }
    }
    return String(decoding: output, as: UTF8.self)
  }

  /// What stands between the braces.
  private mutating func substitute(_ inner: ArraySlice<UInt8>, depth: Int) throws(Failure) -> String {
    var rest = inner
    let name = takeName(&rest)
    guard !name.isEmpty else { throw .invalid }
    guard var sign = rest.popFirst() else { return value(of: name) }
    let colon = sign == UInt8(ascii: ":")
    if colon {
      guard let next = rest.popFirst() else { throw .invalid }
      sign = next
    }
    let current = environment[name].flatMap { colon && $0.isEmpty ? nil : $0 }
    switch sign {
    case UInt8(ascii: "-"):
      if let current { return current }
      return try expand(rest, depth: depth + 1)
    case UInt8(ascii: "+"): return try current == nil ? "" : expand(rest, depth: depth + 1)
    case UInt8(ascii: "?"):
      if let current { return current }
      throw .required(name, try expand(rest, depth: depth + 1))
    default: throw .invalid
    }
  }

  private mutating func value(of name: String) -> String {
    if let value = environment[name] { return value }
    if !unset.contains(name) { unset.append(name) }
    return ""
  }

  private func takeName(_ rest: inout ArraySlice<UInt8>) -> String {
    let end = rest.firstIndex { !isWord($0) } ?? rest.endIndex
    let name = rest[..<end]
    guard let first = name.first, !(48...57).contains(first) else { return "" }
    rest = rest[end...]
    return String(decoding: name, as: UTF8.self)
  }

  private func isWord(_ byte: UInt8) -> Bool {
    (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte) || byte == 95
  }

  /// The brace that closes the one before `rest`, nested ones skipped.
  private func closing(of rest: ArraySlice<UInt8>) -> Int? {
    var depth = 0
    var index = rest.startIndex
    while index < rest.endIndex {
      if rest[index] == UInt8(ascii: "$"), index + 1 < rest.endIndex {
        if rest[index + 1] == UInt8(ascii: "{") { depth += 1 }
        if rest[index + 1] == UInt8(ascii: "{") || rest[index + 1] == UInt8(ascii: "$") { index += 1 }
      } else if rest[index] == UInt8(ascii: "}") {
        if depth == 0 { return index }
        depth -= 1
      }
      index += 1
    }
    return nil
  }
}

extension Reader {
  func interpolate(_ text: String, _ position: Value.Position, _ path: String) -> String {
    var interpolation = Interpolation(environment: environment)
    do {
      let result = try interpolation.expand(text)
      for name in interpolation.unset {
        warning(position, path, "the variable '\(name)' is not set and reads as empty", "set it, or write ${\(name):-default}")
      }
      return result
    } catch {
      switch error {
      case .invalid: self.error(position, path, "a '$' that begins no variable in '\(text)'", "write $$ for a plain dollar sign")
      case .unclosed: self.error(position, path, "'${' without its '}' in '\(text)'", "close the brace, or write $$ for a plain dollar sign")
      case .required(let name, let message):
        self.error(position, path, "the variable '\(name)' must be set\(message.isEmpty ? "" : ": \(message)")", "set it in the environment")
      case .tooDeep: self.error(position, path, "variables are nested more than 32 deep", "use fewer defaults within defaults")
      }
      return ""
    }
  }
}
