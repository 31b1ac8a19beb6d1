/// The life of a task. It only rises; up to `assigned` only the manager writes it, after that only the agent.
/// Values and order are SwarmKit's (moby/swarmkit api/types.proto, design/task_model.md).
public enum TaskState: Int, Sendable, Codable, Comparable, CaseIterable, CustomStringConvertible {
  case new = 0
  case pending = 64
  case assigned = 192
  case accepted = 256
  case preparing = 320
  case ready = 384
  case starting = 448
  case running = 512
  case complete = 576
  case shutdown = 640
  case failed = 704
  case rejected = 768
  case remove = 800
  case orphaned = 832

  public static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }

  /// Docker's word for it in JSON and tables.
  public var description: String {
    switch self {
    case .new: "new"
    case .pending: "pending"
    case .assigned: "assigned"
    case .accepted: "accepted"
    case .preparing: "preparing"
    case .ready: "ready"
    case .starting: "starting"
    case .running: "running"
    case .complete: "complete"
    case .shutdown: "shutdown"
    case .failed: "failed"
    case .rejected: "rejected"
    case .remove: "remove"
    case .orphaned: "orphaned"
    }
  }

  public init?(name: String) {
    guard let state = Self.allCases.first(where: { $0.description == name }) else { return nil }
    self = state
  }

  /// Nothing more will happen to the container.
  public var isTerminal: Bool { self > .running }
}
