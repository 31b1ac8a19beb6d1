import Model
import Scheduler

/// Where a global service has its tasks.
public struct GlobalPlacement: Sendable {
  /// Nil: one that cannot be read, which admits no node.
  private let constraints: [Constraint?]

  public init(_ spec: ServiceSpec) {
    constraints = (spec.taskTemplate.placement?.constraints ?? []).map { try? Constraint($0) }
  }

  /// A task that is on the node may stay there.
  public func admits(_ node: Node) -> Bool { constraints.allSatisfy { $0?.admits(node) ?? false } }

  /// A node without a task gets one.
  public func wants(_ node: Node) -> Bool {
    node.status.state == .ready && node.spec.availability == .active && node.description != nil && admits(node)
  }
}
