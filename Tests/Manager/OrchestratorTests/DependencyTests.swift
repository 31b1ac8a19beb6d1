import Model
import Testing

@testable import Orchestrator

@Suite struct DependencyTests {
  private func depends(_ spec: inout ServiceSpec, _ service: String, _ condition: ServiceDependency.Condition) {
    spec.dependencies.append(ServiceDependency(service: service, condition: condition))
  }
  private func pending(_ world: World, _ id: ServiceID) -> String { world.live(id).map(\.status.message).joined(separator: "; ") }

  @Test("the label is docker compose's, and what is not well-formed in it is no dependency")
  func label() {
    var spec = ServiceSpec(name: "a", taskTemplate: TaskSpec(containerSpec: ContainerSpec(image: "a")))
    depends(&spec, "db", .healthy)
    depends(&spec, "job", .completed)
    #expect(spec.labels == ["com.docker.compose.depends_on": "db:service_healthy:false,job:service_completed_successfully:false"])
    #expect(spec.dependencies.map(\.service) == ["db", "job"])
    spec.labels?[StackLabel.dependsOn] = "db,x:y:false,:service_started,ok:service_started"
    #expect(spec.dependencies == [ServiceDependency(service: "ok", condition: .started)])
  }

  @Test("a task waits, and says for what, until the other service is healthy; what follows it does not wait")
  func healthy() throws {
    var world = World(nodes: 2)
    world.stuck = ["db:1"]
    let web = try world.create("web", replicas: 2) { depends(&$0, "db", .healthy) }
    let db = try world.create("db", replicas: 2) { $0.taskTemplate.containerSpec.image = "db:1" }
    world.settle()
    #expect(pending(world, web) == "waiting for db to be healthy (0/2); waiting for db to be healthy (0/2)")
    #expect(world.live(db).map(\.status.state) == [.starting, .starting])
    world.stuck = []
    world.settle()
    #expect(world.running(web).count == 2 && world.running(db).count == 2)
    // The database is away: a web that ends is replaced all the same, a new one waits.
    world.stuck = ["db:1"]
    for task in world.running(db) { world.fail(task) }
    world.settle()
    world.fail(world.running(web)[0])
    world.run(for: .seconds(1))
    #expect(world.running(web).count == 2)
    try world.scale(web, 3)
    world.run(for: .seconds(1))
    #expect(world.running(web).count == 2 && world.live(web).last?.status.message.hasPrefix("waiting for db to be healthy (0/2") == true)
    world.stuck = []
    world.run(for: .seconds(10))
    #expect(world.running(web).count == 3)
    #expect(world.violations == [])
  }

  @Test("started is enough with a container that is not healthy yet")
  func started() throws {
    var world = World(nodes: 1)
    world.stuck = ["db:1"]
    let web = try world.create("web") { depends(&$0, "db", .started) }
    world.settle()
    // There is no such service: nothing to wait for.
    #expect(world.running(web).count == 1)
    let db = try world.create("db") { $0.taskTemplate.containerSpec.image = "db:1" }
    let late = try world.create("late") { depends(&$0, "db", .started) }
    _ = world.decide()
    #expect(pending(world, late) == "waiting for db to start (0/1)")
    world.apply([.taskStatus(world.live(db)[0].id, TaskStatus(state: .starting, timestamp: world.now, message: "", containerID: "c"))])
    world.settle()
    #expect(world.running(late).count == 1)
  }

  @Test("a service that must complete first is waited for until it has, through its failures")
  func completed() throws {
    var world = World(nodes: 1)
    let job = try world.create("job") {
      var policy = RestartPolicy()
      policy.condition = .onFailure
      $0.taskTemplate.restartPolicy = policy
    }
    let web = try world.create("web") { depends(&$0, "job", .completed) }
    world.settle()
    #expect(pending(world, web) == "waiting for job to complete (0/1)")
    world.fail(world.running(job)[0])
    world.run(for: .seconds(1))
    #expect(world.running(web).isEmpty)
    world.fail(world.running(job)[0], exit: 0)
    world.settle()
    #expect(world.running(web).count == 1)
    // A new leader finds it so too.
    world.reconciler.reset(world.state)
    try world.scale(web, 2)
    world.settle()
    #expect(world.running(web).count == 2)
    #expect(world.violations == [])
  }

  @Test("one that is removed is not waited for any more")
  func removed() throws {
    var world = World(nodes: 1)
    world.stuck = ["db:1"]
    let db = try world.create("db") { $0.taskTemplate.containerSpec.image = "db:1" }
    let web = try world.create("web") { depends(&$0, "db", .healthy) }
    world.settle()
    #expect(world.running(web).isEmpty)
    world.apply(try ServiceEdits.remove(db, state: world.state))
    world.settle()
    #expect(world.running(web).count == 1)
  }
}
