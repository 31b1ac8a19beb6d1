import Model

/// Why a node does not take a task. The words are SwarmKit's where it has them (manager/scheduler/filter.go).
enum Objection: Int, CaseIterable, Sendable {
  case notReady, memory, cpu, constraints, platform, hostPort, maxReplicas

  func explain(_ count: Int) -> String {
    let nodes = count == 1 ? "1 node" : "\(count) nodes"
    return switch self {
    case .notReady: "\(nodes) not available for new tasks"
    case .memory: "insufficient memory on \(nodes)"
    case .cpu: "insufficient CPU on \(nodes)"
    case .constraints: "scheduling constraints not satisfied on \(nodes)"
    case .platform: "unsupported platform on \(nodes)"
    case .hostPort: "host-mode port already in use on \(nodes)"
    case .maxReplicas: "max replicas per node limit reached on \(nodes)"
    }
  }
}

/// How many nodes object for which reason.
struct Objections: Sendable {
  private var counts = [Int](repeating: 0, count: Objection.allCases.count)
  mutating func add(_ objection: Objection) { counts[objection.rawValue] += 1 }

  /// The commonest reason first.
  var explanation: String {
    let reasons = Objection.allCases.filter { counts[$0.rawValue] > 0 }.sorted { counts[$0.rawValue] > counts[$1.rawValue] }
    return reasons.isEmpty
      ? "no suitable node (no node has joined)"
      : "no suitable node (" + reasons.map { $0.explain(counts[$0.rawValue]) }.joined(separator: "; ") + ")"
  }
}

/// One service's filters, prepared once for a batch.
struct Filters: Sendable {
  var demand: Scheduler.Demand
  var constraints: [Constraint]
  var malformed: Bool
  var platforms: [Platform]
  var maxReplicas: Int32

  init(_ spec: ServiceSpec) {
    demand = Scheduler.Demand(spec)
    let placement = spec.taskTemplate.placement
    let texts = placement?.constraints ?? []
    constraints = texts.compactMap { try? Constraint($0) }
    malformed = constraints.count != texts.count
    platforms = placement?.platforms ?? []
    maxReplicas = Int32(clamping: placement?.maxReplicas ?? 0)
  }

  /// How many more tasks the node takes, or the first objection.
  func room(_ scheduler: borrowing Scheduler, at place: Int, running: Int32) -> Result<Int32, Refused> {
    let load = scheduler.loads[place]
    if !load.usable { return .failure(Refused(.notReady)) }
    var room = Int32.max
    if demand.memory > 0 {
      if load.memoryFree < demand.memory { return .failure(Refused(.memory)) }
      room = min(room, Int32(clamping: load.memoryFree / demand.memory))
    }
    if demand.cpu > 0 {
      if load.cpuFree < demand.cpu { return .failure(Refused(.cpu)) }
      room = min(room, Int32(clamping: load.cpuFree / demand.cpu))
    }
    if malformed { return .failure(Refused(.constraints)) }
    if !constraints.isEmpty, !constraints.allSatisfy({ $0.admits(scheduler.nodes[place]) }) { return .failure(Refused(.constraints)) }
    if !platforms.isEmpty, !runs(on: scheduler.nodes[place]) { return .failure(Refused(.platform)) }
    if !demand.ports.isEmpty {
      if demand.ports.contains(where: { scheduler.hostPorts[place].isTaken($0) || scheduler.takenPorts[place].isTaken($0) }) {
        return .failure(Refused(.hostPort))
      }
      room = 1
    }
    if maxReplicas > 0 {
      if running >= maxReplicas { return .failure(Refused(.maxReplicas)) }
      room = min(room, maxReplicas - running)
    }
    return .success(room)
  }

  /// Which filter a node that was filled by this batch would object with.
  func limit(_ scheduler: borrowing Scheduler, at place: Int, running: Int32, placed: Int32) -> Objection {
    if !demand.ports.isEmpty { return .hostPort }
    if maxReplicas > 0, running + placed >= maxReplicas { return .maxReplicas }
    if demand.memory > 0, scheduler.loads[place].memoryFree - Int64(placed) * demand.memory < demand.memory { return .memory }
    return .cpu
  }

  private func runs(on node: Node) -> Bool {
    guard let actual = node.description?.platform else { return false }
    return platforms.contains { wanted in
      (wanted.os ?? "").isEmpty || (wanted.os ?? "").lowercased() == (actual.os ?? "").lowercased()
        ? (wanted.architecture ?? "").isEmpty || sameArchitecture(wanted.architecture ?? "", actual.architecture ?? "") : false
    }
  }

  struct Refused: Error {
    var objection: Objection
    init(_ objection: Objection) { self.objection = objection }
  }
}
