/// A pattern of path/filepath's Match (Go): `*` and `?` do not cross a slash, `[a-z]` and `[^a-z]` are classes, a backslash takes the next
/// character as it is. With `doubleStar`, `**` crosses slashes (moby/patternmatcher).
/// Takes time in proportion to pattern and path, whatever they are.
public struct Glob: Hashable, Sendable {
  private enum Token: Hashable {
    case literal(Character)
    /// One character, no slash.
    case one
    /// Any number, no slash.
    case some
    /// Any number of anything.
    case all
    /// Nothing, or anything that ends with a slash.
    case folders
    case set([ClosedRange<Character>], negated: Bool)
  }
  private var tokens: [Token] = []

  /// nil: the pattern is malformed (a class or an escape that does not end).
  public init?(_ pattern: String, doubleStar: Bool = false) {
    var rest = Substring(pattern)
    while let character = rest.first {
      rest = rest.dropFirst()
      switch character {
      case "*":
        guard doubleStar, rest.first == "*" else {
          while rest.first == "*" { rest = rest.dropFirst() }
          tokens.append(.some)
          continue
        }
        while rest.first == "*" { rest = rest.dropFirst() }
        if rest.first == "/" {
          rest = rest.dropFirst()
          tokens.append(.folders)
        } else {
          tokens.append(.all)
        }
      case "?": tokens.append(.one)
      case "\\":
        guard let next = rest.first else { return nil }
        rest = rest.dropFirst()
        tokens.append(.literal(next))
      case "[":
        guard let set = Self.set(&rest) else { return nil }
        tokens.append(set)
      default: tokens.append(.literal(character))
      }
    }
  }

  /// Whether there is anything but literals: those are names.
  public var isPattern: Bool { tokens.contains { if case .literal = $0 { false } else { true } } }

  private static func set(_ rest: inout Substring) -> Token? {
    var ranges: [ClosedRange<Character>] = []
    let negated = rest.first == "^"
    if negated { rest = rest.dropFirst() }
    func one() -> Character? {
      guard let character = rest.first else { return nil }
      rest = rest.dropFirst()
      guard character == "\\" else { return character }
      guard let next = rest.first else { return nil }
      rest = rest.dropFirst()
      return next
    }
    while true {
      guard let next = rest.first else { return nil }
      if next == "]", !ranges.isEmpty {
        rest = rest.dropFirst()
        return .set(ranges, negated: negated)
      }
      guard let low = one() else { return nil }
      var high = low
      if rest.first == "-" {
        rest = rest.dropFirst()
        guard let end = one() else { return nil }
        high = end
      }
      guard low <= high else { return nil }
      ranges.append(low...high)
    }
  }

  public func matches(_ path: String) -> Bool {
    let characters = Array(path)
    // reach[i]: the tokens so far can end before character i.
    var reach = [Bool](repeating: false, count: characters.count + 1)
    reach[0] = true
    for token in tokens {
      var next = [Bool](repeating: false, count: characters.count + 1)
      switch token {
      case .literal(let wanted): for index in characters.indices where reach[index] && characters[index] == wanted { next[index + 1] = true }
      case .one: for index in characters.indices where reach[index] && characters[index] != "/" { next[index + 1] = true }
      case .set(let ranges, let negated):
        for index in characters.indices where reach[index] && characters[index] != "/" {
          if ranges.contains(where: { $0.contains(characters[index]) }) != negated { next[index + 1] = true }
        }
      case .some:
        var open = false
        for index in 0...characters.count {
          if index > 0, characters[index - 1] == "/" { open = false }
          open = open || reach[index]
          next[index] = open
        }
      case .all:
        var open = false
        for index in 0...characters.count {
          open = open || reach[index]
          next[index] = open
        }
      case .folders:
        var open = false
        for index in 0...characters.count {
          next[index] = reach[index] || open && characters[index - 1] == "/"
          open = open || reach[index]
        }
      }
      reach = next
    }
    return reach[characters.count]
  }
}
