import Model

/// A change of the members, proposed as one entry. No changes at all: leave the joint configuration.
public struct ConfigurationChange: Hashable, Sendable {
  public enum Transition: UInt8, Hashable, Sendable {
    /// One voter at a time directly, several through a joint configuration that the leader leaves by itself.
    case auto = 0
    /// Joint, left by the leader itself.
    case jointImplicit = 1
    /// Joint, left by a proposal of `ConfigurationChange.leaveJoint`.
    case jointExplicit = 2
  }
  public enum Change: Hashable, Sendable {
    case addVoter(RaftID)
    case addLearner(RaftID)
    case remove(RaftID)
  }

  public var transition: Transition
  public var changes: [Change]
  /// Opaque: for example the new member's node id and address.
  public var context: [UInt8]

  public init(_ changes: [Change], transition: Transition = .auto, context: [UInt8] = []) {
    self.transition = transition
    self.changes = changes
    self.context = context
  }
  public static let leaveJoint = ConfigurationChange([])

  /// Nil: a simple change; otherwise whether the joint configuration is to be left by itself.
  var jointAutoLeave: Bool? {
    switch transition {
    case .auto: changes.count > 1 ? true : nil
    case .jointImplicit: true
    case .jointExplicit: false
    }
  }

  /// Version 1, transition, number of changes, (kind, id) each, then the context; integers big endian.
  public var encoded: [UInt8] {
    var bytes: [UInt8] = [1, transition.rawValue, UInt8(clamping: changes.count)]
    bytes.reserveCapacity(3 + 9 * changes.count + context.count)
    for change in changes.prefix(255) {
      let (kind, id): (UInt8, RaftID) =
        switch change {
        case .addVoter(let id): (0, id)
        case .addLearner(let id): (1, id)
        case .remove(let id): (2, id)
        }
      bytes.append(kind)
      for shift in stride(from: 56, through: 0, by: -8) { bytes.append(UInt8(truncatingIfNeeded: id.rawValue >> UInt64(shift))) }
    }
    return bytes + context
  }

  /// Nil for anything that `encoded` would not write.
  public init?(decoding bytes: [UInt8]) {
    guard bytes.count >= 3, bytes[0] == 1, let transition = Transition(rawValue: bytes[1]) else { return nil }
    let count = Int(bytes[2])
    guard bytes.count >= 3 + 9 * count else { return nil }
    var changes: [Change] = []
    for position in 0..<count {
      let start = 3 + 9 * position
      let id = RaftID(bytes[start + 1..<start + 9].reduce(0) { $0 << 8 | UInt64($1) })
      switch bytes[start] {
      case 0: changes.append(.addVoter(id))
      case 1: changes.append(.addLearner(id))
      case 2: changes.append(.remove(id))
      default: return nil
      }
    }
    self.init(changes, transition: transition, context: Array(bytes[(3 + 9 * count)...]))
  }
}
