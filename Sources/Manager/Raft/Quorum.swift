/// Majorities of a configuration; in a joint one both halves must have theirs. Groups have at most a handful of voters:
/// counting in place is faster than sorting a copy.
enum Quorum {
  enum Outcome { case won, lost, pending }

  /// The highest value that a quorum has reached. `UInt64.max` if nobody votes.
  static func reached(_ members: [Progress], _ value: (Progress) -> UInt64) -> UInt64 {
    min(half(members, \.isIncomingVoter, value), half(members, \.isOutgoingVoter, value))
  }

  static func outcome(_ members: [Progress], _ vote: (Progress) -> Bool?) -> Outcome {
    switch (half(members, \.isIncomingVoter, vote), half(members, \.isOutgoingVoter, vote)) {
    case (.lost, _), (_, .lost): .lost
    case (.won, .won): .won
    default: .pending
    }
  }

  private static func half(_ members: [Progress], _ isIn: (Progress) -> Bool, _ value: (Progress) -> UInt64) -> UInt64 {
    var size = 0
    for member in members where isIn(member) { size += 1 }
    if size == 0 { return .max }
    var best: UInt64 = 0
    for member in members where isIn(member) {
      let candidate = value(member)
      if candidate <= best { continue }
      var count = 0
      for other in members where isIn(other) && value(other) >= candidate { count += 1 }
      if count > size / 2 { best = candidate }
    }
    return best
  }

  private static func half(_ members: [Progress], _ isIn: (Progress) -> Bool, _ vote: (Progress) -> Bool?) -> Outcome {
    var (size, yes, no) = (0, 0, 0)
    for member in members where isIn(member) {
      size += 1
      switch vote(member) {
      case true?: yes += 1
      case false?: no += 1
      case nil: break
      }
    }
    if yes > size / 2 || size == 0 { return .won }
    return no >= size - size / 2 ? .lost : .pending
  }
}
