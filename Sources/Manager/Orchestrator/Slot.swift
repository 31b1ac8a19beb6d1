import Model

/// The place of a replica, or of a global service's task on its node, with every task row it has.
struct Slot {
  /// 1… of a replicated service; for a global one 0 and the node.
  struct Key: Hashable, Comparable {
    var number: UInt64
    var node: NodeID?
    static func < (a: Self, b: Self) -> Bool {
      a.number != b.number ? a.number < b.number : (a.node?.value ?? 0) < (b.node?.value ?? 0)
    }
  }
  var key: Key
  /// Oldest first.
  var tasks: [ClusterTask]

  /// Meant to run, whether they do or not.
  var live: [ClusterTask] { tasks.filter { $0.desiredState <= .running } }
  var newest: ClusterTask { tasks[tasks.count - 1] }
  /// Every task of it is to be removed: scaled down.
  var isLeaving: Bool { tasks.allSatisfy { $0.desiredState == .remove } }
  /// Something of it may still run.
  var isBusy: Bool { tasks.contains { !$0.status.state.isTerminal && $0.status.state >= .assigned } }

  static func group(_ tasks: some Sequence<ClusterTask>, isGlobal: Bool) -> [Key: Slot] {
    var slots: [Key: Slot] = [:]
    for task in tasks {
      let key = Key(number: task.slot, node: isGlobal ? task.node : nil)
      slots[key, default: Slot(key: key, tasks: [])].tasks.append(task)
    }
    for key in slots.keys where slots[key]!.tasks.count > 1 { slots[key]!.tasks.sort { ($0.createdAt, $0.id) < ($1.createdAt, $1.id) } }
    return slots
  }
}
