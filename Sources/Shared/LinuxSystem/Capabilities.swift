import CCap
import CLinux
import Glibc

/// A set of capabilities (capabilities(7)) as the kernel's bit mask.
public struct CapabilitySet: Hashable, Sendable, CustomStringConvertible {
  public var rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }

  /// "CAP_CHOWN", "chown" or "Chown"; nil for a name that libcap does not know.
  public init?(name: String) {
    let lower = name.lowercased()
    var value: cap_value_t = 0
    guard cap_from_name(lower.hasPrefix("cap_") ? lower : "cap_" + lower, &value) == 0, value >= 0, value < 64 else { return nil }
    rawValue = 1 << UInt64(value)
  }

  public func union(_ other: Self) -> Self { Self(rawValue: rawValue | other.rawValue) }
  public func subtracting(_ other: Self) -> Self { Self(rawValue: rawValue & ~other.rawValue) }
  public func intersection(_ other: Self) -> Self { Self(rawValue: rawValue & other.rawValue) }
  public func isSuperset(of other: Self) -> Bool { rawValue & other.rawValue == other.rawValue }

  /// "CAP_CHOWN" and so on, ascending by number.
  public var names: [String] {
    (0..<64).filter { rawValue >> UInt64($0) & 1 == 1 }.map { value in
      guard let name = cap_to_name(cap_value_t(value)) else { return "CAP_\(value)" }
      defer { cap_free(name) }
      return String(cString: name).uppercased()
    }
  }
  public var description: String { names.joined(separator: ",") }

  /// All that this kernel knows.
  public static let all: Self = {
    // PR_CAPBSET_READ is EINVAL beyond the last capability.
    var count: UInt64 = 0
    while count < 64, clinux_prctl(23, UInt(count), 0, 0, 0) >= 0 { count += 1 }
    return Self(rawValue: count >= 64 ? .max : (1 << count) - 1)
  }()
  /// The bounding set of this process: what it may hand on at most.
  public static let bounding: Self = {
    var mask: UInt64 = 0
    for value in 0..<64 where clinux_prctl(23, UInt(value), 0, 0, 0) == 1 { mask |= 1 << UInt64(value) }
    return Self(rawValue: mask)
  }()
}
