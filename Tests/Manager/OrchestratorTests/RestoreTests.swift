import Model
import Testing

@testable import Orchestrator

@Suite struct RestoreTests {
  private func deploy(_ world: inout World, _ name: String, _ services: [ServiceSpec], volumes: [String] = []) throws {
    var network = NetworkSpec(name: "\(name)_default")
    network.labels = [:]
    let wanted = ServiceEdits.Deployment(
      name: name, manifest: "services of \(name): \(services.map(\.name))", services: services, networks: [network],
      volumes: volumes.map { Volume(name: $0, createdAt: world.now) })
    var generator = SystemRandomNumberGenerator()
    let deployed = try ServiceEdits.deploy(wanted, state: world.state, now: world.now, generator: &generator)
    _ = try world.state.apply(deployed.command, at: world.state.index + 1).get()
  }
  private func spec(_ name: String, image: String = "web:1", network: String? = nil, port: UInt16? = nil) -> ServiceSpec {
    var task = TaskSpec(containerSpec: ContainerSpec(image: image))
    if let network { task.networks = [NetworkAttachmentConfig(target: network)] }
    var spec = ServiceSpec(name: name, taskTemplate: task, mode: .replicated(2))
    if let port { spec.endpointSpec = EndpointSpec(ports: [PortConfig(targetPort: 80, publishedPort: port)]) }
    return spec
  }
  private func restore(_ backup: ClusterState, into state: inout ClusterState, now: Timestamp) throws -> [String] {
    var generator = SystemRandomNumberGenerator()
    let plan = try ServiceEdits.restore(backup, state: state, now: now, generator: &generator)
    for command in plan.commands { _ = try state.apply(command, at: state.index + 1).get() }
    return plan.lines.filter { $0.change != .unchanged }.map { "\($0.change) \($0.name)" } + plan.kept.map { "kept \($0)" }
  }

  @Test("what differs is brought back by name: made, updated, removed; a second time there is nothing to do")
  func differences() throws {
    var world = World(nodes: 1)
    try deploy(
      &world, "shop", [spec("shop_web", network: "shop_default", port: 8080), spec("shop_db", network: "shop_default")], volumes: ["shop_data"])
    let backup = world.state
    // Later: another image, one service less and one more on its port, another stack, another volume.
    try deploy(&world, "shop", [spec("shop_web", image: "web:2", network: "shop_default")])
    try deploy(&world, "blog", [spec("blog_web", network: "blog_default", port: 8080)], volumes: ["blog_data"])
    let web = try #require(world.state.service(named: "shop_web"))
    // The task reaper takes the removed service away.
    let db = try #require(backup.service(named: "shop_db"))
    _ = try world.state.apply(Command(actions: [.removeService(db.id)]), at: world.state.index + 1).get()

    let lines = try restore(backup, into: &world.state, now: world.now)
    #expect(
      lines == [
        "removed service blog_web", "created service shop_db", "updated service shop_web", "updated stack shop", "removed stack blog",
        "kept volume blog_data",
      ])
    let after = try #require(world.state.service(named: "shop_web"))
    let before = try #require(backup.service(named: "shop_web"))
    #expect(after.id == web.id && world.state.spec(of: after) == backup.spec(of: before))
    #expect(world.state.service(named: "shop_db")?.id == db.id, "one that is gone comes back with its id")
    #expect(world.state.service(named: "blog_web")?.pendingDelete == true && world.state.stacks["blog"]?.isBeingRemoved == true)
    #expect(world.state.stacks["shop"]?.manifest == backup.stacks["shop"]?.manifest)
    #expect(Set(world.state.stacks["shop"]?.services.keys.map { $0 } ?? []) == [after.id, db.id])
    // blog_web is on its way out.
    #expect(try restore(backup, into: &world.state, now: world.now) == ["kept volume blog_data"])
  }

  @Test("into an empty cluster: every service on networks of today, with the backup's ids, in as few entries as fit")
  func empty() throws {
    var world = World(nodes: 1)
    let services = (0..<40).map { number in
      var spec = spec("big_s\(number)", network: "big_default")
      spec.taskTemplate.containerSpec.env = ["FILLER=" + String(repeating: "x", count: 100_000)]
      return spec
    }
    try deploy(&world, "big", services)
    let backup = world.state
    var fresh = World(nodes: 2).state
    var generator = SystemRandomNumberGenerator()
    let plan = try ServiceEdits.restore(backup, state: fresh, now: world.now, generator: &generator)
    #expect((4...6).contains(plan.commands.count), "\(plan.commands.count)")
    _ = try restore(backup, into: &fresh, now: world.now)
    #expect(fresh.services.count == 40 && Set(fresh.services.keys) == Set(backup.services.keys))
    let network = try #require(fresh.network(named: "big_default"))
    #expect(fresh.services.values.allSatisfy { fresh.spec(of: $0)?.taskTemplate.networks?.first?.target == network.id.description })
  }

  @Test("a secret comes back with its id, and to its own cluster only; a config by what it holds; another of the same name is not written over")
  func files() throws {
    func file(_ kind: StoredFile.Kind, _ id: UInt64, _ content: String) -> Action {
      .putFile(StoredFile(kind: kind, id: FileID(value: UInt128(id)), name: "f", data: Array(content.utf8), createdAt: .zero))
    }
    func state(_ actions: [Action]) throws -> ClusterState {
      var state = World(nodes: 1).state
      _ = try state.apply(Command(actions: actions), at: state.index + 1).get()
      return state
    }
    let now = World(nodes: 1).now
    let backup = try state([file(.secret, 1, "sealed"), file(.config, 2, "listen 80")])
    var fresh = try state([])
    #expect(try restore(backup, into: &fresh, now: now) == ["created config f", "created secret f"])
    #expect(fresh.file(.secret, named: "f")?.id == FileID(value: 1))
    var same = try state([file(.secret, 1, "sealed"), file(.config, 9, "listen 80")])
    #expect(try restore(backup, into: &same, now: now) == [])
    var changed = try state([file(.secret, 5, "sealed otherwise")])
    #expect(throws: EditError.self) { try restore(backup, into: &changed, now: now) }
    var other = try state([.putCluster(Cluster(id: ClusterID(value: 77), createdAt: .zero))])
    #expect(throws: EditError.conflict("secret f is sealed with the other cluster's key: create it here first (orch secret create f)")) {
      try restore(backup, into: &other, now: now)
    }
    _ = try other.apply(Command(actions: [file(.secret, 6, "sealed here")]), at: other.index + 1).get()
    #expect(try restore(backup, into: &other, now: now) == ["created config f"])
  }

  @Test("what cannot be is said before anything is done")
  func refused() throws {
    var world = World(nodes: 1)
    try deploy(&world, "shop", [spec("shop_web", network: "shop_default")])
    let backup = world.state
    let service = try #require(backup.service(named: "shop_web"))
    var state = world.state
    var leaving = service
    leaving.pendingDelete = true
    _ = try state.apply(Command(actions: [.putService(leaving)]), at: state.index + 1).get()
    #expect(throws: EditError.self) { try restore(backup, into: &state, now: world.now) }
    var other = world.state
    var network = try #require(other.network(named: "shop_default"))
    network.spec.internalOnly = true
    _ = try other.apply(Command(actions: [.putNetwork(network)]), at: other.index + 1).get()
    #expect(
      throws: EditError.conflict("network shop_default exists and is another than the backup's: remove it and what uses it first, then restore again")
    ) {
      try restore(backup, into: &other, now: world.now)
    }
  }
}
