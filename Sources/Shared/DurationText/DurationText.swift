// DurationText: spans of time as people and other programs write them. Pure; it knows neither clocks nor where the text stood.

/// Go's form (time.ParseDuration), which Compose files, Dockerfiles and runc's options have: `1h5m30s20ms`, decimals allowed, 0 alone; never negative.
public enum DurationText {
  private static let units: [String: Double] = ["ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "h": 3600e9]

  /// nil: not such a text, or 292 years and more.
  public static func nanoseconds(_ text: String) -> Int64? {
    if text == "0" { return 0 }
    func isOfNumber(_ character: Character) -> Bool { character.isASCII && (character.isNumber || character == ".") }
    var rest = text[...]
    var total = 0.0
    guard !rest.isEmpty else { return nil }
    while !rest.isEmpty {
      let number = rest.prefix(while: isOfNumber)
      rest = rest.dropFirst(number.count)
      let unit = rest.prefix { !isOfNumber($0) }
      rest = rest.dropFirst(unit.count)
      guard let count = Double(number), let scale = units[String(unit)] else { return nil }
      total += count * scale
    }
    return total < 9.2e18 ? Int64(total.rounded()) : nil
  }
}
