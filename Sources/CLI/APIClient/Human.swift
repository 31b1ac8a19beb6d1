import Model

/// Docker's words for spans of time (docker/go-units HumanDuration): "5 seconds", "About a minute", "3 hours".
public func humanDuration(_ span: Nanoseconds) -> String {
  let seconds = max(0, span.rawValue / 1_000_000_000)
  switch seconds {
  case 0: return "Less than a second"
  case 1: return "1 second"
  case ..<60: return "\(seconds) seconds"
  case ..<120: return "About a minute"
  case ..<3600: return "\(seconds / 60) minutes"
  default: break
  }
  let hours = (seconds + 1800) / 3600
  switch hours {
  case 1: return "About an hour"
  case ..<48: return "\(hours) hours"
  case ..<(24 * 7 * 2): return "\(hours / 24) days"
  case ..<(24 * 30 * 2): return "\(hours / 24 / 7) weeks"
  case ..<(24 * 365 * 2): return "\(hours / 24 / 30) months"
  default: return "\(hours / 24 / 365) years"
  }
}

/// Decimal units with up to three significant digits, as Docker shows images: "1.24MB".
public func humanSize(_ bytes: Int64) -> String { scaled(bytes, by: 1000, ["B", "kB", "MB", "GB", "TB", "PB"], digits: 3) }

/// Binary units with up to four significant digits, as docker stats shows memory: "1.953MiB".
public func humanBinarySize(_ bytes: Int64) -> String { scaled(bytes, by: 1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"], digits: 4) }

private func scaled(_ bytes: Int64, by step: Double, _ units: [String], digits: Int) -> String {
  var value = Double(bytes)
  var unit = 0
  while value >= step, unit < units.count - 1 {
    value /= step
    unit += 1
  }
  let whole = value >= 1000 ? 4 : value >= 100 ? 3 : value >= 10 ? 2 : 1
  let scale = [1.0, 10, 100, 1000][max(0, digits - whole)]
  var text = "\((value * scale).rounded() / scale)"
  if text.hasSuffix(".0") { text.removeLast(2) }
  return text + units[unit]
}

/// Two decimals, as docker stats shows shares: "0.07%".
public func humanPercent(_ percent: Double) -> String {
  let hundredths = Int64((max(0, percent) * 100).rounded())
  return "\(hundredths / 100).\(hundredths % 100 < 10 ? "0" : "")\(hundredths % 100)%"
}

/// "90s", "5m", "1h30m", "2d" as nanoseconds; nil when it is none.
public func parseSpan(_ text: String) -> Nanoseconds? {
  var total: Int64 = 0
  var digits = ""
  guard !text.isEmpty else { return nil }
  for character in text {
    if character.isASCII, character.isNumber {
      digits.append(character)
      continue
    }
    let scales: [Character: Int64] = ["s": 1, "m": 60, "h": 3600, "d": 86_400]
    guard let scale = scales[character], let count = Int64(digits), count < 1_000_000_000 else { return nil }
    total += count * scale
    digits = ""
  }
  let (nanoseconds, overflowed) = total.multipliedReportingOverflow(by: 1_000_000_000)
  return digits.isEmpty && !overflowed ? Nanoseconds(nanoseconds) : nil
}

/// A moment as docker's clients write it for `since` and `until`: RFC 3339, seconds since 1970 (up to nine decimals), or a span before `now`; as the API reads
/// it, in seconds since 1970. nil when it is none.
public func parseMoment(_ text: String, now: Timestamp) -> String? {
  func seconds(_ instant: Timestamp) -> String {
    let fraction = String(instant.nanoseconds % 1_000_000_000)
    return "\(instant.nanoseconds / 1_000_000_000).\(String(repeating: "0", count: 9 - fraction.count))\(fraction)"
  }
  if let instant = Timestamp(text) { return seconds(instant) }
  if let span = parseSpan(text) { return seconds(Timestamp(nanoseconds: max(0, now.nanoseconds - span.rawValue))) }
  let parts = text.split(separator: ".", omittingEmptySubsequences: false)
  let isNumber = parts.allSatisfy { !$0.isEmpty && $0.allSatisfy { $0.isASCII && $0.isNumber } }
  return isNumber && parts.count <= 2 && parts[0].count <= 10 && (parts.count == 1 || parts[1].count <= 9) ? text : nil
}
