import Model
import Orchestrator
import Scheduler

/// Where tasks go, without consensus or disk.
enum PlacementBench {
  static func run(nodes count: Int, tasks: Int) {
    var state = ClusterState()
    var actions: [Action] = [.putCluster(Cluster(id: ClusterID(value: 1), createdAt: World.start))]
    for number in 0..<count { actions.append(.putNode(World.node(number))) }
    let services = max(1, tasks / 1000)
    for number in 0..<services {
      actions.append(.putService(Service(id: World.serviceID(number), name: "stack_service\(number)", createdAt: World.start)))
      let key = ServiceRevision.Key(World.serviceID(number), 1)
      actions.append(
        .putRevision(ServiceRevision(key: key, spec: World.spec(number, replicas: tasks / services), template: 1, createdAt: World.start)))
    }
    state.restore(index: 1, actions: actions)
    scheduler(state, tasks)
    reconciler(state, tasks)
  }

  /// Placement alone: a batch of 1,000 equal tasks a service, what was placed before counted.
  private static func scheduler(_ state: ClusterState, _ tasks: Int) {
    var scheduler = Scheduler()
    scheduler.reset(state)
    var placed = 0
    var worst = 0.0
    let took = seconds {
      for service in state.services.values {
        let began = ContinuousClock.now
        let spec = state.spec(of: service)!
        let placement = scheduler.place(service.id, spec: spec, count: min(1000, tasks), now: World.start)
        placed += placement.nodes.count
        worst = max(worst, began.duration(to: .now) / .seconds(1))
        guard placed < tasks else { break }
      }
    }
    report("scheduler: placed", placed)
    report("scheduler: placements/s", Double(placed) / took)
    report("scheduler: worst batch of 1000 ms", worst * 1e3)
  }

  /// The whole decision: tasks made, addressed, placed, and applied to the state as the leader does.
  private static func reconciler(_ start: ClusterState, _ tasks: Int) {
    var state = start
    var reconciler = Reconciler()
    reconciler.reset(state)
    var generator = SystemRandomNumberGenerator()
    var changes: [StateChange] = []
    var deciding = 0.0
    var applying = 0.0
    var worst = 0.0
    var decisions = 0
    while state.tasks.count < tasks {
      var decision = Decision()
      let took = seconds { decision = reconciler.step(state: state, changes: changes, now: World.start, generator: &generator) }
      deciding += took
      worst = max(worst, took)
      decisions += 1
      guard let command = decision.command else { break }
      applying += seconds {
        if case .success(let made) = state.apply(command, at: state.index + 1) { changes = made }
      }
    }
    let assigned = state.tasks.values.count { $0.node != nil }
    report("reconciler: assigned", assigned)
    report("reconciler: placements/s", Double(assigned) / deciding)
    report("reconciler: with applying, placements/s", Double(assigned) / (deciding + applying))
    report("reconciler: decisions", decisions)
    report("reconciler: worst decision ms", worst * 1e3)
    report("reconciler: RSS MiB", memory("VmRSS"))
  }
}
