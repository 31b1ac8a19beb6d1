import DurationText
import Model

extension Reader {
  /// Any scalar, as it is written.
  func text(_ value: Value, _ expected: String = "text") -> String? {
    if case .scalar(let text, _) = value.kind { return text }
    error(value, "expected \(expected), found \(value.found)")
    return nil
  }

  func nonEmpty(_ value: Value, _ expected: String = "text") -> String? {
    guard let text = text(value, expected) else { return nil }
    if text.isEmpty {
      error(value, "expected \(expected), found nothing")
      return nil
    }
    return text
  }

  /// `true` and `false` only: YAML 1.1's other words mean text to YAML 1.2 and to docker.
  func bool(_ value: Value) -> Bool? {
    if case .scalar(let text, _) = value.kind {
      switch text.lowercased() {
      case "true": return true
      case "false": return false
      case "yes", "on", "y": error(value, "expected true or false, found \(value.found)", "write true")
      case "no", "off", "n": error(value, "expected true or false, found \(value.found)", "write false")
      default: error(value, "expected true or false, found \(value.found)")
      }
      return nil
    }
    error(value, "expected true or false, found \(value.found)")
    return nil
  }

  /// A decimal whole number within `range`.
  func integer(_ value: Value, _ range: ClosedRange<Int64>) -> Int64? {
    let upper = range.upperBound == .max ? "" : " and at most \(range.upperBound)"
    let expected = "a whole number of \(range.lowerBound) or more"
    guard case .scalar(let text, _) = value.kind else {
      error(value, "expected \(expected), found \(value.found)")
      return nil
    }
    if text.count > 1, text.hasPrefix("0"), text.utf8.allSatisfy({ (48...57).contains($0) }) {
      error(value, "expected \(expected), found \(value.found), which YAML 1.1 reads as octal", "write it without the leading zero")
      return nil
    }
    guard isNumber(text), !text.contains(".") else {
      error(value, "expected \(expected), found \(value.found)")
      return nil
    }
    guard let number = Int64(text), range.contains(number) else {
      error(value, "expected \(expected)\(text.hasPrefix("-") ? "" : upper), found \(value.found)")
      return nil
    }
    return number
  }

  func choice<C: RawRepresentable<String>>(_ value: Value, _ choices: [C]) -> C? {
    let list = choices.map { "'\($0.rawValue)'" }.joined(separator: ", ")
    guard case .scalar(let text, _) = value.kind, let choice = choices.first(where: { $0.rawValue == text }) else {
      error(value, "expected one of \(list), found \(value.found)")
      return nil
    }
    return choice
  }

  /// Go's form: `1h5m30s20ms`, decimals allowed; never negative.
  func duration(_ value: Value) -> Nanoseconds? {
    guard case .scalar(let text, _) = value.kind, let span = DurationText.nanoseconds(text) else {
      let advice = isNumber((try? scalar(value)) ?? "") ? "add a unit: s, m, h, ms, us or ns" : ""
      error(value, "expected a duration such as 10s or 1m30s, found \(value.found)", advice)
      return nil
    }
    return Nanoseconds(span)
  }

  /// `64m`, `1.5gb`, `1024`: units are powers of 1024, as Docker's.
  func bytes(_ value: Value, minimum: Int64 = 0) -> Int64? {
    guard case .scalar(let text, _) = value.kind, let size = ByteSize.parse(text) else {
      error(value, "expected a size such as 64m or 1g, found \(value.found)", "units are b, k, m, g, t")
      return nil
    }
    if size < minimum {
      error(value, "expected at least \(minimum) bytes, found \(value.found)")
      return nil
    }
    return size
  }

  /// A number of CPUs in 10^-9.
  func nanoCPUs(_ value: Value) -> Int64? {
    guard case .scalar(let text, _) = value.kind, isNumber(text), !text.hasPrefix("-"), let count = Double(text), count > 0, count <= 10_000
    else {
      error(value, "expected a number of CPUs greater than 0 such as 0.5, found \(value.found)")
      return nil
    }
    return Int64((count * 1e9).rounded())
  }

  /// A list of scalars.
  func texts(_ value: Value, _ expected: String = "a list of texts") -> [String]? {
    guard case .list(let items) = value.kind else {
      error(value, "expected \(expected), found \(value.found)")
      return nil
    }
    return items.compactMap { text($0) }
  }

  /// A list of scalars, or one alone.
  func oneOrMore(_ value: Value) -> [(value: Value, text: String)] {
    switch value.kind {
    case .scalar(let text, _): return [(value, text)]
    case .list(let items): return items.compactMap { item in text(item).map { (item, $0) } }
    default:
      error(value, "expected text or a list of texts, found \(value.found)")
      return []
    }
  }

  /// A map of scalars, or a list of `KEY=VALUE`. A key without a value gives nil.
  func pairs(_ value: Value, separators: String = "=") -> [(key: String, text: String?, value: Value)] {
    switch value.kind {
    case .map(let entries):
      return entries.compactMap { entry in
        if entry.value.isNull { return (entry.key, nil, entry.value) }
        return text(entry.value, "text, a number or true or false").map { (entry.key, $0, entry.value) }
      }
    case .list(let items):
      return items.compactMap { item in
        guard let text = text(item, "KEY=VALUE") else { return nil }
        guard let split = text.firstIndex(where: { separators.contains($0) }) else { return (text, nil, item) }
        guard split > text.startIndex else {
          error(item, "expected KEY=VALUE, found \(item.found)", "name the key before '\(text[split])'")
          return nil
        }
        return (String(text[..<split]), String(text[text.index(after: split)...]), item)
      }
    default:
      error(value, "expected a map or a list of KEY=VALUE, found \(value.found)")
      return []
    }
  }

  /// Labels, sysctls: keys without a value are empty.
  func dictionary(_ value: Value) -> [String: String] {
    var result: [String: String] = [:]
    for pair in pairs(value) {
      if result.updateValue(pair.text ?? "", forKey: pair.key) != nil {
        error(pair.value, "'\(pair.key)' stands twice", "keep one of them")
      }
    }
    return result
  }

  private func scalar(_ value: Value) throws -> String {
    if case .scalar(let text, _) = value.kind { return text }
    return ""
  }
}
