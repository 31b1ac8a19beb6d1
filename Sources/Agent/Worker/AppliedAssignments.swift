/// How far this host lives by its assignments, so that the leader may be told, and when to try again what did not succeed.
/// Told is what the kernel has **and** the disk keeps: an agent that starts again knows its disk alone until a manager answers, and would else go back
/// behind its word: to tasks that were stopped and addresses that others have by then, since it was told that nobody is sent there any more.
public struct AppliedAssignments: Sendable {
  /// What was known when a pass over the kernel or the disk began. Sequence numbers mean something within their session alone.
  public struct Mark: Hashable, Sendable {
    fileprivate var session: Int
    fileprivate var sequence: UInt64?
  }
  /// The number of the session, and of its stream.
  public private(set) var session = 0
  private var networks: UInt64?
  private var kept: UInt64?
  private var told: UInt64?
  /// Rules or forwarding entries of the last pass were refused. A leader that hears nothing goes on by its own bounds.
  private var isWhole = true
  private var failures = (networks: 0, disk: 0)

  public init() {}

  public static let (first, most) = (Duration.milliseconds(250), Duration.seconds(5))

  /// - Parameter sequence: the worker's; nil before a session's first assignments.
  public func mark(_ sequence: UInt64?) -> Mark { Mark(session: session, sequence: sequence) }

  /// - Parameter number: higher than that of any session before.
  public mutating func sessionOpened(_ number: Int) {
    session = number
    (networks, kept, told) = (nil, nil, nil)
  }

  /// Assignments came while no pass over the kernel runs or is to run: they ask nothing of it.
  public mutating func unchanged(_ mark: Mark) {
    if isWhole, mark.session == session { networks = mark.sequence }
  }

  /// After each pass over the kernel.
  /// - Parameters:
  ///   - isWhole: names, rules and forwarding entries are as they were asked for.
  ///   - isDone: so is all else that another pass may bring about.
  /// - Returns: how long to wait before the next; nil: nothing is left to do.
  public mutating func passed(_ mark: Mark, isWhole: Bool, isDone: Bool) -> Duration? {
    self.isWhole = isWhole
    unchanged(mark)
    return Self.pause(&failures.networks, isDone)
  }

  /// After each writing of the assignments to the disk.
  /// - Returns: as `passed`.
  public mutating func written(_ mark: Mark, succeeded: Bool) -> Duration? {
    if succeeded, mark.session == session { kept = mark.sequence }
    return Self.pause(&failures.disk, succeeded)
  }

  private static func pause(_ failures: inout Int, _ succeeded: Bool) -> Duration? {
    failures = succeeded ? 0 : failures + 1
    return succeeded ? nil : min(first * (1 << min(failures - 1, 10)), most)
  }

  /// What the leader may be told now; nil: nothing new.
  public mutating func toTell() -> UInt64? {
    guard let networks, let kept, told.map({ $0 < min(networks, kept) }) ?? true else { return nil }
    told = min(networks, kept)
    return told
  }
}
