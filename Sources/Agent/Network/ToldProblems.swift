/// What is told of problems that comparison after comparison finds: each when it begins and when its text becomes another.
///
/// Not that one is over: some are found once, and not looked for again.
public struct ToldProblems: Sendable {
  private var told: Set<NetworkProblem> = []
  public init() {}

  /// - Parameter problems: all that one comparison found.
  /// - Returns: those that the one before did not find, once each and in their order.
  public mutating func step(_ problems: [NetworkProblem]) -> [NetworkProblem] {
    let before = told
    told = []
    return problems.filter { told.insert($0).inserted && !before.contains($0) }
  }
}
