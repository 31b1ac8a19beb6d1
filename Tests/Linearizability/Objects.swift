/// A value that is written, read, and replaced if it is what one thinks. Nil before the first write.
public enum Register: Specification {
  public enum Input: Hashable, Sendable {
    case read
    case write(Int64)
    case compareAndSet(expected: Int64?, new: Int64)
  }
  public enum Output: Hashable, Sendable {
    case value(Int64?)
    case written
    /// Whether the value was what was expected, and was replaced.
    case swapped(Bool)
  }
  public static var initial: Int64? { nil }

  public static func step(_ state: Int64?, _ input: Input, _ output: Output?) -> Int64?? {
    switch (input, output) {
    case (.read, .value(let value)): value == state ? .some(state) : nil
    case (.read, nil): .some(state)
    case (.write(let value), .written), (.write(let value), nil): .some(value)
    case (.compareAndSet(let expected, let new), .swapped(let swapped)):
      (state == expected) == swapped ? .some(swapped ? new : state) : nil
    case (.compareAndSet(let expected, let new), nil): .some(state == expected ? new : state)
    default: nil
    }
  }
}

/// Elements that are added, removed and read together.
public enum ElementSet: Specification {
  public enum Input: Hashable, Sendable {
    case read
    case add(Int64)
    case remove(Int64)
  }
  public enum Output: Hashable, Sendable {
    case elements(Set<Int64>)
    case done
    /// Whether it was added, or removed; false: it was there, or absent, already.
    case changed(Bool)
  }
  public static var initial: Set<Int64> { [] }

  public static func step(_ state: Set<Int64>, _ input: Input, _ output: Output?) -> Set<Int64>? {
    switch (input, output) {
    case (.read, .elements(let elements)): elements == state ? state : nil
    case (.read, nil): state
    case (.add(let element), .done), (.add(let element), nil): state.union([element])
    case (.remove(let element), .done), (.remove(let element), nil): state.subtracting([element])
    case (.add(let element), .changed(let added)): state.contains(element) != added ? state.union([element]) : nil
    case (.remove(let element), .changed(let removed)): state.contains(element) == removed ? state.subtracting([element]) : nil
    default: nil
    }
  }
}
