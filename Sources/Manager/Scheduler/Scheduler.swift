import Model

// Scheduler: which node runs a task.
//
// Filters say no and why; among the nodes that are left the one with the fewest tasks of the service wins, then the one with the
// fewest tasks at all. A batch of equal tasks is placed at once: one pass over the nodes, then a heap (SwarmKit's
// manager/scheduler keeps a tree of nodes for the same reason).
//
// Invariants
// - What a task reserved stays reserved until it is terminal or its row is gone, whatever is desired of it.
// - Only tasks that are meant to run count for spreading: what is being stopped does not push its replacement away.
// - Seeing a change twice does no harm; everything can be rebuilt from the state.
//
// It refuses to know why a task exists and which addresses it has.

public struct Scheduler: Sendable {
  /// What changes often, kept small and in one array: the pass over all nodes reads only this.
  struct Load: Sendable {
    var usable = false
    var cpuFree: Int64 = 0
    var memoryFree: Int64 = 0
    var tasks: Int32 = 0
  }

  /// What one task takes from its node.
  struct Share: Sendable {
    var place: Int
    var service: ServiceID
    var counts: Bool
    var demand: Demand
  }

  /// What a spec asks of a node.
  struct Demand: Sendable {
    var cpu: Int64 = 0
    var memory: Int64 = 0
    /// In host mode.
    var ports: [PortClaim] = []
  }

  var loads: [Load] = []
  var nodes: [Node] = []
  var places: [NodeID: Int] = [:]
  var hostPorts: [PortClaims<TaskID>] = []
  /// Those that processes of the node have, as far as its agent knows.
  var takenPorts: [PortClaims<NodeDescription.Holder?>] = []
  var shares: [TaskID: Share] = [:]
  var serviceTasks: [ServiceID: [Int: Int32]] = [:]
  var failures: [ServiceID: [Int: [Timestamp]]] = [:]
  var demands: [ServiceRevision.Key: Demand] = [:]
  /// A node may take more than before: pending tasks are worth another try.
  public internal(set) var freed = false

  /// This many failures of a service on a node within this time rank the node last for it (SwarmKit scheduler/nodeinfo.go).
  public static let failuresMax = 5
  public static let failureWindow = Nanoseconds.seconds(300)

  public init() {}

  public mutating func clearFreed() { freed = false }
}

/// Where a batch of equal tasks goes.
public struct Placement: Hashable, Sendable {
  /// As many as could be placed, in order.
  public var nodes: [NodeID]
  /// Why the rest could not; nil when all were.
  public var shortfall: String?
}

/// What a placement preference spreads over.
public enum SpreadKey: Hashable, Sendable {
  case label(String)
  case engineLabel(String)

  public init?(_ descriptor: String) {
    if descriptor.lowercased().hasPrefix("node.labels."), descriptor.utf8.count > 12 {
      self = .label(String(descriptor.dropFirst(12)))
    } else if descriptor.lowercased().hasPrefix("engine.labels."), descriptor.utf8.count > 14 {
      self = .engineLabel(String(descriptor.dropFirst(14)))
    } else {
      return nil
    }
  }

  /// A node without the label belongs to the group of the empty value.
  public func value(of node: Node) -> String {
    switch self {
    case .label(let name): node.spec.labels?[name] ?? ""
    case .engineLabel(let name): node.description?.engine.labels?[name] ?? ""
    }
  }
}
