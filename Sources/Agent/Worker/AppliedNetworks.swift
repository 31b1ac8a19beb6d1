/// Whether this host's networks are as they were assigned, so that the leader may be told; and when to try again while they are not.
public struct AppliedNetworks: Sendable {
  private var failures = 0
  public init() {}

  /// false: rules or forwarding entries of the last pass were refused. A leader that hears nothing goes on by its own bounds.
  public var isWhole: Bool { failures == 0 }

  public static let (first, most) = (Duration.milliseconds(250), Duration.seconds(5))

  /// After each pass.
  /// - Returns: how long to wait before the next; nil: nothing is left to do.
  public mutating func passed(isWhole: Bool) -> Duration? {
    failures = isWhole ? 0 : failures + 1
    return isWhole ? nil : min(Self.first * (1 << min(failures - 1, 10)), Self.most)
  }
}
