/// A span of time as Docker's API writes it: whole nanoseconds.
public struct Nanoseconds: Hashable, Comparable, Sendable, Codable, ExpressibleByIntegerLiteral {
  public var rawValue: Int64
  public init(_ rawValue: Int64) { self.rawValue = rawValue }
  public init(integerLiteral value: Int64) { rawValue = value }
  public static func seconds(_ count: Double) -> Self { Self(Int64(count * 1e9)) }
  public static func milliseconds(_ count: Int64) -> Self { Self(count * 1_000_000) }
  public var duration: Duration { .nanoseconds(rawValue) }
  public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
  public init(from decoder: any Decoder) throws { rawValue = try decoder.singleValueContainer().decode(Int64.self) }
  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(rawValue)
  }
}

/// A wall-clock instant in nanoseconds since 1970 (UTC). JSON form: RFC 3339 with up to nine decimals, as Docker's.
public struct Timestamp: Hashable, Comparable, Sendable, LosslessStringConvertible {
  public var nanoseconds: Int64
  public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }
  public static let zero = Timestamp(nanoseconds: 0)
  public static func < (a: Self, b: Self) -> Bool { a.nanoseconds < b.nanoseconds }
  /// Saturates: a time made of outside numbers never traps.
  public static func + (a: Self, b: Nanoseconds) -> Self {
    let (sum, overflowed) = a.nanoseconds.addingReportingOverflow(b.rawValue)
    return Self(nanoseconds: overflowed ? (b.rawValue > 0 ? .max : .min) : sum)
  }
  public static func - (a: Self, b: Self) -> Nanoseconds {
    let (difference, overflowed) = a.nanoseconds.subtractingReportingOverflow(b.nanoseconds)
    return Nanoseconds(overflowed ? (a > b ? .max : .min) : difference)
  }

  public var description: String {
    let (seconds, fraction) = (floorDivide(nanoseconds, 1_000_000_000), floorModulo(nanoseconds, 1_000_000_000))
    let (days, secondOfDay) = (floorDivide(seconds, 86_400), floorModulo(seconds, 86_400))
    let (year, month, day) = civil(fromDays: days)
    var text =
      "\(pad(year, 4))-\(pad(month, 2))-\(pad(day, 2))T\(pad(secondOfDay / 3600, 2)):\(pad(secondOfDay / 60 % 60, 2)):\(pad(secondOfDay % 60, 2))"
    if fraction > 0 {
      var digits = pad(fraction, 9)
      while digits.last == "0" { digits.removeLast() }
      text += "." + digits
    }
    return text + "Z"
  }

  /// As Docker's logs have it: with nine decimals always, so that texts sort as times do.
  public var withNineDecimals: String {
    let text = description.dropLast()
    guard let dot = text.lastIndex(of: ".") else { return text + ".000000000Z" }
    let decimals = text.distance(from: dot, to: text.endIndex) - 1
    return text + String(repeating: "0", count: 9 - decimals) + "Z"
  }

  /// Parses RFC 3339 (any offset, any number of decimals; beyond nine are cut).
  public init?(_ text: String) {
    let bytes = Array(text.utf8)
    func number(_ from: Int, _ count: Int) -> Int64? {
      guard from + count <= bytes.count else { return nil }
      var value: Int64 = 0
      for byte in bytes[from..<from + count] {
        guard byte >= 48, byte <= 57 else { return nil }
        value = value * 10 + Int64(byte - 48)
      }
      return value
    }
    guard bytes.count >= 20, bytes[4] == 45, bytes[7] == 45, bytes[10] == 84 || bytes[10] == 116 || bytes[10] == 32, bytes[13] == 58, bytes[16] == 58,
      let year = number(0, 4), let month = number(5, 2), let day = number(8, 2), (1...12).contains(month), (1...31).contains(day),
      let hour = number(11, 2), let minute = number(14, 2), let second = number(17, 2), hour < 24, minute < 60, second <= 60
    else { return nil }
    var position = 19
    var fraction: Int64 = 0
    if bytes[position] == 46 {
      position += 1
      var scale: Int64 = 100_000_000
      let start = position
      while position < bytes.count, bytes[position] >= 48, bytes[position] <= 57 {
        fraction += Int64(bytes[position] - 48) * scale
        scale /= 10
        position += 1
      }
      guard position > start else { return nil }
    }
    guard position < bytes.count else { return nil }
    var offset: Int64 = 0
    switch bytes[position] {
    case 90, 122: guard position + 1 == bytes.count else { return nil }
    case 43, 45:
      guard position + 6 == bytes.count, bytes[position + 3] == 58, let hours = number(position + 1, 2), let minutes = number(position + 4, 2)
      else { return nil }
      offset = (hours * 3600 + minutes * 60) * (bytes[position] == 43 ? 1 : -1)
    default: return nil
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset
    let (scaled, overflowed) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
    let (sum, carried) = scaled.addingReportingOverflow(fraction)
    // A year beyond 2262 does not fit; Go's zero time (year 1) does not either and means "not set".
    self.nanoseconds = overflowed || carried ? (year < 1970 ? 0 : .max) : sum
  }
}

extension Timestamp: TextCodable {
  public static var kindOfText: String { "a time in RFC 3339" }
}

private func floorDivide(_ a: Int64, _ b: Int64) -> Int64 { a >= 0 ? a / b : (a - b + 1) / b }
private func floorModulo(_ a: Int64, _ b: Int64) -> Int64 { ((a % b) + b) % b }
private func pad(_ value: Int64, _ width: Int) -> String {
  let digits = String(value)
  return String(repeating: "0", count: max(0, width - digits.utf8.count)) + digits
}

// Days since 1970 to the civil calendar and back: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
private func civil(fromDays days: Int64) -> (Int64, Int64, Int64) {
  let shifted = days + 719_468
  let era = floorDivide(shifted, 146_097)
  let dayOfEra = shifted - era * 146_097
  let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
  let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
  let monthIndex = (5 * dayOfYear + 2) / 153
  let day = dayOfYear - (153 * monthIndex + 2) / 5 + 1
  let month = monthIndex < 10 ? monthIndex + 3 : monthIndex - 9
  return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, day)
}
private func days(_ year: Int64, _ month: Int64, _ day: Int64) -> Int64 {
  let year = month <= 2 ? year - 1 : year
  let era = floorDivide(year, 400)
  let yearOfEra = year - era * 400
  let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
  return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
}

/// Sizes as people write them.
public enum ByteSize {
  /// `64m`, `1.5gb`, `1024`, `2GiB`: units are powers of 1024, as Docker's of memory. nil: no size, or more than an Int64 holds; never negative.
  /// - Parameter thousand: 1000 for what Docker reads by the other of its functions (docker/go-units, RAMInBytes and FromHumanSize), whatever the unit's name.
  public static func parse(_ text: String, thousand: Double = 1024) -> Int64? {
    let number = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
    var unit = String(text.dropFirst(number.count)).lowercased()
    if unit.hasPrefix(" ") { unit.removeFirst() }
    if unit.count > 1, unit.hasSuffix("ib") { unit.removeLast(2) } else if unit.count > 1, unit.hasSuffix("b") { unit.removeLast() }
    let powers = ["": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5]
    guard let count = Double(number), let power = powers[unit] else { return nil }
    let size = (0..<power).reduce(count) { size, _ in size * thousand }
    return size < 9.2e18 ? Int64(size) : nil
  }
}
