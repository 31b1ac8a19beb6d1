import Model
import Testing

@testable import Orchestrator

@Suite struct UpdateTests {
  func config(_ change: (inout UpdateConfig) -> Void) -> UpdateConfig {
    var config = UpdateConfig()
    change(&config)
    return config
  }

  @Test(
    "an update rolls in the declared order and parallelism without a fixed sleep", arguments: [UpdateConfig.Order.stopFirst, .startFirst], [1, 2, 0])
  func rolls(_ order: UpdateConfig.Order, _ parallelism: UInt64) throws {
    var world = World(nodes: 3)
    let id = try world.create("web", replicas: 6) {
      $0.updateConfig = self.config {
        $0.order = order
        $0.parallelism = parallelism
      }
    }
    world.settle()
    try world.update(id) { $0.taskTemplate.containerSpec.image = "app:2" }
    var fewest = 6
    var most = 6
    let begin = world.now
    while world.images(id) != Array(repeating: "app:2", count: 6), (world.now - begin).rawValue < 1_000_000 {
      _ = world.decide()
      _ = world.agents()
      world.now.nanoseconds += 1_000
      let running = world.state.tasks(of: id).count { $0.status.state == .running }
      fewest = min(fewest, running)
      most = max(most, running)
      // Stop-first: two tasks of a slot never run at a time.
      if order == .stopFirst {
        let slots = world.state.tasks(of: id).filter { $0.status.state == .running }.map(\.slot)
        #expect(Set(slots).count == slots.count)
      }
    }
    let step = parallelism == 0 ? 6 : Int(parallelism)
    #expect(fewest == (order == .stopFirst ? 6 - step : 6))
    #expect(most == (order == .stopFirst ? 6 : 6 + step))
    #expect(world.images(id) == Array(repeating: "app:2", count: 6))
    world.settle()
    #expect(world.status(id) == "updating: update in progress")
    world.run(for: .seconds(6))
    #expect(world.status(id) == "completed: update completed")
    #expect(world.running(id).count == 6)
    #expect(world.violations == [])
  }

  @Test("the delay lies between one batch and the next")
  func delay() throws {
    var world = World(nodes: 1)
    let id = try world.create("web", replicas: 3) { $0.updateConfig = self.config { $0.delay = .seconds(10) } }
    world.settle()
    try world.update(id) { $0.taskTemplate.containerSpec.image = "app:2" }
    world.run(for: .seconds(9))
    #expect(world.images(id).count { $0 == "app:2" } == 1)
    world.run(for: .seconds(2))
    #expect(world.images(id).count { $0 == "app:2" } == 2)
    world.run(for: .seconds(10))
    #expect(world.images(id).count { $0 == "app:2" } == 3)
    world.run(for: .seconds(20))
    #expect(world.status(id) == "completed: update completed")
  }

  @Test("a failing update pauses, and the rest keeps the old version", arguments: [UpdateConfig.Order.stopFirst, .startFirst])
  func pauses(_ order: UpdateConfig.Order) throws {
    var world = World(nodes: 3)
    let id = try world.create("web", replicas: 4) { $0.updateConfig = self.config { $0.order = order } }
    world.settle()
    world.broken = ["app:bad"]
    try world.update(id) { $0.taskTemplate.containerSpec.image = "app:bad" }
    world.run(for: .seconds(3))
    #expect(world.status(id).hasPrefix("paused: update paused due to failure or early termination of task "))
    // The first one ran, so the second was begun; then the first failed.
    #expect(world.images(id).count { $0 == "app:1" } == 2)
    // The way out: another update.
    world.broken = []
    try world.update(id) { $0.taskTemplate.containerSpec.image = "app:3" }
    world.run(for: .seconds(30))
    #expect(world.images(id) == Array(repeating: "app:3", count: 4))
    #expect(world.status(id) == "completed: update completed")
    #expect(world.violations == [])
  }

  @Test("a failing update rolls back by itself", arguments: [UpdateConfig.Order.stopFirst, .startFirst])
  func rollsBack(_ order: UpdateConfig.Order) throws {
    var world = World(nodes: 3)
    let id = try world.create("web", replicas: 4) {
      $0.updateConfig = self.config {
        $0.failureAction = .rollback
        $0.order = order
        $0.parallelism = 2
      }
    }
    world.settle()
    world.broken = ["app:bad"]
    try world.update(id) { $0.taskTemplate.containerSpec.image = "app:bad" }
    world.run(for: .seconds(60))
    #expect(world.status(id) == "rollback_completed: rollback completed")
    #expect(world.images(id) == Array(repeating: "app:1", count: 4))
    #expect(world.state.services[id]?.current == 1)
    #expect(world.violations == [])
  }

  @Test("failures under the allowed ratio, or with continue, do not stop it")
  func goesOn() throws {
    for action in [UpdateConfig.FailureAction.continue, .pause] {
      var world = World(nodes: 3)
      let id = try world.create("web", replicas: 4) {
        $0.updateConfig = self.config {
          $0.failureAction = action
          $0.maxFailureRatio = action == .pause ? 0.5 : 0
        }
      }
      world.settle()
      try world.update(id) { $0.taskTemplate.containerSpec.image = "app:2" }
      while world.images(id).count(where: { $0 == "app:2" }) == 0 {
        _ = world.decide()
        _ = world.agents()
      }
      world.fail(world.running(id).first { $0.revision == 2 }!)
      world.run(for: .seconds(30))
      #expect(world.images(id) == Array(repeating: "app:2", count: 4))
      #expect(world.status(id) == "completed: update completed")
      #expect(world.violations == [])
    }
  }

  @Test("a rollback by hand points back and replaces only what is new")
  func manualRollback() throws {
    var world = World(nodes: 2)
    let id = try world.create("web", replicas: 3)
    world.settle()
    #expect(throws: EditError.self) { try ServiceEdits.rollback(id, state: world.state, now: world.now) }
    world.stuck = ["app:2"]
    try world.update(id) { $0.taskTemplate.containerSpec.image = "app:2" }
    world.run(for: .seconds(1))
    let untouched = Set(world.running(id).map(\.id))
    #expect(untouched.count == 2)
    world.apply(try ServiceEdits.rollback(id, state: world.state, now: world.now))
    world.run(for: .seconds(1))
    #expect(world.status(id) == "rollback_started: manually requested rollback")
    world.run(for: .seconds(10))
    #expect(world.status(id) == "rollback_completed: rollback completed")
    #expect(world.images(id) == ["app:1", "app:1", "app:1"])
    #expect(untouched.isSubset(of: world.running(id).map(\.id)))
    #expect(world.state.services[id]?.current == 1 && world.state.services[id]?.previous == 2)
    #expect(world.violations == [])
  }

  @Test("scaling makes a revision but replaces nobody; the same spec makes none")
  func sameTemplate() throws {
    var world = World(nodes: 2)
    let id = try world.create("web", replicas: 2)
    world.settle()
    let before = world.running(id).map(\.id)
    try world.scale(id, 3)
    world.run(for: .seconds(10))
    #expect(world.running(id).map(\.id).starts(with: before))
    #expect(world.status(id) == "-")
    #expect(world.state.services[id]?.current == 2)
    try world.update(id) { _ in }
    #expect(world.state.services[id]?.current == 2)
  }

  @Test("a change of leaders in the middle of an update does not stop it")
  func leaderChange() throws {
    var world = World(nodes: 2)
    let id = try world.create("web", replicas: 8)
    world.settle()
    try world.update(id) { $0.taskTemplate.containerSpec.image = "app:2" }
    for round in 0..<40 {
      if round % 3 == 0 { world.reconciler.reset(world.state) }
      _ = world.decide()
      _ = world.agents()
      world.now.nanoseconds += 1_000
    }
    world.run(for: .seconds(30))
    #expect(world.images(id) == Array(repeating: "app:2", count: 8))
    #expect(world.status(id) == "completed: update completed")
    #expect(world.violations == [])
  }

  @Test("a global service is updated node by node")
  func global() throws {
    var world = World(nodes: 3)
    let id = try world.create("agent") { $0.mode = .globalMode }
    world.settle()
    try world.update(id) { $0.taskTemplate.containerSpec.image = "app:2" }
    world.run(for: .seconds(10))
    #expect(world.images(id) == ["app:2", "app:2", "app:2"])
    #expect(world.perNode(id) == [1, 1, 1])
    #expect(world.status(id) == "completed: update completed")
    #expect(world.violations == [])
  }

  @Test("an update passes a drained or paused node by, and reaches it when it takes tasks again", arguments: [NodeAvailability.drain, .pause])
  func globalOnDrainedNode(_ availability: NodeAvailability) throws {
    var world = World(nodes: 2)
    let id = try world.create("agent") { $0.mode = .globalMode }
    world.settle()
    world.editNode(2) { $0.availability = availability }
    world.run(for: .seconds(5))
    try world.update(id) { $0.taskTemplate.containerSpec.image = "app:2" }
    world.run(for: .seconds(10))
    #expect(world.violations == [])
    #expect(world.images(id).contains("app:2") && world.status(id) == "completed: update completed")
    world.editNode(2) { $0.availability = .active }
    world.run(for: .seconds(10))
    #expect(world.images(id) == ["app:2", "app:2"])
    #expect(world.violations == [])
  }

  @Test("with start-first a second update stops what the first had begun")
  func secondUpdate() throws {
    var world = World(nodes: 3)
    world.stuck = ["app:2", "app:3"]
    let id = try world.create("web") {
      $0.updateConfig = UpdateConfig()
      $0.updateConfig?.order = .startFirst
    }
    world.settle()
    for image in ["app:2", "app:3", "app:2", "app:3"] {
      try world.update(id) { $0.taskTemplate.containerSpec.image = image }
      world.settle()
      #expect(world.live(id).count == 2)
    }
    world.stuck = []
    world.run(for: .seconds(10))
    #expect(world.images(id) == ["app:3"] && world.live(id).count == 1)
  }

  @Test("with start-first a successor on its way leaves with its node as any other")
  func drainTwice() throws {
    var world = World(nodes: 3)
    let id = try world.create("web") {
      $0.updateConfig = UpdateConfig()
      $0.updateConfig?.order = .startFirst
    }
    world.settle()
    world.stuck = ["app:1"]
    for _ in 0..<2 {
      let node = world.live(id).last!.node!
      world.editNode(world.nodes.firstIndex(of: node)! + 1) { $0.availability = .drain }
      world.settle()
      #expect(world.live(id).count == 2)
    }
  }

  @Test("a drain that is taken back while its successor's node is drained leaves the task that serves, and makes no third")
  func drainTakenBack() throws {
    var world = World(nodes: 2)
    let id = try world.create("web") {
      $0.updateConfig = UpdateConfig()
      $0.updateConfig?.order = .startFirst
    }
    world.settle()
    let first = world.live(id)[0]
    let home = world.nodes.firstIndex(of: first.node!)! + 1
    world.editNode(home) { $0.availability = .drain }
    _ = world.decide()
    while world.running(id).count < 2, world.agents() {}
    // Before the leader has looked at the successor that serves now.
    world.editNode(home) { $0.availability = .active }
    world.editNode(3 - home) { $0.availability = .drain }
    _ = world.decide()
    #expect(world.live(id).map(\.id) == [first.id])
  }

  @Test("of two old tasks that serve one stays when the update pauses before their turn")
  func pausedBeforeItsTurn() throws {
    var world = World(nodes: 3)
    let id = try world.create("web", replicas: 4) {
      $0.updateConfig = self.config {
        $0.order = .startFirst
        $0.parallelism = 0
      }
    }
    world.settle()
    try world.update(id) { $0.taskTemplate.containerSpec.image = "app:2" }
    _ = world.decide()
    while world.running(id).count < 8, world.agents() {}
    world.broken = ["app:bad"]
    try world.update(id) {
      $0.taskTemplate.containerSpec.image = "app:bad"
      $0.updateConfig?.parallelism = 1
    }
    world.run(for: .seconds(10))
    #expect(world.status(id).hasPrefix("paused"))
    // The first one ran, so the second was begun; then the first failed.
    let images = world.images(id)
    #expect(images.count { $0 == "app:2" } == 2 && !images.contains("app:1"))
  }
}
